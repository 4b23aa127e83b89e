"""The reload routes: who may, and what each outcome looks like."""

from dataclasses import replace
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from neuroedge.bootstrap import build_app
from neuroedge.contract.errors import Conflict, NotFound
from neuroedge.http.routes.admin import router
from neuroedge.services.reload import Reload
from neuroedge.settings import Settings
from tests.fakes import make_principal
from tests.http.plain_platform import make_app, token

PATHS = ("/v1/admin/engines/{}/reload", "/admin/engines/reload/{}")
SWAPPED = Reload(
    engine="embedding",
    outcome="swapped",
    version_before="1",
    version_after="2",
    generation=2,
    stage=None,
    detail=None,
    drained=True,
    seconds=0.1,
)
REJECTED = replace(
    SWAPPED, outcome="rolled_back", version_after="1", generation=1, stage="health", detail="the model is missing"
)


class FakeReloader:
    """Answers by the engine's name."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []

    async def reload(self, name: str, *, principal: Any, request_id: str) -> Reload:
        """As the name says."""
        self.calls.append((name, request_id))
        if name == "busy":
            raise Conflict("a reload of busy is running", hint="wait until it has ended")
        if name == "nothing":
            raise NotFound("no engine 'nothing'")
        return REJECTED if name == "broken" else SWAPPED


@pytest.fixture
def app() -> FastAPI:
    """The admin routes."""
    return make_app(router, reloader=FakeReloader())


@pytest.fixture
def operator(app: FastAPI) -> TestClient:
    """The operator of the installation."""
    return TestClient(app, headers=token(app, replace(make_principal(), admin=True)))


@pytest.mark.parametrize("path", PATHS)
def test_a_swap_is_a_200_with_both_versions(app: FastAPI, operator: TestClient, path: str) -> None:
    """The request's id goes along, for event and audit row."""
    answer = operator.post(path.format("embedding"), headers={"X-Request-ID": "r-7"})
    assert answer.status_code == 200
    assert answer.json() == {
        "engine": "embedding",
        "outcome": "swapped",
        "version_before": "1",
        "version_after": "2",
        "generation": 2,
        "stage": None,
        "detail": None,
        "drained": True,
        "seconds": 0.1,
    }
    assert app.state.platform.reloader.calls == [("embedding", "r-7")]


@pytest.mark.parametrize("path", PATHS)
def test_a_rejected_version_is_a_422_problem_with_stage_and_reason(operator: TestClient, path: str) -> None:
    """A problem like any other, with the outcome's fields besides."""
    answer = operator.post(path.format("broken"))
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["status"], problem["code"], problem["title"]) == (422, "reload_rejected", "Unprocessable Entity")
    assert (problem["stage"], problem["detail"]) == ("health", "the model is missing")
    assert (problem["outcome"], problem["version_after"]) == ("rolled_back", "1")
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert problem["hint"]


@pytest.mark.parametrize("path", PATHS)
def test_a_reload_that_runs_already_and_an_unknown_engine(operator: TestClient, path: str) -> None:
    """409 and 404."""
    assert operator.post(path.format("busy")).status_code == 409
    assert operator.post(path.format("nothing")).status_code == 404


@pytest.mark.parametrize("path", PATHS)
def test_an_organisations_owner_is_no_operator(app: FastAPI, path: str) -> None:
    """403 with what would help; nobody at all gets a 401; nothing is reloaded."""
    client = TestClient(app)
    assert client.post(path.format("embedding")).status_code == 401
    refused = client.post(path.format("embedding"), headers=token(app, make_principal()))
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    assert "--admin" in refused.json()["hint"]
    assert app.state.platform.reloader.calls == []


def test_both_routes_stand_in_openapi_with_their_problems() -> None:
    """200, 409 and the 422 with its fields."""
    paths = build_app(Settings()).openapi()["paths"]
    for path in ("/v1/admin/engines/{name}/reload", "/admin/engines/reload/{engine}"):
        responses = paths[path]["post"]["responses"]
        assert {"200", "401", "403", "404", "409", "422"} <= set(responses)
        assert "stage" in responses["422"]["content"]["application/problem+json"]["schema"]["properties"]
