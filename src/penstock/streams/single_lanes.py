"""SingleLanes: the ways in of a client's single appends, one for each shard that is appended to.

Does        open a lane when it is first asked for; close those that are not in use when there are
            many.
Does not    choose shards, or hold the lanes of writers: these have their own.
Invariants  1. a lane with anything under way stays, and one whose last outcome was an error: its
               session may have to be taken back before another stores anything.
            2. who was given a lane puts his event in before anyone else has a turn.
Cost        per append: one look into a dict. Many streams in turns: now and then a session more.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Hashable
from typing import Final

from penstock.ports import Appender
from penstock.streams.lane import Lane

MOST: Final = 1000
"""Lanes that are kept: some 5 KB each, and a connection where appends are confirmed."""


class SingleLanes:
    """The lanes of one client, by what they were opened for."""

    def __init__(self) -> None:
        self._lanes: dict[Hashable, Lane] = {}
        self._opening = asyncio.Lock()

    def __len__(self) -> int:
        return len(self._lanes)

    @property
    def appenders(self) -> list[Appender]:
        """The sessions behind them."""
        return [lane.appender for lane in self._lanes.values()]

    async def get(self, key: Hashable, open_appender: Callable[[], Awaitable[Appender]]) -> Lane:
        """The lane that was opened for *key*; opened now, if there is none.

        Raises:
            PenstockError: it cannot be opened.
        """
        if (lane := self._lanes.get(key)) is not None:
            return lane
        async with self._opening:
            if key not in self._lanes:
                await self._make_room()
                self._lanes[key] = Lane(await open_appender())
            return self._lanes[key]

    def clear(self) -> None:
        """Forget all of them; somebody else has closed them."""
        self._lanes.clear()

    async def _make_room(self) -> None:
        """Close some of those that are not in use, the first that were opened."""
        if (over := len(self._lanes) - MOST) < 0:
            return
        idle = (key for key, lane in self._lanes.items() if lane.idle)
        leaving = [
            self._lanes.pop(key) for key in list(itertools.islice(idle, over + MOST // 10 + 1))
        ]
        closing = [asyncio.create_task(lane.appender.aclose()) for lane in leaving]
        if closing:
            await asyncio.wait(closing)
        for closed in closing:
            closed.result()
