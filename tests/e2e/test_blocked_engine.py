"""A third party's engine that blocks the whole process: it alone fails, everybody else is served."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.conftest import Server, running_server
from tests.plugins import install

LIMIT_S = 2.0
ENGINES = '''
import asyncio, re, threading, time
from pydantic import BaseModel
from neuroedge.contract.engine import Engine, EngineInput, EngineOutput

class In(EngineInput):
    how: str = "not"

class Out(EngineOutput):
    text: str

def loop():
    while True:
        pass

def lock():
    held = threading.Lock()
    held.acquire()
    held.acquire()

def stubborn():
    while True:
        try:
            time.sleep(1000)
        except Exception as error:
            continue

KINDS = {
    "not": lambda: None,
    "loop": loop,
    "sleep": lambda: time.sleep(10**6),
    "lock": lock,
    "regex": lambda: re.match("(a+)+$", "a" * 60 + "b"),
    "stubborn": stubborn,
}

class Blocking(Engine[In, Out]):
    """Blocks."""
    name = "acme_blocking"
    title = "Blocks"
    method = "none"
    example = In()
    async def run(self, payload, ctx):
        await asyncio.sleep(0)
        KINDS[payload.how]()
        return Out(method="none", text="not blocked")

class Waiting(Engine[In, Out]):
    """Waits as it should, a little longer than a block may last."""
    name = "acme_waiting"
    title = "Waits"
    method = "none"
    example = In()
    async def run(self, payload, ctx):
        for _ in range(10):
            await asyncio.sleep(0.1)
        return Out(method="none", text="waited")
'''


@pytest.fixture(scope="module")
def blocked_server(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[Server]:
    """A server with the third party's distribution installed."""
    engines = {"blocking": "Blocking", "waiting": "Waiting"}
    env = install(tmp_path_factory.mktemp("site"), module="acme_engines", source=ENGINES, engines=engines)
    env["NEUROEDGE_LOOP_BLOCK_LIMIT_S"] = str(LIMIT_S)
    with running_server(tmp_path_factory.mktemp("blocked") / "data", models_dir, **env) as server:
        yield server


def _run(client: httpx.Client, engine: str, how: str = "not") -> httpx.Response:
    return client.post(f"/v1/engines/{engine}/run", json={"how": how})


def _metric(server: Server, name: str) -> float:
    value = server.metric(name)
    assert value is not None, name
    return value


@pytest.mark.parametrize("how", ["loop", "sleep", "lock", "regex", "stubborn"])
def test_an_engine_that_blocks_for_ever_fails_alone(how: str, blocked_server: Server) -> None:
    """503 to its caller; a call under way and /health come back, and the engine itself answers the next call."""
    with blocked_server.new_account() as client, ThreadPoolExecutor(3) as callers:
        assert _run(client, "acme_blocking").status_code == 200  # what is slow the first time is over
        before = _metric(blocked_server, "neuroedge_loop_blocked_total")
        other = callers.submit(_run, client, "acme_waiting")
        time.sleep(0.3)
        blocked = callers.submit(_run, client, "acme_blocking", how)
        time.sleep(0.3)
        # Of a block that is not ended, not even this would be the end.
        assert httpx.get(f"{blocked_server.url}/health", timeout=60).status_code == 200
        assert other.result(timeout=60).json()["result"]["text"] == "waited"
        answer = blocked.result(timeout=60)
        assert (answer.status_code, answer.json()["code"]) == (503, "engine_blocked"), answer.text
        assert int(answer.headers["Retry-After"]) >= 1
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert _run(client, "acme_blocking").json()["result"]["text"] == "not blocked"
    assert _metric(blocked_server, "neuroedge_loop_blocked_total") == before + 1
    log = (blocked_server.data_dir.parent / f"{blocked_server.data_dir.name}.log").read_text()
    line = next(line for line in reversed(log.splitlines()) if "loop_blocked" in line)
    assert "acme_engines.py" in line
    assert answer.headers["X-Request-ID"] in line


def test_the_loops_lag_is_measured(blocked_server: Server) -> None:
    """A gap as long as the block, and many short ones."""
    assert _metric(blocked_server, "neuroedge_loop_lag_seconds_count") > 10
