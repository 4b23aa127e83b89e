"""Tenants never meet, even for SQL that forgets them: the database itself keeps them apart."""

import dataclasses
import functools

import numpy as np
import psycopg
import pytest

from neuroedge.contract.errors import InvalidInput, SealBroken
from neuroedge.contract.ports import MemoryFilter, NewMemory
from neuroedge.contract.principal import Principal
from neuroedge.stores import ledgers, memories, sealing
from neuroedge.stores.ids import new_id
from neuroedge.stores.postgres import Connection, Database, UnsafeRole
from neuroedge.stores.tenant_memories import TenantMemories
from tests.stores.conftest import KEYS, Migrated, new_principal

pytestmark = pytest.mark.anyio


def _vector(seed: int) -> np.ndarray:
    vector = np.random.default_rng(seed).normal(size=384).astype(np.float32)
    return vector / np.linalg.norm(vector)


async def _remember(db: Database, caller: Principal, text: str, seed: int = 1) -> None:
    item = NewMemory(content=text, embedding=_vector(seed), embedding_model="m")
    await TenantMemories(db, caller).add([item])


async def test_every_table_with_a_tenant_has_row_level_security(db: Database) -> None:
    """No table of the schema is left without a policy, partitions reached by name included."""
    async with db.unbound() as conn:
        cursor = await conn.execute(
            "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p') AND NOT c.relrowsecurity"
        )
        assert {row["relname"] for row in await cursor.fetchall()} == {"schema_version"}


async def test_select_without_a_tenant_sees_nothing(db: Database) -> None:
    """Forgetting to bind a tenant gives no rows, not all rows."""
    await _remember(db, await new_principal(db), "a secret")
    async with db.unbound() as conn:
        for table in ("memories", "users", "organisations", "memberships", "audit", "usage", "recordings"):
            row = await (await conn.execute(f"SELECT count(*) AS n FROM {table}")).fetchone()
            assert row is not None
            assert row["n"] == 0, table


async def test_sql_that_names_no_tenant_sees_its_own_rows_only(db: Database) -> None:
    """SELECT, UPDATE, DELETE and COPY reach the bound organisation only."""
    first, second = await new_principal(db), await new_principal(db)
    await _remember(db, first, "first's secret")
    await _remember(db, second, "second's secret")
    async with db.tenant(first) as conn:
        cursor = await conn.execute("SELECT org_id FROM memories")
        assert [row["org_id"] for row in await cursor.fetchall()] == [first.org_id]
        copied = []
        async with conn.cursor().copy("COPY (SELECT org_id FROM memories) TO STDOUT") as copy:
            async for line in copy:
                copied.append(bytes(line).decode().strip())
        assert copied == [str(first.org_id)]
        for dim in memories.DIMENSIONS:
            cursor = await conn.execute(f"SELECT count(*) AS n FROM memory_vectors_{dim}")
            assert (await cursor.fetchone() or {})["n"] == (1 if dim == 384 else 0)
        assert (await conn.execute("UPDATE memories SET importance = 1")).rowcount == 1
        assert (await conn.execute("DELETE FROM memories")).rowcount == 1
    async with db.tenant(second) as conn:
        (row,) = await memories.recent(conn, org_id=second.org_id, limit=9, before=None, where=MemoryFilter())
        assert (row.content, row.importance) == ("second's secret", 0.5)


async def test_a_sealed_row_does_not_open_in_another_place_or_organisation(db: Database) -> None:
    """A row copied by SQL over another one of the same organisation, and one's bytes under other keys, are refused."""
    first, second = await new_principal(db), await new_principal(db)
    await _remember(db, first, "one")
    await _remember(db, first, "another")
    async with db.tenant(first) as conn:
        one, other = [row["id"] for row in await (await conn.execute("SELECT id FROM memories ORDER BY id")).fetchall()]
        await conn.execute(
            "UPDATE memories SET sealed = (SELECT sealed FROM memories WHERE id = %s) WHERE id = %s", [one, other]
        )
        with pytest.raises(SealBroken):
            await memories.find(conn, org_id=first.org_id, ids=[other])
        row = await (await conn.execute("SELECT sealed FROM memories WHERE id = %s", [one])).fetchone()
    async with db.tenant(second) as conn:
        with pytest.raises(SealBroken):
            conn.vault.open((row or {})["sealed"], f"memories/{one}")
        assert conn.vault.blind("word:apple") != (await db.known(first.org_id)).cipher.blind("word:apple")


async def test_private_memories_are_seen_by_their_user_alone(db: Database) -> None:
    """A colleague of the same organisation finds what is the organisation's, not what is private."""
    owner = await new_principal(db)
    colleague = dataclasses.replace(owner, user_id=new_id())
    for visibility in ("private", "organisation"):
        item = NewMemory(content=f"{visibility} plan", embedding=_vector(3), embedding_model="m", visibility=visibility)
        await TenantMemories(db, owner).add([item])
    for principal, seen in ((owner, ["organisation plan", "private plan"]), (colleague, ["organisation plan"])):
        found = await TenantMemories(db, principal).search(query="plan", vector=_vector(3), model="m", limit=9)
        assert sorted(found.rows[hit.id].content for hit in found.dense) == seen
        assert sorted(found.rows[hit.id].content for hit in found.keyword) == seen
    async with db.tenant(colleague, sees_all=True) as conn:
        cursor = await conn.execute("SELECT count(*) AS n FROM memories")
        assert (await cursor.fetchone() or {})["n"] == 2


async def test_word_statistics_follow_what_is_added_changed_and_deleted(db: Database) -> None:
    """BM25 counts what is there: rows that went by a cascade count no more."""
    caller = await new_principal(db)
    port = TenantMemories(db, caller)
    items = [NewMemory(content=text, embedding=_vector(1), embedding_model="m") for text in ("red sun", "red moon")]
    first, _ = await port.add(items)
    async with db.tenant(caller) as conn:
        await memories.replace_content(
            conn, org_id=caller.org_id, memory_id=first, item=dataclasses.replace(items[0], content="green sun glow")
        )
        assert await _counts(conn, "red", "green", "sun", "moon") == [1, 1, 1, 1]
        cursor = await conn.execute("SELECT documents, words FROM corpus_stats")
        assert await cursor.fetchone() == {"documents": 2, "words": 5}
        await memories.delete(conn, org_id=caller.org_id, ids=[first])
        assert await _counts(conn, "red", "green", "sun", "moon") == [1, 0, 0, 1]
        cursor = await conn.execute("SELECT documents, words FROM corpus_stats")
        assert await cursor.fetchone() == {"documents": 1, "words": 2}


async def _counts(conn: Connection, *words: str) -> list[int]:
    counts = []
    for word in words:
        (term,) = sealing.terms(word, conn.vault)
        cursor = await conn.execute("SELECT documents FROM term_stats WHERE term = %s", [term])
        counts.append((await cursor.fetchone() or {"documents": 0})["documents"])
    return counts


async def test_a_partition_cannot_be_reached_by_its_own_name(db: Database) -> None:
    """Only the parent is granted; its policy holds for all partitions."""
    caller = await new_principal(db)
    for n in range(16):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            async with db.tenant(caller) as conn:
                await conn.execute(f"SELECT id FROM memories_p{n}")


async def test_a_row_cannot_be_written_into_another_tenant(db: Database) -> None:
    """INSERT with a foreign org_id, and moving a row there, are refused by the policy."""
    first, second = await new_principal(db), await new_principal(db)
    await _remember(db, first, "stays")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        async with db.tenant(first) as conn:
            await conn.execute(
                "INSERT INTO divisions (org_id, id, name) VALUES (%s, %s, 'x')", [second.org_id, new_id()]
            )
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        async with db.tenant(first) as conn:
            await conn.execute("UPDATE memories SET org_id = %s", [second.org_id])


async def test_a_pooled_connection_does_not_carry_a_tenant_on(migrated: Migrated) -> None:
    """With two connections for all, what one caller bound is gone for the next, also after an error."""
    database = Database(migrated.app_url, max_size=2, keys=KEYS)
    await database.open()
    try:
        caller = await new_principal(database)
        await _remember(database, caller, "a secret")
        for failing in (False, True):
            try:
                async with database.tenant(caller) as conn:
                    assert await (await conn.execute("SELECT 1 FROM memories")).fetchone()
                    if failing:
                        await conn.execute("SELECT 1/0")
            except InvalidInput:
                pass
            for _ in range(4):
                async with database.unbound() as conn:
                    cursor = await conn.execute("SELECT current_setting('app.current_org_id', true) AS org")
                    assert (await cursor.fetchone() or {})["org"] in (None, "")
                    assert await (await conn.execute("SELECT 1 FROM memories")).fetchone() is None
    finally:
        await database.close()


async def test_the_applications_role_cannot_turn_the_rules_off(db: Database) -> None:
    """No ALTER TABLE, no SET ROLE, no row_security=off, no dropping of policies."""
    caller = await new_principal(db)
    for statement in (
        "ALTER TABLE memories DISABLE ROW LEVEL SECURITY",
        "DROP POLICY tenant ON memories",
        "SET ROLE postgres",
        "ALTER ROLE neuroedge_app BYPASSRLS",
        "CREATE TABLE public.loot (x text)",
    ):
        with pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.InvalidParameterValue)):
            async with db.tenant(caller) as conn:
                await conn.execute(statement)
    async with db.tenant(caller) as conn:
        await conn.execute("SET LOCAL row_security = off")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await conn.execute("SELECT * FROM memories")


async def test_the_platform_refuses_to_run_as_a_role_that_sees_everything(migrated: Migrated) -> None:
    """Starting with the owner's connection string is an error, not a silent loss of isolation."""
    database = Database(migrated.owner_url, max_size=4, keys=KEYS)
    with pytest.raises(UnsafeRole):
        await database.open()


async def test_audit_and_usage_are_append_only(db: Database) -> None:
    """The application can add to its ledgers but not rewrite them."""
    caller = await new_principal(db)
    async with db.tenant(caller) as conn:
        await ledgers.add_audit(
            conn, org_id=caller.org_id, user_id=caller.user_id, request_id="r", action="a", target="t"
        )
    for statement in ("DELETE FROM audit", "UPDATE audit SET action = 'b'", "DELETE FROM usage"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            async with db.tenant(caller) as conn:
                await conn.execute(statement)


async def test_nearest_finds_a_small_tenant_among_many_rows_of_others(db: Database) -> None:
    """The iterative index scan does not starve a tenant whose rows share a partition with many others."""
    small, large = await new_principal(db), await new_principal(db)
    await _remember(db, small, "mine", seed=7)
    items = [NewMemory(content=f"n{i}", embedding=_vector(1000 + i), embedding_model="m") for i in range(500)]
    await TenantMemories(db, large).add(items)
    found = await TenantMemories(db, small).search(query="", vector=_vector(7), model="m", limit=3)
    assert [row.content for row in found.rows.values()] == ["mine"]
    assert found.dense[0].score == pytest.approx(1.0, abs=1e-3)


async def test_search_filters_hold(db: Database) -> None:
    """Type and tags restrict both searches."""
    caller = await new_principal(db)
    port = TenantMemories(db, caller)
    await port.add(
        [
            NewMemory(
                content="red apples", embedding=_vector(1), embedding_model="m", tags=["fruit"], source="the farm"
            ),
            NewMemory(
                content="red cars",
                embedding=_vector(2),
                embedding_model="m",
                memory_type="fact",
                metadata={"size": 3},
            ),
        ]
    )
    search = functools.partial(port.search, query="red", vector=_vector(1), model="m", limit=5)
    for where, expected in (
        (MemoryFilter(tags=["fruit"]), "red apples"),
        (MemoryFilter(memory_type="fact"), "red cars"),
        (MemoryFilter(metadata={"size": 3}), "red cars"),
        (MemoryFilter(source="the farm"), "red apples"),
    ):
        found = await search(where=where)
        assert [[found.rows[hit.id].content for hit in part] for part in (found.dense, found.keyword)] == [
            [expected],
            [expected],
        ]
    assert (await search(where=MemoryFilter(metadata={"size": 4}))).keyword == []
    assert (await port.search(query="", vector=_vector(1), model="another-model", limit=5)).dense == []


async def test_plans_prune_to_the_tenants_partition(db: Database) -> None:
    """A search touches one hash partition, not all sixteen."""
    caller = await new_principal(db)
    async with db.tenant(caller) as conn:
        cursor = await conn.execute("EXPLAIN (FORMAT JSON) SELECT id FROM memories WHERE org_id = %s", [caller.org_id])
        plan = str(await cursor.fetchone())
    assert sum(f"memories_p{n}'" in plan for n in range(16)) == 1
