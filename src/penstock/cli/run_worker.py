"""One process of ``penstock run``: it imports the App, and runs it.

Does        find the App by its path; run it with signals; notice when the parent is gone.
Does not    start anything again.
Invariants  1. an error in the user's module is shown with its traceback: it is theirs to mend; all
               else is one sentence.
            2. a worker whose parent is gone, however it went, drains and ends: it holds one end of
               a pipe whose other end only the parent has.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import signal
import sys
import threading
import time
import traceback
from contextlib import suppress
from typing import Any, Final

import msgspec

from penstock import App, BackendUnavailable, ConfigError
from penstock.cli.demo_loop import loop_factory
from penstock.cli.options import complain

WORKER: Final = "PENSTOCK_RUN_WORKER"
"""The variable that makes a process a worker: its `WorkerTask` as JSON."""

UNREACHABLE: Final = 75
"""A worker's exit code where the server cannot be reached: EX_TEMPFAIL. It is tried for ever."""

READY: Final = b"r"
ENDED: Final = b"e"
"""What a worker tells its parent: a code of 0 alone may be that of whatever called `os._exit`."""

LATEST: Final = 10.0
"""Seconds beyond the drain's own after which an orphan ends whatever it is at."""

_log = logging.getLogger("penstock.run")


class WorkerTask(msgspec.Struct):
    """What a parent tells a worker.

    Attributes:
        number, of: which worker it is of how many, from 1.
        alive: a descriptor that can be read from when the parent is gone.
        tell: a descriptor to write to: `READY` when the App runs, `ENDED` when it has ended by
            itself, or as it was told to.
        url: instead of the App's own.
    """

    number: int
    of: int
    alive: int
    tell: int
    url: str | None = None


def worker_task() -> WorkerTask | None:
    """This process's task, if it is a worker; its own children are none."""
    told = os.environ.pop(WORKER, None)
    if told is None:
        return None
    task = msgspec.json.decode(told, type=WorkerTask)
    os.set_inheritable(task.alive, False)
    os.set_inheritable(task.tell, False)
    return task


def configure_logs(level: str) -> None:
    """Readable lines on stderr; a module that configures its own later is left to it."""
    logging.basicConfig(
        level=level.upper(),
        format="%(asctime)s %(levelname)-7s [%(process)d] %(name)s: %(message)s",
        stream=sys.stderr,
    )


def run_app(target: str, url: str | None, drain: float, task: WorkerTask | None) -> int:
    """Run the App at *target* to its end; the exit code.

    Raises:
        ConfigError: it cannot be started so.
        BackendError: refused, or not reachable.
    """
    try:
        app = find_app(target)
    except SystemExit as error:
        complain(
            f"module of {target!r} left by sys.exit({error.code!r}) while it was imported: what it "
            f"does as a program of its own belongs under if __name__ == '__main__'"
        )
        return 2
    except Exception as error:  # noqa: BLE001 - whatever the module raises
        if isinstance(error, ConfigError) and error.__cause__ is None:
            complain(str(error), as_it_is=True)
            return 2
        traceback.print_exc()
        complain(f"module of {target!r} could not be imported: {error!r}")
        return 2
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        try:
            return runner.run(_run(app, url, drain, task))
        except BackendUnavailable as error:
            if task is None:
                raise
            complain(str(error))
            return UNREACHABLE


def find_app(target: str) -> App:
    """The App at ``module:attribute``; the attribute is ``app`` if it is left out.

    Raises:
        ConfigError: no such module, no such attribute, or not an App.
        Exception: what importing the module raised.
    """
    module_name, _, attribute = target.partition(":")
    attribute = attribute or "app"
    here = os.getcwd()  # noqa: PTH109 - as it stands in sys.path
    if here not in sys.path:
        sys.path.insert(0, here)
    if not module_name or module_name.endswith(".py") or "/" in module_name:
        raise ConfigError(
            f"what to run must be MODULE:APP, such as shop.handlers:app, got {target!r}"
        )
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise ConfigError(
            f"there is no module {error.name!r} in {here} or in this environment: what to run must "
            f"be MODULE:APP, got {target!r}"
        ) from None
    found: Any = module
    for part in attribute.split("."):
        found = getattr(found, part, None)
    if isinstance(found, App):
        return found
    apps = [name for name, value in module.__dict__.items() if isinstance(value, App)]
    hint = f"; it has {', '.join(f'{module_name}:{name}' for name in apps)}" if apps else ""
    said = f"has no {attribute!r}" if found is None else f"has a {type(found).__name__} there"
    raise ConfigError(f"{target!r} must be a penstock.App, and the module {said}{hint}")


async def _run(app: App, url: str | None, drain: float, task: WorkerTask | None) -> int:
    def ready() -> None:
        _check_shared(app, task)
        handlers = app.statistics()
        _log.info(
            "running %d handler%s at %s: %s",
            *(len(handlers), "" if len(handlers) == 1 else "s"),
            *(app.client.url, ", ".join(handlers)),
        )
        if task is not None:
            os.write(task.tell, READY)

    if task is not None:
        threading.Thread(
            target=_watch_parent, args=(task.alive, drain), name="penstock parent", daemon=True
        ).start()
    drained = await app.run(signals=True, url=url, drain_timeout=drain, ready=ready)
    if task is not None:
        os.write(task.tell, ENDED)
    if drained:
        _log.info("drained: everything that was begun has ended")
    return 0 if drained else 128 + signal.SIGTERM


def _check_shared(app: App, task: WorkerTask | None) -> None:
    """Raise ConfigError where each of several processes would have streams of its own."""
    url = app.client.url
    alone = url.scheme == "memory" or "temporary" in url.options
    if task is not None and task.of > 1 and alone:
        raise ConfigError(
            f"{url} is one process's own, and this App is run in {task.of}: give --url, or leave "
            f"--processes out"
        )


def _watch_parent(alive: int, drain: float) -> None:
    """Wait for the parent's end; then drain, as at SIGTERM, and end in any case."""
    with suppress(OSError):
        os.read(alive, 1)
    _log.warning("the parent process is gone: draining")
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(drain + LATEST)
    os._exit(1)
