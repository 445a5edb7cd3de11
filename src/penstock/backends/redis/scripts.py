"""Scripts: what a script is, and those that open a stream and trim it in one step on the server.

Does        hold the Lua texts and their digests; each touches the keys of one stream only.
Does not    send them: `link.py` loads what `script_list.py` names, on every connection.
Invariants  1. everything that can fail is checked before the first write: Lua does not roll back.
            2. no unbounded loop: callers page, at most `PAGE` ids a call.
Source      reliability notes 1.5, 1.8, 1.13.
"""

from __future__ import annotations

import hashlib
from typing import Final

PAGE: Final = 500
"""Ids that one script call moves at most: about a millisecond of the server's time."""

TRIMMED: Final = 50_000
"""Events that one call trims at most: they go by whole nodes of a hundred, some milliseconds."""

KEPT: Final = 64
"""Batches whose answers a session keeps: four times what may be in flight."""


class Script:
    """A Lua text and its digest.

    Args:
        keys: how many keys it takes.
        text: the script.
        when_full: whether it runs on a server that has reached maxmemory: what consumers need to
            go on, and to free memory. What makes streams grow must not.
    """

    __slots__ = ("keys", "sha", "text")

    def __init__(self, keys: int, text: str, *, when_full: bool = False) -> None:
        self.keys = keys
        self.text = f"#!lua flags=allow-oom\n{text}" if when_full else text
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


LESS: Final = """local function less(a, b)  -- ids; decimal strings are exact beyond 2^53
  local a1, a2 = string.match(a, '^(%d+)-(%d+)$')
  local b1, b2 = string.match(b, '^(%d+)-(%d+)$')
  if a1 == b1 then a1, b1 = a2, b2 end
  if #a1 ~= #b1 then return #a1 < #b1 end
  return a1 < b1
end
"""
"""For scripts that compare ids: whether *a* is before *b*."""


OPEN: Final = Script(
    4,
    """-- open a session and see the marks. KEYS stream, meta, session, delayed
-- ARGV version, layout, codec, shards, foreign, only_if_exists, ttl, shard or '', retention or '',
-- opened before
local kind = redis.call('TYPE', KEYS[1]).ok
if kind ~= 'none' and kind ~= 'stream' then
  return redis.error_reply('WRONGTYPE the key holds a ' .. kind .. ', not a stream')
end
local m = redis.call('HMGET', KEYS[2], 'version', 'layout', 'codec', 'shards')
if m[1] and tonumber(m[1]) > tonumber(ARGV[1]) then return {'newer', m[1]} end
local fresh = kind == 'none'
if kind == 'stream' and redis.call('XLEN', KEYS[1]) == 0 then
  local info = redis.call('XINFO', 'STREAM', KEYS[1])
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' and info[i + 1] == '0-0' then fresh = true end
  end
end
if redis.call('EXISTS', KEYS[4]) == 1 then fresh = false end  -- events wait for their time
local part = ARGV[8] ~= ''
if fresh and ARGV[6] ~= '1' and (part or m[4] == '1') then
  m[1] = false  -- marks of a stream that never was
end
if part and not fresh and not m[1] then return {'taken'} end
if part and m[1] and m[4] ~= ARGV[4] then  -- the base's marks rule: it has grown
  redis.call('HSET', KEYS[2], 'shards', ARGV[4], 'stamp', m[2] .. ' ' .. m[3] .. ' ' .. ARGV[4])
  m[4] = ARGV[4]
end
if m[1] then
  if m[2] ~= ARGV[2] or m[3] ~= ARGV[3] or m[4] ~= ARGV[4] then
    return {'other', m[2], m[3], m[4]}
  end
  redis.call('HSETNX', KEYS[2], 'stamp', m[2] .. ' ' .. m[3] .. ' ' .. m[4])
elseif not fresh then
  if ARGV[5] ~= '1' and ARGV[2] ~= 'fields' then return {'unmarked'} end
elseif ARGV[5] ~= '1' and not (ARGV[6] == '1' and kind == 'none') then
  redis.call('HSET', KEYS[2], 'version', ARGV[1], 'layout', ARGV[2], 'codec', ARGV[3],
    'shards', ARGV[4], 'stamp', ARGV[2] .. ' ' .. ARGV[3] .. ' ' .. ARGV[4])
  if part then redis.call('HSET', KEYS[2], 'shard', ARGV[8]) end
  m[1] = ARGV[1]
end
if ARGV[9] ~= '' and m[1] then
  local kept = redis.call('HGET', KEYS[2], 'retention')
  if kept ~= ARGV[9] and (fresh or part or ARGV[10] ~= '1') then  -- else it was changed since
    if kept and not part then return {'retention', kept} end
    redis.call('HSET', KEYS[2], 'retention', ARGV[9])
  end
end
if ARGV[7] ~= '0' and redis.call('EXISTS', KEYS[3]) == 0 then
  redis.call('HSET', KEYS[3], 'last', 0)
  redis.call('PEXPIRE', KEYS[3], ARGV[7])
end
return {'open', m[1] and 1 or 0}
""",
)

MARK: Final = Script(
    3,
    """-- the marks of a stream in shards. KEYS the stream's own name, its meta, its delayed events
-- ARGV version, layout, codec, shards, hash, only_if_exists, retention or '', opened before
local m = redis.call('HMGET', KEYS[2], 'version', 'layout', 'codec', 'shards', 'grown', 'hash')
if m[1] and tonumber(m[1]) > tonumber(ARGV[1]) then return {'newer', m[1]} end
if redis.call('TYPE', KEYS[1]).ok == 'stream' then
  -- one that was made for a group, and that nothing was ever appended to, is in nobody's way
  local fresh = redis.call('XLEN', KEYS[1]) == 0 and redis.call('EXISTS', KEYS[3]) == 0
  local info = fresh and redis.call('XINFO', 'STREAM', KEYS[1]) or {}
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' and info[i + 1] ~= '0-0' then fresh = false end
  end
  if not fresh then return {'other', m[2] or 'fields', m[3] or 'fields', 1} end
end
if m[1] and m[4] ~= '1' then
  if m[6] ~= ARGV[5] then return {'hash', m[6] or ''} end
  if m[2] ~= ARGV[2] or m[3] ~= ARGV[3] then return {'other', m[2], m[3], m[4]} end
  if m[4] ~= ARGV[4] then
    local before = ' ' .. (m[5] or '') .. ' '
    if not string.find(before, ' ' .. ARGV[4] .. ' ', 1, true) then
      return {'other', m[2], m[3], m[4]}
    end
  end
  local kept = redis.call('HGET', KEYS[2], 'retention')
  if ARGV[8] == '1' then return {'marked', tonumber(m[4]), kept or ''} end
  if kept and ARGV[7] ~= '' and kept ~= ARGV[7] then return {'retention', kept} end
  if ARGV[7] ~= '' then redis.call('HSET', KEYS[2], 'retention', ARGV[7]) end
  return {'marked', tonumber(m[4]), kept or ARGV[7]}
end
if ARGV[6] == '1' then return {'absent'} end
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[2], 'version', ARGV[1], 'layout', ARGV[2], 'codec', ARGV[3],
  'shards', ARGV[4], 'hash', ARGV[5])
if ARGV[7] ~= '' then redis.call('HSET', KEYS[2], 'retention', ARGV[7]) end
return {'marked', tonumber(ARGV[4]), ARGV[7]}
""",
)

TRIM: Final = Script(
    3,
    """-- trim a page, never past what a group needs. KEYS stream, positions, trimmed
-- ARGV max events or -1, before id or '', guarded, limit, approximate
local length = redis.call('XLEN', KEYS[1])
local wanted = length
if ARGV[1] ~= '-1' then wanted = length - tonumber(ARGV[1]) end
if wanted <= 0 then return {0, 0} end
"""
    + LESS
    + """local bound = ARGV[2] ~= '' and ARGV[2] or nil
if ARGV[3] == '1' then
  for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
    local about = {}
    for i = 1, #group, 2 do about[group[i]] = group[i + 1] end
    local next = redis.call('XRANGE', KEYS[1], '(' .. about['last-delivered-id'], '+',
      'COUNT', 1)[1]
    local needs = {next and next[1]}
    if about['pending'] > 0 then  -- it may be behind: a group can be set back
      needs[#needs + 1] = redis.call('XPENDING', KEYS[1], about['name'])[2]
    end
    for _, need in ipairs(needs) do
      if not bound or less(need, bound) then bound = need end
    end
  end
  local positions = redis.call('HGETALL', KEYS[2])  -- of groups that share shards
  for i = 2, #positions, 2 do
    local next = redis.call('XRANGE', KEYS[1], '(' .. positions[i], '+', 'COUNT', 1)[1]
    if next and (not bound or less(next[1], bound)) then bound = next[1] end
  end
end
local function counted(removed)  -- so that no group takes it for lost
  if ARGV[3] == '1' and removed > 0 then
    local before = tonumber(redis.call('HGET', KEYS[3], 'count') or 0)
    redis.call('HSET', KEYS[3], 'count', string.format('%.0f', before + removed))
  end
  return removed
end
local page = math.min(wanted, tonumber(ARGV[4]))
local removed
if bound then
  removed = redis.call('XTRIM', KEYS[1], 'MINID', '~', bound, 'LIMIT', page)
else
  removed = redis.call('XTRIM', KEYS[1], 'MAXLEN', '~', length - wanted, 'LIMIT', page)
end
if removed > 0 and wanted > page then return {counted(removed), 1} end
local rest = math.min(wanted - removed, 1000)
if ARGV[5] == '1' or rest <= 0 then return {counted(removed), 0} end
local nth = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', rest + 1)
local target = nth[rest + 1] and nth[rest + 1][1]
if bound and (not target or less(bound, target)) then target = bound end
local exact
if target then
  exact = redis.call('XTRIM', KEYS[1], 'MINID', '=', target)
else
  exact = redis.call('XTRIM', KEYS[1], 'MAXLEN', '=', 0)
end
removed = counted(removed + exact)
return {removed, exact > 0 and target ~= bound and wanted > removed and 1 or 0}
""",
)
