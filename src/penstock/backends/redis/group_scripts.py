"""Group scripts: what groups that share events must do in one step on the server.

Does        hold the Lua texts; each touches the keys of one stream only.
Does not    send them.
Invariants  those of `scripts.py`.
"""

from __future__ import annotations

from typing import Final

from penstock.backends.redis.scripts import Script

ANOTHER: Final = """
local function another()  -- whether the member's name is another's by now
  local beat = redis.call('HGET', KEYS[2], ARGV[2])
  return beat and beat ~= 'struck' and string.sub(beat, 1, #ARGV[3]) ~= ARGV[3]
end
"""
"""A part of scripts whose first arguments are group, member and family; the beats are KEYS[2]."""

JOIN: Final = Script(
    1,
    """-- become a member. KEYS beats; ARGV member, incarnation, seen
local beat = redis.call('HGET', KEYS[1], ARGV[1])
if beat and beat ~= 'struck' and beat ~= ARGV[3] then return beat end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ':0')
return 'joined'
""",
    when_full=True,
)

BEAT: Final = Script(
    1,
    """-- one heartbeat. KEYS beats; ARGV member, incarnation, counter, note
local beat = redis.call('HGET', KEYS[1], ARGV[1])
if not beat or string.sub(beat, 1, #ARGV[2]) ~= ARGV[2] then return 0 end
local time = redis.call('TIME')  -- for people: nobody is judged by it
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ':' .. ARGV[3] .. '@' .. now .. ARGV[4])
return 1
""",
    when_full=True,
)

LOOK: Final = Script(
    4,
    """-- due events, and on request who beats. KEYS stream, beats, parked, attempts
-- ARGV group, member, parked consumer, limit, beats wanted, incarnation
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function failures(kept)
  local n, company = string.match(kept or '0', '^(%d+):?(%d*)$')
  return tonumber(n), tonumber(company) or 0
end
local beats, consumers, parked = {}, {}, 0
if ARGV[5] == '1' then
  parked = redis.call('ZCARD', KEYS[3])
  beats = redis.call('HGETALL', KEYS[2])
  if redis.call('EXISTS', KEYS[1]) == 1 then
    consumers = redis.pcall('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])
    if consumers.err then return redis.error_reply(consumers.err) end
  end
end
if redis.call('EXISTS', KEYS[3]) == 1 then
  local back = (tonumber(redis.call('HGET', KEYS[4], '@time') or 0)) - now
  if back > 1000 then  -- the clock went back: what waits for its time must not wait for the old one
    for at = 0, redis.call('ZCARD', KEYS[3]) - 1, 500 do
      local page = redis.call('ZRANGE', KEYS[3], at, at + 499, 'WITHSCORES')
      for i = 1, #page, 2 do redis.call('ZADD', KEYS[3], page[i + 1] - back, page[i]) end
    end
  end
  redis.call('HSET', KEYS[4], '@time', now)
end
local mine = redis.call('HGET', KEYS[2], ARGV[2])  -- else others would not hear of what is given
local is_mine = mine and string.sub(mine, 1, #ARGV[6]) == ARGV[6]
local due = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now, 'LIMIT', 0, is_mine and ARGV[4] or 0)
local ids, deliveries, entries, counts = {}, {}, {}, {}
for _, id in ipairs(due) do  -- parked in a group that is gone: it may be in a living hand by now
  local one = redis.call('XPENDING', KEYS[1], ARGV[1], id, id, 1)[1]
  if one and one[2] == ARGV[3] then
    ids[#ids + 1] = id
    deliveries[id] = one[4]
  end
end
if #ids > 0 then
  entries = redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, unpack(ids))
  for i, entry in ipairs(entries) do
    counts[i] = {deliveries[entry[1]] + 1, failures(redis.call('HGET', KEYS[4], entry[1]))}
    deliveries[entry[1]] = nil
  end
  for id in pairs(deliveries) do redis.call('HDEL', KEYS[4], id) end  -- trimmed or removed
end
if #due > 0 then redis.call('ZREM', KEYS[3], unpack(due)) end
return {#ids - #entries, entries, counts, beats, consumers, parked}
""",
    when_full=True,
)

CLAIM: Final = Script(
    3,
    """-- take pending events over, a page. KEYS stream, beats, attempts
-- ARGV group, member, incarnation, from, fence ('own', 'foreign' or the beat seen), idle, cursor,
-- limit
local mine = redis.call('HGET', KEYS[2], ARGV[2])
if not mine or string.sub(mine, 1, #ARGV[3]) ~= ARGV[3] then return {'lapsed'} end
local beat = redis.call('HGET', KEYS[2], ARGV[4])
if ARGV[5] == 'foreign' then
  if beat then return {'alive'} end
elseif ARGV[5] ~= 'own' then
  if not beat then return {'gone'} end
  if beat ~= 'struck' then
    if beat ~= ARGV[5] then return {'alive'} end
    redis.call('HSET', KEYS[2], ARGV[4], 'struck')
  end
end
local pending
if ARGV[6] == '0' then
  pending = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[7], '+', ARGV[8], ARGV[4])
else
  pending = redis.call('XPENDING', KEYS[1], ARGV[1], 'IDLE', ARGV[6], ARGV[7], '+', ARGV[8],
    ARGV[4])
end
if #pending == 0 then return {'empty'} end
local ids, deliveries = {}, {}
for i, one in ipairs(pending) do
  ids[i] = one[1]
  deliveries[one[1]] = one[4]
end
local entries = redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, unpack(ids))
local failed = redis.call('HMGET', KEYS[3], unpack(ids))
local attempts = {}
for i, id in ipairs(ids) do attempts[id] = failed[i] or '0' end
local counts = {}
for i, entry in ipairs(entries) do
  local n, company = string.match(attempts[entry[1]], '^(%d+):?(%d*)$')
  counts[i] = {deliveries[entry[1]] + 1, tonumber(n), tonumber(company) or 0}
  failed[entry[1]] = true
end
for i, id in ipairs(ids) do  -- it was trimmed: nobody will ask for its failures again
  if failed[i] and not failed[id] then redis.call('HDEL', KEYS[3], id) end
end
return {'claimed', entries, counts, #ids - #entries, ids[#ids]}
""",
    when_full=True,
)

PARK: Final = Script(
    4,
    """-- hand events back. KEYS stream, beats, parked, attempts
-- ARGV group, member, family, parked consumer, delay in ms, company (-1: no failure), most (0:
-- any), ids..."""
    + ANOTHER
    + """if another() then return {{}, {}, 0} end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local due = now + ARGV[5]
if now > tonumber(redis.call('HGET', KEYS[4], '@time') or 0) then
  redis.call('HSET', KEYS[4], '@time', now)
end
local room = math.huge
if ARGV[7] ~= '0' then room = tonumber(ARGV[7]) - redis.call('ZCARD', KEYS[3]) end
local kept, left, gone = {}, {}, 0
for i = 8, #ARGV do
  local id = ARGV[i]
  local one = redis.call('XPENDING', KEYS[1], ARGV[1], id, id, 1)[1]
  if one and one[2] == ARGV[2] then
    if #kept >= room then
      left[#left + 1] = id
    else
      redis.call('ZADD', KEYS[3], due, id)
      if #redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[4], 0, id, 'JUSTID') == 0 then
        gone = gone + 1  -- it was trimmed: it is pending no more
        redis.call('ZREM', KEYS[3], id)
        redis.call('HDEL', KEYS[4], id)
      elseif ARGV[6] ~= '-1' then
        local failed = string.match(redis.call('HGET', KEYS[4], id) or '0', '^%d+')
        redis.call('HSET', KEYS[4], id, (failed + 1) .. ':' .. ARGV[6])
      end
      kept[#kept + 1] = id
    end
  end
end
return {kept, left, gone}
""",
    when_full=True,
)

LEAVE: Final = Script(
    3,
    """-- hand a page back and, when nothing is left, go. KEYS stream, beats, parked
-- ARGV group, member, incarnation, parked consumer, limit, whether a read of its may yet be served
local beat = redis.call('HGET', KEYS[2], ARGV[2])
if not beat or string.sub(beat, 1, #ARGV[3]) ~= ARGV[3] then return {-1, 0} end
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('HDEL', KEYS[2], ARGV[2])
  return {0, 0}
end
local pending = redis.pcall('XPENDING', KEYS[1], ARGV[1], '-', '+', ARGV[5], ARGV[2])
if pending.err then
  redis.call('HDEL', KEYS[2], ARGV[2])
  return {0, 0}
end
if #pending == 0 then
  redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
  if ARGV[6] == '1' then
    redis.call('HSET', KEYS[2], ARGV[2], 'struck')  -- others take what that read is given
  else
    redis.call('HDEL', KEYS[2], ARGV[2])
  end
  return {0, 0}
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ids = {}
for i, one in ipairs(pending) do ids[i] = one[1] end
ids[#ids + 1] = 'JUSTID'
local moved = redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[4], 0, unpack(ids))
for _, id in ipairs(moved) do redis.call('ZADD', KEYS[3], now, id) end
return {#pending, #pending - #moved}
""",
    when_full=True,
)

ACK: Final = Script(
    3,
    """-- ack what is still the member's own. KEYS stream, beats, attempts
-- ARGV group, member, family, replayed (not kept then), ids..."""
    + ANOTHER
    + """if another() then return 0 end
local done = 0
for i = 5, #ARGV do
  local id = ARGV[i]
  local one = redis.call('XPENDING', KEYS[1], ARGV[1], id, id, 1)[1]
  if one and one[2] == ARGV[2] then
    done = done + redis.call('XACK', KEYS[1], ARGV[1], id)
    redis.call('HDEL', KEYS[3], id)
    if ARGV[4] == '1' then redis.call('XDEL', KEYS[1], id) end
  end
end
return done
""",
    when_full=True,
)

BURY: Final = Script(
    2,
    """-- forget a struck member that has nothing. KEYS stream, beats; ARGV group, member
if redis.call('HGET', KEYS[2], ARGV[2]) ~= 'struck' then return 0 end
local pending = redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2])
if #pending > 0 then return 0 end
redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
redis.call('HDEL', KEYS[2], ARGV[2])
return 1
""",
    when_full=True,
)
