"""Observers get every signal; a failing one harms nobody; nothing is silent."""

from __future__ import annotations

import logging
from typing import get_args

import pytest

from penstock import Signal
from penstock.observers import Observers
from penstock.signals import SEVERITY, Kind

LOST = Signal("group-lost", "the group is gone", "orders", "billing", "alfred", 3)


@pytest.mark.conformance("PU-067")
def test_every_observer_gets_every_signal_in_order() -> None:
    """One that comes later gets the later ones."""
    first: list[Signal] = []
    second: list[Signal] = []
    observers = Observers([first.append])
    observers(LOST)
    observers.add(second.append)
    other = Signal("connected", "again")
    observers(other)

    assert (first, second) == ([LOST, other], [other])


def test_a_failing_observer_harms_neither_the_work_nor_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is logged, with its traceback."""
    got: list[Signal] = []

    def failing(_: Signal) -> None:
        raise RuntimeError("broken observer")

    Observers([failing, got.append])(LOST)

    assert got == [LOST]
    [record] = caplog.records
    assert "group-lost" in record.message
    assert record.exc_info is not None
    assert "broken observer" in str(record.exc_info[1])


@pytest.mark.conformance("PU-067")
def test_a_signal_that_nobody_observes_is_logged_with_its_facts(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Under the name penstock, as grave as it is."""
    with caplog.at_level(logging.INFO, "penstock"):
        Observers()(LOST)
        Observers()(Signal("connected", "again"))

    grave, light = caplog.records
    assert (grave.name, grave.levelno, light.levelno) == ("penstock", logging.ERROR, logging.INFO)
    assert grave.message == "group-lost: the group is gone"
    facts = vars(grave)
    assert [facts[key] for key in ("signal", "stream", "group", "member", "count")] == [
        *("group-lost", "orders", "billing", "alfred"),
        3,
    ]


def test_what_is_observed_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever observes decides."""
    with caplog.at_level(logging.DEBUG):
        Observers([lambda _: None])(LOST)
    assert not caplog.records


def test_every_kind_has_its_severity() -> None:
    """The table and the type name the same kinds."""
    assert set(SEVERITY) == set(get_args(Kind))
    assert LOST.severity == "error"
