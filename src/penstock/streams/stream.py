"""Stream: a durable, ordered log with a name, and all that one can do with it.

Does        append single events; make writers, readers and groups; describe, trim, remove.
Does not    hold a connection: the client's backend does.
Invariants  1. a handle costs nothing: the first use looks at the stream and adopts its marks.
            2. a handle that asks for another format than is stored gets ConfigError.
Used by     `client.Client.stream`.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, Unpack, overload

from penstock.codecs import Codec
from penstock.errors import (
    ConfigError,
    OutcomeUnknown,
    PenstockError,
)
from penstock.event import NEWEST, Position, Start, Until
from penstock.ports import Appender, AppendOptions, Confirm, Retention, ShardsCame, StreamInfo
from penstock.rules.filters import Where
from penstock.rules.partition import shard_of
from penstock.streams.administration import Administration
from penstock.streams.asked import AppendKeywords, Asked
from penstock.streams.format import Format, choose, make_meta
from penstock.streams.lane import Lane, Receipt, too_late
from penstock.streams.together import Outcome, Shared, positions, store, unsent
from penstock.streams.writer import MAX_PENDING, MAX_PENDING_BYTES, Writer

if TYPE_CHECKING:
    from penstock.streams.client import Client
    from penstock.streams.group import Group
    from penstock.streams.group_options import Acks, GroupKeywords
    from penstock.streams.group_reader import GroupReader
    from penstock.streams.reader import Reader

T = TypeVar("T")

_JUDGED: Final = 1.0
"""Seconds that the appender has, when time is over, to say what became of an append."""


class Stream(Administration[T]):
    """A handle on one stream. Made by `Client.stream`.

    Attributes:
        name: the stream's name.
        client: the client that it came from.
    """

    def __init__(
        self,
        client: Client,
        name: str,
        *,
        type: Any = None,
        codec: Codec[Any] | str | None = None,
        layout: str | None = None,
        shards: int | None = None,
        foreign: bool = False,
        dedupe_window: float = 300.0,
        retention: Retention | None = None,
    ) -> None:
        super().__init__(client, name)
        self._window = dedupe_window
        self._retention = self._wanted_retention = retention
        self._type = type
        self._codec = codec
        self._layout = layout
        self._wanted_shards = shards
        self._shards = self._of = shards or 1
        self._foreign = foreign
        self._format: Format | None = None
        self._looking = Shared[Format]()
        self._agreed = False
        self._turn = secrets.randbelow(self._shards)  # programs that append one event spread too

    @property
    def shards(self) -> int:
        """How many shards the stream has, as far as this handle knows by now."""
        return self._shards

    @property
    def known(self) -> bool:
        """Whether it is known how the stream is stored: it existed when this handle looked."""
        return self._format is not None

    @overload
    async def append(self, value: T, **options: Unpack[AppendKeywords]) -> Position: ...
    @overload
    async def append(
        self,
        value: T,
        *,
        deliver_at: float | datetime | None,
        **options: Unpack[AppendKeywords],
    ) -> Position | None: ...
    async def append(
        self,
        value: T,
        *,
        name: str = "",
        topic: str = "",
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        id: str | None = None,
        timestamp: float | datetime | None = None,
        deliver_at: float | datetime | None = None,
        expect: Position | Literal["empty"] | None = None,
        only_if_exists: bool = False,
        confirm: Confirm | None = None,
        timeout: float = 5.0,
    ) -> Position | None:
        """Append one event and return where it stands; None if it waits for `deliver_at`.

        Waits until the server has stored it. Appends that run at the same time share batches.
        Cancelled: the event may be stored or not.

        Args:
            value: what the stream's codec encodes; plain mappings on an untyped stream.
            name: what happened, e.g. ``"order.paid"``; ``""`` for nothing.
            topic: the label that readers filter by; not a Kafka topic.
            key: what the event is about; events of one key go to one shard.
            headers: free metadata, text by name.
            id: the event's own id. An event whose id was stored within the last `dedupe_window`
                seconds of the stream is not stored again: the position is that of the first.
            timestamp: when it happened, if not now: seconds since 1970, or a datetime with a zone.
            deliver_at: the time before which the event is not in the stream: seconds since 1970,
                or a datetime with a zone. It is moved there within a second of it, once, by any
                client that has the stream open; one that is past is appended at once.
            expect: store it only if this is the newest position of the shard (of events that were
                ever appended); ``"empty"``: if there never was one.
            only_if_exists: store it only in a stream that exists already.
            confirm: what it waits for; see `writer`.
            timeout: seconds after which it is given up (about half a second later at most).

        Raises:
            EncodeError, PayloadTooLarge, ConfigError: it cannot be stored; nothing was sent.
            NotFound: ``only_if_exists``, and there is no such stream.
            ConflictError: `expect` does not hold, or `id` stands for another content; not stored.
            BackendUnavailable: not stored: no connection in time.
            BackendRejected: not stored: refused.
            OutcomeUnknown: sent, and no answer came in time.
            NotConfirmed: stored on the master, and not confirmed as asked for in time.

        Source: Redis XADD; DESIGN.md, "Appends do not double".
        """
        meta = make_meta(name, topic, key, headers, id, timestamp)
        asked = Asked.of(id if self._window else None, key, expect, deliver_at)
        receipt: Receipt | None = None
        try:
            async with asyncio.timeout(timeout + _JUDGED):
                fields, size = (await self.format()).pack(value, meta)
                while True:
                    try:
                        asked.check(self.name, self._shards)
                        lane = await self._lane(self._index(asked.key), only_if_exists, confirm)
                        receipt = Receipt()
                        lane.add(fields, size, receipt, timeout, asked.terms(fields))
                        if deliver_at is not None:
                            self.client.tender.always(self.name)
                        return await self._outcome(receipt)
                    except ShardsCame:  # since the last look: nothing is stored
                        receipt = None
                        await self.look_again()
        except TimeoutError as error:
            raise too_late(self.name, receipt, timeout) from error

    async def append_many(self, values: Sequence[T], *, timeout: float = 30.0) -> list[Position]:
        """Append several events in order, each in its own place; the positions.

        Waits until all are stored. Cancelled: some may be stored.

        Args:
            values: what the stream's codec encodes.
            timeout: seconds that each batch of it (500 events) may go without an outcome, from
                when it is handed over: of long lists, 10 000 events at a time.

        Raises:
            The same as `append` where nothing is stored.
            OutcomeUnknown: it counts those that are stored, that may be, and that are not, also
                where that is known of all: its ``__cause__`` says why.
        """
        form = await self.format()
        packed = [form.pack(value, None) for value in values]
        outcomes: list[Outcome] = [None] * len(packed)
        left = list(range(len(packed)))
        while left:
            found = await store([packed[at] for at in left], self._lane_in_turn, timeout)
            for at, outcome in zip(left, found, strict=True):
                outcomes[at] = outcome
            left = [at for at in left if isinstance(outcomes[at], ShardsCame)]
            try:
                if left:  # since the last look: none of them is stored
                    await self.look_again()
            except PenstockError as error:
                outcomes = [error if isinstance(one, ShardsCame) else one for one in outcomes]
                break
        return positions(outcomes, self.name)

    async def write(self, batch: Sequence[T]) -> None:
        """Append all of *batch*, and wait until it is stored (the port `Target`)."""
        await self.append_many(batch)

    def writer(
        self,
        *,
        max_pending: int = MAX_PENDING,
        max_pending_bytes: int = MAX_PENDING_BYTES,
        timeout: float = 30.0,
        idempotent: bool = True,
        confirm: Confirm | None = None,
    ) -> Writer[T]:
        """A pipelined writer; use it with ``async with``.

        Args:
            max_pending: events that may be without an outcome; `send` waits at that many.
            max_pending_bytes: bytes that may be without an outcome.
            timeout: seconds that an event may go without an outcome, through outages and all.
            confirm: what an event counts as stored by: ``"server"``, its reply; ``"fsync"``, its
                disk; a number of replicas; ``"all"``, those that are connected when the writer is
                opened. None: as `connect` was told. Confirmations are asked for by batches.
            idempotent: store nothing twice when a reply is lost (needs the right to run
                scripts); False: a lost reply is OutcomeUnknown, and ids are not compared.

        Raises:
            ConfigError: a limit below 1, or a backend that cannot be idempotent.
        """
        if not timeout > 0:
            raise ConfigError(f"timeout must be above 0 seconds, got {timeout!r}")

        async def open_appender(index: int) -> Appender:
            foreign = self._foreign
            options = AppendOptions(
                idempotent,
                timeout,
                foreign,
                only_if_exists=foreign,
                window=self._window,
                retention=self._stored_retention,
                confirm=self.client.confirm if confirm is None else confirm,
            )
            return await self._appender(index, options)

        return Writer(
            self,
            open_appender,
            max_pending=max_pending,
            max_pending_bytes=max_pending_bytes,
            idempotent=idempotent,
            dedupe=self._window > 0,
        )

    def reader(
        self,
        *,
        start: Start | str = NEWEST,
        until: Until | Position | None = None,
        where: Where | None = None,
        prefetch: int = 1000,
    ) -> Reader[T]:
        """A reader with a cursor of its own: it sees every event. See `Client.reader`."""
        return self.client.reader([self], start=start, until=until, where=where, prefetch=prefetch)

    @overload
    def group(
        self, name: str, *, acks: Literal["explicit"] = "explicit", **options: Unpack[GroupKeywords]
    ) -> Group[T]: ...
    @overload
    def group(
        self, name: str, *, acks: Literal["delayed", "none"], **options: Unpack[GroupKeywords]
    ) -> GroupReader[T]: ...
    def group(
        self, name: str, *, acks: Acks = "explicit", **options: Unpack[GroupKeywords]
    ) -> GroupReader[T]:
        """A member of the group *name*, which shares the stream's events. See `Client.group`."""
        if acks == "explicit":
            return self.client.group(name, [self], **options)
        return self.client.group(name, [self], acks=acks, **options)

    async def format(self) -> Format:
        """How the stream is stored, or will be; ConfigError if this handle asks for another way."""
        return self._format or await self._looking.of(self._look)

    async def look_again(self) -> int:
        """See `Administration.look_again`: a handle that had all shards adopts those that came."""
        if self._agreed:
            self._wanted_shards = None
        await self._look()
        return self._shards

    async def _look(self) -> Format:
        info = await self.client.backend.describe(self.name)
        marks = None if info is None else info.marks
        new = info is None or (marks is None and not info.length and not info.added)
        form = choose(
            marks,
            stream=self.name,
            type=self._type,
            codec=self._codec,
            layout=self._layout,
            limit=self.client.max_event_bytes,
            exists=not new,
        )
        self._adopt_retention(info)
        self._adopt_shards(1 if marks is None and not new else marks and marks.shards)
        if not new:
            self._format = form
            self._agreed = self._shards > 1
        return form

    def forget(self) -> None:
        """The stream is gone: look at it anew when it is used again."""
        self._format = None

    def __repr__(self) -> str:
        return f"<Stream {self.name!r}>"

    async def set_retention(self, retention: Retention | None) -> None:
        """Keep so much of the stream from now on; None: everything.

        Raises:
            NotFound: there is no such stream.
            ConfigError: others made it: it has no marks to store that with.
            BackendError: refused, or not reachable.
        """
        if not await self.client.backend.retain(self.name, retention):
            await self.info()
            raise ConfigError(f"retention is stored with streams of our own, {self.name!r} is not")
        self._retention = self._wanted_retention = retention

    def _adopt_retention(self, info: StreamInfo | None) -> None:
        stored = None if info is None else info.retention
        if stored is not None and self._wanted_retention not in (None, stored):
            raise ConfigError(
                f"stream {self.name!r} has the retention {stored}, this handle asks for "
                f"{self._wanted_retention}; leave it out to adopt that, or change it with "
                f"stream.set_retention()"
            )
        self._retention = stored or self._wanted_retention

    def _adopt_shards(self, stored: int | None) -> None:
        if stored is not None and self._wanted_shards not in (None, stored):
            raise ConfigError(
                f"stream {self.name!r} has {stored} shards, this handle asks for "
                f"{self._wanted_shards}; leave shards out to adopt what is stored"
            )
        self._shards = stored or self._wanted_shards or 1
        if not 1 < self._of <= self._shards:
            self._of = self._shards  # else it has grown: its shards keep the names they have here

    def _index(self, key: str | None) -> int:
        """The shard of a key; without one, each in its turn."""
        if self._shards == 1:
            return 0
        if key is not None:
            return shard_of(key, self._shards)
        self._turn = (self._turn + 1) % self._shards
        return self._turn

    async def _appender(self, index: int, options: AppendOptions) -> Appender:
        form = await self.format()
        marks = form.marks(self._shards)
        appender: Appender = await self.client.backend.appender(self.shard(index), marks, options)
        self._agreed = self._shards > 1
        return appender

    async def _lane(self, index: int, only_if_exists: bool, confirm: Confirm | None = None) -> Lane:
        """The lane of single appends to a shard; one for all handles of the client."""
        existing = only_if_exists or self._foreign
        marks = (await self.format()).marks(self._shards)
        options = AppendOptions(
            foreign=self._foreign,
            only_if_exists=existing,
            window=self._window,
            retention=self._stored_retention,
            confirm=self.client.confirm if confirm is None else confirm,
        )
        return await self.client.lane(self.shard(index), marks, options)

    @property
    def _stored_retention(self) -> str:
        """What this handle asks for; what it adopted may be changed by others at any time."""
        return "" if self._wanted_retention is None else self._wanted_retention.stored()

    async def _lane_in_turn(self) -> Lane:
        return await self._lane(self._index(None), False)

    async def _outcome(self, receipt: Receipt) -> Position | None:
        try:
            return await receipt
        except OutcomeUnknown as error:
            if (told := unsent(error, self.name)) is error:
                raise
            raise told from error
