"""Recovery scripts: what keeps a group from losing its place, in one step on the server.

Does        hold the Lua texts that make a group, make a lost one anew, move its recovery mark, see
            what was trimmed, and set it elsewhere.
Does not    send them.
Invariants  those of `scripts.py`, and
            1. a group of ours has the parking consumer from its birth on: one without it was made
               by somebody else.
            2. a mark is computed from what the server knows at that moment, so it is never ahead
               of the acks.
Source      Redis XINFO, XGROUP, XPENDING; reliability notes 1.3, 1.4.
"""

from __future__ import annotations

from typing import Final

from penstock.backends.redis.scripts import LESS, Script

_IDS: Final = (
    LESS
    + """local function one_less(number)
  local head, zeros = string.match(number, '^(.-)(0*)$')
  local digits = string.sub(head, 1, -2) .. (string.sub(head, -1) - 1) .. string.rep('9', #zeros)
  return (string.gsub(digits, '^0+(%d)', '%1'))
end
local function before(id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  if seq ~= '0' then return ms .. '-' .. one_less(seq) end
  return one_less(ms) .. '-18446744073709551615'
end
local function named(flat)
  local about = {}
  for i = 1, #flat, 2 do about[flat[i]] = flat[i + 1] end
  return about
end
local function whole(number)  -- as text: tostring would round what is beyond 10^14
  return string.format('%.0f', number)
end
local function find_group(key, name)
  for _, one in ipairs(redis.call('XINFO', 'GROUPS', key)) do
    local about = named(one)
    if about['name'] == name then return about end
  end
end
"""
)

_PLACES: Final = """local function first_of(stream)
  return stream['length'] > 0 and stream['first-entry'][1]
end
local function read_up_to(stream, id)  -- how many were ever added up to id; nil: not known
  local first, newest = first_of(stream), stream['last-generated-id']
  if not less(id, newest) then return stream['entries-added'] end
  if first and (not less(id, first) or less(first, stream['max-deleted-entry-id'])) then return end
  return stream['entries-added'] - stream['length']
end
local function place_of_lost(key, stream, kept, copy)  -- where a group that was lost goes on
  local mark = kept[1] and kept or copy
  local position, added, last = mark[1], tonumber(mark[2]), mark[3]
  if not (position and added) then return '0-0' end
  local newest = stream['last-generated-id']
  if less(newest, last) or stream['entries-added'] < added then return '0-0' end
  if less(newest, position) then return '0-0' end
  if not kept[1] then  -- nothing on the server says that it is the same stream: it must show it
    local same = newest == last and stream['entries-added'] == added
    if not same and #redis.call('XRANGE', key, last, last) == 0 then return '0-0' end
  end
  return position
end
"""

_GAP: Final = """local function guarded(trimmed)  -- how many were trimmed that no group needed
  return tonumber(redis.call('HGET', trimmed, 'count') or 0)
end
local function trimmed_unread(key, mark, trimmed, group, stream, about)
  -- how many events were removed that the group was never given; -1: some, but not how many
  local last, first = about['last-delivered-id'], first_of(stream)
  if not less(last, stream['last-generated-id']) then
    -- it was given everything; a count that is not so was lost with a restart (Redis 7.0)
    if about['entries-read'] and about['entries-read'] ~= stream['entries-added'] then
      redis.call('XGROUP', 'SETID', key, group, last, 'ENTRIESREAD', whole(stream['entries-added']))
    end
    return 0
  end
  if first and not less(last, first) then return 0 end
  local gone = stream['entries-added'] - stream['length']
  local read = about['entries-read']
  if read and not less(last, stream['max-deleted-entry-id']) then
    -- all that it was given is gone too, so what else is gone is what it was not given. The count
    -- is set right, or a server that does not see the gap (Redis 7.0) would be wrong for ever
    if read ~= gone then
      redis.call('XGROUP', 'SETID', key, group, last, 'ENTRIESREAD', gone)
    end
    return math.max(0, gone - read)
  end
  local told, ours = redis.call('HMGET', mark, 'gone', 'guarded'), guarded(trimmed)
  redis.call('HSET', mark, 'gone', whole(gone), 'guarded', whole(ours))
  if not less(last, stream['max-deleted-entry-id']) then
    redis.call('XGROUP', 'SETID', key, group, last, 'ENTRIESREAD', gone)
  end
  ours = math.max(0, ours - (tonumber(told[2]) or 0))
  if told[1] and gone - told[1] > ours then return -1 end
  return 0
end
"""

MAKE: Final = Script(
    5,
    _IDS
    + _PLACES
    + """-- make a group. KEYS stream, mark, parked, attempts, meta
-- ARGV group, parking consumer, start ('0', '$' or an id), a new token, marks count ('0', '1'),
-- a copy of the mark: position, added, last (or '')
local kind = redis.call('TYPE', KEYS[1]).ok
if kind ~= 'none' and kind ~= 'stream' then
  return redis.error_reply('WRONGTYPE the key holds a ' .. kind .. ', not a stream')
end
local parts = redis.call('HMGET', KEYS[5], 'shards', 'shard')
if parts[1] and parts[1] ~= '1' and not parts[2] then return {'sharded', '', ''} end
local token = redis.call('HGET', KEYS[2], 'token')
local stream = {length = 0, ['entries-added'] = 0, ['last-generated-id'] = '0-0',
  ['max-deleted-entry-id'] = '0-0'}
if kind == 'stream' then
  if find_group(KEYS[1], ARGV[1]) then
    if redis.call('XGROUP', 'CREATECONSUMER', KEYS[1], ARGV[1], ARGV[2]) == 1 or not token then
      token = ARGV[4]
      redis.call('DEL', KEYS[2])
      redis.call('HSET', KEYS[2], 'token', token)
    end
    return {'there', token, ''}
  end
  stream = named(redis.call('XINFO', 'STREAM', KEYS[1]))
end
local lost = ARGV[5] == '1' and (token or ARGV[6] ~= '')
local start = ARGV[3]
if lost then
  local kept = redis.call('HMGET', KEYS[2], 'position', 'added', 'last')
  start = place_of_lost(KEYS[1], stream, kept, {ARGV[6] ~= '' and ARGV[6], ARGV[7], ARGV[8]})
elseif start == '$' then
  start = stream['last-generated-id']
elseif start == '0' then
  start = '0-0'
end
local read = read_up_to(stream, start)
if read then
  redis.call('XGROUP', 'CREATE', KEYS[1], ARGV[1], start, 'MKSTREAM', 'ENTRIESREAD', read)
else
  redis.call('XGROUP', 'CREATE', KEYS[1], ARGV[1], start, 'MKSTREAM')
end
redis.call('XGROUP', 'CREATECONSUMER', KEYS[1], ARGV[1], ARGV[2])
redis.call('DEL', KEYS[2], KEYS[3])
if start == '0-0' then redis.call('DEL', KEYS[4]) end
redis.call('HSET', KEYS[2], 'token', ARGV[4], 'position', start, 'added',
  whole(stream['entries-added']), 'last', stream['last-generated-id'])
return {lost and 'again' or 'made', ARGV[4], start}
""",
    when_full=True,
)

TEND: Final = Script(
    6,
    _IDS
    + _PLACES
    + _GAP
    + """-- look after a group. KEYS stream, mark, parked, attempts, beats, trimmed
-- ARGV group, member, parking consumer, the token known, a new one, foreign idle in ms,
-- cursor, limit, a copy of the mark: position, added, last (or '')
local gone = redis.error_reply('NOGROUP the group is gone')
if redis.call('EXISTS', KEYS[1]) == 0 then return gone end
local about = find_group(KEYS[1], ARGV[1])
if not about then return gone end
local stream = named(redis.call('XINFO', 'STREAM', KEYS[1]))
local kept = redis.call('HMGET', KEYS[2], 'position', 'added', 'last', 'token', 'gone')
if redis.call('XGROUP', 'CREATECONSUMER', KEYS[1], ARGV[1], ARGV[3]) == 1 then
  -- somebody else has made it, perhaps behind events that were never handed out
  local start = place_of_lost(KEYS[1], stream, kept,
    {ARGV[9] ~= '' and ARGV[9], ARGV[10], ARGV[11]})
  if less(start, about['last-delivered-id']) then
    local read = read_up_to(stream, start)
    if read then
      redis.call('XGROUP', 'SETID', KEYS[1], ARGV[1], start, 'ENTRIESREAD', read)
    else
      redis.call('XGROUP', 'SETID', KEYS[1], ARGV[1], start)
    end
  else
    start = about['last-delivered-id']
  end
  redis.call('DEL', KEYS[2], KEYS[3])
  redis.call('HSET', KEYS[2], 'token', ARGV[5], 'position', start, 'added',
    whole(stream['entries-added']), 'last', stream['last-generated-id'])
  return {'other', ARGV[5], start}
end
if kept[4] and kept[4] ~= ARGV[4] then return {'other', kept[4], kept[1] or ''} end
local lost = trimmed_unread(KEYS[1], KEYS[2], KEYS[6], ARGV[1], stream, about)
local position = about['last-delivered-id']
local oldest = redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1)[1]
if oldest then
  local behind = before(oldest[1])
  if less(behind, position) then position = behind end
end
local added, last = whole(stream['entries-added']), stream['last-generated-id']
local gone_now = whole(stream['entries-added'] - stream['length'])
if not kept[4] or kept[1] ~= position or kept[2] ~= added or kept[3] ~= last
    or kept[5] ~= gone_now then
  redis.call('HSET', KEYS[2], 'token', ARGV[4], 'position', position, 'added', added,
    'last', last, 'gone', gone_now, 'guarded', whole(guarded(KEYS[6])))
end
local first = first_of(stream)
local dead = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[7], first and '(' .. first or '+',
  ARGV[8])
local own, swept = {}, 0
for _, one in ipairs(dead) do  -- pending, and trimmed: what a living member holds is its business
  local id, owner = one[1], one[2]
  if owner == ARGV[2] then
    own[#own + 1] = id
  elseif owner == ARGV[3] or (one[3] >= tonumber(ARGV[6])
      and redis.call('HEXISTS', KEYS[5], owner) == 0) then
    swept = swept + redis.call('XACK', KEYS[1], ARGV[1], id)
    redis.call('ZREM', KEYS[3], id)
    redis.call('HDEL', KEYS[4], id)
  end
end
local cursor = #dead == tonumber(ARGV[8]) and '(' .. dead[#dead][1] or '-'
local due = redis.call('ZRANGE', KEYS[3], 0, 0, 'WITHSCORES')[2]
local time = redis.call('TIME')
local pause = due and math.max(0, due - time[1] * 1000 - math.floor(time[2] / 1000)) or -1
return {'same', kept[4] or ARGV[4], position, added, last, lost, swept, own, cursor,
  pause}
""",
    when_full=True,
)

GAP: Final = Script(
    3,
    _IDS
    + _PLACES
    + _GAP
    + """-- what was trimmed before the read that follows. KEYS stream, mark, trimmed; ARGV group
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local about = find_group(KEYS[1], ARGV[1])
if not about then return 0 end
if redis.REDIS_VERSION_NUM <= 0x00070204 and about['lag'] then
  -- its lag still counts what is gone; and to look at the stream would copy its first entry
  if about['lag'] <= redis.call('XLEN', KEYS[1]) then return 0 end
end
local stream = named(redis.call('XINFO', 'STREAM', KEYS[1]))
return trimmed_unread(KEYS[1], KEYS[2], KEYS[3], ARGV[1], stream, about)
""",
    when_full=True,
)

RENEW: Final = Script(
    1,
    """-- keep a consumer's events from others that go by idle time. KEYS stream
-- ARGV group, consumer, cursor, limit
local from = ARGV[3]
if from == '-' then  -- what was trimmed may be in a hand: to claim it would drop it
  local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
  if not first then return {'', 0} end
  from = first[1]
end
local pending = redis.call('XPENDING', KEYS[1], ARGV[1], from, '+', ARGV[4], ARGV[2])
if #pending == 0 then return {'', 0} end
local ids = {}
for i, one in ipairs(pending) do ids[i] = one[1] end
local last = ids[#ids]
ids[#ids + 1] = 'JUSTID'
local kept = redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, unpack(ids))
return {'(' .. last, #pending - #kept}
""",
    when_full=True,
)

REPARK: Final = Script(
    2,
    """-- give what is parked and has lost its time another: now. KEYS stream, parked
-- ARGV group, parking consumer, cursor, limit
local page = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], '+', ARGV[4], ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local added = 0
for _, one in ipairs(page) do added = added + redis.call('ZADD', KEYS[2], 'NX', now, one[1]) end
return {#page == tonumber(ARGV[4]) and '(' .. page[#page][1] or '', added}
""",
    when_full=True,
)

RESET: Final = Script(
    5,
    _IDS
    + _PLACES
    + """-- set a group elsewhere, with nothing pending. KEYS stream, mark, parked, attempts, beats
-- ARGV group, parking consumer, start, a new token, force, then beats seen: member, beat, ...
if redis.call('EXISTS', KEYS[1]) == 0 then return {'none'} end
if not find_group(KEYS[1], ARGV[1]) then return {'none'} end
local seen = {}
for i = 6, #ARGV, 2 do seen[ARGV[i]] = ARGV[i + 1] end
if ARGV[5] ~= '1' then
  local beats = redis.call('HGETALL', KEYS[5])
  for i = 1, #beats, 2 do
    if beats[i + 1] ~= 'struck' and beats[i + 1] ~= seen[beats[i]] then
      return {'alive', beats[i]}
    end
  end
  redis.call('DEL', KEYS[5])
end
local stream = named(redis.call('XINFO', 'STREAM', KEYS[1]))
local start = ARGV[3]
if start == '$' then start = stream['last-generated-id'] elseif start == '0' then start = '0-0' end
local read = read_up_to(stream, start)
redis.call('XGROUP', 'DESTROY', KEYS[1], ARGV[1])
if read then
  redis.call('XGROUP', 'CREATE', KEYS[1], ARGV[1], start, 'ENTRIESREAD', read)
else
  redis.call('XGROUP', 'CREATE', KEYS[1], ARGV[1], start)
end
redis.call('XGROUP', 'CREATECONSUMER', KEYS[1], ARGV[1], ARGV[2])
redis.call('DEL', KEYS[2], KEYS[3], KEYS[4])
redis.call('HSET', KEYS[2], 'token', ARGV[4], 'position', start, 'added',
  whole(stream['entries-added']), 'last', stream['last-generated-id'])
return {'reset'}
""",
    when_full=True,
)

RESET_SHARE: Final = Script(
    3,
    _IDS
    + _PLACES
    + """-- set a shard of a group elsewhere, with nothing kept. KEYS stream, share, positions
-- ARGV group, start, a new token
if redis.call('HEXISTS', KEYS[3], ARGV[1]) == 0 then return 0 end
local stream = {length = 0, ['entries-added'] = 0, ['last-generated-id'] = '0-0',
  ['max-deleted-entry-id'] = '0-0'}
if redis.call('EXISTS', KEYS[1]) == 1 then
  stream = named(redis.call('XINFO', 'STREAM', KEYS[1]))
end
local start = ARGV[2]
if start == '$' then start = stream['last-generated-id'] elseif start == '0' then start = '0-0' end
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[2], 'token', ARGV[3], 'last', stream['last-generated-id'],
  'added', whole(stream['entries-added']))
local read = read_up_to(stream, start)
if read then redis.call('HSET', KEYS[2], 'counted', start, 'count', whole(read)) end
redis.call('HSET', KEYS[3], ARGV[1], start)
return 1
""",
    when_full=True,
)
