"""Annotations: what a handler's signature says about its events and its results.

Does        read the one parameter and the result of a function; say what is wrong with them, by
            name, when the function is decorated.
Does not    call anything, or know streams.
Invariants  1. the annotation is the codec: nothing else says what a handler's values are.
            2. what cannot be read is a ConfigError that names the function and the parameter.
Source      FastAPI, msgspec: hints are resolved where the function stands.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple, Union, cast, get_args, get_origin, get_type_hints

from msgspec.inspect import CustomType, UnionType, type_info

from penstock.codecs.json import JsonCodec
from penstock.errors import ConfigError
from penstock.event import Event
from penstock.pipeline.outputs import Output


class Signature(NamedTuple):
    """What a handler takes and gives.

    Attributes:
        value: the type of its values; None: untyped, whatever the stream holds.
        wants_event: whether it asks for the event instead of its value.
        result: the type of what goes out; None: untyped.
        gives_nothing: whether it is annotated to return None alone.
        gives_outputs: whether it is annotated to return an `Output`.
    """

    value: Any = None
    wants_event: bool = False
    result: Any = None
    gives_nothing: bool = False
    gives_outputs: bool = False


UNTYPED: Final[tuple[Any, ...]] = (None, Any, object, dict, Mapping, inspect.Parameter.empty)
"""Annotations that say nothing about a value."""

_LISTS: Final[tuple[Any, ...]] = (list, Sequence, Iterable)
"""What a batch may be annotated as; it is a list."""


def read_signature(
    function: Callable[..., Any], namespace: Mapping[str, Any], *, batch: bool, own_codec: bool
) -> Signature:
    """What *function* takes and gives.

    Args:
        function: the handler.
        namespace: the names where it was decorated, for annotations that are text.
        batch: whether it takes lists of events.
        own_codec: whether the user brings a codec: then types need not be ours to read.

    Raises:
        ConfigError: it does not take exactly one argument, or an annotation cannot be used.
    """
    parameter = _parameter(function, batch=batch)
    hints = _hints(function, namespace)
    place = f"parameter {parameter.name!r} of handler {named(function)}"
    taken = hints.get(parameter.name)
    if batch:
        taken = _element(taken, place)
    wants_event = taken is Event or get_origin(taken) is Event
    if wants_event:
        taken = next(iter(get_args(taken)), None)
    value = _value_type(taken, place, own_codec=own_codec)
    gives = f"the result of handler {named(function)}"
    told = hints.get("return", inspect.Parameter.empty)
    nothing = told is types.NoneType
    result = None if nothing else _value_type(_result(told), gives, own_codec=False)
    return Signature(value, wants_event, result, nothing, _has_output(told))


def named(function: Any) -> str:
    """What *function* is called in errors, signals and statistics."""
    if isinstance(function, partial):
        return named(function.func)
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    return name.rpartition("<locals>.")[2]


def is_async(function: Any) -> bool:
    """Whether calling *function* gives a coroutine."""
    if isinstance(function, partial):
        return is_async(function.func)
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - it is looked at, not only for being there
    )


def _parameter(function: Any, *, batch: bool) -> inspect.Parameter:
    """The one parameter that the event goes to."""
    what = "the list of events" if batch else "the event"
    if not callable(function) or inspect.isclass(function):
        raise ConfigError(f"a handler must be a function, got {function!r}")
    plain = function.func if isinstance(function, partial) else function
    if inspect.isgeneratorfunction(plain) or inspect.isasyncgenfunction(plain):
        raise ConfigError(f"handler {named(function)} must return its results as a list, not yield")
    try:
        signature = inspect.signature(cast("Any", function))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"handler {named(function)} must have a signature: {error}") from error
    positional = [
        parameter
        for parameter in signature.parameters.values()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    if not positional:
        raise ConfigError(
            f"handler {named(function)} must take {what} as its argument, and takes none"
        )
    needed = [
        parameter.name
        for parameter in signature.parameters.values()
        if parameter is not positional[0]
        and parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if needed:
        raise ConfigError(
            f"handler {named(function)} is called with {what} alone, and needs "
            f"{', '.join(map(repr, needed))} too: give defaults, or bind a method before it is "
            f"registered, as in app.on(…)(service.handle)"
        )
    return positional[0]


def _hints(function: Any, namespace: Mapping[str, Any]) -> dict[str, Any]:
    plain = function.func if isinstance(function, partial) else function
    if not (inspect.isfunction(plain) or inspect.ismethod(plain)):
        plain = type(plain).__call__
    try:
        return get_type_hints(plain, localns=dict(namespace))
    except (NameError, TypeError, AttributeError, SyntaxError) as error:
        raise ConfigError(
            f"the annotations of handler {named(function)} must be names that are known where it "
            f"is decorated: {error}"
        ) from error


def _element(taken: Any, place: str) -> Any:
    """What a batch is a list of."""
    if taken in (None, Any, inspect.Parameter.empty) or taken in _LISTS:
        return None
    if get_origin(taken) not in _LISTS:
        raise ConfigError(
            f"{place} must be annotated as a list, such as list[Order] or list[Event[Order]], "
            f"got {taken!r}"
        )
    return next(iter(get_args(taken)), None)


def _result(told: Any) -> Any:
    """The type of one result: without None, out of a list of them, and out of an `Output`."""
    if get_origin(told) in (Union, types.UnionType):
        left = [_result(one) for one in get_args(told) if one is not types.NoneType]
        return None if None in left or not left else Union[tuple(left)]  # noqa: UP007 - from parts
    if told in (list, Output):
        return None
    if get_origin(told) in (list, Output):
        return _result(get_args(told)[0])
    return told


def _has_output(told: Any) -> bool:
    """Whether it is an `Output`, or made of one."""
    return Output in (told, get_origin(told)) or any(_has_output(one) for one in get_args(told))


def _value_type(told: Any, place: str, *, own_codec: bool) -> Any:
    """The type as a stream takes it; None for what says nothing."""
    if told in UNTYPED or _is_plain_mapping(told):
        return None
    if own_codec or told is bytes:
        return told
    try:
        JsonCodec(told)
        wrong = "it has no JSON of its own" if _is_foreign(told) else ""
    except ConfigError as error:
        wrong = str(error.__cause__)
    if wrong:
        raise ConfigError(
            f"{place} must be a type that msgspec reads (Struct, dataclass, TypedDict, a tagged "
            f"union of them), bytes, dict, or Event[…] of one, got {told!r}: {wrong}; "
            f"for other types give app.on(…, codec=…)"
        )
    return told


def _is_foreign(told: Any) -> bool:
    """Whether msgspec would need a hook for it: then every decoding would fail."""
    info = type_info(told)
    several = info.types if isinstance(info, UnionType) else (info,)
    return any(isinstance(one, CustomType) for one in several)


def _is_plain_mapping(told: Any) -> bool:
    """``dict[str, str]`` and its like, which untyped streams give anyway."""
    if get_origin(told) not in (dict, Mapping):
        return False
    return get_args(told) in ((str, str), (str, Any))
