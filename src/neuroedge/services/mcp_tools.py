"""Tools of Model Context Protocol servers that the operator allows, for assistants and agents.

For an agent: `tools(principal)` gives what the caller may use now, each with the name to show a model (`function`),
its description and the JSON Schema of its arguments; `call(principal, server, tool, arguments, request_id=)` calls one.
Descriptions and answers are a stranger's words: quote them to a model as data. `signs` names the marks of prompt
injection found in an answer (kit/injection.py); a tool that is not `private` takes what it is given out of the house,
so a conversation that must stay local may not call it.
"""

import asyncio
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Literal

import structlog
from pydantic import BaseModel, Field
from pydantic_core import to_json

from neuroedge.contract import scope
from neuroedge.contract.errors import Forbidden, InvalidInput, NeuroEdgeError, NotFound, TooLarge
from neuroedge.contract.principal import RUN_ENGINES, Principal
from neuroedge.infra.breaker import Breakers
from neuroedge.infra.mcp_client import Endpoint, McpClient, RemoteTool
from neuroedge.kit.injection import signs
from neuroedge.stores import ledgers
from neuroedge.stores.postgres import Database

MAX_ARGUMENT_BYTES: Final = 64 * 1024
_KEEP_S: Final = 300.0
_LIST_S: Final = 10.0
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class McpTool:
    """A tool the caller may use."""

    server: str
    name: str
    description: str
    """The server's own words."""
    input_schema: Mapping[str, Any]
    read_only: bool
    """Whether the server says that it changes nothing."""
    private: bool
    """Whether what it is given stays with the operator."""
    signs: list[str]
    """Marks of prompt injection in its name and description."""

    @property
    def function(self) -> str:
        """A name that every language model's API takes, unique over all servers."""
        plain = "".join(c if c.isascii() and (c.isalnum() or c == "_") else "_" for c in self.name)
        return f"{self.server}__{plain}"[:64]


@dataclass(frozen=True, slots=True, kw_only=True)
class McpAnswer:
    """What a tool gave: data of a stranger."""

    text: str
    structured: Any
    """Any JSON, where the tool gives that too."""
    failed: bool
    """Whether the tool itself says that it failed; `text` tells why."""
    left_out: list[str]
    """Kinds of content that are not text."""
    signs: list[str]
    """Marks of prompt injection."""


class ServerStatus(BaseModel):
    """An MCP server and whether it answers."""

    name: str
    transport: Literal["http", "stdio"]
    private: bool = Field(description="Whether what it is sent stays with the operator.")
    answers: bool
    tools: list[str] = Field(description="Tools that may be called; empty while it does not answer.")
    detail: str | None = Field(default=None, description="Why it does not answer.")


class McpTools:
    """The tools of every allowed server, each behind a circuit breaker."""

    def __init__(self, *, db: Database, endpoints: Sequence[Endpoint], client: McpClient, breakers: Breakers) -> None:
        self._db = db
        self._endpoints = {endpoint.name: endpoint for endpoint in endpoints}
        self._client = client
        self._breakers = breakers
        self._listed: dict[str, tuple[float, list[RemoteTool]]] = {}

    async def tools(self, principal: Principal) -> list[McpTool]:
        """What the caller may use now; a server that does not answer is left out, and logged."""
        if not principal.may(RUN_ENGINES):
            return []
        endpoints = self._of(principal)
        listed = await asyncio.gather(*(self._known(endpoint) for endpoint in endpoints), return_exceptions=True)
        found: list[McpTool] = []
        for endpoint, tools in zip(endpoints, listed, strict=True):
            if isinstance(tools, NeuroEdgeError):
                log.warning("mcp_server_left_out", server=endpoint.name, code=tools.code)
            elif isinstance(tools, BaseException):
                raise tools
            else:
                found += [_offered(endpoint, tool) for tool in tools]
        return found

    async def servers(self, principal: Principal) -> list[ServerStatus]:
        """The servers the caller's organisation may use, asked now whether they answer."""

        async def status(endpoint: Endpoint) -> ServerStatus:
            tools, detail = [], None
            try:
                tools = [tool.name for tool in await self._ask_for_tools(endpoint)]
            except NeuroEdgeError as error:
                detail = error.detail
            return ServerStatus(
                name=endpoint.name,
                transport="stdio" if endpoint.server.command else "http",
                private=endpoint.server.private,
                answers=detail is None,
                tools=tools,
                detail=detail,
            )

        return list(await asyncio.gather(*(status(endpoint) for endpoint in self._of(principal))))

    async def call(
        self, principal: Principal, server: str, tool: str, arguments: Mapping[str, Any], *, request_id: str
    ) -> McpAnswer:
        """Call a tool; an audit row is written before anything is sent.

        Raises NotFound (no such server or tool for this caller), Forbidden, InvalidInput (the arguments break the
        tool's schema, or the server refuses them), TooLarge, CircuitOpen, Unavailable.
        """
        if not principal.may(RUN_ENGINES):
            raise Forbidden(f"calling tools needs the permission {RUN_ENGINES}")
        endpoint = next((one for one in self._of(principal) if one.name == server), None)
        if endpoint is None:
            raise NotFound(f"there is no MCP server {server[:100]!r}", hint="GET /v1/mcp/servers shows what there is")
        if not endpoint.server.allows(tool):
            raise _no_tool(server, tool)
        described = next((one for one in await self._known(endpoint) if one.name == tool), None)
        if described is None:
            raise _no_tool(server, tool)
        _check(described, arguments)
        async with self._db.tenant(principal) as conn:
            await ledgers.add_audit(
                conn,
                org_id=principal.org_id,
                user_id=principal.user_id,
                request_id=request_id,
                action="mcp.called",
                target=f"mcp:{server}/{tool}"[:500],
            )
        async with self._breakers.guard(f"mcp:{server}"):
            answer = await self._client.call(
                endpoint, tool, arguments, timeout_s=scope.remaining_s(endpoint.server.timeout_s)
            )
        structured = "" if answer.structured is None else to_json(answer.structured).decode()
        return McpAnswer(
            text=answer.text,
            structured=answer.structured,
            failed=answer.failed,
            left_out=answer.left_out,
            signs=signs(f"{answer.text}\n{structured}"),
        )

    def _of(self, principal: Principal) -> list[Endpoint]:
        return [
            endpoint
            for endpoint in self._endpoints.values()
            if not endpoint.server.organisations or principal.org_id in endpoint.server.organisations
        ]

    async def _known(self, endpoint: Endpoint) -> list[RemoteTool]:
        """The tools as they were told a few minutes ago at most."""
        told = self._listed.get(endpoint.name)
        if told is not None and time.monotonic() - told[0] < _KEEP_S:
            return told[1]
        return await self._ask_for_tools(endpoint)

    async def _ask_for_tools(self, endpoint: Endpoint) -> list[RemoteTool]:
        patience_s = scope.remaining_s(min(endpoint.server.timeout_s, _LIST_S))
        async with self._breakers.guard(f"mcp:{endpoint.name}"):
            found = await self._client.tools(endpoint, timeout_s=patience_s)
        self._listed[endpoint.name] = (time.monotonic(), found)
        return found


def _offered(endpoint: Endpoint, tool: RemoteTool) -> McpTool:
    return McpTool(
        server=endpoint.name,
        name=tool.name,
        description=tool.description,
        input_schema=tool.input_schema,
        read_only=tool.read_only,
        private=endpoint.server.private,
        signs=signs(f"{tool.name}\n{tool.description}"),
    )


def _no_tool(server: str, tool: str) -> NotFound:
    return NotFound(
        f"the MCP server {server} offers no tool {tool[:100]!r} here",
        hint="GET /v1/mcp/servers shows the tools the operator allows",
    )


def _check(tool: RemoteTool, arguments: Mapping[str, Any]) -> None:
    """Raises TooLarge or InvalidInput."""
    import referencing

    try:
        size = len(to_json(dict(arguments)))
    except ValueError as error:
        raise InvalidInput("the arguments are no JSON") from error
    if size > MAX_ARGUMENT_BYTES:
        raise TooLarge(f"the arguments are larger than {MAX_ARGUMENT_BYTES} bytes")
    try:
        # The empty registry: a schema of a stranger must not make this process fetch the URLs it refers to.
        wrong = list(
            _validator()(dict(tool.input_schema), registry=referencing.Registry()).iter_errors(dict(arguments))
        )
    except Exception as error:  # what is no schema, or refers to nothing or to itself, breaks the validator anyhow
        raise InvalidInput(f"the schema of the tool {tool.name[:100]} is none that can be checked") from error
    if wrong:
        raise InvalidInput(
            f"the arguments are not what {tool.name[:100]} takes",
            hint="its input_schema says what it takes",
            errors=[
                {"loc": tuple(one.absolute_path), "msg": one.message[:500], "type": one.validator} for one in wrong
            ],
        )


@cache
def _validator() -> Any:
    """The validator of JSON Schema, but for patterns that only JavaScript knows, such as \\p{L}: the server checks
    those."""
    from jsonschema import Draft202012Validator, validators

    def pattern(validator: Any, wanted: str, instance: Any, schema: Any) -> Iterator[Any]:
        with suppress(re.error):
            yield from Draft202012Validator.VALIDATORS["pattern"](validator, wanted, instance, schema)

    return validators.extend(Draft202012Validator, {"pattern": pattern})  # type: ignore[no-untyped-call]
