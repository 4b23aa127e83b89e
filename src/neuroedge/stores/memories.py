"""Remembered rows: halfvec HNSW by meaning, full text by words."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from pgvector import HalfVector
from psycopg.types.json import Jsonb

from neuroedge.contract.models import Floats
from neuroedge.contract.ports import MemoryFilter, MemoryHit, NewMemory
from neuroedge.contract.principal import Principal
from neuroedge.stores.ids import new_id
from neuroedge.stores.postgres import Connection, Database

_COLUMNS = "id, content, title, tags, keywords, memory_type, metadata, recording_id, created_at"
_WHERE = (
    "org_id = %(org)s"
    " AND (%(recording)s::uuid IS NULL OR recording_id = %(recording)s)"
    " AND (%(type)s::text IS NULL OR memory_type = %(type)s)"
    " AND (%(tags)s::text[] IS NULL OR tags @> %(tags)s)"
)


async def insert(conn: Connection, *, org_id: UUID, user_id: UUID, items: Sequence[NewMemory]) -> list[UUID]:
    """Store rows; ids in the order given."""
    ids = [new_id() for _ in items]
    async with conn.cursor() as cursor:
        await cursor.executemany(
            "INSERT INTO memories (org_id, id, user_id, recording_id, segment_id, memory_type, title, content, tags,"
            " keywords, metadata, embedding_model, embedding)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            [
                (
                    org_id,
                    memory_id,
                    user_id,
                    item.recording_id,
                    item.segment_id,
                    item.memory_type,
                    item.title,
                    item.content,
                    list(item.tags),
                    list(item.keywords),
                    Jsonb(dict(item.metadata)),
                    item.embedding_model,
                    HalfVector(item.embedding),
                )
                for memory_id, item in zip(ids, items, strict=True)
            ],
        )
    return ids


async def nearest(
    conn: Connection, *, org_id: UUID, vector: Floats, model: str, limit: int, where: MemoryFilter
) -> list[MemoryHit]:
    """By cosine similarity; the iterative scan keeps filters from starving the result."""
    await conn.execute("SET LOCAL hnsw.iterative_scan = strict_order")
    cursor = await conn.execute(
        f"SELECT {_COLUMNS}, 1 - (embedding <=> %(vector)s) AS score FROM memories"
        f" WHERE {_WHERE} AND embedding_model = %(model)s ORDER BY embedding <=> %(vector)s LIMIT %(limit)s",
        {**_parameters(org_id, where), "vector": HalfVector(vector), "model": model, "limit": limit},
    )
    return [MemoryHit(**row) for row in await cursor.fetchall()]


async def matching(conn: Connection, *, org_id: UUID, query: str, limit: int, where: MemoryFilter) -> list[MemoryHit]:
    """By full-text rank of any of the query's words."""
    cursor = await conn.execute(
        # Any word may match, not all: the phrase is a question, and ranking sorts out what matters.
        "WITH q AS (SELECT replace(plainto_tsquery('english', %(query)s)::text, ' & ', ' | ')::tsquery AS q)"
        f" SELECT {_COLUMNS}, ts_rank_cd(words, q.q, 1)::float8 AS score FROM memories, q"
        f" WHERE {_WHERE} AND words @@ q.q ORDER BY score DESC, id LIMIT %(limit)s",
        {**_parameters(org_id, where), "query": query, "limit": limit},
    )
    return [MemoryHit(**row) for row in await cursor.fetchall()]


def _parameters(org_id: UUID, where: MemoryFilter) -> dict[str, Any]:
    return {
        "org": org_id,
        "recording": where.recording_id,
        "type": where.memory_type,
        "tags": None if where.tags is None else list(where.tags),
    }


class TenantMemories:
    """The Memories port over one caller's rows."""

    def __init__(self, db: Database, principal: Principal) -> None:
        self._db = db
        self._principal = principal

    async def add(self, items: Sequence[NewMemory]) -> list[UUID]:
        """Store all or none."""
        async with self._db.tenant(self._principal) as conn:
            return await insert(conn, org_id=self._principal.org_id, user_id=self._principal.user_id, items=items)

    async def nearest(
        self, vector: Floats, *, model: str, limit: int, where: MemoryFilter = MemoryFilter()
    ) -> list[MemoryHit]:
        """By cosine similarity."""
        async with self._db.tenant(self._principal) as conn:
            return await nearest(
                conn, org_id=self._principal.org_id, vector=vector, model=model, limit=limit, where=where
            )

    async def matching(self, query: str, *, limit: int, where: MemoryFilter = MemoryFilter()) -> list[MemoryHit]:
        """By full-text rank."""
        async with self._db.tenant(self._principal) as conn:
            return await matching(conn, org_id=self._principal.org_id, query=query, limit=limit, where=where)
