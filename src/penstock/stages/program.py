"""A stage's callbacks, as its runner calls them.

Does        call them, `def` or `async def`; check what they return; name their failures.
Does not    decide when, or what follows.
Invariants  1. whatever a callback raises leaves here as a StageError that names stage and callback;
               but for a cancellation from outside, which passes as it is.
            2. events leave here as a list.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence, Sized
from inspect import isawaitable
from typing import Any, NoReturn, cast

from penstock.errors import StageError
from penstock.stages.stage import Giving, Stage


class Program:
    """The user's side of a running stage.

    Args:
        stage: whose callbacks they are.
        name: the stage's name, for errors.
    """

    __slots__ = ("name", "stage")

    def __init__(self, stage: Stage, name: str) -> None:
        self.stage = stage
        self.name = name

    async def hook(self, name: str, *arguments: Any) -> Any:
        """Call one of the rarer callbacks."""
        callback = getattr(self.stage, name, None)
        if callback is None:
            return None
        try:
            result = callback(*arguments)
            return await result if isawaitable(result) else result
        except BaseException as error:  # noqa: BLE001 - raised again, with a name
            self.fail(name, error)

    async def resolve(self, result: Any, hook: str) -> list[Any] | None:
        """What a callback returned, as a list of events."""
        if isawaitable(result):
            result = await result
        if result is None or type(result) is list:
            return cast("list[Any] | None", result)
        return self.listed(result, hook)

    def listed(self, result: Any, hook: str) -> list[Any]:
        """*result* as a list, or StageError: it is no sequence of events."""
        if type(result) is list:
            return cast("list[Any]", result)
        if not issubclass(type(self.stage), Giving):
            raise self.gives_nothing(result)
        if isinstance(result, Sequence) and not isinstance(result, str | bytes | bytearray):
            return list(cast("Sequence[Any]", result))
        raise StageError(
            f"{self._where(hook)} must give a sequence of events "
            f"(a list, best of all), or None; got {_what(result)}",
            stage=self.name,
        )

    def gives_nothing(self, result: Any) -> StageError:
        """What to raise where a consumer returned *result*."""
        return StageError(
            f"{self._where('handle_events')} must return None, as a "
            f"consumer gives nothing out; got {_what(result)}",
            stage=self.name,
        )

    def _where(self, hook: str) -> str:
        kind = type(self.stage).__name__
        return f"{kind}.{hook}" if kind == self.name else f"{self.name}: {kind}.{hook}"

    def fail(self, hook: str, error: BaseException) -> NoReturn:
        """Raise what *error* becomes."""
        raise self.failure(hook, error)

    def failure(self, hook: str, error: BaseException) -> BaseException:
        """What a callback's *error* becomes: a StageError, but for a cancellation from outside."""
        if isinstance(error, StageError) and error.stage == self.name:
            return error  # it has been named already
        if not isinstance(error, Exception):
            task = asyncio.current_task()
            outside = task is None or task.cancelling()
            if not isinstance(error, asyncio.CancelledError) or outside:
                return error
        failed = StageError(
            f"{self._where(hook)} raised {type(error).__name__}: {error}", stage=self.name
        )
        failed.__cause__ = error
        return failed


def _what(value: Any) -> str:
    """What *value* is, without its content: errors hold no payload."""
    kind = type(value).__name__
    return f"a {kind} of {len(value)}" if isinstance(value, Sized) else f"a {kind}"
