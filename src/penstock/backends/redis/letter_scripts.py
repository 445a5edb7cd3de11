"""Letter scripts: what happens to dead letters in one step on the server.

Does        hold the Lua texts; each touches the keys of one stream only.
Does not    send them.
Invariants  those of `scripts.py`, and: an XADD that fails (out of memory) fails before anything of
            that event is acked. Once a script has written, the server lets it finish.
Source      reliability notes 1.6; `letter_format` has the header.
"""

from __future__ import annotations

from typing import Final

from penstock.backends.redis.group_scripts import ANOTHER
from penstock.backends.redis.scripts import Script

LETTERS_AT_ONCE: Final = 100
"""Letters that one call moves: each is copied with its contents."""

KEEP: Final = """
local function keep(dead, position, fields, first, attempts, deliveries, error, reason, now)
  redis.call('XADD', dead, '*', 'position', position, 'attempts', attempts,
    'deliveries', deliveries, 'error', error, 'reason', reason, 'time', now,
    unpack(fields, first))
end
local function packed(fields, first, most)  -- what is too long to be passed on: as one field
  if #fields - first < most then return fields, first end
  local parts = {}
  for i = first, #fields do parts[#parts + 1] = #fields[i] .. ':' .. fields[i] end
  return {'penstock.packed', table.concat(parts)}, 1
end
"""
"""A letter, as a part of other scripts: *fields* from *first* on are the event's own."""

GIVE_UP: Final = Script(
    4,
    """-- move what is still the member's own to the dead letters
-- KEYS stream, beats, attempts, dead
-- ARGV group, member, family, replayed, most parts; then id, attempts, error, reason of each"""
    + ANOTHER
    + KEEP
    + """
if another() then return {{}, 0} end
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
local done, gone = {}, {}
for i = 6, #ARGV, 4 do
  local id = ARGV[i]
  local one = redis.call('XPENDING', KEYS[1], ARGV[1], id, id, 1)[1]
  if one and one[2] == ARGV[2] then
    local entry = redis.call('XRANGE', KEYS[1], id, id)[1]
    if not entry then
      gone[#gone + 1] = id
    else
      local replayed = ARGV[4] == '1'
      local fields, first = packed(entry[2], replayed and 3 or 1, tonumber(ARGV[5]))
      keep(KEYS[4], replayed and entry[2][2] or id, fields, first, ARGV[i + 1], one[4],
        ARGV[i + 2], ARGV[i + 3], now)
    end
    redis.call('XACK', KEYS[1], ARGV[1], id)
    redis.call('HDEL', KEYS[3], id)
    if ARGV[4] == '1' then redis.call('XDEL', KEYS[1], id) end
    done[#done + 1] = id
  end
end
return {done, #gone}
""",
)

REPLAY: Final = Script(
    2,
    """-- hand letters back to their group. KEYS dead, replay; ARGV group, parts of a header, ids...
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local made = redis.pcall('XGROUP', 'CREATE', KEYS[2], ARGV[1], '0', 'MKSTREAM')
if made.err and string.sub(made.err, 1, 9) ~= 'BUSYGROUP' then
  return redis.error_reply(made.err)
end
local count = 0
for i = 3, #ARGV do
  local letter = redis.call('XRANGE', KEYS[1], ARGV[i], ARGV[i])[1]
  if letter then
    local fields = letter[2]
    redis.call('XADD', KEYS[2], '*', 'penstock.position', fields[2],
      unpack(fields, tonumber(ARGV[2]) + 1))
    redis.call('XDEL', KEYS[1], ARGV[i])
    count = count + 1
  end
end
return count
""",
)
