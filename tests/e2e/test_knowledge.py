"""The graph over HTTP, with the worker, the real model and a second tenant."""

import time
from typing import Any

import httpx
import pytest

from tests.conftest import Server

pytestmark = pytest.mark.models
TEXTS = ("Marie Curie was born in Warsaw.", "Marie Curie married Pierre Curie in Paris.", "Warsaw is in Poland.")


def _remember(client: httpx.Client) -> None:
    items = [{"content": text} for text in TEXTS]
    client.post("/v1/engines/memory/run", json={"items": items}).raise_for_status()


def _read_all(client: httpx.Client) -> dict[str, Any]:
    assert client.post("/v1/knowledge/extract").status_code == 202
    for _ in range(300):
        standing: dict[str, Any] = client.get("/v1/knowledge").json()
        if standing["read"] == standing["memories"]:
            return standing
        time.sleep(0.1)
    raise AssertionError(f"not read: {standing}")


def _find(client: httpx.Client, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get("/v1/knowledge/entities", params={"name": name}).json()["entities"]
    return found


def test_memories_become_a_graph_of_their_own_tenant_only(server: Server) -> None:
    """Ordered, read by the worker, asked by name, neighbour and path; a stranger is told nothing of it."""
    with server.new_account() as mine, server.new_account() as theirs:
        _remember(mine)
        assert _read_all(mine)["memories"] == len(TEXTS)
        [curie] = _find(mine, "Marie Curie")
        detail = mine.get(f"/v1/knowledge/entities/{curie['id']}").json()
        assert {relation["evidence"]["sentence"] for relation in detail["relations"]} >= {TEXTS[0]}
        [warsaw] = _find(mine, "warsaw")
        way = mine.get("/v1/knowledge/path", params={"from": curie["id"], "to": warsaw["id"]}).json()
        assert [entity["name"] for entity in way["entities"]] == ["Marie Curie", "Warsaw"]
        assert theirs.get("/v1/knowledge").json()["entities"] == 0
        assert _find(theirs, "Marie Curie") == []
        assert theirs.get(f"/v1/knowledge/entities/{curie['id']}").status_code == 404
        ends = {"from": curie["id"], "to": warsaw["id"]}
        assert theirs.get("/v1/knowledge/path", params=ends).status_code == 404
