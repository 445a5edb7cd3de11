"""The rights of each role: one table, what each role does, and the page that is made of both.

    python tests/support/rights.py                 # prints docs/rights.md

Does        name each role's commands and keys; hold a scenario that does all that the role may.
Does not    check anything: `tests/streams/test_rights.py` runs each scenario with exactly these
            rights, and without each of them.
"""

from __future__ import annotations

import asyncio
import re
import sys
import textwrap
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from penstock import END, OLDEST, Client, Reject
from penstock.backends.redis import append_scripts as appends
from penstock.backends.redis import group_scripts as groups
from penstock.backends.redis import letter_scripts as letters
from penstock.backends.redis import recovery_scripts as recovery
from penstock.backends.redis import rescue as rescuing
from penstock.backends.redis import scripts as basics
from penstock.backends.redis import shard_scripts as shares
from penstock.backends.redis.scripts import Script

STREAM = "orders"
KEYS = (STREAM, f"penstock:{{{STREAM}}}:*")
EVERYONE = (
    *("client|setname", "evalsha", "hkeys", "hmget", "ping", "script|load", "xinfo|stream"),
    "zcard",
)
"""What every role begins with; AUTH needs no right."""

OPTIONAL = {
    "client|id": "ends a blocked read at once when a member leaves",
    "client|setinfo": "redis-py says which it is",
    "client|unblock": "ends a blocked read at once when a member leaves",
    "info": "sees the server's version when it connects",
    "memory|usage": "says how many bytes a stream takes, and keeps its `max_bytes`",
    "select": "another database than 0",
    "role": "notices a replica before it is written to",
}
"""What is used where it is allowed, and done without where it is not."""


class Role(NamedTuple):
    """What a role is for, what it does, what it sends by itself, and the scripts that it runs."""

    about: str
    scenario: Callable[[Client], Awaitable[None]]
    direct: Sequence[str]
    scripts: Sequence[Script]

    @property
    def commands(self) -> list[str]:
        """All commands that it must be allowed: scripts are checked command by command."""
        inside = {command for script in self.scripts for command in commands_in(script)}
        return sorted({*EVERYONE, *self.direct, *inside})

    def rules(self, without: str = "") -> list[str]:
        """As ACL SETUSER takes them, keys included."""
        keys = [f"~{key}" for key in KEYS]
        return [
            "resetkeys",
            *keys,
            "-@all",
            *(f"+{one}" for one in self.commands if one != without),
        ]


def commands_in(script: Script) -> set[str]:
    """Every command that a script may call, as ACLs name them."""
    calls = re.findall(r"redis\.p?call\(\s*'(\w+)'(?:,\s*'(\w+)')?", script.text)
    assert len(calls) == len(re.findall(r"redis\.p?call\(", script.text)), "a command by variable"
    return {
        f"{name}|{sub}".lower() if name in ("XGROUP", "XINFO") else name.lower()
        for name, sub in calls
    }


async def append(client: Client) -> None:
    """Everything that appends: one, many, pipelined, once by id, on a condition, later."""
    stream = client.stream(STREAM)
    await stream.append({"n": 1})
    await stream.append_many([{"n": n} for n in range(3)])
    async with stream.writer() as writer:
        await writer.send({"n": 5})
    await stream.append({"n": 6}, id="six")
    position = await stream.append({"n": 7})
    await stream.append({"n": 8}, expect=position)
    await stream.append({"n": 9}, deliver_at=time.time() + 0.05)
    async with asyncio.timeout(10):
        while await stream.length() < 9:  # noqa: ASYNC110 - nobody rings for length
            await asyncio.sleep(0.05)


async def read(client: Client) -> None:
    """Everything that reads."""
    stream = client.stream(STREAM)
    async with stream.reader(start=OLDEST, until=END) as reader:
        assert len([event async for event in reader]) >= 9
    assert await stream.read_range(limit=3)
    assert await stream.read_range(limit=3, reverse=True)
    assert await stream.length() >= 9


async def share(client: Client) -> None:
    """A member: acks, hands back, fails, dead-letters; a second one takes over from it."""
    stream = client.stream(STREAM)
    async with stream.group("billing", lease=0.4, member="one") as group:
        event = await group.receive(5.0)
        assert event is not None
        group.ack(event)
        await group.flush()
        event = await group.receive(5.0)
        assert event is not None
        group.nack(event, delay=0.0)
        event = await group.receive(5.0)
        assert event is not None
        group.fail(event, Reject("no such customer"))
        await group.flush()
        acked = 0
        async with asyncio.timeout(10):
            while acked < 7:
                event = await group.receive(1.0)
                assert event is not None
                group.ack(event)
                acked += 1
        await group.flush()
        await asyncio.sleep(0.5)


async def administer(client: Client) -> None:
    """Look, rescue, make and set back groups, trim, remove, drop groups, destroy."""
    stream = client.stream(STREAM)
    assert await client.streams() == [STREAM]
    assert await stream.groups()
    await stream.info()
    await _rescue(client)
    await stream.dead_letters("billing").drop()
    await stream.create_group("audit")
    await stream.reset_group("audit", OLDEST)
    await stream.trim(max_events=5, acked_only=False)
    (event,) = await stream.read_range(limit=1)
    await stream.remove([event.position])
    await stream.drop_group("billing")
    await stream.destroy()


async def _rescue(client: Client) -> None:
    """What a consumer that is gone has left: see who holds what, and park it."""
    link = client.backend.link
    for holder in await rescuing.holders(link, STREAM, "billing", 0.0):
        async for _ in rescuing.rescue(link, STREAM, "billing", holder, 0.0, None):
            pass


LATER = (appends.MOVE, appends.RETAIN)
"""What every program that has a stream open does for all: delayed events, and retention."""

ROLES: dict[str, Role] = {
    "appender": Role(
        "appends to the stream, in all ways",
        append,
        ("xinfo|groups",),
        (basics.OPEN, basics.MARK, appends.APPEND, appends.STORE, *LATER),
    ),
    "reader": Role(
        "reads all events, with a cursor of its own",
        read,
        ("xinfo|groups", "xrange", "xread", "xrevrange"),
        LATER,
    ),
    "member": Role(
        "shares the stream's events in a group, with dead letters and take-overs",
        share,
        (
            *("xack", "xgroup|createconsumer", "xinfo|groups"),
            *("xlen", "xreadgroup", "hgetall", "xinfo|consumers"),
        ),
        (
            *(groups.JOIN, groups.BEAT, groups.LOOK, groups.CLAIM, groups.PARK, groups.LEAVE),
            *(groups.ACK, groups.BURY, letters.GIVE_UP, letters.REPLAY),
            *(recovery.MAKE, recovery.TEND, recovery.GAP, recovery.RENEW),
            *(shares.FOUND, shares.TAKE, shares.COMMIT, shares.GIVE, shares.STRIKE),
            *LATER,
        ),
    ),
    "administrator": Role(
        "looks at streams, groups and letters, rescues, trims, makes, sets back and drops groups",
        administer,
        (
            *("hgetall", "unlink", "xdel", "xgroup|destroy", "xinfo|consumers", "xinfo|groups"),
            *("scan", "xrange", "xrevrange", "xpending", "xlen"),
        ),
        (
            *(basics.TRIM, recovery.MAKE, recovery.RESET, recovery.RESET_SHARE, letters.REPLAY),
            *(rescuing.RESCUE, *LATER),
        ),
    ),
}

DOCTOR = (
    *("client|list", "client|setname", "command|list", "config|get", "eval", "hgetall", "hmget"),
    *("info", "ping", "scan", "time", "type", "xinfo|consumers", "xinfo|groups", "xinfo|stream"),
    *("xpending", "script|load"),
)
"""What the doctor asks: of all keys, to read; what it must not ask, it says."""


def page() -> str:
    """docs/rights.md."""
    lines = [_HEAD]
    for name, role in ROLES.items():
        lines += [f"## {name.capitalize()}", "", f"{role.about.capitalize()}.", "", "```text"]
        lines += [_wrapped(f"ACL SETUSER {name} on >password", role.rules()), "```", ""]
    rules = ["resetkeys", "%R~*", "-@all", *(f"+{one}" for one in DOCTOR)]
    lines += [
        "## Doctor",
        "",
        "`penstock doctor`, for all streams; it changes nothing.",
        "",
        "```text",
    ]
    lines += [_wrapped("ACL SETUSER doctor on >password", rules), "```", "", "## Beside these", ""]
    lines += ["| right | with it |", "|---|---|"]
    lines += [f"| `+{right}` | {why} |" for right, why in OPTIONAL.items()]
    return "\n".join([*lines, "", _TAIL])


def _wrapped(head: str, words: Sequence[str]) -> str:
    text = " ".join([head, *words])
    return " \\\n".join(textwrap.wrap(text, 100, subsequent_indent="    ", break_on_hyphens=False))


_HEAD = """# Rights

What each role needs on a server with users (ACLs), for one stream `orders`: its key, and what is
kept beside it. This page is made of the table by which the tests run: every role does all that it
can do with exactly these rights, on Redis 7.0 and on Valkey.

A stream in shards has its keys under `orders:0`, `orders:1`, …: add `~orders:*` and
`~penstock:{orders:*}:*`. A program that both appends and shares needs both roles. Scripts are
checked command by command, so what they call is listed. AUTH needs no right.
"""

_TAIL = """These are used where they are allowed, and done without where they are not.

## Without scripts

A user who must not run scripts (`-@scripting`) can append with `idempotent=False`, and read.
Everything else says `BackendRejected` with what is missing: sessions, groups, delayed events and
retention are scripts, since they decide and act in one step.

ACLs do not look at arguments: who may XADD may also wipe the stream by `MAXLEN`, or end it by the
last id there is. Do not let strangers reach the server, and put streams that must not see each
other on servers of their own: keys are a second fence.
"""

if __name__ == "__main__":
    sys.stdout.write(page())
