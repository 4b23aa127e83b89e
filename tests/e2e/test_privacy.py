"""Privacy and key routes on a real server with its worker."""

import io
import json
import subprocess
import sys
import time
import zipfile
from typing import Any

import httpx
import pytest

from tests.conftest import Server

DONE_S = 60
NOBODY = "019a0000-0000-7000-8000-000000000000"


def _ok(answer: httpx.Response) -> Any:
    assert answer.status_code < 300, answer.text
    return answer.json()


def _done(client: httpx.Client, path: str) -> dict[str, Any]:
    deadline = time.monotonic() + DONE_S
    while (found := _ok(client.get(path)))["state"] != "done":
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
    return dict(found)


@pytest.mark.models
def test_a_user_takes_everything_away_and_then_has_it_erased(account: httpx.Client) -> None:
    """The export holds what was remembered; after the erasure nothing is found, and the proof says so."""
    _ok(account.post("/rag/memory", json={"content": "The turnip clock strikes nine."}))
    order = _ok(account.post("/v1/privacy/export", json={}))
    done = _done(account, f"/v1/privacy/exports/{order['id']}")
    assert done["counts"]["memories"] == 1
    answer = account.get(f"/v1/privacy/exports/{order['id']}/file")
    assert answer.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as file:
        assert json.loads(file.read("memories.jsonl"))["content"] == "The turnip clock strikes nine."
    user_id = _ok(account.get("/auth/me"))["user_id"]
    order = _ok(account.post("/v1/privacy/erase", json={"user_id": user_id}))
    done = _done(account, f"/v1/privacy/erasures/{order['id']}")
    assert done["report"]["erased"]["memories"] == 1
    assert not any(done["report"]["left"].values())
    assert len(done["report_sha256"]) == 64
    assert _ok(account.post("/rag/search", json={"query": "turnip clock"})) == []
    assert account.get(f"/v1/privacy/exports/{order['id']}").status_code == 404


@pytest.mark.models
def test_an_organisation_is_erased_after_its_owner_named_it(server: Server, operator: httpx.Client) -> None:
    """Nobody can log in any more, the operator still has the proof, another organisation is not touched."""
    with server.new_account() as owner, server.new_account() as other:
        me = _ok(owner.get("/auth/me"))
        for client in (owner, other):
            _ok(client.post("/rag/memory", json={"content": "The turnip clock strikes ten."}))
        refused = owner.post("/v1/privacy/erase", json={"organisation": True, "confirm": "another name"})
        assert refused.status_code == 422
        order = _ok(owner.post("/v1/privacy/erase", json={"organisation": True, "confirm": me["username"]}))
        done = _done(owner, f"/v1/privacy/erasures/{order['id']}")
        assert not any(done["report"]["left"].values())
        login = owner.post("/auth/login", json={"username": me["username"], "password": "correct horse battery"})
        assert login.status_code == 401
        proof = next(e for e in _ok(operator.get("/v1/admin/erasures")) if e["id"] == order["id"])
        assert proof["report_sha256"] == done["report_sha256"]
        assert proof["org_id"] == me["tenant"]
        assert len(_ok(other.post("/rag/search", json={"query": "turnip clock"}))) == 1


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"user_id": NOBODY, "organisation": True},
        {"organisation": True},
        {"user_id": NOBODY, "confirm": "x"},
        {"user_id": "me"},
        {"user_id": NOBODY, "everything": True},
    ],
)
def test_an_unclear_erasure_is_refused(refused: httpx.Client, body: dict[str, Any]) -> None:
    """422 before anything is touched."""
    assert refused.post("/v1/privacy/erase", json=body).status_code == 422


def test_another_organisations_user_and_orders_are_not_found(account: httpx.Client, stranger: httpx.Client) -> None:
    """404 as for one that never existed."""
    theirs = _ok(stranger.get("/auth/me"))["user_id"]
    order = _ok(stranger.post("/v1/privacy/export", json={}))["id"]
    for answer in (
        account.post("/v1/privacy/erase", json={"user_id": theirs}),
        account.post("/v1/privacy/export", json={"user_id": theirs}),
        account.get(f"/v1/privacy/exports/{order}"),
        account.get(f"/v1/privacy/exports/{order}/file"),
        account.delete(f"/v1/privacy/exports/{order}"),
        account.get(f"/v1/privacy/erasures/{NOBODY}"),
    ):
        assert answer.status_code == 404
        assert answer.json()["hint"]
    assert stranger.delete(f"/v1/privacy/exports/{order}").status_code == 204


@pytest.mark.models
def test_the_operator_rotates_one_organisations_key(account: httpx.Client, operator: httpx.Client) -> None:
    """The order is answered at once with where it stands; an unknown organisation is a 404, nobody else may."""
    _ok(account.post("/rag/memory", json={"content": "The turnip clock strikes eleven."}))
    org_id = _ok(account.get("/auth/me"))["tenant"]
    (standing,) = _ok(operator.post("/v1/admin/keys/rotate", json={"organisation": org_id}))
    assert (standing["org_id"], standing["rotation"]) == (org_id, "requested")
    deadline = time.monotonic() + DONE_S
    while (now := _standing(operator, org_id))["rotation"] == "requested":
        assert time.monotonic() < deadline, now
        time.sleep(0.1)
    assert now["rotation"] in ("added", "promoted", None)
    assert _ok(account.post("/rag/search", json={"query": "turnip clock"}))
    assert operator.post("/v1/admin/keys/rotate", json={"organisation": NOBODY}).status_code == 404
    assert account.post("/v1/admin/keys/rotate", json={"organisation": org_id}).status_code == 403


def _standing(operator: httpx.Client, org_id: str) -> dict[str, Any]:
    return next(s for s in _ok(operator.get("/v1/admin/keys")) if s["org_id"] == org_id)


def test_the_commands_make_a_key_and_wrap_anew(server: Server, account: httpx.Client) -> None:
    """`keys new` prints a key that works, `keys rewrap` counts, a wrong id is refused."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "neuroedge", "keys", *arguments]
        return subprocess.run(command, env=server.env, capture_output=True, text=True)

    from neuroedge.infra.vault import Vault

    first, second = run("new").stdout.strip(), run("new").stdout.strip()
    assert first != second
    Vault(first).cipher(Vault(first).new("p"), "p")
    _ok(account.post("/v1/privacy/export", json={}))
    done = run("rewrap")
    assert done.returncode == 0, done.stderr
    assert "wrapped by the present master key" in done.stdout
    assert run("rotate", "--organisation", "x").returncode == 2
    missing = run("rotate", "--organisation", NOBODY)
    assert missing.returncode == 1
    assert "no organisation" in missing.stderr
