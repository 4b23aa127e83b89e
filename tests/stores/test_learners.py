"""What stands in the database of a learner: no plain word; ids that only the organisation's key leads to."""

from datetime import UTC, datetime

import psycopg
import pytest

from neuroedge.stores import learners
from neuroedge.stores.postgres import Database
from tests.stores.conftest import Migrated, new_principal

pytestmark = pytest.mark.anyio


def _event(name: str, item: str) -> learners.NewEvent:
    return learners.NewEvent(name=name, kind="answer", at=datetime(2026, 1, 1, tzinfo=UTC), body={"item": item})


async def test_no_name_stands_in_plain_text(db: Database, migrated: Migrated) -> None:
    """Neither the learner's, nor an event's, nor an item's; as the database's owner sees the rows."""
    caller = await new_principal(db)
    async with db.tenant(caller) as conn:
        kept = await learners.save(
            conn, org_id=caller.org_id, name="anna zweig", consented=True, consents=[{"policy": "zweig"}]
        )
        await learners.add_events(conn, org_id=caller.org_id, learner=kept.id, items=[_event("zweig-1", "zweig item")])
    with psycopg.connect(migrated.owner_url) as owner:
        rows = owner.execute(
            "SELECT l::text, e::text, encode(l.sealed, 'escape'), encode(e.sealed, 'escape') FROM learners l"
            " JOIN learner_events e USING (org_id) WHERE l.org_id = %s",
            [caller.org_id],
        ).fetchall()
    assert len(rows) == 1
    assert "zweig" not in str(rows)


async def test_the_same_name_has_another_id_in_another_organisation(db: Database) -> None:
    """Keyed hashes of two organisations have nothing in common; within one they are stable."""
    ids = []
    for _ in range(2):
        caller = await new_principal(db)
        async with db.tenant(caller) as conn:
            first = learners.learner_id(conn, caller.org_id, "anna")
            assert first == learners.learner_id(conn, caller.org_id, "anna")
            ids.append(first)
    assert ids[0] != ids[1]


async def test_events_are_told_apart_by_name_and_content(db: Database) -> None:
    """New, known and different ones of one batch, in which one is repeated."""
    caller = await new_principal(db)
    async with db.tenant(caller) as conn:
        kept = await learners.save(conn, org_id=caller.org_id, name="a", consented=True, consents=[])
        org_id = caller.org_id
        first = await learners.add_events(conn, org_id=org_id, learner=kept.id, items=[_event("1", "x")])
        batch = [_event("1", "x"), _event("1", "y"), _event("2", "x"), _event("2", "x"), _event("2", "z")]
        second = await learners.add_events(conn, org_id=org_id, learner=kept.id, items=batch)
        assert first == (["1"], [], [])
        assert second == (["2"], ["1", "2"], ["1", "2"])
        assert await learners.count_events(conn, org_id=org_id, learner=kept.id) == 2
        assert [e.body["item"] for e in await learners.events(conn, org_id=org_id, learner=kept.id, newest=9)] == [
            "x",
            "x",
        ]


async def test_answers_of_learners_who_withdrew_are_not_used(db: Database) -> None:
    """Only consenting learners' answers make the organisation's scale."""
    caller = await new_principal(db)
    async with db.tenant(caller) as conn:
        for name, consented in (("yes", True), ("no", False)):
            kept = await learners.save(conn, org_id=caller.org_id, name=name, consented=consented, consents=[])
            await learners.add_events(conn, org_id=caller.org_id, learner=kept.id, items=[_event("e", name)])
        found = await learners.answers(conn, org_id=caller.org_id, newest=10)
        assert [event.body["item"] for _, event in found] == ["yes"]
        assert await learners.delete(conn, org_id=caller.org_id, name="yes") == 1
        assert await learners.delete(conn, org_id=caller.org_id, name="yes") is None
