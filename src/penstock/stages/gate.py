"""The gate of a topology: nothing flows before all stages that start together have subscribed.

Does        hold the first asks back until nobody is starting any more.
Does not    hold anything else up: stages answer calls, and later subscriptions ask at once.
Invariants  1. stages that are started in one go see the first event together: so a broadcast
               reaches all of them from its beginning.
            2. a stage that fails to start holds nobody up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Gate:
    """Counts who is starting; opens when nobody is."""

    def __init__(self) -> None:
        self._starting = 0
        self._held: list[Callable[[], None]] = []
        self._open = asyncio.Event()
        self._open.set()

    def begin(self) -> None:
        """One more is starting."""
        self._starting += 1
        self._open.clear()

    def ready(self, then: Callable[[], None] | None = None) -> None:
        """One has started, or failed to; *then* is called when the gate opens."""
        self._starting -= 1
        if then is not None:
            self._held.append(then)
        if not self._starting:
            held, self._held = self._held, []
            self._open.set()
            for one in held:
                one()

    async def wait(self) -> None:
        """Wait until it is open."""
        await self._open.wait()
