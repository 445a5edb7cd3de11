"""Mutants: the library, broken on purpose, in one process of the lab.

Does        put one known fault into the library, by its name, before the process begins.
Does not    touch the source: every mutant is gone with its process.
Invariants  a mutant that finds no place any more fails loudly: else it would prove nothing.
Source      the mutants of the reliability notes, 4.2.

M1 (acked before it is handled) and M14 (duplicates looked for by place) are mutants of a program
that uses the library: `member.py` has them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from penstock.backends.redis import group_scripts, link, script_list
from penstock.backends.redis.scripts import Script


def install(name: str) -> None:
    """Become the mutant *name*."""
    if name not in PROGRAMS:
        MUTANTS[name]()


def mutate(script: Script, *changes: tuple[str, str]) -> Script:
    """The script with each text replaced; every change must find its text."""
    lua = script.text
    for old, new in changes:
        assert old in lua, f"the script has changed: {old!r} is not in it"
        lua = lua.replace(old, new)
    return Script(script.keys, lua)


def put(module: Any, name: str, mutant: Any) -> None:
    """Put a mutant of a script where it is used, and where all scripts are loaded from."""
    original = getattr(module, name)
    setattr(module, name, mutant)
    link.ALL = tuple(mutant if script is original else script for script in script_list.ALL)


def _no_own_pending() -> None:
    """M2: after a lost reply, its own pending list is not looked into."""
    from penstock.backends.redis.takeovers import Takeovers

    assert Takeovers.own_first
    Takeovers.own_first = lambda _: None  # type: ignore[method-assign]


def _no_reclaim() -> None:
    """M3: nobody is ever dead."""
    from penstock.rules.leases import LeaseWatch

    assert LeaseWatch.observe
    LeaseWatch.observe = lambda *_: []  # type: ignore[method-assign]


def _newest() -> None:
    """M4: a group that was lost is made anew at `$`."""
    from penstock.backends.redis import recovery, recovery_scripts

    lua = recovery_scripts.MAKE.text
    begin = lua.index("start = place_of_lost(")
    place = lua[begin : lua.index("\n", begin)]
    newest = (place, "start = stream['last-generated-id']")
    put(recovery, "MAKE", mutate(recovery_scripts.MAKE, newest))


def _drop_on_leaving() -> None:
    """M5: leaving deletes the consumer, whatever is pending."""
    from penstock.backends.redis import outcomes

    put(outcomes, "LEAVE", mutate(group_scripts.LEAVE, ("if #pending == 0 then", "if true then")))


def _unknown_is_ok() -> None:
    """M6: what has no outcome is taken for stored."""
    _on_unknown(lambda _: None)


def _acks_though_dead_letter_failed() -> None:
    """M13: an event whose dead letter could not be written is acked all the same."""
    from penstock.backends.redis import letter_scripts, outcomes

    careless = ("redis.call('XADD', dead,", "redis.pcall('XADD', dead,")
    put(outcomes, "GIVE_UP", mutate(letter_scripts.GIVE_UP, careless))


def _new_id() -> None:
    """M7: what has no outcome is sent again under an id of its own."""
    import secrets

    from penstock.streams.stream import Stream

    append: Any = Stream.append
    tried: set[str] = set()

    async def renamed(self: Any, value: Any, *, id: str | None = None, **more: Any) -> Any:
        again = id in tried
        tried.add(str(id))
        return await append(self, value, id=secrets.token_hex(8) if again else id, **more)

    Stream.append = renamed  # type: ignore[method-assign]


def _claims_from_the_living() -> None:
    """M8: the claim does not look at the heartbeat."""
    from penstock.backends.redis import claims

    thief = mutate(group_scripts.CLAIM, ("if beat ~= ARGV[5] then", "if false then"))
    put(claims, "CLAIM", thief)


def _struck_acks_plainly() -> None:
    """M8, the other half: a member that was taken for dead acks as if it lived."""
    from penstock.backends.redis.member import RedisMember

    ack: Any = RedisMember.ack
    assert RedisMember._may_be_dead
    RedisMember._may_be_dead = lambda _: False  # type: ignore[method-assign]

    def plain(self: Any, shard: Any, ids: Any, *, fenced: bool = False) -> Any:  # noqa: ARG001
        return ack(self, shard, ids)

    RedisMember.ack = plain  # type: ignore[method-assign]


def _nil_is_empty() -> None:
    """M9: a pending event that was trimmed is handed out, as one without fields."""
    from penstock.backends.redis import claims

    invented = """
local there = {}
for _, entry in ipairs(entries) do there[entry[1]] = true end
for _, id in ipairs(ids) do
  if not there[id] then entries[#entries + 1] = {id, {}} end
end
local failed = """
    put(claims, "CLAIM", mutate(group_scripts.CLAIM, ("\nlocal failed = ", invented)))


def _trims_behind_groups() -> None:
    """M11: a producer trims below what groups have not acked."""
    from penstock.streams.stream import Stream

    trim: Any = Stream.trim

    async def careless(self: Any, *, max_events: int, **_: Any) -> Any:
        return await trim(self, max_events=max_events, acked_only=False)

    Stream.trim = careless  # type: ignore[method-assign,assignment]


def _first_page() -> None:
    """M12: a claim ends with its first page."""
    from penstock.backends.redis.takeovers import Takeovers

    take: Any = Takeovers._take

    async def first_page_alone(self: Any, claim: Any, limit: int) -> Any:
        page = await take(self, claim, limit)
        self._claims = deque(other for other in self._claims if other.owner != claim.owner)
        return page

    Takeovers._take = first_page_alone  # type: ignore[method-assign]


def _retries_of_the_client() -> None:
    """M15: the client's own retries are on, as redis-py has them by default."""
    import redis.asyncio

    from penstock.backends.redis import control

    assert control.async_client

    def eager(address: Any) -> Any:
        return redis.asyncio.Redis(host=address.host, port=address.port)

    control.async_client = eager
    for module in _modules_that_use("async_client"):
        module.async_client = eager


def _slow_watcher() -> None:
    """No mutant: whoever takes over hesitates between his look and his claim."""
    from penstock.backends.redis.takeovers import Takeovers

    run: Any = Takeovers._run

    async def late(self: Any, claim: Any, limit: int) -> Any:
        if claim.owner != self._name and claim.fence != "bury":
            TELL("hesitates", about=claim.owner)
            await asyncio.sleep(HESITATION)
        return await run(self, claim, limit)

    Takeovers._run = late  # type: ignore[method-assign]


def _slow_thief() -> None:
    """M8, as it is seen: the hesitating watcher takes from one who lives again."""
    _slow_watcher()
    _claims_from_the_living()


def _on_unknown(then: Callable[[Any], Any]) -> None:
    import penstock
    from penstock.streams.stream import Stream

    append: Any = Stream.append

    async def blind(self: Any, value: Any, **more: Any) -> Any:
        try:
            return await append(self, value, **more)
        except penstock.OutcomeUnknown as error:
            return then(error)

    Stream.append = blind  # type: ignore[method-assign]


def _modules_that_use(name: str) -> list[Any]:
    import sys

    return [
        module
        for path, module in list(sys.modules.items())
        if path.startswith("penstock.backends.redis") and hasattr(module, name)
    ]


HESITATION = 0.0
"""Seconds that `slow-watcher` hesitates."""

TELL: Callable[..., object] = print
"""Who hears that it does."""

PROGRAMS = frozenset({"M1", "M14"})
"""Mutants of the program, not of the library."""

MUTANTS: dict[str, Callable[[], None]] = {
    "M2": _no_own_pending,
    "M3": _no_reclaim,
    "M4": _newest,
    "M5": _drop_on_leaving,
    "M6": _unknown_is_ok,
    "M7": _new_id,
    "M8": _struck_acks_plainly,
    "M8b": _slow_thief,
    "slow-watcher": _slow_watcher,
    "M9": _nil_is_empty,
    "M11": _trims_behind_groups,
    "M12": _first_page,
    "M13": _acks_though_dead_letter_failed,
    "M15": _retries_of_the_client,
}
