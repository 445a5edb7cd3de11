"""Keeper: the small process that holds a directory's lock and runs its server.

Does        run one server for one directory while at least one user holds a connection to
            it; restart a server that died; end, and the server with it, behind the last user.
Does not    speak for its users to the server, or import anything but the standard library.
Invariants  1. the lock is held from before the first file is touched to the end of the
               process; what it guards is made and removed by its holder alone.
            2. a keeper is born with its first user, and never waits for one.
            3. once it has begun to end it takes nobody in: newcomers see the end of their
               connection before ``ready``, and start a keeper, which waits for the lock.
Used by     backends.embedded, which starts it as ``keeper.main([plan])`` in a session of its
            own. A user holds one connection, sends nothing, and is told JSON lines:
            ``{"version": 1, "state": "ready", "socket": …, "pid": …, …}``, again after each
            restart; or ``busy`` (another keeper has the lock), or ``failed`` with the reason.
Source      flock(2); selectors; the self-pipe of signal.set_wakeup_fd.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import sys
import time

from penstock.backends.orphans import guard_main, privacy
from penstock.backends.server_process import (
    INFO,
    KEEPER_SOCKET,
    LOCK,
    SERVER_LOCK,
    SERVER_SOCKET,
    Failure,
    Plan,
    Server,
    remove,
    try_lock,
)

VERSION = 1

LOCK_WAIT = 1.0  # seconds for a keeper that is just ending; that takes 50 ms as a rule
DEATHS = 8  # restarts within a minute before giving up: about 6 s of trying
FIRST_DELAY, LONGEST_DELAY = 0.05, 2.0  # seconds before a restart; doubled each time
LOADING = 0.01  # seconds between two looks at a server that starts
TOUCH = 3600.0  # seconds; cleaners of /tmp take what nobody has touched for days
TEMPORARY = "penstock-{}-t"  # with the user's id: how the directories of temporary servers begin
SWEEP_AFTER = 60.0  # seconds; a younger one may not have its lock yet
LOG_LIMIT = 1 << 20  # bytes; a longer log is put aside at the next start


class Keeper:
    """Runs one server for the users that are connected."""

    def __init__(self, plan: Plan, server: Server, first: socket.socket) -> None:
        self.plan = plan
        self._server = server
        self._users: set[socket.socket] = set()
        self._leaving: list[socket.socket] = []  # they wait for the end of a temporary server
        self._selector = selectors.DefaultSelector()
        self._listener: socket.socket | None = None
        self._ready = ""
        self._deaths: list[float] = []
        self._start_at = 0.0
        self._ended = False
        self._add(first)

    def run(self) -> None:
        """Keep the server until the last user is gone; then leave nothing behind."""
        last = ""
        self._catch_signals()
        try:
            self._listen()
            while self._occupied():
                self._turn()
        except Failure as failure:
            last = failed(failure)
        except OSError as error:
            last = failed(Failure.of(error, self.plan.directory))
        finally:
            self._close(last)

    def _catch_signals(self) -> None:
        """SIGTERM ends the keeper as the last user's leaving would; SIGCHLD wakes it."""
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ)
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end)
        signal.signal(signal.SIGCHLD, wake)  # a handler, so that there is a wake-up

    def _end(self, *_: object) -> None:
        self._ended = True

    def _listen(self) -> None:
        if self.plan.temporary:
            return  # its one user is connected already
        path = self.plan.path(KEEPER_SOCKET)
        remove(path)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.setblocking(False)
        self._listener.bind(path)
        self._listener.listen(1024)
        self._selector.register(self._listener, selectors.EVENT_READ)
        write_info(self.plan)

    def _occupied(self) -> bool:
        """Whether anybody is there, counting those who connected and were not yet taken in."""
        if not self._users and not self._ended:
            self._accept()
        return bool(self._users) and not self._ended

    def _turn(self) -> None:
        for key, _ in self._selector.select(self._pause()):
            if key.fileobj is self._listener:
                self._accept()
            elif key.fileobj is self._woken:
                self._woken.recv(4096)
            elif isinstance(key.fileobj, socket.socket):
                self._hear(key.fileobj)
        if self._ended or not self._users:
            return
        if self._server.pid is None:
            if time.monotonic() >= self._start_at:
                self._server.start()
        elif (status := self._server.poll()) is not None:
            self._died(status)
        elif not self._ready and self._server.answers():
            self._announce()

    def _pause(self) -> float:
        """How long nothing may happen, in seconds."""
        if self._server.pid is None:
            return max(0.0, self._start_at - time.monotonic())
        if not self._ready:
            return LOADING
        for name in ("", KEEPER_SOCKET, SERVER_SOCKET):
            touch(self.plan.path(name))
        return TOUCH

    def _accept(self) -> None:
        while self._listener is not None:
            try:
                user, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError:  # too many open files: they are taken in as others leave
                time.sleep(0.05)
                return
            self._add(user)

    def _add(self, user: socket.socket) -> None:
        user.setblocking(False)
        self._users.add(user)
        self._selector.register(user, selectors.EVENT_READ)
        if self._ready:
            tell(user, self._ready)

    def _hear(self, user: socket.socket) -> None:
        try:
            if user.recv(4096):
                return  # nothing is said to us in this version
        except BlockingIOError:
            return
        except OSError:
            pass
        self._selector.unregister(user)
        self._users.discard(user)
        if self.plan.temporary:
            self._leaving.append(user)
        else:
            user.close()

    def _announce(self) -> None:
        plan = self.plan
        self._ready = line(
            "ready",
            socket=plan.path(SERVER_SOCKET),
            pid=self._server.pid,
            port=plan.port,
            server=plan.server,
            keeper=os.getpid(),
        )
        for user in self._users:
            tell(user, self._ready)

    def _died(self, status: int) -> None:
        """Restart later; but not what never answered, or has no data to come back to."""
        now = time.monotonic()
        first_start = not self._ready and not self._deaths
        self._deaths = [at for at in self._deaths if at > now - 60.0] + [now]
        self._ready = ""
        if first_start or self.plan.temporary or len(self._deaths) > DEATHS:
            raise self._server.explain(status)
        self._start_at = now + min(LONGEST_DELAY, FIRST_DELAY * 2 ** (len(self._deaths) - 1))

    def _close(self, last: str) -> None:
        """In this order: turn newcomers away, end the server, say so, let the lock go (at exit)."""
        if self._listener is not None:
            self._listener.close()
            remove(self.plan.info)
            remove(self.plan.path(KEEPER_SOCKET))
        self._server.stop()
        clean(self.plan)
        if last:
            for user in self._users:
                tell(user, last)


def main(arguments: list[str]) -> None:
    """Run a keeper by the plan, a JSON object in the first argument; or ``guard``."""
    if arguments == ["guard"]:
        guard_main()
        return
    for number in (signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # whatever our user blocked
    os.umask(0o077)
    plan = Plan(**json.loads(arguments[0]))
    user = socket.socket(fileno=plan.hold)
    user.set_inheritable(False)  # the server must not hold its own keeper
    try:
        server = prepare(plan)
    except Failure as failure:
        tell(user, failed(failure))
    except OSError as error:
        tell(user, failed(Failure.of(error, plan.directory)))
    else:
        if server is None:
            tell(user, line("busy"))
        elif os.fork() == 0:  # nobody's child, so that no user has to reap it
            Keeper(plan, server, user).run()


def prepare(plan: Plan) -> Server | None:
    """Take the lock, the runtime directory and the log; None where another keeper has the lock."""
    if plan.temporary:
        sweep(os.path.dirname(plan.directory))
        os.mkdir(plan.directory, 0o700)
    if not take_lock(plan):
        return None
    earlier = read_runtime(plan.directory)
    remove(plan.info)
    with contextlib.suppress(FileExistsError):
        os.mkdir(plan.runtime, 0o700)
    distrust = privacy(plan.runtime)
    if distrust:
        raise Failure("config", refusal(plan.runtime, distrust))
    log = open_log(plan)
    return Server(plan, log, [os.path.join(earlier, SERVER_SOCKET)] if earlier else [])


def take_lock(plan: Plan) -> bool:
    """Hold the directory's lock to the end of this process; False: another keeper does, and lives.

    One that is ending has removed its info, and is waited for.
    """
    lock = os.open(os.path.join(plan.directory, LOCK), os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + LOCK_WAIT
    while not try_lock(lock):
        if os.path.exists(plan.info) or time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def write_info(plan: Plan) -> None:
    """Say in the directory where its keeper listens: programs differ in $XDG_RUNTIME_DIR."""
    draft = plan.info + ".new"
    with open(draft, "w", encoding="utf-8") as file:
        json.dump({"version": VERSION, "runtime": plan.runtime, "keeper": os.getpid()}, file)
    os.replace(draft, plan.info)


def read_runtime(directory: str) -> str | None:
    """The runtime directory of the keeper of *directory*, dead or alive; None: never any."""
    try:
        with open(os.path.join(directory, INFO), encoding="utf-8") as file:
            runtime = json.load(file)["runtime"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return runtime if isinstance(runtime, str) else None


def open_log(plan: Plan) -> int:
    """The server's log, which takes our own last words as well."""
    with contextlib.suppress(FileNotFoundError):
        if os.path.getsize(plan.log) > LOG_LIMIT:
            os.replace(plan.log, plan.log + ".1")
    log = os.open(plan.log, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    return log


def sweep(root: str) -> None:
    """Remove temporary directories whose keeper was killed together with its user."""
    for name in os.listdir(root):
        path = os.path.join(root, name)
        if not name.startswith(TEMPORARY.format(os.geteuid())) or privacy(path):
            continue
        with contextlib.suppress(OSError):
            if time.time() - os.stat(path).st_mtime > SWEEP_AFTER and free(path):
                remove_tree(path)


def free(directory: str) -> bool:
    """Whether neither a keeper nor a server lives in *directory*."""
    for name in (LOCK, SERVER_LOCK):
        lock = os.open(os.path.join(directory, name), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if not try_lock(lock):
                return False
        finally:
            os.close(lock)
    return True


def clean(plan: Plan) -> None:
    """Remove what only a running server needs: for a temporary one, everything."""
    remove(plan.path(SERVER_SOCKET))
    if plan.temporary:
        remove_tree(plan.directory)
        return
    with contextlib.suppress(OSError):  # somebody put something there; it is in nobody's way
        os.rmdir(plan.runtime)


def remove_tree(directory: str) -> None:
    """Remove a directory with all that is in it, as far as that goes."""
    import shutil  # late: it takes half as long to import as all the rest

    shutil.rmtree(directory, ignore_errors=True)


def refusal(runtime: str, distrust: str) -> str:
    """What to say of a runtime directory that is not ours alone."""
    return (
        f"the sockets of the embedded server must be in a directory of user {os.geteuid()} that "
        f"nobody else may enter, but of {runtime!r} one has to say: {distrust}; remove it, or set "
        f"XDG_RUNTIME_DIR to a private directory. A data directory serves one user only"
    )


def line(state: str, **facts: object) -> str:
    """A line of the protocol."""
    return json.dumps({"version": VERSION, "state": state, **facts}) + "\n"


def failed(failure: Failure) -> str:
    """The line that ends everything."""
    return line("failed", kind=failure.kind, message=str(failure))


def tell(user: socket.socket, words: str) -> None:
    """Say something to a user; one that is gone or does not listen is no reason to wait."""
    with contextlib.suppress(OSError):
        user.send(words.encode())


def wake(*_: object) -> None:
    """Do nothing about a signal but let it end the wait."""


def touch(path: str) -> None:
    """Keep a cleaner of /tmp away."""
    with contextlib.suppress(OSError):
        os.utime(path)


if __name__ == "__main__":
    main(sys.argv[1:])
