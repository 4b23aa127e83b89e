"""Tools of allowed MCP servers: who may use which, what is checked before and after, what is audited."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from neuroedge.contract.errors import CircuitOpen, Forbidden, InvalidInput, NotFound, TooLarge, Unavailable
from neuroedge.contract.principal import READ, Principal
from neuroedge.infra.breaker import Breakers
from neuroedge.infra.mcp_client import Endpoint, McpClient, McpServer
from neuroedge.services.mcp_tools import McpTools
from neuroedge.stores.postgres import Database
from tests.mcp_servers import Served, serving
from tests.stores.conftest import new_principal

pytestmark = pytest.mark.anyio
DEAD = Endpoint(name="dead", server=McpServer(url="http://127.0.0.1:9/mcp", tools=("*",)))


@pytest.fixture
async def served() -> Served:
    """The server's own view of what it was asked."""
    return Served()


@pytest.fixture
async def url(served: Served) -> AsyncIterator[str]:
    """Where it answers."""
    async with serving(served) as at:
        yield at


@pytest.fixture
async def caller(db: Database) -> Principal:
    """The owner of a fresh organisation."""
    return await new_principal(db)


def _tools(db: Database, url: str, *others: Endpoint, allowed: tuple[str, ...] = ("*",), **more: Any) -> McpTools:
    endpoint = Endpoint(name="web", server=McpServer(url=url, tools=allowed, **more))
    return McpTools(db=db, endpoints=[endpoint, *others], client=McpClient(), breakers=Breakers())


async def _audited(db: Database, caller: Principal) -> list[str]:
    async with db.tenant(caller) as conn:
        cursor = await conn.execute("SELECT target FROM audit WHERE action = 'mcp.called' ORDER BY id")
        return [row["target"] for row in await cursor.fetchall()]


async def test_a_tool_is_offered_called_and_audited(db: Database, url: str, caller: Principal) -> None:
    """With a name that language models' APIs take; a server that is down is left out."""
    tools = _tools(db, url, DEAD, allowed=("echo",))
    (echo,) = await tools.tools(caller)
    assert (echo.server, echo.name, echo.function) == ("web", "echo", "web__echo")
    assert not echo.private
    answer = await tools.call(caller, "web", "echo", {"text": "hello"}, request_id="r")
    assert (answer.text, answer.structured, answer.failed, answer.signs) == ("hello", {"text": "hello"}, False, [])
    assert await _audited(db, caller) == ["mcp:web/echo"]


async def test_what_a_tool_says_is_looked_through(db: Database, url: str, caller: Principal) -> None:
    """An answer with orders to the model in it is marked; the tool's own failure is no error of ours."""
    tools = _tools(db, url)
    poisoned = await tools.call(caller, "web", "poison", {}, request_id="r")
    assert {"instruction_override", "prompt_disclosure"} <= set(poisoned.signs)
    assert (await tools.call(caller, "web", "fails", {}, request_id="r")).failed


async def test_a_tool_the_operator_does_not_allow_is_never_asked(
    db: Database, url: str, caller: Principal, served: Served
) -> None:
    """Nor one nobody has, nor a server nobody configured."""
    tools = _tools(db, url, allowed=("echo", "no-such-tool"))
    for server, tool in (("web", "poison"), ("web", "no-such-tool"), ("elsewhere", "echo")):
        with pytest.raises(NotFound):
            await tools.call(caller, server, tool, {}, request_id="r")
    assert served.calls == []
    assert await _audited(db, caller) == []


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({}, InvalidInput),
        ({"text": 7}, InvalidInput),
        ({"text": "a", "more": 1}, InvalidInput),
        ({"text": "x" * 101}, InvalidInput),
        ({"text": "x" * 70_000}, TooLarge),
        ({"text": object()}, InvalidInput),
    ],
)
async def test_wrong_arguments_are_refused_here(
    db: Database, url: str, caller: Principal, served: Served, arguments: dict[str, Any], error: type[Exception]
) -> None:
    """By the tool's own schema, before anything is sent."""
    with pytest.raises(error):
        await _tools(db, url).call(caller, "web", "echo", arguments, request_id="r")
    assert served.calls == []


async def test_a_schema_that_refers_elsewhere_is_not_followed(db: Database, url: str, caller: Principal) -> None:
    """A stranger's schema must not make this process fetch a URL."""
    with pytest.raises(InvalidInput, match="schema"):
        await _tools(db, url).call(caller, "web", "fetching", {"x": 1}, request_id="r")


@pytest.mark.parametrize("tool", ["unknown_type", "endless"])
async def test_a_schema_that_cannot_be_checked_is_told(
    db: Database, url: str, caller: Principal, served: Served, tool: str
) -> None:
    """A type nobody knows, a schema that is itself: nothing is sent."""
    with pytest.raises(InvalidInput, match="none that can be checked"):
        await _tools(db, url).call(caller, "web", tool, {"text": "a"}, request_id="r")
    assert served.calls == []


async def test_a_pattern_only_javascript_knows_is_left_to_the_server(db: Database, url: str, caller: Principal) -> None:
    """The rest of the schema is checked."""
    tools = _tools(db, url)
    assert (await tools.call(caller, "web", "javascript", {"text": "a"}, request_id="r")).text == "a"
    with pytest.raises(InvalidInput, match="are not what javascript takes"):
        await tools.call(caller, "web", "javascript", {"text": 1}, request_id="r")


async def test_a_server_can_be_for_some_organisations_only(db: Database, url: str, caller: Principal) -> None:
    """The others do not even learn that it exists."""
    stranger = await new_principal(db)
    tools = _tools(db, url, organisations=(caller.org_id,), allowed=("echo",))
    assert len(await tools.tools(caller)) == 1
    assert await tools.tools(stranger) == []
    assert await tools.servers(stranger) == []
    with pytest.raises(NotFound):
        await tools.call(stranger, "web", "echo", {"text": "a"}, request_id="r")


async def test_a_viewer_calls_no_tools(db: Database, url: str, caller: Principal, served: Served) -> None:
    """Tools need the permission to run engines."""
    viewer = replace(caller, role="viewer", permissions=frozenset({READ}))
    tools = _tools(db, url)
    assert await tools.tools(viewer) == []
    with pytest.raises(Forbidden):
        await tools.call(viewer, "web", "echo", {"text": "a"}, request_id="r")
    assert served.calls == []


async def test_a_stalled_server_is_left_alone_after_a_while(db: Database, url: str, caller: Principal) -> None:
    """Each call ends in time; after five in a row it is not even tried, while another server answers."""
    slow = Endpoint(name="slow", server=McpServer(url=url, tools=("sleep",), timeout_s=0.2))
    tools = _tools(db, url, slow)
    tried, error = 0, Unavailable("nothing tried")
    # On a busy machine it may not even tell its tools in time: that counts too, and a list that comes begins anew.
    while not isinstance(error, CircuitOpen) and tried < 50:
        with pytest.raises(Unavailable) as caught:
            await tools.call(caller, "slow", "sleep", {}, request_id="r")
        error, tried = caught.value, tried + 1
    assert 5 < tried < 50
    assert (await tools.call(caller, "web", "echo", {"text": "a"}, request_id="r")).text == "a"


async def test_servers_tell_whether_they_answer(db: Database, url: str, caller: Principal) -> None:
    """With their tools, or why not; nothing of their address."""
    web, dead = await _tools(db, url, DEAD, allowed=("echo",), private=True).servers(caller)
    assert (web.name, web.transport, web.private, web.answers, web.tools) == ("web", "http", True, True, ["echo"])
    assert (dead.answers, dead.tools) == (False, [])
    assert dead.detail
    assert "127.0.0.1" not in dead.detail
