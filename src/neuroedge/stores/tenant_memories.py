"""The Memories port: what one caller may see of what is remembered."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final
from uuid import UUID

import numpy as np
from cachetools import TTLCache

from neuroedge.contract.models import Floats
from neuroedge.contract.ports import Found, Memory, MemoryFilter, NewMemory, Scored
from neuroedge.contract.principal import Principal
from neuroedge.contract.vault import Cipher
from neuroedge.kit.fusion import reciprocal_rank_fusion
from neuroedge.stores import knowledge_walks, memories, memory_search
from neuroedge.stores.postgres import Connection, Database

_ALL: Final[TTLCache[tuple[UUID, UUID, str], int]] = TTLCache(4096, ttl=60)
"""How many rows there were to find without a filter, of those who have fewer than they asked for: the index that brings
as many has brought all, and they need not be compared at every search."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """What one search is for."""

    query: str
    dense: memory_search.Near | None
    limit: int
    where: MemoryFilter
    score_all: bool
    names: Sequence[str]
    keep: int | None
    every: bool = False
    """Whether all rows are compared, without the index by meaning."""


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
        dense = None
        if vector is not None:
            kind = await self._db.index_kind(len(vector))
            dense = memory_search.Near(vector=vector, model=model, limit=limit, kind=kind)
        wanted = _Wanted(
            query=query, dense=dense, limit=limit, where=where, score_all=score_all, names=names, keep=keep
        )
        found = await self._search(wanted)
        if dense is None or not memory_search.may_be_more(dense, where, len(found.dense)):
            return found
        seen_by = (self._principal.org_id, self._principal.user_id, model)
        if len(found.dense) >= _ALL.get(seen_by, limit):
            return found
        found = await self._search(replace(wanted, every=True))
        if len(found.dense) < limit:
            _ALL[seen_by] = len(found.dense)
        return found

    async def _search(self, wanted: _Wanted) -> Found:
        org_id, dense, where = self._principal.org_id, wanted.dense, wanted.where
        by_meaning = memory_search.ask_every if wanted.every else memory_search.ask_nearest
        async with self._db.reading(self._principal, options=memory_search.options(where)) as conn:
            cipher = conn.vault
            near = None if dense is None else await by_meaning(conn, dense, org_id=org_id, where=where)
            worded = await memory_search.ask_matching(
                conn, org_id=org_id, query=wanted.query, limit=wanted.limit, where=where
            )
            related = await self._about(conn, wanted.names, limit=wanted.limit, where=where)
            if related or wanted.score_all:
                found, sealed = await _fetched(near, worded)
                found = replace(found, related=related)
                ids = _first(found, wanted.keep)
                if wanted.score_all:
                    bm25 = await memory_search.bm25_of(conn, org_id=org_id, ids=ids, query=wanted.query)
                    found = replace(found, bm25=bm25)
                if wanted.score_all and dense is not None:
                    cosines = await memory_search.cosines_of(
                        conn, org_id=org_id, ids=ids, vector=dense.vector, model=dense.model
                    )
                    found = replace(found, cosines=cosines)
                others = [i for i in ids if i not in sealed]
                rows = await memories.find(conn, org_id=org_id, ids=others) if others else []
                opened = {row.id: row for row in rows} | _opened(ids, sealed, cipher)
                return replace(found, rows={i: opened[i] for i in ids if i in opened})
        found, sealed = await _fetched(near, worded)
        return replace(found, rows=_opened(_first(found, wanted.keep), sealed, cipher))

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


async def _fetched(
    near: memory_search.Rows | None, worded: memory_search.Rows | None
) -> tuple[Found, dict[UUID, dict[str, Any]]]:
    """What the searches found, and the rows, still sealed."""
    near_rows, worded_rows = [await rows.fetchall() if rows else [] for rows in (near, worded)]
    found = Found(dense=memory_search.scores(near_rows), keyword=memory_search.scores(worded_rows))
    return found, {row["id"]: row for row in (*near_rows, *worded_rows)}


def _opened(ids: Iterable[UUID], sealed: Mapping[UUID, Mapping[str, Any]], cipher: Cipher) -> dict[UUID, Memory]:
    """Those of these rows that are there."""
    chosen = [{name: value for name, value in sealed[i].items() if name != "score"} for i in ids if i in sealed]
    return {row["id"]: Memory(**memories.opened(cipher, row)) for row in chosen}


def _first(found: Found, keep: int | None) -> list[UUID]:
    """The ids that come first when all searches are fused; all of them without a limit."""
    rankings = {"dense": found.dense, "keyword": found.keyword, "related": found.related}
    fused = reciprocal_rank_fusion({name: [hit.id for hit in hits] for name, hits in rankings.items()})
    return [item.id for item in fused[:keep]]
