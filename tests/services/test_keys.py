"""Rotating and rewrapping keys over a real database, with two processes that each remember the keys for a while."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import psycopg
import pytest

from neuroedge.contract.errors import NotFound, SealBroken, Unavailable, VaultLocked
from neuroedge.contract.ports import MemoryFilter
from neuroedge.contract.principal import Principal
from neuroedge.infra.queue import JobQueue
from neuroedge.infra.vault import Vault, new_master_key
from neuroedge.services.keys import KeyCare
from neuroedge.stores import key_rotation, memories, postgres, recordings, resealing, schema, tasks
from neuroedge.stores.postgres import Database
from tests.everything_stored import store_everything
from tests.stores.conftest import KEYS, Migrated, new_principal

pytestmark = pytest.mark.anyio
KEPT_S = 0.2
SETTLED_S = 0.4


@pytest.fixture(autouse=True)
def _kept_briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes read keys again soon."""
    monkeypatch.setattr(postgres, "TENANT_KEPT_S", KEPT_S)


@pytest.fixture
async def other(migrated: Migrated) -> AsyncIterator[Database]:
    """Another process's view of the same database."""
    database = Database(migrated.app_url, max_size=4, keys=KEYS)
    await database.open()
    yield database
    await database.close()


async def _care(db: Database, *, keys: Vault = KEYS) -> KeyCare:
    queue = JobQueue(db.pool)
    await queue.open()
    queue.app.task(name="rotate_keys")(lambda: None)
    return KeyCare(db=db, keys=keys, queue=queue, settled_s=SETTLED_S)


async def _standing(care: KeyCare, caller: Principal) -> key_rotation.Standing:
    return next(standing for standing in await care.standings() if standing.org_id == caller.org_id)


async def _nothing() -> None:
    pass


async def _to_the_end(
    care: KeyCare, caller: Principal, meanwhile: Callable[[], Awaitable[None]] = _nothing
) -> list[Any]:
    """What the worker does, each queued run at its time; the steps it saw. After each of them `meanwhile` happens."""
    await care.rotate(caller.org_id, operator=None, request_id="r")
    seen = []
    while (rotation := (await _standing(care, caller)).rotation) is not None:
        seen.append(rotation)
        await care.run(caller.org_id, request_id="r")
        await asyncio.sleep(SETTLED_S / 2)
        await meanwhile()
    return seen


async def _texts(db: Database, caller: Principal) -> list[str]:
    async with db.tenant(caller) as conn:
        rows = await memories.recent(conn, org_id=caller.org_id, limit=99, before=None, where=MemoryFilter())
    return sorted(row.content for row in rows)


async def _prefixes(db: Database, caller: Principal) -> set[bytes]:
    found = set()
    async with db.tenant(caller, sees_all=True) as conn:
        for sealed in resealing.SEALED:
            cursor = await conn.execute(
                f"SELECT substr({sealed.column}, 1, 5) AS prefix FROM {sealed.table} WHERE org_id = %s",
                [caller.org_id],
            )
            rows = await cursor.fetchall()
            assert rows, sealed.table
            found |= {bytes(row["prefix"]) for row in rows}
    return found


async def test_a_rotation_seals_everything_anew_and_nothing_becomes_unreadable(
    migrated: Migrated, db: Database, other: Database
) -> None:
    """Two processes read and write all the while; at the end one key is left and every row is sealed with it."""
    caller, care = await new_principal(db), await _care(db)
    stored = await store_everything(db, caller, "one")
    before = await _prefixes(db, caller)
    texts = await _texts(other, caller)
    stopped, count = asyncio.Event(), 0

    async def write_on() -> None:
        nonlocal count
        while not stopped.is_set():
            for database in (db, other):
                async with database.tenant(caller) as conn:
                    await recordings.save_step(
                        conn,
                        org_id=caller.org_id,
                        recording_id=stored.recording_id,
                        step="analyse",
                        output={"n": count},
                        seconds=1,
                    )
                    assert (await recordings.steps(conn, stored.recording_id))["analyse"] == {"n": count}
                assert await _texts(database, caller) == texts
                count += 1
            await asyncio.sleep(0.02)

    async def written() -> None:
        until = count + 4
        while count < until and not writer.done():  # noqa: ASYNC110 - a number tells nobody
            await asyncio.sleep(0.01)

    writer = asyncio.create_task(write_on())
    seen = await _to_the_end(care, caller, written)
    stopped.set()
    await writer
    assert count > 10
    assert list(dict.fromkeys(seen)) == ["requested", "added", "promoted"]
    after = await _prefixes(db, caller)
    assert len(before) == len(after) == 1
    assert before != after
    fresh = Database(migrated.app_url, max_size=4, keys=KEYS)
    await fresh.open()
    try:
        assert await _texts(fresh, caller) == texts
        async with fresh.tenant(caller) as conn:
            assert (await tasks.result(conn, stored.task_id)).data == b'"one"'
            row = await (await conn.execute("SELECT count(*) AS n FROM audit WHERE action = 'keys.rotated'")).fetchone()
            assert row == {"n": 1}
    finally:
        await fresh.close()


async def test_a_retired_key_opens_nothing_any_more(db: Database) -> None:
    """A value of before the rotation, as an old dump has it, does not open with the present keys."""
    caller, care = await new_principal(db), await _care(db)
    await store_everything(db, caller, "one")
    async with db.tenant(caller) as conn:
        old = conn.vault.seal("old", "somewhere")
    await _to_the_end(care, caller)
    async with db.tenant(caller) as conn:
        with pytest.raises(SealBroken):
            conn.vault.open(old, "somewhere")


async def test_a_rotation_cut_off_while_sealing_goes_on_where_it_was(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Progress tells how much is done; the older key is kept until nothing needs it."""
    caller, care = await new_principal(db), await _care(db)
    await store_everything(db, caller, "one")
    texts = await _texts(db, caller)
    await care.rotate(caller.org_id, operator=None, request_id="r")
    await care.run(caller.org_id, request_id="r")
    await asyncio.sleep(SETTLED_S)
    await care.run(caller.org_id, request_id="r")
    await asyncio.sleep(SETTLED_S)
    whole = resealing.SEALED
    with monkeypatch.context() as broken:
        broken.setattr(resealing, "SEALED", (whole[0], resealing.SealedColumn(table="nothing", context=str)))
        with pytest.raises(psycopg.errors.UndefinedTable):
            await care.run(caller.org_id, request_id="r")
    standing = await _standing(care, caller)
    assert standing.rotation == "promoted"
    assert await _texts(db, caller) == texts
    await care.run(caller.org_id, request_id="r")
    assert (await _standing(care, caller)).rotation is None
    assert len(await _prefixes(db, caller)) == 1


async def test_an_older_key_outlives_the_longest_transaction_that_began_with_it(db: Database, other: Database) -> None:
    """What another process seals with the older key and commits late is sealed anew before that key goes."""
    caller, care = await new_principal(db), await _care(db)
    stored = await store_everything(db, caller, "one")
    async with other.tenant(caller) as late:
        await late.execute("SELECT 1")
        await care.rotate(caller.org_id, operator=None, request_id="r")
        for _ in range(2):
            await care.run(caller.org_id, request_id="r")
            await asyncio.sleep(SETTLED_S)
        with pytest.raises(Unavailable, match="older key"):
            await care.run(caller.org_id, request_id="r")
        await recordings.save_step(
            late, org_id=caller.org_id, recording_id=stored.recording_id, step="analyse", output="late", seconds=1
        )
    await care.run(caller.org_id, request_id="r")
    assert (await _standing(care, caller)).rotation is None
    async with db.tenant(caller) as conn:
        assert (await recordings.steps(conn, stored.recording_id))["analyse"] == "late"
    assert len(await _prefixes(db, caller)) == 1


async def test_an_unknown_organisation_cannot_be_rotated(db: Database) -> None:
    """A clear 404."""
    caller, care = await new_principal(db), await _care(db)
    with pytest.raises(NotFound):
        await care.rotate(caller.org_id, operator=None, request_id="r")  # it has stored nothing: no keys


async def test_a_wrong_master_key_is_told_at_the_start(migrated: Migrated, db: Database) -> None:
    """Not with the first request; with the former key beside it, the start succeeds."""
    await store_everything(db, await new_principal(db), "one")
    other = new_master_key()
    with pytest.raises(VaultLocked) as caught:
        schema.upgrade(migrated.owner_url, app_password=None, keys=Vault(other))
    assert "NEUROEDGE_MASTER_KEY" in (caught.value.hint or "")
    assert schema.upgrade(migrated.owner_url, app_password=None, keys=KEYS).up_to_date


async def test_another_master_key_locks_and_a_former_one_lets_rewrap(migrated: Migrated, db: Database) -> None:
    """With the new key alone content is locked, with a hint; with the old one as former all can be wrapped anew; one
    that nobody has the key of is named and left."""
    caller, lost = await new_principal(db), await new_principal(db)
    old, new = new_master_key(), new_master_key()

    async def opened(vault: Vault) -> Database:
        database = Database(migrated.app_url, max_size=4, keys=vault)
        await database.open()
        return database

    databases = [await opened(vault) for vault in (Vault(old), Vault(new), Vault(new, former=[old]))]
    first, locked, both = databases
    stranger = await opened(Vault(new_master_key()))
    try:
        await store_everything(first, caller, "one")
        await store_everything(stranger, lost, "two")
        texts = await _texts(first, caller)
        with pytest.raises(VaultLocked) as caught:
            await _texts(locked, caller)
        assert "NEUROEDGE_MASTER_KEY" in (caught.value.hint or "")
        done = await (await _care(both, keys=Vault(new, former=[old]))).rewrap()
        assert done.count >= 1
        assert lost.org_id in done.failed
        assert caller.org_id not in done.failed
        assert await _texts(locked, caller) == texts
        again = await (await _care(both, keys=Vault(new, former=[old]))).rewrap()
        assert again == done
    finally:
        for database in [*databases, stranger]:
            await database.close()
