"""A second tenant with SQL of its own choice, as the application's role, against every table and function there is."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

from neuroedge.contract.errors import InvalidInput
from neuroedge.contract.principal import Principal
from neuroedge.stores.postgres import Connection, Database
from tests.everything_stored import Stored, store_everything
from tests.stores.conftest import KEYS, Migrated, new_principal

pytestmark = pytest.mark.anyio

DEFINERS = {
    "find_login": "takes an exact name; tells what logging in needs",
    "find_api_key": "takes an exact prefix; tells what checking a key needs, of which the hash is the only secret",
    "organisations_with_tasks_before": "ids only",
    "organisations_with_expired_memories": "ids only",
    "organisations_with_lost_llm_calls": "ids only",
    "organisations_with_unfinished_chats": "ids only",
    "organisations_with_expired_files": "ids only",
    "remove_entities_without_mention": "a trigger: not to be called",
    "organisations_with_stale_voices": "ids only",
    "organisations_with_batches_before": "ids only",
    "organisations_with_keys": "ids, times and counts; never the wrapped keys",
    "erasures_of_all": "ids and counts",
    "exports_made_before": "ids only",
    "rows_of_organisation": "counts of the bound organisation",
    "rows_of_user": "counts of the bound organisation",
    "erase_ledgers": "the bound organisation's rows, after its erasure was ordered",
    "erase_account": "the bound organisation's member; an account that others have too stays",
    "erase_members": "the bound organisation's members, after its erasure was ordered",
    "memories_by_words": "ids of the bound organisation's rows the bound user may see",
    "memories_by_facets": "ids of the bound organisation's rows the bound user may see",
}
"""Functions that run with their owner's rights, each judged: why a tenant learns nothing of another by it."""
PLATFORM_TABLES = {"schema_version", "users"}
"""No organisation's own: the version, and accounts, which may belong to several organisations."""


@pytest.fixture
async def victim(db: Database) -> tuple[Principal, Stored]:
    """An organisation with something in every table."""
    caller = await new_principal(db)
    return caller, await store_everything(db, caller, "secret")


@pytest.fixture
async def attacker(db: Database) -> Principal:
    """The owner of another one, which has keys, so that its transactions can be opened."""
    caller = await new_principal(db)
    await db.known(caller.org_id)
    return caller


def _tables(url: str, *, partitions: bool = False) -> list[str]:
    """Tables of the schema, with the column that names the organisation."""
    with psycopg.connect(url) as conn:
        rows = conn.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')"
            " AND relispartition = %s ORDER BY relname",
            [partitions],
        ).fetchall()
    return [row[0] for row in rows]


def _tenant_column(table: str) -> str:
    return "id" if table == "organisations" else "org_id"


async def _try(db: Database, caller: Principal, statement: sql.SQL | sql.Composed, *values: Any) -> int | None:
    """Rows a statement of the caller touched; None when it was refused. Nothing of it is kept."""
    try:
        async with db.tenant(caller, sees_all=True) as conn:
            cursor = await conn.execute(statement, list(values))
            count: int = cursor.rowcount
            raise _Undo
    except _Undo:
        return count
    except psycopg.errors.InsufficientPrivilege:
        return None


class _Undo(Exception):
    """Rolls a transaction back."""


async def test_the_victim_has_rows_in_every_table(
    migrated: Migrated, db: Database, victim: tuple[Principal, Stored]
) -> None:
    """Or the tests below would prove nothing; a new table must be filled by tests/everything_stored.py."""
    caller, _ = victim
    empty = []
    with psycopg.connect(migrated.owner_url) as conn:
        for table in set(_tables(migrated.owner_url)) - PLATFORM_TABLES:
            query = sql.SQL("SELECT count(*) FROM {} WHERE {} = %s").format(
                sql.Identifier(table), sql.Identifier(_tenant_column(table))
            )
            if conn.execute(query, [caller.org_id]).fetchone() == (0,):
                empty.append(table)
    assert empty == []


async def test_no_statement_reaches_another_tenants_rows(
    migrated: Migrated, db: Database, victim: tuple[Principal, Stored], attacker: Principal
) -> None:
    """SELECT, UPDATE, DELETE and COPY on every table, naming the victim: no row, or refused."""
    target, _ = victim
    for table in set(_tables(migrated.owner_url)) - {"schema_version"}:
        name, column = sql.Identifier(table), sql.Identifier(_tenant_column(table))
        if table == "users":
            column = sql.Identifier("id")
        theirs = target.user_id if table == "users" else target.org_id
        own = attacker.user_id if table == "users" else attacker.org_id
        select = await _try(db, attacker, sql.SQL("SELECT * FROM {} WHERE {} = %s").format(name, column), theirs)
        delete = await _try(db, attacker, sql.SQL("DELETE FROM {} WHERE {} = %s").format(name, column), theirs)
        update = await _try(
            db, attacker, sql.SQL("UPDATE {} SET {} = %s WHERE {} = %s").format(name, column, column), own, theirs
        )
        assert select == 0, table
        assert delete in (0, None), table
        assert update in (0, None), table
        assert not await _copied(db, attacker, table, str(theirs)), table


async def _copied(db: Database, caller: Principal, table: str, needle: str) -> bool:
    """Whether COPY of a whole table shows the needle."""
    copy = sql.SQL("COPY (SELECT * FROM {}) TO STDOUT").format(sql.Identifier(table))
    parts = []
    async with db.tenant(caller, sees_all=True) as conn, conn.cursor().copy(copy) as rows:
        async for row in rows:
            parts.append(bytes(row).decode())
    return needle in "".join(parts)


async def test_no_row_can_be_written_into_another_tenant(
    migrated: Migrated, db: Database, victim: tuple[Principal, Stored], attacker: Principal
) -> None:
    """INSERT of copies of the victim's own rows, and moving the attacker's own rows there, on every table."""
    target, _ = victim
    await store_everything(db, attacker, "bait")
    for table in set(_tables(migrated.owner_url)) - PLATFORM_TABLES:
        name, column = sql.Identifier(table), sql.Identifier(_tenant_column(table))
        with psycopg.connect(migrated.owner_url) as conn:
            (row,) = conn.execute(
                sql.SQL("SELECT to_jsonb(t)::text FROM {} t WHERE {} = %s LIMIT 1").format(name, column),
                [target.org_id],
            ).fetchone() or ("",)
        insert = sql.SQL(
            "INSERT INTO {} SELECT * FROM jsonb_populate_record(NULL::{}, %s::jsonb) ON CONFLICT DO NOTHING"
        ).format(name, name)
        assert await _try(db, attacker, insert, row) is None, table
        move = sql.SQL("UPDATE {} SET {} = %s").format(name, column)
        assert await _try(db, attacker, move, target.org_id) is None, table


async def test_no_partition_is_reached_by_its_name(
    migrated: Migrated, db: Database, victim: tuple[Principal, Stored], attacker: Principal
) -> None:
    """Refused, for reading and for writing."""
    partitions = _tables(migrated.owner_url, partitions=True)
    assert len(partitions) >= 64
    for table in partitions:
        for statement in ("SELECT * FROM {}", "DELETE FROM {}", "UPDATE {} SET org_id = org_id", "TRUNCATE {}"):
            refused = await _try(db, attacker, sql.SQL(statement).format(sql.Identifier(table)))
            assert refused is None, (table, statement)


async def test_functions_with_their_owners_rights_are_known_and_tell_nothing(
    migrated: Migrated, db: Database, victim: tuple[Principal, Stored], attacker: Principal
) -> None:
    """A new one must be judged here; none is open to everybody, each has a search_path of its own."""
    with psycopg.connect(migrated.owner_url) as conn:
        found = conn.execute(
            "SELECT proname, coalesce(array_to_string(proconfig, ','), ''), has_function_privilege('public', oid,"
            " 'EXECUTE') FROM pg_proc WHERE pronamespace IN ('public'::regnamespace, 'queue'::regnamespace)"
            " AND prosecdef"
        ).fetchall()
    assert {name for name, _, _ in found} <= DEFINERS.keys()
    for name, config, public in found:
        assert "search_path=public, pg_temp" in config, name
        assert not public, name
    target, _ = victim
    async with db.tenant(attacker) as conn:
        for call in (
            "organisations_with_tasks_before(now() + interval '1 day')",
            "organisations_with_expired_memories()",
            "organisations_with_lost_llm_calls()",
            "organisations_with_unfinished_chats(now() + interval '1 day')",
            "organisations_with_expired_files()",
            "organisations_with_stale_voices()",
            "organisations_with_batches_before(now() + interval '1 day')",
            "organisations_with_keys()",
            "erasures_of_all(1000)",
            "exports_made_before(now() + interval '1 day')",
        ):
            rows = await (await conn.execute(f"SELECT * FROM {call}")).fetchall()
            assert "secret" not in str(rows)
            assert not {"wrapped", "sealed"} & set(rows[0] if rows else ())
        rows = await (await conn.execute("SELECT * FROM rows_of_organisation()")).fetchall()
        assert sum(row["row_count"] for row in rows) <= 5  # its own organisation, keys and membership
        rows = await (await conn.execute("SELECT * FROM rows_of_user(%s)", [target.user_id])).fetchall()
        assert not any(row["row_count"] for row in rows)
        for call in ("erase_ledgers(1000)", "erase_members()", f"erase_account('{target.user_id}')"):
            assert await (await conn.execute(f"SELECT {call} AS n")).fetchone() == {"n": 0}


async def test_a_key_row_cannot_be_swapped_for_the_attackers_own(
    db: Database, victim: tuple[Principal, Stored], attacker: Principal
) -> None:
    """Wrapped keys are bound to their organisation: under another's name they do not unwrap."""
    target, _ = victim
    async with db.tenant(target) as conn:
        row = await (await conn.execute("SELECT wrapped FROM tenant_keys")).fetchone() or {}
    with pytest.raises(Exception, match="master key"):
        KEYS.cipher(bytes(row["wrapped"]), f"tenant_keys/{attacker.org_id}")


@pytest.fixture
async def single(migrated: Migrated, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Database]:
    """A pool of one connection, so that every transaction reuses it."""
    database = Database(migrated.app_url, max_size=2, keys=KEYS)
    monkeypatch.setattr(database.pool, "_min_size", 1)
    monkeypatch.setattr(database.pool, "_max_size", 1)
    monkeypatch.setattr(database.pool, "_nconns", 1)
    monkeypatch.setattr(database.pool, "timeout", 60.0)  # for forty callers, one after the other, on a busy machine
    await database.open()
    yield database
    await database.close()


async def test_one_connection_shared_by_many_never_mixes_tenants(single: Database) -> None:
    """Forty callers of eight tenants at once over a single connection, some of whose transactions break or are
    cancelled: each sees its own rows and can open them."""
    callers = [await new_principal(single) for _ in range(8)]
    for caller in callers:
        async with single.tenant(caller) as conn:
            await _say(conn, caller, caller.username)
    backends = set()

    async def one(number: int) -> None:
        caller = callers[number % len(callers)]
        try:
            async with single.tenant(caller) as conn:
                cursor = await conn.execute("SELECT pg_backend_pid() AS pid, org_id, sealed, id FROM recordings")
                rows = await cursor.fetchall()
                assert [row["org_id"] for row in rows] == [caller.org_id]
                backends.add(rows[0]["pid"])
                await asyncio.sleep(0)
                opened = conn.vault.open(rows[0]["sealed"], f"recordings/{rows[0]['id']}")
                assert opened == {"title": caller.username}
                if number % 5 == 1:
                    raise _Undo
                if number % 5 == 2:
                    await asyncio.sleep(60)
        except _Undo:
            pass

    tasks = [asyncio.create_task(one(number)) for number in range(40)]
    slow = [task for number, task in enumerate(tasks) if number % 5 == 2]
    while any(not task.done() for task in tasks):
        await asyncio.sleep(0.02)
        for task in slow:
            task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [o for o in outcomes if isinstance(o, BaseException) and not isinstance(o, asyncio.CancelledError)] == []
    assert len(backends) <= 1 + len(slow)  # a cancelled statement may cost the connection
    async with single.unbound() as conn:
        assert not await (await conn.execute("SELECT 1 FROM recordings")).fetchone()
        with pytest.raises(RuntimeError):
            _ = conn.vault


async def test_what_only_reads_ends_with_its_pipeline(single: Database) -> None:
    """Two organisations' searches over a single connection, one of which fails: each sees its own, nothing stays."""
    ann, bob = await new_principal(single), await new_principal(single)
    for caller in (ann, bob):
        async with single.tenant(caller) as conn:
            await _say(conn, caller, caller.username)

    async def seen(caller: Principal) -> list[object]:
        async with single.reading(caller) as conn:
            rows = await conn.execute("SELECT org_id FROM recordings")
            more = await conn.execute("SELECT org_id FROM recordings")
        return [row["org_id"] for row in (*await rows.fetchall(), *await more.fetchall())]

    async def broken(caller: Principal) -> None:
        async with single.reading(caller) as conn:
            await conn.execute("SELECT 1 / 0")
            await conn.execute("SELECT org_id FROM recordings")

    for _ in range(2):
        assert await asyncio.gather(*(seen(caller) for caller in (ann, bob, ann))) == [
            [caller.org_id] * 2 for caller in (ann, bob, ann)
        ]
        with pytest.raises(InvalidInput):
            await broken(ann)
        async with single.unbound() as conn:
            assert await (await conn.execute("SELECT 1 FROM recordings")).fetchone() is None
    async with single.tenant(bob) as conn:
        assert (await conn.execute("UPDATE recordings SET bytes = 2")).rowcount == 1


async def test_what_only_reads_cannot_write(single: Database) -> None:
    """A statement that would is refused, and nothing of it stays."""
    caller = await new_principal(single)
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        async with single.reading(caller) as conn:
            await _say(conn, caller, "never")
    async with single.tenant(caller) as conn:
        assert await (await conn.execute("SELECT 1 FROM recordings")).fetchone() is None


async def _say(conn: Connection, caller: Principal, title: str) -> None:
    await conn.execute(
        "INSERT INTO recordings (org_id, id, user_id, sealed, bytes, status) VALUES (%s, %s, %s, %s, 1, 'queued')",
        [
            caller.org_id,
            caller.user_id,
            caller.user_id,
            conn.vault.seal({"title": title}, f"recordings/{caller.user_id}"),
        ],
    )


async def test_citus_can_shard_every_tenant_table_by_organisation(migrated: Migrated) -> None:
    """Citus wants the distribution column in every primary key, unique index and foreign key between the tables it
    distributes, and columns of one kind: docs/operations.md, "Sharding by tenant with Citus"."""
    with psycopg.connect(migrated.owner_url) as conn:
        tables = {
            row[0]
            for row in conn.execute(
                "SELECT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'org_id'"
                " AND a.atttypid = 'uuid'::regtype AND a.attnotnull"
                " WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition"
            )
        }
        unique = conn.execute(
            "SELECT c.relname, i.indexrelid::regclass::text, array(SELECT attname::text FROM pg_attribute a"
            " WHERE a.attrelid = c.oid AND a.attnum = ANY(i.indkey::int2[])) FROM pg_index i"
            " JOIN pg_class c ON c.oid = i.indrelid WHERE i.indisunique AND c.relname = ANY(%s)",
            [list(tables)],
        ).fetchall()
        foreign = conn.execute(
            "SELECT conrelid::regclass::text, confrelid::regclass::text, conname,"
            " array(SELECT attname::text FROM pg_attribute a WHERE a.attrelid = conrelid AND a.attnum = ANY(conkey)),"
            " array(SELECT attname::text FROM pg_attribute a WHERE a.attrelid = confrelid AND a.attnum = ANY(confkey))"
            " FROM pg_constraint WHERE contype = 'f' AND conparentid = 0 AND connamespace = 'public'::regnamespace"
        ).fetchall()
    every = set(_tables(migrated.owner_url)) - PLATFORM_TABLES - {"organisations"}
    assert tables == every
    assert {table for table, _, _ in unique} == tables
    assert [index for _, index, columns in unique if "org_id" not in columns] == []
    between = [row for row in foreign if row[0] in tables and row[1] in tables]
    assert len(between) > 15
    assert [name for _, _, name, own, other in between if "org_id" not in own or "org_id" not in other] == []
    # The rest refers to tables that are replicated to every node.
    assert {row[1] for row in foreign if row[0] in tables and row[1] not in tables} <= {"organisations", "users"}
