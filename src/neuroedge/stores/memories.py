"""Remembered rows: sealed content, halfvec HNSW by meaning, BM25 over keyed hashes by words.

Every query names org_id: partitions are chosen by it, and row level security holds it to the caller's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import numpy as np
from cachetools import TTLCache
from pgvector import HalfVector
from psycopg import AsyncCursor
from psycopg.rows import DictRow

from neuroedge.contract.errors import InvalidInput
from neuroedge.contract.models import Floats
from neuroedge.contract.ports import Found, Memory, MemoryFilter, MemoryHit, NewMemory
from neuroedge.contract.principal import Principal
from neuroedge.contract.vault import Cipher
from neuroedge.kit.bm25 import idf
from neuroedge.stores import sealing
from neuroedge.stores.ids import new_id
from neuroedge.stores.indexes import OVER_FETCH, PROBES, Kind
from neuroedge.stores.postgres import Connection, Database

DIMENSIONS: Final = (384, 768, 1024)
"""Sizes of embeddings that have a table."""
CANDIDATES: Final = 2000
"""Rows that the rarest of a query's words should at least bring; commoner words then only add to their scores."""
MIN_EF_SEARCH: Final = 80
EXACT: Final = 2000
"""Rows with the facets asked for that are compared one by one; more are found through the index by meaning."""
Rows = AsyncCursor[DictRow]
_COMMON_FACETS: Final[TTLCache[tuple[int | UUID, ...], bool]] = TTLCache(4096, ttl=600)
"""Facets that more rows have: to count them again would take longer than the search. Only speed depends on it."""
_SCALARS: Final = (
    "id, user_id, recording_id, document_id, position, memory_type, visibility, importance, occurred_at, expires_at,"
    " created_at, updated_at, sealed"
)


async def insert(
    conn: Connection, *, org_id: UUID, user_id: UUID, items: Sequence[NewMemory], ids: Sequence[UUID] | None = None
) -> list[UUID]:
    """Store rows; their ids in the order given, new ones unless `ids` names them."""
    if not items:
        return []
    ids = [new_id() for _ in items] if ids is None else list(ids)
    words = sealing.Words.of([_searched(item.title, item.content) for item in items], conn.vault)
    average = await _grow_corpus(conn, org_id, documents=len(items), words=words.total())
    division_id = await division_of(conn, org_id, user_id) if any(i.visibility == "division" for i in items) else None
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


async def find(conn: Connection, *, org_id: UUID, ids: Sequence[UUID], lock: bool = False) -> list[Memory]:
    """Those of these rows the caller may see, in the order given; `lock` holds them until the transaction ends."""
    cursor = await conn.execute(
        # Locked in one order by everybody, so that nobody waits for one another.
        f"SELECT {_SCALARS} FROM memories WHERE org_id = %s AND id = ANY(%s)"
        + (" ORDER BY id FOR UPDATE" if lock else ""),
        [org_id, list(ids)],
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
    if not await rewrite(conn, org_id=org_id, memory_id=memory_id, item=item):
        return False
    for dim in DIMENSIONS:
        await conn.execute(f"DELETE FROM {_table(dim)} WHERE org_id = %s AND memory_id = %s", [org_id, memory_id])
    await add_vectors(conn, org_id=org_id, vectors=[(memory_id, item.embedding_model, item.embedding)])
    return True


async def rewrite(conn: Connection, *, org_id: UUID, memory_id: UUID, item: NewMemory) -> bool:
    """Give a row other words, labels and times; whether it was there. Its vectors, owner and visibility stay."""
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
    return True


async def delete(conn: Connection, *, org_id: UUID, ids: Sequence[UUID]) -> int:
    """Delete those of these rows the caller may see; how many."""
    cursor = await conn.execute("DELETE FROM memories WHERE org_id = %s AND id = ANY(%s)", [org_id, list(ids)])
    return cursor.rowcount


async def nearest(
    conn: Connection,
    *,
    org_id: UUID,
    vector: Floats,
    model: str,
    limit: int,
    where: MemoryFilter,
    kind: Kind = "hnsw",
) -> list[MemoryHit]:
    """By cosine similarity, through an index of this kind."""
    near = Near(vector=vector, model=model, limit=limit, kind=kind)
    return await _hits(conn, await _ask_nearest(conn, near, org_id=org_id, where=where))


@dataclass(frozen=True, slots=True, kw_only=True)
class Near:
    """What rows are wanted by meaning."""

    vector: Floats
    model: str
    limit: int
    kind: Kind


async def _ask_nearest(conn: Connection, near: Near, *, org_id: UUID, where: MemoryFilter) -> Rows:
    """Among few rows with the facets asked for exactly, else by the index, whose iterative scan goes on until enough
    rows pass the filter."""
    few = await _with_facets(conn, org_id, where)
    conditions, values = restricted(conn.vault, org_id, where)
    values |= {"vector": HalfVector(near.vector), "model": near.model, "limit": near.limit, "few": few}
    table, dim = _table(len(near.vector)), len(near.vector)
    by_cosine, candidates = "v.embedding <=> %(vector)s", near.limit
    joined = (
        f"FROM {table} v JOIN memories m ON m.org_id = v.org_id AND m.id = v.memory_id"
        f" WHERE v.org_id = %(org)s AND v.model = %(model)s AND {conditions}"
    )
    if few is not None:
        # Materialised twice: the index by meaning would read many rows to find few. They passed the filter already.
        first = (
            f"WITH all_few AS MATERIALIZED (SELECT v.memory_id AS found, {by_cosine} AS distance FROM {table} v"
            " WHERE v.org_id = %(org)s AND v.model = %(model)s AND v.memory_id = ANY(%(few)s::uuid[]))"
            " SELECT found, distance FROM all_few ORDER BY distance LIMIT %(limit)s"
        )
    elif near.kind == "hnsw":
        await _tune(conn, {"hnsw.iterative_scan": "strict_order", "hnsw.ef_search": _ef_search(candidates)})
        return await conn.execute(
            f"SELECT {_SCALARS}, 1 - ({by_cosine}) AS score {joined} ORDER BY {by_cosine} LIMIT %(limit)s", values
        )
    elif near.kind == "ivfflat":
        await _tune(conn, {"ivfflat.iterative_scan": "relaxed_order", "ivfflat.probes": PROBES})
        first = f"SELECT v.memory_id AS found, {by_cosine} AS distance {joined} ORDER BY {by_cosine} LIMIT %(limit)s"
    else:
        candidates = OVER_FETCH * near.limit
        await _tune(conn, {"hnsw.iterative_scan": "strict_order", "hnsw.ef_search": _ef_search(candidates)})
        first = (
            f"SELECT v.memory_id AS found, {by_cosine} AS distance {joined}"
            f" ORDER BY binary_quantize(v.embedding)::bit({dim}) <~> binary_quantize(%(vector)s::halfvec)::bit({dim})"
            " LIMIT %(candidates)s"
        )
    return await conn.execute(
        f"WITH v AS MATERIALIZED ({first}) SELECT {_SCALARS}, 1 - v.distance AS score FROM v"
        " JOIN memories m ON m.id = v.found WHERE m.org_id = %(org)s ORDER BY v.distance LIMIT %(limit)s",
        {**values, "candidates": candidates},
    )


def _ef_search(candidates: int) -> int:
    return min(1000, max(MIN_EF_SEARCH, 2 * candidates if candidates < MIN_EF_SEARCH else candidates))


async def _tune(conn: Connection, options: Mapping[str, str | int]) -> None:
    """Settings of the index, for this transaction."""
    asked = ", ".join("set_config(%s, %s, true)" for _ in options)
    await conn.execute(f"SELECT {asked}", [text for pair in options.items() for text in map(str, pair)])


async def _with_facets(conn: Connection, org_id: UUID, where: MemoryFilter) -> str | None:
    """Rows that pass a filter with facets, when the facets are so rare that all can be compared; else None.

    As PostgreSQL writes them, since they only go back to it.
    """
    wanted = _facets(conn.vault, where)
    if not wanted or (org_id, *wanted) in _COMMON_FACETS:
        return None
    cursor = await conn.execute(
        f"SELECT memories_by_facets(%(wanted)s::bigint[], %(at_most)s, {_OTHERS})::text AS ids",
        {"wanted": wanted, "at_most": EXACT, **_others(where)},
    )
    row = await cursor.fetchone()
    ids: str | None = row["ids"] if row else None
    if ids is None:
        _COMMON_FACETS[org_id, *wanted] = True
    return ids


@dataclass(frozen=True, slots=True)
class KeywordQuery:
    """A query's words as the database ranks by them."""

    weights: dict[int, float]
    essential: list[int]
    """The rarest words; a row without any of them is not looked at."""


async def matching(conn: Connection, *, org_id: UUID, query: str, limit: int, where: MemoryFilter) -> list[MemoryHit]:
    """By BM25 of the query's words, any of which may match."""
    asked = await keyword_query(conn, org_id=org_id, query=query)
    return await _hits(conn, await _ask_matching(conn, org_id=org_id, asked=asked, limit=limit, where=where))


async def _ask_matching(
    conn: Connection, *, org_id: UUID, asked: KeywordQuery, limit: int, where: MemoryFilter
) -> Rows:
    return await conn.execute(
        f"SELECT {_SCALARS}, ranked.score FROM memories_by_words(%(weights)s::sparsevec, %(essential)s::integer[],"
        f" %(wanted)s::bigint[], %(limit)s, {_OTHERS}) AS ranked (found, score)"
        " JOIN memories m ON m.org_id = %(org)s AND m.id = ranked.found ORDER BY ranked.score DESC, m.id",
        {
            "weights": sealing.sparse_text(asked.weights),
            "essential": asked.essential,
            "wanted": _facets(conn.vault, where),
            "limit": limit,
            "org": org_id,
            **_others(where),
        },
    )


async def keyword_query(conn: Connection, *, org_id: UUID, query: str) -> KeywordQuery:
    """Weigh the words by how rare they are, and choose those rare enough to start from.

    Common words alone would bring most rows of a large organisation. So the rarest words that together bring
    CANDIDATES rows choose the candidates, and all words score them (after MaxScore, Turtle & Flood 1995).
    """
    return _weighed(await (await _ask_words(conn, org_id=org_id, query=query)).fetchall())


async def _ask_words(conn: Connection, *, org_id: UUID, query: str) -> Rows:
    return await conn.execute(
        "SELECT t.term, t.documents, c.documents AS total FROM term_stats t JOIN corpus_stats c USING (org_id)"
        " WHERE t.org_id = %s AND t.term = ANY(%s) AND t.documents > 0 ORDER BY t.documents, t.term",
        [org_id, sorted(set(sealing.terms(query, conn.vault)))],
    )


def _weighed(words: Sequence[DictRow]) -> KeywordQuery:
    weights, essential, brought = dict[int, float](), list[int](), 0
    for row in words:
        weights[row["term"]] = idf(documents=row["total"], containing=row["documents"])
        if not essential or brought + row["documents"] <= CANDIDATES:
            essential.append(row["term"])
            brought += row["documents"]
    return KeywordQuery(weights, essential)


async def _hits(conn: Connection, rows: Rows) -> list[MemoryHit]:
    return [MemoryHit(score=row.pop("score"), **_opened(conn.vault, row)) for row in await rows.fetchall()]


_OTHERS: Final = "%(recording)s, %(document)s, %(type)s, %(user)s, %(since)s, %(until)s"
"""What a filter asks for besides facets, as the last arguments of memories_by_words and memories_by_facets."""


def _others(where: MemoryFilter) -> dict[str, Any]:
    return {
        "recording": where.recording_id,
        "document": where.document_id,
        "type": where.memory_type,
        "user": where.user_id,
        "since": where.since,
        "until": where.until,
    }


def _facets(cipher: Cipher, where: MemoryFilter) -> list[int]:
    return sealing.facets(cipher, tags=where.tags or (), metadata=where.metadata or {}, source=where.source)


async def cosines_of(
    conn: Connection, *, org_id: UUID, ids: Sequence[UUID], vector: Floats, model: str
) -> dict[UUID, float]:
    """Cosine similarity of those of these rows that have a vector of this model."""
    cursor = await conn.execute(
        f"SELECT memory_id, 1 - (embedding <=> %s) AS score FROM {_table(len(vector))}"
        " WHERE org_id = %s AND model = %s AND memory_id = ANY(%s)",
        [HalfVector(vector), org_id, model, list(ids)],
    )
    return {row["memory_id"]: row["score"] for row in await cursor.fetchall()}


async def bm25_of(conn: Connection, *, org_id: UUID, ids: Sequence[UUID], query: str) -> dict[UUID, float]:
    """BM25 of the query's words in these rows, 0 without any of them."""
    asked = await keyword_query(conn, org_id=org_id, query=query)
    if not asked.weights:
        return dict.fromkeys(ids, 0.0)
    cursor = await conn.execute(
        "SELECT id, -(terms <#> %s::sparsevec) AS score FROM memories WHERE org_id = %s AND id = ANY(%s)",
        [sealing.sparse_text(asked.weights), org_id, list(ids)],
    )
    return {row["id"]: row["score"] for row in await cursor.fetchall()}


def restricted(cipher: Cipher, org_id: UUID, where: MemoryFilter) -> tuple[str, dict[str, Any]]:
    """SQL conditions on a `memories m`, and their values."""
    given = {**_others(where), "facets": _facets(cipher, where) or None}
    possible = {
        "recording": "m.recording_id = %(recording)s",
        "document": "m.document_id = %(document)s",
        "type": "m.memory_type = %(type)s",
        "user": "m.user_id = %(user)s",
        "since": "m.occurred_at >= %(since)s",
        "until": "m.occurred_at < %(until)s",
        "facets": "m.facets @> %(facets)s::bigint[]",
    }
    chosen = {name: value for name, value in given.items() if value is not None}
    conditions = [
        "m.org_id = %(org)s",
        "(m.expires_at IS NULL OR m.expires_at > now())",
        *(possible[name] for name in chosen),
    ]
    return " AND ".join(conditions), {"org": org_id, **chosen}


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


async def division_of(conn: Connection, org_id: UUID, user_id: UUID) -> UUID:
    """The division of a user. Raises InvalidInput for one of none."""
    cursor = await conn.execute(
        "SELECT division_id FROM memberships WHERE org_id = %s AND user_id = %s", [org_id, user_id]
    )
    row = await cursor.fetchone()
    if row is None or row["division_id"] is None:
        raise InvalidInput("you belong to no division", hint="use visibility private or organisation")
    division_id: UUID = row["division_id"]
    return division_id


async def wait_for_writers(conn: Connection, *, org_id: UUID) -> None:
    """Be the only one who adds rows to the organisation until the transaction ends."""
    await _grow_corpus(conn, org_id, documents=0, words=0)


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
        self,
        *,
        query: str,
        vector: Floats | None,
        model: str,
        limit: int,
        where: MemoryFilter = MemoryFilter(),
        score_all: bool = False,
    ) -> Found:
        """By meaning and by words, in one transaction; statements go out together where one needs no other's rows."""
        org_id, dense = self._principal.org_id, None
        if vector is not None:
            kind = await self._db.index_kind(len(vector))
            dense = Near(vector=vector, model=model, limit=limit, kind=kind)
        async with self._db.tenant(self._principal) as conn, conn.pipeline():
            near = None if dense is None else await _ask_nearest(conn, dense, org_id=org_id, where=where)
            asked = await keyword_query(conn, org_id=org_id, query=query)
            worded = None
            if asked.essential:
                worded = await _ask_matching(conn, org_id=org_id, asked=asked, limit=limit, where=where)
            return Found(
                dense=[] if near is None else await _hits(conn, near),
                keyword=[] if worded is None else await _hits(conn, worded),
            )

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
