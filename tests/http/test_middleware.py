"""What surrounds every request: limits before authentication, ids, and the answer to a defect."""

import http.client
import json
from collections.abc import Awaitable, Callable, Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.testclient import TestClient

from neuroedge.bootstrap import build_app
from neuroedge.contract.errors import NotFound, Overloaded, Unauthenticated
from neuroedge.contract.principal import Principal
from neuroedge.http.middleware import ANONYMOUS_BODY_BYTES, UPLOAD_ROUTES, DirectRoute, RequestEnvelope
from neuroedge.infra.limits import Quota
from neuroedge.infra.telemetry import Metrics
from neuroedge.settings import Settings
from tests.conftest import Server
from tests.fakes import make_principal


@pytest.fixture
def anyone(server: Server) -> Iterator[httpx.Client]:
    """A client without a token."""
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


def test_every_route_that_takes_a_file_has_the_upload_limit() -> None:
    """A multipart route missing from UPLOAD_ROUTES would refuse real uploads."""
    paths = build_app(Settings()).openapi()["paths"]
    multipart = {
        (method.upper(), path)
        for path, methods in paths.items()
        for method, operation in methods.items()
        if "multipart/form-data" in operation.get("requestBody", {}).get("content", {})
    }
    assert multipart == UPLOAD_ROUTES


def test_large_bodies_without_a_token_are_refused_unread(anyone: httpx.Client) -> None:
    """Announced or streamed: 401 on routes that want a token, 413 on those that do not."""
    large = b"x" * (ANONYMOUS_BODY_BYTES + 1)

    def streamed() -> Iterator[bytes]:
        yield large

    for body in (large, streamed()):
        answer = anyone.post("/v1/engines/search/run", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 401
        assert answer.json()["code"] == "unauthenticated"
    for kind in ("application/json", "multipart/form-data; boundary=x"):
        answer = anyone.post("/auth/login", content=large, headers={"Content-Type": kind})
        assert answer.status_code == 413
        assert answer.json()["code"] == "too_large"


def test_a_multipart_type_does_not_raise_the_limit_of_other_routes(account: httpx.Client) -> None:
    """The upload limit belongs to the routes that stream to disk."""
    connection = http.client.HTTPConnection(account.base_url.host, account.base_url.port, timeout=60)
    connection.putrequest("POST", "/rag/search")
    connection.putheader("Authorization", account.headers["Authorization"])
    connection.putheader("Content-Type", "multipart/form-data; boundary=x")
    connection.putheader("Content-Length", str(100 * 1024**2))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


def test_an_answer_names_twenty_wrong_fields_at_most(anyone: httpx.Client) -> None:
    """A thousand unknown keys do not come back as a thousand errors."""
    body = {f"k{n}": 1 for n in range(1000)}
    answer = anyone.post("/auth/login", json=body)
    assert answer.status_code == 422
    assert len(answer.json()["errors"]) == 20


def test_a_defect_is_a_500_with_its_id_and_nothing_internal() -> None:
    """The middleware answers itself, so that headers, log line and metric are there too."""
    app = FastAPI()

    @app.get("/defect")
    async def defect() -> None:
        raise RuntimeError("secret internals")

    app.add_middleware(RequestEnvelope, max_body_bytes=1000, max_upload_bytes=1000)
    client = TestClient(app, raise_server_exceptions=False)
    answer = client.get("/defect", headers={"X-Request-ID": "find-me"})
    assert answer.status_code == 500
    assert answer.headers["x-request-id"] == "find-me"
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["request_id"] == "find-me"
    assert "secret internals" not in answer.text


def test_an_answer_tells_where_the_caller_stands_with_its_rate_limit() -> None:
    """Only on answers to calls that were counted."""
    app = FastAPI()

    @app.get("/counted")
    async def counted(request: Request) -> None:
        request.scope["quota"] = Quota(granted=True, limit=60, remaining=0, reset_s=7)

    @app.get("/free")
    async def free() -> None:
        """Not counted."""

    app.add_middleware(RequestEnvelope, max_body_bytes=1000, max_upload_bytes=1000)
    client = TestClient(app)
    headers = client.get("/counted").headers
    assert [headers[f"x-ratelimit-{name}"] for name in ("limit", "remaining", "reset")] == ["60", "0", "7"]
    assert not any(name.startswith("x-ratelimit") for name in client.get("/free").headers)


@pytest.mark.parametrize("header", ["Bearer good", "bearer good", "Bearer  good "])
def test_the_token_is_read_once_and_its_caller_handed_on(header: str) -> None:
    """Whoever comes later finds the caller in the scope."""
    assert _caller_in_scope({"Authorization": header}) == (["good"], True)


@pytest.mark.parametrize("header", ["Bearer bad", "Bearer ", "Basic good", "good", "", "Bearer \xe9"])
def test_without_a_good_token_there_is_no_caller(header: str) -> None:
    """Nothing is left in the scope that could be taken for one."""
    assert _caller_in_scope({"Authorization": header.encode("latin-1")})[1] is False


def _direct(endpoint: Callable[[Request], Awaitable[Response]]) -> TestClient:
    """An application where POST /run/{name} is answered in front of the route of the same path."""
    app = FastAPI()

    @app.api_route("/run/{name}", methods=["POST", "GET"])
    async def behind(name: str) -> str:
        return f"route {name}"

    app.add_middleware(DirectRoute, path="/run/{name}", endpoint=endpoint)
    app.add_middleware(RequestEnvelope, max_body_bytes=1000, max_upload_bytes=1000)
    return TestClient(app, raise_server_exceptions=False)


def test_a_direct_route_answers_its_path_and_method_alone() -> None:
    """With the name decoded; everything else goes on to the application."""

    async def run(request: Request) -> Response:
        return JSONResponse(f"direct {request.path_params['name']}")

    client = _direct(run)
    assert client.post("/run/a%20b").json() == "direct a b"
    assert client.get("/run/a").json() == "route a"
    assert client.put("/run/a").status_code == 405
    for path in ("/run", "/run/", "/run/a/b", "/x/run/a"):
        assert client.post(path).status_code == 404


def test_a_direct_routes_errors_are_answered_as_any_others() -> None:
    """Ours as problems with their status, a defect as a 500, a body that grows too large as 401 without a token."""

    async def run(request: Request) -> Response:
        kind = request.path_params["name"]
        if kind == "body":
            await request.body()
        raise {"ours": NotFound("gone", hint="look elsewhere"), "busy": Overloaded("full", retry_after_s=3)}.get(
            kind, RuntimeError("secret internals")
        )

    client = _direct(run)
    gone, busy, defect = (client.post(f"/run/{kind}") for kind in ("ours", "busy", "defect"))
    assert (gone.status_code, gone.json()["hint"]) == (404, "look elsewhere")
    assert gone.json()["request_id"] == gone.headers["x-request-id"]
    assert (busy.status_code, busy.headers["retry-after"]) == (429, "3")
    assert defect.status_code == 500
    assert "secret internals" not in defect.text

    def endless() -> Iterator[bytes]:
        yield b"x" * (ANONYMOUS_BODY_BYTES + 1)

    assert client.post("/run/body", content=endless()).status_code == 401


def _caller_in_scope(headers: dict[str, Any]) -> tuple[list[str], bool]:
    """The tokens that were read, and whether the right caller stood in the scope."""
    read, principal = [], make_principal()

    class Tokens:
        def read(self, token: str) -> Principal:
            read.append(token)
            if token != "good":
                raise Unauthenticated("no")
            return principal

    app = FastAPI()
    app.state.platform = SimpleNamespace(tokens=Tokens(), api_keys=None, metrics=Metrics())

    @app.get("/")
    async def who(request: Request) -> bool:
        return request.scope.get("principal") is principal and request.scope["tenant_id"] == str(principal.org_id)

    app.add_middleware(RequestEnvelope, max_body_bytes=1000, max_upload_bytes=1000)
    found: bool = TestClient(app).get("/", headers=headers).json()
    return read, found


def test_method_not_allowed_says_what_is(refused: httpx.Client) -> None:
    """Allow is kept."""
    assert refused.put("/v1/recordings").headers["allow"] in ("GET", "POST", "GET, POST")


HOSTILE: list[tuple[str, Any, int]] = [
    ("/rag/memory", {"content": "zero \x00 byte"}, 422),
    ("/rag/memory", {"content": "x", "tags": ["\x00"]}, 422),
    ("/auth/login", {"username": "a\x00b", "password": "x"}, 422),
    ("/v1/engines/memory/run", {"items": [{"content": "x", "metadata": {"n": float("nan")}}]}, 422),
    ("/v1/engines/memory/run", {"items": [{"content": "x", "metadata": {"n": float("inf")}}]}, 422),
    (
        "/v1/engines/memory/run",
        {"items": [{"content": "x", "recording_id": "019a0000-0000-7000-8000-000000000000"}]},
        404,
    ),
]


@pytest.mark.models
@pytest.mark.parametrize(("path", "body", "status"), HOSTILE)
def test_values_a_database_cannot_hold_are_the_callers_error(
    refused: httpx.Client, path: str, body: Any, status: int
) -> None:
    """Zero bytes, NaN, Infinity and ids of nothing: never a 500."""
    answer = refused.post(path, content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert answer.status_code == status, answer.text
    assert answer.json()["hint"]


def test_a_file_name_that_is_no_text(refused: httpx.Client) -> None:
    """Bytes that are no UTF-8 in the form's header."""
    body = b'--x\r\nContent-Disposition: form-data; name="file"; filename="\xff\xfe.wav"\r\n\r\nabc\r\n--x--\r\n'
    answer = refused.post("/v1/recordings", content=body, headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert answer.status_code in (415, 422)
    assert answer.headers["x-request-id"]
