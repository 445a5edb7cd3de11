"""Observers: where signals go.

Does        hand each signal to every observer, and without any to the log named ``penstock``.
Does not    configure logging; make signals up.
Invariants  1. a failing observer harms neither the work nor the other observers; it is logged.
            2. nothing is silent: a signal that nobody observes is logged.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

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

    def add(self, observer: Observer) -> None:
        """Tell *observer* too, from the next signal on."""
        self._observers.append(observer)

    def __call__(self, signal: Signal) -> None:
        """Hand *signal* to all."""
        for observer in self._observers or (log_signal,):
            try:
                observer(signal)
            except Exception:  # noqa: BLE001 - an observer is the user's; the work is not
                _log.exception("an observer failed on the signal %s", signal.kind)


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
