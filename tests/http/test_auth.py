"""/auth over HTTP: registration, login, rotation, reuse detection, claims."""

import base64
import json
import secrets
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.conftest import PASSWORD, Server


@pytest.fixture
def anyone(server: Server) -> Iterator[httpx.Client]:
    """A client without a token."""
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


@pytest.fixture
def name(anyone: httpx.Client) -> str:
    """A registered user name."""
    username = f"user-{secrets.token_hex(6)}"
    body = {"username": username, "email": f"{username}@example.org", "password": PASSWORD}
    answer = anyone.post("/auth/register", json=body)
    assert answer.status_code == 201
    assert answer.json()["role"] == "owner"
    return username


def _login(anyone: httpx.Client, name: str) -> dict[str, str]:
    answer = anyone.post("/auth/login", json={"username": name, "password": PASSWORD})
    assert answer.status_code == 200
    tokens: dict[str, str] = answer.json()
    return tokens


def test_a_token_carries_tenant_role_permissions_admin_and_expiry(anyone: httpx.Client, name: str) -> None:
    """The claims the source systems promise."""
    payload = _login(anyone, name)["access_token"].split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    assert claims["tenant"]
    assert claims["role"] == "owner"
    assert "engines:run" in claims["permissions"]
    assert claims["admin"] is False
    assert 0 < claims["exp"] - time.time() <= 900


def test_login_works_by_email_and_ignores_case(anyone: httpx.Client, name: str) -> None:
    """Name and email are both logins."""
    for login in (name.upper(), f"{name}@EXAMPLE.org"):
        assert anyone.post("/auth/login", json={"username": login, "password": PASSWORD}).status_code == 200


def test_a_wrong_password_and_an_unknown_user_answer_alike(anyone: httpx.Client, name: str) -> None:
    """Nothing tells which users exist."""
    answers = [
        anyone.post("/auth/login", json={"username": login, "password": "wrong password"})
        for login in (name, "nobody-of-that-name")
    ]
    bodies = [{k: v for k, v in a.json().items() if k != "request_id"} for a in answers]
    assert [a.status_code for a in answers] == [401, 401]
    assert bodies[0] == bodies[1]


def test_a_name_is_registered_once(anyone: httpx.Client, name: str) -> None:
    """The second registration is a conflict, whatever its case."""
    body = {"username": name.upper(), "email": "other@example.org", "password": PASSWORD}
    answer = anyone.post("/auth/register", json=body)
    assert answer.status_code == 409
    assert answer.json()["code"] == "conflict"


@pytest.mark.parametrize(
    "change", [{"password": "short"}, {"email": "no address"}, {"username": "a b"}, {"extra": 1}, {"username": None}]
)
def test_bad_registrations_name_the_field(anyone: httpx.Client, change: dict[str, object]) -> None:
    """422 with the field, and no echo of the password."""
    body = {"username": "fine-name", "email": "fine@example.org", "password": PASSWORD, **change}
    answer = anyone.post("/auth/register", json=body)
    assert answer.status_code == 422
    assert next(iter(change)) in json.dumps(answer.json()["errors"])
    assert PASSWORD not in answer.text


def test_a_refresh_token_works_once_and_a_stolen_one_ends_the_login(anyone: httpx.Client, name: str) -> None:
    """Rotation; using the old token again revokes the new one too; another login of the user lives on."""
    first, elsewhere = _login(anyone, name), _login(anyone, name)
    second = anyone.post("/auth/refresh", json={"refresh_token": first["refresh_token"]})
    assert second.status_code == 200
    assert second.json()["refresh_token"] != first["refresh_token"]
    reused = anyone.post("/auth/refresh", json={"refresh_token": first["refresh_token"]})
    assert reused.status_code == 401
    after = anyone.post("/auth/refresh", json={"refresh_token": second.json()["refresh_token"]})
    assert after.status_code == 401
    assert anyone.post("/auth/refresh", json={"refresh_token": elsewhere["refresh_token"]}).status_code == 200


def test_logout_ends_the_refresh_token(anyone: httpx.Client, name: str) -> None:
    """After logout a refresh is refused; logging out twice is no error."""
    tokens = _login(anyone, name)
    body = {"refresh_token": tokens["refresh_token"]}
    assert anyone.post("/auth/logout", json=body).status_code == 204
    assert anyone.post("/auth/refresh", json=body).status_code == 401
    assert anyone.post("/auth/logout", json=body).status_code == 204


@pytest.mark.parametrize("token", ["nonsense", "0" * 32 + ".x", ".", "é.x"])
def test_nonsense_refresh_tokens_are_401(anyone: httpx.Client, token: str) -> None:
    """Never a 500."""
    assert anyone.post("/auth/refresh", json={"refresh_token": token}).status_code == 401


def test_a_token_with_algorithm_none_or_another_key_is_refused(anyone: httpx.Client, name: str) -> None:
    """Forged tokens do not pass."""
    header, payload, _ = _login(anyone, name)["access_token"].split(".")
    none = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode()
    for forged in (f"{none}.{payload}.", f"{header}.{payload}.AAAA", f"{header}.{payload}"):
        answer = anyone.get("/auth/me", headers={"Authorization": f"Bearer {forged}"})
        assert answer.status_code == 401
