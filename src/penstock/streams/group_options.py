"""Group options: how a member of a group behaves, as keywords and as checked values.

Does        name every option once, with its default; refuse what is out of range.
Does not    know what is done with them.
Used by     `client.Client.group`, `stream.Stream.group`, `group`, `membership`.
"""

from __future__ import annotations

from typing import Any, Final, Literal, NamedTuple, TypedDict

from penstock.errors import ConfigError
from penstock.event import OLDEST, Position, Start, Until
from penstock.rules.filters import Where
from penstock.rules.retry import Retry
from penstock.streams.names import check_label

Acks = Literal["explicit", "delayed", "none"]
"""When an event is acked: when the program says so, some time after it was handed out, or as it is
handed out (at most once)."""

MAX_IN_FLIGHT: Final = 10_000
MAX_IN_FLIGHT_BYTES: Final = 64 * 1024 * 1024
MAX_PARKED: Final = 10_000


class GroupKeywords(TypedDict, total=False):
    """The options of `Client.group` and `Stream.group`, which say what each means.

    `acks` stands beside them: it decides about the class of the group.
    """

    start: Start
    member: str | None
    share: str
    ack_interval: float | None
    ack_delay: float
    lease: float
    hold: float
    retry: Retry | None
    dead_letters: bool
    where: Where | None
    until: Until | Position | None
    max_in_flight: int
    max_in_flight_bytes: int
    max_parked: int


class GroupOptions(NamedTuple):
    """How a member behaves; see `Client.group`."""

    start: Start = OLDEST
    member: str | None = None
    share: str = "any"
    acks: Acks = "explicit"
    ack_interval: float | None = 0.1
    ack_delay: float = 5.0
    lease: float = 30.0
    hold: float = 300.0
    retry: Retry = Retry()
    dead_letters: bool = True
    where: Where | None = None
    until: Until | Position | None = None
    max_in_flight: int = MAX_IN_FLIGHT
    max_in_flight_bytes: int = MAX_IN_FLIGHT_BYTES
    max_parked: int = MAX_PARKED

    @classmethod
    def of(cls, given: GroupKeywords, acks: Acks = "explicit") -> GroupOptions:
        """The options of *given*, its gaps filled with the defaults.

        Raises:
            ConfigError: out of range, or not among the options.
        """
        unknown = set(given) - set(cls._fields)
        if unknown:
            raise ConfigError(f"a group takes {', '.join(cls._fields)}; got {sorted(unknown)}")
        if given.get("retry", cls._field_defaults["retry"]) is None:
            given = {**given, "retry": Retry()}
        options = cls(acks=acks, **given)  # pyright: ignore[reportArgumentType]
        options.check()
        return options

    def check(self) -> None:
        """Raise ConfigError for what is out of range."""
        if self.member is not None:
            check_label("member", self.member)
        Start.checked(self.start)
        Until.checked(self.until)
        self._check_types()
        if self.share not in ("any", "events", "shards"):
            raise ConfigError(f"share must be 'any', 'events' or 'shards', got {self.share!r}")
        if not 0.1 <= self.lease <= 86_400 or not self.hold > 0:
            raise ConfigError(
                f"lease must be from 0.1 to 86400 seconds and hold above 0, "
                f"got lease={self.lease!r} and hold={self.hold!r}"
            )
        if self.acks not in ("explicit", "delayed", "none") or self.ack_delay < 0:
            raise ConfigError(
                f"acks must be 'explicit', 'delayed' or 'none' and ack_delay 0 seconds or more, "
                f"got acks={self.acks!r} and ack_delay={self.ack_delay!r}"
            )
        if self.max_parked < 1:
            raise ConfigError(f"max_parked must be at least 1 event, got {self.max_parked!r}")
        if self.max_in_flight < 1 or self.max_in_flight_bytes < 1:
            raise ConfigError(
                f"max_in_flight (events) and max_in_flight_bytes must be at least 1, "
                f"got {self.max_in_flight} and {self.max_in_flight_bytes}"
            )
        if self.ack_interval is not None and not self.ack_interval > 0:
            raise ConfigError(
                f"ack_interval must be above 0 seconds, or None for flush() alone, "
                f"got {self.ack_interval!r}"
            )

    def _check_types(self) -> None:
        """Raise ConfigError for a time that is no number, and a `retry` that is none."""
        for name in ("ack_interval", "ack_delay", "lease", "hold"):
            value: Any = getattr(self, name)
            if name == "ack_interval" and value is None:
                continue
            if not isinstance(value, (int, float)):
                raise ConfigError(f"{name} must be a number of seconds, got {value!r}")
        retry: Any = self.retry
        if not isinstance(retry, Retry):
            raise ConfigError(f"retry must be a Retry, such as Retry(attempts=3), got {retry!r}")
