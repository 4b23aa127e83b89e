"""AIVO Brain Service's clients of predictions, unchanged but for the base URL: with data sent, and with kept events."""

import random
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.conftest import Server, running_server

ROUTES = (
    *("ml/predict/difficulty", "ml/predict/engagement", "ml/predict/focus", "ml/detect/learning-style"),
    *("ml/detect/emotion", "ml/personalize", "analytics/focus", "analytics/break", "analytics/attention"),
)


def _ask(client: httpx.Client, route: str, **body: Any) -> dict[str, Any]:
    answer = client.post(f"/api/v1/{route}", json=body)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    assert {"prediction", "confidence", "modelType", "learnerId", "engine", "method", "reliable", "warnings"} <= set(
        told
    )
    return told


@pytest.fixture(scope="module")
def school(server: Server) -> Iterator[httpx.Client]:
    """An organisation with twelve learners who answered ten items each, the last ones in a hurry."""
    draw = random.Random(0)
    with server.new_account() as client:
        for k in range(12):
            consent = {"granted": True, "by": "school"}
            assert client.put(f"/v1/learners/l{k}/consent", json=consent).status_code == 200
            events = [
                {
                    "id": f"e{i}",
                    "at": f"2026-02-01T10:{2 * i:02d}:00Z",
                    "item": f"i{i}",
                    "skill": "k",
                    "correct": draw.random() < 0.95 - 0.08 * i - 0.03 * (k - 6),
                    "time_s": 1.0 if k == 11 else 20.0 + draw.random() * 10,
                    "modality": "video" if i % 2 else "text",
                    "chosen": False,
                    "source": "quiz",
                }
                for i in range(10)
            ]
            assert client.post(f"/v1/learners/l{k}/events", json={"events": events}).status_code == 200
        yield client


def test_difficulty_of_kept_answers(school: httpx.Client) -> None:
    """The first item is likelier solved than the last; of the others' estimates nothing is shown."""
    told = _ask(school, "ml/predict/difficulty", modelType="difficulty", learnerId="l3", input={"items": ["i0", "i9"]})
    easy, hard = told["prediction"]
    assert easy > hard
    assert told["details"]["n_responses"] == 120
    assert len(told["details"]["students"]) == len(told["details"]["mastery"]) == 1
    single = _ask(school, "ml/predict/difficulty", learnerId="l3", input={"item": "i0"})
    assert single["confidence"] == pytest.approx(max(single["prediction"], 1 - single["prediction"]))
    assert (single["modelType"], single["learnerId"]) == ("difficulty", "l3")


def test_engagement_of_kept_answers(school: httpx.Client) -> None:
    """Against the usual times of the other eleven."""
    calm, hasty = (_ask(school, "ml/predict/engagement", learnerId=name) for name in ("l2", "l11"))
    assert (calm["prediction"], hasty["prediction"]) == ("engaged", "disengaged")
    assert hasty["details"]["rte"] == 0
    assert hasty["confidence"] > 0.5
    assert "simulated" in hasty["warnings"][0]


def test_learning_style_is_insufficient(school: httpx.Client) -> None:
    """No style is ever read from ten answers."""
    told = _ask(school, "ml/detect/learning-style", learnerId="l2")
    assert (told["prediction"], told["confidence"], told["reliable"]) == ("insufficient", None, False)
    assert "Pashler" in told["warnings"][0]


def test_focus_and_analytics(school: httpx.Client) -> None:
    """One session alone is too little for a score: null, and the warnings say so; sent data may be in camelCase."""
    told = _ask(school, "ml/predict/focus", learnerId="l2")
    assert told["prediction"] is None
    assert told["warnings"]
    responses = [{"atS": 20.0 * i, "reactionMs": 900 + 30 * (i % 7)} for i in range(40)]
    past = [
        {"responses": responses, "durationS": 1200 + 100 * k, "endedBy": "break" if k % 3 else "other"}
        for k in range(8)
    ]
    slow = [{**r, "reactionMs": r["reactionMs"] * 2.5} for r in responses]
    sent = {"responses": slow, "past": past}
    assert _ask(school, "ml/predict/focus", input=sent)["prediction"] < 50
    assert _ask(school, "analytics/focus", input=sent)["prediction"]["ci95"]
    assert "suggestAtSeconds" in _ask(school, "analytics/break", input=sent)["prediction"]
    assert _ask(school, "analytics/attention", input=sent)["prediction"]


def test_personalize_uses_the_kept_mastery(school: httpx.Client) -> None:
    """What follows a skill is offered with a reason."""
    skills = [{"id": "k"}, {"id": "next", "prerequisites": ["k"]}]
    told = _ask(school, "ml/personalize", learnerId="l0", input={"skills": skills})
    assert told["prediction"]
    assert all(step["reason"] for step in told["prediction"])
    assert next(s for s in told["details"]["skills"] if s["skill"] == "k")["n_observations"] == 10


@pytest.mark.models
def test_emotion_of_words(school: httpx.Client) -> None:
    """The likeliest label with its score; null when it abstains."""
    told = _ask(school, "ml/detect/emotion", input={"text": "Thank you so much, that is wonderful news!"})
    assert told["prediction"] == "gratitude"
    assert 0 < told["confidence"] <= 1
    assert _ask(school, "ml/detect/emotion", input={"text": "Ok."})["prediction"] is None


@pytest.mark.parametrize("route", ROUTES)
def test_bad_input_is_a_422(school: httpx.Client, route: str) -> None:
    """Nothing given, an unknown field, a wrong type, an unknown field of the engine; never 500."""
    path = f"/api/v1/{route}"
    for body in (
        {},
        {"input": {}, "colour": "red"},
        {"input": []},
        {"input": {"noSuchField": 1, "responses": [], "events": [], "outcomes": [], "skills": [], "segments": []}},
        {"learnerId": "", "input": {}},
        {"learnerId": "x" * 201, "input": {}},
    ):
        answer = school.post(path, json=body)
        assert answer.status_code == 422, (body, answer.text)
        assert answer.json()["code"] == "invalid_input"


@pytest.mark.parametrize("route", sorted(set(ROUTES) - {"ml/detect/emotion"}))
def test_another_tenants_learner_is_not_there(school: httpx.Client, refused: httpx.Client, route: str) -> None:
    """404, as for one who never was."""
    body = {"learnerId": "l2", "input": {"items": ["i0"]} if route == "ml/predict/difficulty" else {}}
    answer = refused.post(f"/api/v1/{route}", json=body)
    assert answer.status_code == 404, answer.text


def test_predictions_have_a_limit_of_their_own(tmp_path_factory: pytest.TempPathFactory, models_dir: Any) -> None:
    """Beyond it 429 with Retry-After, while other calls go on."""
    folder = tmp_path_factory.mktemp("limited") / "data"
    limit = {"NEUROEDGE_ML_REQUESTS_PER_MINUTE": "3"}
    with running_server(folder, models_dir, **limit) as server, server.new_account() as client:
        answers = [client.post("/api/v1/ml/detect/learning-style", json={}) for _ in range(3)]
        began = time.monotonic()
        until = began + 60  # a while after Valkey did not answer in time, nothing is counted
        while answers[-1].status_code != 429:
            assert time.monotonic() < until
            answers.append(client.post("/api/v1/ml/detect/learning-style", json={}))
        assert {answer.status_code for answer in answers[:-1]} == {422}
        unchecked = server.metric("neuroedge_rate_limit_unchecked_total")  # as Valkey did not answer
        assert unchecked is not None
        # One more may pass at the turn of a minute, and one in each twenty seconds that this takes.
        assert 3 <= len(answers) - 1 <= 4 + (time.monotonic() - began) / 20 or unchecked
        assert int(answers[-1].headers["retry-after"]) > 0
        assert client.get("/v1/engines/learning_preference/health").status_code == 200
