"""The control road: redis-py, with its retries off.

Does        make the clients for `client.redis` and for the thread that beats.
Does not    carry events, or anything that the API itself asks: `link.py` does.
Invariants  1. redis-py is imported here, late: it takes about 180 ms.
            2. no retry of its own: it would double XADDs when a reply is lost.
"""

from __future__ import annotations

import importlib
import ssl
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    import redis
    import redis.asyncio

    from penstock.backends.redis.link import Address


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

    return redis.asyncio.Redis(
        **_options(address), retry=Retry(NoBackoff(), 0), socket_timeout=None
    )


def sync_client(address: Address) -> redis.Redis:
    """A redis-py client for a thread: no retries; a read waits for the address's timeout."""
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    return redis.Redis(
        **_options(address), retry=Retry(NoBackoff(), 0), socket_timeout=address.timeout
    )


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
    options.update(host=address.host, port=address.port, socket_keepalive=True)
    if address.tls is not None:
        options.update(
            ssl=True,
            ssl_ca_certs=address.tls.ca,
            ssl_certfile=address.tls.cert,
            ssl_keyfile=address.tls.key,
            ssl_cert_reqs="required" if address.tls.verify else "none",
            ssl_check_hostname=address.tls.verify,
        )
    return options
