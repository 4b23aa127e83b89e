"""The kind of index the installation searches by meaning with: changed while everything goes on."""

import asyncio
from typing import Final
from uuid import UUID

import structlog

from neuroedge.contract.errors import Conflict
from neuroedge.infra.queue import TASK_QUEUE, JobQueue
from neuroedge.stores import indexes
from neuroedge.stores.ids import new_id
from neuroedge.stores.indexes import Kind, Standing
from neuroedge.stores.postgres import TENANT_KEPT_S, Database

log = structlog.get_logger(__name__)
BUILD_TASK: Final = "build_memory_index"
_LOCK: Final = "memory_index"


class MemoryIndex:
    """The index of all organisations' vectors. `owner_url`: the role that owns the tables."""

    def __init__(self, *, db: Database, owner_url: str, queue: JobQueue, known_s: float = TENANT_KEPT_S) -> None:
        self._db = db
        self._owner_url = owner_url
        self._queue = queue
        self._known_s = known_s

    async def standing(self) -> Standing:
        """Which kind answers, and how far a build is. Raises Unavailable."""
        async with await indexes.connect(self._owner_url) as conn:
            return await indexes.standing(conn)

    async def order(self, kind: Kind) -> Standing:
        """Queue building this kind, or building it anew where it is the present one. Raises Conflict, Unavailable."""
        async with await indexes.connect(self._owner_url) as conn:
            if not await indexes.begin(conn):
                raise Conflict("an index is being built", hint="GET /v1/admin/index tells how far it is")
            found = await indexes.standing(conn)
        async with self._db.unbound() as bound:
            await self._queue.defer(
                bound,
                BUILD_TASK,
                lock=_LOCK,
                args={"kind": kind, "build_id": str(new_id())},
                queue=TASK_QUEUE,
                priority="low",
            )
        return found

    async def build(self, kind: Kind, *, build_id: UUID) -> None:
        """Build, let every process learn of it, drop the other kinds. Goes on where an earlier run was cut off."""
        async with await indexes.connect(self._owner_url) as conn:
            if not await indexes.begin(conn):
                raise Conflict("an index is being built")
            changed = False
            for dim in indexes.DIMENSIONS:
                if await indexes.kind_of(conn, dim) == kind:
                    await indexes.renew(conn, dim, kind, mark=f"built by {build_id}")
                else:
                    await indexes.build(conn, dim, kind)
                    changed = True
            if changed:
                # Until then some process searches as the old kind wants it, which only the old index makes fast.
                await asyncio.sleep(self._known_s)
            for dim in indexes.DIMENSIONS:
                await indexes.drop_others(conn, dim, kind)
        log.info("memory_index_built", kind=kind)
