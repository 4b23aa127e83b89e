"""Search through HTTP with the real encoder: filters, modes, reranking, diversity, highlights, bad input."""

import time
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.models

ITEMS: list[dict[str, Any]] = [
    {"content": "The heat shield of the capsule is made of carbon tiles.", "tags": ["space", "hull"]},
    {"content": "The heat shield of the capsule is made from carbon tiles.", "tags": ["space"]},
    {"content": "Carbon tiles protect the spacecraft while it re-enters the atmosphere.", "tags": ["space"]},
    {"content": "Our bakery sells carbon-neutral bread.", "metadata": {"shop": 7, "open": True}},
    {"content": "Shields were carried by knights.", "metadata": {"speaker": "S2"}, "memory_type": "fact"},
]


@pytest.fixture(scope="module")
def client(server: Any) -> Any:
    """An organisation with a few memories."""
    with server.new_account() as account:
        account.post("/v1/engines/memory/run", json={"items": ITEMS}).raise_for_status()
        yield account


def search(client: httpx.Client, **body: Any) -> dict[str, Any]:
    """The engine's answer."""
    answer = client.post("/v1/engines/search/run", json=body)
    assert answer.status_code == 200, answer.text
    result: dict[str, Any] = answer.json()["result"]
    return result


def test_each_mode_finds_by_its_own_means(client: httpx.Client) -> None:
    """Words alone, meaning alone, both; the parts tell which search found a hit."""
    by_words = search(client, query="knights", mode="keyword")
    assert [hit["content"] for hit in by_words["hits"]] == ["Shields were carried by knights."]
    assert by_words["hits"][0]["parts"]["dense"] is None
    assert by_words["models"] == []
    by_meaning = search(client, query="protection of a space ship", mode="dense", top_k=3)
    assert by_meaning["hits"][0]["content"].startswith("Carbon tiles protect the spacecraft")
    assert all(hit["parts"]["keyword"] is None for hit in by_meaning["hits"])
    assert search(client, query="knights")["method"] == "hybrid-rrf"


def test_a_reranker_sees_query_and_passage_together(client: httpx.Client) -> None:
    """Every hit carries all three scores and an order made of them; the answer names what ordered it."""
    found = search(client, query="What is the heat shield made of?", rerank=True, top_k=5)
    assert found["reranker"] == "late-interaction"
    assert found["method"] == "hybrid-rrf+late-interaction"
    assert found["hits"][0]["content"].startswith("The heat shield of the capsule")
    scores = [hit["score"] for hit in found["hits"]]
    assert scores == sorted(scores, reverse=True)
    assert all(hit["parts"][part] is not None for hit in found["hits"] for part in ("dense", "keyword", "rerank"))


def test_diversity_keeps_near_copies_apart(client: httpx.Client) -> None:
    """Two sentences that differ in one word come one after the other by relevance alone, not with diversity."""
    query = "heat shield of the capsule"
    plain = [hit["content"] for hit in search(client, query=query, top_k=3)["hits"]]
    diverse = [hit["content"] for hit in search(client, query=query, top_k=3, diversity=0.8)["hits"]]
    assert plain[0][:30] == plain[1][:30]
    assert diverse[0][:30] != diverse[1][:30]


@pytest.mark.parametrize(
    ("restriction", "expected"),
    [
        ({"tags": ["hull"]}, {"The heat shield of the capsule is made of carbon tiles."}),
        ({"metadata": {"shop": 7}}, {"Our bakery sells carbon-neutral bread."}),
        ({"metadata": {"shop": 7, "open": False}}, set()),
        ({"speaker": "S2"}, {"Shields were carried by knights."}),
        ({"memory_type": "fact"}, {"Shields were carried by knights."}),
        ({"until": "2020-01-01T00:00:00Z"}, set()),
    ],
)
def test_a_filter_leaves_what_it_names(client: httpx.Client, restriction: Any, expected: set[str]) -> None:
    """In both searches: a row outside is not found however near it is."""
    found = search(client, query="carbon shield bread knights", top_k=20, **restriction)
    assert {hit["content"] for hit in found["hits"]} == expected


def test_the_graph_brings_what_neither_words_nor_meaning_find(client: httpx.Client) -> None:
    """Asked about one person, the search also brings what is known of the company the person works for."""
    items = [
        {"content": "Diane Miller works for Boeing."},
        {"content": "Boeing acquired Aurora Flight Sciences in Virginia."},
    ]
    client.post("/v1/engines/memory/run", json={"items": items}).raise_for_status()
    assert client.post("/v1/knowledge/extract").status_code == 202
    until = time.monotonic() + 60
    while (standing := client.get("/v1/knowledge").json())["read"] < standing["memories"]:
        assert time.monotonic() < until
        time.sleep(0.1)
    asked = {"query": "Diane Miller", "mode": "keyword"}
    assert [hit["content"] for hit in search(client, **asked)["hits"]] == [items[0]["content"]]
    related = search(client, **asked, related=True)["hits"]
    assert [hit["content"] for hit in related] == [item["content"] for item in items]
    assert related[1]["parts"] == {"dense": None, "keyword": None, "related": 0.5, "rerank": None}


def test_highlights_are_offsets_of_the_querys_words(client: httpx.Client) -> None:
    """Whatever their form: 'knight' marks 'knights'."""
    (hit,) = search(client, query="a knight", mode="keyword")["hits"]
    assert [hit["content"][start:end] for start, end in hit["highlight"]["spans"]] == ["knights"]


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({"query": "x", "top_k": 0}, "top_k"),
        ({"query": "x", "top_k": 10**9}, "top_k"),
        ({"query": ""}, "query"),
        ({"query": "x", "colour": "red"}, "colour"),
        ({"query": "x", "metadata": {"a": {"nested": 1}}}, "metadata"),
        ({"query": "x", "diversity": 2}, "diversity"),
        ({"query": "x", "mode": "psychic"}, "mode"),
        ({"query": "x", "since": "yesterday"}, "since"),
    ],
)
def test_a_bad_request_names_the_field(client: httpx.Client, body: Any, where: str) -> None:
    """422 with the path of what is wrong."""
    answer = client.post("/v1/engines/search/run", json=body)
    assert answer.status_code == 422
    assert where in str(answer.json()["errors"])
