"""An organisation's switches and glossary: off by default, changed with a purpose, seen by members."""

import base64
import secrets
from typing import Any

import httpx
import numpy as np
import pytest

from neuroedge.infra.media import encode_wav
from tests.conftest import Server

ON = {"name": "voice_emotion", "allowed": True, "purpose": "triage of emergency calls", "ground": "safety"}


def _switch(client: httpx.Client) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/v1/settings/switches").json()["switches"][0]
    return found


def _felt(client: httpx.Client) -> dict[str, Any]:
    t = np.arange(16_000 * 12) / 16_000
    voice = sum(np.sin(2 * np.pi * 120 * k * t) / k for k in range(1, 9))
    level = np.where(t < 10, 0.05, 0.3)
    audio = {"base64": base64.b64encode(encode_wav((level * voice).astype(np.float32))).decode()}
    spoken = [{"text": "", "start_s": 2.0 * i, "end_s": 2.0 * i + 2, "speaker": "A"} for i in range(6)]
    answer = client.post("/v1/engines/emotion/run", json={"segments": spoken, "audio": audio})
    assert answer.status_code == 200, answer.text
    result: dict[str, Any] = answer.json()["result"]
    return result


def test_emotion_from_the_voice_is_off_until_it_is_allowed_and_off_again_after(account: httpx.Client) -> None:
    """The engine gives words only, with the reason; then arousal; then not. Every change stays in the history."""
    assert _switch(account)["allowed"] is False
    assert "Art. 5" in _switch(account)["meaning"]
    off = _felt(account)
    assert off["voice_method"] == "none"
    assert all(s["arousal"] is None for s in off["segments"])
    assert "switched off; an administrator can allow it with a purpose" in off["segments"][0]["arousal_reason"]
    changed = account.put("/v1/settings/switches", json=ON)
    assert changed.status_code == 200, changed.text
    assert _switch(account) == changed.json()
    assert (changed.json()["purpose"], changed.json()["ground"]) == (ON["purpose"], "safety")
    assert changed.json()["changed_by"] == account.get("/auth/me").json()["user_id"]
    on = _felt(account)
    assert on["voice_method"] == "prosody-vs-own-baseline"
    assert on["segments"][5]["arousal"] > 0.3
    assert account.put("/v1/settings/switches", json={"name": "voice_emotion", "allowed": False}).status_code == 200
    assert _felt(account)["voice_method"] == "none"
    history = account.get("/v1/settings/switches").json()["history"]
    assert [(h["allowed"], h["purpose"]) for h in history] == [(False, None), (True, ON["purpose"])]


def test_it_is_on_for_one_organisation_only(account: httpx.Client, stranger: httpx.Client) -> None:
    """Neither the switch nor its history is another's."""
    account.put("/v1/settings/switches", json=ON)
    assert _switch(stranger)["allowed"] is False
    assert stranger.get("/v1/settings/switches").json()["history"] == []


@pytest.mark.parametrize(
    "body",
    [
        {"name": "voice_emotion", "allowed": True},
        {**ON, "purpose": None},
        {**ON, "ground": None},
        {**ON, "purpose": "because"},
        {**ON, "purpose": " " * 50},
        {**ON, "purpose": "x" * 501},
        {**ON, "ground": "fun"},
        {**ON, "name": "mind_reading"},
        {**ON, "until": "tomorrow"},
        {},
    ],
)
def test_a_switch_without_a_stated_purpose_is_refused(refused: httpx.Client, body: dict[str, Any]) -> None:
    """422 with the field; nothing is changed."""
    answer = refused.put("/v1/settings/switches", json=body)
    assert answer.status_code == 422
    assert answer.json()["errors"]
    assert _switch(refused)["allowed"] is False


def test_members_see_but_do_not_switch(server: Server, account: httpx.Client) -> None:
    """Only who manages the organisation may; the key of a program that runs engines may not."""
    key = account.post("/v1/api-keys", json={"name": "runner", "scopes": ["read", "engines:run"]}).json()
    headers = {"Authorization": f"Bearer {key['key']}"}
    with httpx.Client(base_url=server.url, headers=headers, timeout=60) as program:
        assert program.get("/v1/settings/switches").status_code == 200
        assert program.put("/v1/settings/switches", json=ON).status_code == 403
        assert program.put("/v1/settings/glossary", json={"terms": ["x"]}).status_code == 403
    assert _switch(account)["allowed"] is False


def test_a_glossary_is_kept_without_repetitions(account: httpx.Client, stranger: httpx.Client) -> None:
    """In the order given; another organisation has its own."""
    word = secrets.token_hex(4)
    answer = account.put("/v1/settings/glossary", json={"terms": [f" {word} ", "Zyrtec", word]})
    assert answer.json() == {"terms": [word, "Zyrtec"]}
    assert account.get("/v1/settings/glossary").json() == {"terms": [word, "Zyrtec"]}
    assert stranger.get("/v1/settings/glossary").json() == {"terms": []}


@pytest.mark.parametrize("terms", [["x"] * 51, ["x" * 81], [""], [1], "x", None])
def test_a_bad_glossary_is_refused(refused: httpx.Client, terms: Any) -> None:
    """Too many, too long, empty, no texts."""
    assert refused.put("/v1/settings/glossary", json={"terms": terms}).status_code == 422
