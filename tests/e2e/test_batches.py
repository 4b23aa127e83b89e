"""Bulk jobs over HTTP on a real server: their whole life, and everything a caller can get wrong."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from httpx_sse import EventSource

from tests.conftest import Server, running_server
from tests.e2e.task_engines import installed, lines, started

NEVER = "019a0000-0000-7000-8000-000000000000"


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Of a server with the trial engine."""
    more = {"NEUROEDGE_TASK_RETRY_S": "0.1", "NEUROEDGE_BATCH_ITEM_LIMIT": "60"}
    return {**installed(tmp_path_factory.mktemp("batch_engines")), **more}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the server."""
    return tmp_path_factory.mktemp("batches") / "data"


@pytest.fixture(scope="module")
def server(data_dir: Path, models_dir: Path, settings: dict[str, str]) -> Iterator[Server]:
    """A server with the trial engine."""
    with running_server(data_dir, models_dir, **settings) as running:
        yield running


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Where the trial engine writes what it does."""
    return tmp_path / "runs.log"


def trial(log: Path, name: str, **payload: Any) -> dict[str, Any]:
    """An item that calls the trial engine."""
    return {"id": name, "payload": {"log": str(log), "name": name, **payload}}


def submitted(client: httpx.Client, items: list[dict[str, Any]], **headers: str) -> str:
    """The id of a batch that is taken."""
    answer = client.post("/v1/batches", json={"engine": "trial", "items": items}, headers=headers)
    assert answer.status_code == 202, answer.text
    assert answer.headers["Location"] == f"/v1/batches/{answer.json()['id']}"
    return str(answer.json()["id"])


def until(client: httpx.Client, batch_id: str, reached: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The batch once it is as wanted."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        batch: dict[str, Any] = client.get(f"/v1/batches/{batch_id}").json()
        if reached(batch):
            return batch
        time.sleep(0.05)
    raise AssertionError(f"still {batch}")


def done(client: httpx.Client, batch_id: str) -> dict[str, Any]:
    """The batch once it is over."""
    return until(client, batch_id, lambda batch: batch["state"] == "done")


def outcomes(client: httpx.Client, batch_id: str, **query: str) -> list[dict[str, Any]]:
    """Every line of its results."""
    answer = client.get(f"/v1/batches/{batch_id}/results", params=query)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    return [json.loads(line) for line in answer.text.splitlines()]


def test_each_item_has_its_own_outcome(account: httpx.Client, log: Path) -> None:
    """Results, an engine's failure and a payload that is wrong stand side by side, in the order given."""
    items = [
        trial(log, "good", letters=3),
        trial(log, "mistaken", fail=9, how="mistake"),
        {"id": "wrong", "payload": {"log": str(log), "letters": -1}},
        trial(log, "broken", fail=1, how="crash"),
        trial(log, "away", fail=1, how="away"),
    ]
    batch = done(account, submitted(account, items))
    assert (batch["total"], batch["succeeded"], batch["failed"]) == (5, 2, 3)
    found = outcomes(account, batch["id"])
    assert [(one["position"], one["id"], one["state"]) for one in found] == [
        (0, "good", "succeeded"),
        (1, "mistaken", "failed"),
        (2, "wrong", "failed"),
        (3, "broken", "failed"),
        (4, "away", "succeeded"),
    ]
    assert found[0]["result"] == {"method": "sleep", "models": [], "text": "\x00aaa"}
    assert found[1]["error"]["code"] == "not_found"
    assert found[2]["error"]["errors"][0]["loc"] == ["letters"]
    assert found[3]["error"]["code"] == "internal"
    assert "secret" not in json.dumps(found[3])
    assert started(log, "mistaken") == 1
    assert started(log, "away") == 2
    assert outcomes(account, batch["id"], state="failed") == found[1:4]


def test_failed_items_run_anew_and_results_stay(account: httpx.Client, log: Path) -> None:
    """Only what failed runs again; when nothing failed there is nothing to run."""
    batch_id = submitted(account, [trial(log, "good"), trial(log, "later", fail=1, how="mistake")])
    assert done(account, batch_id)["failed"] == 1
    assert account.post(f"/v1/batches/{batch_id}/retry").status_code == 202
    batch = until(account, batch_id, lambda one: one["state"] == "done" and one["succeeded"] == 2)
    assert batch["failed"] == 0
    assert (started(log, "good"), started(log, "later")) == (1, 2)
    assert account.post(f"/v1/batches/{batch_id}/retry").status_code == 409


def test_progress_is_told_until_the_end(account: httpx.Client, log: Path) -> None:
    """Events count the outcomes; the items can be paged through."""
    batch_id = submitted(account, [trial(log, f"n{i}", seconds=0.1) for i in range(9)])
    with account.stream("GET", f"/v1/batches/{batch_id}/events") as response:
        told = [(event.event, json.loads(event.data)) for event in EventSource(response).iter_sse() if event.data]
    assert [name for name, _ in told if name != "progress"] == ["queued", "started", "done"]
    counted = [data["succeeded"] for name, data in told if name == "progress"]
    assert counted == sorted(counted)
    assert told[-1][1] == {"total": 9, "succeeded": 9, "failed": 0}
    first = account.get(f"/v1/batches/{batch_id}/items", params={"limit": 5}).json()
    rest = account.get(f"/v1/batches/{batch_id}/items", params={"limit": 5, "after": first["next"]}).json()
    assert [one["position"] for one in first["items"] + rest["items"]] == list(range(9))
    assert rest["next"] is None


def test_a_cancelled_batch_keeps_what_it_has(account: httpx.Client, log: Path) -> None:
    """Running calls are cancelled, waiting ones never start; what is left can run later; then it can be deleted."""
    batch_id = submitted(account, [trial(log, "quick"), *[trial(log, f"slow{i}", seconds=60) for i in range(5)]])
    until(account, batch_id, lambda one: one["succeeded"] == 1)
    assert account.delete(f"/v1/batches/{batch_id}").status_code == 409
    assert account.post(f"/v1/batches/{batch_id}/cancel").json()["state"] == "cancelled"
    assert account.post(f"/v1/batches/{batch_id}/cancel").status_code == 200
    assert [one["id"] for one in outcomes(account, batch_id)] == ["quick"]
    assert "slow4 begins" not in lines(log)
    assert account.delete(f"/v1/batches/{batch_id}").status_code == 204
    assert account.get(f"/v1/batches/{batch_id}").status_code == 404


def test_the_same_key_gives_the_same_batch(account: httpx.Client, log: Path) -> None:
    """Sent again it is the batch made first; for another order it is a conflict."""
    items = [trial(log, "once")]
    key = {"Idempotency-Key": "lesson-7"}
    batch_id = submitted(account, items, **key)
    assert submitted(account, items, **key) == batch_id
    other = account.post("/v1/batches", json={"engine": "trial", "items": [trial(log, "two")]}, headers=key)
    assert other.status_code == 409
    done(account, batch_id)
    assert started(log, "once") == 1


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({}, 422, "items"),
        ({"items": []}, 422, "items"),
        ({"items": "x"}, 422, "items"),
        ({"items": [{"payload": {}}]}, 422, "engine"),
        ({"engine": "trial", "items": [{"payload": []}]}, 422, "payload"),
        ({"engine": "trial", "items": [{"id": "a", "payload": {}}, {"id": "a", "payload": {}}]}, 422, "id"),
        ({"engine": "trial", "items": [{"id": "", "payload": {}}]}, 422, "id"),
        ({"engine": "trial", "items": [{"payload": {}}] * 10_001}, 422, "items"),
        ({"engine": "trial", "items": [{"payload": {}}], "more": 1}, 422, "more"),
        ({"engine": "nobody", "items": [{"payload": {}}]}, 404, ""),
        ({"engine": "trial", "items": [{"payload": {}}] * 61}, 429, ""),
        ({"engine": "trial", "items": [{"payload": {"log": "x" * (1 << 20)}}]}, 413, ""),
    ],
)
def test_a_wrong_order_is_refused(refused: httpx.Client, body: dict[str, Any], status: int, field: str) -> None:
    """What concerns the whole batch is refused at once, with the field and a hint."""
    answer = refused.post("/v1/batches", json=body)
    assert answer.status_code == status, answer.text
    assert answer.json()["hint"]
    assert field in json.dumps(answer.json().get("errors", []))


def test_shikshasetus_clients_send_bulk_work(account: httpx.Client) -> None:
    """POST /api/v2/batch takes an operation and inputs, and gives each its outcome."""
    texts = [{"text": "The cat utilised the receptacle.", "target_grade": 3}, {"text": ""}]
    order = account.post("/api/v2/batch", json={"operation": "simplify", "items": texts})
    assert order.status_code == 202, order.text
    batch_id = order.json()["batch_id"]
    until(account, batch_id, lambda batch: batch["state"] == "done")
    shown = account.get(f"/api/v2/batch/{batch_id}").json()
    assert (shown["status"], shown["total"], shown["progress"]) == ("done", 2, 1.0)
    found = [json.loads(line) for line in account.get(f"/api/v2/batch/{batch_id}/results").text.splitlines()]
    assert [one["engine"] for one in found] == ["simplification", "simplification"]
    assert found[1]["error"]["errors"][0]["loc"] == ["text"]
    wrong = account.post("/api/v2/batch", json={"operation": "fly", "items": [{}]})
    assert wrong.status_code == 404
    assert wrong.json().keys() == {"error", "message", "request_id"}


def test_a_batch_goes_on_after_its_server_was_killed(
    tmp_path: Path, models_dir: Path, settings: dict[str, str], log: Path
) -> None:
    """Outcomes from before the crash stay, and only what had none runs again."""
    go = tmp_path / "go"
    items = [*[trial(log, f"quick{i}") for i in range(4)], *[trial(log, f"slow{i}", hold=str(go)) for i in range(6)]]
    with running_server(tmp_path / "data", models_dir, **settings) as first, first.new_account() as client:
        token = client.headers["Authorization"]
        batch_id = submitted(client, items)
        until(client, batch_id, lambda batch: batch["succeeded"] >= 4)
        first.process.kill()
        first.process.wait()
    go.touch()
    with (
        running_server(tmp_path / "data", models_dir, **settings) as second,
        httpx.Client(base_url=second.url, headers={"Authorization": token}, timeout=60) as client,
    ):
        batch = done(client, batch_id)
        assert (batch["succeeded"], batch["failed"]) == (10, 0)
        assert [one["id"] for one in outcomes(client, batch_id)] == [item["id"] for item in items]
    assert all(started(log, f"quick{i}") == 1 for i in range(4))
