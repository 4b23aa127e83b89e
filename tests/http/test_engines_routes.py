"""The engine routes: what a body may be, what an answer is, OpenAPI of what runs now, and callers that leave."""

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import UUID

import pytest
from fastapi import FastAPI
from pydantic import BaseModel, Field
from starlette.testclient import TestClient

from neuroedge.bootstrap import build_app
from neuroedge.contract.engine import Engine, EngineInput, EngineOutput
from neuroedge.http import departure
from neuroedge.http.routes.engines import build_router
from neuroedge.settings import Settings
from tests.fakes import make_context, make_principal
from tests.http.plain_platform import make_app, token

JSON = "application/json"


class Part(BaseModel):
    """Of both."""

    n: float = 0.0


class Input(EngineInput):
    """Anything."""

    text: str = "hello"
    any: dict[str, Any] = Field(default_factory=dict)
    part: Part | None = None
    seconds: float = 0.0


class Output(EngineOutput):
    """What came in, in types that JSON does not have."""

    got: dict[str, Any]
    id: UUID
    at: datetime
    part: Part | None
    nothing: float
    kind: Literal["a"] = "a"


class Echo(Engine[Input, Output]):
    """Says what it was told."""

    name = "echo_back"
    title = "Says what it was told"
    method = "echo"
    example = Input(text="example")
    began = asyncio.Event()
    cancelled = False

    async def run(self, payload: Input, ctx: Any) -> Output:
        """Wait, then answer."""
        self.began.set()
        try:
            await asyncio.sleep(payload.seconds)
        except asyncio.CancelledError:
            type(self).cancelled = True
            raise
        return Output(
            got=payload.model_dump(),
            id=UUID(int=7),
            at=datetime(2026, 1, 2, tzinfo=UTC),
            part=payload.part,
            nothing=float("nan"),
            method=self.method,
        )


class Output2(EngineOutput):
    """Nothing in common with the other."""

    part: str


class Echo2(Engine[Part, Output2]):  # type: ignore[type-var]
    """The next version, with other classes."""

    name = "echo_back"
    title = "Says what it was told, better"
    version = "2"
    method = "echo"
    example = Part(n=1.5)

    async def run(self, payload: Part, ctx: Any) -> Output2:
        """Answer."""
        return Output2(part=f"{payload.n}", method=self.method)


class Other(Echo):
    """Another engine with parts of the same names."""

    name = "other"


@pytest.fixture
def app() -> FastAPI:
    """Two engines."""
    return make_app(build_router(), Echo, Other)


@pytest.fixture
def caller(app: FastAPI) -> Iterator[TestClient]:
    """Somebody who may run engines."""
    with TestClient(app, headers=token(app, make_principal())) as client:
        yield client


def _post(client: TestClient, content: bytes, content_type: str | None = JSON, path: str = "") -> Any:
    headers = {} if content_type is None else {"Content-Type": content_type}
    return client.post(path or "/v1/engines/echo_back/run", content=content, headers=headers)


BAD: list[tuple[bytes, str]] = [
    (b"", "no body"),
    (b" ", "not JSON"),
    (b"{", "not JSON"),
    (b"{} {}", "not JSON"),
    (b"{'text': 1}", "not JSON"),
    (b"[]", "no JSON object"),
    (b'"text"', "no JSON object"),
    (b"null", "no JSON object"),
    (b'{"text": "a", "text": "b"}', "'text' stands twice"),
    (b'{"any": {"x": [{"k": 1, "l": 2, "k": 3}]}}', "'k' stands twice"),
    (b'{"any": {"x": NaN}}', "NaN is no number"),
    (b'{"seconds": Infinity}', "Infinity is no number"),
    (b'{"seconds": -Infinity}', "-Infinity is no number"),
    (b'{"any": {"x": ' + b"9" * 10_000 + b"}}", "number is too long"),
    (b'{"text": "\xff"}', "no text in UTF-8"),
    (b'{"any": {"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}", "too deeply"),
]


@pytest.mark.parametrize(("body", "detail"), BAD, ids=[detail for _, detail in BAD])
def test_a_body_that_is_no_json_object_is_the_callers_error(caller: TestClient, body: bytes, detail: str) -> None:
    """422 that says what is wrong, by the typed route and by /engine/run."""
    for path in ("/v1/engines/echo_back/run", "/engine/run"):
        answer = _post(caller, body, path=path)
        assert answer.status_code == 422, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        problem = answer.json()
        assert problem["code"] == "invalid_input"
        assert detail in problem["detail"]
        assert problem["hint"]
        assert problem["errors"][0]["loc"][0] == "body"


@pytest.mark.parametrize("content_type", [None, "", "text/plain", "application/x-www-form-urlencoded", "json", "a/b/c"])
def test_a_body_that_is_not_declared_as_json_is_refused(caller: TestClient, content_type: str | None) -> None:
    """415 with the header to send."""
    answer = _post(caller, b"{}", content_type)
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media")
    assert JSON in answer.json()["hint"]


@pytest.mark.parametrize("content_type", [JSON, "Application/JSON; charset=utf-8", "application/vnd.acme+json"])
def test_every_way_to_declare_json_is_taken(caller: TestClient, content_type: str) -> None:
    """Parameters, case, and media types built on JSON."""
    assert _post(caller, b"{}", content_type).status_code == 200


def test_fields_that_are_wrong_are_named(caller: TestClient) -> None:
    """Unknown ones, wrong types, and a wrong envelope."""
    wrong = _post(caller, b'{"text": 1, "no_such_field": 2}')
    assert {error["loc"][-1] for error in wrong.json()["errors"]} == {"text", "no_such_field"}
    for body in ({}, {"engine": "echo_back"}, {"engine": 1, "payload": {}}, {"engine": "x", "payload": {}, "y": 1}):
        envelope = caller.post("/engine/run", json=body)
        assert (envelope.status_code, envelope.json()["code"]) == (422, "invalid_input")
        assert envelope.json()["errors"]


def test_an_engine_that_is_none_is_not_found_whatever_the_body(caller: TestClient) -> None:
    """404 before the body is looked at."""
    assert _post(caller, b"{", path="/v1/engines/nothing/run").status_code == 404
    assert caller.post("/engine/run", json={"engine": "nothing", "payload": {}}).status_code == 404


def test_the_answer_is_what_the_output_gives_in_its_envelope(caller: TestClient) -> None:
    """Ids, times and NaN as pydantic writes them; both routes alike."""
    typed = caller.post("/v1/engines/echo_back/run", json={"part": {"n": 2}}, headers={"X-Request-ID": 'r-"1'})
    named = caller.post("/engine/run", json={"engine": "echo_back", "payload": {"part": {"n": 2}}})
    assert typed.headers["content-type"] == JSON
    body = typed.json()
    assert list(body) == ["engine", "version", "request_id", "result"]
    assert (body["engine"], body["version"]) == ("echo_back", "1")
    assert body["request_id"] == typed.headers["x-request-id"]
    assert body["result"] == named.json()["result"]
    assert body["result"]["at"] == "2026-01-02T00:00:00Z"
    assert body["result"]["id"] == str(UUID(int=7))
    assert body["result"]["part"] == {"n": 2.0}
    assert body["result"]["nothing"] is None
    expected = {"got", "id", "at", "part", "nothing", "kind", "method", "models"}
    assert set(body["result"]) == expected


def test_nobody_and_viewers_do_not_run(app: FastAPI) -> None:
    """401 and 403 before the body is read."""
    with TestClient(app) as nobody:
        assert _post(nobody, b"{").status_code == 401
        viewer = make_principal()
        object.__setattr__(viewer, "permissions", frozenset({"read"}))
        nobody.headers.update(token(app, viewer))
        assert _post(nobody, b"{").status_code == 403


def test_half_a_surrogate_pair_is_refused(caller: TestClient) -> None:
    """It is JSON, but no text; a whole pair is a character as any other."""
    half = _post(caller, b'{"any": {"a": "x\\ud83d"}}')
    assert half.status_code == 422
    assert "surrogate" in half.json()["detail"]
    assert half.json()["hint"]
    whole = _post(caller, b'{"any": {"a": "\\ud83e\\udd80"}}')
    assert whole.json()["result"]["got"]["any"] == {"a": "\U0001f980"}


def test_the_list_tells_health_and_latency(app: FastAPI, caller: TestClient) -> None:
    """Median and 95th percentile of successful calls; failed ones and engines never called count nothing."""
    metrics = app.state.platform.metrics
    for seconds in [0.02] * 9 + [4.0]:
        metrics.observe_engine("echo_back", "ok", seconds)
    metrics.observe_engine("echo_back", "internal", 50)
    listed = {engine["name"]: engine for engine in caller.get("/v1/engines").json()["engines"]}
    assert listed["echo_back"]["health"]["status"] == "ready"
    latency = listed["echo_back"]["latency"]
    assert latency["calls"] == 10
    assert 0.01 < latency["p50_s"] <= 0.025
    assert 2.5 < latency["p95_s"] <= 5
    assert latency["histogram"] == [{"up_to_s": 0.025, "calls": 9}, {"up_to_s": 5.0, "calls": 1}]
    assert listed["other"]["latency"] == {"calls": 0, "p50_s": None, "p95_s": None, "histogram": []}
    assert caller.get("/engines").json()["count"] == 2


def test_pages_show_the_engine_that_answers_now(app: FastAPI, caller: TestClient) -> None:
    """After a replacement: version, generation, schema, example, answers and OpenAPI are the new one's."""
    before = caller.get("/openapi.json").json()
    app.state.platform.runner.registry.replace(Echo2(probe=make_context()))  # type: ignore[arg-type]
    page = caller.get("/v1/engines/echo_back").json()
    assert (page["version"], page["generation"], page["title"]) == ("2", 2, "Says what it was told, better")
    assert set(page["input_schema"]["properties"]) == {"n"}
    assert page["example"] == {"n": 1.5}
    assert [e["generation"] for e in caller.get("/v1/engines").json()["engines"]] == [2, 1]
    assert _post(caller, b'{"text": "old"}').json()["version"] == "2"
    assert _post(caller, b'{"n": "x"}').status_code == 422
    assert _post(caller, b'{"n": 3}').json()["result"]["part"] == "3.0"
    after = caller.get("/openapi.json").json()
    assert set(before["components"]["schemas"]["EchoBackInput"]["properties"]) > {"text", "seconds"}
    assert set(after["components"]["schemas"]["EchoBackInput"]["properties"]) == {"n"}
    assert after["paths"]["/v1/engines/other/run"] == before["paths"]["/v1/engines/other/run"]


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for inner in value.values():
            yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)


def test_engines_with_parts_of_the_same_names_do_not_mix_in_openapi(caller: TestClient) -> None:
    """Each schema is named by its engine, and every reference leads somewhere."""
    api = caller.get("/openapi.json").json()
    schemas = api["components"]["schemas"]
    for title in ("EchoBack", "Other"):
        for part in ("Input", "Output", "Answer", "Part"):
            assert schemas[f"{title}{part}"]["title"] == f"{title}{part}"
        reference = schemas[f"{title}Output"]["properties"]["part"]["anyOf"][0]["$ref"]
        assert reference == f"#/components/schemas/{title}Part"
    assert api["paths"]["/v1/engines/other/run"]["post"]["summary"] == "Run other: Says what it was told"


def test_the_whole_api_is_documented_without_a_dangling_reference() -> None:
    """All engines: request with an example that is valid, answer, problems; no module path in a name."""
    api = build_app(Settings()).openapi()
    schemas = api["components"]["schemas"]
    assert {reference.removeprefix("#/components/schemas/") for reference in _references(api)} <= set(schemas)
    assert not [name for name in schemas if "neuroedge" in name or name.endswith("_")]
    runs = {path: operation["post"] for path, operation in api["paths"].items() if path.endswith("/run")}
    assert "/v1/engines/{name}/run" not in runs
    assert len(runs) > 8
    for path, run in runs.items():
        assert {"200", "401", "403", "404", "415", "422", "429", "503"} <= set(run["responses"]), path
        assert run["security"]
        assert not run.get("parameters")
    content = runs["/v1/engines/embedding/run"]["requestBody"]["content"][JSON]
    assert content["schema"] == {"$ref": "#/components/schemas/EmbeddingInput"}
    assert content["example"]["texts"]
    answer = runs["/v1/engines/embedding/run"]["responses"]["200"]["content"][JSON]["schema"]["$ref"]
    result = schemas[answer.rsplit("/", 1)[1]]["properties"]["result"]
    assert result == {"$ref": "#/components/schemas/EmbeddingOutput"}


class Connection:
    """A client's side of one ASGI request: sends the body, stays, then may leave."""

    def __init__(self, app: FastAPI, body: dict[str, Any]) -> None:
        self._app = app
        self._body: bytes | None = json.dumps(body).encode()
        self.leaves = asyncio.Event()
        self.reads = 0
        self.status: list[int] = []

    async def exchange(self) -> None:
        """The whole request."""
        headers = {**token(self._app, make_principal()), "content-type": JSON}
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/engines/echo_back/run",
            "raw_path": b"/v1/engines/echo_back/run",
            "query_string": b"",
            "root_path": "",
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
            "app": self._app,
        }
        await self._app(scope, self._receive, self._send)

    async def _receive(self) -> Any:
        self.reads += 1
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self.leaves.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status.append(message["status"])


@pytest.mark.anyio
async def test_a_call_whose_caller_leaves_is_cancelled(app: FastAPI) -> None:
    """At once, not when it would have ended; 499 stands in log and metrics."""
    Echo.began, Echo.cancelled = asyncio.Event(), False
    connection = Connection(app, {"seconds": 1000})
    request = asyncio.create_task(connection.exchange())
    await Echo.began.wait()
    assert not request.done()
    connection.leaves.set()
    await asyncio.wait_for(request, 60)
    assert Echo.cancelled
    assert connection.status == [499]


@pytest.mark.anyio
async def test_a_short_call_does_not_watch_its_caller(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    """The body is read and nothing else; nothing is left running."""
    monkeypatch.setattr(departure, "_WATCH_AFTER_S", 60.0)
    connection = Connection(app, {})
    before = len(asyncio.all_tasks())
    await connection.exchange()
    assert (connection.status, connection.reads) == ([200], 1)
    assert len(asyncio.all_tasks()) == before


@pytest.mark.anyio
async def test_a_long_call_whose_caller_stays_is_answered(app: FastAPI) -> None:
    """Watching leaves no task behind."""
    connection = Connection(app, {"seconds": 0.7})
    before = len(asyncio.all_tasks())
    await connection.exchange()
    await asyncio.sleep(0)
    assert (connection.status, connection.reads) == ([200], 2)
    assert len(asyncio.all_tasks()) == before


@pytest.mark.anyio
async def test_a_server_that_stops_cancels_the_call_itself(app: FastAPI) -> None:
    """That cancellation is not taken for a caller who left."""
    Echo.began = asyncio.Event()
    connection = Connection(app, {"seconds": 1000})
    request = asyncio.create_task(connection.exchange())
    await Echo.began.wait()
    request.cancel()
    await asyncio.wait([request], timeout=60)
    assert request.cancelled()
    assert connection.status == []


@pytest.mark.anyio
async def test_a_caller_who_leaves_before_the_body_is_whole(app: FastAPI) -> None:
    """No crash in the log: there is nobody to answer."""
    connection = Connection(app, {})
    connection._body = None
    connection.leaves.set()
    await connection.exchange()
    assert connection.status == [499]
