"""The Memories port: what one caller may see of what is remembered."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any
from uuid import UUID

import numpy as np

from neuroedge.contract.models import Floats
from neuroedge.contract.ports import Found, Memory, MemoryFilter, MemoryHit, NewMemory
from neuroedge.contract.principal import Principal
from neuroedge.stores import knowledge_walks, memories, memory_search
from neuroedge.stores.postgres import Connection, Database


class TenantMemories:
    """The Memories port over what one caller may see."""

    def __init__(self, db: Database, principal: Principal) -> None:
        self._db = db
        self._principal = principal

    async def add(self, items: Sequence[NewMemory]) -> list[UUID]:
        """Store all or none."""
        who = self._principal
        async with self._db.tenant(who) as conn:
            return await memories.insert(conn, org_id=who.org_id, user_id=who.user_id, items=items)

    async def search(
        self,
        *,
        query: str,
        vector: Floats | None,
        model: str,
        limit: int,
        where: MemoryFilter = MemoryFilter(),
        score_all: bool = False,
        names: Sequence[str] = (),
    ) -> Found:
        """By meaning and by words, in one transaction; statements go out together where one needs no other's rows."""
        org_id, dense = self._principal.org_id, None
        if vector is not None:
            kind = await self._db.index_kind(len(vector))
            dense = memory_search.Near(vector=vector, model=model, limit=limit, kind=kind)
        async with self._db.tenant(self._principal) as conn, conn.pipeline():
            near = None if dense is None else await memory_search.ask_nearest(conn, dense, org_id=org_id, where=where)
            asked = await memory_search.keyword_query(conn, org_id=org_id, query=query)
            worded = None
            if asked.essential:
                worded = await memory_search.ask_matching(conn, org_id=org_id, asked=asked, limit=limit, where=where)
            nearest = [] if near is None else await memory_search.hits_of(conn, near)
            known = {hit.id: hit for hit in nearest}
            matching = [] if worded is None else await memory_search.hits_of(conn, worded, known=known)
            related = await self._about(conn, names, limit=limit, where=where)
            if not score_all:
                return Found(dense=nearest, keyword=matching, related=related)
            ids = [hit.id for hit in (*nearest, *matching, *related)]
            bm25 = await memory_search.bm25_of(conn, org_id=org_id, ids=ids, asked=asked)
            cosines = dict[UUID, float]()
            if vector is not None:
                cosines = await memory_search.cosines_of(conn, org_id=org_id, ids=ids, vector=vector, model=model)
        return Found(dense=nearest, keyword=matching, related=related, cosines=cosines, bm25=bm25)

    async def _about(
        self, conn: Connection, names: Sequence[str], *, limit: int, where: MemoryFilter
    ) -> list[MemoryHit]:
        """What mentions things of these names, or things said to be connected with them; score 1 / rank."""
        if not names:
            return []
        org_id = self._principal.org_id
        ids = await knowledge_walks.memories_about(conn, org_id=org_id, names=names, limit=limit, where=where)
        found = await memories.find(conn, org_id=org_id, ids=ids)
        return [MemoryHit(score=1 / rank, **_fields(memory)) for rank, memory in enumerate(found, start=1)]

    async def vectors(self, ids: Sequence[UUID], *, model: str, dim: int) -> dict[UUID, Floats]:
        """Embeddings by `model` of those of these rows that have one."""
        async with self._db.tenant(self._principal) as conn:
            cursor = await conn.execute(
                f"SELECT memory_id, embedding FROM {memories.table_of(dim)} WHERE org_id = %s AND model = %s"
                " AND memory_id = ANY(%s)",
                [self._principal.org_id, model, list(ids)],
            )
            rows = await cursor.fetchall()
        return {row["memory_id"]: np.asarray(row["embedding"].to_list(), np.float32) for row in rows}

    async def embedding_model(self) -> str | None:
        """Catalogue id of the model the organisation's rows are searched with."""
        return (await self._db.known(self._principal.org_id)).embedding_model


def _fields(memory: Memory) -> dict[str, Any]:
    return {field.name: getattr(memory, field.name) for field in fields(memory)}
