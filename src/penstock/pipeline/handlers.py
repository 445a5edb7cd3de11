"""Handlers: what is known about a handler from the moment it is decorated.

Does        check what `App.on` and `App.on_batch` are given; hold it as one value.
Does not    connect, or run anything.
Invariants  1. what is wrong with a handler is said where it is decorated, by its name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Final, NamedTuple, cast

from penstock.codecs import Codec
from penstock.errors import ConfigError
from penstock.pipeline.annotations import Signature, is_async, named, read_signature
from penstock.streams.group_options import GroupKeywords, GroupOptions
from penstock.streams.names import check_label, check_stream
from penstock.streams.stream import Stream

AHEAD: Final = 2
"""Events that a handler's member holds at most, for each that is handled at once: what is read
ahead is kept from the other members, who may be idle meanwhile."""

AT_LEAST: Final = 4
"""Events that it may hold in any case: a fetch costs a round trip."""


class OnKeywords(GroupKeywords, total=False):
    """The options of `App.on` and `App.on_batch` that have no place of their own there."""

    foreign: bool


class BatchOf(NamedTuple):
    """How a batch is gathered: at most `size` events, within `within` seconds of the first."""

    size: int
    within: float


class Handler(NamedTuple):
    """One handler, as it was decorated. Made by `make_handler`.

    Attributes:
        function: what is called.
        name: what it is called in errors, signals and statistics.
        streams: where its events come from.
        group: the consumer group that it is a member of.
        into: where its results go; None: nowhere.
        concurrency: how many calls may run at once.
        signature: what it takes and gives, by its annotations.
        batch: how batches are gathered; None: it takes one event.
        threaded: a plain ``def``, which runs in a thread.
        codec: the codec of its streams, where the user brings one.
        foreign: its streams are keys that others made, whatever their names.
        options: those of its group.
    """

    function: Callable[..., Any]
    name: str
    streams: tuple[str, ...]
    group: str
    into: str | Stream[Any] | None
    concurrency: int
    signature: Signature
    batch: BatchOf | None
    threaded: bool
    codec: Codec[Any] | str | None
    foreign: bool
    options: GroupKeywords

    @property
    def place(self) -> str:
        """Which handler, on what: for messages."""
        return f"handler {self.name} (group {self.group!r} on {', '.join(self.streams)})"


def make_handler(  # noqa: PLR0917 - what a decorator is given, in its order
    function: Callable[..., Any],
    streams: str | Iterable[str],
    group: str,
    into: str | Stream[Any] | None,
    concurrency: int,
    batch: BatchOf | None,
    codec: Codec[Any] | str | None,
    options: OnKeywords,
    namespace: Mapping[str, Any],
) -> Handler:
    """The description of *function* as a handler.

    Raises:
        ConfigError: a name, an option or an annotation that will not do.
    """
    foreign = options.get("foreign", False)
    names = _names(streams, foreign=foreign)
    check_label("group", group)
    signature = read_signature(
        function, namespace, batch=batch is not None, own_codec=_is_own(codec)
    )
    handler = Handler(
        function=function,
        name=named(function),
        streams=names,
        group=group,
        into=into,
        concurrency=concurrency,
        signature=signature,
        batch=batch,
        threaded=not is_async(function),
        codec=codec,
        foreign=foreign,
        options=_with_bound(_of_group(options), concurrency, batch),
    )
    _check_numbers(handler)
    _check_into(handler)
    _check_options(handler)
    return handler


def check_together(handlers: Sequence[Handler]) -> None:
    """Raise ConfigError where handlers would take each other's events, or there are none."""
    if not handlers:
        raise ConfigError(
            "an App must have at least one handler: decorate a function with @app.on(…), and "
            "import the module that does so"
        )
    seen: dict[tuple[str, str], Handler] = {}
    for handler in handlers:
        for stream in handler.streams:
            other = seen.setdefault((stream, handler.group), handler)
            if other is not handler:
                raise ConfigError(
                    f"handlers {other.name} and {handler.name} are both in group "
                    f"{handler.group!r} on stream {stream!r}: each would miss what the other "
                    f"is given; give each its own group"
                )


def _names(streams: str | Iterable[str], *, foreign: bool) -> tuple[str, ...]:
    names = (streams,) if isinstance(streams, str) else tuple(streams)
    if not names:
        raise ConfigError("a handler needs at least one stream, got none")
    for name in names:
        check_stream(name, foreign=foreign)
    if len(set(names)) < len(names):
        raise ConfigError(f"a handler's streams must be different, got {list(names)}")
    return names


def _is_own(codec: Codec[Any] | str | None) -> bool:
    return codec is not None and not isinstance(codec, str)


def _of_group(options: OnKeywords) -> GroupKeywords:
    """Those of the group; ``acks="explicit"`` says what is so anyway."""
    given = {
        name: value
        for name, value in options.items()
        if name != "foreign" and (name, value) != ("acks", "explicit")
    }
    return cast("GroupKeywords", given)


def _with_bound(options: GroupKeywords, concurrency: int, batch: BatchOf | None) -> GroupKeywords:
    """The options with a bound of what is in flight that fits what is handled at once."""
    if "max_in_flight" in options:
        return options
    most = max(AT_LEAST, AHEAD * concurrency * (batch.size if batch else 1))
    return cast("GroupKeywords", {**options, "max_in_flight": most})


def _check_numbers(handler: Handler) -> None:
    concurrency: Any = handler.concurrency
    if type(concurrency) is not int or not 1 <= concurrency <= 10_000:
        raise ConfigError(
            f"concurrency of handler {handler.name} must be a whole number from 1 to 10000, "
            f"got {concurrency!r}"
        )
    batch: Any = handler.batch
    if batch is None:
        return
    if type(batch.size) is not int or batch.size < 1 or not batch.within >= 0:
        raise ConfigError(
            f"on_batch of handler {handler.name} needs size >= 1 (events) and within >= 0 "
            f"(seconds), got size={batch.size!r} and within={batch.within!r}"
        )
    most = handler.options.get("max_in_flight", 0)
    if batch.size > max(1, most // 2):
        raise ConfigError(
            f"max_in_flight of handler {handler.name} must be at least twice its batch size, "
            f"{2 * batch.size}, as half of it is read ahead; got {most}"
        )
    if handler.options.get("share") == "shards" and handler.concurrency > 1:
        raise ConfigError(
            f"handler {handler.name} takes batches of shards in their order: concurrency must be "
            f"1, got {handler.concurrency}"
        )


def _check_into(handler: Handler) -> None:
    if handler.into is None:
        if handler.signature.gives_outputs:
            raise ConfigError(
                f"handler {handler.name} is annotated to return an Output: say where it goes, "
                f"as into=, or leave the annotation out"
            )
        return
    if handler.signature.gives_nothing:
        raise ConfigError(
            f"handler {handler.name} is annotated to return None, and into= says where its "
            f"results go: annotate what it returns, or leave into= out"
        )
    if isinstance(handler.into, str):
        check_stream(handler.into)
    elif not isinstance(handler.into, Stream):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigError(
            f"into= of handler {handler.name} must be a stream or its name, got {handler.into!r}"
        )


def _check_options(handler: Handler) -> None:
    unknown = [name for name in handler.options if name not in GroupOptions._fields]
    if unknown:
        takes = ("group", "into", "concurrency", "codec", "foreign", *GroupOptions._fields)
        near = get_close_matches(unknown[0], takes, 1)
        hint = f": is {near[0]} meant?" if near else f"; it takes {', '.join(takes)}"
        raise ConfigError(f"handler {handler.name} got an unknown option {unknown[0]!r}{hint}")
    acks = cast("dict[str, Any]", handler.options).get("acks", "explicit")
    if acks != "explicit":
        raise ConfigError(
            f"handler {handler.name} acks when its work is done: acks= must be left out, "
            f"got {acks!r}"
        )
    try:
        GroupOptions.of(handler.options)
    except ConfigError as error:
        raise ConfigError(f"handler {handler.name}: {error}") from error
