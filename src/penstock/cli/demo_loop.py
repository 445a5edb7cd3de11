"""The loop of the demo and of `run`: uvloop where it is installed, asyncio's own elsewhere.

Does        run one coroutine to its end.
Does not    handle signals.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run_fast(main: Coroutine[Any, Any, T]) -> T:
    """Run *main* on the fastest event loop there is."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(main)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes the fastest event loop there is; None: asyncio's own."""
    try:
        import uvloop
    except ImportError:  # the extra `fast` is not installed
        return None
    return uvloop.new_event_loop
