"""Observers: where signals go.

Does        hand each signal to every observer, and without any to the log named ``penstock``; count
            for each member what befell it.
Does not    configure logging; make signals up.
Invariants  1. a failing observer harms neither the work nor the other observers; it is logged.
            2. nothing is silent: a signal that nobody observes is logged.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from penstock.signals import Observer, Severity, Signal

_log = logging.getLogger("penstock")
_LEVELS: dict[Severity, int] = {
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


class Observers:
    """A fan-out of signals; a call hands one signal to all.

    Args:
        observers: who is told; without any, signals are logged.
    """

    def __init__(self, observers: Iterable[Observer] = ()) -> None:
        self._observers = list(observers)
        self._tallies: list[Tally] = []

    def add(self, observer: Observer) -> None:
        """Tell *observer* too, from the next signal on."""
        self._observers.append(observer)

    def count(self, tally: Tally) -> None:
        """Let *tally* hear too, from the next signal on. It is no observer: all is still logged."""
        self._tallies.append(tally)

    def forget(self, tally: Tally) -> None:
        """Tell *tally* nothing more."""
        if tally in self._tallies:
            self._tallies.remove(tally)

    def __call__(self, signal: Signal) -> None:
        """Hand *signal* to all."""
        for tally in self._tallies:
            tally.hear(signal)
        for observer in self._observers or (log_signal,):
            try:
                observer(signal)
            except Exception:  # noqa: BLE001 - an observer is the user's; the work is not
                _log.exception("an observer failed on the signal %s", signal.kind)


class Tally:
    """What befell one member, by the signals about it.

    Attributes:
        takeovers: how many dead members it took over from.
        claimed: the events that it took over.
        lost: events that were trimmed or removed before the group had finished them.
    """

    def __init__(self, group: str, member: Callable[[], str]) -> None:
        self._group = group
        self._member = member
        self.takeovers = self.claimed = self.lost = 0

    def hear(self, signal: Signal) -> None:
        """Count *signal*, if it is about this member."""
        if signal.group != self._group or signal.member != self._member():
            return
        if signal.kind == "member-taken-over":
            self.takeovers += 1
            self.claimed += signal.count or 0
        elif signal.kind in {"trimmed-unread", "trimmed-pending"}:
            self.lost += signal.count or 0


def log_signal(signal: Signal) -> None:
    """The observer that is used when there is no other: one structured log line."""
    extra = {
        "signal": signal.kind,
        "stream": signal.stream,
        "group": signal.group,
        "member": signal.member,
        "stage": signal.stage,
        "count": signal.count,
    }
    _log.log(_LEVELS[signal.severity], "%s: %s", signal.kind, signal.message, extra=extra)
