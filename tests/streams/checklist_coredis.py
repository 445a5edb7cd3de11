"""What coredis' stream consumers do, line by line, in the words of our API.

The lines are those of a reading of `coredis.patterns.streams`, which `scripts/conformance.py` joins
with the tests that carry ``@pytest.mark.conformance(…)``. Where coredis does otherwise by mistake
(FIX), or where our contract is another one, the line says what we do.
"""

from __future__ import annotations

from typing import Final

TITLE: Final = "coredis' stream consumers: what is shown by which test"
PAGE: Final = "docs/coredis-conformance.md"
PREFIX: Final = "CR"

SECTIONS: Final[dict[str, dict[str, str]]] = {
    "Readers": {
        "CR-001": "NEWEST begins behind the last event of each stream as of entering the block.",
        "CR-002": "A stream that does not exist at that moment is read from its first event on.",
        "CR-003": "A start of one's own overrides it: OLDEST, after, at; add_stream has its own.",
        "CR-004": "A reader is opened by `async with`, once; used without, it says so.",
        "CR-005": "receive gives None when nothing came; until=idle(s) ends the iteration.",
        "CR-006": "A new `async for` goes on where the one before was left.",
        "CR-007": "Waits are float seconds: receive(0) does not wait, receive() waits for ever.",
        "CR-008": "What is read ahead is bounded by prefetch, over all streams together.",
        "CR-009": "What was read ahead is yielded before anything newer of its stream.",
        "CR-010": "By position within a stream; streams are merged fairly, none waits for another.",
        "CR-011": "Bytes come out as they were stored; plain fields as text, whatever the client.",
        "CR-012": "A position moves with each event that is yielded; another reader goes on there.",
        "CR-013": "add_stream works on a running reader, and begins where it is told.",
        "CR-014": "add_stream of a known stream is a no-op; with a start it is refused.",
        "CR-015": "A reader is not entered twice; what add_stream added is in its saved position.",
    },
    "Groups": {
        "CR-016": "A group is made on entry, with its stream; two that make it at once agree.",
        "CR-017": "A new group begins at the oldest event by default, or where it is told.",
        "CR-018": "What asks about a group that does not exist says so.",
        "CR-019": "That error names what is missing, not what is there.",
        "CR-020": "An add_stream that fails leaves the reader as it was.",
        "CR-021": "A group's name is text; anything else is refused before anything is asked.",
        "CR-022": "Two members of one group never both get a new event.",
        "CR-023": 'acks="none": nothing is ever pending; and nothing that was fetched is dropped '
        "while the member goes on.",
        "CR-024": "By default an event stays pending until it is acked.",
        "CR-025": "A name that is taken up again gets its own pending events first, each once.",
        "CR-026": "An existing group goes on where it stands: another start is reported.",
        "CR-027": "Events of a dead member are taken over, whatever its name was.",
        "CR-028": 'Under acks="none", a name taken up again leaves nothing pending for ever.',
        "CR-029": "With several streams, the pending events of all come again, none is lost.",
        "CR-030": "A pending event that was trimmed is signalled and passed over.",
        "CR-031": "A group that starts behind a position gets each event once, and goes forward.",
        "CR-032": "A group or a stream that is deleted under its members is made anew.",
        "CR-033": "Leaving hands back what was fetched and not yielded, at once.",
        "CR-034": "What another member has taken over is not yielded any more.",
    },
    "Both": {
        "CR-035": "Tasks that share a reader or a group get each event once.",
        "CR-036": "Idle streams delay nobody: one read waits for all of them.",
        "CR-037": "Waiting for longer than the connection's timeout is no error.",
        "CR-038": "A cancelled wait loses nothing; a connection that was cut is made again.",
        "CR-039": "A key of another type is told on entry; so is a missing right, when needed.",
        "CR-040": "NEWEST is one place: what comes while nobody asks is read.",
        "CR-041": "A text where streams should be is refused.",
        "CR-042": "Every program in the papers runs.",
        "CR-043": "A member without a name gets one that nobody else has.",
        "CR-044": "A stream may be called like an option.",
        "CR-045": "Taking an event costs the same however many are buffered.",
        "CR-046": "A lost reply stores nothing twice.",
    },
}

FIX: Final = frozenset(
    f"CR-{line:03}"
    for line in (
        *(7, 10, 12, 14, 15, 17, 19, 20, 21, 23, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 39),
        *(40, 41, 42, 44, 45, 46),
    )
)
"""Lines where coredis does otherwise than it should: we do what it means to."""

REASONS: Final[dict[str, str]] = {}
"""Why there is no test."""
