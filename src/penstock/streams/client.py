"""Client: a connection to where the streams are.

Does        read the URL, open the backend, hand out streams, readers and groups.
Does not    hold events.
Invariants  1. nothing is connected before ``async with``; what cannot be reached is said there.
            2. a client belongs to one process: after a fork it says so.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeVar, Unpack, overload

from penstock.clock import Clock, SystemClock
from penstock.codecs import Codec
from penstock.errors import ClosedError, ConfigError
from penstock.event import NEWEST, Position, Shard, Start, Until
from penstock.observers import Observers
from penstock.ports import AppendOptions, Confirm, Marks, Retention
from penstock.rules.filters import Where
from penstock.signals import Observer
from penstock.streams.group import Group
from penstock.streams.group_options import Acks, GroupKeywords, GroupOptions
from penstock.streams.group_reader import GroupReader
from penstock.streams.lane import Lane
from penstock.streams.names import check_label, check_stream, check_streams
from penstock.streams.opening import Closable, Limits, Opened, open_backend, with_options
from penstock.streams.reader import Reader
from penstock.streams.single_lanes import SingleLanes
from penstock.streams.stream import Stream
from penstock.streams.stream_options import StreamKeywords, check_options
from penstock.streams.tending import Tender
from penstock.url import Url, parse_url

if TYPE_CHECKING:
    import redis.asyncio
T = TypeVar("T")

MAX_EVENT_BYTES: Final = 1 << 20
"""The largest event by default: brokers' own limits are near it, and a page of events must fit."""


def connect(
    url: str | None = None,
    *,
    user: str | None = None,
    password: str | None = None,
    db: int | None = None,
    client_name: str | None = None,
    timeout: float | None = None,
    ca: str | os.PathLike[str] | None = None,
    cert: str | os.PathLike[str] | None = None,
    key: str | os.PathLike[str] | None = None,
    verify: bool | None = None,
    sentinel_user: str | None = None,
    sentinel_password: str | None = None,
    max_event_bytes: int = MAX_EVENT_BYTES,
    confirm: Confirm = "server",
    observer: Observer | Iterable[Observer] = (),
    clock: Clock | None = None,
) -> Client:
    """A client; use it with ``async with``, which connects.

    Args:
        url: where the streams are; None: ``$PENSTOCK_URL``. What follows may stand in it too.
        user: whom to log in as.
        password: with which password; it is never shown.
        db: which of the server's databases.
        client_name: what the server calls this connection.
        timeout: the longest wait for a connection, in seconds; 5 by default.
        ca: a file of PEM with the authorities to trust, with ``rediss://``; else the system's.
        cert: a file of PEM with our own certificate, for servers that ask for one.
        key: a file of PEM with its private key, unless that is in *cert* too.
        verify: False trusts any server: for tests alone.
        sentinel_user: whom to log in to the sentinels as, with ``redis+sentinel://``.
        sentinel_password: with which password; it is never shown.
        max_event_bytes: the largest event that may be appended.
        confirm: what appends wait for, unless they say otherwise; see `Stream.writer`.
        observer: who is told of signals (one or several); without any they are logged.
        clock: where time comes from; the machine's by default.

    Raises:
        ConfigError: no URL, or a wrong one.
    """
    text = url if url is not None else os.environ.get("PENSTOCK_URL", "")
    if not text:
        raise ConfigError(
            "a URL must say where the streams are, and neither connect(url) nor $PENSTOCK_URL "
            "does; embedded:// starts a server of your own"
        )
    given = {
        "user": user,
        "password": password,
        "db": None if db is None else str(db),
        "client_name": client_name,
        "timeout": None if timeout is None else str(timeout),
        "ca": None if ca is None else os.fspath(ca),
        "cert": None if cert is None else os.fspath(cert),
        "key": None if key is None else os.fspath(key),
        "verify": None if verify is None else ("yes" if verify else "no"),
        "sentinel_user": sentinel_user,
        "sentinel_password": sentinel_password,
    }
    parsed = with_options(parse_url(text), {k: v for k, v in given.items() if v is not None})
    observers = Observers([observer] if callable(observer) else observer)
    return Client(parsed, observers, clock or SystemClock(), Limits(max_event_bytes, confirm))


class Client:
    """Where streams come from. Made by `connect`."""

    def __init__(self, url: Url, observers: Observers, clock: Clock, limits: Limits) -> None:
        self.url = url
        self.observers = observers
        self.clock = clock
        self.max_event_bytes = limits.max_event_bytes
        self.confirm: Confirm = limits.confirm
        self._opened: Opened | None = None
        self._lanes = SingleLanes()
        self.tender = Tender(self)
        self._process = os.getpid()
        self._closed = False
        self._closing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            BackendUnavailable: nothing answers within the timeout.
            BackendRejected: wrong credentials, or a server that is too old.
            ConfigError: something is not installed, or appends cannot be confirmed as asked for.
        """
        if self._closed or self._opened is not None:
            state = "was closed; call connect() anew" if self._closed else "is open"
            raise ClosedError(f"a client is opened once, and this one {state}")
        self._opened = await open_backend(self.url, self.clock, self.observers, self.confirm)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    @property
    def backend(self) -> Any:
        """The backend, by its ports.

        Raises:
            ClosedError: not opened yet, closed, or made in another process (before a fork).
        """
        if os.getpid() != self._process:
            raise ClosedError(
                "a client must be made in the process that uses it, and this one was made before "
                "a fork; call connect() in the child"
            )
        if self._opened is None:
            when = "was closed" if self._closed else "is not open: write 'async with connect(...)'"
            raise ClosedError(f"the client of {self.url} {when}")
        return self._opened.backend

    @property
    def redis(self) -> redis.asyncio.Redis:
        """The redis-py client underneath, its retries off, for whatever is not wrapped here.

        Raises:
            ConfigError: the backend is not Redis.
        """
        client = getattr(self.backend, "redis", None)
        if client is None:
            raise ConfigError(f"client.redis needs a Redis or Valkey, got {self.url}")
        return client

    @overload
    def stream(
        self,
        name: str,
        *,
        type: type[T],
        codec: Codec[T] | None = None,
        **options: Unpack[StreamKeywords],
    ) -> Stream[T]: ...
    @overload
    def stream(
        self,
        name: str,
        *,
        type: Any = None,
        codec: Codec[Any] | str | None = None,
        **options: Unpack[StreamKeywords],
    ) -> Stream[Any]: ...
    def stream(
        self,
        name: str,
        *,
        type: Any = None,
        codec: Codec[Any] | str | None = None,
        layout: str | None = None,
        shards: int | None = None,
        foreign: bool = False,
        dedupe_window: float = 300.0,
        retention: Retention | None = None,
    ) -> Stream[Any]:
        """A handle on the stream *name*; nothing is read or written yet.

        Args:
            name: 1 to 249 letters, digits and ``. _ - :``, with at most one leading ``{tag}``.
            type: what values are (Struct, dataclass, TypedDict, tagged union, bytes); None:
                plain mappings, or whatever is stored.
            codec: your own codec, or one of ours by name: ``"fields"``, ``"json"``, ``"raw"``.
            layout: ``"fields"`` or ``"value"``; None: as stored, else by type.
            shards: how many logs the stream is split into by key; None: as stored, else 1.
            foreign: take any existing key that others made.
            dedupe_window: seconds for which the ids that this handle appends are compared;
                0: they are kept with the events, and not compared.
            retention: how much of it is kept, stored with it; None: as stored, else everything.

        Raises:
            ConfigError: a name that may not be, or shards that the backend does not offer.
        """
        check_stream(name, foreign=foreign)
        check_options(
            shards=shards, foreign=foreign, dedupe_window=dedupe_window, retention=retention
        )
        if (shards or 1) > 1 and not self.backend.features.shards:
            raise ConfigError(
                f"{self.url.scheme}:// does not offer sharded streams yet, got shards={shards}"
            )
        return Stream(
            self,
            name,
            type=type,
            codec=codec,
            layout=layout,
            shards=shards,
            foreign=foreign,
            dedupe_window=dedupe_window,
            retention=retention,
        )

    def reader(
        self,
        streams: Sequence[Stream[T]],
        *,
        start: Start | str = NEWEST,
        until: Until | Position | None = None,
        where: Where | None = None,
        prefetch: int = 1000,
    ) -> Reader[T]:
        """A reader over several streams, with a cursor of its own: it sees every event.

        Args:
            streams: which; their events are merged fairly, each stream in its own order.
            start: ``OLDEST``, ``NEWEST``, ``after(position)`` or ``at(datetime)``; NEWEST is
                anchored before ``async with`` returns. A text that `Reader.position` gave goes on
                there; a stream or a shard that it does not name begins at its oldest event.
            until: ``END`` (the newest on entry), ``idle(seconds)``, or a position; None: for ever.
            where: a topic, a glob, a compiled regular expression, or a predicate on the event.
            prefetch: events that are read ahead at most.

        Raises:
            ConfigError: no streams, a prefetch below 1, a `where` that is none of the four, or a
                saved position that names none of the streams.
        """
        check_streams(streams, self)
        return Reader(self, streams, start=start, until=until, where=where, prefetch=prefetch)

    @overload
    def group(
        self,
        name: str,
        streams: Sequence[Stream[T]],
        *,
        acks: Literal["explicit"] = "explicit",
        **options: Unpack[GroupKeywords],
    ) -> Group[T]: ...
    @overload
    def group(
        self,
        name: str,
        streams: Sequence[Stream[T]],
        *,
        acks: Literal["delayed", "none"],
        **options: Unpack[GroupKeywords],
    ) -> GroupReader[T]: ...
    def group(
        self,
        name: str,
        streams: Sequence[Stream[T]],
        *,
        acks: Acks = "explicit",
        **options: Unpack[GroupKeywords],
    ) -> GroupReader[T]:
        """A member of the group *name*: it shares the events of *streams* with the other members.

        Args:
            name: the group's name; it is made on entry if there is none.
            streams: which.
            acks: ``"explicit"``: an event is acked when the program says so; ``"delayed"``: some
                time after it was handed out; ``"none"``: as it is handed out, at most once.
            **options: all of these are optional, and keywords.
            start (Start): where a new group begins: at the oldest event by default, so that
                nothing is missed; an existing one goes on where it stands.
            member (str): the member's name; None: one of its own. A name that is taken up again
                gets its own pending events first.
            share: ``"events"``: any member takes any event, each acked on its own. ``"shards"``:
                a shard belongs to one member at a time, is read in order, and a position is
                committed. ``"any"``: the backend's own way.
            ack_interval: queued acks are sent at least this often, in seconds; None: by `flush`.
            ack_delay: with delayed acks, how long after it was handed out, in seconds.
            lease: a member that does not beat for so long, in seconds, is dead to the others.
            hold: the longest that an event may stay in a hand, in seconds.
            retry: how often an event may fail, and the delays between; then it is a dead letter.
            dead_letters: whether there are any; without, it is tried again for ever.
            where: which events are wanted; the others are acked unseen.
            until: as for readers.
            max_in_flight: events that are fetched and not yet acked, at most.
            max_in_flight_bytes: their bytes, at most.
            max_parked: events of the whole group that wait to be tried again, at most; beyond it
                members keep what fails, and take nothing new.

        Raises:
            ConfigError: an option that is out of range, or that the backend does not offer.
        """
        check_label("group", name)
        check_streams(streams, self)
        checked = GroupOptions.of(options, acks)
        if acks == "explicit":
            return Group(self, name, streams, checked)
        return GroupReader(self, name, streams, checked)

    async def streams(self, pattern: str = "*", *, limit: int | None = None) -> list[str]:
        """The names of the streams that are there, sorted; those of other programs too.

        Waits for the server to look through its keys, in pages.

        Args:
            pattern: a glob: ``*``, ``?`` and ``[…]``.
            limit: names at most; None: all of them.

        Raises:
            ConfigError: a limit below 1.
            BackendError: refused, or not reachable.

        Source: Redis SCAN.
        """
        if limit is not None and limit < 1:
            raise ConfigError(f"limit must be at least 1 stream, got {limit}")
        return list(await self.backend.streams(pattern, limit))

    def observe(self, observer: Observer) -> None:
        """Tell *observer* of every signal from now on."""
        self.observers.add(observer)

    async def aclose(self) -> None:
        """Close what is open of readers, groups and writers, all connections, an embedded server.

        Waits for what writers and acks have sent. Cancelled: it goes on behind.

        Raises:
            PenstockError: the first that closing one of them raised; all others are closed too.
        """
        self._closed = True
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(), name="penstock-closing")
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        try:
            failed = await self.tender.aclose(self._lanes.appenders)
        finally:
            self._lanes.clear()
            opened, self._opened = self._opened, None
            if opened is not None:
                await opened.aclose()
        if failed:
            raise failed[0]

    def opened(self, one: Closable) -> None:
        """*one* (a reader, group or writer) is open, and is to be closed with the client."""
        self.tender.opened(one)

    async def lane(self, shard: Shard, marks: Marks, options: AppendOptions) -> Lane:
        """The lane of single appends to *shard*, shared by all handles."""
        open_appender = self.backend.appender  # says so after a fork, or when it is closed
        about = (shard, marks, options)
        return await self._lanes.get(about, lambda: open_appender(*about))

    def __repr__(self) -> str:
        return f"<Client {self.url}>"
