"""neuroedge mcp: the Model Context Protocol over stdio, for assistants that start their servers as a command.

A thin proxy of a running server's /mcp: what a caller may see and do, and every limit, is decided there.
"""

import asyncio
import sys
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from mcp import Client
    from mcp.server import Server

TIMEOUT_S: Final = 600.0
"""Longest call: what the server's own limit is at most."""


def serve(*, url: str, token: str) -> None:
    """Answer the messages of stdin on stdout until stdin ends; exits with status 1 when the server refuses."""
    try:
        asyncio.run(_proxy(url, token))
    except* KeyboardInterrupt:
        pass
    except* Exception as group:
        print(f"error: {_first(group)}", file=sys.stderr)  # noqa: T201
        print(f"hint: check that NeuroEdge answers at {url} and that the token is valid", file=sys.stderr)  # noqa: T201
        raise SystemExit(1) from None


async def _proxy(url: str, token: str) -> None:
    import httpx2
    from mcp import Client
    from mcp.client.streamable_http import streamable_http_client
    from mcp.server.stdio import stdio_server

    async with (
        httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=TIMEOUT_S) as http,
        Client(streamable_http_client(f"{url.rstrip('/')}/mcp", http_client=http), cache=None) as upstream,
        stdio_server() as (incoming, outgoing),
    ):
        server = _server(upstream)
        await server.run(incoming, outgoing, server.create_initialization_options())


def _server(upstream: "Client") -> "Server[Any]":
    """A server whose every answer is the upstream's."""
    from mcp.server import Server

    def cursor(params: Any) -> str | None:
        return params.cursor if params else None

    async def list_tools(ctx: Any, params: Any) -> Any:
        return await upstream.list_tools(cursor=cursor(params))

    async def call_tool(ctx: Any, params: Any) -> Any:
        return await upstream.call_tool(params.name, params.arguments)

    async def list_resources(ctx: Any, params: Any) -> Any:
        return await upstream.list_resources(cursor=cursor(params))

    async def list_templates(ctx: Any, params: Any) -> Any:
        return await upstream.list_resource_templates(cursor=cursor(params))

    async def read_resource(ctx: Any, params: Any) -> Any:
        return await upstream.read_resource(params.uri)

    return Server(
        "neuroedge",
        title="NeuroEdge",
        version=version("neuroedge"),
        instructions=upstream.instructions,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        on_list_resources=list_resources,
        on_list_resource_templates=list_templates,
        on_read_resource=read_resource,
    )


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
