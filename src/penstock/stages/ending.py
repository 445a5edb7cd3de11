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
from penstock.stages.taking import drop

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
    lost = runner.lost
    if runner.taking is not None:
        lost += runner.taking.end(reason)
    if runner.giving is not None:
        lost += runner.giving.end(reason)
    while inbox:
        message = inbox.popleft()
        lost += len(message.events) if type(message) is Events else 0
        answer_late(runner, message, counted=True)
    if lost:
        runner.signal(
            "events-dropped",
            f"{runner.name} ended ({reason.kind}) with {lost} events that it had been given, or "
            f"had to give, and that were not served",
            lost,
        )


def answer_late(runner: Runner, message: Message | Internal, *, counted: bool = False) -> None:
    """Answer *message*; *counted*: its events are part of a sum that is signalled elsewhere."""
    name, reason = runner.name, (runner.ended or NORMAL).as_down()
    if type(message) is Subscribe:
        message.tag.consumer.send(Cancelled(message.tag, reason))
    elif type(message) is Events:
        dropped = drop(message, None)
        if dropped and not counted:
            text = f"{name} has ended: {dropped} events that still came were dropped"
            runner.signal("events-dropped", text, dropped)
        if not counted:
            error = StageError(f"{name} has ended ({reason}): it takes no events")
            message.tag.producer.send(Cancel(message.tag, Reason("failed", error)))
    elif type(message) is Call:
        message.fail(StageError(f"{name} has ended ({reason}): it answers no call"))
    elif type(message) is Cast or (type(message) is Info and not message.due):
        what = type(message).__name__.lower()
        runner.signal("unhandled-message", f"{name} has ended: a {what} for it was ignored")
    elif type(message) is Join and message.answer is not None and not message.answer.done():
        message.answer.set_exception(StageError(f"{name} has ended: it cannot subscribe"))
