"""What Pulse's streams do, line by line, in the words of our API.

The lines are those of a reading of `goa.design/pulse/streaming`, which `scripts/conformance.py`
joins with the tests that carry ``@pytest.mark.conformance(…)``. A sink is a group. Where Pulse does
otherwise by mistake (FIX), or where our contract is another one, the line says what we do.
"""

from __future__ import annotations

from typing import Final

TITLE: Final = "Pulse's streams: what is shown by which test"
PAGE: Final = "docs/pulse-conformance.md"
PREFIX: Final = "PU"

SECTIONS: Final[dict[str, dict[str, str]]] = {
    "Streams": {
        "PU-001": "Names that may not be are refused before anything is asked of the server.",
        "PU-002": "Making a Stream asks nothing of the server.",
        "PU-003": "append returns the position, whose text is the entry's id.",
        "PU-004": "An entry of Pulse's: the fields n, p, and t only with a topic, in that order.",
        "PU-005": "A payload is arbitrary bytes, and comes back identical.",
        "PU-006": "A stream is not trimmed unless it is told to be.",
        "PU-007": "A number of events that a stream is to keep is kept to as it grows.",
        "PU-008": "only_if_exists on a stream that is missing makes nothing, and says so.",
        "PU-009": "An absolute time to live is not extended by later appends.",
        "PU-010": "A sliding one is.",
        "PU-011": "An append and its time to live are one step.",
        "PU-012": "Making a group makes the stream; its time to live begins with its first event.",
        "PU-013": "remove takes those events out; the length drops.",
        "PU-014": "destroy takes the stream and all that is kept for it; if absent, no error.",
        "PU-015": "An event's time is that of its id, in seconds since 1970.",
    },
    "Readers": {
        "PU-016": "A reader starts at the newest event by default.",
        "PU-017": "It starts at the oldest, behind a position, or at a time.",
        "PU-018": "A time includes the events of that very millisecond.",
        "PU-019": "One that starts at the newest loses nothing, however long nobody asks.",
        "PU-020": "Two readers each get every event; one made later goes on behind a position.",
        "PU-021": "Events that come before anybody asks are there; tasks share them.",
        "PU-022": "A task that stops asking ends nobody else's reading.",
        "PU-023": "A topic filters by equality; no topic is the empty one.",
        "PU-024": "A pattern must match a whole topic (Pulse's: a part); a bad one raises at once.",
        "PU-025": "So does a predicate on the event.",
        "PU-026": "One filter a reader: there is no second one that it could contradict.",
        "PU-027": "What is filtered out moves the position on.",
    },
    "Groups": {
        "PU-028": "A group acks what it filters out: nothing of it stays pending.",
        "PU-029": "Two members of a group share its events, each goes to one.",
        "PU-030": "Two groups each get every event.",
        "PU-031": "Groups start where readers may; an existing one goes on where it stands.",
        "PU-032": "A group is joined twice without harm.",
        "PU-033": "What is acked never comes again.",
        "PU-034": 'acks="none" leaves nothing pending.',
        "PU-035": "What a dead member held comes to any that lives, also to one of its own name.",
        "PU-036": "A handler that takes long keeps its events; deliveries and attempts are told.",
        "PU-037": "What a leaving member held comes to the others.",
        "PU-038": "A dead member disappears from its group.",
        "PU-039": "No consumer is deleted while it has pending events.",
        "PU-040": "After all members were away, what was in flight comes to the first one back.",
        "PU-041": "Of several that see a death, one takes over, by a fence that no clock decides.",
        "PU-042": "Groups of one name on different streams have nothing in common.",
        "PU-043": "Pulse's membership and keepalive maps are written.",
        "PU-044": "Pulse's keepalives are understood.",
        "PU-045": "Pulse's replicated maps: list values in both forms.",
        "PU-046": "Pulse's replicated maps: old revisions are ignored.",
    },
    "Streams that come and go": {
        "PU-047": "A stream that is added begins where the reader did, or where it is told.",
        "PU-048": "Adding a stream twice is a no-op, by name.",
        "PU-049": "A stream that is removed yields nothing more; added again, it goes on.",
        "PU-050": "Removing is by name; removing the last one is refused.",
        "PU-051": "Adding and removing wake a read that waits.",
        "PU-052": "A group over two streams gets both, and acks each where it belongs.",
        "PU-053": "A stream that is deleted under a group is mended: nothing is skipped.",
        "PU-054": "A stream that was destroyed, or made anew, is told to those who read it.",
    },
    "Life": {
        "PU-055": "Closing twice is fine, and prompt: also when somebody waits, or nobody takes.",
        "PU-056": "A program that takes nothing keeps its lease, and can leave.",
        "PU-057": "An entry of others, or a malformed one, stops nobody.",
        "PU-058": "A connection is made again for ever: delays grow, are capped, and end at once.",
        "PU-059": "A server that has forgotten the scripts is told them again.",
        "PU-060": "What is fetched is the program's: it is handed out as soon as somebody asks.",
        "PU-061": "The same id and content again is the same event; other content is a conflict.",
        "PU-062": "What a stream holds is read in one step, without effects.",
        "PU-063": "A position that is not held any more is told, never skipped.",
        "PU-064": "After its deadline a stream is gone.",
        "PU-065": "What a stream keeps is agreed upon; another start of a group is reported.",
        "PU-066": "A stream that was made anew is not taken for the old one.",
        "PU-067": "Signals go to an observer, or into the log of the standard library.",
        "PU-068": "All keys of a stream share a hash tag.",
    },
}

FIX: Final = frozenset(
    f"PU-{line:03}"
    for line in (
        *(11, 18, 19, 25, 26, 28, 36, 39, 40, 41, 42, 48, 50, 51, 53, 54, 55, 56, 57, 58, 59, 60),
        68,
    )
)
"""Lines where Pulse does otherwise than it should: we do what it means to."""

_WIRE: Final = "Pulse's own layout on the wire: it comes with the layout `pulse`, not yet."

REASONS: Final = dict.fromkeys(("PU-004", "PU-043", "PU-044", "PU-045", "PU-046"), _WIRE)
"""Why there is no test."""
