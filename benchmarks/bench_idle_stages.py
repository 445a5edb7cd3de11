"""Ten thousand stages that have nothing to do: how long they take to start, what they hold.

    make bench, or python benchmarks/bench_idle_stages.py [--json]

2500 chains of four: a producer, two producer-consumers, a consumer. They start until the last has
asked for its first events; then they rest.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import sys
import time

from penstock.stages import Consumer, Producer, ProducerConsumer, Topology

CHAINS = 2500
MOST_SECONDS = 2.0
MOST_MEGABYTES = 200.0
MOST_CPU = 0.01  # of one processor, at rest


class Nothing(Producer[int]):
    """Has nothing to give."""

    def handle_demand(self, demand: int) -> None:
        waiting.discard(self)
        if not waiting:
            all_asked.set()


class Between(ProducerConsumer[int, int]):
    """Would hand on."""

    def handle_events(self, events: list[int], source: object) -> list[int]:
        return events


class End(Consumer[int]):
    """Would take."""

    def handle_events(self, events: list[int], source: object) -> None:
        pass


waiting: set[Nothing] = set()
"""Producers that nobody has asked yet."""
all_asked = asyncio.Event()


async def measure() -> dict[str, float]:
    """Seconds to start, megabytes at most (of the whole process), processor at rest."""
    started = time.perf_counter()
    async with Topology() as topology:
        for _ in range(CHAINS):
            producer = Nothing()
            waiting.add(producer)
            handle = topology.start(producer)
            for _ in range(2):
                handle = topology.start(Between(), subscribe_to=handle)
            topology.start(End(), subscribe_to=handle)
        await all_asked.wait()
        seconds = time.perf_counter() - started
        await asyncio.sleep(0.5)
        cpu = time.process_time()
        await asyncio.sleep(2.0)
        cpu = (time.process_time() - cpu) / 2.0
    unit = 1e6 if sys.platform == "darwin" else 1e3
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    return {"stages": 4 * CHAINS, "seconds": seconds, "megabytes": peak, "cpu_at_rest": cpu}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--strict", action="store_true", help="fail where a claim does not hold")
    options, _ = parser.parse_known_args()  # those of the other benchmarks
    found = asyncio.run(measure())
    if options.json:
        print(json.dumps(found))
    else:
        print(
            f"idle stages: {found['stages']} started in {found['seconds']:.2f} s (claimed < "
            f"{MOST_SECONDS}), {found['megabytes']:.0f} MB (claimed < {MOST_MEGABYTES:.0f}), "
            f"{found['cpu_at_rest']:.2%} of a processor at rest"
        )
    held = (
        (found["seconds"] < MOST_SECONDS or not options.strict)  # absolute: differs by machine
        and found["megabytes"] < MOST_MEGABYTES
        and found["cpu_at_rest"] < MOST_CPU
    )
    sys.exit(0 if held else 1)


if __name__ == "__main__":
    main()
