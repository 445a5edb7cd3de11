"""Which shard a key belongs to: the same for ever, so numbers are fixed here."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.rules.partition import HASH, shard_of

KNOWN = {"": 0, "a": 3, "customer-3": 1, "customer-4": 2, "Grüße": 1, "\udcff": 0, "123456789": 6}


@pytest.mark.conformance("SS-017")
def test_keys_stay_where_they_were_in_every_release() -> None:
    """A change here moves every key of every stream: it must not happen."""
    assert {key: shard_of(key, 8) for key in KNOWN} == KNOWN
    assert shard_of("123456789", 1 << 32) == 0xCBF43926  # the check value of CRC-32
    assert HASH == "crc32"


def test_keys_are_the_same_in_every_process() -> None:
    """Python's own hash differs from one to the next."""
    code = "from penstock.rules.partition import shard_of; print(shard_of('customer-3', 1000003))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    assert int(done.stdout) == shard_of("customer-3", 1000003)


@given(st.binary(), st.integers(1, 1000))
def test_bytes_and_their_text_are_one_key(raw: bytes, shards: int) -> None:
    """Keys come out of a stream as text, whatever their bytes were."""
    shard = shard_of(raw, shards)

    assert 0 <= shard < shards
    assert shard_of(raw.decode("utf-8", "surrogateescape"), shards) == shard


def test_keys_spread_evenly() -> None:
    """No shard gets half again as much as its share."""
    counts = Counter(shard_of(f"customer-{n}", 8) for n in range(8000))
    assert all(900 < counts[shard] < 1100 for shard in range(8)), counts
