"""URLs: where the streams are, as one value with errors that point.

Does        split, check and mask a URL; name every scheme that there is.
Does not    connect, resolve names, or read the environment.
Invariants  1. a password is never in `str`, `repr` or an error.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import msgspec

from penstock.errors import ConfigError

SCHEMES: Final = (
    "embedded",
    "memory",
    "redis",
    "rediss",
    "redis+unix",
    "redis+sentinel",
    "rediss+sentinel",
)
"""What `connect` takes today."""

LATER: Final = ("redis+cluster", "kafka", "file", "stdio")
"""Known, and not there yet: refused with that word, so that nobody looks for a typing error."""

_REDIS: Final = ("db", "user", "password", "client_name", "timeout")
_TLS: Final = ("ca", "cert", "key", "verify")
_SENTINEL: Final = ("sentinel_user", "sentinel_password")

_OPTIONS: Final[dict[str, tuple[str, ...]]] = {
    "embedded": ("temporary", "timeout"),
    "memory": (),
    "redis": _REDIS,
    "rediss": (*_REDIS, *_TLS),
    "redis+unix": _REDIS,
    "redis+sentinel": (*_REDIS, *_SENTINEL),
    "rediss+sentinel": (*_REDIS, *_SENTINEL, *_TLS),
}

SECRET: Final = ("password", "sentinel_password")
"""Options that are never shown."""

SENTINEL_PORT: Final = 26379

_ESCAPED: Final = "in a user or password write / ? # @ : % as %2F %3F %23 %40 %3A %25"


class Url(msgspec.Struct, frozen=True):
    """A URL, in parts. `path` is a name, a directory, a socket or a master's name, by scheme.

    `hosts` are those of sentinels, which may be several; `host` and `port` are empty then.
    """

    scheme: str
    host: str = ""
    port: int = 0
    path: str = ""
    user: str | None = None
    password: str | None = None
    options: dict[str, str] = {}
    hosts: tuple[tuple[str, int], ...] = ()

    def __str__(self) -> str:
        """The URL with its password masked."""
        login = "" if self.user is None and self.password is None else f"{self.user or ''}"
        if self.password is not None:
            login += ":***"
        place = ",".join(map(_place, self.hosts or ((self.host, self.port),)))
        query = "&".join(f"{k}={quote(v, safe='*/')}" if v else k for k, v in self._shown())
        at = f"{login}@" if login else ""
        return f"{self.scheme}://{at}{place}{self.path}" + (f"?{query}" if query else "")

    __repr__ = __str__

    def _shown(self) -> list[tuple[str, str]]:
        return [(k, "***" if k in SECRET else v) for k, v in self.options.items()]


def _place(at: tuple[str, int]) -> str:
    host, port = at
    return (f"[{host}]" if ":" in host else host) + (f":{port}" if port else "")


def parse_url(text: str) -> Url:
    """The parts of *text*.

    Raises:
        ConfigError: no text, no URL, an unknown scheme or option, a port or database that is no
            number.
    """
    if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        # Its type alone: bytes may hold a password.
        raise ConfigError(f"a URL must be text, got a value of type {type(text).__name__}")
    scheme, separator, _ = text.partition("://")
    if not separator:
        raise ConfigError(f"a URL must look like scheme://…, got {_masked(text)!r}; {_known()}")
    if scheme in LATER:
        raise ConfigError(f"{scheme}:// is not offered yet by this version; {_known()}")
    if scheme not in SCHEMES:
        given = _masked(scheme)
        raise ConfigError(f"a URL's scheme must be one that is known, got {given!r}; {_known()}")
    return _checked(text, scheme)


def _checked(text: str, scheme: str) -> Url:
    try:
        parts = urlsplit(text)
        hosts = _several(parts.netloc) if scheme.endswith("+sentinel") else ()
        port = None if hosts else parts.port
        host = "" if hosts else parts.hostname or ""
    except ValueError:  # its text may hold the password
        raise ConfigError(
            f"a URL's host and port must be a name and a number from 1 to 65535, "
            f"got {_masked(text)!r}; {_ESCAPED}"
        ) from None
    if "," in host and scheme in ("redis", "rediss"):
        raise ConfigError(
            f"{scheme}:// takes one server, got several in {_masked(text)!r}; "
            f"write {scheme}+sentinel:// for the sentinels of one"
        )
    if port == 0:
        raise ConfigError(f"a URL's port must be from 1 to 65535, got 0 in {_masked(text)!r}")
    if "#" in text or (scheme.startswith("redis") and scheme != "redis+unix" and "@" in parts.path):
        raise ConfigError(
            f"a URL must have no '#', and '@' only before its host, got {_masked(text)!r}; "
            f"{_ESCAPED}"
        )
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    for name in options:
        if name not in _OPTIONS[scheme]:
            offered = ", ".join(_OPTIONS[scheme]) or "none"
            given = "***" if "@" in parts.query else name  # may be half a password
            raise ConfigError(f"options of {scheme}:// are {offered}; got {given!r}; {_ESCAPED}")
    user = unquote(parts.username) if parts.username else options.get("user")
    password = unquote(parts.password) if parts.password else options.get("password")
    url = Url(scheme, host, port or 0, unquote(parts.path), user, password, options, hosts)
    return _by_scheme(url)


def _several(netloc: str) -> tuple[tuple[str, int], ...]:
    """Each ``host:port`` of a list with commas; raises ValueError as `urlsplit` does."""
    found: list[tuple[str, int]] = []
    for one in netloc.rpartition("@")[2].split(","):
        parts = urlsplit(f"//{one}")
        if not parts.hostname or parts.port == 0:
            raise ValueError
        found.append((parts.hostname, parts.port or SENTINEL_PORT))
    return tuple(found)


def _by_scheme(url: Url) -> Url:
    """What each scheme makes of host and path."""
    if url.scheme in ("redis", "rediss"):
        return msgspec.structs.replace(
            url, host=url.host or "localhost", port=url.port or 6379, options=_with_db(url)
        )
    if url.scheme.endswith("+sentinel"):
        return _with_master(url)
    if url.scheme == "redis+unix":
        if not url.path.strip("/"):
            raise ConfigError(
                "redis+unix:// must name a socket, as in redis+unix:///run/redis.sock"
            )
        return url
    if url.scheme == "memory":
        return msgspec.structs.replace(url, host="", path=(url.host + url.path).strip("/"))
    if url.host:
        raise ConfigError(
            f"embedded:// takes a directory with three slashes, got the host {url.host!r}; "
            f"write embedded:///{url.host}{url.path}, or embedded:// for your own"
        )
    return url


def _with_master(url: Url) -> Url:
    """The path is the master's name, and a database behind it if there is one."""
    name, _, number = url.path.strip("/").partition("/")
    if not name:
        raise ConfigError(
            f"{url.scheme}:// must name the master, as in {url.scheme}://host:26379/mymaster"
        )
    options = {**url.options, "db": number} if number else url.options
    check_database(options.get("db", "0"))
    return msgspec.structs.replace(url, path=f"/{name}", options=options)


def _with_db(url: Url) -> dict[str, str]:
    """The database may be the path, as in redis://host/2."""
    named = url.path.strip("/")
    options = dict(url.options)
    if named:
        options["db"] = named
    check_database(options.get("db", "0"))
    return options


def taken_by(scheme: str) -> tuple[str, ...]:
    """The options that URLs of *scheme* take, and `connect` as keywords."""
    return _OPTIONS[scheme]


def check_database(number: str) -> None:
    """Raise ConfigError if *number* is not that of a database."""
    if not (number.isascii() and number.isdigit()):
        raise ConfigError(
            f"a database must be a whole number, as in redis://host/2, got {number!r}"
        )


def _known() -> str:
    return "known are " + ", ".join(f"{scheme}://" for scheme in SCHEMES)


def _masked(text: str) -> str:
    """*text* without what may be a password, for errors about URLs that do not parse."""
    text = re.sub(r"((?:sentinel_)?password=)[^&]*", r"\1***", text)
    head, at, tail = text.rpartition("@")
    if not at:
        return re.sub(r"(://:)[^/]+", r"\1***", text)
    scheme, separator, login = head.partition("://")
    if not separator:
        return f"***@{tail}"
    return f"{scheme}://{login.partition(':')[0]}:***@{tail}"
