"""NeuroEdge over the Model Context Protocol, with the official client, over HTTP and stdio."""

import asyncio
import base64
import io
import re
import subprocess
import sys
import time
import wave
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
from mcp import Client, MCPError
from mcp.client.stdio import StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.types import INVALID_PARAMS, TextResourceContents

from tests.conftest import SampleCall, Server, running_server
from tests.mcp_servers import COMMAND

pytestmark = [pytest.mark.models, pytest.mark.anyio]
VALVE = "Valve seven of the north boiler leaks since Tuesday."
NAMES = {
    "search",
    "ask",
    "remember",
    "list_memories",
    "list_documents",
    "read_document",
    "list_engines",
    "run_engine",
}
TRANSPORTS = ["http", "http-2025", "stdio"]


def _token(account: httpx.Client) -> str:
    return account.headers["authorization"].removeprefix("Bearer ")


@asynccontextmanager
async def _connected(server: Server, token: str, transport: str = "http") -> AsyncIterator[Client]:
    if transport == "stdio":
        command = StdioServerParameters(
            command=sys.executable,
            args=["-m", "neuroedge", "mcp", "--url", server.url],
            env={"NEUROEDGE_TOKEN": token},
        )
        async with Client(command) as client:
            yield client
        return
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=60) as http,
        Client(
            streamable_http_client(f"{server.url}/mcp", http_client=http),
            mode="legacy" if transport == "http-2025" else "auto",
        ) as client,
    ):
        yield client


async def _given(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    given: dict[str, Any] = result.structured_content
    return given


async def _refused(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments)
    assert result.is_error
    told: dict[str, Any] = result.structured_content
    return told


async def _read(client: Client, uri: str) -> str:
    (content,) = (await client.read_resource(uri)).contents
    assert isinstance(content, TextResourceContents)
    return content.text


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_an_assistant_remembers_and_finds(server: Server, account: httpx.Client, transport: str) -> None:
    """The tools are listed, a text is kept, found with its citation, read by its address, and counted as usage."""
    async with _connected(server, _token(account), transport) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert tools.keys() == NAMES
        assert tools["search"].input_schema["properties"]["query"]["maxLength"] == 8000
        assert client.instructions is not None
        assert "cite" in client.instructions
        kept = await _given(client, "remember", content=VALVE, title="Shift")
        (hit,) = (await _given(client, "search", query="Which valve leaks?"))["hits"]
        assert (hit["text"], hit["citation"]["title"]) == (VALVE, "Shift")
        assert hit["citation"]["uri"] == kept["uri"]
        assert await _read(client, kept["uri"]) == VALVE
        (listed,) = (await _given(client, "list_memories"))["memories"]
        assert listed["id"] == kept["memory_id"]
        engines = (await _given(client, "list_engines"))["engines"]
        assert "embedding" in {engine["name"] for engine in engines}
        shown = await _given(client, "list_engines", name="embedding")
        ran = await _given(client, "run_engine", engine="embedding", payload=shown["example"])
        assert len(ran["result"]["vectors"]) == 2


@pytest.fixture
def document_id(account: httpx.Client) -> str:
    """A document of the account, processed."""
    files = {"file": ("rocket.md", b"# The blue rocket\n\nIts launch code is forty-two.\n")}
    added: str = account.post("/v1/documents", files=files).json()["document"]["id"]
    until = time.monotonic() + 60
    while account.get(f"/v1/documents/{added}").json()["status"] != "done":
        assert time.monotonic() < until
        time.sleep(0.1)
    return added


def _repeated(path: Path, times: int) -> bytes:
    """A call so long that nothing transcribes it within seconds."""
    target = io.BytesIO()
    with wave.open(str(path)) as source, wave.open(target, "wb") as copy:
        copy.setparams(source.getparams())
        copy.writeframes(source.readframes(source.getnframes()) * times)
    return target.getvalue()


@pytest.mark.parametrize("transport", ["http", "http-2025"])
async def test_work_ends_when_the_client_leaves(
    server: Server, account: httpx.Client, sample_call: SampleCall, transport: str
) -> None:
    """What nobody waits for is not computed to its end."""

    def cancelled() -> float:
        text = account.get("/metrics").text
        found = re.search(r'neuroedge_engine_seconds_count{engine="transcription",outcome="cancelled"} ([\d.]+)', text)
        return float(found[1]) if found else 0.0

    def at_work() -> bool:
        return bool(account.get("/v1/models/whisper-base").json()["leases"])

    await _until(lambda: not at_work())  # recordings of other tests
    before = await asyncio.to_thread(cancelled)
    audio = {"base64": base64.b64encode(await asyncio.to_thread(_repeated, sample_call.wav, 10)).decode()}
    async with _connected(server, _token(account), transport) as client:
        asked = {"engine": "transcription", "payload": {"audio": audio}}
        call = asyncio.create_task(client.call_tool("run_engine", asked))
        await _until(lambda: at_work() or call.done())
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    await _until(lambda: cancelled() > before)


async def _until(wanted: Callable[[], bool]) -> None:
    """Wait for something to be so."""
    async with asyncio.timeout(120):
        while not await asyncio.to_thread(wanted):  # noqa: ASYNC110 (it is another process)
            await asyncio.sleep(0.1)


async def test_a_document_is_a_resource(server: Server, account: httpx.Client, document_id: str) -> None:
    """Listed when it is done, read by passages and as a whole, cited by the search."""
    uri = f"neuroedge://documents/{document_id}"
    async with _connected(server, _token(account)) as client:
        assert [resource.uri for resource in (await client.list_resources()).resources] == [uri]
        kinds = {template.uri_template for template in (await client.list_resource_templates()).resource_templates}
        assert "neuroedge://documents/{id}" in kinds
        assert "forty-two" in await _read(client, uri)
        passages = await _given(client, "read_document", document_id=document_id)
        assert "forty-two" in passages["passages"][0]["text"]
        (listed,) = (await _given(client, "list_documents"))["documents"]
        assert listed["uri"] == uri
        hit = (await _given(client, "search", query="launch code of the rocket"))["hits"][0]
        assert hit["citation"]["uri"] == uri


async def test_another_tenants_token_sees_nothing(
    server: Server, account: httpx.Client, stranger: httpx.Client
) -> None:
    """Not by searching, not by listing, not by the address."""
    async with _connected(server, _token(account)) as mine:
        kept = await _given(mine, "remember", content=VALVE)
    async with _connected(server, _token(stranger)) as theirs:
        assert (await _given(theirs, "search", query="valve"))["hits"] == []
        assert (await _given(theirs, "list_memories"))["memories"] == []
        assert (await theirs.list_resources()).resources == []
        answer = await _given(theirs, "ask", question="Which valve leaks?")
        assert not answer["answered"]
        assert answer["citations"] == []
        for uri in (kept["uri"], kept["uri"].replace("memories", "documents"), "neuroedge://memories/x", "file:///etc"):
            with pytest.raises(MCPError) as caught:
                await theirs.read_resource(uri)
            assert caught.value.data["code"] == "not_found"


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_errors_tell_the_model_what_to_do(server: Server, account: httpx.Client, transport: str) -> None:
    """Wrong arguments, an unknown engine, a text too long: results with code and hint. An unknown tool: the protocol's
    error."""
    async with _connected(server, _token(account), transport) as client:
        for arguments in ({}, {"query": "x", "org_id": "y"}, {"query": "x", "top_k": 21}, {"query": "x" * 8001}):
            told = await _refused(client, "search", **arguments)
            assert told["code"] == "invalid_input"
            assert told["errors"]
        assert (await _refused(client, "remember", content="x" * 20_001))["code"] == "invalid_input"
        unknown = await _refused(client, "run_engine", engine="no_such_engine", payload={})
        assert unknown["code"] == "not_found"
        assert unknown["hint"]
        wrong = await _refused(client, "run_engine", engine="embedding", payload={"texts": []})
        assert wrong["code"] == "invalid_input"
        with pytest.raises(MCPError) as caught:
            await client.call_tool("no_such_tool", {})
        assert caught.value.code == INVALID_PARAMS


async def test_the_client_learns_of_a_wrong_token(server: Server) -> None:
    """It does not connect."""
    with pytest.raises((MCPError, ExceptionGroup)):
        async with _connected(server, "forged.token.here"):
            pass


def test_a_wrong_token_gets_nothing(server: Server) -> None:
    """401 as anywhere; over stdio the command ends with what to do."""
    ping = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    for headers in ({}, {"Authorization": "Bearer forged.token.here"}):
        answer = httpx.post(f"{server.url}/mcp", json=ping, headers=headers, timeout=60)
        assert answer.status_code == 401
        assert answer.json()["code"] == "unauthenticated"
    ended = subprocess.run(
        [sys.executable, "-m", "neuroedge", "mcp", "--url", server.url],
        input="",
        env={**server.env, "NEUROEDGE_TOKEN": "forged.token.here"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 1
    assert "token" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_what_is_no_message_is_refused(server: Server, account: httpx.Client) -> None:
    """A body beyond the limit, no JSON, a batch, another method of HTTP."""
    accept = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
    assert account.post("/mcp", content=b"x" * (33 * 1024 * 1024), headers=accept).status_code == 413
    assert account.post("/mcp", content=b"{", headers=accept).status_code == 400
    assert account.post("/mcp", content=b"[]", headers=accept).status_code == 400
    assert account.get("/mcp").status_code == 405
    assert account.delete("/mcp").status_code == 405


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[Server]:
    """A server with few calls a minute that knows two MCP servers itself, one of them dead."""
    folder = tmp_path_factory.mktemp("limited")
    command = ", ".join(f'"{part}"' for part in COMMAND)
    (folder / "mcp.toml").write_text(
        f'[servers.echo]\ncommand = [{command}]\nenv = ["PYTHONPATH"]\ntools = ["echo"]\n\n'
        '[servers.dead]\nurl = "http://127.0.0.1:9/mcp"\ntools = ["*"]\n'
    )
    more = {
        "NEUROEDGE_REQUESTS_PER_MINUTE": "3",
        "NEUROEDGE_MCP_SERVERS": str(folder / "mcp.toml"),
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    with running_server(folder / "data", models_dir, **more) as running:
        yield running


async def test_calls_of_tools_count_against_the_rate_limit(limited: Server) -> None:
    """As engine calls do; listing is free."""
    with limited.new_account() as account:
        async with _connected(limited, _token(account)) as client:
            for _ in range(3):
                await _given(client, "list_memories")
            told = await _refused(client, "list_memories")
            assert told["code"] == "overloaded"
            assert told["retry_after_s"] >= 1
            assert (await client.list_tools()).tools


def test_the_servers_of_the_operator_are_shown(limited: Server) -> None:
    """Name, tools and whether they answer; neither address nor command."""
    with limited.new_account() as account:
        shown = account.get("/v1/mcp/servers").json()["servers"]
    echo, dead = sorted(shown, key=lambda one: not one["answers"])
    assert (echo["name"], echo["transport"], echo["tools"]) == ("echo", "stdio", ["echo"])
    assert (dead["name"], dead["answers"]) == ("dead", False)
    assert "127.0.0.1" not in str(shown)
