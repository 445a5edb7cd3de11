"""`where`: which events a reader or a group wants.

Does        turn a topic, a glob, a regular expression or a predicate into one predicate.
Does not    run on the server: it is decided on the client, and a group acks what it filters out.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fnmatch import translate
from typing import Any

from penstock.errors import ConfigError, DecodeError
from penstock.event import Event

Where = str | re.Pattern[str] | Callable[[Event[Any]], bool]
"""A topic (``"eu"``), a glob on topics (``"eu.*"``), a compiled regular expression that must match
the whole topic, or a predicate on the event; an event that it cannot decode is wanted."""


def predicate(where: Where | None) -> Callable[[Event[Any]], bool] | None:
    """The one predicate that *where* means; None: everything is wanted.

    Raises:
        ConfigError: *where* is none of the four.
    """
    if where is None:
        return None
    if isinstance(where, re.Pattern):
        return lambda event: where.fullmatch(event.topic) is not None
    if isinstance(where, str):
        return _by_topic(where)
    if callable(where):
        return _by_event(where)
    raise ConfigError(
        f"where must be a topic, a glob, a compiled regular expression or a predicate on the "
        f"event, got {type(where).__name__}"
    )


def sift(
    events: list[Event[Any]], where: Callable[[Event[Any]], bool] | None
) -> tuple[list[Event[Any]], Exception | None]:
    """Those of *events* that are wanted; what *where* raised ends both lists before that event."""
    if where is None:
        return events, None
    wanted: list[Event[Any]] = []
    for at, event in enumerate(events):
        try:
            if where(event):
                wanted.append(event)
        except Exception as error:  # noqa: BLE001 - it is raised where one reads
            error.add_note(f"raised by where= for the event {event.position} of {event.stream!r}")
            del events[at:]
            return wanted, error
    return wanted, None


def _by_event(where: Callable[[Event[Any]], bool]) -> Callable[[Event[Any]], bool]:
    def wanted(event: Event[Any]) -> bool:
        try:
            return where(event)
        except DecodeError:  # nobody can know: whoever handles it shall see
            return True

    return wanted


def _by_topic(where: str) -> Callable[[Event[Any]], bool]:
    if not any(character in where for character in "*?["):
        return lambda event: event.topic == where
    pattern = re.compile(translate(where))
    return lambda event: pattern.match(event.topic) is not None
