"""/v1/models over HTTP: load, unload, evict within the budget, give memory back; what callers see of it."""

import concurrent.futures
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.conftest import Server, running_server

pytestmark = pytest.mark.models

ENCODER, WHISPER, VAD = "all-minilm-l6-v2-int8", "whisper-tiny-en", "silero-vad"
MIB = 1 << 20


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[Server]:
    """A server whose models may take 300 MiB: the encoder and one small recogniser, not two."""
    folder = tmp_path_factory.mktemp("small") / "data"
    more = {"NEUROEDGE_MEMORY_BUDGET_BYTES": str(300 * MIB), "NEUROEDGE_MODELS_WARM": "voice_activity"}
    with running_server(folder, models_dir, **more) as server:
        yield server


@pytest.fixture(scope="module")
def boss(small: Server) -> Iterator[httpx.Client]:
    """Its operator."""
    with small.new_operator() as client:
        yield client


def show(client: httpx.Client, model_id: str) -> dict[str, Any]:
    """One model."""
    answer: dict[str, Any] = client.get(f"/v1/models/{model_id}").json()
    return answer


def test_what_is_to_be_warm_is_loaded_without_a_request(boss: httpx.Client) -> None:
    """The role's model, at the start; no other one."""
    deadline = time.monotonic() + 60
    while show(boss, VAD)["state"] != "ready" and time.monotonic() < deadline:
        time.sleep(0.1)
    warm = show(boss, VAD)
    assert (warm["state"], warm["loads"], warm["priority"]) == ("ready", 1, "low")
    assert [model["name"] for model in boss.get("/api/ps").json()["models"]] == [VAD]


def test_a_model_is_loaded_shown_and_unloaded(boss: httpx.Client) -> None:
    """State, device, bytes, load time; and the list of what is in memory."""
    loaded = boss.post(f"/v1/models/{ENCODER}/load").json()
    assert loaded["state"] == "ready"
    assert loaded["device"] == "cpu"
    assert loaded["bytes"] > 20 * MIB
    assert loaded["load_s"] > 0
    assert loaded["leases"] == 0
    assert ENCODER in [model["name"] for model in boss.get("/api/ps").json()["models"]]
    listed = boss.get("/v1/models").json()
    assert listed["object"] == "list"
    assert {model["object"] for model in listed["data"]} == {"model"}
    assert listed["memory"][0]["budget_bytes"] == 300 * MIB
    assert listed["memory"][0]["used_bytes"] >= loaded["bytes"]
    gone = boss.post(f"/v1/models/{ENCODER}/unload").json()
    assert gone["state"] == "unloaded"
    assert ENCODER not in [model["name"] for model in boss.get("/api/ps").json()["models"]]


def test_the_budget_evicts_the_idle_model(boss: httpx.Client) -> None:
    """Models that do not fit together take turns; the metrics say who left and why."""
    for model_id in (ENCODER, WHISPER, "whisper-base"):
        assert boss.post(f"/v1/models/{model_id}/load").status_code == 200
    listed = boss.get("/v1/models").json()
    memory = listed["memory"][0]
    assert memory["used_bytes"] <= memory["budget_bytes"]
    assert show(boss, "whisper-base")["state"] == "ready"
    assert show(boss, ENCODER)["state"] == "unloaded"
    evicted = f'neuroedge_model_evictions_total{{model="{ENCODER}",reason="room"}}'
    assert evicted in boss.get("/metrics").text
    boss.post("/v1/models/whisper-base/unload")


def test_a_model_that_can_never_fit_is_503_with_the_remedy(boss: httpx.Client) -> None:
    """At once, without a try; nothing else is evicted for it, and the server stays ready."""
    boss.post(f"/v1/models/{ENCODER}/load")
    refused = boss.post("/v1/models/qwen2.5-coder-0.5b-instruct/load")
    assert refused.status_code == 503
    assert refused.json()["code"] == "not_enough_memory"
    assert "NEUROEDGE_MEMORY_BUDGET_BYTES" in refused.json()["hint"]
    assert show(boss, ENCODER)["state"] == "ready"
    assert boss.get("/ready").status_code == 200


@pytest.mark.parametrize("path", ["/v1/models/none/load", "/v1/models/none/unload", "/v1/models/none"])
def test_an_unknown_model_is_404(boss: httpx.Client, path: str) -> None:
    """With the command that lists them."""
    answer = boss.get(path) if path.endswith("none") else boss.post(path)
    assert answer.status_code == 404
    assert "models list" in answer.json()["hint"]


def test_a_wrong_body_is_422(boss: httpx.Client) -> None:
    """Unknown priority, unknown field."""
    for body in ({"priority": "urgent"}, {"speed": 1}):
        assert boss.post(f"/v1/models/{ENCODER}/load", json=body).status_code == 422


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_fifty_loads_and_unloads_do_not_grow(small: Server, boss: httpx.Client) -> None:
    """Resident memory after each unload stays where it was after the first few."""
    process, after = psutil.Process(small.process.pid), []
    for _ in range(50):
        assert boss.post(f"/v1/models/{ENCODER}/load").json()["state"] == "ready"
        assert boss.post("/v1/engines/embedding/run", json={"texts": ["A text of some length." * 20]}).is_success
        assert boss.post(f"/v1/models/{ENCODER}/unload").json()["state"] == "unloaded"
        after.append(process.memory_info().rss)
    early, late = sorted(after[5:15])[5], sorted(after[-10:])[5]
    assert late - early < 25 * MIB, [round(rss / MIB) for rss in after]


def test_unloading_gives_the_memory_back_to_the_system(small: Server, boss: httpx.Client) -> None:
    """Resident memory falls by most of what the model took."""
    process = psutil.Process(small.process.pid)
    taken = boss.post("/v1/models/whisper-base/load").json()["bytes"]
    before = process.memory_info().rss
    boss.post("/v1/models/whisper-base/unload")
    assert before - process.memory_info().rss > 0.6 * taken


def test_a_model_changes_hands_under_load_without_a_lost_request(boss: httpx.Client) -> None:
    """While calls come in, an operator unloads the encoder again and again: each call is answered."""

    def embed(number: int) -> int:
        return boss.post("/v1/engines/embedding/run", json={"texts": [f"text {number}"]}).status_code

    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        calls = [threads.submit(embed, number) for number in range(80)]
        for _ in range(5):
            assert boss.post(f"/v1/models/{ENCODER}/unload").status_code in (200, 409)
        assert {call.result() for call in calls} == {200}


def test_a_truncated_model_file_is_told_and_mends_itself(tmp_path: Path, models_dir: Path) -> None:
    """503 with the remedy, not a crash; /ready says which model; when the file is whole again all is well."""
    store = tmp_path / "models"
    store.mkdir()
    for folder in models_dir.iterdir():
        if folder.is_dir():
            (store / folder.name).symlink_to(folder)
    (store / ENCODER).unlink()
    shutil.copytree(models_dir / ENCODER, store / ENCODER)
    weights = store / ENCODER / "model.onnx"
    whole = weights.read_bytes()
    with running_server(tmp_path / "data", store) as server, server.new_account() as client:
        weights.write_bytes(whole[: len(whole) // 2])
        refused = client.post("/v1/engines/embedding/run", json={"texts": ["a"]})
        assert refused.status_code == 503
        assert refused.json()["code"] == "model_unavailable"
        assert f"models pull {ENCODER}" in refused.json()["hint"]
        ready = client.get("/ready")
        assert ready.status_code == 503
        assert ENCODER in ready.json()["checks"]["models"]["detail"]
        assert client.get("/health").status_code == 200
        weights.write_bytes(whole)
        assert client.post("/v1/engines/embedding/run", json={"texts": ["a"]}).status_code == 200
        assert client.get("/ready").status_code == 200
