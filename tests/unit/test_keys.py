"""Names on Redis: whatever streams and groups are called, no two things share a key."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from penstock.backends.redis.keys import Keys, hash_tag

PIECES = st.sampled_from(
    [*"ab0:@%{}/.", "{t}", "meta", "beats@", "parked:", "dead", "replay@", "ids.0", "%3A", "%25"]
)
NAMES = st.lists(PIECES, min_size=1, max_size=6).map("".join) | st.text(min_size=1, max_size=8)
"""Any key that others made, and any group: ours are some of these."""

Read = tuple[str, str, str | None]


def read(name: str) -> Read:
    """Whose key it is, what for, and of which group or session."""
    _, _, rest = name.removeprefix("penstock:{").partition("}:")
    key, _, what = rest.rpartition(":")
    kind, at, whose = what.partition("@")
    return key, kind, whose.replace("%3A", ":").replace("%25", "%") if at else None


def made(keys: Keys, group: str) -> dict[str, Read]:
    """Every key of a stream, its replayed events aside, and how it must be read."""
    key = keys.stream
    of_stream = [
        "meta",
        "positions",
        "ids",
        "ids.0",
        "ids.1",
        "delayed",
        "waiting",
        "lock",
        "trimmed",
    ]
    of_group = ["beats", "parked", "attempts", "mark", "share", "roster", "dead"]
    return {
        **dict(zip(keys.kept, [(key, kind, None) for kind in of_stream], strict=True)),
        **dict(zip(keys.of_group(group), [(key, kind, group) for kind in of_group], strict=False)),
        keys.replay(group): (key, "replay", group),
        keys.session(group): (key, "w", group),
    }


@given(NAMES, NAMES)
@example("{t}:a", "b:meta")
@example("{t}:a:parked:b", "b")
@example("a{", "g")
@example("a}:b", "c}:d")
def test_a_key_says_whose_it_is_so_no_two_things_share_one(key: str, group: str) -> None:
    for keys in (Keys(key), Keys(Keys(key).replay(group))):
        all_of_it = made(keys, group)
        assert len(all_of_it) == 18
        assert {name: read(name) for name in all_of_it} == all_of_it


@given(st.from_regex(r"(\{[a-z.:]{1,5}\})?[a-z.:]{1,8}", fullmatch=True), NAMES)
def test_all_that_is_kept_beside_a_stream_is_in_its_slot(key: str, group: str) -> None:
    keys = Keys(key)
    of_group = keys.of_group(group)
    assert {hash_tag(name) for name in [*keys.kept, *of_group]} == {hash_tag(key)}


def test_keys_can_be_read() -> None:
    keys = Keys("orders")
    assert keys.meta == "penstock:{orders}:orders:meta"
    assert keys.letters("billing") == "penstock:{orders}:orders:dead@billing"
    assert keys.letters("eu:billing") == "penstock:{orders}:orders:dead@eu%3Abilling"
