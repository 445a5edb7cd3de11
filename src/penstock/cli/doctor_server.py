"""The doctor's checks of a server: settings that lose events, or stop work.

Does        judge what INFO, CONFIG GET and CLIENT LIST say, each under a name of its own.
Does not    ask, or know streams (`doctor_streams`).
Invariants  1. a check that has nothing to complain of is silent, but for the few that describe.
Source      reliability notes 1.1, 1.2, 1.7, 1.12, 5.3.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from penstock.cli.facts import Facts
from penstock.cli.findings import Finding
from penstock.rules.durability import LOSES, fsync_counts

REPLY_LIMIT: Final = 64 << 20
"""Bytes that a reply may have by default: pages are sized to stay below this."""

PATCHED: Final = ((7, 2, 6), (7, 4, 3), (8, 0, 0))
"""Releases of Redis before which data or safety is at stake; the first of each line."""

_MIB: Final = 1 << 20


def of_server(found: Facts) -> Iterator[Finding]:
    """Everything about the server as a whole."""
    info, config = found.info, found.config
    yield Finding("ok", "server", "", f"{found.version}, {info.get('role', 'role unknown')}")
    if not config:
        text = "CONFIG GET is refused: timeouts, buffers and fsync are not looked at"
        yield Finding("warn", "rights", "config", text)
    yield _durability(found)
    yield from _memory(info)
    yield from _role(info, config)
    yield from _age(info)
    yield from _saving(info)
    yield from _connections(config)


def of_clients(clients: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    """Connections that wait without an end."""
    endless = [
        one
        for one in clients
        if str(one.get("cmd")) in ("xreadgroup", "xread")
        and "b" in str(one.get("flags", ""))
        and float(one.get("idle", 0)) > 60
    ]
    if endless:
        text = (
            f"{len(endless)} connections wait in XREAD or XREADGROUP for more than 60 s at a time: "
            f"one that is dead is not noticed, and the server may still give it entries; "
            f"use a BLOCK of a few seconds"
        )
        yield Finding("warn", "endless-block", "", text)


def readers_waiting(clients: Sequence[Mapping[str, Any]]) -> int:
    """How many connections wait in XREADGROUP."""
    return sum(
        str(one.get("cmd")) == "xreadgroup" and "b" in str(one.get("flags", "")) for one in clients
    )


def _durability(found: Facts) -> Finding:
    kind = found.durability
    text = f"{kind}: {LOSES[kind]}"
    if kind == "volatile":
        text += "; set appendonly yes (embedded:// has it set)"
        return Finding("warn", "durability", "appendonly", text)
    if kind == "crash-safe" and not fsync_counts(found.info, found.config):
        text += "; here only appendfsync always makes a confirmed fsync one"
    return Finding("ok", "durability", "", text)


def _memory(info: Mapping[str, Any]) -> Iterator[Finding]:
    limit = int(info.get("maxmemory", 0))
    policy = str(info.get("maxmemory_policy", "unknown"))
    used = int(info.get("used_memory", 0))
    shown = f"{used / _MIB:.1f} MiB used"
    if policy.startswith("allkeys"):
        text = (
            f"{policy}: whole streams with their groups are evicted when memory is short"
            f"{'' if limit else ' (no maxmemory yet)'}; set maxmemory-policy noeviction"
        )
        yield Finding("bad" if limit else "warn", "eviction-policy", policy, text)
    elif policy.startswith("volatile") and limit:
        text = f"{policy}: sessions of writers may be evicted; set maxmemory-policy noeviction"
        yield Finding("warn", "eviction-policy", policy, text)
    if limit and used > 0.8 * limit:
        text = (
            f"{shown} of {limit / _MIB:.1f} MiB: at the limit appends are refused (OOM); "
            f"trim streams, or raise maxmemory"
        )
        yield Finding("bad" if used > 0.95 * limit else "warn", "memory-near-limit", "", text)
    if not policy.startswith("allkeys"):
        of = f" of {limit / _MIB:.1f} MiB" if limit else ", no maxmemory"
        yield Finding("ok", "memory", "", f"{shown}{of}, policy {policy}")


def _role(info: Mapping[str, Any], config: Mapping[str, str]) -> Iterator[Finding]:
    replicas = int(info.get("connected_slaves", 0))
    if info.get("role") == "slave":
        text = "this is a replica, which cannot be appended to: use its master, or its sentinels"
        yield Finding("bad", "replica", str(info.get("master_host", "")), text)
    elif replicas and str(info.get("aof_enabled", "0")) != "1" and not config.get("save", "x"):
        text = (
            f"a master without persistence, with {replicas} replicas: when it is restarted it is "
            f"empty, and empties them; set appendonly yes, or never restart it by itself"
        )
        yield Finding("bad", "volatile-master", "", text)
    wanted = int(config.get("min-replicas-to-write", 0) or 0)
    good = int(info.get("min_slaves_good_slaves", replicas))
    if wanted > good:
        text = (
            f"min-replicas-to-write is {wanted}, and {good} are good: appends, acks and group "
            f"reads are refused (NOREPLICAS)"
        )
        yield Finding("bad", "replicas-missing", "min-replicas-to-write", text)


def _age(info: Mapping[str, Any]) -> Iterator[Finding]:
    if "valkey_version" in info:
        return
    numbers = str(info.get("redis_version", "0")).split(".")
    version = tuple(int(part) if part.isdigit() else 0 for part in (*numbers, "0", "0")[:3])
    floor = next((one for one in PATCHED if one[:2] == version[:2]), PATCHED[0])
    if version < floor:
        text = (
            f"Redis {'.'.join(numbers)} is out of support, or has faults in streams and scripts "
            f"that later releases of its line have not; {'.'.join(map(str, floor))} or newer"
        )
        yield Finding("warn", "old-server", "", text)


def _saving(info: Mapping[str, Any]) -> Iterator[Finding]:
    for field, about in (
        ("aof_last_write_status", "the append-only file"),
        ("aof_last_bgrewrite_status", "the rewrite of the append-only file"),
        ("rdb_last_bgsave_status", "the snapshot"),
    ):
        if str(info.get(field, "ok")) != "ok":
            text = f"{about} could not be written: appends and acks may be refused (MISCONF)"
            yield Finding("bad", "persistence-failing", field, text)


def _connections(config: Mapping[str, str]) -> Iterator[Finding]:
    timeout = int(config.get("timeout", 0) or 0)
    if timeout:
        text = (
            f"the server ends connections that are silent for {timeout} s: clients that wait "
            f"between reads lose theirs; set timeout 0 and tcp-keepalive 60"
        )
        yield Finding("warn", "client-timeout", "timeout", text)
    if config.get("tcp-keepalive", "300") == "0":
        text = "tcp-keepalive is 0: a dead connection that waits for entries is never noticed"
        yield Finding("warn", "no-keepalive", "tcp-keepalive", text)
    words = config.get("client-output-buffer-limit", "").split()
    if "normal" in words:
        at = words.index("normal")
        small = [int(word) for word in words[at + 1 : at + 3] if 0 < int(word) < REPLY_LIMIT]
        if small:
            text = (
                f"connections with an answer over {min(small) / _MIB:.1f} MiB are ended, after "
                f"its entries were given to the consumer; set the limit of normal clients to 0"
            )
            yield Finding("warn", "output-buffer-limit", "client-output-buffer-limit", text)
