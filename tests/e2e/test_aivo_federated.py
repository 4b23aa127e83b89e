"""AIVO's dialect of federated learning: an update to a round, the end of it, updates combined at once."""

import base64
import time

import httpx
import numpy as np

from neuroedge.kit.federated import signing, weights
from tests.conftest import Server

BASE = {"w": [0.0, 0.0]}


def test_an_update_goes_to_the_round_and_aggregate_ends_it(account: httpx.Client) -> None:
    """Twice sent is a duplicate; a forged one is refused."""
    draft = {"name": "aivo", "weights": {"arrays": BASE}, "settings": {"min_clients": 1}}
    federation = account.post("/v1/federations", json=draft).json()["id"]
    path, key = f"/v1/federations/{federation}", signing.new_private_key()
    public = base64.b64encode(signing.public_key_of(key)).decode()
    clients = [account.post(f"{path}/clients", json={"name": n, "public_key": public}).json()["id"] for n in "ab"]
    aggregate = {"federationId": federation}
    assert account.post("/api/v1/federated/aggregate", json=aggregate).status_code == 409
    round_id = account.post(f"{path}/rounds").json()["id"]
    payload = weights.to_npz({"w": np.array([1.0, 2.0], np.float32)})
    text = signing.signed_text(
        federation_id=federation, round_id=round_id, client_id=clients[0], kind="update", samples=7, payload=payload
    )
    body = {
        "federationId": federation,
        "roundId": round_id,
        "clientId": clients[0],
        "numSamples": 7,
        "weights": base64.b64encode(payload).decode(),
        "signature": base64.b64encode(signing.sign(key, text)).decode(),
    }
    sent = account.post("/api/v1/federated/update", json=body)
    assert sent.json() == {"accepted": True, "duplicate": False, "roundId": round_id, "status": "collecting"}
    assert account.post("/api/v1/federated/update", json=body).json()["duplicate"]
    assert account.post("/api/v1/federated/update", json={**body, "numSamples": 8}).status_code == 403
    account.post("/api/v1/federated/aggregate", json=aggregate)
    until = time.monotonic() + 90
    while (told := account.post("/api/v1/federated/aggregate", json=aggregate).json())["status"] != "closed":
        assert time.monotonic() < until, told
        time.sleep(0.2)
    assert (told["version"], told["weightsRef"], told["epsilon"]) == (1, f"{path}/weights", None)


def test_a_key_that_may_only_run_engines_ends_no_round(server: Server, account: httpx.Client) -> None:
    """Ending a federation's round is writing; combining what the call brings is running an engine."""
    draft = {"name": "aivo", "weights": {"arrays": BASE}, "settings": {"min_clients": 1}}
    federation = account.post("/v1/federations", json=draft).json()["id"]
    path, public = f"/v1/federations/{federation}", signing.public_key_of(signing.new_private_key())
    account.post(f"{path}/clients", json={"name": "a", "public_key": base64.b64encode(public).decode()})
    opened = account.post(f"{path}/rounds").json()
    key = account.post("/v1/api-keys", json={"name": "runner", "scopes": ["read", "engines:run"]}).json()["key"]
    update = {"clientId": "a", "weights": {"w": [1.0, 2.0]}}
    with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {key}"}, timeout=60) as program:
        refused = program.post("/api/v1/federated/aggregate", json={"federationId": federation})
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
        assert program.post("/api/v1/federated/aggregate", json={"updates": [update]}).status_code == 200
    after = account.get(f"{path}/rounds/{opened['id']}").json()
    assert (after["state"], after["deadline"]) == ("open", opened["deadline"])


def test_updates_are_combined_at_once(account: httpx.Client) -> None:
    """Krum leaves the attacker out."""
    updates = [{"clientId": f"c{i}", "weights": {"w": [1.0 + i / 100, 2.0]}} for i in range(6)]
    updates.append({"clientId": "attacker", "weights": {"w": [-1000.0, 1000.0]}})
    body = {"updates": updates, "method": "krum", "attackers": 1}
    told = account.post("/api/v1/federated/aggregate", json=body).json()
    assert "attacker" in told["rejected"]
    assert np.abs(weights.of_npz(base64.b64decode(told["weights"]))["w"] - [1.0, 2.0]).max() < 0.1


def test_bad_bodies_are_told_by_field(account: httpx.Client) -> None:
    """Nothing, both, ragged lists, no ids."""
    update = {"clientId": "a", "weights": {"w": [[1.0], [1.0, 2.0]]}}
    both = {"federationId": "019a0000-0000-7000-8000-000000000000", "updates": [update]}
    for body in ({}, both, {"updates": [update]}, {"updates": [{"clientId": "a", "weights": {"w": ["x"]}}]}):
        assert account.post("/api/v1/federated/aggregate", json=body).status_code == 422
    assert account.post("/api/v1/federated/update", json={"federationId": "x"}).status_code == 422
