"""The ledger's tables: nobody rewrites history, no tenant reaches another's, keys survive a rotation."""

import dataclasses
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import psycopg
import pytest

from neuroedge.contract.errors import InvalidInput
from neuroedge.stores import llm_calls, llm_providers, resealing
from neuroedge.stores.ids import new_id
from neuroedge.stores.llm_calls import Begun, CallTable
from neuroedge.stores.postgres import Database
from tests.stores.conftest import new_principal

pytestmark = pytest.mark.anyio
NOON = datetime(2026, 5, 31, 12, tzinfo=UTC)


def begun(user_id: object, **change: object) -> Begun:
    """A call of a thousandth of a dollar at most."""
    call = Begun(
        id=new_id(),
        user_id=user_id,  # type: ignore[arg-type]
        request_id="r",
        provider="p",
        model="m",
        query_type=None,
        private=False,
        prompt_tokens=10,
        prompt_usd_per_million=Decimal(1),
        completion_usd_per_million=Decimal(2),
        price_source="s",
        price_date=NOON.date(),
        reserved_usd=Decimal("0.001"),
        started_at=NOON,
    )
    return dataclasses.replace(call, **change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM llm_calls",
        "DELETE FROM llm_totals",
        "TRUNCATE llm_calls",
        "ALTER TABLE llm_calls DISABLE ROW LEVEL SECURITY",
    ],
)
async def test_the_application_cannot_take_calls_out_of_the_ledger(db: Database, statement: str) -> None:
    """Its role may not delete."""
    caller = await new_principal(db)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        async with db.tenant(caller) as conn:
            await conn.execute(statement)


async def test_a_tenant_cannot_write_into_anothers_ledger(db: Database) -> None:
    """The functions have their caller's rights: naming another organisation is refused."""
    victim, attacker = await new_principal(db), await new_principal(db)
    row = (
        f'[{{"org_id": "{victim.org_id}", "id": "{new_id()}", "user_id": "{victim.user_id}",'
        ' "request_id": "r", "provider": "p", "model": "m", "private": false, "prompt_tokens": 1,'
        ' "completion_tokens": 0, "cached_tokens": 0, "estimated": false, "state": "closed",'
        ' "outcome": "ok", "reserved_usd": 0, "cost_usd": 0, "started_at": "2026-05-31T12:00:00Z"}]'
    )
    for call in ("begin_llm_calls(%s, %s, '1 h')", "end_llm_calls(%s, %s)"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            async with db.tenant(attacker) as conn:
                await conn.execute(f"SELECT {call}", [victim.org_id, row])
    table = CallTable(db, to_disk=True)
    call_of_victim = begun(victim.user_id)
    await table.begin(victim.org_id, [call_of_victim], lease_s=3600)
    async with db.tenant(attacker) as conn:
        await conn.execute("SELECT lose_llm_calls(%s)", [victim.org_id])
        await conn.execute("SELECT extend_llm_calls(%s, %s, '-1 h')", [victim.org_id, [call_of_victim.id]])
    async with db.tenant(victim) as conn:
        (row_kept,) = await (await conn.execute("SELECT state, alive_until > now() AS alive FROM llm_calls")).fetchall()
    assert row_kept == {"state": "open", "alive": True}
    await table.close()


async def test_a_beginning_that_comes_twice_sets_aside_once(db: Database) -> None:
    """After a commit whose answer was lost."""
    table, caller = CallTable(db, to_disk=False), await new_principal(db)
    call = begun(caller.user_id)
    for _ in range(2):
        await table.begin(caller.org_id, [call, call], lease_s=60)
    async with db.tenant(caller) as conn:
        found = await (await conn.execute("SELECT reserved_usd FROM llm_totals")).fetchall()
    assert [row["reserved_usd"] for row in found] == [Decimal("0.001")] * 4
    await table.close()


async def test_pages_follow_each_other_and_an_unknown_place_is_the_end(db: Database) -> None:
    """Calls of the same moment are neither shown twice nor left out."""
    table, caller = CallTable(db, to_disk=False), await new_principal(db)
    calls = [begun(caller.user_id, started_at=NOON + timedelta(minutes=n // 3)) for n in range(10)]
    await table.begin(caller.org_id, calls, lease_s=60)
    seen, before = [], None
    facts = {"org_id": caller.org_id, "since": NOON, "until": NOON + timedelta(days=1), "user_id": None}
    async with db.tenant(caller) as conn:
        while page := await llm_calls.page(conn, **facts, before=before, limit=4):  # type: ignore[arg-type]
            seen += [row.id for row in page]
            before = page[-1].id
        assert await llm_calls.page(conn, **facts, before=new_id(), limit=4) == []  # type: ignore[arg-type]
        other = await llm_calls.page(conn, **{**facts, "user_id": new_id()}, before=None, limit=4)  # type: ignore[arg-type]
    assert sorted(seen) == sorted(call.id for call in calls)
    assert seen[0] == calls[-1].id
    assert other == []
    await table.close()


@pytest.mark.parametrize("bad", [{"request_id": "zero \x00 byte"}, {"prompt_tokens": 2**70}])
async def test_values_the_ledger_cannot_hold_are_refused(db: Database, bad: dict[str, object]) -> None:
    """And the connection is well afterwards."""
    table, caller = CallTable(db, to_disk=False), await new_principal(db)
    with pytest.raises(InvalidInput):
        await table.begin(caller.org_id, [begun(caller.user_id, **bad)], lease_s=60)
    (admission,) = await table.begin(caller.org_id, [begun(caller.user_id)], lease_s=60)
    assert admission.admitted
    await table.close()


async def test_a_key_opens_after_it_was_sealed_anew(db: Database) -> None:
    """Rotation knows the column; a provider without a key is passed over."""
    caller = await new_principal(db)
    async with db.tenant(caller) as conn:
        with_key = await llm_providers.insert(conn, org_id=caller.org_id, name="a", settings={}, api_key="k" * 20)
        await llm_providers.insert(conn, org_id=caller.org_id, name="b", settings={}, api_key=None)
        (column,) = [one for one in resealing.SEALED if one.table == "llm_providers"]
        count, _ = await resealing.reseal(conn, column, org_id=caller.org_id, prefix=b"\x01none", after=None, limit=10)
        assert count == 1
        assert await llm_providers.keys(conn, caller.org_id) == {with_key.id: "k" * 20}
