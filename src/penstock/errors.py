"""The error tree, ordered by what the caller can do.

    PenstockError
    ├─ ConfigError (ValueError)   the call is wrong; nothing was started
    ├─ ClosedError                used after aclose, or after fork
    ├─ BackendError               backend, verb, key, retryable; __cause__ is the client's own error
    │  ├─ BackendUnavailable      no connection, timeout, failover, loading: try again
    │  ├─ BackendRejected         credentials, rights, wrong type, command missing, out of memory
    │  └─ NotFound                no such stream or group
    ├─ OutcomeUnknown             no reply: stored, unknown and unsent counts
    ├─ PositionLost               wanted, oldest: the log was trimmed past you
    ├─ GroupLost, LeaseLost       signalled; raised where it cannot be mended
    ├─ PayloadTooLarge            size, limit in bytes; nothing was sent
    ├─ ConflictError              an expected position or id did not hold
    ├─ EncodeError, DecodeError   ours to mend, theirs to mend
    ├─ StageError
    │  ├─ SubscriptionCancelled
    │  └─ DemandExceeded
    └─ Reject, RetryLater         raised by handlers: what is to become of the event

Does        carry fields, not only text: every class says what a program needs to react.
Does not    know any backend: foreign exceptions are mapped at each backend's edge.
Invariants  1. every error of this library is a PenstockError.
            2. a message says what must hold, what was given, where, and what to do;
               it never holds a password.
"""

from __future__ import annotations


class PenstockError(Exception):
    """The root of everything that this library raises on its own account."""


class ConfigError(PenstockError, ValueError):
    """The call is wrong, or the backend does not offer what it asks for; nothing was started."""


class ClosedError(PenstockError):
    """The object was used after ``aclose()``, or in another process than the one that made it."""


class BackendError(PenstockError):
    """The backend did not do what it was asked.

    Attributes:
        backend: which kind of backend, e.g. ``"redis"``.
        verb: what was asked of it, e.g. ``"append"``.
        key: the stream or key that it was asked of; ``""`` if none.
        retryable: whether the same call may succeed later without anybody mending anything.
    """

    retryable = False

    def __init__(self, message: str, *, backend: str = "", verb: str = "", key: str = "") -> None:
        super().__init__(message)
        self.backend = backend
        self.verb = verb
        self.key = key


class BackendUnavailable(BackendError):
    """No connection, no answer in time, failing over, loading: the same call may succeed later."""

    retryable = True


class BackendRejected(BackendError):
    """Refused: credentials, rights, wrong type of key, missing command, out of memory."""


class StreamFull(BackendRejected):
    """The stream holds as many events as its retention allows (`cap`); nothing was stored."""


class NotFound(BackendError):
    """There is no such stream or group."""


class OutcomeUnknown(PenstockError):
    """No reply came, so nobody can say whether the events were stored.

    Attributes:
        stored: how many events are known to be stored.
        unknown: how many events may or may not be stored.
        unsent: how many events were certainly not stored.
    """

    def __init__(self, message: str, *, stored: int = 0, unknown: int = 0, unsent: int = 0) -> None:
        super().__init__(message)
        self.stored = stored
        self.unknown = unknown
        self.unsent = unsent


class NotConfirmed(OutcomeUnknown):
    """The events are stored on the master; replicas or disk did not confirm them in time.

    A failover, or losing power, may lose them. To append them again doubles them, but for those
    that have an `id`.

    Attributes:
        confirmed: how many replicas (or disks) have confirmed.
    """

    def __init__(self, message: str, *, stored: int = 0, confirmed: int = 0) -> None:
        super().__init__(message, stored=stored)
        self.confirmed = confirmed


class PositionLost(PenstockError):
    """The log was trimmed past the position that a reader stood at.

    Attributes:
        wanted: the position that was wanted, in its string form.
        oldest: the oldest position that is left; ``""`` if the log is empty.
        lost: how many events were lost; ``None`` where the backend cannot tell.
        stream: the stream; ``""`` if not known.
        shard: the number of its shard.
    """

    def __init__(
        self,
        message: str,
        *,
        wanted: str = "",
        oldest: str = "",
        lost: int | None = None,
        stream: str = "",
        shard: int = 0,
    ) -> None:
        super().__init__(message)
        self.stream = stream
        self.shard = shard
        self.wanted = wanted
        self.oldest = oldest
        self.lost = lost


class GroupLost(PenstockError):
    """The group vanished from the backend and could not be made anew."""


class LeaseLost(PenstockError):
    """The event is no longer this member's: it was held too long, or the member was taken for dead.

    Attributes:
        positions: the positions of the events that were refused, in their string form.
    """

    def __init__(self, message: str, *, positions: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.positions = positions


class PayloadTooLarge(PenstockError):
    """An event is over the limit; nothing of it was sent.

    Attributes:
        size: the size of the event in bytes.
        limit: the limit in bytes.
    """

    def __init__(self, message: str, *, size: int, limit: int) -> None:
        super().__init__(message)
        self.size = size
        self.limit = limit


class ConflictError(PenstockError):
    """An expected position or id did not hold; nothing was stored.

    Attributes:
        position: what stands there instead: the newest position of the shard, or that of the
            event which has the id; ``None`` where there is none.
    """

    def __init__(self, message: str, *, position: tuple[int, ...] | None = None) -> None:
        super().__init__(message)
        self.position = position


class EncodeError(PenstockError):
    """The value cannot be written with the stream's codec; nothing was sent."""


class DecodeError(PenstockError):
    """What the stream holds cannot be read with the stream's codec; the bytes are untouched.

    Attributes:
        stream: the stream of the event; ``""`` if not known.
        position: the position of the event in its string form; ``""`` if not known.
    """

    def __init__(self, message: str, *, stream: str = "", position: str = "") -> None:
        super().__init__(message)
        self.stream = stream
        self.position = position


class StageError(PenstockError):
    """A stage broke its contract, or failed.

    Attributes:
        stage: the name of the stage; ``""`` if it is about none.
    """

    def __init__(self, message: str, *, stage: str = "") -> None:
        super().__init__(message)
        self.stage = stage


class SubscriptionCancelled(StageError):
    """The other end of a subscription went away."""


class DemandExceeded(StageError):
    """More events came than were asked for: always a bug of the producer."""


class Reject(PenstockError):
    """Raised by a handler: this event will never do; it goes to the dead letters at once.

    No retry follows, whatever `Retry` says.

    Attributes:
        reason: why, kept with the dead letter.
    """

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason or "the handler rejected the event and gave no reason")
        self.reason = reason


class RetryLater(PenstockError):
    """Raised by a handler: not now; the event comes again later, and no failure is counted.

    Attributes:
        seconds: how long to wait.
        reason: why, for the log.
    """

    def __init__(self, seconds: float, reason: str = "") -> None:
        if not 0 <= seconds < float("inf"):
            raise ConfigError(f"RetryLater needs 0 seconds or more, got {seconds!r}")
        super().__init__(reason or f"the handler asked to try again in {seconds} s")
        self.seconds = float(seconds)
        self.reason = reason
