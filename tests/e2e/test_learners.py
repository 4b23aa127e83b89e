"""Learners over HTTP: consent first, events late, twice and disordered, one profile, taken away, erased, kept apart."""

import random
from typing import Any

import httpx
import pytest

ANSWERS = [
    {"id": f"e{i}", "at": f"2026-03-{i + 1:02d}T10:00:00Z", "item": f"i{i}", "skill": "fractions", "correct": i > 3}
    for i in range(9)
]
CONSENT = {"granted": True, "by": "guardian", "policy": "2026-01"}


def _consented(client: httpx.Client, name: str = "anna@school.example") -> str:
    answer = client.put(f"/v1/learners/{name}/consent", json=CONSENT)
    assert answer.status_code == 200, answer.text
    return f"/v1/learners/{name}"


def _send(client: httpx.Client, path: str, events: list[dict[str, Any]]) -> dict[str, Any]:
    answer = client.post(f"{path}/events", json={"events": events})
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


def test_a_profile_is_made_of_the_set_of_events(account: httpx.Client) -> None:
    """In any order, in any batches, some twice, one weeks late: the same skills as in one go."""
    one, other = _consented(account, "one"), _consented(account, "other")
    told = _send(account, one, ANSWERS)
    assert (len(told["added"]), told["known"], told["total"]) == (9, [], 9)
    mixed = random.Random(0).sample(ANSWERS, len(ANSWERS))
    _send(account, other, mixed[:4])
    again = _send(account, other, mixed[2:8] + mixed[5:6])
    assert set(again["known"]) == {e["id"] for e in mixed[2:4] + mixed[5:6]}
    _send(account, other, mixed[8:])
    skills = [account.get(f"{path}/profile").json()["skills"] for path in (one, other)]
    assert skills[0] == skills[1]
    (skill,) = skills[0]
    assert (skill["skill"], skill["n"], skill["reliable"]) == ("fractions", 9, True)
    assert skill["mean"] == pytest.approx(6 / 11, abs=1e-4)
    assert skill["provenance"]["sources"] == {"unknown": 9}
    assert skill["provenance"]["first_at"] == "2026-03-01T10:00:00Z"


def test_an_event_sent_again_with_another_content_changes_nothing(account: httpx.Client) -> None:
    """It is told, and the first one stays."""
    path = _consented(account)
    _send(account, path, ANSWERS[:1])
    told = _send(account, path, [{**ANSWERS[0], "correct": True}])
    assert (told["added"], told["conflicting"], told["total"]) == ([], ["e0"], 1)
    assert account.get(f"{path}/export").json()["events"][0]["correct"] is False


def test_nothing_is_kept_without_consent(account: httpx.Client) -> None:
    """Unknown: 404; withdrawn: 403 for events and profile, while export and erasure work; the history is kept."""
    assert account.post("/v1/learners/nobody/events", json={"events": ANSWERS}).status_code == 404
    path = _consented(account)
    _send(account, path, ANSWERS)
    assert account.put(f"{path}/consent", json={"granted": False, "by": "learner"}).json()["consented"] is False
    assert account.post(f"{path}/events", json={"events": ANSWERS}).status_code == 403
    assert account.get(f"{path}/profile").status_code == 403
    exported = account.get(f"{path}/export").json()
    assert len(exported["events"]) == 9
    history = exported["profile"]["learner"]["consents"]
    assert [(c["granted"], c["by"], c["policy"]) for c in history] == [
        (True, "guardian", "2026-01"),
        (False, "learner", None),
    ]
    assert account.delete(path).json() == {"events": 9}
    for gone in (account.get(f"{path}/export"), account.delete(path)):
        assert gone.status_code == 404
        assert "consent" in gone.json()["hint"]
    assert account.get("/v1/learners").json()["learners"] == []


def test_a_name_of_another_tenant_is_another_learner(account: httpx.Client, stranger: httpx.Client) -> None:
    """The same id in two organisations: two learners, who see nothing of each other."""
    path = _consented(account, "same")
    _send(account, path, ANSWERS)
    for answer in (stranger.get(f"{path}/profile"), stranger.get(f"{path}/export"), stranger.delete(path)):
        assert answer.status_code == 404
    assert stranger.get("/v1/learners").json()["learners"] == []
    _consented(stranger, "same")
    _send(stranger, path, ANSWERS[:1])
    assert stranger.get(f"{path}/profile").json()["events"] == 1
    assert stranger.delete(path).status_code == 200
    assert account.get(f"{path}/profile").json()["events"] == 9


def test_learners_are_listed_in_pages(account: httpx.Client) -> None:
    """Every one once."""
    names = {f"l{i}" for i in range(5)}
    for name in names:
        _consented(account, name)
    first = account.get("/v1/learners", params={"limit": 3}).json()
    rest = account.get("/v1/learners", params={"limit": 3, "after": first["next"]}).json()
    assert {row["learner_id"] for row in first["learners"] + rest["learners"]} == names
    assert rest["next"] is None


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"id": "e", "at": "2026-01-01T00:00:00Z"},
        {"id": "e", "at": "2026-01-01T00:00:00", "item": "i"},
        {"id": "e", "at": "2999-01-01T00:00:00Z", "item": "i"},
        {"id": "e", "at": "1999-01-01T00:00:00Z", "item": "i"},
        {"id": "", "at": "2026-01-01T00:00:00Z", "item": "i"},
        {"id": "a\0b", "at": "2026-01-01T00:00:00Z", "item": "i"},
        {"id": "e", "at": "2026-01-01T00:00:00Z", "item": "i", "correct": "yes"},
        {"id": "e", "at": "2026-01-01T00:00:00Z", "item": "i", "time_s": -1},
        {"id": "e", "at": "2026-01-01T00:00:00Z", "item": "i", "time_s": 1e12},
        {"id": "e", "at": "2026-01-01T00:00:00Z", "item": "i", "diagnosis": "x"},
        {"id": "e", "at": "2026-01-01T00:00:00Z", "kind": "page"},
        {"id": "e", "at": "2026-01-01T00:00:00Z", "kind": "idle"},
        {"id": "e", "at": "2026-01-01T00:00:00Z", "kind": "dream"},
    ],
)
def test_bad_events_are_refused(refused: httpx.Client, event: dict[str, Any]) -> None:
    """422, and nothing of the batch is kept."""
    path = _consented(refused)
    answer = refused.post(f"{path}/events", json={"events": [ANSWERS[0], event]})
    assert answer.status_code == 422, answer.text
    assert refused.get(f"{path}/profile").json()["events"] == 0


def test_bad_batches_and_names_are_refused(account: httpx.Client) -> None:
    """Empty, too many, no JSON, a name too long, half a character."""
    path = _consented(account)
    for body in ({}, {"events": []}, {"events": ANSWERS * 112}, {"events": ANSWERS, "x": 1}):
        assert account.post(f"{path}/events", json=body).status_code == 422, body
    data = b'{"events": [{"id": "\\ud800", "at": "2026-01-01T00:00:00Z", "item": "i"}]}'
    half = account.post(f"{path}/events", content=data, headers={"content-type": "application/json"})
    assert half.status_code == 422
    assert account.put(f"/v1/learners/{'x' * 201}/consent", json=CONSENT).status_code == 422
    for body in ({}, {"granted": "yes", "by": "school"}, {"granted": True, "by": "teacher"}, {**CONSENT, "x": 1}):
        assert account.put(f"{path}/consent", json=body).status_code == 422, body
