"""Access tokens: verified once, never longer than they live, and only as they were signed."""

import time
from datetime import UTC, datetime

import pytest

from neuroedge.contract.errors import Unauthenticated
from neuroedge.contract.principal import ROLE_PERMISSIONS
from neuroedge.infra import tokens
from neuroedge.infra.tokens import AccessTokens
from tests.fakes import make_principal

SECRET = "s" * 32


@pytest.fixture
def signer() -> AccessTokens:
    """Tokens of one key."""
    return AccessTokens(SECRET)


def issued(signer: AccessTokens, *, ttl_s: int = 60) -> str:
    """A token of a fresh principal."""
    return signer.issue(make_principal(), now=datetime.now(UTC), ttl_s=ttl_s)


def test_a_token_read_twice_names_the_same_caller_and_is_verified_once(
    signer: AccessTokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signature is checked the first time only."""
    token = issued(signer)
    first = signer.read(token)
    assert first.permissions == ROLE_PERMISSIONS["owner"]
    monkeypatch.setattr(tokens.jwt, "decode", lambda *_, **__: pytest.fail("verified again"))
    assert signer.read(token) == first


@pytest.mark.parametrize("read_before", [True, False])
def test_a_verified_token_ends_when_it_expires(
    signer: AccessTokens, monkeypatch: pytest.MonkeyPatch, read_before: bool
) -> None:
    """To the second as for one never seen: 60 s of life and 5 s for clocks that differ."""
    start = int(time.time())
    token = issued(signer)
    if read_before:
        signer.read(token)
    monkeypatch.setattr(time, "time", lambda: float(start + 64))
    signer.read(token)
    monkeypatch.setattr(time, "time", lambda: float(start + 67))
    for _ in range(2):
        with pytest.raises(Unauthenticated):
            signer.read(token)


def test_a_forged_neighbour_of_a_verified_token_is_refused(signer: AccessTokens) -> None:
    """The whole token is what was verified; another key's signature does not count."""
    token = issued(signer)
    signer.read(token)
    head, claims, signature = token.split(".")
    other_claims = issued(signer).split(".")[1]
    other_key = AccessTokens("t" * 32).issue(make_principal(), now=datetime.now(UTC), ttl_s=60)
    forged = (f"{head}.{other_claims}.{signature}", f"{head}.{claims}.", f"{head}.{claims}", f"{token}A", other_key)
    for one in forged:
        for _ in range(2):
            with pytest.raises(Unauthenticated):
                signer.read(one)


@pytest.mark.parametrize("token", ["", ".", "..", "é.é.é", "\x00", "a" * 100_000])
def test_nonsense_is_refused(signer: AccessTokens, token: str) -> None:
    """Never another error than Unauthenticated."""
    with pytest.raises(Unauthenticated):
        signer.read(token)


def test_tokens_are_not_kept_without_bound(signer: AccessTokens, monkeypatch: pytest.MonkeyPatch) -> None:
    """The least used go first, and are simply verified again."""
    monkeypatch.setattr(tokens, "_KNOWN_TOKENS", 3)
    small = AccessTokens(SECRET)
    many = [issued(signer) for _ in range(10)]
    callers = [small.read(token) for token in many]
    assert len(small._verified) == 3
    assert [small.read(token) for token in many] == callers
