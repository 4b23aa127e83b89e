"""Hot reload of a third party's engine while requests come in: none is lost, none is answered by a broken version."""

import asyncio
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import valkey.asyncio

from neuroedge.bootstrap import open_servers
from neuroedge.infra.events import Events
from neuroedge.settings import Settings
from tests.conftest import PASSWORD, Server, running_server
from tests.plugins import install

CALLERS = 8
SOURCE = '''
import asyncio
from pathlib import Path
from pydantic import Field
from neuroedge.contract.engine import Engine, EngineInput, EngineOutput, Health
{top}

class Input(EngineInput):
    seconds: float = Field(default=0.01, description="How long to think.")
    begun: str = Field(default="", description="File that is made when a run begins.")
    {field}

class Output(EngineOutput):
    version: str = Field(description="Who answered.")

class Probe({base}):
    """Says its version."""
    name = "{name}"
    version = "{version}"
    title = "Says its version"
    method = "probe"
    example = Input()
    {cls}

    async def run(self, payload, ctx):
        if payload.begun:
            Path(payload.begun).touch()
        await asyncio.sleep(payload.seconds)
        return Output(method=self.method, version=self.version)
'''
BROKEN = {
    "syntax error": ("import", {"top": "def broken(:"}),
    "import error": ("import", {"top": "import no_such_module_at_all"}),
    "exits at import": ("import", {"top": "import sys; sys.exit(1)"}),
    "base exception at import": ("import", {"top": "raise BaseException('odd')"}),
    "renamed": ("contract", {"name": "acme_other"}),
    "missing field": ("contract", {"cls": "example = None"}),
    "wrong class": ("contract", {"base": "object"}),
    "constructor": ("build", {"cls": "def __init__(self, *, probe): raise OSError"}),
    "unavailable": (
        "health",
        {"cls": "async def health(self): return Health(status='unavailable', method='m', detail='gone')"},
    ),
    "self-test raises": ("post_swap_test", {"cls": "async def post_swap_test(self): raise ValueError('wrong')"}),
    "self-test exits": ("post_swap_test", {"cls": "async def post_swap_test(self): raise SystemExit"}),
}
ENDLESS = {
    "hangs at import": ("import", {"top": "while True: pass"}),
    "self-test hangs": ("post_swap_test", {"cls": "async def post_swap_test(self): await asyncio.sleep(1000)"}),
    "self-test blocks": ("post_swap_test", {"cls": "async def post_swap_test(self):\n        while True: pass"}),
}
IN_TIME = {"NEUROEDGE_ENGINE_PROOF_S": "8", "NEUROEDGE_LOOP_BLOCK_LIMIT_S": "1"}
"""Settings under which the endless end soon; a good version may find them short on a busy machine."""


class Plugin:
    """The third party's distribution, installed on its own path."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = install(folder, module="acme_probe", source=_source("1"), engines={"probe": "Probe"})

    def write(self, version: str, **parts: str) -> None:
        """Put a version on disk."""
        (self.folder / "acme_probe.py").write_text(_source(version, **parts))


def _source(version: str, **parts: str) -> str:
    usual = {"name": "acme_probe", "base": "Engine[Input, Output]", "top": "", "cls": "", "field": ""}
    return SOURCE.format(version=version, **{**usual, **parts})


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Plugin:
    """The installed distribution."""
    return Plugin(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def plugged(tmp_path_factory: pytest.TempPathFactory, models_dir: Path, plugin: Plugin) -> Iterator[Server]:
    """A server with the plugin."""
    with running_server(tmp_path_factory.mktemp("plugged") / "data", models_dir, **plugin.env) as server:
        yield server


@pytest.fixture(scope="module")
def operator(plugged: Server) -> Iterator[httpx.Client]:
    """An operator of the installation, made on the command line."""
    name = f"operator-{secrets.token_hex(4)}"
    subprocess.run(
        [sys.executable, "-m", "neuroedge", "users", "create", name, f"{name}@example.org", "--admin"],
        env={**plugged.env, "NEUROEDGE_PASSWORD": PASSWORD},
        check=True,
        capture_output=True,
    )
    with httpx.Client(base_url=plugged.url, timeout=300) as client:
        tokens = client.post("/auth/login", json={"username": name, "password": PASSWORD}).json()
        client.headers["Authorization"] = f"Bearer {tokens['access_token']}"
        yield client


@pytest.fixture
def version(plugin: Plugin, operator: httpx.Client) -> Iterator[Callable[[], str]]:
    """Gives a new version at every call; afterwards a good one is on disk and answers."""
    number = iter(f"{time.time_ns()}.{n}" for n in range(1000))
    yield lambda: next(number)
    plugin.write(next(number))
    assert _reload(operator).status_code == 200


def _reload(operator: httpx.Client) -> httpx.Response:
    return operator.post("/v1/admin/engines/acme_probe/reload")


def _run(client: httpx.Client, **payload: Any) -> httpx.Response:
    return client.post("/v1/engines/acme_probe/run", json=payload)


def _metric(server: Server, line: str) -> float:
    return server.metric(line) or 0.0


def _until(wanted: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not wanted():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class Load:
    """Callers that never pause; what each was answered."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._ends = threading.Event()
        self.answers: list[tuple[int, str, str]] = []
        self.failures: list[str] = []

    def versions(self) -> set[str]:
        """Who answered; every answer must be a 200 that names its version twice alike."""
        assert self.failures == []
        assert {status for status, _, _ in self.answers} == {200}
        assert all(outer == inner for _, outer, inner in self.answers)
        return {inner for _, _, inner in self.answers}

    def more(self) -> None:
        """Wait for so many answers that all but the first few are to calls sent from now on."""
        enough = len(self.answers) + 5 * CALLERS
        _until(lambda: len(self.answers) >= enough or bool(self.failures))

    def _call(self, client: httpx.Client, n: int) -> None:
        while not self._ends.is_set():
            # Some calls take longer than a reload.
            seconds = 0.4 if n == 0 else 0.005 * n
            try:
                answer = _run(client, seconds=seconds)
                body = answer.json()
                self.answers.append((answer.status_code, body.get("version"), body.get("result", {}).get("version")))
            except Exception as error:
                self.failures.append(repr(error))

    @contextmanager
    def running(self) -> Iterator[None]:
        """Call until the block ends."""
        with self._server.new_account() as client:
            callers = [threading.Thread(target=self._call, args=(client, n)) for n in range(CALLERS)]
            for caller in callers:
                caller.start()
            try:
                yield
            finally:
                self._ends.set()
                for caller in callers:
                    caller.join()


def test_no_request_is_lost_while_good_versions_take_over(
    plugged: Server, plugin: Plugin, operator: httpx.Client, version: Callable[[], str]
) -> None:
    """Ten reloads under load; after each, the next call is answered by the new version."""
    load, versions = Load(plugged), []
    with load.running():
        for _ in range(10):
            versions.append(version())
            plugin.write(versions[-1])
            answer = _reload(operator)
            assert answer.status_code == 200, answer.text
            outcome = answer.json()
            assert (outcome["outcome"], outcome["version_after"]) == ("swapped", versions[-1])
            assert outcome["drained"]
            assert _run(operator).json()["result"]["version"] == versions[-1]
            load.more()
    assert set(versions) <= load.versions()
    assert len(load.answers) >= 300


def test_no_request_is_answered_by_a_broken_version(
    plugged: Server, plugin: Plugin, operator: httpx.Client, version: Callable[[], str]
) -> None:
    """Every kind of broken, one after the other under load: 422 with stage and reason, the old version goes on."""
    good = version()
    plugin.write(good)
    assert _reload(operator).status_code == 200
    load = _rejecting(plugged, plugin, operator, BROKEN, good=good)
    assert len(load.answers) >= 300


def test_no_request_is_answered_by_a_version_that_never_ends(tmp_path: Path, models_dir: Path) -> None:
    """Likewise: it is given up when its time is over, and what blocks the event loop before that."""
    plugin = Plugin(tmp_path / "site")
    with (
        running_server(tmp_path / "data", models_dir, **plugin.env, **IN_TIME) as server,
        server.new_operator() as operator,
    ):
        _rejecting(server, plugin, operator, ENDLESS, good="1")


def _rejecting(
    server: Server,
    plugin: Plugin,
    operator: httpx.Client,
    broken: dict[str, tuple[str, dict[str, str]]],
    *,
    good: str,
) -> Load:
    """The load under which each broken version was rejected."""
    generation = operator.get("/v1/engines/acme_probe").json()["generation"]
    load = Load(server)
    with load.running():
        for kind, (stage, parts) in broken.items():
            plugin.write("broken", **parts)
            answer = _reload(operator)
            assert answer.status_code == 422, (kind, answer.text)
            assert answer.headers["content-type"] == "application/problem+json"
            problem = answer.json()
            assert (problem["code"], problem["outcome"]) == ("reload_rejected", "rolled_back")
            assert problem["stage"] == stage, (kind, problem)
            assert problem["detail"]
            assert (problem["version_after"], problem["generation"]) == (good, generation)
            assert _run(operator).json()["result"]["version"] == good
            load.more()
    assert load.versions() == {good}
    return load


def test_a_second_reload_of_the_engine_is_refused_meanwhile(
    tmp_path: Path, plugin: Plugin, operator: httpx.Client, version: Callable[[], str]
) -> None:
    """409, by both paths; another engine is not held up."""
    begun, go = tmp_path / "begun", tmp_path / "go"
    test = (
        "async def post_swap_test(self):",
        f"Path({str(begun)!r}).touch()",
        f"while not Path({str(go)!r}).exists(): await asyncio.sleep(0.02)",
    )
    plugin.write(version(), cls="\n        ".join(test))
    first: list[httpx.Response] = []
    thread = threading.Thread(target=lambda: first.append(_reload(operator)))
    thread.start()
    try:
        _until(begun.exists)
        second = [_reload(operator), operator.post("/admin/engines/reload/acme_probe")]
    finally:
        go.touch()
        thread.join()
    assert first[0].status_code == 200
    assert [(answer.status_code, answer.json()["code"]) for answer in second] == [(409, "conflict")] * 2


def test_only_operators_reload(plugged: Server, operator: httpx.Client) -> None:
    """An organisation's owner is none; an unknown engine is a 404."""
    with plugged.new_account() as owner, httpx.Client(base_url=plugged.url, timeout=60) as nobody:
        for path in ("/v1/admin/engines/{}/reload", "/admin/engines/reload/{}"):
            assert nobody.post(path.format("acme_probe")).status_code == 401
            refused = owner.post(path.format("acme_probe"))
            assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
            assert operator.post(path.format("nothing")).status_code == 404


def test_changed_schemas_hold_from_the_swap_on(
    plugin: Plugin, operator: httpx.Client, version: Callable[[], str]
) -> None:
    """Validation, the engine's page and OpenAPI are those of the version that answers."""
    assert "mood" not in operator.get("/openapi.json").json()["components"]["schemas"]["AcmeProbeInput"]["properties"]
    assert _run(operator, mood="good").status_code == 422
    plugin.write(version(), field='mood: str = Field(default="good", description="How it feels.")')
    assert _reload(operator).status_code == 200
    assert _run(operator, mood="good").status_code == 200
    assert "mood" in operator.get("/v1/engines/acme_probe").json()["input_schema"]["properties"]
    assert "mood" in operator.get("/openapi.json").json()["components"]["schemas"]["AcmeProbeInput"]["properties"]


def test_a_reload_is_an_event_an_audit_row_and_a_metric(
    plugged: Server, plugin: Plugin, operator: httpx.Client, version: Callable[[], str]
) -> None:
    """In the operator's organisation, with both versions and the request."""
    new, org = version(), operator.get("/auth/me").json()["tenant"]
    plugin.write(new)
    request_id = operator.post("/v1/admin/engines/acme_probe/reload").headers["x-request-id"]

    async def kept() -> tuple[list[Any], list[Any]]:
        settings = Settings(data_dir=plugged.data_dir, _env_file=None)  # type: ignore[call-arg]
        async with open_servers(settings) as servers:
            client = valkey.asyncio.Valkey.from_url(servers.valkey)
            events = []
            async for event in Events(client).follow(org, "admin-events"):
                if event is None:
                    break
                events.append(event)
            await client.aclose()
            async with await psycopg.AsyncConnection.connect(servers.postgres_owner) as conn:
                await conn.execute("SELECT set_config('app.current_org_id', %s, false)", [org])
                cursor = await conn.execute(
                    "SELECT action, target, detail FROM audit WHERE org_id = %s AND request_id = %s", [org, request_id]
                )
                return events, await cursor.fetchall()

    events, rows = asyncio.run(kept())
    assert events[-1].name == "engine.reload"
    assert (events[-1].data["version_after"], events[-1].data["request_id"]) == (new, request_id)
    [(action, target, detail)] = rows
    assert (action, target) == ("engine.reloaded", "engine:acme_probe")
    assert (detail["version_after"], detail["outcome"]) == (new, "swapped")
    labels = f'{{engine="acme_probe",outcome="swapped",version="{new}"}}'
    assert _metric(plugged, f"neuroedge_engine_reloads_total{labels}") == 1


def test_the_installations_other_processes_follow(
    plugged: Server,
    plugin: Plugin,
    operator: httpx.Client,
    version: Callable[[], str],
    models_dir: Path,
) -> None:
    """A second server of the same installation reloads too; a version the first rejects is never asked of it."""
    with (
        running_server(plugged.data_dir, models_dir, **plugin.env) as second,
        httpx.Client(base_url=second.url, headers=operator.headers, timeout=60) as there,
    ):
        for _ in range(2):
            new = version()
            plugin.write(new)
            assert _reload(operator).status_code == 200
            _until(lambda new=new: there.get("/v1/engines/acme_probe").json()["version"] == new)
            assert _run(there).json()["result"]["version"] == new
        plugin.write("broken", top="raise RuntimeError")
        assert _reload(operator).status_code == 422
        time.sleep(1)
        assert there.get("/v1/engines/acme_probe").json()["generation"] == 3


def test_work_whose_caller_left_is_cancelled(tmp_path: Path, plugged: Server) -> None:
    """Long before it would have ended, and counted as cancelled."""
    line = 'neuroedge_engine_seconds_count{engine="acme_probe",outcome="cancelled"}'
    before, begun = _metric(plugged, line), tmp_path / "begun"
    with plugged.new_account() as client:
        request = client.build_request("POST", "/v1/engines/acme_probe/run", json={"seconds": 600, "begun": str(begun)})
        lines = ["POST /v1/engines/acme_probe/run HTTP/1.1", *(f"{k}: {v}" for k, v in request.headers.items()), "", ""]
        address = (request.url.host, request.url.port or 80)
        with socket.create_connection(address, timeout=60) as caller:
            caller.sendall("\r\n".join(lines).encode() + request.content)
            _until(begun.exists)
    _until(lambda: _metric(plugged, line) > before)


@pytest.mark.models
def test_a_built_in_engine_reloads_and_those_that_use_it_still_do(operator: httpx.Client) -> None:
    """search is called by chat with chat's own view of its classes."""
    assert operator.post("/v1/engines/embedding/run", json={"texts": ["the self-tests need the encoder"]}).is_success
    for name in ("search", "embedding"):
        answer = operator.post(f"/v1/admin/engines/{name}/reload")
        assert (answer.status_code, answer.json()["outcome"]) == (200, "swapped"), answer.text
    assert operator.post("/v1/engines/search/run", json={"query": "anything"}).json()["result"]["hits"] == []
    chat = operator.post("/v1/engines/chat/run", json={"message": "Who is Sheila?"})
    assert chat.status_code == 200, chat.text
