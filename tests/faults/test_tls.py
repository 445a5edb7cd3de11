"""TLS: verified by default, with certificates of one's own, and errors that say what to mend."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from faults.machinery import GROUP, STREAM
from faults.nodes import Node
from penstock import BackendUnavailable, ConfigError, connect
from support.servers import MissingServerError, redis_binary

pytestmark = pytest.mark.one_loop

_EXTENSIONS = "subjectAltName=DNS:localhost,IP:127.0.0.1"


class Authority:
    """An authority, and what it signs; made by the command `openssl`."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self.ca, self._key = folder / f"{name}.pem", folder / f"{name}.key"
        _openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-keyout", self._key, "-out", self.ca, "-days", "2", "-subj", f"/CN={name}"),
        )

    def sign(
        self, name: str, *, days: int = 2, alternatives: str = _EXTENSIONS
    ) -> tuple[Path, Path]:
        """A certificate and its key; with *days* below 0 one that is over."""
        cert, key = self._folder / f"{name}.crt", self._folder / f"{name}.key"
        request, extra = self._folder / f"{name}.csr", self._folder / f"{name}.ext"
        extra.write_text(alternatives + "\n")
        _openssl(
            *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-keyout", key, "-out", request, "-subj", f"/CN={name}"),
        )
        _openssl(
            *("x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", self._key),
            *("-CAcreateserial", "-out", cert, "-days", days, "-extfile", extra),
        )
        return cert, key


def _openssl(*words: object) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where certificates and servers are."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl on PATH: install the package openssl")
    try:
        redis_binary()
    except MissingServerError as missing:
        pytest.skip(str(missing))
    return tmp_path_factory.mktemp("tls")


@pytest.fixture(scope="module")
def authority(folder: Path) -> Authority:
    """The one to trust."""
    return Authority(folder, "authority")


def _serve(folder: Path, name: str, ca: Path, cert: Path, key: Path, clients: str) -> Node:
    node = Node(folder, name)
    node.start(
        *("--tls-port", str(node.second_port), "--tls-ca-cert-file", str(ca)),
        *("--tls-cert-file", str(cert), "--tls-key-file", str(key)),
        *("--tls-auth-clients", clients, "--save", ""),
    )
    return node


@pytest.fixture(scope="module")
def server(folder: Path, authority: Authority) -> Iterator[Node]:
    """With TLS and without, on two ports; it asks for a client's certificate."""
    node = _serve(folder, "strict", authority.ca, *authority.sign("server"), "yes")
    yield node
    node.stop()


@pytest.fixture(scope="module")
def lenient(folder: Path, authority: Authority) -> Iterator[Node]:
    """It asks nobody for a certificate; its own is over."""
    node = _serve(folder, "over", authority.ca, *authority.sign("over", days=-1), "no")
    yield node
    node.stop()


@pytest.mark.conformance("SS-065")
async def test_with_certificates_on_both_sides_all_roads_work(
    server: Node, authority: Authority
) -> None:
    cert, key = authority.sign("client")
    url = f"rediss://localhost:{server.second_port}?ca={authority.ca}&cert={cert}&key={key}"
    async with connect(url) as client:
        stream = client.stream(STREAM)
        await stream.append({"n": 1})
        async with stream.group(GROUP, lease=0.4) as group:
            event = await group.receive(10.0)
            assert event is not None
            await group.receive(0.8)  # beats go over TLS too: nobody takes it for dead
            group.ack(event)
            await group.flush()
            assert group.statistics().missed == 0
        assert await client.redis.xlen(STREAM) == 1
    async with connect(
        f"rediss://127.0.0.1:{server.second_port}", ca=authority.ca, cert=cert, key=key
    ) as client:
        assert await client.stream(STREAM).length() == 1


async def test_without_a_certificate_that_is_asked_for(server: Node, authority: Authority) -> None:
    url = f"rediss://localhost:{server.second_port}"
    with pytest.raises(BackendUnavailable, match="cert=FILE"):
        async with connect(url, ca=authority.ca, timeout=5.0):
            pass


async def test_an_authority_that_is_not_trusted(server: Node, folder: Path) -> None:
    other = Authority(folder, "other")
    for options in ({"ca": other.ca}, {}):
        with pytest.raises(BackendUnavailable, match=r"not trusted.*ca=FILE"):
            async with connect(f"rediss://localhost:{server.second_port}", **options):  # type: ignore[arg-type]
                pass


async def test_a_certificate_that_is_over(lenient: Node, authority: Authority) -> None:
    url = f"rediss://localhost:{lenient.second_port}"
    with pytest.raises(BackendUnavailable, match="has expired"):
        async with connect(url, ca=authority.ca):
            pass
    async with connect(url, verify=False) as client:
        await client.stream(STREAM).append({"n": 1})


async def test_a_certificate_for_another_host(folder: Path, authority: Authority) -> None:
    signed = authority.sign("elsewhere", alternatives="subjectAltName=DNS:elsewhere.example")
    node = _serve(folder, "elsewhere", authority.ca, *signed, "no")
    try:
        with pytest.raises(BackendUnavailable, match="names the host"):
            async with connect(f"rediss://localhost:{node.second_port}", ca=authority.ca):
                pass
    finally:
        node.stop()


async def test_ports_that_do_not_speak_it(server: Node, authority: Authority) -> None:
    with pytest.raises(BackendUnavailable, match="does not speak TLS"):
        async with connect(f"rediss://localhost:{server.port}", ca=authority.ca, timeout=0.5):
            pass
    with pytest.raises(BackendUnavailable, match="use rediss://"):
        async with connect(f"redis://localhost:{server.second_port}", timeout=0.5):
            pass


async def test_files_that_are_none(server: Node, authority: Authority, folder: Path) -> None:
    (folder / "none.pem").write_text("no certificate")
    for wrong in ({"ca": folder / "missing.pem"}, {"ca": folder / "none.pem"}):
        with pytest.raises(ConfigError, match="files of PEM"):
            async with connect(f"rediss://localhost:{server.second_port}", **wrong):  # type: ignore[arg-type]
                pass
    with pytest.raises(ConfigError, match="takes no ca"):
        connect("redis://localhost", ca=authority.ca)
    with pytest.raises(ConfigError, match="verify must be"):
        async with connect(f"rediss://localhost:{server.second_port}?verify=perhaps"):
            pass
