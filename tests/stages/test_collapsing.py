"""A topology that fails, or is cancelled: who is told, who wins, and that nothing is left."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from penstock.errors import StageError, SubscriptionCancelled
from penstock.stages import Reason, Subscription, Topology
from stages.fixtures import Counter, Doubler, Forwarder, Silent, Sleeper, kinds, quiet, watched


class Failing(Forwarder):
    """Raises at the first events."""

    async def handle_events(self, events: list[Any], source: Subscription) -> None:
        await asyncio.sleep(0)
        raise LookupError("no such thing")


class Late(Sleeper):
    """Raises when it is woken."""

    async def handle_events(self, events: list[Any], source: Subscription) -> None:
        await super().handle_events(events, source)
        raise LookupError("too late")


class Upto(Counter):
    """Gives 300 numbers, and ends."""

    def handle_demand(self, demand: int) -> Any:
        first, self.next = self.next, min(self.next + demand, 300)
        if self.next == 300:
            self.finish()
        return range(first, self.next)


def chain(topology: Topology, last: Any, first: Any = None, shutdown: float = 5.0) -> Any:
    """Three stages, of which *last* is the last; its handle."""
    spring = topology.start(first or Counter(), name="spring")
    to = spring.with_options(max_demand=20)
    mill = topology.start(Doubler(), name="mill", subscribe_to=to)
    to = mill.with_options(max_demand=10)
    return topology.start(last, name="pool", subscribe_to=to, shutdown=shutdown)


@asynccontextmanager
async def nothing_unheard() -> AsyncIterator[None]:
    """Fail where the event loop was told of an error that nobody has taken, or a task is left."""
    unheard: list[Any] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: unheard.append(context))
    before = asyncio.all_tasks()
    yield
    assert asyncio.all_tasks() == before
    gc.collect()
    await asyncio.sleep(0)
    loop.set_exception_handler(None)
    assert not unheard


# --- failures ---------------------------------------------------------------------------------


async def test_a_failing_stage_cancels_the_body_and_is_raised_in_its_place() -> None:
    topology, _ = watched()
    reached: list[type[BaseException]] = []
    async with nothing_unheard():

        async def scene() -> None:
            async with topology:
                chain(topology, Failing())
                try:
                    await asyncio.Event().wait()
                except BaseException as error:
                    reached.append(type(error))
                    raise

        with pytest.raises(StageError, match=r"pool: Failing.handle_events raised") as caught:
            await scene()
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0, "who called may go on"
    assert reached == [asyncio.CancelledError]
    assert isinstance(caught.value.__cause__, LookupError)
    ends = {name: handle.ended.kind for name, handle in topology.stages.items() if handle.ended}
    assert ends == {"spring": "shutdown", "mill": "shutdown", "pool": "failed"}


@pytest.mark.parametrize("how", ["run", "wait"])
async def test_whoever_waits_is_told_of_the_failure(how: str) -> None:
    topology, _ = watched()
    chain(topology, Failing())

    async def scene() -> None:
        async with topology:
            await topology.wait()

    async with nothing_unheard():
        with pytest.raises(StageError, match=r"Failing.handle_events raised LookupError"):
            await (topology.run() if how == "run" else scene())


async def test_whoever_drains_is_told_of_the_failure() -> None:
    topology, _ = watched()
    late = Late()
    chain(topology, late)

    async def scene() -> None:
        async with topology:
            await late.reach(1)
            asyncio.get_running_loop().call_soon(late.wake.set)
            await topology.drain()

    async with nothing_unheard():
        with pytest.raises(StageError, match="too late"):
            await scene()


async def test_a_task_beside_the_body_that_waits_is_told_too() -> None:
    topology, _ = watched()
    chain(topology, Failing())
    waiting: list[asyncio.Task[None]] = []
    async with nothing_unheard():

        async def scene() -> None:
            async with topology:
                waiting.append(asyncio.create_task(topology.wait()))
                await asyncio.Event().wait()

        with pytest.raises(StageError) as caught:
            await scene()
        with pytest.raises(StageError) as also:
            await waiting[0]
        waiting.clear()
    assert also.value is caught.value


async def test_an_error_that_is_none_of_ours_comes_wrapped_with_the_stages_name() -> None:
    error = OSError("pulled")
    topology, _ = watched()

    async def scene() -> None:
        async with topology:
            pool = topology.start(Forwarder(), name="pool")
            await quiet(topology)
            pool.stop(error)
            await asyncio.Event().wait()

    with pytest.raises(StageError, match="pool failed: OSError: pulled") as caught:
        await scene()
    assert caught.value.__cause__ is error


async def test_the_first_failure_is_the_one_that_is_raised() -> None:
    """Those that follow from it are not."""
    topology, _ = watched()

    async def scene() -> None:
        async with topology:
            pool = chain(topology, Sleeper())
            await quiet(topology)
            topology.stages["spring"].stop(OSError("dry"))
            pool.runner.stage.wake.set()
            await asyncio.Event().wait()

    with pytest.raises(StageError, match="spring failed: OSError: dry") as caught:
        await scene()
    assert not isinstance(caught.value, SubscriptionCancelled)


async def test_a_temporary_stage_may_fail_and_the_others_go_on() -> None:
    topology, signals = watched()
    forwarder = Forwarder()
    async with topology:
        spring = topology.start(Upto())
        topology.start(
            Failing(),
            name="guest",
            subscribe_to=spring.with_options(max_demand=10),
            restart="temporary",
        )
        topology.start(forwarder, subscribe_to=spring.with_options(max_demand=10))
        await topology.wait()
    lost = [signal.count for signal in signals if signal.kind == "events-dropped"]
    assert kinds(signals).count("stage-failed") == 1
    assert [signal.stage for signal in signals if signal.kind == "stage-failed"] == ["guest"]
    assert 0 < 300 - len(forwarder.events) <= 10 + sum(count or 0 for count in lost)


async def test_a_failure_while_all_is_being_closed_is_signalled() -> None:
    """It fails nothing any more; but what went down with it is not passed over in silence."""
    topology, signals = watched()
    async with topology:
        late = Late()
        chain(topology, late)
        await late.reach(1)
        closing = asyncio.create_task(topology.aclose())
        await quiet(topology)
        late.wake.set()
        await closing
    assert [signal.stage for signal in signals if signal.kind == "stage-failed"] == ["pool"]


# --- the body ---------------------------------------------------------------------------------


async def test_an_error_of_the_body_closes_all_and_comes_as_it_is() -> None:
    error = ValueError("mine")
    topology, _ = watched()
    async with nothing_unheard():

        async def scene() -> None:
            async with topology:
                chain(topology, Forwarder())
                await topology.stages["pool"].runner.stage.reach(10)
                raise error

        with pytest.raises(ValueError, match="mine") as caught:
            await scene()
    assert caught.value is error
    assert {handle.ended for handle in topology.stages.values()} == {Reason("shutdown")}


async def test_an_error_of_the_body_wins_over_a_failure_of_a_stage() -> None:
    topology, _ = watched()
    async with nothing_unheard():

        async def scene() -> None:
            async with topology:
                chain(topology, Failing())
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    raise ValueError("mine") from None

        with pytest.raises(ValueError, match="mine"):
            await scene()


async def test_a_failure_that_the_body_has_caught_is_raised_all_the_same() -> None:
    """A topology with a stage missing has not done its work."""
    topology, _ = watched()
    async with nothing_unheard():

        async def scene() -> None:
            async with topology:
                chain(topology, Failing())
                with suppress(StageError, asyncio.CancelledError):
                    await topology.wait()

        with pytest.raises(StageError, match="LookupError"):
            await scene()


@pytest.mark.parametrize("turns", range(40))
@pytest.mark.parametrize("last", [Forwarder, Sleeper, Failing])
async def test_cancelled_at_any_await_it_closes_everything(last: Any, turns: int) -> None:
    """The cancellation wins, but where the stages had failed before."""
    topology, _ = watched()

    async def body() -> None:
        async with topology:
            chain(topology, last(), Upto(), shutdown=0.001)
            await topology.stages["pool"].subscribe("spring")
            await topology.drain()

    async with nothing_unheard():
        task = asyncio.create_task(body())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        try:
            async with asyncio.timeout(20):
                await task
        except asyncio.CancelledError:
            assert task.cancelled()
        except StageError:
            assert last is Failing
        assert all(handle.ended for handle in topology.stages.values())


async def test_a_second_cancellation_does_not_wait_for_a_callback_that_hangs() -> None:
    topology, _ = watched()
    sleeper = Sleeper()

    async def body() -> None:
        async with topology:
            chain(topology, sleeper)
            await asyncio.Event().wait()

    async with nothing_unheard():
        task = asyncio.create_task(body())
        await sleeper.reach(1)
        task.cancel()
        await quiet(topology)
        assert not task.done(), "it closes in order, and a callback is under way"
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert topology.stages["pool"].ended == Reason("shutdown")


async def test_a_timeout_around_a_topology_is_a_timeout() -> None:
    topology, _ = watched()
    async with nothing_unheard():

        async def scene() -> None:
            async with asyncio.timeout(0.01), topology:
                chain(topology, Forwarder())
                await asyncio.Event().wait()

        with pytest.raises(TimeoutError):
            await scene()
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0


async def test_a_topology_within_another_groups_task_ends_with_it() -> None:
    topology, _ = watched()
    forwarder = Forwarder()

    async def body() -> None:
        chain(topology, forwarder)
        await topology.run()

    async def bystander() -> None:
        await forwarder.reach(10)
        raise ValueError("elsewhere")

    async with nothing_unheard():

        async def scene() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(body())
                group.create_task(bystander())

        with pytest.raises(ExceptionGroup) as caught:
            await scene()
        assert [type(error) for error in caught.value.exceptions] == [ValueError]
    assert all(handle.ended for handle in topology.stages.values())


async def test_who_still_waits_when_the_block_is_left_is_told() -> None:
    topology, _ = watched()
    async with nothing_unheard():
        async with topology:
            spring = topology.start(Silent(), name="spring")
            over = asyncio.create_task(topology.wait())
            end = asyncio.create_task(spring.wait())
            await quiet(topology)
        async with asyncio.timeout(5):
            await over
            assert await end == Reason("shutdown")


async def test_a_cancelled_call_leaves_nothing_behind() -> None:
    class Slow(Sleeper):
        async def handle_call(self, request: Any, call: Any) -> Any:
            await self.wake.wait()
            raise LookupError(request)

    topology, signals = watched()
    async with nothing_unheard():
        async with topology:
            slow = Slow()
            handle = topology.start(slow, restart="temporary")
            call = asyncio.create_task(handle.call("price"))
            await quiet(topology)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            slow.wake.set()
            await handle.wait()
        del call
    assert kinds(signals) == ["stage-failed"]
