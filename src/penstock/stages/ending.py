"""What a stage answers when all is over.

Does        tell all who wait for something; answer each message and call that still comes.
Does not    end a stage: the runner does.
Invariants  1. who waits is told; what carries an outcome is returned; what is dropped is counted.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from penstock.errors import StageError
from penstock.stages.calls import Call, Cast, Info, Internal, Join
from penstock.stages.protocol import NORMAL, Cancel, Cancelled, Events, Message, Reason, Subscribe
from penstock.stages.subscription import Subscription
from penstock.stages.taking import Lost

if TYPE_CHECKING:
    from penstock.stages.runner import Runner


def tell_all(runner: Runner, reason: Reason, inbox: deque[Message | Internal]) -> None:
    """Tell everybody who waits for something of a stage that has ended; drop what is left.

    Its peers are told behind everything that it has sent them.
    """
    for kept in list(runner.kept):
        kept.failed(None)
    for call in list(runner.promised):
        answer_late(runner, call)
    for _, timer in runner.timers:
        timer.cancel()
    lost = runner.lost
    if runner.taking is not None:
        runner.taking.end(reason, lost)
    if runner.giving is not None:
        runner.giving.end(reason, lost)
    while inbox:
        message = inbox.popleft()
        if type(message) is Events:
            lost.add(message.events, message.carrier)
            continue
        if type(message) is Subscribe and runner.giving is not None:
            asked = Subscription(message.tag, message.options, "consumer")
            runner.giving.former.append(asked)  # it would have been a consumer
        answer_late(runner, message)
    lost.say(runner, _ended_with(runner, reason))


def answer_late(runner: Runner, message: Message | Internal) -> None:
    """Answer *message*."""
    name, reason = runner.name, (runner.ended or NORMAL).as_down()
    if type(message) is Subscribe:
        message.tag.consumer.send(Cancelled(message.tag, reason))
    elif type(message) is Events:
        lost = Lost()
        lost.add(message.events, message.carrier)
        lost.say(runner, _ended_with(runner, reason))
        error = StageError(f"{name} has ended ({reason}): it takes no events")
        message.tag.producer.send(Cancel(message.tag, Reason("failed", error)))
    elif type(message) is Call:
        message.fail(StageError(f"{name} has ended ({reason}): it answers no call"))
    elif type(message) is Cast or (type(message) is Info and not message.due):
        what = type(message).__name__.lower()
        runner.signal("unhandled-message", f"{name} has ended: a {what} for it was ignored")
    elif type(message) is Join and message.answer is not None and not message.answer.done():
        message.answer.set_exception(StageError(f"{name} has ended: it cannot subscribe"))


def _ended_with(runner: Runner, reason: Reason) -> str:
    return f"{runner.name} ended ({reason.kind}) with events that it had not served"
