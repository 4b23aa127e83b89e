"""Memories over HTTP: kept, found, changed, listed, counted, merged, carried in and out; bad input refused."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.conftest import Server

pytestmark = pytest.mark.models
NOBODY = "019a0000-0000-7000-8000-000000000000"
VALVE = "Valve seven of the north boiler leaks since Tuesday."


def _remember(client: httpx.Client, content: str, **more: Any) -> dict[str, Any]:
    answer = client.post("/v1/memories", json={"content": content, **more})
    assert answer.status_code == 201, answer.text
    memory: dict[str, Any] = answer.json()
    return memory


def _import(client: httpx.Client, lines: bytes | list[dict[str, Any]]) -> httpx.Response:
    data = lines if isinstance(lines, bytes) else b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    return client.post("/v1/memories/import", files={"file": ("memories.jsonl", data)})


def _lines(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    return [json.loads(line) for line in answer.text.splitlines()]


def _contents(client: httpx.Client, **asked: Any) -> list[str]:
    answer = client.get("/v1/memories", params=asked)
    assert answer.status_code == 200, answer.text
    return [memory["content"] for memory in answer.json()["memories"]]


@pytest.fixture(scope="module")
def caller(server: Server) -> Iterator[httpx.Client]:
    """The owner of an organisation that all harmless tests share."""
    with server.new_account() as client:
        yield client


def test_a_memory_lives(account: httpx.Client) -> None:
    """Created, read, found, changed, found by its new words only, deleted."""
    made = account.post(
        "/v1/memories",
        json={"content": VALVE, "title": "Shift", "tags": ["plant"], "metadata": {"hall": 3}, "importance": 0.9},
    )
    memory = made.json()
    assert made.headers["location"] == f"/v1/memories/{memory['id']}"
    assert (memory["title"], memory["tags"], memory["metadata"], memory["importance"]) == (
        "Shift",
        ["plant"],
        {"hall": 3},
        pytest.approx(0.9),
    )
    assert any("valve" in word for word in memory["keywords"])
    assert account.get(made.headers["location"]).json() == memory
    found = account.post("/v1/search", json={"query": "Which valve leaks?", "metadata": {"hall": 3}}).json()
    assert [hit["id"] for hit in found["hits"]] == [memory["id"]]
    changed = account.patch(f"/v1/memories/{memory['id']}", json={"content": "The pump was replaced.", "title": None})
    assert changed.status_code == 200
    assert (changed.json()["content"], changed.json()["title"]) == ("The pump was replaced.", None)
    assert changed.json()["tags"] == ["plant"]
    assert any("pump" in word for word in changed.json()["keywords"])
    words = {"mode": "keyword", "top_k": 1}
    assert account.post("/v1/search", json={"query": "valve", **words}).json()["hits"] == []
    assert account.post("/v1/search", json={"query": "pump", **words}).json()["hits"][0]["id"] == memory["id"]
    assert account.delete(f"/v1/memories/{memory['id']}").status_code == 204
    assert account.get(f"/v1/memories/{memory['id']}").status_code == 404
    assert account.post("/v1/search", json={"query": "pump"}).json()["hits"] == []


def test_labels_change_without_the_content(caller: httpx.Client) -> None:
    """Tags and metadata are found by at once, and not by what they were."""
    memory = _remember(caller, "The gate code changes on Friday.", tags=["old"], metadata={"site": "A"})
    caller.patch(f"/v1/memories/{memory['id']}", json={"tags": ["new"], "metadata": {"site": "B"}, "importance": 1})
    assert _contents(caller, tags="old") == []
    assert _contents(caller, tags="new", metadata='{"site": "B"}') == [memory["content"]]
    assert caller.post("/v1/search", json={"query": "gate code", "tags": ["new"]}).json()["hits"]


def test_lists_come_in_pages_by_the_time_of_what_they_tell(account: httpx.Client) -> None:
    """`next` leads through all of them once; equal times lose none."""
    times = ["2020-05-01T12:00:00Z", "2020-05-01T12:00:00Z", "2020-05-02T23:30:00-02:00", "2021-01-01T00:00:00Z"]
    for n, at in enumerate(times):
        _remember(account, f"Event number {n}.", occurred_at=at)
    seen, before = [], None
    while True:
        page = account.get("/v1/memories", params={"limit": 1, **({"before": before} if before else {})}).json()
        seen += [memory["content"] for memory in page["memories"]]
        before = page["next"]
        if before is None:
            break
    assert seen[:2] == ["Event number 3.", "Event number 2."]
    assert sorted(seen) == [f"Event number {n}." for n in range(4)]
    assert _contents(account, since="2020-05-02T00:00:00Z", until="2020-12-31T00:00:00Z") == ["Event number 2."]
    timeline = account.get("/v1/memories/timeline", params={"unit": "day"}).json()
    assert [(period["begin"][:10], period["memories"]) for period in timeline["periods"]] == [
        ("2021-01-01", 1),
        ("2020-05-03", 1),
        ("2020-05-01", 2),
    ]
    months = account.get("/v1/memories/timeline").json()["periods"]
    assert [(period["begin"][:7], period["memories"]) for period in months] == [("2021-01", 1), ("2020-05", 3)]


def test_statistics_count_what_is_there(account: httpx.Client) -> None:
    """By type, visibility, tag, month and model."""
    _remember(account, "One.", tags=["a", "b"], occurred_at="2022-02-02T00:00:00Z")
    _remember(account, "Two.", tags=["a"], memory_type="fact", visibility="private", metadata={"tag:b": "b"})
    told = account.get("/v1/memories/statistics").json()
    assert (told["memories"], told["expiring"]) == (2, 0)
    assert told["by_type"] == {"note": 1, "fact": 1}
    assert told["by_visibility"] == {"organisation": 1, "private": 1}
    assert told["tags"] == {"a": 2, "b": 1}
    assert sum(told["by_model"].values()) == 2
    assert told["by_month"][-1]["begin"].startswith("2022-02-01")
    assert told["sealed_bytes"] > 0


def test_equal_and_near_memories_become_one(account: httpx.Client) -> None:
    """First told, then done: the oldest stays with all labels and the most importance; others are left alone."""
    kept = _remember(account, VALVE, tags=["plant"], metadata={"hall": 3})
    same = _remember(account, VALVE, tags=["boiler"], metadata={"hall": 4, "shift": "night"}, importance=1)
    near = _remember(account, VALVE.replace("leaks", "is leaking"), title="Report")
    hidden = _remember(account, VALVE, visibility="private")
    other = _remember(account, "Lunch is at noon in the canteen.")
    told = account.post("/v1/memories/merge", json={"threshold": 0.9}).json()
    assert told["dry_run"]
    assert told["groups"][0]["kept"] == kept["id"]
    assert {twin["id"]: twin["exact"] for twin in told["groups"][0]["merged"]} == {same["id"]: True, near["id"]: False}
    assert len(account.get("/v1/memories").json()["memories"]) == 5
    done = account.post("/v1/memories/merge", json={"threshold": 0.9, "dry_run": False}).json()
    assert done["groups"] == told["groups"]
    assert (done["checked"], done["remaining"], done.get("next")) == (5, 0, None)
    one = account.get(f"/v1/memories/{kept['id']}").json()
    assert (one["content"], one["title"], one["tags"], one["importance"]) == (VALVE, "Report", ["plant", "boiler"], 1)
    merged = one["metadata"].pop("merged_ids")
    assert set(merged) == {same["id"], near["id"]}
    assert one["metadata"] == {"hall": 3, "shift": "night"}
    left = {memory["id"] for memory in account.get("/v1/memories").json()["memories"]}
    assert left == {kept["id"], hidden["id"], other["id"]}
    assert account.post("/v1/memories/merge", json={"threshold": 0.9}).json()["groups"] == []


def test_a_merge_goes_through_all_in_pages(account: httpx.Client) -> None:
    """What an earlier page took is gone for the later ones."""
    for n in range(3):
        _remember(account, "The same remark.", importance=n / 10)
        _remember(account, f"Something else altogether, number {n}: {['apple', 'pear', 'plum'][n]}.")
    after, checked = None, 0
    while True:
        body = {"dry_run": False, "limit": 2, "threshold": 1, **({"after": after} if after else {})}
        done = account.post("/v1/memories/merge", json=body).json()
        checked += done["checked"]
        after = done.get("next")
        if after is None:
            break
    assert checked == 4
    assert sorted(_contents(account)).count("The same remark.") == 1
    assert len(_contents(account)) == 4


def test_an_import_tells_of_each_line_and_can_be_sent_again(account: httpx.Client) -> None:
    """Good lines are kept beside bad ones; the same file changes nothing."""
    good = [{"external_id": f"e{n}", "content": f"Imported remark {n}.", "tags": ["bulk"]} for n in range(150)]
    data = b"".join(json.dumps(line).encode() + b"\n" for line in good)
    data += b'\n{"content": "caf\xe9"}\n{"content": "x", "colour": "red"}\nnot json\n[1]\n{"content": "a\\u0000b"}\n'
    data += json.dumps({"external_id": "e0", "content": "Again."}).encode()
    *results, end = _lines(_import(account, data))
    assert end == {"created": 150, "exists": 1, "failed": 5}
    assert [result["line"] for result in results] == [*range(1, 151), *range(152, 158)]
    failed = [result for result in results if result["status"] == "failed"]
    assert all(result["error"]["code"] == "invalid_input" for result in failed)
    assert "colour" in failed[1]["error"]["detail"]
    assert results[-1]["id"] == results[0]["id"]
    *_, again = _lines(_import(account, data))
    assert again == {"created": 0, "exists": 151, "failed": 5}
    assert account.get("/v1/memories/statistics").json()["memories"] == 150
    hit = account.post("/v1/search", json={"query": "Imported remark", "metadata": {"external_id": "e7"}}).json()
    assert [found["content"] for found in hit["hits"]] == ["Imported remark 7."]


def test_what_was_exported_can_be_imported(account: httpx.Client, stranger: httpx.Client) -> None:
    """Elsewhere everything of it arrives; where it comes from nothing changes."""
    _remember(account, VALVE, title="Shift", tags=["plant"], metadata={"deep": {"er": [1]}}, importance=0.25)
    _remember(account, "Second.", visibility="private", occurred_at="2019-01-01T00:00:00Z", source="diary")
    exported = account.get("/v1/memories/export")
    assert [line["content"] for line in _lines(exported)] == [VALVE, "Second."]
    *_, end = _lines(_import(account, exported.content))
    assert end == {"created": 0, "exists": 2, "failed": 0}
    *_, end = _lines(_import(stranger, exported.content))
    assert end == {"created": 2, "exists": 0, "failed": 0}
    carried = stranger.get("/v1/memories").json()["memories"]
    own = {"id", "external_id", "user_id", "created_at", "updated_at", "metadata"}
    for theirs, mine in zip(carried, account.get("/v1/memories").json()["memories"], strict=True):
        assert {k: v for k, v in theirs.items() if k not in own} == {k: v for k, v in mine.items() if k not in own}
        assert theirs["metadata"] == {**mine["metadata"], "external_id": mine["id"]}
    assert _lines(account.get("/v1/memories/export", params={"tags": "plant"}))[0]["content"] == VALVE
    assert account.get("/v1/memories/export", params={"tags": "none"}).content == b""


def test_a_huge_line_fails_alone(account: httpx.Client) -> None:
    """20 MB without a line end are read over, not held."""
    data = b'{"content": "before"}\n{"content": "' + b"x" * 20_000_000 + b'"}\n{"content": "after"}\n'
    first, huge, last, end = _lines(_import(account, data))
    assert (first["status"], huge["status"], last["status"]) == ("created", "failed", "created")
    assert huge["error"]["code"] == "too_large"
    assert end["created"] == 2


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\xff\xfe\n", 422),
        (b"\n\n", 422),
        (b"", 422),
        (b'{"content": "' + b"x" * 2_000_000 + b'"}', 413),
        (b'{"content": ""}\n{}', 422),
        (b"[" * 100_000, 422),
        (b'{"content": "a", "metadata": {"n": NaN}}', 422),
        (b'{"content": "a", "expires_at": "2001-01-01T00:00:00Z"}', 422),
        (b'{"content": "a", "metadata": {"n": "\\ud800"}}', 422),
        (b'{"content": "a", "visibility": "division"}', 422),
    ],
)
def test_an_import_without_a_good_line_is_refused(caller: httpx.Client, data: bytes, status: int) -> None:
    """The first line's error is the answer."""
    before = caller.get("/v1/memories/statistics").json()["memories"]
    answer = _import(caller, data)
    assert answer.status_code == status, answer.text
    assert answer.json()["hint"]
    assert caller.get("/v1/memories/statistics").json()["memories"] == before


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"content": ""},
        {"content": "x" * 20_001},
        {"content": "a\0b"},
        {"content": "a", "title": "\0"},
        {"content": "a", "tags": ["\0"]},
        {"content": "a", "memory_type": "a\0b"},
        {"content": "a", "organisation": NOBODY},
        {"content": "a", "importance": 2},
        {"content": "a", "visibility": "world"},
        {"content": "a", "visibility": "division"},
        {"content": "a", "occurred_at": 5},
        {"content": "a", "occurred_at": "2020-01-01T00:00:00"},
        {"content": "a", "occurred_at": "0001-01-01T00:00:00+14:00"},
        {"content": "a", "expires_at": "2001-01-01T00:00:00Z"},
        {"content": "a", "metadata": {"big": "x" * 70_000}},
        {"content": "a", "metadata": []},
    ],
)
def test_bad_memories_are_refused(caller: httpx.Client, body: dict[str, Any]) -> None:
    """422 on the way in, and as a change of one that is there."""
    answer = caller.post("/v1/memories", json=body)
    assert answer.status_code == 422, answer.text
    assert answer.json()["code"] == "invalid_input"


def test_bad_changes_are_refused(caller: httpx.Client) -> None:
    """And change nothing."""
    memory = _remember(caller, "A lasting remark.")
    path = f"/v1/memories/{memory['id']}"
    for body in ({}, {"content": None}, {"importance": None}, {"user_id": NOBODY}, {"content": "\0"}, {"tags": [""]}):
        assert caller.patch(path, json=body).status_code == 422, body
    assert caller.patch(path, json={"visibility": "division"}).status_code == 422
    assert caller.get(path).json() == memory


@pytest.mark.parametrize(
    "path",
    [
        "/v1/memories?colour=red",
        "/v1/memories?limit=0",
        "/v1/memories?limit=1000000000",
        "/v1/memories?before=yesterday",
        "/v1/memories?before=999999999999999999_019a00000000700080000000000000000",
        "/v1/memories?before=999999999999999999_019a0000000070008000000000000000",
        "/v1/memories?since=1700000000",
        "/v1/memories?metadata=[1]",
        "/v1/memories?metadata=%7B%22a%22%3A%7B%7D%7D",
        "/v1/memories?metadata=%7B%22%5Cud800%22%3A%22x%22%7D",
        "/v1/memories?tags=",
        "/v1/memories?memory_type=a%00b",
        "/v1/memories/timeline?unit=year",
        "/v1/memories/timeline?colour=red",
        "/v1/memories/export?limit=3",
        "/v1/memories/not-an-id",
    ],
)
def test_bad_questions_are_refused(caller: httpx.Client, path: str) -> None:
    """422 with the field."""
    answer = caller.get(path)
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"]


@pytest.mark.parametrize(
    "body",
    [
        {"query": ""},
        {"query": "x", "top_k": 0},
        {"query": "x", "top_k": 10**9},
        {"query": "x", "colour": "red"},
        {"query": "x", "metadata": {"a": {"b": 1}}},
        {"query": "x", "metadata": {"\ud800": "x"}},
        {"query": "x" * 8001},
    ],
)
def test_bad_searches_are_refused(caller: httpx.Client, body: dict[str, Any]) -> None:
    """422, as the engine's own route."""
    for path in ("/v1/search", "/v1/engines/search/run"):
        answer = caller.post(path, content=json.dumps(body), headers={"Content-Type": "application/json"})
        assert answer.status_code == 422, answer.text


@pytest.mark.parametrize("body", [{"threshold": 0.1}, {"threshold": 2}, {"limit": 0}, {"limit": 10**9}, {"x": 1}])
def test_bad_merges_are_refused(caller: httpx.Client, body: dict[str, Any]) -> None:
    """A threshold that would merge everything, a page without end."""
    assert caller.post("/v1/memories/merge", json=body).status_code == 422


def test_another_tenants_memory_is_not_there(account: httpx.Client, stranger: httpx.Client) -> None:
    """The same 404 as for an id that never existed; no list, search, count or export tells of it."""
    memory = _remember(account, "The launch code is forty-two.")
    for memory_id in (memory["id"], NOBODY):
        path = f"/v1/memories/{memory_id}"
        assert stranger.get(path).status_code == 404
        assert stranger.patch(path, json={"title": "mine"}).status_code == 404
        assert stranger.delete(path).status_code == 404
    assert stranger.get("/v1/memories").json()["memories"] == []
    assert stranger.get("/v1/memories/timeline").json()["periods"] == []
    assert stranger.get("/v1/memories/statistics").json()["memories"] == 0
    assert stranger.get("/v1/memories/export").content == b""
    assert stranger.post("/v1/search", json={"query": "launch code"}).json()["hits"] == []
    _remember(stranger, "The launch code is forty-two.")
    told = stranger.post("/v1/memories/merge", json={"dry_run": False}).json()
    assert told["groups"] == []
    assert account.get(f"/v1/memories/{memory['id']}").json() == memory


def test_passages_of_a_document_are_the_documents(account: httpx.Client) -> None:
    """Their labels can change; their text goes with the document, by hand as in a merge."""
    text = b"The crane in hall three was inspected in May.\n"
    sent = account.post("/v1/documents", files={"file": ("crane.txt", text)}).json()["document"]["id"]
    with account.stream("GET", f"/v1/documents/{sent}/events") as events:
        assert "event: done" in "".join(events.iter_text())
    passage = account.get(f"/v1/documents/{sent}/chunks").json()["chunks"][0]
    _remember(account, passage["content"], memory_type="document")
    path = f"/v1/memories/{passage['id']}"
    assert account.patch(path, json={"content": "Never."}).status_code == 409
    assert account.delete(path).status_code == 409
    assert account.patch(path, json={"tags": ["crane"]}).json()["tags"] == ["crane"]
    assert account.post("/v1/memories/merge", json={"threshold": 0.5}).json()["checked"] == 1


def test_divisions_are_the_managers(account: httpx.Client, stranger: httpx.Client) -> None:
    """Made, named, listed with the members, deleted; another organisation's is not there."""
    assert account.get("/v1/divisions").json()["divisions"] == []
    made = account.post("/v1/divisions", json={"name": " Plant "}).json()
    assert made["name"] == "Plant"
    assert account.post("/v1/divisions", json={"name": "plant"}).status_code == 409
    for name in ("", "  ", "a\0b", "x" * 201):
        assert account.post("/v1/divisions", json={"name": name}).status_code == 422
    path = f"/v1/divisions/{made['id']}"
    assert account.patch(path, json={"name": "Works"}).json()["name"] == "Works"
    me = account.get("/auth/me").json()["user_id"]
    them = stranger.get("/auth/me").json()["user_id"]
    assert stranger.get("/v1/divisions").json()["divisions"] == []
    for client, division, user in ((stranger, made["id"], them), (account, made["id"], them), (account, NOBODY, me)):
        assert client.put(f"/v1/divisions/{division}/members/{user}").status_code == 404
    assert stranger.patch(path, json={"name": "Mine"}).status_code == 404
    assert stranger.delete(path).status_code == 404
    assert account.put(f"{path}/members/{me}").status_code == 204
    assert account.get("/v1/divisions").json()["members"][0]["division_id"] == made["id"]
    assert account.delete(path).status_code == 409
    shared = _remember(account, "For the works only.", visibility="division")
    assert account.delete(f"{path}/members/{me}").status_code == 204
    assert account.delete(f"{path}/members/{me}").status_code == 404
    assert account.delete(path).status_code == 409
    assert account.delete(f"/v1/memories/{shared['id']}").status_code == 204
    assert account.delete(path).status_code == 204
    assert account.delete(path).status_code == 404
