"""Types of memories that must not be found by their meaning, or by their words."""

from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import replace
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from neuroedge.contract.ports import MemoryFilter, NewMemory
from neuroedge.contract.principal import Principal
from neuroedge.stores import knowledge, memories
from neuroedge.stores.derived import Underived
from neuroedge.stores.postgres import Database
from neuroedge.stores.tenant_memories import TenantMemories
from tests.stores.conftest import KEYS, Migrated, new_principal

pytestmark = pytest.mark.anyio
VECTOR = np.eye(384, dtype=np.float32)[0]


def item(memory_type: str, text: str) -> NewMemory:
    """A memory of a type."""
    return NewMemory(content=text, embedding=VECTOR, embedding_model="m", memory_type=memory_type)


@pytest.fixture
async def careful(migrated: Migrated) -> AsyncIterator[Database]:
    """Embeds no diary, and keeps no words of health notes."""
    underived = Underived(embedding=["diary"], words=["health"])
    database = Database(migrated.app_url, max_size=4, keys=KEYS, underived=underived)
    await database.open()
    yield database
    await database.close()


async def _found(db: Database, caller: Principal) -> tuple[set[str], set[str]]:
    found = await TenantMemories(db, caller).search(
        query="zebra", vector=VECTOR, model="m", limit=9, where=MemoryFilter()
    )
    return {found.rows[hit.id].content for hit in found.dense}, {found.rows[hit.id].content for hit in found.keyword}


async def _kept(db: Database, caller: Principal) -> dict[str, tuple[int, int]]:
    """Of each type: vectors, and hashes of words."""
    async with db.tenant(caller) as conn:
        rows = await conn.execute(
            "SELECT m.memory_type, count(v.memory_id) AS vectors, sum(cardinality(m.term_ids)) AS words FROM memories m"
            " LEFT JOIN memory_vectors_384 v ON v.org_id = m.org_id AND v.memory_id = m.id GROUP BY 1"
        )
        return {row["memory_type"]: (row["vectors"], row["words"]) for row in await rows.fetchall()}


async def test_such_rows_have_no_vector_or_no_words(careful: Database) -> None:
    """In the tables, not only in the results; the rest is found by both."""
    caller = await new_principal(careful)
    texts = {"diary": "zebra of today", "health": "zebra at the doctor", "note": "zebra in the zoo"}
    await TenantMemories(careful, caller).add([item(kind, text) for kind, text in texts.items()])
    dense, keyword = await _found(careful, caller)
    assert dense == {texts["health"], texts["note"]}
    assert keyword == {texts["diary"], texts["note"]}
    kept = await _kept(careful, caller)
    assert {kind: vectors for kind, (vectors, _) in kept.items()} == {"diary": 0, "health": 1, "note": 1}
    assert kept["health"][1] == 0
    assert kept["note"][1] > 0
    assert await _term_rows(careful, caller) == _words_counted(kept)


async def test_a_memory_that_becomes_such_loses_them(careful: Database) -> None:
    """With another type, and with another content."""
    caller = await new_principal(careful)
    ids = await TenantMemories(careful, caller).add([item("note", "zebra one"), item("note", "zebra two")])
    await _change(careful, caller, ids[0], replace(item("diary", "zebra one"), embedding=np.zeros(0, np.float32)))
    async with careful.tenant(caller) as conn:
        await memories.replace_content(conn, org_id=caller.org_id, memory_id=ids[1], item=item("diary", "zebra three"))
    assert await _found(careful, caller) == (set(), {"zebra one", "zebra three"})
    await _change(careful, caller, ids[0], item("health", "zebra one"))
    assert (await _found(careful, caller))[1] == {"zebra three"}


async def test_the_graph_reads_no_memory_without_words(careful: Database, migrated: Migrated) -> None:
    """Names in it are found by keyed hashes of their words; such a memory is neither read nor waited for."""
    caller = await new_principal(careful)
    ids = await TenantMemories(careful, caller).add([item("health", "Ann is ill."), item("note", "Ann likes Bob.")])

    async def seen(db: Database) -> tuple[list[UUID], int]:
        async with db.tenant(caller) as conn:
            unread = await knowledge.unread(conn, org_id=caller.org_id, extractor="x", after=None, limit=9)
            return unread, (await knowledge.standing(conn, org_id=caller.org_id, extractor="x")).memories

    assert await seen(careful) == ([ids[1]], 1)
    none = Database(migrated.app_url, max_size=2, keys=KEYS, underived=Underived(words=["*"]))
    await none.open()
    try:
        assert await seen(none) == ([], 0)
    finally:
        await none.close()


async def test_what_the_graph_read_in_a_memory_goes_with_its_content(careful: Database) -> None:
    """And with its type, where that one is not read; another title or tag takes nothing away."""
    caller = await new_principal(careful)
    store = TenantMemories(careful, caller)
    [content, kind, label] = await store.add([item("note", f"Ann likes {name}.") for name in ("Bob", "Cid", "Dan")])
    await _read(careful, caller)
    await _change(careful, caller, label, replace(item("fact", "Ann likes Dan."), title="Of Ann", tags=["people"]))
    assert await _quoted(careful, caller) == {content, kind, label}
    async with careful.tenant(caller) as conn:
        changed = item("note", "Nobody knows.")
        await memories.replace_content(conn, org_id=caller.org_id, memory_id=content, item=changed)
    await _change(careful, caller, kind, item("health", "Ann likes Cid."))
    assert await _quoted(careful, caller) == {label}


async def test_what_was_read_in_a_memory_that_changed_meanwhile_is_dropped(careful: Database) -> None:
    """Its content, its type, all of it: the others' facts are kept."""
    caller = await new_principal(careful)
    store = TenantMemories(careful, caller)
    ids = await store.add([item("note", f"Ann likes {name}.") for name in ("Bob", "Cid", "Dan", "Eve")])

    async def meanwhile() -> None:
        await _change(careful, caller, ids[0], item("note", "Nobody knows."))
        await _change(careful, caller, ids[1], item("health", "Ann likes Cid."))
        async with careful.tenant(caller) as conn:
            await memories.delete(conn, org_id=caller.org_id, ids=[ids[2]])

    await _read(careful, caller, meanwhile)
    assert await _quoted(careful, caller) == {ids[3]}
    async with careful.tenant(caller) as conn:
        unread = await knowledge.unread(conn, org_id=caller.org_id, extractor="x", after=None, limit=9)
    assert unread == [ids[0]]


async def _nothing() -> None:
    """Nobody changes anything."""


async def _read(db: Database, caller: Principal, meanwhile: Callable[[], Coroutine[Any, Any, None]] = _nothing) -> None:
    """Read every memory into the graph, each as a mention of Ann; `meanwhile` comes between reading and storing."""
    thing = knowledge.FoundThing(key="ann", name="Ann", type="person", surfaces=["Ann"], places=[(0, 3)])
    async with db.tenant(caller) as conn:
        ids = await knowledge.unread(conn, org_id=caller.org_id, extractor="x", after=None, limit=9)
        texts = await knowledge.contents(conn, org_id=caller.org_id, ids=ids)
    await meanwhile()
    read = [knowledge.Facts(memory_id=t.memory_id, content_mac=t.mac, things=[thing], relations=[]) for t in texts]
    async with db.tenant(caller) as conn:
        await knowledge.replace(conn, org_id=caller.org_id, extractor="x", read=read)


async def _quoted(db: Database, caller: Principal) -> set[UUID]:
    """Memories that the graph says mention Ann."""
    async with db.tenant(caller) as conn:
        ann = knowledge.entity_id(conn, caller.org_id, "ann")
        return {m.memory_id for m in await knowledge.mentions(conn, org_id=caller.org_id, entity=ann, limit=9)}


async def test_a_star_is_every_type(migrated: Migrated) -> None:
    """Of both."""
    database = Database(migrated.app_url, max_size=2, keys=KEYS, underived=Underived(embedding=["*"], words=["x", "*"]))
    await database.open()
    try:
        caller = await new_principal(database)
        await TenantMemories(database, caller).add([item("note", "zebra")])
        assert await _found(database, caller) == (set(), set())
        assert await _kept(database, caller) == {"note": (0, 0)}
    finally:
        await database.close()


async def _change(db: Database, caller: Principal, memory_id: UUID, changed: NewMemory) -> None:
    async with db.tenant(caller) as conn:
        assert await memories.rewrite(conn, org_id=caller.org_id, memory_id=memory_id, item=changed)


async def _term_rows(db: Database, caller: Principal) -> int:
    async with db.tenant(caller) as conn:
        row: Any = await (await conn.execute("SELECT sum(documents) AS n FROM term_stats")).fetchone()
        return int(row["n"])


def _words_counted(kept: dict[str, tuple[int, int]]) -> int:
    return sum(words for _, words in kept.values())
