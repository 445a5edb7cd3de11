"""What a stage does with messages that come rarely: all but events and asks.

Does        lead each to the side, or the callback, that it is for.
Does not    know how events flow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.errors import StageError
from penstock.stages.calls import Call, Cast, Info, Internal, Join, Mode, Nudge
from penstock.stages.giving import GivingSide
from penstock.stages.protocol import Cancel, Cancelled, Events, Message, Subscribe
from penstock.stages.stage import LATER, Stage
from penstock.stages.taking import TakingSide, drop

if TYPE_CHECKING:
    from penstock.stages.runner import Runner


async def handle_unusual(runner: Runner, message: Message | Internal) -> None:
    """Handle one of them."""
    match message:
        case Call():
            await _call(runner, message)
        case Cast():
            await runner.program.hook("handle_cast", message.request)
        case Info():
            await _info(runner, message)
        case Join() if runner.taking is not None and not runner.finishing:
            await _join(message, runner.taking)
        case Join() if message.answer is not None and not message.answer.done():
            error = StageError(f"{runner.name} is finishing: it subscribes to nothing any more")
            message.answer.set_exception(error)
        case Join():
            pass  # who subscribes it again need not know that it is finishing
        case Cancelled() if runner.taking is not None:
            await runner.taking.cancelled(message)
        case _ if runner.giving is not None:
            await _consumers(runner, message, runner.giving)
        case _:
            _misdirected(runner, message)


async def _consumers(runner: Runner, message: Message | Internal, giving: GivingSide) -> None:
    """What only a producer understands."""
    match message:
        case Subscribe():
            await giving.subscribe(message)
        case Cancel():
            await giving.cancel(message)
        case Nudge():
            if rest := giving.nudged():
                await rest
        case Mode():
            await giving.mode(message)
        case _:
            _misdirected(runner, message)


def _misdirected(runner: Runner, message: Message | Internal) -> None:
    kind = type(message).__name__
    runner.signal(
        "protocol-error", f"{runner.name} is a {runner.kind} and takes no {kind}; it is ignored"
    )
    if type(message) is Events:
        drop(message, None)


async def _join(join: Join, taking: TakingSide) -> None:
    try:
        subscription = await taking.join(join)
    except StageError as error:
        if join.answer is not None and not join.answer.done():
            join.answer.set_exception(error)
        raise
    taking.begin(subscription)
    if join.answer is not None and not join.answer.done():
        join.answer.set_result(subscription)


async def _call(runner: Runner, call: Call) -> None:
    try:
        reply = await runner.program.hook("handle_call", call.request, call)
    except StageError as error:
        call.fail(error)
        if type(runner.stage).handle_call is Stage.handle_call:
            return  # the caller's mistake: the stage answers no calls at all
        raise
    except BaseException:
        call.fail(StageError(f"{runner.name} has ended: it was cancelled before it could answer"))
        raise
    if reply is not LATER:
        call.reply(reply)
    elif not call.answered:
        runner.promised.add(call)
        call.when_answered(runner.promised.discard)


async def _info(runner: Runner, info: Info) -> None:
    """An info takes its place behind everything that is there."""
    if not info.due:
        if runner.taking is not None and runner.taking.queue:
            runner.taking.queue.append(info)
            return
        await runner.informed(info)
        return
    await runner.program.hook("handle_info", info.message)
