"""What SeaStreamer's Redis streams do, line by line, in the words of our API.

The lines are those of a reading of `sea-streamer-redis`, which `scripts/conformance.py` joins with
the tests that carry ``@pytest.mark.conformance(…)``. Real-time is a reader; resumable is a group
whose member has a name of its own; load-balanced is a group. Where SeaStreamer does otherwise by
mistake (FIX), or where our contract is another one, the line says what we do.
"""

from __future__ import annotations

from typing import Final

TITLE: Final = "SeaStreamer's streams: what is shown by which test"
PAGE: Final = "docs/seastreamer-conformance.md"
PREFIX: Final = "SS"

SECTIONS: Final[dict[str, dict[str, str]]] = {
    "Names and events": {
        "SS-001": "Stream names are 1 to 249 of a plain alphabet; an empty one is refused.",
        "SS-002": "URLs are read with all their parts; a wrong one says what must hold.",
        "SS-003": "Stream, shard and position together are what an event is known by.",
        "SS-004": "An entry of SeaStreamer's: one field `msg`, which can be called otherwise.",
        "SS-005": "Positions carry any two numbers of 64 bits, never an error.",
        "SS-006": "An event's time is that of its id, unless it was given one.",
        "SS-007": "All fields of an entry can be reached; a strange entry is passed, not stuck at.",
    },
    "Writers": {
        "SS-008": "send waits only for room; its receipt can be awaited, or dropped.",
        "SS-009": "What is pending is bounded, in events and bytes; send waits for room.",
        "SS-010": "The positions of receipts increase.",
        "SS-011": "Sends are pipelined, also over shards.",
        "SS-012": "A writer's order is kept, by key.",
        "SS-013": "flush returns when all earlier sends have their outcome; leaving flushes.",
        "SS-014": "A writer belongs to one stream; any other is a handle away.",
        "SS-015": "Handles share one session; closing one ends none of the others.",
        "SS-016": "An explicit time is kept with the event, in whatever order times come.",
        "SS-017": "A key goes to one shard by a stable hash; what has none goes round.",
        "SS-018": "Shard n is the key name:n; events say which shard they are of.",
        "SS-019": "Trimming by length, age or position counts what it removed, over all shards.",
        "SS-020": "What may have been stored is not stored twice by trying again.",
        "SS-021": "Giving up raises in every receipt that waits, and ends no process.",
    },
    "Readers": {
        "SS-022": "NEWEST: what is appended after entering is read, from that very moment.",
        "SS-023": "NEWEST is anchored once for each stream and shard, to a concrete position.",
        "SS-024": "OLDEST: all history, then what comes.",
        "SS-025": "One reader reads several streams.",
        "SS-026": "A wait can be cancelled, and nothing is lost.",
        "SS-027": "Readers and groups are iterated over.",
        "SS-028": "The next page is read while the program works.",
        "SS-029": "No more is fetched than there is room for.",
        "SS-030": "How much is read ahead is an option.",
        "SS-031": "So is how much a member holds; 0 is refused.",
    },
    "Groups": {
        "SS-032": "A member with a name of its own resumes what it held, in any process.",
        "SS-033": "Members without names share; each has a name that nobody else has.",
        "SS-034": "A group is made where it is told when missing; an existing one is kept.",
        "SS-035": "A stream that is missing is waited for.",
        "SS-036": "A member first gets what is pending under its name, then new events.",
        "SS-037": 'acks="none": the server keeps nothing; what was not handled is skipped.',
        "SS-038": 'acks="delayed": acked ack_delay after delivery; there is no ack to call.',
        "SS-039": "Acks are queued, and sent in the background at least every ack_interval.",
        "SS-040": "That interval holds also when no event comes.",
        "SS-041": "ack_interval=None: nothing is acked before flush, which can be awaited.",
        "SS-042": "An event, or a batch of them, is acked by itself.",
        "SS-043": "Leaving sends all queued acks; delayed ones where the block ended well.",
        "SS-044": "What was not acked comes again under the same name.",
        "SS-045": "Of five events, four acked: a restart begins with the fifth.",
        "SS-046": "Acks that could not be sent stay queued.",
        "SS-047": "Readers keep no books of acks.",
        "SS-048": "Two members share: all events, none twice while all is well.",
        "SS-049": "What a dead member held is taken over after its lease: it can be set, not off.",
        "SS-050": "What was taken over belongs to who took it.",
        "SS-051": "A take-over goes through all pages; deliveries are told; poison has a limit.",
        "SS-052": "A slow handler does not look dead.",
        "SS-053": "A member that comes back under its old name gets new work.",
    },
    "Moving": {
        "SS-054": "A read that waits is woken by seek, add, remove and close at once.",
        "SS-055": "seek(at(time)) goes to the first event at or after that time.",
        "SS-056": "seek goes to the oldest, to the newest, or behind a position, on every backend.",
        "SS-057": "What was read ahead before a seek never comes after it.",
        "SS-058": "seek(NEWEST) is anchored when it returns.",
        "SS-059": "Seeking is a reader's: a group's events are read apart by a reader.",
        "SS-060": "Streams are added and removed at once; the last and unknown ones are refused.",
        "SS-061": "How many shards there are is stored; other keys are not taken for any.",
        "SS-062": "Shards of a stream that comes to be while a reader waits are all read.",
        "SS-063": "Which shards a reader reads, it says.",
    },
    "Connections": {
        "SS-064": "Streams are listed; ranges are read with bounds and a limit.",
        "SS-065": "User, password, database, timeout and TLS are parts of the URL, and honoured.",
        "SS-066": "A lost connection is made again with growing delays, for ever.",
        "SS-067": "Closing the client ends what is open, and sends what is queued.",
        "SS-068": "Several nodes are refused; a real cluster (`redis+cluster://`) is one, not yet.",
        "SS-069": "Errors are typed by what the caller can do.",
        "SS-070": "A key of another type is told as such.",
        "SS-071": "One interface for all backends; what one does not offer is refused.",
    },
}

FIX: Final = frozenset(
    f"SS-{line:03}"
    for line in (
        *(1, 5, 7, 9, 11, 16, 17, 19, 20, 21, 22, 30, 35, 40, 47, 50, 51, 52, 54, 56, 58, 59, 60),
        *(62, 65, 66, 67, 68),
    )
)
"""Lines where SeaStreamer does otherwise than it should: we do what it means to."""

REASONS: Final = {
    "SS-004": "SeaStreamer's own layout on the wire: it comes with the layout `seastreamer`, not "
    "yet. Until then its entries are read as foreign ones: their fields are the value.",
}
"""Why there is no test."""
