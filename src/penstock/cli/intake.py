"""Intake: what each line of an append becomes.

Does        take lines of text, of JSON, or of whole events, and send them to a stream.
Does not    read lines (`lines`), or say how it went (`appending`).
Invariants  1. `at` is the index of the line that is being taken, within its batch.
            2. a line that cannot be taken raises `BadLine`; nothing of it was sent.
            3. a session is opened for the first good line, not before: opening one marks a new
               stream, and nobody wants it marked by what could not be taken.
Cost        per line: one decode where there is one, one send, no wait while there is room.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Final, NamedTuple, Protocol, Self, cast

import msgspec

from penstock import Client, ConfigError, EncodeError, PayloadTooLarge, Stream, Writer
from penstock.cli.exact import ExactWriter
from penstock.cli.formats import OpaqueCodec, entry_of, marks_of, parse_line
from penstock.layouts import Layout
from penstock.ports import Marks

MALFORMED: Final = (msgspec.MsgspecError, ValueError, RecursionError)
"""What msgspec raises of a line that is no JSON, no UTF-8, or nested without end."""


class BadLine(Exception):
    """A line that cannot be taken; the text says what must hold and what was given."""


class Fixed(NamedTuple):
    """Metadata that every event gets; `key_field` takes the key from a field instead."""

    name: str = ""
    topic: str = ""
    key: str | None = None
    key_field: str | None = None


class Intake(Protocol):
    """Takes lines; opened and closed by ``async with``, which waits until all is stored."""

    at: int

    @property
    def counts(self) -> tuple[int, int]:
        """How many events were sent, and how many are known to be stored."""
        ...

    async def take(self, lines: Sequence[bytes]) -> None:
        """Send what the lines say; waits only while there is no room."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class TextIntake:
    """A line of text an event, its bytes untouched."""

    def __init__(self, stream: Stream[Any], fixed: Fixed) -> None:
        self.at = 0
        self._fixed = fixed
        self._writer: Writer[Any] = stream.writer()
        self._opened = False

    @property
    def counts(self) -> tuple[int, int]:
        """See `Intake.counts`."""
        statistics = self._writer.statistics()
        return statistics.sent, statistics.stored

    async def take(self, lines: Sequence[bytes]) -> None:
        """See `Intake.take`."""
        send = self._writer.send
        name, topic, key, _ = self._fixed
        try:
            for self.at, line in enumerate(lines):
                if not self._opened:
                    await self._open()
                await send(line, name=name, topic=topic, key=key)
        except (EncodeError, PayloadTooLarge) as error:
            raise BadLine(str(error)) from error

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._opened:
            await self._writer.__aexit__(kind, error, trace)

    async def _open(self) -> None:
        await self._writer.__aenter__()
        self._opened = True


class JsonIntake(TextIntake):
    """A JSON value a line; a flat object on a stream of the layout ``fields``. Blank lines pass."""

    def __init__(self, stream: Stream[Any], fixed: Fixed, codec: str) -> None:
        super().__init__(stream, fixed)
        self._flat = codec == "fields"
        self._decode_flat = msgspec.json.Decoder(dict[str, str | int | float]).decode

    async def take(self, lines: Sequence[bytes]) -> None:
        """See `Intake.take`."""
        send = self._writer.send
        name, topic, key, key_field = self._fixed
        parse = self._flat_value if self._flat else _any_value
        try:
            for self.at, line in enumerate(lines):
                if not line or line.isspace():
                    continue
                value, sent = parse(line)
                if key_field is not None:
                    key = _key_of(value, key_field)
                if not self._opened:
                    await self._open()
                await send(sent, name=name, topic=topic, key=key)
        except (EncodeError, PayloadTooLarge) as error:
            raise BadLine(str(error)) from error

    def _flat_value(self, line: bytes) -> tuple[Any, Any]:
        try:
            value = self._decode_flat(line)
        except MALFORMED as error:
            raise BadLine(_why_not_flat(line, error)) from error
        if not value or any(name.startswith("penstock.") for name in value):
            raise BadLine(_why_not_flat(line, None))
        return value, value


class EventsIntake:
    """A whole event a line, as ``read --events`` prints it: only the position is not taken over."""

    def __init__(self, client: Client, name: str, *, foreign: bool) -> None:
        self.at = 0
        self._client = client
        self._stream = name
        self._foreign = foreign
        self._marks = Marks("", "")
        self._layout: Layout | None = None
        self._writer: ExactWriter | None = None

    @property
    def counts(self) -> tuple[int, int]:
        """See `Intake.counts`."""
        return (self._writer.sent, self._writer.stored) if self._writer else (0, 0)

    async def take(self, lines: Sequence[bytes]) -> None:
        """See `Intake.take`. The first line decides what a new stream is marked with."""
        try:
            for self.at, line in enumerate(lines):
                if not line or line.isspace():
                    continue
                parsed = parse_line(line)
                marks = marks_of(parsed)
                if self._writer is None:
                    await self._open(marks)
                if marks != self._marks:
                    raise BadLine(_other_marks(marks, self._marks))
                assert self._writer is not None
                assert self._layout is not None
                await self._writer.send(entry_of(parsed, self._layout))
        except (*MALFORMED, PayloadTooLarge) as error:
            if isinstance(error, ConfigError):
                raise
            raise BadLine(_first_lower(str(error))) from error
        if self._writer is not None:
            await self._writer.push()

    async def __aenter__(self) -> Self:
        self._client.stream(self._stream, foreign=self._foreign)  # a wrong name is said at once
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._writer is not None:
            await self._writer.__aexit__(kind, error, trace)

    async def _open(self, marks: Marks) -> None:
        codec = OpaqueCodec(marks.codec, marks.layout)
        # A copy keeps ids as they are: a stream may hold one of them twice.
        stream = self._client.stream(
            self._stream,
            layout=marks.layout,
            codec=codec,
            foreign=self._foreign,
            dedupe_window=0,
        )
        self._layout = (await stream.format()).layout
        self._marks = marks
        self._writer = await ExactWriter(stream).__aenter__()


def _any_value(line: bytes) -> tuple[Any, Any]:
    """The value, and what is sent: the digits and spaces that were given."""
    try:
        return msgspec.json.decode(line), msgspec.Raw(line.strip())
    except MALFORMED as error:
        text = f"it must be JSON: {_first_lower(str(error))}; got {_excerpt(line)}"
        raise BadLine(text) from error


def _why_not_flat(line: bytes, error: Exception | None) -> str:
    """What is wrong with a line that is no flat object."""
    try:
        value: Any = msgspec.json.decode(line)
    except MALFORMED as malformed:
        return f"it must be a JSON object: {_first_lower(str(malformed))}; got {_excerpt(line)}"
    if not isinstance(value, dict):
        return (
            f"it must be a JSON object, whose items become fields, got {_excerpt(line)}; "
            f"a new stream takes any JSON value with --layout value"
        )
    if not value:
        return "it must have at least one field, got {}; a new stream takes it with --layout value"
    return _wrong_item(cast("dict[str, Any]", value)) or f"it must be a flat JSON object: {error}"


def _wrong_item(value: Mapping[str, Any]) -> str:
    for name, item in value.items():
        if name.startswith("penstock."):
            return (
                f"a field's name must not begin with 'penstock.', got {name!r}; "
                f"metadata is given by --key, --topic and --name, or by --events"
            )
        if item is None or isinstance(item, (bool, list, dict)):
            given = msgspec.json.encode(item).decode()
            return (
                f"the value of field {name!r} must be text or a number, got {given[:40]}; "
                f"a new stream takes any JSON value with --layout value"
            )
    return ""


def _key_of(value: Any, field: str) -> str:
    named = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
    found = named.get(field)
    if isinstance(found, bool) or not isinstance(found, (str, int, float)):
        raise BadLine(
            f"it must have the field {field!r} (--key-field), as text or a number, to take the key "
            f"from; got {'nothing' if found is None else repr(found)}"
        )
    return str(found)


def _other_marks(marks: Marks, before: Marks) -> str:
    return (
        f"all events must be of one kind, it has layout {marks.layout!r} and codec "
        f"{marks.codec!r}, the ones before it {before.layout!r} and {before.codec!r}"
    )


def _excerpt(line: bytes) -> str:
    text = line.strip().decode("utf-8", "backslashreplace")
    return repr(text if len(text) <= 60 else text[:60] + "…")


def _first_lower(text: str) -> str:
    return text[:1].lower() + text[1:] if text[1:2].islower() else text  # JSON stays JSON
