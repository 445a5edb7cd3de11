"""What all benchmarks share: a fresh server, rounds that take turns, medians, ratios, a verdict.

A claim is a ratio within one run: absolute figures differ between machines and from day to day.
Ratios differ too, but less: so a run fails where one is below `GATE` of what is claimed, which is a
defect and no weather; with ``--strict``, on a machine that does nothing else, where a claim itself
does not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import shutil
import socket
import statistics
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from penstock.backends.embedded import EmbeddedServer

GATE = 2 / 3
VALUE = "x" * 40  # bytes of every value
Work = Callable[[str, int], Awaitable[float]]
"""Does one round: takes the server's port and the number of events, returns seconds."""


@dataclass(frozen=True)
class Claim:
    """*ours* does at least *least* times the events per second of *theirs*."""

    ours: str
    theirs: str
    least: float


@asynccontextmanager
async def server() -> AsyncIterator[int]:
    """The port of a fresh Valkey, without AOF."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    running = await EmbeddedServer.open(None, temporary=True, port=port)
    try:
        yield port
    finally:
        await running.aclose()


@asynccontextmanager
async def no_server() -> AsyncIterator[int]:
    """For what happens within the process."""
    yield 0


async def race(
    work: Mapping[str, Callable[[int, int], Awaitable[float]]],
    events: int,
    rounds: int,
    *,
    on_server: bool = True,
):
    """Events per second of each contestant, by round; they take turns."""
    rates: dict[str, list[float]] = {name: [] for name in work}
    async with server() if on_server else no_server() as port:
        for _ in range(rounds):
            for name, run in work.items():
                rates[name].append(events / await run(port, events))
    return rates


def redis_benchmark(port: int, events: int) -> float:
    """Seconds that redis-benchmark takes for *events* XADDs, 500 pipelined, one connection."""
    command = ["redis-benchmark", "-p", str(port), "-P", "500", "-c", "1", "-n", str(events)]
    command += ["--csv", "XADD", "redis-benchmark", "*", "v", VALUE]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rate = float(done.stdout.splitlines()[-1].split(",")[1].strip('"'))
    return events / rate


def main(
    title: str,
    work: Mapping[str, Callable[[int, int], Awaitable[float]]],
    claims: list[Claim],
    events: int,
    *,
    on_server: bool = True,
    what: str = f"{len(VALUE)}-byte values",
) -> None:
    """Run, print, and exit with 1 if a claim does not hold."""
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--events", type=int, default=events, help="events of a round")
    parser.add_argument("--rounds", type=int, default=5, help="rounds; medians are compared")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--strict", action="store_true", help="fail where a claim does not hold")
    options = parser.parse_args()
    gate = 1.0 if options.strict else GATE
    rates = asyncio.run(race(work, options.events, options.rounds, on_server=on_server))
    medians = {name: statistics.median(rate) for name, rate in rates.items()}
    verdicts = [(claim, medians[claim.ours] / medians[claim.theirs]) for claim in claims]
    if options.json:
        print(json.dumps({"rates": rates, "ratios": [[*vars(c).values(), r] for c, r in verdicts]}))
    else:
        _print(f"{title}: {options.events} events a round, {what}", rates, medians, verdicts)
    sys.exit(0 if all(ratio >= claim.least * gate for claim, ratio in verdicts) else 1)


def _print(title, rates, medians, verdicts) -> None:
    print(f"{title}, Python {platform.python_version()}, {platform.machine()}")
    width = max(map(len, rates))
    for name, rate in rates.items():
        spread = f"{min(rate):>11,.0f} … {max(rate):,.0f}"
        print(f"  {name:<{width}}  {medians[name]:>11,.0f} events/s   ({spread})")
    for claim, ratio in verdicts:
        verdict = (
            "ok" if ratio >= claim.least else "near" if ratio >= claim.least * GATE else "MISSED"
        )
        print(
            f"  {verdict:<6} {claim.ours} / {claim.theirs} = {ratio:.2f}, claimed ≥ {claim.least}"
        )


def has_redis_benchmark() -> bool:
    """Whether the server's own load generator is here (Debian: redis-tools)."""
    return shutil.which("redis-benchmark") is not None
