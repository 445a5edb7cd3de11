"""The durability class: what is not known counts as the weaker."""

from __future__ import annotations

import pytest

from penstock.rules.durability import LOSES, durability, fsync_counts


@pytest.mark.parametrize(
    ("aof", "fsync", "expected"),
    [
        ("0", "always", "volatile"),
        (None, None, "volatile"),
        ("1", None, "crash-safe"),
        ("1", "no", "crash-safe"),
        ("1", "everysec", "crash-safe"),
        ("1", "always", "power-safe"),
        (1, "always", "power-safe"),
    ],
)
def test_the_class_of_a_server(aof: object, fsync: str | None, expected: str) -> None:
    info = {} if aof is None else {"aof_enabled": aof}
    config = {} if fsync is None else {"appendfsync": fsync}
    assert durability(info, config) == expected
    assert expected in LOSES


@pytest.mark.parametrize(
    ("server", "fsync", "expected"),
    [
        ({"redis_version": "7.0.15"}, "everysec", False),
        ({"redis_version": "7.0.15"}, "always", True),
        ({"redis_version": "7.2.0"}, "everysec", True),
        ({"redis_version": "7.4.0"}, "everysec", False),
        ({"redis_version": "7.4.2"}, "everysec", False),
        ({"redis_version": "7.4.3"}, "everysec", True),
        ({"redis_version": "8.6.3"}, "everysec", True),
        ({"redis_version": "7.2.4", "valkey_version": "9.1.2"}, "everysec", False),
        ({"redis_version": "7.2.4", "valkey_version": "9.1.2"}, "always", True),
        ({}, "everysec", False),
    ],
)
def test_whether_a_confirmed_fsync_counts(
    server: dict[str, str], fsync: str, expected: bool
) -> None:
    assert fsync_counts({**server, "aof_enabled": "1"}, {"appendfsync": fsync}) is expected
    assert not fsync_counts({**server, "aof_enabled": "0"}, {"appendfsync": fsync})
