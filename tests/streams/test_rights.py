"""Each role does all that it can do with exactly its rights, and uses each of them."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest
import redis

from penstock import BackendRejected, connect
from streams.helping import soon
from support.rights import DOCTOR, EVERYONE, OPTIONAL, ROLES, STREAM, page
from support.servers import Server

pytestmark = pytest.mark.one_loop

DOCS = Path(__file__).parent.parent.parent / "docs"


def _as_role(server: Server, rules: list[str]) -> str:
    """The URL of a user with these rights."""
    with redis.Redis.from_url(server.url) as admin:
        admin.execute_command("ACL", "DELUSER", "role")
        admin.execute_command("ACL", "SETUSER", "role", "on", ">pw", *rules)
        admin.execute_command("ACL", "LOG", "RESET")
    return server.url.replace("://", "://role:pw@")


def _denied(url: str) -> set[str]:
    """What the server refused, by its own log."""
    with redis.Redis.from_url(url, decode_responses=True) as admin:
        return {str(one["object"]) for one in admin.acl_log()}


async def _prepared(server: Server, role: str) -> None:
    """What comes before a role's turn."""
    server.flush()
    if role != "appender":
        async with connect(server.url) as client:
            await ROLES["appender"].scenario(client)
            if role == "administrator":
                await client.redis.xgroup_create(STREAM, "billing", "0")
                await client.redis.xreadgroup("billing", "gone", {STREAM: ">"}, count=2)


@pytest.mark.parametrize("server_name", ["embedded_server", "redis7_server"])
@pytest.mark.parametrize("role", ROLES)
async def test_a_role_works_with_its_rights_alone(
    role: str, server_name: str, request: pytest.FixtureRequest
) -> None:
    server: Server = request.getfixturevalue(server_name)
    await _prepared(server, role)
    url = _as_role(server, ROLES[role].rules())
    async with connect(url) as client:
        await ROLES[role].scenario(client)
    assert _denied(server.url) <= set(OPTIONAL), "nothing else was tried in vain"


@pytest.mark.parametrize("role", ROLES)
async def test_each_right_is_used(role: str, embedded_server: Server) -> None:
    """Without one of what it sends by itself, the server refuses just that."""
    await _prepared(embedded_server, role)
    missing: list[str] = []
    for right in sorted({*EVERYONE, *ROLES[role].direct} - {"hgetall", "xrevrange"}):
        url = _as_role(embedded_server, ROLES[role].rules(without=right))
        task = asyncio.create_task(_run(url, role))
        try:
            await soon(
                lambda right=right, task=task: right in _denied(embedded_server.url) or task.done(),
                f"{role} without {right}",
            )
            assert right in _denied(embedded_server.url), f"{role} does not use {right}"
        except AssertionError as error:
            missing.append(str(error))
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if role == "administrator":  # it may have destroyed everything
            await _prepared(embedded_server, role)
    assert not missing


async def _run(url: str, role: str) -> None:
    with contextlib.suppress(AssertionError, TimeoutError, BackendRejected):
        async with connect(url, observer=lambda _: None) as client:
            await ROLES[role].scenario(client)


@pytest.mark.parametrize("server_name", ["embedded_server", "redis7_server"])
async def test_without_scripts(server_name: str, request: pytest.FixtureRequest) -> None:
    """Bare appends and reading go on; whatever needs a script says so."""
    server: Server = request.getfixturevalue(server_name)
    server.flush()
    url = _as_role(server, [f"~{STREAM}", f"~penstock:{{{STREAM}}}:*", "+@all", "-@scripting"])
    async with connect(url) as client:
        stream = client.stream(STREAM)
        with pytest.raises(BackendRejected, match=r"NOPERM.*(evalsha|script)"):
            await stream.append({"n": 1})
        async with stream.writer(idempotent=False) as writer:
            await writer.send({"n": 1})
        assert await stream.length() == 1
        assert len(await stream.read_range(limit=5)) == 1
        with pytest.raises(BackendRejected, match="NOPERM"):
            async with stream.group("billing"):
                pass


def test_the_doctor_needs_no_more_than_it_says(embedded_server: Server) -> None:
    from cli.shell import Shell

    with redis.Redis.from_url(embedded_server.url) as client:
        client.xadd(STREAM, {"n": 1})
        client.xgroup_create(STREAM, "g", "0")
    url = _as_role(embedded_server, ["resetkeys", "%R~*", "-@all", *(f"+{one}" for one in DOCTOR)])
    done = Shell(url)("doctor", "--json")
    assert done.code == 0
    assert b"rights" not in done.out
    assert b"no-consumers" in done.out
    assert _denied(embedded_server.url) <= set(OPTIONAL)


def test_the_page_is_the_table() -> None:
    assert (DOCS / "rights.md").read_text() == page(), (
        "python tests/support/rights.py > docs/rights.md"
    )
