"""The inbox: each event once, cancelled waits take nothing, the loop is not starved."""

from __future__ import annotations

import asyncio
import random
import sys

import pytest

from penstock.streams.inbox import Batches, Inbox


def made() -> tuple[Inbox[int], list[int]]:
    """An inbox, and what it said was taken."""
    taken: list[int] = []
    return Inbox(taken.extend), taken


async def waiting(*tasks: asyncio.Task[object]) -> None:
    """Let those tasks run until they wait."""
    for _ in range(5):
        await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)


async def test_events_come_out_in_order_and_each_is_told_before() -> None:
    """Whoever fills it knows what was taken, to make room."""
    inbox, taken = made()
    inbox.put([1, 2, 3])

    assert [await inbox.next() for _ in range(2)] == [1, 2]
    assert taken == [1, 2]
    assert len(inbox) == 1


async def test_a_wait_ends_when_something_comes() -> None:
    """For single events and for batches."""
    inbox, _ = made()
    one = asyncio.create_task(inbox.next())
    await waiting(one)
    inbox.put([1])
    assert await one == 1

    many = asyncio.create_task(inbox.batch(10, 0.0))
    await waiting(many)
    inbox.put([2, 3])
    assert await many == [2, 3]


async def test_what_is_there_is_still_taken_after_the_end() -> None:
    """Then every wait ends at once, as often as one likes."""
    inbox, _ = made()
    inbox.put([1, 2])
    inbox.end()

    assert await inbox.next() == 1
    assert await inbox.batch(10, 10.0) == [2]
    for _ in range(2):
        assert await inbox.next() is None
        assert await inbox.receive(10.0) is None
        assert await inbox.batch(10, 10.0) == []


async def test_the_end_wakes_everyone_who_waits() -> None:
    """Nobody is left behind."""
    inbox, _ = made()
    tasks = [asyncio.create_task(inbox.next()) for _ in range(3)]
    batch = asyncio.create_task(inbox.batch(5, 1.0))
    await waiting(*tasks, batch)
    inbox.end()

    assert await asyncio.gather(*tasks) == [None] * 3
    assert await batch == []


async def test_an_error_is_raised_once_and_before_what_is_there() -> None:
    """Then it goes on."""
    inbox, taken = made()
    inbox.put([1])
    inbox.fail(ValueError("first"))
    inbox.fail(ValueError("second"))

    with pytest.raises(ValueError, match="first"):
        await inbox.next()
    assert taken == []
    assert await inbox.next() == 1


async def test_an_error_wakes_one_that_waits() -> None:
    """And the others go on waiting."""
    inbox, _ = made()
    first, second = (asyncio.create_task(inbox.next()) for _ in range(2))
    await waiting(first, second)
    inbox.fail(ValueError("once"))
    with pytest.raises(ValueError, match="once"):
        await first
    await waiting(second)
    inbox.put([1])
    assert await second == 1


async def test_a_receive_that_times_out_takes_nothing() -> None:
    """And what comes later is not lost to it."""
    inbox, taken = made()
    assert await inbox.receive(0.001) is None
    assert await inbox.receive(0.0) is None
    inbox.put([1])

    assert await inbox.receive(0.0) == 1
    assert taken == [1]


async def test_a_cancelled_wait_takes_nothing_and_passes_its_turn_on() -> None:
    """Even when it was already woken: the event goes to the next who waits."""
    inbox, taken = made()
    first, second = (asyncio.create_task(inbox.next()) for _ in range(2))
    await waiting(first, second)
    inbox.put([1])  # wakes the first, which has not run yet
    first.cancel()

    with pytest.raises(asyncio.CancelledError):
        await first
    assert await second == 1
    assert taken == [1]


async def test_a_batch_gathers_what_comes_within_its_time() -> None:
    """Full, it does not wait."""
    inbox, _ = made()
    inbox.put([1, 2])
    batch = asyncio.create_task(inbox.batch(4, 30.0))
    await waiting(batch)
    inbox.put([3])
    await waiting(batch)
    inbox.put([4, 5])

    assert await batch == [1, 2, 3, 4]
    assert await inbox.batch(4, 0.001) == [5]


async def test_a_cancelled_batch_leaves_everything() -> None:
    """Nothing was told as taken."""
    inbox, taken = made()
    inbox.put([1])
    batch = asyncio.create_task(inbox.batch(4, 30.0))
    await waiting(batch)
    batch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await batch

    assert taken == []
    assert await inbox.next() == 1


async def test_batches_are_iterated_until_the_end() -> None:
    """No batch is empty."""
    inbox, _ = made()
    inbox.put(range(5))
    inbox.end()

    assert [batch async for batch in Batches(inbox, 2, 0.0)] == [[0, 1], [2, 3], [4]]


async def test_a_full_inbox_lets_the_loop_turn() -> None:
    """Timers and heartbeats must not starve while there is always an event."""
    inbox, _ = made()
    inbox.put(range(2000))
    turns = 0

    async def tick() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    ticking = asyncio.create_task(tick())
    for _ in range(2000):
        await inbox.next()
    assert turns >= 5
    before = turns
    inbox.put(range(10))
    for _ in range(10):
        await inbox.batch(1, 0.0)
    assert turns >= before + 10
    ticking.cancel()


class Taker:
    """Takes from an inbox in one of three ways, until its end."""

    def __init__(self, inbox: Inbox[int], way: str, dice: random.Random) -> None:
        self.got: list[int] = []
        self._inbox = inbox
        self._pause = lambda: dice.choice([0.0, 0.0005])
        self._take = getattr(self, way)

    async def run(self) -> None:
        while not self._inbox.ended or len(self._inbox):
            self.got += await self._take()

    async def single(self) -> list[int]:
        event = await self._inbox.next()
        return [] if event is None else [event]

    async def batch(self) -> list[int]:
        return await self._inbox.batch(3, self._pause())

    async def receive(self) -> list[int]:
        await asyncio.sleep(0)
        event = await self._inbox.receive(self._pause())
        return [] if event is None else [event]


async def test_many_takers_and_cancellations_lose_and_double_nothing() -> None:
    """Each event goes to exactly one of those who did not give up."""
    inbox, taken = made()
    dice = random.Random(7)
    takers = [Taker(inbox, way, dice) for way in ("single", "single", "batch", "receive")]
    tasks = [asyncio.create_task(taker.run()) for taker in takers]
    for number in range(0, 3000, 3):
        inbox.put(range(number, number + 3))
        if dice.random() < 0.1:  # at a wait, where it holds nothing
            victim = dice.randrange(len(tasks))
            tasks[victim].cancel()
            await asyncio.gather(tasks[victim], return_exceptions=True)
            tasks[victim] = asyncio.create_task(takers[victim].run())
        if dice.random() < 0.5:
            await asyncio.sleep(0)
    inbox.end()
    await asyncio.wait_for(asyncio.gather(*tasks), 10)

    assert sorted(number for taker in takers for number in taker.got) == list(range(3000))
    assert sorted(taken) == list(range(3000))


async def test_a_timeout_that_it_ended_with_is_raised_to_who_waits_for_a_while() -> None:
    """It is not taken for the time that is over."""
    inbox, _ = made()
    inbox.end(TimeoutError("of the work"))
    with pytest.raises(TimeoutError, match="of the work"):
        await inbox.receive(10.0)


async def test_a_batch_may_lose_to_a_quicker_task_any_number_of_times() -> None:
    """It goes on waiting, and is not piled up."""
    inbox, _ = made()
    losing = asyncio.create_task(inbox.batch(2, 60.0))
    await waiting(losing)
    for n in range(2 * sys.getrecursionlimit()):
        inbox.put([n])
        await asyncio.sleep(0)  # it sees one event, and waits for another
        assert await inbox.receive(0) == n
        inbox.put([n])
        assert await inbox.receive(0) == n
        await asyncio.sleep(0)  # it sees none
        await asyncio.sleep(0)
    await waiting(losing)
    inbox.put([-1, -2])
    assert await losing == [-1, -2]
