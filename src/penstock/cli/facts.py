"""Facts: what a server says about itself, and what that means for streams.

Does        ask a Redis or Valkey, as far as we have the right to; name its durability class.
Does not    judge: `doctor` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple, cast

from penstock import BackendError, Client, ConfigError
from penstock.rules.durability import Durability, durability

ASKED: Final = (
    "appendfsync",
    "client-output-buffer-limit",
    "maxmemory",
    "maxmemory-policy",
    "min-replicas-to-write",
    "save",
    "tcp-keepalive",
    "timeout",
)
"""Settings that matter to streams."""


class Facts(NamedTuple):
    """A server: its replies to INFO, and what CONFIG GET says where that is allowed."""

    info: Mapping[str, Any]
    config: Mapping[str, str]

    @property
    def version(self) -> str:
        """Its name and version, e.g. ``"Valkey 9.1.2"``."""
        if "valkey_version" in self.info:
            return f"Valkey {self.info['valkey_version']}"
        return f"Redis {self.info.get('redis_version', 'of an unknown version')}"

    @property
    def durability(self) -> Durability:
        """What survives: ``volatile``, ``crash-safe`` or ``power-safe``."""
        return durability(self.info, self.config)


async def ask(client: Client) -> Facts | None:
    """The facts about the client's server; None where there is none, as for memory://.

    Raises:
        BackendError: no right to ask, or not reachable any more.
    """
    try:
        redis: Any = client.redis
    except ConfigError:
        return None
    try:
        info = cast("Mapping[str, Any]", await redis.info())
    except Exception as error:  # redis-py's own, which only the backend may know by name
        text = f"the server at {client.url} must answer INFO, but: {error}"
        raise BackendError(text, backend="redis", verb="describe") from error
    return Facts(info, await _config(redis))


def about(facts: Facts | None, client: Client) -> dict[str, Any]:
    """The server in a few words, for people."""
    if facts is None:
        return {"url": str(client.url), "server": "none, in this process", "durability": "volatile"}
    return {
        "url": str(client.url),
        "server": facts.version,
        "durability": facts.durability,
    }


async def _config(redis: Any) -> Mapping[str, str]:
    try:
        return await redis.config_get(*ASKED)
    except Exception:  # noqa: BLE001 - redis-py's own; often forbidden: then we say less
        return {}
