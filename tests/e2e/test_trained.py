"""A tenant trains a model over HTTP as a task, asks it, lists it, deletes it; another tenant never meets it."""

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from tests.conftest import Server


def _csv(rows: int = 240) -> str:
    rng = np.random.default_rng(3)
    lines = ["age,plan,hours,left"]
    for _ in range(rows):
        plan, hours = rng.choice(["free", "team"]), rng.uniform(0, 10)
        left = "yes" if (hours < 4) != (plan == "team" and hours < 2) else "no"
        lines.append(f"{rng.integers(18, 70)},{plan},{hours:.2f},{left}")
    return "\n".join(lines)


@pytest.fixture(scope="module")
def owner(server: Server) -> Iterator[httpx.Client]:
    """Who trains."""
    with server.new_account() as client:
        yield client


@pytest.fixture(scope="module")
def trained(owner: httpx.Client) -> dict[str, Any]:
    """The result of the training task, from a file the owner sent."""
    sent = {"file": ("left.csv", _csv().encode())}
    file_id = owner.post("/v1/files", files=sent, data={"purpose": "user_data"}).json()["id"]
    order = {"name": "who left", "task": "classification", "target": "left"}
    task = owner.post("/v1/models/train", json={"train": order, "file_id": file_id.removeprefix("file-")})
    assert task.status_code == 202, task.text
    deadline = time.monotonic() + 120
    while (state := owner.get(f"/v1/tasks/{task.json()['id']}").json())["state"] not in ("succeeded", "failed", "dead"):
        assert time.monotonic() < deadline, state
        time.sleep(0.2)
    assert state["state"] == "succeeded", state
    result: dict[str, Any] = owner.get(f"/v1/tasks/{task.json()['id']}/result").json()["result"]
    return result


def test_a_trained_model_answers_rows_on_both_paths(owner: httpx.Client, trained: dict[str, Any]) -> None:
    """The network learns the rule that a straight line cannot; /ml/predict of the contract gives the same."""
    assert trained["onnx_sha256"]
    assert trained["trained"]["onnx_parity"] <= 1e-5
    assert {f["name"]: f["value"] for f in trained["holdout"]["figures"]}["accuracy"] > 0.85
    rows = [{"age": 30, "plan": "free", "hours": 0.5}, {"age": None, "plan": "team", "hours": 9}]
    body = {"model": trained["model_id"], "rows": rows}
    answers = [owner.post(path, json=body) for path in ("/v1/ml/predict", "/ml/predict")]
    assert [a.status_code for a in answers] == [200, 200], answers[0].text
    assert [p["label"] for p in answers[0].json()["predictions"]] == ["yes", "no"]
    assert answers[0].json() == answers[1].json()


def test_it_is_listed_with_its_card(owner: httpx.Client, trained: dict[str, Any]) -> None:
    """Name, graph's digest, columns, figures."""
    listed = owner.get("/v1/trained-models").json()["models"]
    assert [(m["id"], m["name"], m["sha256"]) for m in listed] == [
        (trained["model_id"], "who left", trained["onnx_sha256"])
    ]
    card = owner.get(f"/v1/trained-models/{trained['model_id']}").json()["card"]
    assert [f["name"] for f in card["features"]] == ["age", "plan", "hours"]
    assert card["holdout"]["figures"]


def test_another_tenant_finds_nothing(server: Server, trained: dict[str, Any]) -> None:
    """Neither lists, reads, runs nor deletes it, though its session is open in the process."""
    with server.new_account() as stranger:
        assert stranger.get("/v1/trained-models").json()["models"] == []
        row = {"age": 30, "plan": "free", "hours": 1}
        answers = [
            stranger.get(f"/v1/trained-models/{trained['model_id']}"),
            stranger.post("/ml/predict", json={"model": trained["model_id"], "rows": [row]}),
            stranger.delete(f"/v1/trained-models/{trained['model_id']}"),
        ]
        assert [a.status_code for a in answers] == [404] * 3


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ({"age": 30, "plan": "free"}, "hours"),
        ({"age": 30, "plan": "free", "hours": "=1+1"}, "hours"),
        ({"age": True, "plan": "free", "hours": 1}, "age"),
        ({"age": 30, "plan": "free", "hours": 1, "height": 2}, "height"),
        ({"age": 1e300, "plan": "free", "hours": 1}, "large"),
        ({"age": [30], "plan": "free", "hours": 1}, "age"),
    ],
)
def test_a_wrong_row_is_a_422_that_names_the_column(
    owner: httpx.Client, trained: dict[str, Any], row: dict[str, Any], named: str
) -> None:
    """Missing, unknown, a formula for a number, a number no float32 holds."""
    answer = owner.post("/v1/ml/predict", json={"model": trained["model_id"], "rows": [row]})
    assert answer.status_code == 422, answer.text
    assert named in json.dumps(answer.json())


def test_someone_elses_file_and_two_tables_are_refused(owner: httpx.Client, server: Server) -> None:
    """404 and 422 at once, before anything is queued."""
    file_id = owner.post("/v1/files", files={"file": ("a.csv", b"a\n1")}, data={"purpose": "user_data"}).json()["id"]
    order = {"name": "n", "task": "clusters"}
    asked = {"train": order, "file_id": file_id.removeprefix("file-")}
    with server.new_account() as stranger:
        assert stranger.post("/v1/models/train", json=asked).status_code == 404
    twice = {**asked, "train": {**order, "table": {"csv": "a\n1"}}}
    assert owner.post("/v1/models/train", json=twice).status_code == 422
    assert owner.post("/v1/models/train", json={"train": order}).status_code == 422


def test_an_order_without_a_stored_model_is_measured_only(owner: httpx.Client) -> None:
    """`keep` false: figures, no id; regression over the engine's own route."""
    order = {
        "name": "hours",
        "task": "regression",
        "target": "hours",
        "table": {"csv": _csv(120)},
        "keep": False,
        "epochs": 20,
    }
    answer = owner.post("/v1/engines/deep_learning/run", json={"train": order}, timeout=60)
    assert answer.status_code == 200, answer.text
    assert answer.json()["result"]["model_id"] is None
    assert answer.json()["result"]["holdout"]["baseline"] == "mean"


def test_a_deleted_model_is_gone(owner: httpx.Client, trained: dict[str, Any]) -> None:
    """Its row, its graph, its open session."""
    path = f"/v1/trained-models/{trained['model_id']}"
    assert owner.delete(path).status_code == 204
    row = {"age": 30, "plan": "free", "hours": 1}
    assert owner.post("/ml/predict", json={"model": trained["model_id"], "rows": [row]}).status_code == 404
    assert owner.delete(path).status_code == 404
