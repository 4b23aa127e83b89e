"""Asks servers of the Model Context Protocol (MCP) that the operator allows, over streamable HTTP or stdio.

Each call has a connection of its own, and a stdio server a process of its own: nothing of one caller is left in it for
the next. What comes back is limited in size and time, and is somebody else's words.
"""

import asyncio
import logging
import os
import tomllib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Self, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator

from neuroedge.contract.errors import InvalidInput, NeuroEdgeError, NotFound, TooLarge, Unavailable

if TYPE_CHECKING:
    import httpx2
    from mcp import Client

MAX_TOOLS: Final = 200
MAX_SCHEMA_BYTES: Final = 64 * 1024
MAX_DESCRIPTION_CHARS: Final = 4000
ANY: Final = "*"
_MAX_PAGES: Final = 20
_AT_ONCE: Final = 4
_MAX_ERROR_CHARS: Final = 500
T = TypeVar("T")


class McpServer(BaseModel):
    """A server as the operator describes it; exactly one of `url` and `command`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str | None = Field(default=None, pattern=r"^https?://", description="Of a streamable HTTP server.")
    command: tuple[str, ...] = Field(default=(), description="Of a stdio server, with its arguments.")
    headers_env: dict[str, str] = Field(
        default_factory=dict, description="HTTP headers, each with the environment variable that holds its value."
    )
    env: tuple[str, ...] = Field(
        default=(), description="Environment variables the command gets besides PATH and HOME."
    )
    tools: tuple[str, ...] = Field(min_length=1, description='Tools that may be called; ["*"] for all it has.')
    organisations: tuple[UUID, ...] = Field(default=(), description="Who may use it; all when empty.")
    private: bool = Field(default=False, description="Whether what is sent stays with the operator.")
    timeout_s: float = Field(default=30.0, gt=0, le=600)
    max_bytes: int = Field(default=1024 * 1024, ge=1024, description="Largest answer, bytes.")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.url is None) == (not self.command):
            raise ValueError("give exactly one of 'url' and 'command'")
        return self

    def allows(self, tool: str) -> bool:
        """Whether the operator allows this tool."""
        return ANY in self.tools or tool in self.tools


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A server ready to be asked: with its name and the secrets of this process's environment."""

    name: str
    server: McpServer
    headers: Mapping[str, SecretStr] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict, repr=False)


class _Servers(BaseModel):
    model_config = ConfigDict(extra="forbid")

    servers: dict[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")], McpServer] = Field(default_factory=dict)


def read_servers(path: Path, environment: Mapping[str, str] | None = None) -> list[Endpoint]:
    """The servers of a TOML file, none when there is no file.

    Raises InvalidInput for a file that is wrong, or a variable that the environment lacks.
    """
    if not path.exists():
        return []
    known = os.environ if environment is None else environment
    try:
        described = _Servers.model_validate(tomllib.loads(path.read_text("utf-8"))).servers
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, ValidationError) as error:
        raise InvalidInput(f"{path} does not describe MCP servers: {error}", hint="docs/mcp.md shows one") from error
    found = []
    for name, server in described.items():
        missing = {*server.headers_env.values(), *server.env} - known.keys()
        if missing:
            raise InvalidInput(
                f"the MCP server {name} of {path} needs environment variables that are not set",
                hint=f"set {', '.join(sorted(missing))}",
            )
        headers = {header: SecretStr(known[variable]) for header, variable in server.headers_env.items()}
        env = {variable: known[variable] for variable in server.env}
        found.append(Endpoint(name=name, server=server, headers=headers, env=env))
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteTool:
    """A tool as its server describes it; the words are the server's."""

    name: str
    title: str | None
    description: str
    input_schema: Mapping[str, Any]
    read_only: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteAnswer:
    """What a tool gave; `failed` when it says so itself."""

    text: str
    structured: Any
    failed: bool
    left_out: list[str]
    """Kinds of content that are not text: image, audio, …"""


class McpClient:
    """Asks servers, at most four calls of one server at a time."""

    def __init__(self) -> None:
        for noisy in ("mcp", "httpx2"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        self._slots: dict[str, asyncio.Semaphore] = {}

    async def tools(self, endpoint: Endpoint, *, timeout_s: float) -> list[RemoteTool]:
        """The tools it has and the operator allows. Raises Unavailable, TooLarge."""

        async def listed(client: "Client") -> list[RemoteTool]:
            found: list[RemoteTool] = []
            cursor: str | None = None
            for _ in range(_MAX_PAGES):
                page = await client.list_tools(cursor=cursor)
                found += [_described(tool) for tool in page.tools if endpoint.server.allows(tool.name)]
                cursor = page.next_cursor
                if not cursor or len(found) >= MAX_TOOLS:
                    break
            return [tool for tool in found if len(str(tool.input_schema)) <= MAX_SCHEMA_BYTES][:MAX_TOOLS]

        return await self._ask(endpoint, listed, timeout_s=timeout_s)

    async def call(
        self, endpoint: Endpoint, tool: str, arguments: Mapping[str, Any], *, timeout_s: float
    ) -> RemoteAnswer:
        """Call a tool. Raises Unavailable, TooLarge, InvalidInput when the server refuses the arguments, NotFound."""

        async def called(client: "Client") -> RemoteAnswer:
            result = await client.call_tool(tool, dict(arguments))
            texts = [block.text for block in result.content if block.type == "text"]
            return RemoteAnswer(
                text="\n".join(texts),
                structured=result.structured_content,
                failed=result.is_error,
                left_out=sorted({block.type for block in result.content if block.type != "text"}),
            )

        answer = await self._ask(endpoint, called, timeout_s=timeout_s)
        if len(answer.text.encode()) > endpoint.server.max_bytes:  # over stdio nothing counts the bytes on the way
            raise _too_large(endpoint)
        return answer

    async def _ask(self, endpoint: Endpoint, work: Callable[["Client"], Awaitable[T]], *, timeout_s: float) -> T:
        import anyio
        from mcp import Client

        exceeded = False

        def stop() -> None:
            nonlocal exceeded
            exceeded = True
            scope.cancel()

        slot = self._slots.setdefault(endpoint.name, asyncio.Semaphore(_AT_ONCE))
        try:
            with anyio.move_on_after(timeout_s) as scope:
                async with slot, Client(_transport(endpoint, stop), cache=None) as client:
                    return await work(client)
        except Exception as error:  # the library's task groups wrap whatever goes wrong
            if exceeded:
                raise _too_large(endpoint) from error
            raise _wrapped(endpoint, error) from error
        if exceeded:
            raise _too_large(endpoint)
        raise Unavailable(f"the MCP server {endpoint.name} did not answer within {timeout_s:.3g} s")


def _described(tool: Any) -> RemoteTool:
    return RemoteTool(
        name=tool.name,
        title=tool.title,
        description=(tool.description or "")[:MAX_DESCRIPTION_CHARS],
        input_schema=tool.input_schema,
        read_only=bool(tool.annotations and tool.annotations.read_only_hint),
    )


def _transport(endpoint: Endpoint, too_much: Callable[[], None]) -> "AbstractAsyncContextManager[Any]":
    server = endpoint.server
    if server.url is not None:
        return _http(endpoint, server.url, too_much)
    from mcp.client.stdio import StdioServerParameters, stdio_client

    command, *arguments = server.command
    return stdio_client(StdioServerParameters(command=command, args=arguments, env=dict(endpoint.env)))


@asynccontextmanager
async def _http(endpoint: Endpoint, url: str, too_much: Callable[[], None]) -> AsyncIterator[Any]:
    import httpx2
    from mcp.client.streamable_http import streamable_http_client

    left = endpoint.server.max_bytes

    async def count(response: "httpx2.Response") -> None:
        """Let the body through until it has too many bytes."""
        if response.headers.get("content-encoding", "identity") != "identity":
            too_much()  # a small body can unpack to any size
        body = response.stream

        class Counted(httpx2.AsyncByteStream):
            async def __aiter__(self) -> AsyncIterator[bytes]:
                nonlocal left
                assert isinstance(body, httpx2.AsyncByteStream)
                async for part in body:
                    left -= len(part)
                    if left < 0:
                        too_much()
                        return
                    yield part

            async def aclose(self) -> None:
                assert isinstance(body, httpx2.AsyncByteStream)
                await body.aclose()

        response.stream = Counted()

    headers = {name: value.get_secret_value() for name, value in endpoint.headers.items()}
    async with (
        httpx2.AsyncClient(
            headers={**headers, "Accept-Encoding": "identity"},
            timeout=endpoint.server.timeout_s,
            event_hooks={"response": [count]},
        ) as client,
        streamable_http_client(url, http_client=client, terminate_on_close=False) as streams,
    ):
        yield streams


def _wrapped(endpoint: Endpoint, error: Exception) -> NeuroEdgeError:
    from mcp.shared.exceptions import MCPError
    from mcp.types import INVALID_PARAMS, METHOD_NOT_FOUND

    for cause in _leaves(error):
        if isinstance(cause, MCPError) and cause.code == INVALID_PARAMS:
            return InvalidInput(f"the MCP server {endpoint.name} refuses the call: {cause.message[:_MAX_ERROR_CHARS]}")
        if isinstance(cause, MCPError) and cause.code == METHOD_NOT_FOUND:
            return NotFound(f"the MCP server {endpoint.name} does not know this", hint="GET /v1/mcp/servers")
    return Unavailable(
        f"the MCP server {endpoint.name} does not answer as it should: {type(next(_leaves(error))).__name__}",
        hint="the operator finds it in mcp.toml; its own log says more",
    )


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _too_large(endpoint: Endpoint) -> TooLarge:
    return TooLarge(
        f"the answer of the MCP server {endpoint.name} is larger than {endpoint.server.max_bytes} bytes",
        hint="ask it for less, or let the operator raise max_bytes in mcp.toml",
    )
