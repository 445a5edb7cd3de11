"""The fault lab by command.

    python tests/faults/lab/run.py --seconds 1800 --seed 7 --server valkey

Runs the smoke schedule, or with ``--seconds`` faults without end until then; prints what became of
it, and stores it as JSON. The exit code is 0 if every promise held.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from faults.lab import cells
from faults.lab.calibration import slowness
from faults.lab.figures import Verdict, report
from support.servers import embedded_binary, redis_binary

SERVERS = {"valkey": embedded_binary, "redis": redis_binary}
CELLS = ("smoke", "flush", "wipe", "trim", "failover")


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The fault lab.")
    parser.add_argument("--seconds", type=float, default=0.0, help="how long (default: once all)")
    parser.add_argument("--seed", type=int, default=1, help="decides the order of the faults")
    parser.add_argument("--events", type=int, default=10_000, help="at least so many")
    parser.add_argument("--server", choices=sorted(SERVERS), default="valkey")
    parser.add_argument("--cell", choices=CELLS, default="smoke")
    parser.add_argument("--store", type=Path, default=Path("faultlab.json"), help="the JSON")
    parser.add_argument("--keep", type=Path, help="keep journals and the server's files here")
    return parser.parse_args()


def say(text: str) -> None:
    """A line of progress, on a terminal alone."""
    if sys.stderr.isatty():
        print(f"\r{text:<60}", end="", file=sys.stderr, flush=True)


async def run(asked: argparse.Namespace, folder: Path) -> Verdict:
    cell = cells.Cell(SERVERS[asked.server](), folder, slowness(), say)
    if asked.cell != "smoke":
        return await getattr(cells, asked.cell)(cell)
    return await cells.smoke(cell, seed=asked.seed, events=asked.events, seconds=asked.seconds)


def main() -> int:
    asked = options()
    with tempfile.TemporaryDirectory(prefix="penstock-lab-") as temporary:
        folder = asked.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        verdict = asyncio.run(run(asked, folder.absolute()))
    say("")
    print(report(verdict))
    asked.store.write_text(json.dumps(verdict.plain(), indent=1) + "\n")
    return 0 if verdict.good else 1


if __name__ == "__main__":
    sys.exit(main())
