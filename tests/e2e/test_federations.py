"""Federations over HTTP: twenty clients with attackers, secure aggregation with dropouts, a budget, bad input."""

import base64
import time
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest

from neuroedge.kit.federated import signing, weights
from neuroedge.kit.federated.participant import Participation, ParticipationError, SecureRound

ZEROS = {"b": np.zeros(3, np.float32), "w": np.zeros((4, 3), np.float32)}
TRUTH = {name: np.full_like(array, 0.5) for name, array in ZEROS.items()}


def _npz(given: dict[str, np.ndarray]) -> str:
    return base64.b64encode(weights.to_npz(given)).decode()


def _federation(client: httpx.Client, **settings: Any) -> str:
    draft = {"name": "digits", "weights": {"npz": _npz(ZEROS)}, "settings": {"deadline_s": 600, **settings}}
    answer = client.post("/v1/federations", json=draft)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def _clients(http: httpx.Client, federation: str, count: int) -> list[Participation]:
    return [
        Participation.register(
            http, federation_id=federation, name=f"client-{i}", private_key=signing.new_private_key()
        )
        for i in range(count)
    ]


def _open(http: httpx.Client, federation: str) -> str:
    answer = http.post(f"/v1/federations/{federation}/rounds")
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def _ended(http: httpx.Client, federation: str, round_id: str) -> dict[str, Any]:
    until = time.monotonic() + 90
    while (told := http.get(f"/v1/federations/{federation}/rounds/{round_id}").json())["state"] not in (
        "closed",
        "failed",
    ):
        assert time.monotonic() < until, told
        time.sleep(0.2)
    found: dict[str, Any] = told
    return found


def _noisy(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: (array + rng.normal(0, 0.02, array.shape)).astype(np.float32) for name, array in TRUTH.items()}


@pytest.mark.parametrize("rule", ["trimmed_mean", "multi_krum"])
def test_twenty_clients_with_four_attackers_still_learn(account: httpx.Client, rule: str) -> None:
    """The robust rules come to the honest clients' model, over two rounds; multi-Krum names the attackers."""
    federation = _federation(account, rule=rule, attackers=4, min_clients=12)
    everybody = _clients(account, federation, 20)
    for number in (1, 2):
        round_id = _open(account, federation)
        assert everybody[0].running_round() == round_id
        version, base = everybody[0].weights()
        assert version == number - 1
        for i, one in enumerate(everybody):
            update = {name: (array - base[name]).astype(np.float32) for name, array in _noisy(i).items()}
            if i < 4:
                update = {name: np.full_like(array, -100.0) for name, array in update.items()}
            assert one.send_update(round_id, update, samples=10)
        told = _ended(account, federation, round_id)
        assert (told["state"], told["result"]["version"], told["result"]["clients"]) == ("closed", number, 20)
        if rule == "multi_krum":
            assert {f"client-{i}" for i in range(4)} <= set(told["result"]["rejected"])
    _, learned = everybody[0].weights()
    assert max(np.abs(learned[name] - TRUTH[name]).max() for name in TRUTH) < 0.05


def test_the_mean_weighs_by_examples_and_waits_for_no_straggler(account: httpx.Client) -> None:
    """Ended by hand with two of three; what comes later is refused, what came twice is known, another is refused."""
    federation = _federation(account)
    one, other, late = _clients(account, federation, 3)
    round_id = _open(account, federation)
    small, large = ({name: np.full_like(array, value) for name, array in ZEROS.items()} for value in (1.0, 4.0))
    assert one.send_update(round_id, small, samples=3)
    assert not one.send_update(round_id, small, samples=3)
    with pytest.raises(ParticipationError, match="something else"):
        one.send_update(round_id, large, samples=3)
    assert other.send_update(round_id, large, samples=1)
    assert account.post(f"/v1/federations/{federation}/rounds").status_code == 409
    account.post(f"/v1/federations/{federation}/rounds/{round_id}/end")
    assert _ended(account, federation, round_id)["result"]["clients"] == 2
    with pytest.raises(ParticipationError, match="too late"):
        late.send_update(round_id, small)
    assert late.weights()[1]["w"] == pytest.approx(np.full((4, 3), 1.75))


def test_too_few_clients_by_the_deadline_fail_the_round(account: httpx.Client) -> None:
    """The deadline's own job ends it; the model stays, and the next round can open."""
    federation = _federation(account, deadline_s=1)
    one, *_ = _clients(account, federation, 2)
    round_id = _with_one_update(account, federation, one)
    told = _ended(account, federation, round_id)
    assert (told["state"], told["error_code"]) == ("failed", "too_few_clients")
    assert one.weights()[0] == 0
    assert _open(account, federation)


def _with_one_update(http: httpx.Client, federation: str, one: Participation) -> str:
    """A round of one second that an update came to in time, as not all do on a busy machine."""
    until = time.monotonic() + 90
    while True:
        round_id = _open(http, federation)
        try:
            one.send_update(round_id, TRUTH)
            return round_id
        except ParticipationError:
            assert time.monotonic() < until
            assert _ended(http, federation, round_id)["state"] == "failed"


@pytest.mark.parametrize("left", ["ended by hand", "revoked"])
def test_secure_aggregation_gives_the_sum_without_those_who_left(account: httpx.Client, left: str) -> None:
    """Five clients; one leaves, or is revoked, after its shares were sent. Each update is kept masked only."""
    federation = _federation(account, secure=True, clip_norm=10.0, min_clients=3)
    everybody = _clients(account, federation, 5)
    round_id = _open(account, federation)
    parts = [SecureRound(one, round_id, _noisy(i)) for i, one in enumerate(everybody)]
    _steps(parts, lambda: _phase(account, federation, round_id) == "masked")
    staying = parts[:4]
    assert [part.step() for part in staying] == ["sent"] * 4
    if left == "revoked":
        account.delete(f"/v1/federations/{federation}/clients/{everybody[4].client_id}")
    else:
        account.post(f"/v1/federations/{federation}/rounds/{round_id}/end")
    _steps(staying, lambda: _phase(account, federation, round_id) == "over")
    told = _ended(account, federation, round_id)
    assert (told["state"], told["result"]["clients"]) == ("closed", 4)
    _, learned = everybody[0].weights()
    for name in ZEROS:
        truth = np.mean([_noisy(i)[name].astype(np.float64) for i in range(4)], axis=0)
        assert learned[name] == pytest.approx(truth, abs=1e-6)


def _phase(http: httpx.Client, federation: str, round_id: str) -> str:
    told = http.get(f"/v1/federations/{federation}/rounds/{round_id}").json()
    return str(told["phase"]) if told["state"] in ("open", "collecting") else "over"


def _steps(parts: list[SecureRound], done: Callable[[], bool]) -> None:
    until = time.monotonic() + 90
    while not done():
        assert time.monotonic() < until
        for part in parts:
            if not done():
                part.step()
        time.sleep(0.1)


def test_a_spent_privacy_budget_closes_the_federation(account: httpx.Client) -> None:
    """Epsilon is told by the accountant; the round that would exceed the budget never opens."""
    federation = _federation(account, clip_norm=1.0, noise_multiplier=2.0, epsilon_budget=3.0, min_clients=2)
    everybody = _clients(account, federation, 2)
    round_id = _open(account, federation)
    for one in everybody:
        one.send_update(round_id, TRUTH)
    result = _ended(account, federation, round_id)["result"]
    assert 1.5 < result["epsilon"] <= 3.0
    told = account.get(f"/v1/federations/{federation}").json()
    assert (told["state"], told["closed_because"]) == ("closed", "privacy_budget")
    assert told["epsilon"] == result["epsilon"]
    refused = account.post(f"/v1/federations/{federation}/rounds")
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")


def test_bad_messages_are_refused_and_change_nothing(account: httpx.Client) -> None:
    """Forged, of another shape, NaN, no npz, another round's, a revoked client's: told by field, never a 500."""
    federation = _federation(account)
    one, other = _clients(account, federation, 2)
    round_id = _open(account, federation)
    forger = Participation(
        account, federation_id=federation, client_id=one.client_id, private_key=signing.new_private_key()
    )
    wrong = {
        "forged": (forger, weights.to_npz(TRUTH), 403),
        "shape": (one, weights.to_npz({"b": ZEROS["b"], "w": np.zeros((3, 4), np.float32)}), 422),
        "missing": (one, weights.to_npz({"b": ZEROS["b"]}), 422),
        "nan": (one, weights.to_npz({**ZEROS, "b": np.full(3, np.nan, np.float32)}), 422),
        "no npz": (one, b"words", 422),
    }
    for name, (who, payload, status) in wrong.items():
        with pytest.raises(ParticipationError) as refused:
            who.send(round_id, "update", payload)
        assert refused.value.status == status, name
    with pytest.raises(ParticipationError, match="phase"):
        one.send(round_id, "masked", bytes(4 * 15))
    account.delete(f"/v1/federations/{federation}/clients/{other.client_id}")
    with pytest.raises(ParticipationError, match="revoked"):
        other.send_update(round_id, TRUTH)
    assert account.get(f"/v1/federations/{federation}/rounds/{round_id}").json()["state"] == "open"
    path = f"/v1/federations/{federation}/rounds/{round_id}/messages"
    for body in ({}, {"client_id": "x"}, {"client_id": one.client_id, "payload": "%", "signature": "AA=="}):
        assert account.post(path, json=body).status_code == 422


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        (
            {"secure": True, "rule": "multi_krum", "attackers": 1, "min_clients": 5, "clip_norm": 1},
            "secure aggregation",
        ),
        ({"rule": "trimmed_mean", "attackers": 3, "min_clients": 6}, "at least 7"),
        ({"noise_multiplier": 1.0, "clip_norm": 1.0}, "belong together"),
        ({"noise_multiplier": 1.0, "epsilon_budget": 1.0}, "clip_norm"),
        ({"deadline_s": -1}, "greater than or equal"),
        ({"attackers": 2}, "withstands no attackers"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    refused: httpx.Client, settings: dict[str, Any], word: str
) -> None:
    """With the reason."""
    answer = refused.post(
        "/v1/federations", json={"name": "x", "weights": {"arrays": {"w": [0.0]}}, "settings": settings}
    )
    assert answer.status_code == 422
    assert word in answer.text


def test_a_deleted_federation_is_gone(account: httpx.Client) -> None:
    """With its weights."""
    federation = _federation(account)
    assert account.delete(f"/v1/federations/{federation}").status_code == 204
    assert account.get(f"/v1/federations/{federation}/weights").status_code == 404
