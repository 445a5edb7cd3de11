"""A worker process: does what its parent hands it over a pipe, and ends with its parent.

Run as a file of its own, not as a module of the package: so it starts in 45 ms, as it imports
msgspec and what the work needs, and nothing else of ours.

Does        load the work by its import path, call it with one event after the other, answer.
Does not    import the package, use pickle, or decide anything: the parent does.
Invariants  1. it ends when its standard input does: whatever it does, however the parent died.
            2. what the work prints goes to standard error, what it reads is empty: the pipes are
               the protocol's alone.
            3. answers come in the order of the events, and none waits for the next event's work.
Protocol    frames: four bytes of length, then the body. The first one is the `greeting`, answered
            with what went wrong, or nothing; an empty one ends it. Then a list of events to it, and
            ``(seconds, answers)`` from it; an answer is ``(kind, value)``.
Used by     worker_link, the other end.
"""

from __future__ import annotations

import os
import signal
import struct
import sys
import threading
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from time import perf_counter
from typing import Any, NoReturn

HEADER = struct.Struct(">I")
VALUE, FAILED, TOO_LARGE = 0, 1, 2
"""Kinds of an answer: a value; ``(exception, text, traceback)``; the size of what may not cross."""

FULL = 1 << 20
"""Bytes after which a frame takes no further event or answer."""

MOST = 10_000
"""Characters of an error's text, and of its trace, that are told."""

LOADING = "PENSTOCK_WORKER_LOADING"
"""Set in a worker process while it loads the program: which must not start workers meanwhile."""

MAIN = "__penstock_main__"
"""The name by which a worker process runs the program's own file."""


def greeting(place: tuple[str, str, str], limit: int, results: bool, path: Sequence[str]) -> bytes:
    """The first frame: where the work is, and how to answer.

    Args:
        place: the work's module; its file, where that module is the program itself; its name.
        limit: the most bytes of a result.
        results: whether results are wanted.
        path: where modules are searched for.
    """
    words = (*place, str(limit), str(int(results)), *path)
    return "\0".join(words).encode("utf-8", "surrogateescape")


def framed(body: bytes) -> bytes:
    """*body* as a frame."""
    return HEADER.pack(len(body)) + body


def main() -> None:
    """Load the work and do it, until there is no more."""
    source, target = _take_the_pipes()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which drains
    body = _read(source)
    module, file, name, limit, results, *path = _words(body or _leave())
    frames: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_listen, args=(source, frames), daemon=True).start()
    sys.path[:] = path
    try:
        os.environ[LOADING] = "1"
        work = load(module, file, name)
        del os.environ[LOADING]
        desk = Desk(work, int(limit), results=results == "1")
    except BaseException as error:  # noqa: BLE001 - whatever it is, the parent says it
        name, text, _ = told(error)
        _write(target, f"{name}: {text}".encode())
        return
    _write(target, b"")
    answers: SimpleQueue[Answer | None] = SimpleQueue()
    writer = threading.Thread(target=_answer, args=(target, answers), daemon=True)
    writer.start()
    while frame := frames.get():
        desk.serve(frame, answers)
    answers.put(None)
    writer.join()


def load(module: str, file: str, name: str) -> Callable[[Any], Any]:
    """The work; a program's own file is run by another name than ``__main__``, as a module."""
    from importlib import import_module

    if file:
        from importlib.machinery import SourceFileLoader
        from importlib.util import module_from_spec, spec_from_loader

        loader = SourceFileLoader(MAIN, file)
        spec = spec_from_loader(MAIN, loader)
        assert spec is not None
        found: Any = module_from_spec(spec)
        sys.modules[MAIN] = sys.modules["__main__"] = found
        loader.exec_module(found)
    else:
        found = import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found


def hints(work: Callable[[Any], Any]) -> tuple[Any, Any]:
    """What *work* says that it takes and returns; Any where it says nothing."""
    from typing import get_type_hints

    try:
        found = get_type_hints(work, include_extras=True)
    except (TypeError, NameError, AttributeError):
        return Any, Any
    inner: Any = work
    while hasattr(inner, "__wrapped__"):
        inner = inner.__wrapped__
    names: Sequence[str] = getattr(getattr(inner, "__code__", None), "co_varnames", ())
    takes = found.get(names[0], Any) if names else Any
    returns = found.get("return", Any)
    return takes, returns


def told(error: BaseException) -> tuple[str, str, str]:
    """Its name, its text and its trace; each of bounded length, and such that UTF-8 can say it."""
    from traceback import format_exception

    try:
        text = str(error)
    except Exception as wrong:  # noqa: BLE001 - a user's class, which fails even at this
        text = f"(its text raised {type(wrong).__name__})"
    trace = "".join(format_exception(error))
    name, text, trace = (
        part.encode("utf-8", "replace").decode()
        for part in (type(error).__name__, text[:MOST], trace[-MOST:])
    )
    return name, text, trace


Answer = tuple[tuple[int, Any], float, int]
"""An answer, the seconds that the work took, and its size."""


class Desk:
    """Where the work is done, one event after the other.

    Args:
        work: what is called.
        limit: the most bytes of a result.
        results: whether results are wanted.
    """

    def __init__(self, work: Callable[[Any], Any], limit: int, *, results: bool) -> None:
        import msgspec

        self._work = work
        self._limit = limit
        self._results = results
        self._frame = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
        self._event = msgspec.msgpack.Decoder(hints(work)[0]).decode
        self._encode = msgspec.msgpack.Encoder().encode
        self._raw = msgspec.Raw
        self._nothing = msgspec.Raw(self._encode(None))

    def serve(self, frame: bytes, answers: SimpleQueue[Answer | None]) -> None:
        """Do the work of a frame; each answer is put at once."""
        for body in self._frame(frame):
            began = perf_counter()
            answer, size = self._one(body)
            answers.put((answer, perf_counter() - began, size))

    def _one(self, body: Any) -> tuple[tuple[int, Any], int]:
        try:
            result = self._work(self._event(body))
            if not self._results:
                return (VALUE, self._nothing), 1
            encoded = self._encode(result)
        except BaseException as error:  # noqa: BLE001 - also SystemExit: it is the event's alone
            failure = told(error)
            return (FAILED, failure), 4 * sum(len(text) for text in failure)
        if len(encoded) > self._limit:
            return (TOO_LARGE, len(encoded)), 8
        return (VALUE, self._raw(encoded)), len(encoded)


# --- the pipes -------------------------------------------------------------------------------


def _take_the_pipes() -> tuple[int, int]:
    """Both for ourselves, not inherited by what the work starts; others are put in their place."""
    source, target = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    return source, target


def _listen(source: int, frames: SimpleQueue[bytes]) -> None:
    """Take frames in; where there are no more, the parent is gone, and nobody wants the rest."""
    while (frame := _read(source)) is not None:
        frames.put(frame)
    _leave()


def _answer(target: int, answers: SimpleQueue[Answer | None]) -> None:
    """Send what there is, as much as there is: many answers a frame where the work is quick."""
    import msgspec

    encode = msgspec.msgpack.Encoder().encode
    while (first := answers.get()) is not None:
        several, seconds, size = [first[0]], first[1], first[2]
        ended = False
        while size < FULL:
            try:
                further = answers.get_nowait()
            except Empty:
                break
            if further is None:
                ended = True
                break
            several.append(further[0])
            seconds += further[1]
            size += further[2]
        _write(target, encode((seconds, several)))
        if ended:
            return


def _words(body: bytes) -> list[str]:
    return body.decode("utf-8", "surrogateescape").split("\0")


def _read(source: int) -> bytes | None:
    """The next frame; None: there is none."""
    header = _exactly(source, HEADER.size)
    return _exactly(source, HEADER.unpack(header)[0]) if header is not None else None


def _exactly(source: int, size: int) -> bytes | None:
    parts: list[bytes] = []
    while size:
        part = os.read(source, min(size, FULL))
        if not part:
            return None
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _write(target: int, body: bytes) -> None:
    view = memoryview(framed(body))
    try:
        while view:
            view = view[os.write(target, view) :]
    except OSError:  # nobody reads it any more
        _leave()


def _leave() -> NoReturn:
    os._exit(0)  # also where the work is under way: it can be interrupted by nothing else


if __name__ == "__main__":
    main()
