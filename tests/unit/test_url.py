"""URLs: what they mean, what is refused, and that no password ever shows."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import penstock
from penstock import ConfigError
from penstock.url import LATER, SCHEMES, Url, parse_url

SECRET = "s3cret"

GOOD = {
    "redis://": ("localhost", 6379, "", {}),
    "redis://h": ("h", 6379, "", {}),
    "redis://h:7000/2": ("h", 7000, "/2", {"db": "2"}),
    "redis://h?db=3": ("h", 6379, "", {"db": "3"}),
    "redis://[::1]:7000": ("::1", 7000, "", {}),
    "rediss://h?ca=/etc/ca.pem&verify=no": ("h", 6379, "", {"ca": "/etc/ca.pem", "verify": "no"}),
    "redis+unix:///run/redis.sock?db=1": ("", 0, "/run/redis.sock", {"db": "1"}),
    "redis+unix:///run/a@b.sock": ("", 0, "/run/a@b.sock", {}),
    "embedded://": ("", 0, "", {}),
    "embedded:///srv/da%20ta": ("", 0, "/srv/da ta", {}),
    "embedded://?temporary": ("", 0, "", {"temporary": ""}),
    "memory://": ("", 0, "", {}),
    "memory://a/b": ("", 0, "a/b", {}),
    "redis://h?timeout=2.5&user=me": ("h", 6379, "", {"timeout": "2.5", "user": "me"}),
}

BAD = {
    "": "scheme://",
    "localhost:6379": "scheme://",
    "http://h": "'http'",
    "REDIS//h": "scheme://",
    "redis://h:port": "number from 1 to 65535",
    "redis://h:0": "from 1 to 65535",
    "redis://h:65536": "1 to 65535",
    "redis://[::1": "1 to 65535",
    "redis://a,b": "one server, got several",
    "redis://h/orders": "whole number.*'orders'",
    "redis://h/-1": "whole number",
    "redis://h?db=x": "whole number.*'x'",
    "redis://h/²": "whole number",
    "redis://h?colour=red": "options of redis:// are db.*'colour'",
    "memory://x?db=1": "options of memory:// are none.*'db'",
    "redis+unix://": "must name a socket",
    "embedded://srv/data": "embedded:///srv/data",
    "redis://h#1": "no '#'",
    "embedded:///a#b": "no '#'",
}


@pytest.mark.parametrize("text", GOOD)
@pytest.mark.conformance("SS-002")
def test_a_url_is_read(text: str) -> None:
    """Into host, port, path and options, with what each scheme adds."""
    url = parse_url(text)

    assert (url.host, url.port, url.path, url.options) == GOOD[text]
    assert url.scheme == text.partition("://")[0]


@pytest.mark.parametrize("text", BAD)
@pytest.mark.conformance("SS-002", "SS-068")
def test_a_wrong_url_is_refused_with_what_must_hold(text: str) -> None:
    """And with what was given."""
    with pytest.raises(ConfigError, match=BAD[text]):
        parse_url(text)


@pytest.mark.parametrize("scheme", LATER)
@pytest.mark.conformance("SS-068")
def test_a_scheme_that_is_to_come_is_refused_as_such(scheme: str) -> None:
    """So that nobody looks for a typing error; what there is is named."""
    with pytest.raises(ConfigError, match="not offered yet") as error:
        parse_url(f"{scheme}://h")
    assert all(f"{known}://" in str(error.value) for known in SCHEMES)


@pytest.mark.parametrize(
    ("text", "user", "password"),
    [
        ("redis://me:s3cret@h", "me", SECRET),
        ("redis://:s3cret@h", None, SECRET),
        ("redis://me@h", "me", None),
        ("redis://m%40e:s3%2Fcr%23t@h", "m@e", "s3/cr#t"),
        ("redis://h?user=me&password=s3cret", "me", SECRET),
        ("redis+unix:///s?password=s3cret", None, SECRET),
    ],
)
@pytest.mark.conformance("SS-065")
def test_a_login_is_read_and_never_shown(text: str, user: str | None, password: str | None) -> None:
    """Percent-encoded characters mean themselves."""
    url = parse_url(text)

    assert (url.user, url.password) == (user, password)
    for shown in (str(url), repr(url), f"{url}", repr([url])):
        assert password is None or password not in shown
        assert SECRET not in shown


@pytest.mark.parametrize(
    "text",
    [
        "redis://me:s3cret@h:port",
        "redis://me:s3cret@h:99999",
        "redis://me:s3cret@[::1",
        "redis://me:s3cret@h/x",
        "redis://me:s3cret@h?colour=1",
        "redis://h?password=s3cret&db=x",
        "redis://h:x?password=s3cret",
        "http://me:s3cret@h",
        "kafka://me:s3cret@h",
        "redis:/me:s3cret@h",
        "me:s3cret@h",
        "s3cret:x@redis://h",
        "embedded://me:s3cret@h",
        "redis+unix://me:s3cret@h",
        "redis://:s3cret",
        # A character that should have been percent-encoded:
        "redis://me:s3cret/x@h",
        "redis://me:s3cret#x@h",
        "redis://me:s3cret?x@h",
        "redis://me:12/s3cret@h",
        "redis://me:12#s3cret@h",
        "redis://me:12?s3cret@h",
        "redis://me:12?s3cret=1@h",
        "redis://me:s3cret@x@h:port",
        "redis://me:s3cret\u2100@h",
    ],
)
def test_a_url_that_does_not_parse_shows_no_password(text: str) -> None:
    """Neither in the error, nor in the errors behind it."""
    with pytest.raises(ConfigError) as error:
        parse_url(text)

    told: BaseException | None = error.value
    while told is not None:
        assert SECRET not in str(told)
        told = told.__cause__


@given(st.text(min_size=1), st.sampled_from(["redis://me:{}@h:port", "redis:/me:{}@h", "{}@h"]))
def test_whatever_the_password_is_it_does_not_show(password: str, form: str) -> None:
    """A marker that stands in any password stands in no error."""
    with pytest.raises(ConfigError) as error:
        parse_url(form.format(f"<{SECRET}>{password}"))
    assert SECRET not in str(error.value)


@given(
    st.builds(
        Url,
        scheme=st.just("redis"),
        host=st.sampled_from(["h", "::1", "a.b"]),
        port=st.integers(1, 65535),
        options=st.dictionaries(st.sampled_from(["user", "client_name"]), st.text(min_size=1)),
    )
)
def test_the_text_of_a_url_means_the_same_url(url: Url) -> None:
    """What logs show can be pasted."""
    url = msgspec.structs.replace(url, user=url.options.get("user"))
    again = parse_url(str(msgspec.structs.replace(url, user=None)))

    assert again == url


@pytest.mark.parametrize("db", [-1, 1.5])
def test_a_database_by_keyword_is_checked_like_one_in_the_url(db: int) -> None:
    """Before anything is connected."""
    with pytest.raises(ConfigError, match="whole number"):
        penstock.connect("redis://h", db=db)


def test_keywords_win_over_the_url_and_the_password_stays_hidden() -> None:
    """What is given nearest counts."""
    client = penstock.connect("redis://a:b@h/1", user="me", password=SECRET, db=3, timeout=2)

    assert (client.url.user, client.url.password) == ("me", SECRET)
    assert (client.url.options["db"], client.url.options["timeout"]) == ("3", "2")
    assert SECRET not in repr(client)
    assert SECRET not in repr(client.url)


@pytest.mark.parametrize("url", ["memory://", "embedded://"])
def test_what_a_scheme_does_not_take_is_refused(url: str) -> None:
    """By its name, never its content."""
    with pytest.raises(ConfigError, match="takes no password") as error:
        penstock.connect(url, password=SECRET)
    assert SECRET not in str(error.value)


def test_without_a_url_the_error_names_the_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The argument, the variable, and a server of one's own."""
    monkeypatch.delenv("PENSTOCK_URL", raising=False)
    with pytest.raises(ConfigError, match=r"connect\(url\).*PENSTOCK_URL.*embedded://"):
        penstock.connect()

    monkeypatch.setenv("PENSTOCK_URL", "memory://from-the-environment")
    assert penstock.connect().url.path == "from-the-environment"


@pytest.mark.parametrize("given", [b"redis://:s3cret@h", 6379, object()])
def test_what_is_no_text_is_refused_unseen(given: object) -> None:
    """An App takes a URL, not a client; and bytes may hold a password."""
    with pytest.raises(
        ConfigError, match=f"must be text, got a value of type {type(given).__name__}"
    ) as refusal:
        penstock.App(given)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert SECRET not in str(refusal.value)
