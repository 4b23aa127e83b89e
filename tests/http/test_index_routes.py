"""The index routes: who may, what they refuse, what they tell."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from neuroedge.contract.errors import Conflict
from neuroedge.contract.principal import ROLE_PERMISSIONS
from neuroedge.http.routes.index import router
from neuroedge.stores.indexes import Standing
from neuroedge.stores.rebuilds import Rebuild
from tests.fakes import make_principal
from tests.http.plain_platform import make_app, token

REBUILD = Rebuild(
    id=uuid4(),
    model="large",
    words=False,
    state="running",
    stage="embedding",
    done=3,
    total=9,
    error=None,
    requested_at=datetime(2026, 1, 1, tzinfo=UTC),
    finished_at=None,
)


class Index:
    """A service in the middle of a change."""

    def __init__(self) -> None:
        self.ordered: list[str] = []

    async def standing(self) -> Standing:
        """Half done."""
        return Standing(kind="hnsw", building="ivfflat", done=24, total=48)

    async def order(self, kind: str) -> Standing:
        """Only ivfflat can be ordered now."""
        if kind != "ivfflat":
            raise Conflict("an index is being built")
        self.ordered.append(kind)
        return await self.standing()


class Rebuilds:
    """A service that takes every order."""

    def __init__(self) -> None:
        self.ordered: list[str | None] = []

    async def standing(self, principal: Any) -> tuple[str | None, Rebuild | None]:
        """One is running."""
        return None, REBUILD

    async def order(self, principal: Any, *, model: str | None, request_id: str) -> Rebuild:
        """Taken."""
        self.ordered.append(model)
        return REBUILD


@pytest.fixture
def app() -> FastAPI:
    """The index routes."""
    return make_app(router, memory_index=Index(), reembedding=Rebuilds())


def _client(app: FastAPI, role: Any = "owner", *, admin: bool = False) -> TestClient:
    principal = replace(make_principal(), role=role, permissions=ROLE_PERMISSIONS[role], admin=admin)
    return TestClient(app, headers=token(app, principal))


def test_the_operator_changes_the_kind_of_index(app: FastAPI) -> None:
    """And sees how far it is."""
    client = _client(app, admin=True)
    assert client.post("/v1/admin/index", json={"kind": "ivfflat"}).status_code == 202
    assert client.get("/v1/admin/index").json() == {"kind": "hnsw", "building": "ivfflat", "done": 24, "total": 48}
    assert client.post("/v1/admin/index", json={"kind": "hnsw"}).status_code == 409


def test_an_organisations_owner_is_no_operator(app: FastAPI) -> None:
    """The index is everybody's."""
    client = _client(app)
    assert client.get("/v1/admin/index").status_code == 403
    assert client.post("/v1/admin/index", json={"kind": "ivfflat"}).status_code == 403
    assert app.state.platform.memory_index.ordered == []


@pytest.mark.parametrize("body", [{}, {"kind": "btree"}, {"kind": None}, {"kind": "hnsw", "lists": 3}, [], "hnsw"])
def test_kinds_that_are_none(app: FastAPI, body: Any) -> None:
    """Refused before anything is asked."""
    assert _client(app, admin=True).post("/v1/admin/index", json=body).status_code == 422


def test_who_manages_the_organisation_orders_a_rebuild(app: FastAPI) -> None:
    """With a model or without; members may only look."""
    client = _client(app, "admin")
    answer = client.post("/v1/index/rebuild", json={"model": "large"})
    assert (answer.status_code, answer.json()["state"]) == (202, "running")
    assert client.post("/v1/index/rebuild", json={}).status_code == 202
    assert app.state.platform.reembedding.ordered == ["large", None]
    member = _client(app, "member")
    assert member.post("/v1/index/rebuild", json={}).status_code == 403
    seen = member.get("/v1/index").json()
    assert (seen["embedding_model"], seen["rebuild"]["done"], seen["rebuild"]["total"]) == (None, 3, 9)


@pytest.mark.parametrize("body", [{"model": ""}, {"model": 7}, {"model": "x" * 201}, {"modell": "large"}, []])
def test_orders_that_are_none(app: FastAPI, body: Any) -> None:
    """Refused before anything is begun."""
    assert _client(app).post("/v1/index/rebuild", json=body).status_code == 422
    assert app.state.platform.reembedding.ordered == []
