"""The clock by hand, for tests: it is `penstock.manual_clock`, which `App.test` uses too."""

from penstock.manual_clock import ManualClock

__all__ = ["ManualClock"]
