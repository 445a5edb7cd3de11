"""The blocking read of a member: it is ended early, also where it is slow to arrive."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from penstock.backends.redis.reads import Reads
from penstock.clock import SystemClock
from penstock.errors import BackendError, BackendRejected

pytestmark = pytest.mark.one_loop


class Connection:
    """One whose read blocks until it is unblocked; that works at the *nth* time."""

    def __init__(self, nth: int = 1, refused: BackendError | None = None) -> None:
        self.now = self
        self.client_id = 7
        self.asked = 0
        self._nth = nth
        self._refused = refused
        self._reading: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def send_many(self, commands: list[Any]) -> asyncio.Future[Any]:
        return self._reading

    async def call(self, *args: Any, **_: Any) -> int:
        self.asked += 1
        if self._refused is not None:
            asyncio.get_running_loop().call_later(0.6, self._reading.set_result, [None])
            raise self._refused
        if self.asked < self._nth or self._reading.done():
            return 0
        self._reading.set_result([None])
        return 1


def reads_over(connection: Any) -> Reads:
    wake, head = asyncio.Event(), ("XREADGROUP",)
    reads = Reads(connection, connection, SystemClock(), wake, head, False, list, lambda _: None)
    reads.send(connection, ["orders"], 10)
    return reads


async def test_a_read_that_arrives_later_than_its_end_is_ended_again() -> None:
    connection = Connection(nth=3)
    assert await asyncio.wait_for(reads_over(connection).end(), 4.0)
    assert connection.asked == 3


async def test_without_the_right_to_end_it_it_is_waited_for_and_nobody_is_asked_again() -> None:
    refused = BackendRejected("NOPERM", backend="redis", verb="leave", key="")
    connection = Connection(refused=refused)
    assert await asyncio.wait_for(reads_over(connection).end(), 6.0)
    assert connection.asked == 1
