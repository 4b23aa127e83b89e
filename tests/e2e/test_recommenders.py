"""Recommenders over HTTP: made, choosing, learning each reward once, evaluated, deleted, kept apart."""

import random

import httpx

from tests.conftest import Server

PATH = "/v1/recommenders/next-video"


def test_a_recommender_learns_what_earns(account: httpx.Client) -> None:
    """After sixty rewards the better item of this context has the higher expectation; the versions count."""
    assert account.put(PATH, json={"features": 1}).status_code == 200
    luck = random.Random(0)
    for number in range(60):
        x = luck.choice([-1.0, 1.0])
        told = account.post(f"{PATH}/recommend", json={"context": [x], "candidates": ["a", "b"]}).json()
        assert told["version"] == number
        first = told["items"][0]
        assert 0 < first["propensity"] <= 1
        earned = float((first["id"] == "b") == (x > 0))
        answer = account.post(f"{PATH}/reward", json={"choice_id": told["choice_id"], "reward": earned})
        assert answer.json() == {"version": number + 1, "new": True}
    now = account.post(f"{PATH}/recommend", json={"context": [1.0]}).json()["items"]
    assert max(now, key=lambda i: i["expected_reward"])["id"] == "b"
    few = account.post(f"{PATH}/evaluate")
    assert few.status_code == 422
    assert "needs 100" in few.json()["detail"]


def test_a_reward_counts_once_and_is_final(account: httpx.Client) -> None:
    """Sent again it changes nothing; another one of the same choice is a conflict."""
    path = "/v1/recommenders/once"
    account.put(path, json={})
    choice = account.post(f"{path}/recommend", json={"candidates": ["a", "b"]}).json()["choice_id"]
    told = [account.post(f"{path}/reward", json={"choice_id": choice, "reward": r}) for r in (0.5, 0.5, 1)]
    assert [t.status_code for t in told] == [200, 200, 409]
    assert [t.json() for t in told[:2]] == [{"version": 1, "new": True}, {"version": 1, "new": False}]
    assert account.put(path, json={}).json()["version"] == 1


def test_enough_rewarded_choices_are_evaluated(account: httpx.Client) -> None:
    """The logged mean and three estimates of what was learned."""
    path = "/v1/recommenders/judged"
    account.put(path, json={"policy": "linucb", "explore_share": 1})
    for _ in range(110):
        told = account.post(f"{path}/recommend", json={"candidates": ["a", "b"]}).json()
        earned = float(told["items"][0]["id"] == "a")
        account.post(f"{path}/reward", json={"choice_id": told["choice_id"], "reward": earned})
    found = account.post(f"{path}/evaluate")
    assert found.status_code == 200, found.text
    assert {v["estimator"] for v in found.json()["evaluation"]} == {"mean", "ips", "snips", "dr"}
    assert found.json()["n_interactions"] == 110


def test_what_does_not_fit_is_refused(account: httpx.Client) -> None:
    """Unknown names, other settings, another count of context, nothing to choose from, impossible rewards."""
    path = "/v1/recommenders/strict"
    account.put(path, json={"features": 2})
    assert account.put(path, json={"features": 3}).status_code == 409
    assert account.put("/v1/recommenders/x", json={"features": 99}).status_code == 422
    assert account.post(f"{path}/recommend", json={"context": [1], "candidates": ["a"]}).status_code == 422
    assert account.post(f"{path}/recommend", json={"context": [1, 2]}).status_code == 422
    unknown = {"choice_id": "019a0000-0000-7000-8000-000000000001", "reward": 1}
    assert account.post(f"{path}/reward", json=unknown).status_code == 404
    assert account.post(f"{path}/reward", json={**unknown, "reward": 2}).status_code == 422
    assert account.post("/v1/recommenders/none/recommend", json={"candidates": ["a"]}).status_code == 404


def test_it_is_deleted_and_belongs_to_one_organisation(server: Server, account: httpx.Client) -> None:
    """Another organisation's recommender of the same name is another one."""
    path = "/v1/recommenders/ours"
    account.put(path, json={})
    choice = account.post(f"{path}/recommend", json={"candidates": ["a"]}).json()["choice_id"]
    with server.new_account() as stranger:
        assert stranger.delete(path).status_code == 404
        stranger.put(path, json={})
        assert stranger.post(f"{path}/reward", json={"choice_id": choice, "reward": 1}).status_code == 404
    assert account.delete(path).status_code == 204
    assert account.post(f"{path}/recommend", json={"candidates": ["a"]}).status_code == 404


def test_the_aivo_path_recommends_content(account: httpx.Client) -> None:
    """Items with their chances, in the dialect's form."""
    rows = [{"item": "ab"[k % 2], "value": k % 2} for k in range(40)]
    body = {"modelType": "content", "input": {"interactions": rows, "exploreShare": 0}}
    answer = account.post("/api/v1/ml/recommend/content", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["prediction"][0]["id"] == "b"
    assert answer.json()["engine"] == "recommendation"
