"""Append scripts: a batch into one stream key, once, in one step.

Does        hold the Lua texts: `APPEND` for events that ask for nothing more, `STORE` for batches
            with terms (ids that are compared, an expected position, a time before which an event
            is not there), `MOVE` for those whose time has come.
Does not    send them.
Invariants  those of `scripts.py`, and
            1. ids within a batch follow each other: after ``*`` each entry takes ``<ms>-*``;
               both scripts keep one numbering, so that a session may use them in turns.
            2. of a batch with terms each event is judged behind the ones before it; what is not
               stored leaves no trace.
            3. ids are kept for the longest window that was asked for, and at most twice that: two
               sides, of which the older is dropped whole.
Source      reliability notes 1.8, 1.13.
"""

from __future__ import annotations

from typing import Final

from penstock.backends.redis.scripts import Script

_OUTLIVE: Final = """
local function outlive(ms)  -- the marks, by an hour; never sooner than they would go anyway
  if redis.call('PTTL', KEYS[2]) < ms + 3600000 then
    redis.call('PEXPIRE', KEYS[2], string.format('%.0f', ms + 3600000))
  end
end
"""

_CHECKED: Final = (
    _OUTLIVE
    + """
local last = tonumber(redis.call('HGET', KEYS[3], 'last') or false)
if not last then return {'missing'} end
local sequence = tonumber(ARGV[1])
local slot = 'b' .. sequence % 64
if sequence <= last then
  local kept = redis.call('HGET', KEYS[3], slot) or ''
  local at = string.find(kept, ' ', 1, true)
  if at and tonumber(string.sub(kept, 1, at - 1)) == sequence then
    redis.call('PEXPIRE', KEYS[3], ARGV[4])  -- a write: what is waited for covers it
    return {'again', string.sub(kept, at + 1)}
  end
  return {'gap', last}
end
if sequence ~= last + 1 then return {'gap', last} end
local meta = redis.call('HMGET', KEYS[2], 'stamp', 'retention')
if ARGV[2] ~= '' and meta[1] ~= ARGV[2] then return {'unmarked'} end
if ARGV[3] ~= '0' and redis.call('EXISTS', KEYS[tonumber(ARGV[3])]) == 0 then return {'absent'} end
local keep = meta[2] and cjson.decode(meta[2])
local function count(at, terms)  -- of entries that begin at at, each behind so many terms
  local n = 0
  while at <= #ARGV do
    at, n = at + terms + tonumber(ARGV[at + terms]) + 1, n + 1
  end
  return n
end
local function no_room(coming)
  return keep and keep.cap and keep.at_cap ~= 'drop-oldest'
    and redis.call('XLEN', KEYS[1]) + coming > keep.cap
end
local function keep_within()
  if keep.cap and keep.at_cap == 'drop-oldest' then
    local dropped = redis.call('XTRIM', KEYS[1], 'MAXLEN', '=', keep.cap)
    if dropped > 0 then redis.call('HINCRBY', KEYS[2], 'dropped', dropped) end
  end
  if keep.ttl and (keep.sliding or redis.call('PTTL', KEYS[1]) == -1) then
    local ms = keep.ttl * 1000
    redis.call('PEXPIRE', KEYS[1], string.format('%.0f', ms))
    outlive(ms)
  end
end
"""
)

APPEND: Final = Script(
    3,
    """-- append a batch once. KEYS stream, meta, session
-- ARGV sequence, stamp or '', which key must exist or 0, ttl, then for each entry: n, n parts
"""
    + _CHECKED
    + """
if keep and no_room(count(5, 0)) then return {'full', keep.cap} end
local total, at = #ARGV, 5
local n = tonumber(ARGV[at])
local first = redis.call('XADD', KEYS[1], '*', unpack(ARGV, at + 1, at + n))
at = at + n + 1
if at <= total then
  local following = string.sub(first, 1, string.find(first, '-', 1, true)) .. '*'
  repeat
    n = tonumber(ARGV[at])
    redis.call('XADD', KEYS[1], following, unpack(ARGV, at + 1, at + n))
    at = at + n + 1
  until at > total
end
if keep then keep_within() end
redis.call('HSET', KEYS[3], 'last', sequence, slot, ARGV[1] .. ' ' .. first)
redis.call('PEXPIRE', KEYS[3], ARGV[4])
return {'stored', first}
""",
)

STORE: Final = Script(
    8,
    """-- append a batch with terms once. KEYS stream, meta, session, ids, one side, other side,
-- delayed, waiting
-- ARGV as APPEND up to ttl, window in ms, then for each entry:
-- id or '', digest, expected position or '', due in ms or '', n, n parts
"""
    + _CHECKED
    + """
local kind = redis.call('TYPE', KEYS[1]).ok
if kind ~= 'none' and kind ~= 'stream' then
  return redis.error_reply('WRONGTYPE the key holds a ' .. kind .. ', not a stream')
end
if keep and no_room(count(6, 4)) then return {'full', keep.cap} end
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local window, side, longest = tonumber(ARGV[5]), 0, 0
if window > 0 then
  local kept = redis.call('HMGET', KEYS[4], 'at', 'side', 'window')
  longest = math.max(window, tonumber(kept[3] or 0))
  local began = tonumber(kept[1] or 0)
  side = tonumber(kept[2] or 0)
  if now < began then  -- the clock went back: nothing is any older for that
    redis.call('HSET', KEYS[4], 'at', string.format('%.0f', now))
  elseif now - began >= longest then
    side = 1 - side
    redis.call('HSET', KEYS[4], 'at', string.format('%.0f', now), 'side', side)
    redis.call('UNLINK', KEYS[5 + side])
  end
  redis.call('HSET', KEYS[4], 'window', string.format('%.0f', longest))
  redis.call('PEXPIRE', KEYS[4], string.format('%.0f', 3 * longest))
end
local function newest()
  if redis.call('EXISTS', KEYS[1]) == 0 then return '0-0' end
  local info = redis.call('XINFO', 'STREAM', KEYS[1])
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then return info[i + 1] end
  end
end
local function known(id, digest)
  for _, key in ipairs({KEYS[5 + side], KEYS[6 - side]}) do
    local when, what, where = string.match(redis.call('HGET', key, id) or '',
      '^(%d+) (%S+) (%S+)$')
    if when and now - tonumber(when) < window then
      return (what == digest and 'a:' or 'c:') .. where
    end
  end
end
local latest = 0
local function delay(due, from, n)
  latest = math.max(latest, tonumber(due) - now)
  local token = string.format('%016.0f', redis.call('HINCRBY', KEYS[8], '', 1))
  local parts = {}
  for i = from, from + n - 1 do parts[#parts + 1] = ARGV[i] end
  redis.call('HSET', KEYS[8], token, cmsgpack.pack(parts))
  redis.call('ZADD', KEYS[7], due, token)
end
local total, at, index = #ARGV, 6, 0
local first, following, answer = '-', '*', {}
while at <= total do
  local id, what, expect, due = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local n, from = tonumber(ARGV[at + 4]), at + 5
  local said = id ~= '' and known(id, what) or nil
  if not said and expect ~= '' then
    local stands = newest()
    if stands ~= expect then said = 'x:' .. stands end
  end
  if said then
    answer[#answer + 1] = index .. ':' .. said
  else
    local where = 'w'
    if due ~= '' and tonumber(due) > now then
      delay(due, from, n)
      answer[#answer + 1] = index .. ':w:w'
    else
      where = redis.call('XADD', KEYS[1], following, unpack(ARGV, from, from + n - 1))
      if first == '-' then
        first = where
        following = string.sub(first, 1, string.find(first, '-', 1, true)) .. '*'
      end
    end
    if id ~= '' and window > 0 then
      redis.call('HSET', KEYS[5 + side], id, string.format('%.0f %s %s', now, what, where))
    end
  end
  at, index = from + n, index + 1
end
if keep and first ~= '-' then keep_within() end
if keep and keep.ttl and latest > 0 then outlive(latest + keep.ttl * 1000) end
if window > 0 then redis.call('PEXPIRE', KEYS[5 + side], string.format('%.0f', 3 * longest)) end
table.insert(answer, 1, first)
answer = table.concat(answer, ' ')
redis.call('HSET', KEYS[3], 'last', sequence, slot, ARGV[1] .. ' ' .. answer)
redis.call('PEXPIRE', KEYS[3], ARGV[4])
return {'stored', answer}
""",
)

MOVE: Final = Script(
    5,
    """-- move what is due into the stream; say what is to be kept of it, to one client at a time.
-- KEYS stream, meta, delayed, waiting, lock
-- ARGV events at most, bytes at most, ms for which the lock is held
"""
    + _OUTLIVE
    + """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local stored = redis.call('HMGET', KEYS[2], 'retention', 'dropped')
local keep = stored[1] and cjson.decode(stored[1])
local due = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now, 'LIMIT', 0, ARGV[1])
local moved, bytes, more = 0, 0, #due == tonumber(ARGV[1]) and 1 or 0
if #due > 0 then
  local kind = redis.call('TYPE', KEYS[1]).ok
  if kind ~= 'none' and kind ~= 'stream' then
    return redis.error_reply('WRONGTYPE the key holds a ' .. kind .. ', not a stream')
  end
end
for _, token in ipairs(due) do
  if keep and keep.cap and keep.at_cap ~= 'drop-oldest'
    and redis.call('XLEN', KEYS[1]) >= keep.cap then more = 0 break end
  if bytes > tonumber(ARGV[2]) then more = 1 break end
  local packed = redis.call('HGET', KEYS[4], token)
  if packed then
    redis.call('XADD', KEYS[1], '*', unpack(cmsgpack.unpack(packed)))
    bytes = bytes + #packed
    moved = moved + 1
  end
  redis.call('HDEL', KEYS[4], token)
  redis.call('ZREM', KEYS[3], token)
end
if moved > 0 and keep then
  if keep.cap and keep.at_cap == 'drop-oldest' then
    local dropped = redis.call('XTRIM', KEYS[1], 'MAXLEN', '=', keep.cap)
    if dropped > 0 then redis.call('HINCRBY', KEYS[2], 'dropped', dropped) end
  end
  if keep.ttl and (keep.sliding or redis.call('PTTL', KEYS[1]) == -1) then
    redis.call('PEXPIRE', KEYS[1], string.format('%.0f', keep.ttl * 1000))
    outlive(keep.ttl * 1000)
  end
end
local next = redis.call('ZRANGE', KEYS[3], 0, 0, 'WITHSCORES')[2]
if moved > 0 and not next then redis.call('UNLINK', KEYS[4]) end
local wait = next and string.format('%.0f', math.max(0, tonumber(next) - now)) or ''
local retention, dropped = '', 0
if keep and redis.call('SET', KEYS[5], '1', 'NX', 'PX', ARGV[3]) then
  retention, dropped = stored[1], tonumber(stored[2] or 0)
  if dropped > 0 then redis.call('HDEL', KEYS[2], 'dropped') end
end
return {moved, more, wait, retention, dropped, string.format('%.0f', now)}
""",
)

RETAIN: Final = Script(
    3,
    """-- keep another amount from now on. KEYS stream, meta, delayed
-- ARGV retention or ''
"""
    + _OUTLIVE
    + """
if redis.call('EXISTS', KEYS[2]) == 0 then return 0 end
if ARGV[1] == '' then
  redis.call('HDEL', KEYS[2], 'retention')
  redis.call('PERSIST', KEYS[1])
  redis.call('PERSIST', KEYS[2])
  return 1
end
redis.call('HSET', KEYS[2], 'retention', ARGV[1])
local keep = cjson.decode(ARGV[1])
if keep.ttl then
  redis.call('PEXPIRE', KEYS[1], string.format('%.0f', keep.ttl * 1000))
  local last = redis.call('ZRANGE', KEYS[3], -1, -1, 'WITHSCORES')[2]
  if last then
    local clock = redis.call('TIME')
    outlive(math.max(0, last - clock[1] * 1000) + keep.ttl * 1000)
  elseif redis.call('EXISTS', KEYS[1]) == 1 then
    outlive(keep.ttl * 1000)
  end
else
  redis.call('PERSIST', KEYS[1])
  redis.call('PERSIST', KEYS[2])
end
return 1
""",
)
