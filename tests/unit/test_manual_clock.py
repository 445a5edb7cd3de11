"""The manual clock: time moves when it is told to, and in order."""

from __future__ import annotations

import asyncio

import pytest

from penstock.errors import ConfigError
from penstock.testing.clock import ManualClock


async def test_sleepers_wake_in_order_of_their_due_times() -> None:
    """Each at its own time, whatever the order in which they fell asleep."""
    clock = ManualClock()
    woken: list[tuple[str, float]] = []

    async def sleeper(name: str, seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append((name, clock.monotonic()))

    async with asyncio.TaskGroup() as tasks:
        for name, seconds in [("c", 3.0), ("a", 1.0), ("b", 2.0)]:
            tasks.create_task(sleeper(name, seconds))
        await clock.advance(2.5)
        assert woken == [("a", 1.0), ("b", 2.0)]
        await clock.advance(0.5)

    assert woken[2:] == [("c", 3.0)]


async def test_a_woken_task_sleeps_again_within_one_advance() -> None:
    """A heartbeat beats as often as its time allows."""
    clock = ManualClock()
    beats: list[float] = []

    async def beat() -> None:
        while True:
            await clock.sleep(2.0)
            beats.append(clock.monotonic())

    task = asyncio.create_task(beat())
    await clock.advance(7.0)
    task.cancel()

    assert beats == [2.0, 4.0, 6.0]


async def test_time_stands_still_otherwise() -> None:
    """Nothing wakes by real time."""
    clock = ManualClock()
    task = asyncio.create_task(clock.sleep(0.001))
    await asyncio.sleep(0.01)

    assert not task.done()
    assert clock.sleepers == 1
    assert (clock.monotonic(), clock.time()) == (0.0, 1_700_000_000.0)
    await clock.advance(0.001)
    assert task.done()


async def test_a_cancelled_sleep_is_gone() -> None:
    """It neither wakes nor is counted."""
    clock = ManualClock()
    task = asyncio.create_task(clock.sleep(1.0))
    await clock.settle()
    task.cancel()
    await clock.settle()

    assert clock.sleepers == 0
    await clock.advance(2.0)
    assert clock.monotonic() == 2.0


async def test_a_sleep_of_nothing_lets_others_run() -> None:
    """No time passes, and the loop turns."""
    clock = ManualClock()
    turned = asyncio.create_task(asyncio.sleep(0))
    await clock.sleep(0)
    await clock.sleep(-1.0)

    assert turned.done()
    assert clock.monotonic() == 0.0


async def test_the_wall_clock_steps_alone() -> None:
    """As a time server sets it back; leases do not notice."""
    clock = ManualClock(time=1000.0)
    await clock.advance(5.0)
    clock.step(-3600.0)

    assert (clock.monotonic(), clock.time()) == (5.0, -2595.0)


async def test_a_jump_wakes_nobody_and_makes_them_late() -> None:
    """As while the loop is blocked."""
    clock = ManualClock()
    task = asyncio.create_task(clock.sleep(1.0))
    await clock.settle()
    clock.jump(5.0)
    await clock.settle()
    assert not task.done()
    await clock.advance(0.0)
    assert task.done()
    assert clock.monotonic() == 5.0


async def test_time_never_goes_back() -> None:
    """Monotonic means it."""
    with pytest.raises(ConfigError, match="step"):
        await ManualClock().advance(-1.0)
