"""The buffer beside a list that does the same."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from penstock.rules.buffer import Buffer, Keep
from penstock.rules.trace import Fresh

CARRIERS = [None, Fresh(lambda *_: None), Fresh(lambda *_: None)]
Entry = tuple[str, Any, Any]
"""An event with its carrier, an info, or a cut; in a list, as plain as can be."""


class BufferMachine(RuleBasedStateMachine):
    """A buffer, and a list that holds the same."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[Entry] = []
        self.numbers = self.infos = 0
        self.cut = False  # the last piece ended at one

    @initialize(size=st.none() | st.integers(0, 12), keep=st.sampled_from(["first", "last"]))
    def made(self, size: int | None, keep: Keep) -> None:
        self.size, self.keep = size, keep
        self.buffer = Buffer(size, keep)

    @rule(count=st.integers(0, 15), carrier=st.sampled_from(CARRIERS), apart=st.booleans())
    def store(self, count: int, carrier: Any, apart: bool) -> None:
        new = list(range(self.numbers, self.numbers + count))
        self.numbers += count
        overflow = self.buffer.store(new, carrier, apart=apart)
        over = 0 if self.size is None else max(0, len(self.events()) + count - self.size)
        kept = new[: count - over] if self.keep == "first" else new
        self.entries += [("event", event, carrier) for event in kept]
        if kept and (apart or carrier):  # where an outcome follows, emissions stay apart
            self.entries.append(("cut", None, None))
        dropped, infos = new[len(kept) :], []
        if self.keep == "last":
            dropped, infos = self.drop_oldest(over)
        assert (overflow is None) == (over == 0)
        if overflow:
            assert [event for piece in overflow.dropped for event in piece.events] == dropped
            assert overflow.infos == infos

    def drop_oldest(self, count: int) -> tuple[list[Any], list[Any]]:
        dropped: list[Any] = []
        infos: list[Any] = []
        while self.entries and (
            len(dropped) < count or (dropped and self.entries[0][0] != "event")
        ):
            kind, value, _ = self.entries.pop(0)
            if kind != "cut":
                (dropped if kind == "event" else infos).append(value)
        return dropped, infos

    @rule()
    def pin(self) -> None:
        self.infos += 1
        assert self.buffer.pin(self.infos) == bool(self.entries)
        if self.entries:
            self.entries.append(("info", self.infos, None))

    @rule(limit=st.integers(0, 20), back=st.integers(0, 5))
    def take(self, limit: int, back: int) -> None:
        """Take a piece, and put the end of it back, as after a dispatcher that took less."""
        found = self.buffer.take(limit)
        expected = self.next_piece(limit)
        assert found == expected
        if found and back:
            (events, carrier), infos = found
            self.buffer.put_back(events[-back:], carrier, infos)
            self.entries[:0] = [
                *(("event", event, carrier) for event in events[-back:]),
                *([("cut", None, None)] if self.cut else []),
                *(("info", info, None) for info in infos),
            ]

    def next_piece(self, limit: int) -> tuple[tuple[list[Any], Any], list[Any]] | None:
        if not limit or not self.entries:
            return None
        events: list[Any] = []
        carrier = self.entries[0][2]
        while self.entries and len(events) < limit:
            kind, value, other = self.entries[0]
            if kind != "event" or other is not carrier:
                break
            events.append(value)
            del self.entries[0]
        infos: list[Any] = []
        self.cut = carrier is not None
        while self.entries and self.entries[0][0] != "event":
            kind, value, _ = self.entries.pop(0)
            self.cut = self.cut or kind == "cut"
            if kind == "info":
                infos.append(value)
        return (events, carrier), infos

    @rule()
    def clear(self) -> None:
        pieces = self.buffer.clear()
        assert [event for piece in pieces for event in piece.events] == self.events()
        self.entries.clear()

    def events(self) -> list[Any]:
        return [value for kind, value, _ in self.entries if kind == "event"]

    @invariant()
    def the_count_is_that_of_events(self) -> None:
        if hasattr(self, "buffer"):
            assert self.buffer.count == len(self.events())
            assert self.size is None or self.buffer.count <= self.size


@pytest.mark.conformance("GS-045", "GS-047", "GS-048", "GS-049")
def test_a_buffer_does_what_a_list_does() -> None:
    """Stored, pinned, taken, put back and dropped in any order."""
    run_state_machine_as_test(BufferMachine)
