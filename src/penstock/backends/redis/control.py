"""The control road: redis-py, with its retries off.

Does        make the clients for `client.redis` and for the thread that beats.
Does not    carry events, or anything that the API itself asks: `link.py` does.
Invariants  1. redis-py is imported here, late: it takes about 180 ms.
            2. no retry of its own: it would double XADDs when a reply is lost.
"""

from __future__ import annotations

import asyncio
import importlib
import ssl
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    import redis
    import redis.asyncio

    from penstock.backends.redis.dialing import Address


class Tls(msgspec.Struct, frozen=True):
    """How TLS is spoken: files of PEM; `verify` False trusts any server, for tests alone."""

    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    verify: bool = True

    def context(self) -> ssl.SSLContext:
        """The context of the hot road: TLS 1.2 or newer, certificate and name checked."""
        context = ssl.create_default_context(cafile=self.ca)
        if self.cert:
            context.load_cert_chain(self.cert, self.key)
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def async_client(address: Address) -> redis.asyncio.Redis:
    """A redis-py client for asyncio: no retries, no read timeout."""
    import redis.asyncio
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    options: dict[str, Any] = {
        **_options(address),
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": None,
    }
    if address.sentinels is None:
        return redis.asyncio.Redis(**options)
    from redis.asyncio.sentinel import Sentinel

    hosts, login = list(address.sentinels.hosts), _sentinel_options(address, Retry(NoBackoff(), 0))
    sentinel: Any = Sentinel(hosts, sentinel_kwargs=login, **options)
    return sentinel.master_for(address.sentinels.master)


def sync_client(address: Address) -> redis.Redis:
    """A redis-py client for a thread: no retries; a read waits for the address's timeout."""
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    retry = Retry(NoBackoff(), 0)
    options: dict[str, Any] = {
        **_options(address),
        "retry": retry,
        "socket_timeout": address.timeout,
    }
    if address.sentinels is None:
        return redis.Redis(**options)
    from redis.sentinel import Sentinel

    hosts, login = list(address.sentinels.hosts), _sentinel_options(address, retry)
    sentinel: Any = Sentinel(hosts, sentinel_kwargs=login, **options)
    return sentinel.master_for(address.sentinels.master)


async def close_async(client: redis.asyncio.Redis) -> None:
    """Close a client of `async_client`, with its connections to sentinels; also if cancelled."""
    closing = asyncio.ensure_future(_close_all([client, *_sentinels_of(client)]))
    try:
        await asyncio.shield(closing)
    except asyncio.CancelledError:
        await asyncio.gather(asyncio.shield(closing), return_exceptions=True)  # bounded each
        raise


async def _close_all(clients: list[Any]) -> None:
    for client in clients:
        await client.aclose()


def close_sync(client: redis.Redis) -> None:
    """Close a client of `sync_client`, with its connections to sentinels."""
    client.close()
    for sentinel in _sentinels_of(client):
        sentinel.close()


def preload() -> None:
    """Import redis-py."""
    importlib.import_module("redis")


def _options(address: Address) -> dict[str, Any]:
    options: dict[str, Any] = {
        "username": address.user,
        "password": address.password,
        "db": address.db,
        "client_name": address.client_name,
        "protocol": 2,
        "socket_connect_timeout": address.timeout,
    }
    if address.path:
        return {**options, "unix_socket_path": address.path}
    options["socket_keepalive"] = True
    if address.sentinels is None:
        options.update(host=address.host, port=address.port)
    return {**options, **_tls_options(address.tls)}


def _sentinels_of(client: Any) -> list[Any]:
    """redis-py closes a client, and forgets those through which it found its master."""
    manager = getattr(client.connection_pool, "sentinel_manager", None)
    return [] if manager is None else list(manager.sentinels)


def _sentinel_options(address: Address, retry: Any) -> dict[str, Any]:
    assert address.sentinels is not None
    return {
        "username": address.sentinels.user,
        "password": address.sentinels.password,
        "protocol": 2,
        "retry": retry,
        "socket_connect_timeout": 1.0,
        "socket_timeout": 1.0,
        **_tls_options(address.tls),
    }


def _tls_options(tls: Tls | None) -> dict[str, Any]:
    if tls is None:
        return {}
    return {
        "ssl": True,
        "ssl_ca_certs": tls.ca,
        "ssl_certfile": tls.cert,
        "ssl_keyfile": tls.key,
        "ssl_cert_reqs": "required" if tls.verify else "none",
        "ssl_check_hostname": tls.verify,
    }
