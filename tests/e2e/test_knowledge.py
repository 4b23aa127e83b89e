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
    for _ in range(900):
        standing: dict[str, Any] = client.get("/v1/knowledge").json()
        if standing["read"] == standing["memories"]:
            return standing
        time.sleep(0.1)
    raise AssertionError(f"not read: {standing}")


def _found_by_itself(client: httpx.Client, name: str) -> dict[str, Any]:
    for _ in range(900):
        if found := _find(client, name):
            return found[0]
        time.sleep(0.1)
    raise AssertionError(f"{name} was not read into the graph")


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


def test_a_document_is_read_when_its_sender_asks(server: Server) -> None:
    """It is found by what it names without another call; a document sent without the wish, and a memory, are not."""
    with server.new_account() as mine:
        for name, text, fields in (
            ("a.txt", "Ada Lovelace was born in London.", {}),
            ("b.txt", "Marie Curie was born in Warsaw.", {"extract": "true"}),
        ):
            sent = mine.post("/v1/documents", files={"file": (name, text.encode())}, data=fields)
            assert sent.json()["document"]["extract"] is bool(fields)
        mine.post("/v1/memories", json={"content": "Alan Turing lived in Manchester."}).raise_for_status()
        assert _found_by_itself(mine, "Marie Curie")["type"] == "person"
        assert _find(mine, "Ada Lovelace") == _find(mine, "Alan Turing") == []
        asked = {"query": "Where is Marie Curie from?", "related": True, "mode": "keyword"}
        assert mine.post("/v1/search", json=asked).json()["hits"][0]["parts"]["related"] == 1


def test_what_is_remembered_is_read_by_itself_where_it_is_switched_on(server: Server) -> None:
    """Documents, memories and imports of that organisation only; off again, what comes later is not read."""
    with server.new_account() as mine, server.new_account() as theirs:
        body = {"name": "knowledge_extraction", "allowed": True}
        assert mine.put("/v1/settings/switches", json=body).status_code == 200
        for client in (mine, theirs):
            client.post("/v1/memories", json={"content": "Alan Turing lived in Manchester."}).raise_for_status()
        files = {"file": ("b.txt", b"Marie Curie was born in Warsaw.")}
        mine.post("/v1/documents", files=files).raise_for_status()
        _found_by_itself(mine, "Alan Turing")
        _found_by_itself(mine, "Marie Curie")
        assert theirs.get("/v1/knowledge").json()["read"] == 0
        mine.put("/v1/settings/switches", json={**body, "allowed": False}).raise_for_status()
        mine.post("/v1/memories", json={"content": "Niels Bohr was born in Copenhagen."}).raise_for_status()
        time.sleep(2)
        assert _find(mine, "Niels Bohr") == []
