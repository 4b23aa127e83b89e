"""Old decisions of the safety passes go; young ones, and those a reviewer still needs, stay."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from neuroedge.contract.principal import Principal
from neuroedge.services import safety_sweep
from neuroedge.services.safety_sweep import SafetySweep
from neuroedge.stores import safety
from neuroedge.stores.ids import first_id_of, new_id
from neuroedge.stores.postgres import Connection, Database
from tests.services.llm.ledger_parts import SetClock
from tests.stores.conftest import new_principal

pytestmark = pytest.mark.anyio
NOW = datetime.now(UTC)


async def _decided(conn: Connection, caller: Principal, *, days_ago: float, nth: int = 0) -> UUID:
    """A decision of a day in the past, with an id of that time."""
    made = await safety.add_decision(
        conn,
        org_id=caller.org_id,
        user_id=caller.user_id,
        request_id="r",
        stage="input",
        action="flag",
        reasons=[],
        chars=4,
    )
    at = NOW - timedelta(days=days_ago)
    old = UUID(int=first_id_of(at).int + nth)
    # The application may not change a decision; an old one is what a new one's copy is.
    await conn.execute(
        "INSERT INTO safety_decisions SELECT org_id, %s, user_id, request_id, stage, action, reasons, chars, %s"
        " FROM safety_decisions WHERE id = %s",
        [old, at, made],
    )
    await conn.execute("DELETE FROM safety_decisions WHERE id = %s", [made])
    return old


async def _left(db: Database, caller: Principal) -> set[UUID]:
    async with db.tenant(caller) as conn:
        found = await safety.decisions(conn, org_id=caller.org_id, user_id=None, limit=100)
    return {decision.id for decision in found}


async def test_decisions_older_than_they_are_kept_go_in_every_organisation(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In pages; those a day younger than the limit stay."""
    monkeypatch.setattr(safety_sweep, "_AT_ONCE", 2)
    callers, kept = [await new_principal(db), await new_principal(db)], dict[UUID, UUID]()
    for caller in callers:
        async with db.tenant(caller) as conn:
            for n in range(5):
                await _decided(conn, caller, days_ago=31, nth=n)
            kept[caller.org_id] = await _decided(conn, caller, days_ago=29)
    sweep = SafetySweep(db=db, clock=SetClock(NOW), keep_days=30)
    assert await sweep.run() >= 10
    for caller in callers:
        assert await _left(db, caller) == {kept[caller.org_id]}
    assert await sweep.run() == 0


async def test_a_decision_under_review_stays_until_the_review_is_finished(db: Database) -> None:
    """A reviewer must be able to see why the text lies there."""
    caller = await new_principal(db)
    async with db.tenant(caller) as conn:
        decision = await _decided(conn, caller, days_ago=400)
        await conn.execute(
            "INSERT INTO reviews (org_id, id, user_id, source, kind, ref, decision_id, state, sealed)"
            " VALUES (%s, %s, %s, 'rule', 'text', '', %s, 'open', %s)",
            [caller.org_id, new_id(), caller.user_id, decision, b"sealed"],
        )
    sweep = SafetySweep(db=db, clock=SetClock(NOW), keep_days=365)
    await sweep.run()
    assert await _left(db, caller) == {decision}
    async with db.tenant(caller) as conn:
        await conn.execute(
            "UPDATE reviews SET state = 'approved', finished_at = now() WHERE decision_id = %s", [decision]
        )
    await sweep.run()
    assert await _left(db, caller) == set()
