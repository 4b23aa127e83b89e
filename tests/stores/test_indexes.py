"""Changing the kind of the index while searches go on: complete, resumable, one at a time."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from psycopg import AsyncConnection

from neuroedge.contract.errors import Conflict, Unavailable
from neuroedge.contract.ports import MemoryFilter
from neuroedge.infra.queue import JobQueue
from neuroedge.services.index import BUILD_TASK, MemoryIndex
from neuroedge.stores import indexes
from neuroedge.stores.ids import new_id
from neuroedge.stores.indexes import DIMENSIONS, KINDS, Kind
from neuroedge.stores.postgres import Database
from neuroedge.stores.tenant_memories import TenantMemories
from tests.stores.conftest import Migrated, new_principal
from tests.stores.test_memory_search import MODEL, _fill, unit

pytestmark = pytest.mark.anyio


@pytest.fixture
async def owner(migrated: Migrated) -> AsyncIterator[AsyncConnection[Any]]:
    """As the owner; leaves the default kind behind."""
    async with await indexes.connect(migrated.owner_url) as conn:
        yield conn
        for dim in DIMENSIONS:
            if await indexes.kind_of(conn, dim) != "hnsw":
                await indexes.build(conn, dim, "hnsw")
            await indexes.drop_others(conn, dim, "hnsw")


@pytest.fixture
async def service(db: Database, migrated: Migrated) -> MemoryIndex:
    """Without the time other processes need to learn of a change."""
    queue = JobQueue(db.pool)
    await queue.open()
    queue.app.task(name=BUILD_TASK)(_unused)
    return MemoryIndex(db=db, owner_url=migrated.owner_url, queue=queue, known_s=0)


async def _unused(**_: Any) -> None:
    """Jobs are queued here, not run."""


async def _present(owner: AsyncConnection[Any]) -> list[tuple[str, bool]]:
    cursor = await owner.execute(
        "SELECT c.relname AS name, i.indisvalid AS valid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
        " JOIN pg_class t ON t.oid = i.indrelid WHERE t.relname LIKE 'memory_vectors_%' AND NOT i.indisprimary"
    )
    return [(row["name"], row["valid"]) for row in await cursor.fetchall()]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "hnsw"])
async def test_another_kind_takes_over(
    db: Database, migrated: Migrated, owner: AsyncConnection[Any], service: MemoryIndex, kind: Kind
) -> None:
    """Rows are found as before, the old index is gone, nothing invalid is left."""
    caller = await new_principal(db)
    await _fill(db, caller, 50)
    await service.build(kind, build_id=new_id())
    standing = await service.standing()
    assert (standing.kind, standing.building, standing.done) == (kind, None, standing.total)
    present = await _present(owner)
    assert len(present) == len(DIMENSIONS) * 17
    assert all(valid for _, valid in present)
    fresh = Database(migrated.app_url, max_size=4, keys=db._keys)
    await fresh.open()
    assert await fresh.index_kind(384) == kind
    found = await TenantMemories(fresh, caller).search(
        query="", vector=unit(30), model=MODEL, limit=3, where=MemoryFilter()
    )
    await fresh.close()
    assert found.rows[found.dense[0].id].content.startswith("row number30 ")


async def test_a_build_cut_off_goes_on(owner: AsyncConnection[Any], service: MemoryIndex) -> None:
    """What was attached is kept, what was left half built is dropped."""
    method = "ivfflat (embedding halfvec_cosine_ops)"
    await owner.execute(f"CREATE INDEX memory_vectors_384_ivfflat ON ONLY memory_vectors_384 USING {method}")
    for n in (0, 1):
        await owner.execute(f"CREATE INDEX memory_vectors_384_p{n}_ivfflat ON memory_vectors_384_p{n} USING {method}")
    await owner.execute("ALTER INDEX memory_vectors_384_ivfflat ATTACH PARTITION memory_vectors_384_p0_ivfflat")
    await owner.execute(
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'memory_vectors_384_p1_ivfflat'::regclass"
    )
    standing = await service.standing()
    assert (standing.kind, standing.building, standing.done) == ("hnsw", "ivfflat", 1)
    kept = (await indexes.attached(owner, 384, "ivfflat"))["memory_vectors_384_p0"]
    oid = await (await owner.execute("SELECT %s::regclass::oid AS oid", [kept])).fetchone()
    await service.build("ivfflat", build_id=new_id())
    assert (await service.standing()).kind == "ivfflat"
    assert await (await owner.execute("SELECT %s::regclass::oid AS oid", [kept])).fetchone() == oid
    assert all(valid for _, valid in await _present(owner))


async def test_the_present_kind_is_built_anew_once_a_build(owner: AsyncConnection[Any], service: MemoryIndex) -> None:
    """A second run of one build has nothing to do; another build has."""

    async def file() -> Any:
        cursor = await owner.execute(
            "SELECT relfilenode FROM pg_class WHERE relname = %s",
            [(await indexes.attached(owner, 384, "hnsw"))["memory_vectors_384_p3"]],
        )
        return await cursor.fetchone()

    before, build_id = await file(), new_id()
    await service.build("hnsw", build_id=build_id)
    first = await file()
    await service.build("hnsw", build_id=build_id)
    assert (first != before, await file()) == (True, first)
    await service.build("hnsw", build_id=new_id())
    assert await file() != first


async def test_one_build_at_a_time(owner: AsyncConnection[Any], service: MemoryIndex) -> None:
    """A second order is told so; after the first it is taken."""
    assert await indexes.begin(owner)
    with pytest.raises(Conflict):
        await service.order("ivfflat")
    with pytest.raises(Conflict):
        await service.build("ivfflat", build_id=new_id())
    await owner.execute("SELECT pg_advisory_unlock_all()")
    assert (await service.order("hnsw")).kind == "hnsw"


async def test_a_server_that_is_away_is_said_to_be(db: Database, service: MemoryIndex) -> None:
    """Without the connection string."""
    away = MemoryIndex(db=db, owner_url="postgresql://u:geheim@127.0.0.1:1/x", queue=service._queue)
    with pytest.raises(Unavailable) as caught:
        await away.standing()
    assert "geheim" not in str(caught.value)
