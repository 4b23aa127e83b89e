"""Tasks over HTTP on a real server: their whole life, and everything a caller can get wrong."""

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from httpx_sse import EventSource

from tests.conftest import Server, running_server
from tests.e2e.task_engines import installed, lines

FINISHED = ("succeeded", "failed", "cancelled", "dead")
NEVER = "019a0000-0000-7000-8000-000000000000"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[Server]:
    """A server with the trial engine that runs one task at a time and retries soon."""
    folder = tmp_path_factory.mktemp("tasks")
    more = {"NEUROEDGE_TASK_CONCURRENCY": "1", "NEUROEDGE_TASK_RETRY_S": "0.2", "NEUROEDGE_TASK_QUEUE_LIMIT": "8"}
    with running_server(folder / "data", models_dir, **installed(folder / "site"), **more) as running:
        yield running


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Where the trial engine writes what it does."""
    return tmp_path / "runs.log"


@pytest.fixture
def go(tmp_path: Path) -> Path:
    """The file that runs wait for which are told so."""
    return tmp_path / "go"


def order(log: Path, *, priority: str = "normal", max_attempts: int = 3, **payload: Any) -> dict[str, Any]:
    """A call of the trial engine."""
    return {
        "engine": "trial",
        "payload": {"log": str(log), **payload},
        "priority": priority,
        "max_attempts": max_attempts,
    }


def submitted(client: httpx.Client, body: dict[str, Any], **headers: str) -> dict[str, Any]:
    """The task of an order that is taken."""
    answer = client.post("/v1/tasks", json=body, headers=headers)
    assert answer.status_code == 202, answer.text
    task: dict[str, Any] = answer.json()
    assert answer.headers["Location"] == f"/v1/tasks/{task['id']}"
    return task


def until(client: httpx.Client, task_id: str, reached: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The task once it is as wanted."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        task: dict[str, Any] = client.get(f"/v1/tasks/{task_id}").json()
        if reached(task):
            return task
        time.sleep(0.05)
    raise AssertionError(f"still {task}")


def finished(client: httpx.Client, task_id: str) -> dict[str, Any]:
    """The task once it is over."""
    return until(client, task_id, lambda task: task["state"] in FINISHED)


def followed(client: httpx.Client, task_id: str, **headers: str) -> list[tuple[str, Any]]:
    """(name, data) of each event until the end."""
    with client.stream("GET", f"/v1/tasks/{task_id}/events", headers=headers) as response:
        assert response.status_code == 200
        return [(e.event, json.loads(e.data)) for e in EventSource(response).iter_sse() if e.data]


def test_a_task_runs_in_the_background_and_keeps_its_result(account: httpx.Client, log: Path, go: Path) -> None:
    """202 at once, progress as it goes, then exactly what the engine answered, again and again."""
    task = submitted(account, order(log, seconds=1.2, letters=3, hold=str(go)))
    assert task["state"] in ("queued", "running")
    early = account.get(f"/v1/tasks/{task['id']}/result")
    assert early.status_code == 409
    assert f"/v1/tasks/{task['id']}/events" in early.json()["hint"]
    go.touch()
    told = followed(account, task["id"])
    assert [name for name, _ in told if name != "progress"] == ["queued", "started", "succeeded"]
    assert [data["fraction"] for name, data in told if name == "progress"][-1] > 0
    done = account.get(f"/v1/tasks/{task['id']}").json()
    assert done["state"] == "succeeded"
    assert (done["attempts"], done["errors"], done["interrupted"], done["error"]) == (1, 0, 0, None)
    assert done["created_at"] <= done["started_at"] < done["finished_at"]
    for _ in range(2):
        answer = account.get(f"/v1/tasks/{task['id']}/result").json()
        assert answer == {
            "id": task["id"],
            "engine": "trial",
            "result": {"method": "sleep", "models": [], "text": "\x00aaa"},
        }
    assert lines(log) == ["trial begins", "trial ends"]


@pytest.mark.models
def test_an_engine_of_the_platform_runs_as_a_task(account: httpx.Client) -> None:
    """A task gives what the engine gives when it is called directly."""
    texts = {"texts": ["The kettle is on."]}
    task = submitted(account, {"engine": "embedding", "payload": texts})
    assert finished(account, task["id"])["state"] == "succeeded"
    kept = account.get(f"/v1/tasks/{task['id']}/result").json()["result"]
    direct = account.post("/v1/engines/embedding/run", json=texts).json()["result"]
    assert {**kept, "cached": 1} == direct


def test_a_large_result_is_kept_and_goes_with_the_task(server: Server, account: httpx.Client, log: Path) -> None:
    """Megabytes are not a row's business; deleting the task deletes them."""
    task = submitted(account, order(log, letters=3_000_000))
    assert finished(account, task["id"])["state"] == "succeeded"
    assert len(account.get(f"/v1/tasks/{task['id']}/result").json()["result"]["text"]) == 3_000_001
    blobs = server.data_dir / "blobs"
    assert list(blobs.glob(f"*/tasks/{task['id']}/1/result.json"))
    assert account.delete(f"/v1/tasks/{task['id']}").status_code == 204
    deadline = time.monotonic() + 60
    while list(blobs.glob(f"*/tasks/{task['id']}/**/*.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not list(blobs.glob(f"*/tasks/{task['id']}/**/*.json"))
    assert account.get(f"/v1/tasks/{task['id']}").status_code == 404


def test_a_run_that_failed_is_made_again(account: httpx.Client, log: Path) -> None:
    """An error that may pass is tried again, later each time; the task tells of it and then succeeds."""
    task = submitted(account, order(log, fail=2, how="away"))
    told = followed(account, task["id"])
    assert [name for name, _ in told if name != "progress"] == [
        "queued", "started", "retrying", "started", "retrying", "started", "succeeded",
    ]  # fmt: skip
    assert [data["code"] for name, data in told if name == "retrying"] == ["unavailable"] * 2
    done = account.get(f"/v1/tasks/{task['id']}").json()
    assert (done["attempts"], done["errors"], done["interrupted"], done["error"]) == (3, 2, 0, None)


def test_a_task_that_fails_as_often_as_allowed_is_dead_and_can_be_run_anew(account: httpx.Client, log: Path) -> None:
    """The dead letter list shows it with its error; a defect's text is not shown; retrying gives all attempts again."""
    task = submitted(account, order(log, fail=3, how="crash", max_attempts=2))
    dead = finished(account, task["id"])
    assert (dead["state"], dead["attempts"], dead["errors"]) == ("dead", 2, 2)
    assert dead["error"]["code"] == "internal"
    assert "secret" not in json.dumps(dead)
    assert [t["id"] for t in account.get("/v1/tasks", params={"state": "dead"}).json()["tasks"]] == [task["id"]]
    assert account.get(f"/v1/tasks/{task['id']}/result").status_code == 500
    again = account.post(f"/v1/tasks/{task['id']}/retry")
    assert again.status_code == 202
    assert (again.json()["state"], again.json()["errors"], again.json()["error"]) == ("queued", 0, None)
    done = finished(account, task["id"])
    assert (done["state"], done["attempts"], done["errors"]) == ("succeeded", 4, 1)
    assert account.get("/v1/tasks", params={"state": "dead"}).json()["tasks"] == []
    assert followed(account, task["id"])[-1][0] == "succeeded"


def test_a_callers_mistake_is_not_tried_again(account: httpx.Client, log: Path) -> None:
    """What the engine refuses it would refuse again; the result is the error it gave."""
    task = submitted(account, order(log, fail=1, how="mistake"))
    failed = finished(account, task["id"])
    assert (failed["state"], failed["attempts"]) == ("failed", 1)
    assert failed["error"] == {"code": "not_found", "detail": "no such thing", "hint": "look again"}
    answer = account.get(f"/v1/tasks/{task['id']}/result")
    assert (answer.status_code, answer.json()["code"], answer.json()["hint"]) == (404, "not_found", "look again")
    assert followed(account, task["id"])[-1] == ("failed", failed["error"])


def test_a_task_that_takes_too_long_is_stopped(account: httpx.Client, log: Path) -> None:
    """Its own time limit ends a run, and counts as an error that may pass."""
    # Long enough for the engine to begin on a machine that stands still for a while.
    task = submitted(account, {**order(log, seconds=600, max_attempts=1), "timeout_s": 5})
    dead = finished(account, task["id"])
    assert (dead["state"], dead["error"]["code"]) == ("dead", "deadline_exceeded")
    assert lines(log) == ["trial begins", "trial is cancelled"]


def test_higher_priority_goes_first(account: httpx.Client, log: Path, go: Path) -> None:
    """Among those that wait: high before normal before low, and in each the oldest first."""
    blocker = submitted(account, order(log, name="blocker", hold=str(go), priority="high"))
    until(account, blocker["id"], lambda task: task["state"] == "running")
    for priority in ("low", "normal", "high", "normal"):
        submitted(account, order(log, name=priority, priority=priority))
    go.touch()
    for task in account.get("/v1/tasks").json()["tasks"]:
        assert finished(account, task["id"])["state"] == "succeeded"
    begun = [line.removesuffix(" begins") for line in lines(log) if line.endswith("begins")]
    assert begun == ["blocker", "high", "normal", "normal", "low"]


@pytest.mark.parametrize("by", ["delay_s", "run_at"])
def test_a_task_starts_when_it_is_due(account: httpx.Client, log: Path, by: str) -> None:
    """Scheduled until then, and not started before."""

    def due(seconds: float) -> tuple[datetime, dict[str, Any]]:
        at = datetime.now(UTC) + timedelta(seconds=seconds)
        return at, {**order(log, name=f"in {seconds}"), by: seconds if by == "delay_s" else at.isoformat()}

    _, later = due(3600)
    waiting = submitted(account, later)
    assert waiting["state"] == "scheduled"
    assert [t["id"] for t in account.get("/v1/tasks", params={"state": "scheduled"}).json()["tasks"]] == [waiting["id"]]
    assert account.get("/v1/tasks", params={"state": "queued"}).json()["tasks"] == []
    at, soon = due(1.5)
    done = finished(account, submitted(account, soon)["id"])
    assert done["state"] == "succeeded"
    assert datetime.fromisoformat(done["started_at"]) >= at
    assert lines(log) == ["in 1.5 begins", "in 1.5 ends"]


def test_a_waiting_task_is_cancelled_at_once(account: httpx.Client, log: Path) -> None:
    """It never runs; cancelling it again changes nothing; run anew it runs."""
    task = submitted(account, {**order(log), "delay_s": 3600})
    cancelled = account.post(f"/v1/tasks/{task['id']}/cancel")
    assert (cancelled.status_code, cancelled.json()["state"]) == (200, "cancelled")
    assert cancelled.json()["next_run_at"] is None
    assert account.post(f"/v1/tasks/{task['id']}/cancel").json() == cancelled.json()
    assert account.get(f"/v1/tasks/{task['id']}/result").status_code == 409
    assert followed(account, task["id"])[-1][0] == "cancelled"
    assert lines(log) == []
    assert account.post(f"/v1/tasks/{task['id']}/retry").status_code == 202
    assert finished(account, task["id"])["state"] == "succeeded"


def test_a_running_task_is_cancelled_within_a_moment(account: httpx.Client, log: Path) -> None:
    """The engine's own call ends; the worker is free for the next task; what was cancelled stays so."""
    task = submitted(account, order(log, seconds=600))
    until(account, task["id"], lambda task: task["stage"] == "sleeping")
    assert account.post(f"/v1/tasks/{task['id']}/cancel").json()["state"] == "cancelled"
    following = submitted(account, order(log, name="next"))
    assert finished(account, following["id"])["state"] == "succeeded"
    assert lines(log) == ["trial begins", "trial is cancelled", "next begins", "next ends"]
    after = account.get(f"/v1/tasks/{task['id']}").json()
    assert (after["state"], after["interrupted"]) == ("cancelled", 0)


def test_what_is_over_is_not_cancelled_and_what_is_not_over_is_not_deleted(account: httpx.Client, log: Path) -> None:
    """409 with what to do instead."""
    task = submitted(account, {**order(log), "delay_s": 3600})
    for refused in (account.delete(f"/v1/tasks/{task['id']}"), account.post(f"/v1/tasks/{task['id']}/retry")):
        assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
        assert refused.json()["hint"]
    account.post(f"/v1/tasks/{task['id']}/cancel")
    done = submitted(account, order(log))
    finished(account, done["id"])
    for refused in (account.post(f"/v1/tasks/{done['id']}/cancel"), account.post(f"/v1/tasks/{done['id']}/retry")):
        assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    for over in (task, done):
        assert account.delete(f"/v1/tasks/{over['id']}").status_code == 204
        assert account.delete(f"/v1/tasks/{over['id']}").status_code == 404


def test_a_request_sent_twice_makes_one_task(account: httpx.Client, stranger: httpx.Client, log: Path) -> None:
    """With the same Idempotency-Key, also at the same moment; another order under the key is a conflict."""
    body = {**order(log), "delay_s": 3600}
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: submitted(account, body, **{"Idempotency-Key": "k-1"}), range(8)))
    assert len({answer["id"] for answer in answers}) == 1
    assert len(account.get("/v1/tasks").json()["tasks"]) == 1
    other = account.post("/v1/tasks", json={**body, "delay_s": 3601}, headers={"Idempotency-Key": "k-1"})
    assert (other.status_code, other.json()["code"]) == (409, "conflict")
    assert submitted(account, body, **{"Idempotency-Key": "k-2"})["id"] != answers[0]["id"]
    assert submitted(stranger, body, **{"Idempotency-Key": "k-1"})["id"] != answers[0]["id"]


def test_pages_and_filters_of_the_list(account: httpx.Client, log: Path) -> None:
    """Newest first, no task twice and none left out; by engine and state."""
    made = [submitted(account, {**order(log), "delay_s": 3600})["id"] for _ in range(5)]
    seen: list[str] = []
    page: dict[str, Any] = {"next": None}
    while not seen or page["next"]:
        page = account.get("/v1/tasks", params={"limit": 2, **({"before": page["next"]} if seen else {})}).json()
        seen += [task["id"] for task in page["tasks"]]
    assert seen == made[::-1]
    assert len(account.get("/v1/tasks", params={"engine": "trial"}).json()["tasks"]) == 5
    assert account.get("/v1/tasks", params={"engine": "chat"}).json()["tasks"] == []
    assert account.get("/v1/tasks", params={"state": "succeeded"}).json()["tasks"] == []


def test_another_tenant_sees_nothing_of_a_task(account: httpx.Client, stranger: httpx.Client, log: Path) -> None:
    """Every way to it answers as for a task that never was."""
    task = submitted(account, {**order(log), "delay_s": 3600})
    assert stranger.get("/v1/tasks").json()["tasks"] == []
    for method, path in (
        ("GET", ""), ("GET", "/result"), ("GET", "/events"), ("POST", "/cancel"), ("POST", "/retry"), ("DELETE", ""),
    ):  # fmt: skip
        theirs = stranger.request(method, f"/v1/tasks/{task['id']}{path}")
        never = stranger.request(method, f"/v1/tasks/{NEVER}{path}")
        assert theirs.status_code == never.status_code == 404, (method, path)
        assert theirs.json()["code"] == never.json()["code"] == "not_found"
    assert account.get(f"/v1/tasks/{task['id']}").json()["state"] == "scheduled"


def _now(**delta: float) -> str:
    return (datetime.now(UTC) + timedelta(**delta)).isoformat()


@pytest.mark.parametrize(
    ("change", "status", "field"),
    [
        ({"engine": "nonesuch"}, 404, None),
        ({"engine": ""}, 404, None),
        ({"engine": None}, 422, ["body", "engine"]),
        ({"payload": {}}, 422, ["body", "payload", "log"]),
        ({"payload": {"log": 7}}, 422, ["body", "payload", "log"]),
        ({"payload": {"log": "x", "typo": 1}}, 422, ["body", "payload", "typo"]),
        ({"payload": []}, 422, ["body", "payload"]),
        ({"payload": {"log": "x", "seconds": float("nan")}}, 422, None),
        ({"priority": "urgent"}, 422, ["body", "priority"]),
        ({"max_attempts": 0}, 422, ["body", "max_attempts"]),
        ({"max_attempts": 1000}, 422, ["body", "max_attempts"]),
        ({"max_attempts": 2.5}, 422, ["body", "max_attempts"]),
        ({"delay_s": -1}, 422, ["body", "delay_s"]),
        ({"delay_s": float("nan")}, 422, ["body", "delay_s"]),
        ({"delay_s": float("inf")}, 422, ["body", "delay_s"]),
        ({"delay_s": 1e12}, 422, ["body", "delay_s"]),
        pytest.param({"run_at": _now(days=-1)}, 422, ["body", "run_at"], id="yesterday"),
        pytest.param({"run_at": _now(days=400)}, 422, ["body", "run_at"], id="after more than a year"),
        ({"run_at": "9999-12-31T23:59:59Z"}, 422, ["body", "run_at"]),
        ({"run_at": "2030-01-01T00:00:00"}, 422, ["body", "run_at"]),
        ({"run_at": "NaN"}, 422, ["body", "run_at"]),
        ({"run_at": float("nan")}, 422, ["body", "run_at"]),
        ({"run_at": 4102444800}, 422, ["body", "run_at"]),
        ({"run_at": "tomorrow"}, 422, ["body", "run_at"]),
        pytest.param({"run_at": _now(hours=1), "delay_s": 5}, 422, None, id="two times"),
        ({"timeout_s": 0}, 422, ["body", "timeout_s"]),
        ({"timeout_s": float("inf")}, 422, ["body", "timeout_s"]),
        ({"retries": 3}, 422, ["body", "retries"]),
        ({"org_id": NEVER}, 422, ["body", "org_id"]),
        ({"payload": {"log": "x", "name": "y" * (2 << 20)}}, 413, None),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_wrong_order_is_refused_at_once(
    refused: httpx.Client, log: Path, change: dict[str, Any], status: int, field: list[str] | None
) -> None:
    """The answer names the field; nothing is kept."""
    body = {**order(log), **change}
    answer = refused.post("/v1/tasks", content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert answer.status_code == status, answer.text
    problem = answer.json()
    assert problem["hint"]
    if field is not None:
        assert [error["loc"] for error in problem["errors"]] == [field]
    assert refused.get("/v1/tasks").json()["tasks"] == []


def test_a_payload_nested_a_thousand_levels_deep_is_no_crash(refused: httpx.Client, log: Path) -> None:
    """Whatever the parsers make of it, it is the caller's mistake."""
    for depth in (200, 900, 5_000, 100_000):
        deep = '{"engine":"trial","payload":{"log":' + "[" * depth + "]" * depth + "}}"
        answer = refused.post("/v1/tasks", content=deep, headers={"Content-Type": "application/json"})
        assert answer.status_code in (400, 422), (depth, answer.text)


@pytest.mark.parametrize(
    "query",
    ["state=done", "state=", "before=xyz", "before=1", "limit=0", "limit=201", "limit=x", f"engine={'e' * 201}"],
)
def test_a_wrong_filter_is_refused(refused: httpx.Client, query: str) -> None:
    """422 with the parameter's name."""
    answer = refused.get(f"/v1/tasks?{query}")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["loc"] == ["query", query.split("=")[0]]


def test_zero_characters_in_a_filter_find_nothing(account: httpx.Client) -> None:
    """What no text column can hold is no crash."""
    assert account.get("/v1/tasks?engine=%00").status_code in (200, 422)


@pytest.mark.parametrize("key", ["", "with space", "x" * 256, "\u00e9"])
def test_a_wrong_idempotency_key_is_refused(refused: httpx.Client, log: Path, key: str) -> None:
    """Printable ASCII, up to 255 characters."""
    answer = refused.post("/v1/tasks", json=order(log), headers={"Idempotency-Key": key.encode("latin-1")})  # type: ignore[dict-item]
    assert answer.status_code == 422
    assert refused.get("/v1/tasks").json()["tasks"] == []


@pytest.mark.parametrize("path", ["", "/result", "/events", "/cancel", "/retry"])
def test_an_id_that_is_none_is_refused(refused: httpx.Client, path: str) -> None:
    """422 before anything is looked up."""
    method = "POST" if path in ("/cancel", "/retry") else "GET"
    assert refused.request(method, f"/v1/tasks/not-an-id{path}").status_code == 422


def test_an_organisation_with_too_many_unfinished_tasks_has_to_wait(account: httpx.Client, log: Path) -> None:
    """429 with Retry-After; finished and cancelled ones do not count."""
    made = [submitted(account, {**order(log), "delay_s": 3600}) for _ in range(8)]
    full = account.post("/v1/tasks", json=order(log))
    assert (full.status_code, full.json()["code"]) == (429, "overloaded")
    assert int(full.headers["Retry-After"]) > 0
    account.post(f"/v1/tasks/{made[0]['id']}/cancel")
    assert finished(account, submitted(account, order(log))["id"])["state"] == "succeeded"


def test_a_lost_connection_resumes_by_event_id(account: httpx.Client, log: Path) -> None:
    """Events after the given one, none twice; an id that is none is refused."""
    task = submitted(account, order(log))
    finished(account, task["id"])
    with account.stream("GET", f"/v1/tasks/{task['id']}/events") as response:
        events = [event for event in EventSource(response).iter_sse() if event.data]
    rest = followed(account, task["id"], **{"Last-Event-ID": events[0].id})
    assert [name for name, _ in rest] == [event.event for event in events[1:]]
    wrong = account.get(f"/v1/tasks/{task['id']}/events", headers={"Last-Event-ID": "latest"})
    assert wrong.status_code == 422


def test_nemos_queue_takes_a_task(account: httpx.Client, log: Path) -> None:
    """POST /queue/task makes the same task under NeMo's names."""
    body = {"task_type": "trial", "payload": {"log": str(log)}, "priority": "high"}
    answer = account.post("/queue/task", json=body)
    assert answer.status_code == 202
    task = finished(account, answer.json()["task_id"])
    assert (task["state"], task["priority"], task["engine"]) == ("succeeded", "high", "trial")
    assert account.post("/queue/task", json={**body, "task_type": "nonesuch"}).status_code == 404
    assert account.post("/queue/task", json={**body, "payload": {}}).status_code == 422
