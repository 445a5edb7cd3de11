"""The list of all scripts, which `link.py` loads on every connection.

Does        name them.
Does not    hold any: each lies beside its like.
"""

from __future__ import annotations

from typing import Final

from penstock.backends.redis.append_scripts import APPEND, MOVE, RETAIN, STORE
from penstock.backends.redis.group_scripts import ACK, BEAT, BURY, CLAIM, JOIN, LEAVE, LOOK, PARK
from penstock.backends.redis.letter_scripts import GIVE_UP, REPLAY
from penstock.backends.redis.recovery_scripts import (
    GAP,
    MAKE,
    RENEW,
    REPARK,
    RESET,
    RESET_SHARE,
    TEND,
)
from penstock.backends.redis.scripts import MARK, OPEN, TRIM
from penstock.backends.redis.shard_scripts import (
    COMMIT,
    COMMIT_WITH_LETTERS,
    FOUND,
    GIVE,
    STRIKE,
    TAKE,
)

ALL: Final = (
    OPEN,
    MARK,
    APPEND,
    STORE,
    MOVE,
    RETAIN,
    TRIM,
    JOIN,
    BEAT,
    LOOK,
    CLAIM,
    PARK,
    LEAVE,
    ACK,
    BURY,
    FOUND,
    TAKE,
    COMMIT,
    COMMIT_WITH_LETTERS,
    GIVE,
    STRIKE,
    GIVE_UP,
    REPLAY,
    MAKE,
    TEND,
    GAP,
    RENEW,
    REPARK,
    RESET,
    RESET_SHARE,
)
