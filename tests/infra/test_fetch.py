"""Fetching URLs: what is allowed arrives, nothing private is reached."""

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from neuroedge.contract.errors import (
    DeadlineExceeded,
    EmptyMedia,
    Forbidden,
    InvalidInput,
    NeuroEdgeError,
    TooLarge,
    Unavailable,
)
from neuroedge.contract.scope import call_scope
from neuroedge.infra.fetch import Fetcher, is_public

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def _serving(answers: dict[str, bytes]) -> AsyncIterator[tuple[int, list[str]]]:
    """An HTTP server on this machine that answers paths with raw bytes; its port and the requests it got."""
    seen: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        seen.append(request)
        answer = answers.get(request.split(" ")[1])
        if answer is None:
            await reader.read()  # says nothing until the client gives up
        else:
            writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], seen


def _ok(body: bytes, *headers: str) -> bytes:
    lines = ["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def _moved(to: str) -> bytes:
    return f"HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()


def _to(addresses: Mapping[str, Sequence[str]]) -> Callable[[str, int], Awaitable[Sequence[str]]]:
    async def resolver(host: str, port: int) -> Sequence[str]:
        if host not in addresses:
            raise OSError("no such host")
        return addresses[host]

    return resolver


def _fetcher(port: int, *, max_bytes: int = 1000, timeout_s: float = 10) -> Fetcher:
    """Allows one name, which is this machine."""
    names = {"docs.example.org": ["127.0.0.1"], "other.example.org": ["10.0.0.7"]}
    return Fetcher(
        hosts=[f"docs.example.org:{port}", "other.example.org"],
        max_bytes=max_bytes,
        timeout_s=timeout_s,
        resolver=_to(names),
        allowed=lambda address: address.is_loopback,
    )


async def test_a_file_arrives_with_name_and_host(tmp_path: Path) -> None:
    """The connection goes to the checked address, the request names the host; the media type gives a suffix."""
    async with _serving({"/a/report": _ok(b"<p>hi</p>", "Content-Type: text/html; charset=utf-8")}) as (port, seen):
        found = await _fetcher(port).fetch(f"http://docs.example.org:{port}/a/report#part", tmp_path)
    assert found.path.read_bytes() == b"<p>hi</p>"
    assert (found.filename, found.bytes) == ("report.html", 9)
    assert f"host: docs.example.org:{port}" in seen[0].lower()


async def test_a_redirect_is_followed_and_checked(tmp_path: Path) -> None:
    """Within what is allowed it is followed; to another host, or to a private address, it is refused."""
    async with _serving({}) as (port, _):
        pass
    async with _serving(
        {
            "/here": _moved("/there"),
            "/there": _ok(b"x", 'Content-Disposition: attachment; filename="../a b.txt"'),
            "/away": _moved("http://evil.example.net/"),
            "/inside": _moved("http://other.example.org/"),
            "/file": _moved("file:///etc/passwd"),
            "/round": _moved("/round"),
            "/nameless": _moved("http://xn--.example.org/"),
        }
    ) as (port, _):
        fetcher, base = _fetcher(port), f"http://docs.example.org:{port}"
        found = await fetcher.fetch(base + "/here", tmp_path)
        assert found.filename == "a b.txt"
        assert found.url.endswith("/there")
        with pytest.raises(Forbidden):
            await fetcher.fetch(base + "/away", tmp_path)
        for path in ("/inside", "/file", "/round", "/nameless"):
            with pytest.raises(InvalidInput):
                await fetcher.fetch(base + path, tmp_path)


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("http://evil.example.net/", Forbidden),
        ("http://docs.example.org.evil.example.net/", Forbidden),
        ("http://docs.example.org:22/", Forbidden),
        ("http://docs.example.org/", Forbidden),
        ("http://other.example.org/", InvalidInput),
        ("ftp://other.example.org/", InvalidInput),
        ("file:///etc/passwd", InvalidInput),
        ("http://user:password@other.example.org/", InvalidInput),
        ("http://", InvalidInput),
        ("http://[::1", InvalidInput),
        ("http://xn--.example.org/", InvalidInput),
        ("https://xn--zzzzzz", InvalidInput),
        ("no url", InvalidInput),
        ("", InvalidInput),
    ],
)
async def test_what_is_not_allowed_is_refused(url: str, error: type[NeuroEdgeError], tmp_path: Path) -> None:
    """By host, port, scheme, address."""
    with pytest.raises(error):
        await _fetcher(8080).fetch(url, tmp_path)


@pytest.mark.parametrize("host", ["a" * 64 + ".example.org", "a..example.org", ".example.org"])
async def test_a_name_no_resolver_takes_is_refused(host: str, tmp_path: Path) -> None:
    """Labels that are empty or too long, asked of the system's own resolver."""
    with pytest.raises(InvalidInput, match="no address"):
        await Fetcher(hosts=["*"], max_bytes=100, timeout_s=3).fetch(f"http://{host}/x.txt", tmp_path)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "0.0.0.0",
        "100.64.0.1",
        "224.0.0.1",
        "239.1.1.1",
        "255.255.255.255",
        "192.0.2.1",
        "::1",
        "::",
        "fe80::1",
        "fc00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "2001:db8::1",
    ],
)
async def test_no_private_address_is_public(address: str, tmp_path: Path) -> None:
    """As a literal in the URL and as what a name resolves to, alone or beside a public one."""
    assert not is_public(ipaddress.ip_address(address))
    for found in ([address], ["93.184.215.14", address]):
        fetcher = Fetcher(hosts=["*"], max_bytes=10, resolver=_to({"name.example.org": found}))
        with pytest.raises(InvalidInput, match="public internet"):
            await fetcher.fetch("http://name.example.org/", tmp_path)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost", "0x7f.1", "2130706433", "169.254.169.254"])
async def test_the_systems_resolver_is_checked_too(host: str, tmp_path: Path) -> None:
    """Spellings of this machine that only the resolver understands."""
    with pytest.raises(InvalidInput):
        await Fetcher(hosts=["*"], max_bytes=10).fetch(f"http://{host}/", tmp_path)


def test_public_addresses_are_public() -> None:
    """Ordinary hosts are reached."""
    assert all(is_public(ipaddress.ip_address(one)) for one in ("93.184.215.14", "2606:2800:21f:cb07::1"))


async def test_subdomains_need_a_pattern(tmp_path: Path) -> None:
    """ "*.example.org" allows what is below, not the name itself; without an entry nothing is allowed."""
    fetcher = Fetcher(hosts=["*.example.org"], max_bytes=10, resolver=_to({"a.example.org": ["10.0.0.1"]}))
    with pytest.raises(InvalidInput, match="public internet"):
        await fetcher.fetch("https://a.example.org/", tmp_path)
    with pytest.raises(Forbidden):
        await fetcher.fetch("https://example.org/", tmp_path)
    with pytest.raises(Forbidden):
        await Fetcher(hosts=[], max_bytes=10).fetch("https://example.org/", tmp_path)


async def test_bad_answers_are_clear_errors(tmp_path: Path) -> None:
    """Too large with and without a length, empty, an error page, compressed, silent, gone."""
    endless = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + bytes(5000)
    async with _serving(
        {
            "/large": _ok(bytes(2000)),
            "/endless": endless,
            "/empty": _ok(b""),
            "/missing": b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            "/packed": _ok(b"xx", "Content-Encoding: gzip"),
            "/broken": b"nonsense\r\n\r\n",
        }
    ) as (port, _):
        base = f"http://docs.example.org:{port}"
        for path, error in {
            "/large": TooLarge,
            "/endless": TooLarge,
            "/empty": EmptyMedia,
            "/missing": InvalidInput,
            "/packed": InvalidInput,
            "/broken": Unavailable,
        }.items():
            with pytest.raises(error):
                await _fetcher(port).fetch(base + path, tmp_path)
        with pytest.raises(DeadlineExceeded):
            await _fetcher(port, timeout_s=0.3).fetch(base + "/silent", tmp_path)
        with call_scope(timeout_s=0.3), pytest.raises(DeadlineExceeded):
            await _fetcher(port, timeout_s=300).fetch(base + "/silent", tmp_path)
    with pytest.raises(Unavailable):
        await _fetcher(port).fetch(base + "/large", tmp_path)
