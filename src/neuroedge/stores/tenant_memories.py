"""The Memories port: what one caller may see of what is remembered."""

from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

import numpy as np

from neuroedge.contract.models import Floats
from neuroedge.contract.ports import Found, MemoryFilter, NewMemory, Scored
from neuroedge.contract.principal import Principal
from neuroedge.kit.fusion import reciprocal_rank_fusion
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
        keep: int | None = None,
    ) -> Found:
        """By meaning and by words, in one transaction; statements go out together where one needs no other's rows."""
        org_id, dense = self._principal.org_id, None
        if vector is not None:
            kind = await self._db.index_kind(len(vector))
            dense = memory_search.Near(vector=vector, model=model, limit=limit, kind=kind)
        # The words' counts come first: while the index by meaning is searched, they are weighed and sent back.
        async with self._db.tenant(self._principal, pipelined=True) as conn:
            words = await memory_search.ask_words(conn, org_id=org_id, query=query)
            near = None if dense is None else await memory_search.ask_nearest(conn, dense, org_id=org_id, where=where)
            asked = await memory_search.weighed(words)
            worded = (
                await memory_search.ask_matching(conn, asked=asked, limit=limit, where=where)
                if asked.essential
                else None
            )
            found = Found(
                dense=[] if near is None else await memory_search.scores_of(near),
                keyword=[] if worded is None else await memory_search.scores_of(worded),
                related=await self._about(conn, names, limit=limit, where=where),
            )
            ids = _first(found, keep)
            if score_all:
                found = replace(
                    found,
                    bm25=await memory_search.bm25_of(conn, org_id=org_id, ids=ids, asked=asked),
                    cosines={}
                    if vector is None
                    else await memory_search.cosines_of(conn, org_id=org_id, ids=ids, vector=vector, model=model),
                )
            rows = await memories.find(conn, org_id=org_id, ids=ids)
        return replace(found, rows={row.id: row for row in rows})

    async def _about(self, conn: Connection, names: Sequence[str], *, limit: int, where: MemoryFilter) -> list[Scored]:
        """What mentions things of these names, or things said to be connected with them; score 1 / rank."""
        if not names:
            return []
        ids = await knowledge_walks.memories_about(
            conn, org_id=self._principal.org_id, names=names, limit=limit, where=where
        )
        return [Scored(found, 1 / rank) for rank, found in enumerate(ids, start=1)]

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


def _first(found: Found, keep: int | None) -> list[UUID]:
    """The ids that come first when all searches are fused; all of them without a limit."""
    rankings = {"dense": found.dense, "keyword": found.keyword, "related": found.related}
    fused = reciprocal_rank_fusion({name: [hit.id for hit in hits] for name, hits in rankings.items()})
    return [item.id for item in fused[:keep]]
