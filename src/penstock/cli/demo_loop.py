"""The demo's event loop: uvloop where it is installed, asyncio's own elsewhere.

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
    with asyncio.Runner(loop_factory=_factory()) as runner:
        return runner.run(main)


def _factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # the extra `fast` is not installed
        return None
    return uvloop.new_event_loop
