"""The writer: order, receipts, back-pressure, and errors that are told once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from penstock import (
    BackendRejected,
    BackendUnavailable,
    Client,
    ClosedError,
    ConfigError,
    EncodeError,
    OutcomeUnknown,
    Receipt,
    Writer,
    connect,
)
from penstock.event import Shard
from penstock.ports import Appender, AppendOptions, Marks
from penstock.streams.writer import WriterStatistics
from penstock.testing import TcpProxy
from streams.helping import PATIENCE, FakeAppender, everything, numbers, soon

REFUSED = BackendRejected("refused for a test")


@asynccontextmanager
async def faked(**options: Any) -> AsyncGenerator[tuple[Writer[Any], FakeAppender]]:
    """A writer whose outcomes are in the test's hand; not flushed at the end."""
    fake = FakeAppender()

    async def open_appender(_: int) -> FakeAppender:
        return fake

    limits = {"max_pending": 10_000, "max_pending_bytes": 1 << 24, **options}
    async with connect("memory://") as client:
        writer: Writer[Any] = Writer(client.stream("orders"), open_appender, **limits)
        await writer.__aenter__()
        yield writer, fake
        await writer.aclose()


async def turn() -> None:
    """Let the loop turn until what is ready has run."""
    for _ in range(5):
        await asyncio.sleep(0)


# --- on every backend ------------------------------------------------------------------------


@pytest.mark.conformance("SS-010", "SS-012")
async def test_what_is_sent_is_stored_in_order_with_its_metadata(client: Client) -> None:
    """Leaving the block waits for all of it."""
    stream = client.stream("orders")
    async with stream.writer() as writer:
        for n in range(2500):
            await writer.send({"n": n}, topic=f"t{n % 3}", key=str(n), id=f"id-{n}")
    found = await everything(stream)

    assert numbers(found) == list(range(2500))
    assert [(e.topic, e.key, e.id) for e in found[:2]] == [("t0", "0", "id-0"), ("t1", "1", "id-1")]
    assert writer.statistics() == WriterStatistics(2500, 2500, 0, 0, 0, 0)


@pytest.mark.conformance("SS-008")
async def test_a_receipt_gives_the_position(client: Client) -> None:
    """Of its own event, as often as it is awaited."""
    stream = client.stream("orders")
    async with stream.writer() as writer:
        receipts: list[Receipt] = []
        for n in range(5):
            sent = await writer.send({"n": n}, receipt=n % 2 == 0)
            assert (sent is None) == (n % 2 == 1)
            receipts += [sent] if sent else []
        positions = [await receipt for receipt in receipts]
        assert [await receipt for receipt in receipts] == positions
        assert all(receipt.done() for receipt in receipts)
        found = await everything(stream)
    assert [event.position for event in found][::2] == positions


@pytest.mark.conformance("SS-013")
async def test_after_a_flush_everything_is_stored(client: Client) -> None:
    """And the writer goes on."""
    stream = client.stream("orders")
    async with stream.writer() as writer:
        await writer.flush()
        for first in (0, 700):
            for n in range(first, first + 700):
                await writer.send({"n": n})
            await writer.flush()
            assert await stream.length() == first + 700
        await writer.write([{"n": n} for n in range(1400, 1500)])
        assert await stream.length() == 1500


@pytest.mark.parametrize("limits", [{"max_pending": 3}, {"max_pending_bytes": 10}])
async def test_tight_limits_slow_down_and_lose_nothing(client: Client, limits: Any) -> None:
    """Down to a few events at a time."""
    stream = client.stream("orders")
    async with stream.writer(**limits) as writer:
        for n in range(100):
            await writer.send({"n": n})
    assert numbers(await everything(stream)) == list(range(100))


async def test_several_tasks_may_share_a_writer(client: Client) -> None:
    """Each keeps its own order."""
    stream = client.stream("orders")
    async with stream.writer(max_pending=10) as writer:

        async def send(task: int) -> None:
            for n in range(100):
                await writer.send({"n": n}, key=str(task))

        await asyncio.gather(*(send(task) for task in range(5)))
    found = await everything(stream)
    for task in range(5):
        assert numbers(e for e in found if e.key == str(task)) == list(range(100))


@pytest.mark.conformance("SS-015")
async def test_two_writers_of_one_stream_do_not_disturb_each_other(client: Client) -> None:
    """Nor single appends beside them; without a session it is the same."""
    stream = client.stream("orders")
    async with stream.writer() as one, stream.writer(idempotent=False) as two:
        for n in range(50):
            await one.send({"n": n}, key="one")
            await two.send({"n": n}, key="two")
            if n % 10 == 0:
                await stream.append({"n": n}, key="three")
    found = await everything(stream)

    for key, step in (("one", 1), ("two", 1), ("three", 10)):
        assert numbers(e for e in found if e.key == key) == list(range(0, 50, step))


async def test_a_value_that_cannot_be_sent_concerns_itself_alone(client: Client) -> None:
    """What was sent before and after is stored, and the exit has nothing to add."""
    stream = client.stream("orders")
    async with stream.writer() as writer:
        await writer.send({"n": 1})
        for bad in ({"n": None}, {"n": "\ud800"}, {"penstock.x": 1}, {}):
            with pytest.raises(EncodeError):
                await writer.send(bad)
        await writer.send({"n": 2})
    assert numbers(await everything(stream)) == [1, 2]
    assert writer.statistics().sent == 2


# --- limits ----------------------------------------------------------------------------------


@pytest.mark.conformance("SS-009")
async def test_no_more_than_max_pending_events_are_pending() -> None:
    """A send waits for room, and goes on as soon as there is some."""
    async with faked(max_pending=3) as (writer, fake):
        for n in range(3):
            await writer.send({"n": n})
        fourth = asyncio.create_task(writer.send({"n": 3}))
        await turn()
        assert not fourth.done()
        assert (len(fake.events), writer.statistics().pending) == (3, 3)

        fake.store()
        await fourth
        await turn()
        assert (len(fake.events), writer.statistics().pending) == (4, 1)
        fake.store()


@pytest.mark.conformance("SS-009")
async def test_no_more_than_max_pending_bytes_are_pending() -> None:
    """An event that would burst the limit waits; one larger than it goes alone."""
    async with faked(max_pending_bytes=100) as (writer, fake):
        await writer.send({"a": "x" * 59})
        for size in (59, 999):
            late = asyncio.create_task(writer.send({"a": "x" * size}))
            await turn()
            assert not late.done()
            assert writer.statistics().pending_bytes == 60
            fake.store()
            await late
            await turn()
            assert writer.statistics().pending == 1
            if size == 59:
                assert writer.statistics().pending_bytes == 60
        fake.store()


async def test_many_that_wait_for_room_get_it_one_by_one() -> None:
    """The limit holds whoever wakes first."""
    async with faked(max_pending=2) as (writer, fake):
        tasks = [asyncio.create_task(writer.send({"n": n})) for n in range(20)]
        for _ in range(20):
            await turn()
            assert writer.statistics().pending <= 2
            fake.store()
        await asyncio.gather(*tasks)
        await turn()
        assert [fields[1] for fields in fake.events] == list(range(20))
        fake.store()


async def test_a_send_that_is_cancelled_while_it_waits_is_not_sent() -> None:
    """Nor counted."""
    async with faked(max_pending=1) as (writer, fake):
        await writer.send({"n": 0})
        late = asyncio.create_task(writer.send({"n": 1}))
        await turn()
        late.cancel()
        with pytest.raises(asyncio.CancelledError):
            await late
        fake.store()
        await writer.send({"n": 2})
        await turn()
        fake.store()
        await writer.flush()

        assert [fields[1] for fields in fake.events] == [0, 2]
        assert writer.statistics() == WriterStatistics(2, 2, 0, 0, 0, 0)


# --- errors ----------------------------------------------------------------------------------


async def test_a_failure_is_told_once_by_the_next_send() -> None:
    """That one is not sent; the next is."""
    async with faked() as (writer, fake):
        await writer.send({"n": 0})
        await turn()
        fake.fail(REFUSED)
        await turn()
        with pytest.raises(BackendRejected):
            await writer.send({"n": 1})
        await writer.send({"n": 2})
        await turn()
        fake.store()
        await writer.flush()

        assert [fields[1] for fields in fake.events] == [0, 2]
        assert writer.statistics() == WriterStatistics(2, 1, 1, 0, 0, 0)


async def test_a_failure_is_told_once_by_the_next_flush() -> None:
    """A flush waits for the outcomes first."""
    async with faked() as (writer, fake):
        await writer.send({"n": 0})
        flush = asyncio.create_task(writer.flush())
        await turn()
        assert not flush.done()
        fake.fail(REFUSED)
        with pytest.raises(BackendRejected):
            await flush
        await writer.flush()


async def test_a_failure_wakes_those_who_wait_for_room() -> None:
    """With the failure: they are not sent."""
    async with faked(max_pending=1) as (writer, fake):
        await writer.send({"n": 0})
        late = asyncio.create_task(writer.send({"n": 1}))
        await turn()
        fake.fail(REFUSED)
        with pytest.raises(BackendRejected):
            await late
        assert len(fake.events) == 1


async def failing_in_the_background(writer: Writer[Any], fake: FakeAppender) -> None:
    await writer.send({"n": 0})
    await turn()
    fake.fail(REFUSED)


@pytest.mark.conformance("SS-013")
async def test_the_exit_raises_what_was_not_told() -> None:
    """And closes all the same."""
    async with faked() as (writer, fake):
        await failing_in_the_background(writer, fake)
        with pytest.raises(BackendRejected):
            await writer.__aexit__(None, None, None)
        assert fake.closed


async def test_the_error_of_the_body_wins() -> None:
    """Over what the exit would have raised."""
    async with faked() as (writer, fake):
        await failing_in_the_background(writer, fake)
        body = KeyError("the body's")
        assert await writer.__aexit__(KeyError, body, None) is None
        assert fake.closed


async def test_a_failure_that_receipts_have_told_is_not_told_again() -> None:
    """Whoever awaited it knows."""
    async with faked() as (writer, fake):
        receipts = [await writer.send({"n": n}, receipt=True) for n in range(2)]
        await turn()
        fake.fail(REFUSED)
        for receipt in receipts:
            with pytest.raises(BackendRejected):
                await receipt
        await writer.send({"n": 2})
        await turn()
        fake.store()
        await writer.flush()
        assert writer.statistics() == WriterStatistics(3, 1, 2, 0, 0, 0)


@pytest.mark.parametrize("awaited", [0, 1])
async def test_a_failure_that_not_all_receipts_have_told_is_told(awaited: int) -> None:
    """Somebody may not know."""
    async with faked() as (writer, fake):
        receipts = [await writer.send({"n": n}, receipt=True) for n in range(2)]
        if awaited:
            await writer.send({"n": 2})
        await turn()
        fake.fail(REFUSED)
        for receipt in receipts if awaited else receipts[:1]:
            with pytest.raises(BackendRejected):
                await receipt
        with pytest.raises(BackendRejected):
            await writer.flush()


async def test_after_an_unknown_outcome_nothing_is_sent_until_a_flush_has_told_it() -> None:
    """To keep the order: every send says so, and the flush counts."""
    async with faked() as (writer, fake):
        await writer.send({"n": 0})
        await turn()
        fake.store()
        for n in (1, 2):
            await writer.send({"n": n})
        await turn()
        fake.fail(OutcomeUnknown("no reply", unknown=2))
        await turn()
        for _ in range(3):
            with pytest.raises(OutcomeUnknown, match=r"not sent.*order.*flush\(\)") as told:
                await writer.send({"n": 9})
            assert (told.value.stored, told.value.unknown, told.value.unsent) == (0, 0, 1)
        assert len(fake.events) == 3

        with pytest.raises(OutcomeUnknown, match="1 are stored, then 2 may be") as error:
            await writer.flush()
        assert (error.value.stored, error.value.unknown, error.value.unsent) == (1, 2, 0)

        await writer.flush()
        await writer.send({"n": 3})
        await turn()
        fake.store()
        await writer.flush()
        assert len(fake.events) == 4


async def test_what_stands_behind_an_unknown_batch_is_counted_as_unsent() -> None:
    """As the appender fails it; the tally is of everything since the last flush."""
    async with faked() as (writer, fake):
        for n in range(3):
            await writer.send({"n": n})
            await turn()
        fake.futures[0].set_exception(OutcomeUnknown("no reply", unknown=1))
        fake.futures[1].set_exception(OutcomeUnknown("to keep the order", unsent=1))
        fake.futures[2].set_exception(OutcomeUnknown("to keep the order", unsent=1))
        with pytest.raises(OutcomeUnknown) as error:
            await writer.flush()

        assert (error.value.stored, error.value.unknown, error.value.unsent) == (0, 1, 2)
        assert writer.statistics() == WriterStatistics(3, 0, 2, 1, 0, 0)


async def test_a_receipt_of_an_unknown_outcome_says_so() -> None:
    """And the writer stays blocked until the flush: the order is its business."""
    async with faked() as (writer, fake):
        receipt = await writer.send({"n": 0}, receipt=True)
        await turn()
        fake.fail(OutcomeUnknown("no reply", unknown=1))
        with pytest.raises(OutcomeUnknown, match="no reply"):
            await receipt
        with pytest.raises(OutcomeUnknown, match="not sent"):
            await writer.send({"n": 1})
        with pytest.raises(OutcomeUnknown):
            await writer.flush()


@pytest.mark.conformance("SS-008")
async def test_waiting_for_a_receipt_can_be_cancelled() -> None:
    """The event is on its way all the same, and the receipt good for another time."""
    async with faked() as (writer, fake):
        receipt = await writer.send({"n": 0}, receipt=True)
        assert not receipt.done()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(receipt, 0.01)
        fake.store()
        assert (await receipt)[0] == 1


# --- life ------------------------------------------------------------------------------------


async def test_a_writer_is_used_between_opening_and_closing(client: Client) -> None:
    """Outside it says so; what it had gathered is not left without an outcome."""
    stream = client.stream("orders")
    writer = stream.writer()
    with pytest.raises(ClosedError, match="async with"):
        await writer.send({"n": 0})

    await writer.__aenter__()
    receipt = await writer.send({"n": 0}, receipt=True)
    await writer.aclose()
    with pytest.raises(ClosedError, match="nothing was sent"):
        await writer.send({"n": 1})
    try:
        await asyncio.wait_for(receipt, PATIENCE)
    except (ClosedError, OutcomeUnknown):
        assert await stream.length() in (0, 1)
    else:
        assert await stream.length() == 1


@pytest.mark.parametrize(
    "options",
    [{"max_pending": 0}, {"max_pending_bytes": 0}, {"timeout": 0}, {"timeout": -1}],
    ids=str,
)
@pytest.mark.one_loop
async def test_wrong_limits_are_refused(options: Any) -> None:
    """Before anything is opened."""
    async with connect("memory://") as client:
        with pytest.raises(ConfigError, match=f"{next(iter(options))}.* must be"):
            client.stream("orders").writer(**options)


# --- on a bad network ------------------------------------------------------------------------


async def test_a_lost_reply_doubles_nothing(embedded_url: str) -> None:
    """A proxy swallows every third reply and cuts: the events are there once, in order."""
    async with (
        TcpProxy(("127.0.0.1", int(embedded_url.rpartition(":")[2]))) as proxy,
        connect(f"redis://127.0.0.1:{proxy.port}", observer=lambda _: None) as client,
    ):
        stream = client.stream("orders")
        async with stream.writer() as writer:
            proxy.swallow_replies(3, when=lambda piece: b"stored" in piece or b"again" in piece)
            for n in range(5000):
                await writer.send({"n": n})
                if n % 500 == 0:
                    await asyncio.sleep(0)
            await writer.flush()
            proxy.swallow_replies(0)
        assert proxy.resets > 0
        assert numbers(await everything(stream)) == list(range(5000))


@pytest.mark.conformance("SS-021")
async def test_a_server_that_goes_silent_leaves_outcomes_unknown_in_time(embedded_url: str) -> None:
    """The send waits no longer than its timeout; a late reply harms nobody; it goes on after."""
    async with (
        TcpProxy(("127.0.0.1", int(embedded_url.rpartition(":")[2]))) as proxy,
        connect(f"redis://127.0.0.1:{proxy.port}", observer=lambda _: None) as client,
    ):
        stream = client.stream("orders")
        async with stream.writer(timeout=1.0) as writer:
            await writer.send({"n": 0})
            await writer.flush()
            proxy.pause("down")
            await writer.send({"n": 1})
            with pytest.raises(OutcomeUnknown) as error:
                await asyncio.wait_for(writer.flush(), PATIENCE)
            assert (error.value.stored, error.value.unknown, error.value.unsent) == (0, 1, 0)
            proxy.resume()
            await writer.send({"n": 2})
            await asyncio.wait_for(writer.flush(), PATIENCE)
        assert numbers(await everything(stream)) in ([0, 1, 2], [0, 2])


async def test_a_refusal_after_a_cut_leaves_nobody_waiting(embedded_url: str) -> None:
    """What flew when the connection broke has an outcome, though it is refused when sent again."""
    async with (
        TcpProxy(("127.0.0.1", int(embedded_url.rpartition(":")[2]))) as proxy,
        connect(embedded_url) as admin,
    ):
        rights = {"enabled": True, "passwords": ["+right"], "keys": "*", "channels": "*"}
        await admin.redis.acl_setuser("me", **rights, commands=["+@all"])
        url = f"redis://me:right@127.0.0.1:{proxy.port}"
        try:
            async with (
                connect(url, observer=lambda _: None) as client,
                client.stream("orders").writer(timeout=20.0) as writer,
            ):
                await writer.send({"n": 0})
                await writer.flush()
                proxy.pause("up")
                await writer.send({"n": 1})
                await soon(lambda: writer.statistics().pending == 1, "it is on its way")
                await turn()
                await admin.redis.acl_setuser("me", **rights, commands=["+@all", "-xadd"])
                proxy.cut()
                proxy.resume()
                with pytest.raises((BackendRejected, OutcomeUnknown), match="xadd"):
                    await asyncio.wait_for(writer.flush(), PATIENCE)
                assert writer.statistics().pending == 0
        finally:
            await admin.redis.acl_deluser("me")
        assert await admin.stream("orders").length() == 1


@pytest.mark.conformance("SS-021")
async def test_an_unreachable_server_is_told_as_unavailable(embedded_url: str) -> None:
    """An append that could not be sent is certainly not stored."""
    async with (
        TcpProxy(("127.0.0.1", int(embedded_url.rpartition(":")[2]))) as proxy,
        connect(f"redis://127.0.0.1:{proxy.port}", timeout=0.5, observer=lambda _: None) as client,
    ):
        stream = client.stream("orders")
        await stream.append({"n": 0})
        async with stream.writer(timeout=0.5) as writer:
            proxy.refuse = True
            proxy.cut()
            await soon(lambda: proxy.connections == 0, "all connections are cut")
            await writer.send({"n": 1})
            with pytest.raises(BackendUnavailable, match=f"127.0.0.1:{proxy.port}"):
                await asyncio.wait_for(writer.flush(), PATIENCE)
            proxy.refuse = False
            await writer.send({"n": 2})
        assert numbers(await everything(stream)) == [0, 2]


async def test_a_writer_that_cannot_be_opened_leaves_nothing_open(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One shard opened and the next one did not: the first is closed; it may be opened again."""
    stream = client.stream("orders", shards=3)
    opened: list[Appender] = []
    closed: list[Appender] = []
    appender = client.backend.appender

    async def failing(shard: Shard, marks: Marks, options: AppendOptions) -> Appender:
        if len(opened) == 2:
            opened.clear()
            raise BackendUnavailable("not now", backend="x", verb="open", key=shard.stream)
        one = await appender(shard, marks, options)
        end = one.aclose

        async def counted() -> None:
            closed.append(one)
            await end()

        monkeypatch.setattr(one, "aclose", counted)
        opened.append(one)
        return one

    monkeypatch.setattr(client.backend, "appender", failing)
    writer = stream.writer()
    with pytest.raises(BackendUnavailable, match="not now"):
        async with writer:
            pass
    assert len(closed) == 2
    monkeypatch.setattr(client.backend, "appender", appender)
    async with writer:
        await writer.send({"n": 1})
    assert await stream.length() == 1
