"""Remembered rows: sealed content, halfvec HNSW by meaning, BM25 over keyed hashes by words.

Every query names org_id: partitions are chosen by it, and row level security holds it to the caller's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import numpy as np
from pgvector import HalfVector

from neuroedge.contract.errors import InvalidInput
from neuroedge.contract.models import Floats
from neuroedge.contract.ports import Found, Memory, MemoryFilter, MemoryHit, NewMemory
from neuroedge.contract.principal import Principal
from neuroedge.contract.vault import Cipher
from neuroedge.kit.bm25 import idf
from neuroedge.stores import sealing
from neuroedge.stores.ids import new_id
from neuroedge.stores.postgres import Connection, Database

DIMENSIONS: Final = (384, 768, 1024)
"""Sizes of embeddings that have a table."""
CANDIDATES: Final = 4000
"""Rows that the rarest of a query's words should at least bring; commoner words then only add to their scores."""
MIN_EF_SEARCH: Final = 100
_SCALARS: Final = (
    "id, user_id, recording_id, document_id, position, memory_type, visibility, importance, occurred_at, expires_at,"
    " created_at, updated_at, sealed"
)


async def insert(conn: Connection, *, org_id: UUID, user_id: UUID, items: Sequence[NewMemory]) -> list[UUID]:
    """Store rows; ids in the order given."""
    if not items:
        return []
    ids = [new_id() for _ in items]
    words = sealing.Words.of([_searched(item.title, item.content) for item in items], conn.vault)
    average = await _grow_corpus(conn, org_id, documents=len(items), words=words.total())
    division_id = await _division(conn, org_id, user_id) if any(i.visibility == "division" for i in items) else None
    weights = words.weights(average_length=average)
    async with conn.cursor() as cursor:
        await cursor.executemany(
            "INSERT INTO memories (org_id, id, user_id, recording_id, segment_id, document_id, position, memory_type,"
            " visibility, division_id, importance, occurred_at, expires_at, sealed, content_mac, facets, length,"
            " term_ids, terms) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, coalesce(%s, now()), %s, %s, %s, %s,"
            " %s, %s, %s::sparsevec)",
            [
                (org_id, i, user_id, *_columns(item, division_id), *_hidden(conn.vault, i, item), *_terms(weight))
                for i, item, weight in zip(ids, items, weights, strict=True)
            ],
        )
    await _count_words(conn, org_id, words)
    await add_vectors(
        conn,
        org_id=org_id,
        vectors=[(i, item.embedding_model, item.embedding) for i, item in zip(ids, items, strict=True)],
    )
    return ids


async def add_vectors(conn: Connection, *, org_id: UUID, vectors: Sequence[tuple[UUID, str, Floats]]) -> None:
    """Store or replace embeddings: (memory, model, vector [dim])."""
    for dim in sorted({len(vector) for _, _, vector in vectors}):
        async with conn.cursor() as cursor:
            await cursor.executemany(
                f"INSERT INTO {_table(dim)} (org_id, memory_id, model, embedding) VALUES (%s, %s, %s, %s)"
                " ON CONFLICT (org_id, memory_id, model) DO UPDATE SET embedding = EXCLUDED.embedding",
                [(org_id, i, model, HalfVector(vector)) for i, model, vector in vectors if len(vector) == dim],
            )


async def find(conn: Connection, *, org_id: UUID, ids: Sequence[UUID]) -> list[Memory]:
    """Those of these rows the caller may see, in the order given."""
    cursor = await conn.execute(
        f"SELECT {_SCALARS} FROM memories WHERE org_id = %s AND id = ANY(%s)", [org_id, list(ids)]
    )
    rows = {row["id"]: row for row in await cursor.fetchall()}
    return [Memory(**_opened(conn.vault, rows[i])) for i in ids if i in rows]


async def recent(
    conn: Connection, *, org_id: UUID, limit: int, before: tuple[datetime, UUID] | None, where: MemoryFilter
) -> list[Memory]:
    """By `occurred_at`, newest first; `before` continues after the last row of the page before."""
    conditions, values = restricted(conn.vault, org_id, where)
    if before is not None:
        conditions += " AND (m.occurred_at, m.id) < (%(before_at)s, %(before_id)s)"
        values |= {"before_at": before[0], "before_id": before[1]}
    cursor = await conn.execute(
        f"SELECT {_SCALARS} FROM memories m WHERE {conditions} ORDER BY m.occurred_at DESC, m.id DESC LIMIT %(limit)s",
        {**values, "limit": limit},
    )
    return [Memory(**_opened(conn.vault, row)) for row in await cursor.fetchall()]


async def replace_content(conn: Connection, *, org_id: UUID, memory_id: UUID, item: NewMemory) -> bool:
    """Give a row another content with all that is found by it; whether it was there."""
    cursor = await conn.execute(
        "SELECT length, term_ids FROM memories WHERE org_id = %s AND id = %s FOR UPDATE", [org_id, memory_id]
    )
    old = await cursor.fetchone()
    if old is None:
        return False
    words = sealing.Words.of([_searched(item.title, item.content)], conn.vault)
    average = await _grow_corpus(conn, org_id, documents=0, words=words.total() - old["length"])
    (weight,) = words.weights(average_length=average)
    await conn.execute(
        "UPDATE memories SET memory_type = %s, importance = %s, occurred_at = coalesce(%s, occurred_at),"
        " expires_at = %s, sealed = %s, content_mac = %s, facets = %s, length = %s, term_ids = %s,"
        " terms = %s::sparsevec, updated_at = now() WHERE org_id = %s AND id = %s",
        [
            *(item.memory_type, item.importance, item.occurred_at, item.expires_at),
            *_hidden(conn.vault, memory_id, item),
            *_terms(weight),
            *(org_id, memory_id),
        ],
    )
    await conn.execute(
        "UPDATE term_stats SET documents = documents - 1 WHERE org_id = %s AND term = ANY(%s)",
        [org_id, old["term_ids"]],
    )
    await _count_words(conn, org_id, words)
    for dim in DIMENSIONS:
        await conn.execute(f"DELETE FROM {_table(dim)} WHERE org_id = %s AND memory_id = %s", [org_id, memory_id])
    await add_vectors(conn, org_id=org_id, vectors=[(memory_id, item.embedding_model, item.embedding)])
    return True


async def delete(conn: Connection, *, org_id: UUID, ids: Sequence[UUID]) -> int:
    """Delete those of these rows the caller may see; how many."""
    cursor = await conn.execute("DELETE FROM memories WHERE org_id = %s AND id = ANY(%s)", [org_id, list(ids)])
    return cursor.rowcount


async def nearest(
    conn: Connection, *, org_id: UUID, vector: Floats, model: str, limit: int, where: MemoryFilter
) -> list[MemoryHit]:
    """By cosine similarity. The iterative scan goes on until enough rows pass the filter."""
    conditions, values = restricted(conn.vault, org_id, where)
    await conn.execute(
        "SELECT set_config('hnsw.iterative_scan', 'strict_order', true), set_config('hnsw.ef_search', %s, true)",
        [str(min(1000, max(MIN_EF_SEARCH, 2 * limit)))],
    )
    cursor = await conn.execute(
        f"SELECT {_SCALARS}, 1 - (v.embedding <=> %(vector)s) AS score FROM {_table(len(vector))} v"
        " JOIN memories m ON m.org_id = v.org_id AND m.id = v.memory_id"
        f" WHERE v.org_id = %(org)s AND v.model = %(model)s AND {conditions}"
        " ORDER BY v.embedding <=> %(vector)s LIMIT %(limit)s",
        {**values, "vector": HalfVector(vector), "model": model, "limit": limit},
    )
    return [MemoryHit(score=row.pop("score"), **_opened(conn.vault, row)) for row in await cursor.fetchall()]


@dataclass(frozen=True, slots=True)
class KeywordQuery:
    """A query's words as the database ranks by them."""

    weights: dict[int, float]
    essential: list[int]
    """The rarest words; a row without any of them is not looked at."""


# NOTE of the lead to h6idx (remove when done): array operators are not leakproof, so under row level security the GIN
# indexes on term_ids and facets are NOT used (EXPLAIN as neuroedge_app). Wanted: a SECURITY DEFINER SQL function in
# migration 0007 that returns (id, score) of the current organisation's matching rows (org from current_setting, all
# filters as parameters, search_path set, REVOKE from PUBLIC), whose ids are then joined to `memories` under RLS; and for
# `nearest` with a very selective filter (few rows) an exact scan over the ids such a function gives, so that
# hnsw.max_scan_tuples never starves a result.
async def matching(conn: Connection, *, org_id: UUID, query: str, limit: int, where: MemoryFilter) -> list[MemoryHit]:
    """By BM25 of the query's words, any of which may match."""
    asked = await keyword_query(conn, org_id=org_id, query=query)
    if not asked.essential:
        return []
    conditions, values = restricted(conn.vault, org_id, where)
    cursor = await conn.execute(
        f"SELECT {_SCALARS}, ranked.score FROM (SELECT m.id AS found, -(m.terms <#> %(weights)s::sparsevec) AS score"
        f" FROM memories m WHERE {conditions} AND m.term_ids && %(essential)s::integer[]"
        " ORDER BY score DESC, m.id LIMIT %(limit)s) ranked"
        " JOIN memories m ON m.org_id = %(org)s AND m.id = ranked.found ORDER BY ranked.score DESC, m.id",
        {**values, "weights": sealing.sparse_text(asked.weights), "essential": asked.essential, "limit": limit},
    )
    return [MemoryHit(score=row.pop("score"), **_opened(conn.vault, row)) for row in await cursor.fetchall()]


async def keyword_query(conn: Connection, *, org_id: UUID, query: str) -> KeywordQuery:
    """Weigh the words by how rare they are, and choose those rare enough to start from.

    Common words alone would bring most rows of a large organisation. So the rarest words that together bring
    CANDIDATES rows choose the candidates, and all words score them (after MaxScore, Turtle & Flood 1995).
    """
    asked = sorted(set(sealing.terms(query, conn.vault)))
    cursor = await conn.execute(
        "SELECT t.term, t.documents, c.documents AS total FROM term_stats t JOIN corpus_stats c USING (org_id)"
        " WHERE t.org_id = %s AND t.term = ANY(%s) AND t.documents > 0 ORDER BY t.documents, t.term",
        [org_id, asked],
    )
    weights, essential, brought = dict[int, float](), list[int](), 0
    for row in await cursor.fetchall():
        weights[row["term"]] = idf(documents=row["total"], containing=row["documents"])
        if not essential or brought + row["documents"] <= CANDIDATES:
            essential.append(row["term"])
            brought += row["documents"]
    return KeywordQuery(weights, essential)


def restricted(cipher: Cipher, org_id: UUID, where: MemoryFilter) -> tuple[str, dict[str, Any]]:
    """SQL conditions on a `memories m`, and their values."""
    wanted = sealing.facets(cipher, tags=where.tags or (), metadata=where.metadata or {}, source=where.source)
    possible: list[tuple[str, str, Any]] = [
        ("m.recording_id = %(recording)s", "recording", where.recording_id),
        ("m.document_id = %(document)s", "document", where.document_id),
        ("m.memory_type = %(type)s", "type", where.memory_type),
        ("m.user_id = %(user)s", "user", where.user_id),
        ("m.occurred_at >= %(since)s", "since", where.since),
        ("m.occurred_at < %(until)s", "until", where.until),
        ("m.facets @> %(facets)s::bigint[]", "facets", wanted or None),
    ]
    chosen = [(condition, name, value) for condition, name, value in possible if value is not None]
    conditions = ["m.org_id = %(org)s", "(m.expires_at IS NULL OR m.expires_at > now())", *(c for c, _, _ in chosen)]
    return " AND ".join(conditions), {"org": org_id, **{name: value for _, name, value in chosen}}


def _columns(item: NewMemory, division_id: UUID | None) -> tuple[Any, ...]:
    return (
        item.recording_id,
        item.segment_id,
        item.document_id,
        item.position,
        item.memory_type,
        item.visibility,
        division_id if item.visibility == "division" else None,
        item.importance,
        item.occurred_at,
        item.expires_at,
    )


def _hidden(cipher: Cipher, memory_id: UUID, item: NewMemory) -> tuple[bytes, int, list[int]]:
    """What says something of the content: sealed, or as keyed hashes."""
    said = {
        "title": item.title,
        "content": item.content,
        "tags": list(item.tags),
        "keywords": list(item.keywords),
        "metadata": dict(item.metadata),
        "source": item.source,
    }
    return (
        cipher.seal(said, sealing.memory(memory_id)),
        sealing.content_mac(cipher, item.content),
        sealing.facets(cipher, tags=item.tags, metadata=item.metadata, source=item.source),
    )


def _terms(weights: sealing.Weights) -> tuple[int, list[int], str]:
    return weights.length, weights.term_ids, weights.text()


def _searched(title: str | None, content: str) -> str:
    return f"{title}\n{content}" if title else content


def _opened(cipher: Cipher, row: dict[str, Any]) -> dict[str, Any]:
    """A row with its content in the clear."""
    said = cipher.open(row.pop("sealed"), sealing.memory(row["id"]))
    return {**row, **said}


def _table(dim: int) -> str:
    if dim not in DIMENSIONS:
        raise InvalidInput(
            f"embeddings of {dim} dimensions cannot be stored", hint=f"use a model with one of {DIMENSIONS}"
        )
    return f"memory_vectors_{dim}"


async def _division(conn: Connection, org_id: UUID, user_id: UUID) -> UUID:
    cursor = await conn.execute(
        "SELECT division_id FROM memberships WHERE org_id = %s AND user_id = %s", [org_id, user_id]
    )
    row = await cursor.fetchone()
    if row is None or row["division_id"] is None:
        raise InvalidInput("you belong to no division", hint="use visibility private or organisation")
    division_id: UUID = row["division_id"]
    return division_id


async def _grow_corpus(conn: Connection, org_id: UUID, *, documents: int, words: int) -> float:
    """Count more rows and words; words of a row on average. Every writer does this first: they wait for each other
    here and nowhere else, so they cannot deadlock."""
    cursor = await conn.execute(
        "INSERT INTO corpus_stats AS c (org_id, documents, words) VALUES (%s, %s, %s) ON CONFLICT (org_id) DO UPDATE"
        " SET documents = c.documents + EXCLUDED.documents, words = c.words + EXCLUDED.words"
        " RETURNING documents, words",
        [org_id, documents, words],
    )
    row = await cursor.fetchone()
    return row["words"] / row["documents"] if row and row["documents"] else 0.0


async def _count_words(conn: Connection, org_id: UUID, words: sealing.Words) -> None:
    containing = sorted(words.containing().items())
    await conn.execute(
        "INSERT INTO term_stats AS t (org_id, term, documents)"
        " SELECT %s, u.term, u.documents FROM unnest(%s::integer[], %s::integer[]) AS u (term, documents)"
        " ON CONFLICT (org_id, term) DO UPDATE SET documents = t.documents + EXCLUDED.documents",
        [org_id, [term for term, _ in containing], [n for _, n in containing]],
    )


class TenantMemories:
    """The Memories port over what one caller may see."""

    def __init__(self, db: Database, principal: Principal) -> None:
        self._db = db
        self._principal = principal

    async def add(self, items: Sequence[NewMemory]) -> list[UUID]:
        """Store all or none."""
        async with self._db.tenant(self._principal) as conn:
            return await insert(conn, org_id=self._principal.org_id, user_id=self._principal.user_id, items=items)

    async def search(
        self, *, query: str, vector: Floats | None, model: str, limit: int, where: MemoryFilter = MemoryFilter()
    ) -> Found:
        """By meaning and by words, in one transaction."""
        org_id = self._principal.org_id
        async with self._db.tenant(self._principal) as conn:
            dense = (
                []
                if vector is None
                else await nearest(conn, org_id=org_id, vector=vector, model=model, limit=limit, where=where)
            )
            worded = await matching(conn, org_id=org_id, query=query, limit=limit, where=where)
        return Found(dense=dense, keyword=worded)

    async def vectors(self, ids: Sequence[UUID], *, model: str, dim: int) -> dict[UUID, Floats]:
        """Embeddings by `model` of those of these rows that have one."""
        async with self._db.tenant(self._principal) as conn:
            cursor = await conn.execute(
                f"SELECT memory_id, embedding FROM {_table(dim)} WHERE org_id = %s AND model = %s"
                " AND memory_id = ANY(%s)",
                [self._principal.org_id, model, list(ids)],
            )
            rows = await cursor.fetchall()
        return {row["memory_id"]: np.asarray(row["embedding"].to_list(), np.float32) for row in rows}

    async def embedding_model(self) -> str | None:
        """Catalogue id of the model the organisation's rows are searched with."""
        return (await self._db.known(self._principal.org_id)).embedding_model
