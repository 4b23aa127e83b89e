"""Lists over remembered rows: what is counted, which tags are named, who is whose twin."""

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from neuroedge.contract.ports import MemoryFilter, NewMemory
from neuroedge.contract.principal import Principal
from neuroedge.stores import memories, memory_lists, memory_search
from neuroedge.stores.postgres import Database
from tests.stores.conftest import new_principal

pytestmark = pytest.mark.anyio


def _item(content: str, direction: int = 0, *, dim: int = 384, **more: Any) -> NewMemory:
    vector = np.zeros(dim, np.float32)
    vector[direction] = 1
    return NewMemory(content=content, embedding=vector, embedding_model=f"m{dim}", **more)


async def _store(db: Database, caller: Principal, *items: NewMemory) -> list[Any]:
    """Each in a transaction of its own, so that they differ in age."""
    ids = []
    for item in items:
        async with db.tenant(caller) as conn:
            ids += await memories.insert(conn, org_id=caller.org_id, user_id=caller.user_id, items=[item])
    return ids


async def test_days_and_months_are_those_of_utc(db: Database) -> None:
    """Whatever the connection's time zone."""
    caller = await new_principal(db)
    times = [datetime(2024, 1, 31, 23, 59, tzinfo=UTC), datetime(2024, 2, 1, tzinfo=UTC)]
    await _store(db, caller, *(_item("x", occurred_at=at) for at in times))
    async with db.tenant(caller) as conn:
        await conn.execute("SET LOCAL timezone = 'Pacific/Auckland'")
        for unit, begins in (("day", [times[1], datetime(2024, 1, 31, tzinfo=UTC)]), ("month", None)):
            counted = await memory_lists.by_time(conn, org_id=caller.org_id, unit=unit, limit=10, where=MemoryFilter())
            expected = begins or [times[1], datetime(2024, 1, 1, tzinfo=UTC)]
            assert counted == [(begin, 1) for begin in expected]


async def test_tags_are_told_from_metadata_and_sources(db: Database) -> None:
    """The hashes of all three stand in one column; only tags are counted as tags."""
    caller = await new_principal(db)
    item = _item("x", tags=["a", "b"], metadata={"a": "b", "b": 1}, source="a")
    await _store(db, caller, item, _item("y", tags=["b"], source="b"))
    async with db.tenant(caller) as conn:
        counted = await memory_lists.counts(conn, caller.org_id)
    assert counted.tags == {"b": 2, "a": 1}
    assert list(counted.tags) == ["b", "a"]


async def test_counts_of_nothing(db: Database) -> None:
    """An organisation that remembers nothing."""
    caller = await new_principal(db)
    async with db.tenant(caller) as conn:
        counted = await memory_lists.counts(conn, caller.org_id)
    assert (counted.memories, counted.sealed_bytes, counted.oldest, counted.tags) == (0, 0, None, {})


async def test_twins_are_younger_and_of_the_same_model(db: Database) -> None:
    """Vectors of different models are never compared; the older one is never the twin of the younger one."""
    caller = await new_principal(db)
    items = (_item("one", 1), _item("two", 1), _item("three", 2), _item("four", 1, dim=768), _item("one", 3))
    one, two, three, four, again = await _store(db, caller, *items)
    async with db.tenant(caller) as conn:
        found = await memory_lists.twins(
            conn, org_id=caller.org_id, owner_id=None, ids=[one, two, three, four, again], threshold=0.9
        )
    assert {(twin.kept, twin.other, twin.exact) for twin in found} == {(one, two, False), (one, again, True)}


async def test_pages_by_age_lead_through_all(db: Database) -> None:
    """Each row once, with how many are left."""
    caller = await new_principal(db)
    ids = await _store(db, caller, *(_item(f"row {n}") for n in range(5)))
    seen: list[Any] = []
    left: list[int] = []
    after = None
    while len(seen) < 5:
        async with db.tenant(caller) as conn:
            page, rows = await memory_lists.by_age(conn, org_id=caller.org_id, owner_id=None, after=after, limit=2)
        seen += [place.id for place in page]
        left.append(rows)
        after = page[-1]
    assert (seen, left) == (ids, [5, 3, 1])


async def test_a_rewrite_keeps_vectors_and_a_new_content_replaces_them(db: Database) -> None:
    """What is found by meaning goes with the content, what is found by words with the title too."""
    caller = await new_principal(db)
    (row,) = await _store(db, caller, _item("pump", 1))
    async with db.tenant(caller) as conn:
        for change, direction in ((memories.rewrite, 1), (memories.replace_content, 2)):
            item = _item("pump" if direction == 1 else "valve", direction, title="gauge")
            assert await change(conn, org_id=caller.org_id, memory_id=row, item=item)
            found = await memory_search.nearest(
                conn, org_id=caller.org_id, vector=item.embedding, model="m384", limit=1, where=MemoryFilter()
            )
            assert found[0].score == pytest.approx(1, abs=1e-3)
            worded = await memory_search.matching(
                conn, org_id=caller.org_id, query="gauge", limit=1, where=MemoryFilter()
            )
            assert [hit.id for hit in worded] == [row]
        cursor = await conn.execute("SELECT count(*) AS vectors FROM memory_vectors_384")
        assert await cursor.fetchone() == {"vectors": 1}


async def test_what_chat_messages_are_found_by_is_not_counted(db: Database) -> None:
    """As in lists and searches that name no type: neither among the rows, nor by kind, tag or model."""
    caller = await new_principal(db)
    await _store(db, caller, _item("x", tags=["a"]), _item("said", tags=["b"], memory_type="chat_message"))
    async with db.tenant(caller) as conn:
        counted = await memory_lists.counts(conn, caller.org_id)
    assert (counted.memories, counted.by_type, counted.tags, counted.by_model) == (
        1,
        {"note": 1},
        {"a": 1},
        {"m384": 1},
    )
