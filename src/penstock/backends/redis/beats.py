"""Beats: what a heartbeat says, beside that its member lives.

Does        read beats: the lease, whether the member rests, how old it is by the server's time.
Does not    beat (`heart.py`), or take anybody for dead (`rules.leases`).
Invariants  1. a beat is ``token:lease in ms:counter@time``: the lease goes with it, so that members
               with different leases (a rolling change of it) do not take each other for dead.
            2. the beat of a member that rests ends in ``r``.
            3. the server's time, in ms, is for people: members judge a beat by whether it moves.
"""

from __future__ import annotations

from typing import Final

from penstock.rules.leases import STRUCK

RESTING: Final = "r"
"""What the beat of a member that rests ends in."""


def is_resting(beat: str) -> bool:
    """Whether a member with *beat* is due no shards, because its program hangs."""
    return beat.endswith(RESTING)


def age_of(beat: str, now: float) -> float:
    """How old *beat* is, in seconds, where it is *now* by the server; 0: it does not say."""
    _, _, said = beat.removesuffix(RESTING).rpartition("@")
    return max(0.0, now - int(said) / 1000) if said.isdigit() and "@" in beat else 0.0


def is_beating(beat: str, now: float) -> bool:
    """Whether *beat* is younger than its own lease, where it is *now* by the server."""
    return beat != STRUCK and age_of(beat, now) <= lease_of(beat, 0.0)


def incarnation_of(beat: str) -> str:
    """Whose *beat* it is: what all beats of one incarnation of a member begin with."""
    return beat.rpartition(":")[0]


def family_of(incarnation: str) -> str:
    """What all incarnations of the same member begin with, and nobody else's."""
    return incarnation.partition(".")[0] + "."


def lease_of(beat: str, own: float) -> float:
    """The lease by which a member with *beat* is judged: the longer of its and ours, in seconds."""
    parts = beat.split(":")
    return max(own, int(parts[1]) / 1000) if len(parts) == 3 else own
