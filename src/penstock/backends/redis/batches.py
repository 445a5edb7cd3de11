"""Batches: entries on their way to one stream key, and who waits for them.

Does        hold a batch as the arguments of its script; tell its future what became of it.
Does not    number or send batches: `rules/session.py` and `appender.py` do.
Invariants  1. a future is told once; one that was cancelled by its owner is left alone.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence

from penstock.backends.redis.wire import Arg
from penstock.event import Position, PositionRun
from penstock.ports import Fields, Stored, Terms
from penstock.rules.terms import NOTHING, outcomes


class Batch:
    """Entries that are stored together, and who waits for them."""

    __slots__ = ("args", "count", "future", "limit", "since", "terms")

    def __init__(  # noqa: PLR0917 - made in one place
        self,
        args: list[Arg],
        count: int,
        future: asyncio.Future[Sequence[Stored]],
        since: float,
        limit: float,
        terms: Mapping[int, Terms] | None,
    ) -> None:
        self.args = args
        self.count = count
        self.future = future
        self.since = since
        self.limit = limit
        self.terms = terms


def arguments(batch: Sequence[Fields], terms: Mapping[int, Terms] | None) -> list[Arg]:
    """What the script reads of a batch: its entries, each with its terms if any has some."""
    args: list[Arg] = []
    for index, fields in enumerate(batch):
        if terms is not None:
            args += _as_args(terms.get(index, NOTHING))
        args.append(len(fields))
        args += fields
    return args


def resolve(batch: Batch, answer: bytes, stream: str) -> None:
    """It is stored, as *answer* says."""
    if batch.future.done():
        return
    if batch.terms is None:
        batch.future.set_result(PositionRun(Position.of(answer), batch.count))
    else:
        batch.future.set_result(outcomes(answer, batch.count, batch.terms, stream))


def reject(batch: Batch, error: BaseException, cause: BaseException) -> None:
    """It has no good outcome: *error*, because of *cause*."""
    if batch.future.done():
        return
    if error is not cause:
        error.__cause__ = cause
    batch.future.set_exception(error)


def _as_args(terms: Terms) -> tuple[Arg, ...]:
    expect = "" if terms.expect is None else str(terms.expect)
    due = "" if terms.due is None else math.ceil(terms.due * 1000)
    return (terms.id, terms.digest, expect, due)
