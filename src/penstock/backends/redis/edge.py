"""The edge: what Redis and the connection say, in our error tree.

Does        map error replies by their first word, and connection errors, keeping the cause.
Does not    retry, or hide anything.
Invariants  1. texts differ between servers and versions; only first words are relied on.
            2. asyncio.CancelledError passes untouched.
Source      reliability notes 1.9: which reply means what was certainly not executed.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

from penstock.errors import BackendError, BackendRejected, BackendUnavailable, NotFound, StreamFull


class ReplyError(Exception):
    """An error reply of the server; `code` is its first word."""

    @property
    def code(self) -> str:
        """The first word, e.g. ``"WRONGTYPE"``."""
        return str(self).partition(" ")[0]


class ConnectionLost(Exception):
    """The connection ended with requests unanswered: what became of them is not known."""


class TlsRefused(ConnectionLost):
    """No agreement about TLS: a certificate, an authority, or a port that does not speak it."""


RETRY: Final = frozenset(
    (
        "LOADING",
        "MASTERDOWN",
        "BUSY",
        "TRYAGAIN",
        "CLUSTERDOWN",
        "NOREPLICAS",
        "READONLY",
        "MISCONF",
        "UNBLOCKED",
        "NOSCRIPT",
    )
)
"""Certainly not executed, and may go well later."""

REFUSING: Final = (RETRY | {"OOM"}) - {"UNBLOCKED", "NOSCRIPT"}
"""What the server's keepers should hear of: it stands, and serves nothing, or nothing new."""

FULL: Final = "max number of clients"
"""Within the text of the refusal (its first word is ERR, or none): maxclients is reached."""

DEMOTED: Final = frozenset(("READONLY", "MASTERDOWN"))
"""Said by a replica alone: the connection is given up, so that the next one finds the master."""

_ADVICE: Final[dict[str, str]] = {
    "WRONGPASS": "check the user and the password of the URL",
    "NOAUTH": "give a user and a password in the URL",
    "NOPERM": "ask for the rights that the documentation lists for this role",
    "WRONGTYPE": "the key is not a stream; use another name",
    "OOM": "the server has reached maxmemory; trim streams or give it more memory",
    "MISCONF": "the server cannot write to its disk; free space or mend it",
    "READONLY": "this is a replica; connect to the master, or let redis+sentinel:// find it",
    "MASTERDOWN": "this replica has lost its master, and replica-serve-stale-data is no",
    "LOADING": "the server is loading its data",
    "BUSY": "a script runs for too long; SCRIPT KILL ends one that has not written",
    "CLUSTERDOWN": "the cluster does not serve all slots; mend it",
    "NOREPLICAS": "the server waits for its replicas (min-replicas-to-write)",
}


def refused(error: Exception, *, verb: str, key: str = "") -> BackendError:
    """The error of our tree that an error reply means."""
    text = str(error)
    code = text.partition(" ")[0]
    kind: type[BackendError] = BackendRejected
    if code in RETRY or FULL in text:
        kind = BackendUnavailable
    elif code == "NOGROUP" or "no such key" in text.lower():
        kind = NotFound
    advice = _ADVICE.get(code)
    where = f" {key!r}" if key else ""
    mapped = kind(
        f"redis refused to {verb}{where}: {text}" + (f"; {advice}" if advice else ""),
        backend="redis",
        verb=verb,
        key=key,
    )
    mapped.__cause__ = error
    return mapped


def full(stream: str, cap: int) -> StreamFull:
    """The error of a stream that may not grow."""
    return StreamFull(
        f"stream {stream!r} must hold at most {cap} events (its retention's cap), and has no room "
        f"for these; let its groups catch up, trim it, or raise the cap",
        backend="redis",
        verb="append to",
        key=stream,
    )


def unavailable(
    error: BaseException, place: str, *, verb: str, key: str = ""
) -> BackendUnavailable:
    """The error that a lost or refused connection means."""
    where = f" {key!r}" if key else ""
    mapped = BackendUnavailable(
        f"redis at {place} must answer to {verb}{where}, but {reason(error)}; "
        f"check that the server runs and can be reached; trying again may succeed",
        backend="redis",
        verb=verb,
        key=key,
    )
    mapped.__cause__ = error
    return mapped


def reason(error: BaseException) -> str:
    """What happened, in a few words."""
    if isinstance(error, TimeoutError):
        return "there was no answer in time"
    text = str(error) or type(error).__name__
    return f"the connection failed: {text}"


@contextmanager
def mapped(place: str, *, verb: str, key: str = "") -> Generator[None, None, None]:
    """Map whatever the wire, redis-py or the socket raise inside."""
    try:
        yield
    except ReplyError as error:
        raise refused(error, verb=verb, key=key) from error
    except (ConnectionLost, TimeoutError, OSError) as error:
        raise unavailable(error, place, verb=verb, key=key) from error
