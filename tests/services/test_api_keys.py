"""API keys across processes and memberships: what is kept in a process ends within seconds."""

from dataclasses import replace
from datetime import timedelta

import pytest

from neuroedge.contract.errors import Forbidden, Unauthenticated
from neuroedge.contract.ports import Clock
from neuroedge.contract.principal import Principal
from neuroedge.services import api_keys
from neuroedge.services.api_keys import ApiKeys
from neuroedge.stores.postgres import Database
from tests.fakes import SystemClock
from tests.services.echo_engine import NOW, StoppedClock
from tests.stores.conftest import new_principal

pytestmark = pytest.mark.anyio


class _CountedFailures:
    """Rate limits that only count."""

    def __init__(self) -> None:
        self.failures: list[str] = []

    async def hit(self, rule: str, *key: str) -> None:
        """One failure more."""
        self.failures.append(key[-1])


def _keys(db: Database, clock: Clock = SystemClock()) -> ApiKeys:
    return ApiKeys(db=db, clock=clock, limits=_CountedFailures(), failures_per_minute=10)  # type: ignore[arg-type]


async def _made(keys: ApiKeys, caller: Principal) -> api_keys.NewKey:
    return await keys.create(caller, name="k", scopes=None, models=None, engines=None, expires_at=None, request_id="r")


async def test_another_process_refuses_a_revoked_key_within_seconds(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on with what it knows for so long, and no longer."""
    monkeypatch.setattr(api_keys, "KEPT_S", 600.0)
    caller, here, there = await new_principal(db), _keys(db), _keys(db)
    made = await _made(here, caller)
    assert (await there.principal(made.text, address="a")).user_id == caller.user_id
    await here.revoke(caller, made.key.id, request_id="r")
    assert (await there.principal(made.text, address="a")).user_id == caller.user_id
    monkeypatch.setattr(api_keys, "KEPT_S", 0.0)
    with pytest.raises(Unauthenticated):
        await there.principal(made.text, address="a")
    await here.close()
    await there.close()


async def test_a_key_expires_to_the_second_though_it_is_known(db: Database) -> None:
    """What is kept of it in the process has its end with it."""
    clock = StoppedClock()
    caller, keys, ends = await new_principal(db), _keys(db, clock), NOW + timedelta(seconds=60)
    made = await keys.create(caller, name="k", scopes=None, models=None, engines=None, expires_at=ends, request_id="r")
    clock.time = ends - timedelta(seconds=1)
    assert (await keys.principal(made.text, address="a")).user_id == caller.user_id
    clock.time = ends
    with pytest.raises(Unauthenticated):
        await keys.principal(made.text, address="a")
    await keys.close()


async def test_a_key_ends_with_the_membership_and_is_gone(db: Database) -> None:
    """Nothing of it is left, so a user who comes back has no old key."""
    caller, keys = await new_principal(db), _keys(db)
    made = await _made(keys, caller)
    async with db.tenant(caller) as conn:
        await conn.execute("DELETE FROM memberships WHERE user_id = %s", [caller.user_id])
        row = await (await conn.execute("SELECT count(*) AS n FROM api_keys")).fetchone()
    assert row == {"n": 0}
    with pytest.raises(Unauthenticated):
        await keys.principal(made.text, address="a")


async def test_a_smaller_role_makes_the_key_smaller(db: Database) -> None:
    """A key holds no right its user has lost."""
    caller, keys = await new_principal(db), _keys(db)
    made = await _made(keys, caller)
    async with db.tenant(caller) as conn:
        await conn.execute("UPDATE memberships SET role = 'viewer' WHERE user_id = %s", [caller.user_id])
    assert (await keys.principal(made.text, address="a")).permissions == {"read"}
    await keys.close()


async def test_nobody_gives_away_what_they_do_not_hold(db: Database) -> None:
    """Neither a missing permission, nor through a key."""
    caller, keys = await new_principal(db), _keys(db)
    reader = replace(caller, permissions=frozenset({"read"}))
    with pytest.raises(Forbidden, match="write"):
        await keys.create(
            reader, name="k", scopes=["read", "write"], models=None, engines=None, expires_at=None, request_id="r"
        )
    made = await _made(keys, caller)
    with pytest.raises(Forbidden, match="API key"):
        await _made(keys, await keys.principal(made.text, address="a"))
    await keys.close()


async def test_only_who_manages_the_organisation_ends_the_keys_of_others(db: Database) -> None:
    """A member's attempt finds nothing, as with a key that never was."""
    caller, keys = await new_principal(db), _keys(db)
    made = await _made(keys, caller)
    other = await new_principal(db)
    colleague = replace(caller, user_id=other.user_id, role="member", permissions=frozenset({"read"}))
    with pytest.raises(api_keys.NotFound):
        await keys.revoke(colleague, made.key.id, request_id="r")
    with pytest.raises(api_keys.NotFound):
        await keys.revoke(other, made.key.id, request_id="r")
    await keys.revoke(replace(colleague, role="admin", permissions=caller.permissions), made.key.id, request_id="r")
    with pytest.raises(Unauthenticated):
        await keys.principal(made.text, address="a")
