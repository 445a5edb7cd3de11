"""Shard scripts: what groups that share shards must do in one step on the server.

Does        hold the Lua texts; each touches the keys of one shard only.
Does not    send them.
Invariants  those of `scripts.py`, and
            1. an epoch is above every one before it, also where those before were lost: it is at
               least the server's time in milliseconds. Whoever writes names his incarnation too.
            2. a shard whose stream is another by now (its last id, or the number of entries that
               were ever added, is below what was kept) begins at the oldest entry.
"""

from __future__ import annotations

from typing import Final

from penstock.backends.redis.scripts import LESS, Script

_COMMON: Final = (
    LESS
    + """local function stream_end(key)
  local last, added = '0-0', 0
  if redis.call('EXISTS', key) == 1 then
    local info = redis.call('XINFO', 'STREAM', key)
    for i = 1, #info, 2 do
      if info[i] == 'last-generated-id' then last = info[i + 1] end
      if info[i] == 'entries-added' then added = info[i + 1] end
    end
  end
  return last, added
end
local function same(key, last, added)
  local last_now, added_now = stream_end(key)
  return not less(last_now, last) and added_now >= tonumber(added)
end
"""
)

FOUND: Final = Script(
    4,
    """-- make a shard of a group. KEYS stream, share, positions, meta
-- ARGV group, start or '$', token, then what a member remembers: mark or '', last id, added
"""
    + _COMMON
    + """
local kind = redis.call('TYPE', KEYS[1]).ok
if kind ~= 'none' and kind ~= 'stream' then
  return redis.error_reply('WRONGTYPE the key holds a ' .. kind .. ', not a stream')
end
if kind == 'stream' then
  for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
    for i = 1, #group, 2 do
      if group[i] == 'name' and group[i + 1] == ARGV[1] then return {'events'} end
    end
  end
end
local parts = redis.call('HMGET', KEYS[4], 'shards', 'shard')
if parts[1] and parts[1] ~= '1' and not parts[2] then return {'sharded'} end
local there = redis.call('HGET', KEYS[2], 'token')
if there and redis.call('HEXISTS', KEYS[3], ARGV[1]) == 1 then return {'there'} end
local start, last, added = ARGV[2], stream_end(KEYS[1])
if start == '$' then start = last end
if ARGV[4] ~= '' then
  start = same(KEYS[1], ARGV[5], ARGV[6]) and ARGV[4] or '0-0'
end
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[2], 'token', ARGV[3], 'last', last, 'added', added)
if start == '0-0' then
  local removed = added - redis.call('XLEN', KEYS[1])
  redis.call('HSET', KEYS[2], 'counted', start, 'count', removed)
elseif start == last then
  redis.call('HSET', KEYS[2], 'counted', start, 'count', added)
end
redis.call('HSET', KEYS[3], ARGV[1], start)
return {'made', start}
""",
    when_full=True,
)

TAKE: Final = Script(
    3,
    """-- own a shard that is free, or whose beat is the one seen. KEYS stream, share, positions
-- ARGV group, member, incarnation, seen
"""
    + _COMMON
    + """
local s = redis.call('HMGET', KEYS[2], 'token', 'beat', 'epoch', 'state', 'notes', 'kept',
  'last', 'added', 'counted', 'count')
local position = redis.call('HGET', KEYS[3], ARGV[1])
if not s[1] or not position then return {'lost'} end
if s[2] and s[2] ~= ARGV[4] then return {'held', s[2]} end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local epoch = math.max(tonumber(s[3] or 0) + 1, now)
local replaced = not same(KEYS[1], s[7], s[8])
if replaced then
  redis.call('HDEL', KEYS[2], 'state', 'notes', 'kept', 'counted', 'count')
  redis.call('HSET', KEYS[2], 'last', '0-0', 'added', 0)
  redis.call('HSET', KEYS[3], ARGV[1], '0-0')
  position = '0-0'
  for i = 4, 10 do s[i] = false end
end
redis.call('HSET', KEYS[2], 'owner', ARGV[2], 'beat', ARGV[3] .. ':0',
  'epoch', string.format('%.0f', epoch), 'number', 0)
local age = s[6] and math.max(0, now - tonumber(s[6])) or 0
return {'taken', string.format('%.0f', epoch), position, s[6] and 1 or 0, s[4], s[5] or '', age,
  s[9] or '', s[10] or '', s[7] or '0-0', s[8] or '0', replaced and 1 or 0}
""",
    when_full=True,
)

_COMMIT: Final = """-- keep a position and what goes with it
-- KEYS stream, share, positions, letters, replay
-- ARGV group, epoch, incarnation, number, position, with state, state, notes, counted, count,
-- n, n replayed ids, then for each letter: of the replay log or not, n, n parts
local s = redis.call('HMGET', KEYS[2], 'epoch', 'beat', 'number')
if s[1] ~= ARGV[2] or not s[2] or string.sub(s[2], 1, #ARGV[3]) ~= ARGV[3] then
  return {'other', s[1] or '0'}
end
if redis.call('HEXISTS', KEYS[3], ARGV[1]) == 0 then return {'other', s[1]} end
if tonumber(ARGV[4]) <= tonumber(s[3]) then return {'again'} end
local last, added
if redis.call('EXISTS', KEYS[1]) == 1 then
  local info = redis.call('XINFO', 'STREAM', KEYS[1])
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then last = info[i + 1] end
    if info[i] == 'entries-added' then added = info[i + 1] end
  end
end
local replayed = tonumber(ARGV[11])
local at = 12 + replayed
while at <= #ARGV do  -- first what may be refused: nothing is kept then
  local n = tonumber(ARGV[at + 1])
  if ARGV[at] == '1' then  -- its own position begins its entry there
    local entry = redis.call('XRANGE', KEYS[5], ARGV[at + 3], ARGV[at + 3])[1]
    if entry then ARGV[at + 3] = entry[2][2] end
  end
  redis.call('XADD', KEYS[4], '*', unpack(ARGV, at + 2, at + n + 1))
  at = at + n + 2
end
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
redis.call('HSET', KEYS[2], 'number', ARGV[4], 'kept', now)
if last then redis.call('HSET', KEYS[2], 'last', last, 'added', added) end
if ARGV[6] == '1' then redis.call('HSET', KEYS[2], 'state', ARGV[7])
else redis.call('HDEL', KEYS[2], 'state') end
if ARGV[8] ~= '' then redis.call('HSET', KEYS[2], 'notes', ARGV[8])
else redis.call('HDEL', KEYS[2], 'notes') end
if ARGV[9] ~= '' then redis.call('HSET', KEYS[2], 'counted', ARGV[9], 'count', ARGV[10])
else redis.call('HDEL', KEYS[2], 'counted', 'count') end
redis.call('HSET', KEYS[3], ARGV[1], ARGV[5])
if replayed > 0 then redis.call('XDEL', KEYS[5], unpack(ARGV, 12, 11 + replayed)) end
return {'kept', last or '', added or 0}
"""

COMMIT: Final = Script(5, _COMMIT, when_full=True)
"""A commit without letters: where memory is full, what is done can be trimmed after it."""

COMMIT_WITH_LETTERS: Final = Script(5, _COMMIT)
"""One that writes letters, and is refused where memory is full, before anything is kept."""

GIVE: Final = Script(
    1,
    """-- give a shard up. KEYS share; ARGV epoch, incarnation
local s = redis.call('HMGET', KEYS[1], 'epoch', 'beat')
if s[1] ~= ARGV[1] or not s[2] or string.sub(s[2], 1, #ARGV[2]) ~= ARGV[2] then return 0 end
redis.call('HDEL', KEYS[1], 'owner', 'beat')
return 1
""",
    when_full=True,
)

STRIKE: Final = Script(
    1,
    """-- forget a member whose beat is the one seen, or his own. KEYS roster
-- ARGV member, beat seen or '', incarnation. 1: done, 0: it has beaten since, 2: it was gone
local beat = redis.call('HGET', KEYS[1], ARGV[1])
if not beat then return 2 end
if ARGV[2] ~= '' then
  if beat ~= ARGV[2] then return 0 end
elseif string.sub(beat, 1, #ARGV[3]) ~= ARGV[3] then
  return 0
end
redis.call('HDEL', KEYS[1], ARGV[1])
return 1
""",
    when_full=True,
)
