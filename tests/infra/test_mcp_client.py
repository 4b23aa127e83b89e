"""Servers of the Model Context Protocol as a client meets them: good, slow and dead ones, some that say too much."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from neuroedge.contract.errors import InvalidInput, TooLarge, Unavailable
from neuroedge.infra.mcp_client import Endpoint, McpClient, McpServer, read_servers
from tests.mcp_servers import COMMAND, Served, serving

pytestmark = pytest.mark.anyio


def _stdio(**more: Any) -> Endpoint:
    env = {"PYTHONPATH": str(Path(__file__).parents[2]), **more.pop("given", {})}
    return Endpoint(name="child", server=McpServer(command=COMMAND, **{"tools": ("*",), **more}), env=env)


def _http(url: str, **more: Any) -> Endpoint:
    return Endpoint(name="web", server=McpServer(url=url, **{"tools": ("*",), **more}))


@asynccontextmanager
async def _raw(answer: bytes | None) -> AsyncIterator[str]:
    """An HTTP server that answers every request with these bytes; None: with nothing."""
    hanging: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if answer is None:
            hanging.append(writer)
            return
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp"
        for writer in hanging:
            writer.close()


@pytest.mark.parametrize("transport", ["http", "stdio"])
async def test_a_tool_is_listed_and_called(transport: str) -> None:
    """Text and structured answer arrive; a tool outside the allow-list is not even listed."""
    async with serving(Served()) as url:
        endpoint = _stdio(tools=("echo", "fails")) if transport == "stdio" else _http(url, tools=("echo", "fails"))
        client = McpClient()
        tools = await client.tools(endpoint, timeout_s=30)
        assert [tool.name for tool in tools] == ["echo", "fails"]
        assert tools[0].input_schema["required"] == ["text"]
        answer = await client.call(endpoint, "echo", {"text": "grüß dich"}, timeout_s=30)
        assert (answer.text, answer.structured, answer.failed) == ("grüß dich", {"text": "grüß dich"}, False)
        failed = await client.call(endpoint, "fails", {}, timeout_s=30)
        assert failed.failed
        assert failed.text == "no such city"


@pytest.mark.parametrize("transport", ["http", "stdio"])
async def test_a_stalled_tool_is_given_up(transport: str) -> None:
    """After its time the call ends with Unavailable, and the client goes on working."""
    async with serving(Served()) as url:
        endpoint = _stdio() if transport == "stdio" else _http(url)
        client = McpClient()
        with pytest.raises(Unavailable, match="did not answer within"):
            await client.call(endpoint, "sleep", {}, timeout_s=2)
        assert (await client.call(endpoint, "echo", {"text": "a"}, timeout_s=30)).text == "a"


@pytest.mark.parametrize("transport", ["http", "stdio"])
async def test_an_answer_over_the_limit_is_refused(transport: str) -> None:
    """Three megabytes where one is allowed."""
    async with serving(Served()) as url:
        endpoint = _stdio() if transport == "stdio" else _http(url)
        with pytest.raises(TooLarge):
            await McpClient().call(endpoint, "huge", {}, timeout_s=30)


async def test_a_body_over_the_limit_is_not_read_to_its_end() -> None:
    """A plain JSON answer that never stops being sent, and one that is compressed though nobody asked."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
    for answer in (head + b"\r\n" + b" " * 400_000, head + b"Content-Encoding: gzip\r\n\r\n\x1f\x8b"):
        async with _raw(answer) as url:
            with pytest.raises(TooLarge):
                await McpClient().tools(_http(url, max_bytes=100_000), timeout_s=10)


async def test_a_server_that_says_nothing_is_given_up() -> None:
    """The connection stands, no byte comes."""
    async with _raw(None) as url:
        with pytest.raises(Unavailable, match="did not answer within"):
            await McpClient().tools(_http(url), timeout_s=0.5)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 401 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi",
        b"HTTP/1.1 307 Away\r\nLocation: http://192.0.2.1/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        b"what?\r\n\r\n",
    ],
)
async def test_what_is_no_mcp_server_is_unavailable(answer: bytes) -> None:
    """Errors, HTML, redirects elsewhere, nonsense: one error of ours."""
    async with _raw(answer) as url:
        with pytest.raises(Unavailable):
            await McpClient().tools(_http(url), timeout_s=10)


async def test_nobody_listens() -> None:
    """A closed port, and a command that does not exist."""
    with pytest.raises(Unavailable):
        await McpClient().tools(_http("http://127.0.0.1:9/mcp"), timeout_s=10)
    missing = Endpoint(name="child", server=McpServer(command=("no-such-command",), tools=("*",)))
    with pytest.raises(Unavailable):
        await McpClient().tools(missing, timeout_s=10)


async def test_a_server_that_dies_in_the_middle_is_unavailable() -> None:
    """And the next call has a new process."""
    client = McpClient()
    with pytest.raises(Unavailable):
        await client.call(_stdio(), "die", {}, timeout_s=30)
    assert (await client.call(_stdio(), "echo", {"text": "a"}, timeout_s=30)).text == "a"


async def test_a_command_gets_no_secret_it_was_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the variables the operator names, besides PATH, HOME and the like."""
    monkeypatch.setenv("NEUROEDGE_MASTER_KEY", "secret")
    answer = await McpClient().call(_stdio(given={"TOKEN": "t"}), "environment", {}, timeout_s=30)
    seen = json.loads(answer.text)
    assert "TOKEN" in seen
    assert not [name for name in seen if name.startswith("NEUROEDGE")]
    assert "NEUROEDGE_MASTER_KEY" in os.environ


def test_servers_are_read_with_their_secrets(tmp_path: Path) -> None:
    """Headers come from the environment and do not show in a print; no file is no server."""
    path = tmp_path / "mcp.toml"
    assert read_servers(path) == []
    path.write_text(
        '[servers.weather]\nurl = "https://example.org/mcp"\nheaders_env = { Authorization = "WEATHER" }\n'
        'tools = ["forecast"]\n\n[servers.files]\ncommand = ["files", "/srv"]\nenv = ["KEY"]\ntools = ["*"]\n'
    )
    weather, files = read_servers(path, {"WEATHER": "Bearer abc", "KEY": "xyz"})
    assert weather.headers["Authorization"].get_secret_value() == "Bearer abc"
    assert files.env == {"KEY": "xyz"}
    assert files.server.allows("anything")
    assert not weather.server.allows("anything")
    assert "abc" not in repr(weather)
    assert "xyz" not in repr(files)
    with pytest.raises(InvalidInput) as caught:
        read_servers(path, {"WEATHER": "x"})
    assert "KEY" in str(caught.value.hint)


@pytest.mark.parametrize(
    "text",
    [
        "[servers.x\n",
        '[servers.x]\nurl = "https://example.org"\n',
        '[servers.x]\nurl = "ftp://example.org"\ntools = ["*"]\n',
        '[servers.x]\nurl = "https://example.org"\ncommand = ["a"]\ntools = ["*"]\n',
        '[servers.x]\ntools = ["*"]\n',
        '[servers."../x"]\nurl = "https://example.org"\ntools = ["*"]\n',
        '[servers.x]\nurl = "https://example.org"\ntools = ["*"]\ntimeout = 3\n',
    ],
)
def test_a_wrong_file_is_told(tmp_path: Path, text: str) -> None:
    """Broken TOML, no tools, neither or both ways, another scheme, a name that is none, a typo."""
    path = tmp_path / "mcp.toml"
    path.write_text(text)
    with pytest.raises(InvalidInput, match=r"mcp\.toml"):
        read_servers(path)
