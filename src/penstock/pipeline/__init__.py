"""Handlers and a URL: `App`. First `app.py`, then `runner.py`."""

from penstock.pipeline.app import App
from penstock.pipeline.current import extend
from penstock.pipeline.outputs import Output
from penstock.pipeline.statistics import HandlerStatistics
from penstock.pipeline.trying import AppOutcome, AppTest

__all__ = ["App", "AppOutcome", "AppTest", "HandlerStatistics", "Output", "extend"]
