"""Faults a running server survives: an engine that raises, callers that leave, no memory for a model."""

import asyncio
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.conftest import Server, running_server
from tests.plugins import install

ENGINES = '''
import asyncio
from neuroedge.contract.engine import Engine, EngineInput, EngineOutput
from neuroedge.contract.models import TEXT_EMBEDDING

class In(EngineInput):
    seconds: float = 0.0

class Out(EngineOutput):
    text: str

class Raising(Engine[In, Out]):
    """Raises."""
    name = "acme_raising"
    title = "Raises an error nobody expected"
    method = "none"
    example = In()
    async def run(self, payload, ctx):
        raise KeyError("a secret of the caller")

class Holding(Engine[In, Out]):
    """Holds the encoder."""
    name = "acme_holding"
    title = "Holds a model for a while"
    method = "none"
    example = In()
    needs = (TEXT_EMBEDDING,)
    async def run(self, payload, ctx):
        async with ctx.models.lease(TEXT_EMBEDDING):
            await asyncio.sleep(payload.seconds)
        return Out(method="none", text="held")
'''
LLM = "qwen2.5-coder-0.5b-instruct"


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[Server]:
    """A server with a third party's engines."""
    engines = {"raising": "Raising", "holding": "Holding"}
    env = install(tmp_path_factory.mktemp("site"), module="acme_faults", source=ENGINES, engines=engines)
    with running_server(tmp_path_factory.mktemp("faulty") / "data", models_dir, **env) as server:
        yield server


@pytest.fixture(scope="module")
def client(faulty: Server) -> Iterator[httpx.Client]:
    """An account on it."""
    with faulty.new_account() as account:
        yield account


def until(true: Callable[[], bool], *, seconds: float) -> None:
    """Wait, or fail."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_an_engine_that_raises_is_a_500_that_tells_nothing(faulty: Server, client: httpx.Client) -> None:
    """An id to find it in the log, a metric, and the next call of another engine is answered."""
    answer = client.post("/v1/engines/acme_raising/run", json={})
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert "secret" not in answer.text
    assert 'engine="acme_raising",outcome="internal"' in client.get("/metrics").text
    assert client.post("/v1/engines/acme_holding/run", json={}).status_code == 200
    until(lambda: client.get("/ready").status_code == 200, seconds=60)


@pytest.mark.models
def test_the_model_of_a_caller_that_left_is_free_again(client: httpx.Client) -> None:
    """Its engine is cancelled soon, not when it would have ended: then its outcome would be another."""

    async def leave() -> None:
        async with httpx.AsyncClient(base_url=client.base_url, headers=client.headers, timeout=60) as leaver:
            call = asyncio.create_task(leaver.post("/v1/engines/acme_holding/run", json={"seconds": 50}))
            async with asyncio.timeout(60):
                while not leases(client):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)

    asyncio.run(leave())
    until(lambda: leases(client) == 0, seconds=60)
    until(lambda: 'engine="acme_holding",outcome="cancelled"' in client.get("/metrics").text, seconds=60)


def test_a_stream_whose_listener_left_ends(client: httpx.Client) -> None:
    """A listener hangs up in mid-stream: the request ends, though the task it tells of waits for an hour."""
    order = {"engine": "acme_holding", "payload": {}, "delay_s": 3600}
    task = client.post("/v1/tasks", json=order).json()
    with client.stream("GET", f"/v1/tasks/{task['id']}/events") as stream:
        assert next(stream.iter_lines())
    ended = 'neuroedge_http_request_seconds_count{method="GET",route="/v1/tasks/{task_id}/events"'
    until(lambda: ended in client.get("/metrics").text, seconds=60)
    client.post(f"/v1/tasks/{task['id']}/cancel")


def leases(client: httpx.Client) -> int:
    """Calls that hold the encoder."""
    return int(client.get("/v1/models/all-minilm-l6-v2-int8").json()["leases"])


@pytest.mark.models
def test_no_memory_for_a_model_is_503_and_passes(faulty: Server, client: httpx.Client) -> None:
    """The process may not grow (rlimit): the load fails, everything else works, /ready tells; later it loads."""
    question = {"message": "What is the capital of France?"}
    fact = "The capital of France is Paris."
    assert client.post("/rag/memory", json={"content": fact}).status_code == 200
    pid = faulty.process.pid
    size = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
    hard = resource.prlimit(pid, resource.RLIMIT_AS)[1]
    resource.prlimit(pid, resource.RLIMIT_AS, (size + (200 << 20), hard))
    try:
        refused = client.post("/v1/engines/chat/run", json=question)
        assert refused.status_code == 503, refused.text
        assert refused.json()["code"] in ("not_enough_memory", "model_failed")
        assert LLM in refused.json()["detail"]
        assert client.post("/v1/engines/embedding/run", json={"texts": ["still here"]}).status_code == 200
        ready = client.get("/ready")
        assert ready.status_code == 503
        assert LLM in ready.json()["checks"]["models"]["detail"]
        assert f'neuroedge_model_load_failures_total{{code="{refused.json()["code"]}",model="{LLM}"}}' in (
            client.get("/metrics").text
        )
    finally:
        resource.prlimit(pid, resource.RLIMIT_AS, (hard, hard))
    assert client.post("/v1/engines/chat/run", json=question).status_code == 200
    until(lambda: client.get("/ready").status_code == 200, seconds=60)


@pytest.mark.models
def test_the_callers_deadline_ends_the_call(client: httpx.Client) -> None:
    """X-Request-Timeout: 408 when it has passed, not when the engine would have given up; the model is free again."""
    started = time.monotonic()
    answer = client.post("/v1/engines/acme_holding/run", json={"seconds": 50}, headers={"X-Request-Timeout": "0.5"})
    assert answer.status_code == 408
    assert answer.json()["code"] == "deadline_exceeded"
    assert time.monotonic() - started < 40
    assert leases(client) == 0


@pytest.mark.parametrize("seconds", ["soon", "-1", "0", "nan", "inf", ""])
def test_a_deadline_that_is_none_is_422(client: httpx.Client, seconds: str) -> None:
    """With what to send."""
    answer = client.post("/v1/engines/acme_holding/run", json={}, headers={"X-Request-Timeout": seconds})
    assert answer.status_code == 422
    assert "X-Request-Timeout" in answer.json()["detail"]
