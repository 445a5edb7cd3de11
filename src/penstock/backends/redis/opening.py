"""Opening: a stream's marks, and the session that appends to it.

Does        run the script that checks the key, adopts or writes the marks, and makes a session.
Does not    append. The caller decides what to do with a session that is gone.
"""

from __future__ import annotations

from penstock.backends.redis.keys import VERSION, Keys
from penstock.backends.redis.link import Link
from penstock.backends.redis.scripts import OPEN
from penstock.errors import ConfigError
from penstock.ports import AppendOptions, Marks


async def open_session(  # noqa: PLR0917 - one caller's state
    link: Link, keys: Keys, marks: Marks, options: AppendOptions, session: str, ttl: int
) -> bool:
    """See that the stream can be appended to as *marks* say; whether it is marked (not foreign).

    *ttl*: milliseconds that a new session lives on; 0: make none.

    Raises:
        ConfigError: the stream has other marks, or those of a newer version.
        BackendError: wrong type of key, no rights, not reachable.
    """
    reply = await link.run(
        OPEN,
        [keys.stream, keys.meta, keys.session(session)],
        VERSION,
        marks.layout,
        marks.codec,
        marks.shards,
        int(options.foreign),
        int(options.only_if_exists),
        ttl,
        verb="append to",
        key=keys.stream,
    )
    status, *about = (part.decode() if isinstance(part, bytes) else part for part in reply)
    if status == "open":
        return bool(about[0])
    raise ConfigError(_refusal(keys.stream, status, about, marks))


def _refusal(stream: str, status: str, about: list[str], marks: Marks) -> str:
    wanted = f"layout {marks.layout!r}, codec {marks.codec!r}, shards {marks.shards}"
    if status == "newer":
        return (
            f"stream {stream!r} was made by a newer Penstock (format {about[0]}), "
            f"this one knows format {VERSION}; update it"
        )
    if status == "unmarked":
        return (
            f"stream {stream!r} was made by others, so its layout must be 'fields', this handle "
            f"asks for {wanted}; open it without type, layout or codec"
        )
    layout, codec, shards = about
    return (
        f"stream {stream!r} has layout {layout!r}, codec {codec!r}, shards {shards}; "
        f"this handle asks for {wanted}; leave those options out to adopt what is stored"
    )
