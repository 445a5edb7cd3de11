"""Penstock moves events through Python programs, and loses none.

    async with penstock.connect("redis://localhost:6379") as client:
        orders = client.stream("orders")
        await orders.append({"id": 7, "state": "paid"})
        async with orders.group("billing") as group:
            async for event in group:
                async with group.handling(event):
                    await charge(event.value)

The nouns: a **stream** is a durable, ordered log of **events**. A **writer** appends, pipelined.
A **reader** has a cursor of its own and sees every event. The members of a **group** share the
events among themselves, and ack each when the work on it is done.

The same program runs on ``memory://``, on ``embedded://`` (a server that Penstock starts itself)
and on ``redis://``: only the URL changes.
"""

from penstock._version import __version__
from penstock.codecs import Codec
from penstock.errors import (
    BackendError,
    BackendRejected,
    BackendUnavailable,
    ClosedError,
    ConfigError,
    ConflictError,
    DecodeError,
    DemandExceeded,
    EncodeError,
    GroupLost,
    LeaseLost,
    NotConfirmed,
    NotFound,
    OutcomeUnknown,
    PayloadTooLarge,
    PenstockError,
    PositionLost,
    Reject,
    RetryLater,
    StageError,
    StreamFull,
    SubscriptionCancelled,
)
from penstock.event import END, NEWEST, OLDEST, Event, Position, after, at, idle
from penstock.pipeline import App, AppOutcome, AppTest, HandlerStatistics, Output, extend
from penstock.rules.retention import Retention
from penstock.rules.retry import Retry
from penstock.signals import Signal
from penstock.streams.blocking import BlockingClient, blocking
from penstock.streams.client import Client, connect
from penstock.streams.dead_letters import DeadLetter, DeadLetters
from penstock.streams.group import Group
from penstock.streams.lane import Receipt
from penstock.streams.reader import Reader
from penstock.streams.stream import Stream
from penstock.streams.writer import Writer

__all__ = [
    "END",
    "NEWEST",
    "OLDEST",
    "App",
    "AppOutcome",
    "AppTest",
    "BackendError",
    "BackendRejected",
    "BackendUnavailable",
    "BlockingClient",
    "Client",
    "ClosedError",
    "Codec",
    "ConfigError",
    "ConflictError",
    "DeadLetter",
    "DeadLetters",
    "DecodeError",
    "DemandExceeded",
    "EncodeError",
    "Event",
    "Group",
    "GroupLost",
    "HandlerStatistics",
    "LeaseLost",
    "NotConfirmed",
    "NotFound",
    "OutcomeUnknown",
    "Output",
    "PayloadTooLarge",
    "PenstockError",
    "Position",
    "PositionLost",
    "Reader",
    "Receipt",
    "Reject",
    "Retention",
    "Retry",
    "RetryLater",
    "Signal",
    "StageError",
    "Stream",
    "StreamFull",
    "SubscriptionCancelled",
    "Writer",
    "__version__",
    "after",
    "at",
    "blocking",
    "connect",
    "extend",
    "idle",
]
