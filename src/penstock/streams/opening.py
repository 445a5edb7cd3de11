"""Opening: from a URL to a backend that is connected.

Does        choose the backend by the URL's scheme, open it, and close it with all that it needed.
Does not    read URLs (`url.py`).
Invariants  1. a backend is imported when it is used: memory needs no Redis client.
            2. what was opened by half is closed again.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from msgspec.structs import replace

from penstock.clock import Clock
from penstock.errors import ConfigError
from penstock.observers import Observers
from penstock.ports import Confirm
from penstock.url import Url, check_database, taken_by

if TYPE_CHECKING:
    from penstock.backends.embedded import EmbeddedServer


class Limits(NamedTuple):
    """What a client allows of an event, and what its appends wait for."""

    max_event_bytes: int
    confirm: Confirm


class Closable(Protocol):
    """What a client closes before itself."""

    @property
    def open_streams(self) -> Iterable[str]:
        """The names of the streams that it works on; none once it is closed."""
        ...

    async def on_shards(self, stream: str, count: int) -> None:
        """A stream that it works on has so many shards now; called at every look."""
        ...

    async def aclose(self) -> None:
        """Close."""
        ...


class Opened:
    """A backend, and what stands behind it. Made by `open_backend`."""

    def __init__(
        self, backend: Any, *, server: EmbeddedServer | None = None, own: str = ""
    ) -> None:
        self.backend = backend
        self._server = server
        self._own_memory = own

    async def aclose(self) -> None:
        """Close the backend; let an embedded server go; drop a memory that had no name."""
        try:
            await self.backend.aclose()
        finally:
            if self._server is not None:
                await self._server.aclose()
        if self._own_memory:
            from penstock.backends.memory import forget

            forget(self._own_memory)


async def open_backend(
    url: Url, clock: Clock, observers: Observers, confirm: Confirm = "server"
) -> Opened:
    """Connect to where *url* says.

    Raises:
        BackendUnavailable: nothing answers within the timeout.
        BackendRejected: wrong credentials, or a server that is too old.
        ConfigError: something is not installed, or an option is out of range.
    """
    opened = await _open(url, clock, observers)
    try:
        await opened.backend.confirms(confirm)
    except BaseException:
        await opened.aclose()
        raise
    return opened


async def _open(url: Url, clock: Clock, observers: Observers) -> Opened:
    if url.scheme == "memory":
        return _open_memory(url, clock, observers)
    if url.scheme == "embedded":
        return await _open_embedded(url, clock, observers)
    return Opened(await _open_redis(url, "", clock, observers))


def with_options(url: Url, given: dict[str, str]) -> Url:
    """*url* with the keywords of `connect`, which win.

    Raises:
        ConfigError: an option that this scheme does not take.
    """
    if wrong := set(given) - set(taken_by(url.scheme)):
        raise ConfigError(f"{url.scheme}:// takes no {', '.join(sorted(wrong))}")
    check_database(given.get("db", "0"))
    return replace(
        url,
        user=given.get("user", url.user),
        password=given.get("password", url.password),
        options={**url.options, **{k: v for k, v in given.items() if k != "password"}},
    )


def _open_memory(url: Url, clock: Clock, observers: Observers) -> Opened:
    from penstock.backends.memory import MemoryBackend

    own = "" if url.path else f"@{secrets.token_hex(8)}"
    backend = MemoryBackend(url.path or own, clock=clock, observers=observers)
    return Opened(backend, own=own)


async def _open_embedded(url: Url, clock: Clock, observers: Observers) -> Opened:
    from penstock.backends.embedded import EmbeddedServer

    directory = Path(url.path) if url.path.strip("/") else None
    temporary = "temporary" in url.options
    timeout = _seconds(url.options.get("timeout", "10"))
    server = await EmbeddedServer.open(directory, temporary=temporary, timeout=timeout)
    try:
        backend = await _open_redis(url, str(server.socket), clock, observers)
    except BaseException:
        await server.aclose()
        raise
    return Opened(backend, server=server)


async def _open_redis(url: Url, path: str, clock: Clock, observers: Observers) -> Any:
    from penstock.backends.redis.log import RedisBackend

    backend = RedisBackend(_address(url, path), clock=clock, observers=observers)
    try:
        await backend.open()
    except BaseException:
        await backend.aclose()
        raise
    return backend


def _address(url: Url, path: str) -> Any:
    from penstock.backends.redis.dialing import Address

    options = url.options
    return Address(
        host=url.host,
        port=url.port,
        path=path or (url.path if url.scheme == "redis+unix" else ""),
        user=url.user,
        password=url.password,
        db=int(options.get("db", "0")),
        client_name=options.get("client_name", "penstock"),
        timeout=_seconds(options.get("timeout", "5")),
        tls=_tls(options) if url.scheme.startswith("rediss") else None,
        sentinels=_sentinels(url) if url.hosts else None,
    )


def _sentinels(url: Url) -> Any:
    from penstock.backends.redis.dialing import Sentinels

    user, password = url.options.get("sentinel_user"), url.options.get("sentinel_password")
    return Sentinels(url.hosts, url.path.strip("/"), user, password)


def _tls(options: dict[str, str]) -> Any:
    """How TLS is spoken; read now, so that a wrong file is told before anything is started."""
    from penstock.backends.redis.control import Tls

    verify = options.get("verify", "yes")
    if verify not in ("yes", "no", "true", "false", "1", "0"):
        raise ConfigError(f"verify must be yes or no, got {verify!r}")
    tls = Tls(
        options.get("ca"),
        options.get("cert"),
        options.get("key"),
        verify in ("yes", "true", "1"),
    )
    try:
        tls.context()
    except OSError as error:  # ssl's own errors are ones too
        named = ", ".join(f"{k}={options[k]}" for k in ("ca", "cert", "key") if k in options)
        raise ConfigError(
            f"ca, cert and key must be files of PEM that fit each other, got {named}: {error}"
        ) from error
    return tls


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 86_400:
        raise ConfigError(f"timeout must be a number of seconds above 0, got {text!r}")
    return seconds
