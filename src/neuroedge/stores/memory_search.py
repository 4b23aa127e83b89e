"""Remembered rows found: by meaning through an index over halfvec, by words through BM25 over keyed hashes.

Statements are sent apart from reading their rows, so that a pipeline can send several at once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from cachetools import TTLCache
from pgvector import HalfVector
from psycopg import AsyncCursor
from psycopg.rows import DictRow

from neuroedge.contract.models import Floats
from neuroedge.contract.ports import MemoryFilter, Scored
from neuroedge.kit.bm25 import idf
from neuroedge.stores import sealing
from neuroedge.stores.indexes import MIN_EF_SEARCH, OVER_FETCH, PROBES, SEARCH_OPTIONS, Kind
from neuroedge.stores.memories import table_of
from neuroedge.stores.memory_filters import OTHERS, facets, others, restricted
from neuroedge.stores.postgres import Connection

CANDIDATES: Final = 500
"""Rows that the rarest of a query's words should at least bring; commoner words then only add to their scores."""
EXACT: Final = 2000
"""Rows with the facets asked for that are compared one by one; more are found through the index by meaning."""
_COMMON_FACETS: Final[TTLCache[tuple[int | UUID, ...], bool]] = TTLCache(4096, ttl=600)
"""Facets that more rows have: to count them again would take longer than the search. Only speed depends on it."""
Rows = AsyncCursor[DictRow]


async def nearest(
    conn: Connection,
    *,
    org_id: UUID,
    vector: Floats,
    model: str,
    limit: int,
    where: MemoryFilter,
    kind: Kind = "hnsw",
) -> list[Scored]:
    """By cosine similarity, through an index of this kind."""
    near = Near(vector=vector, model=model, limit=limit, kind=kind)
    return await scores_of(await ask_nearest(conn, near, org_id=org_id, where=where))


@dataclass(frozen=True, slots=True, kw_only=True)
class Near:
    """What rows are wanted by meaning."""

    vector: Floats
    model: str
    limit: int
    kind: Kind


async def ask_nearest(conn: Connection, near: Near, *, org_id: UUID, where: MemoryFilter) -> Rows:
    """Among few rows with the facets asked for exactly, else by the index, whose iterative scan goes on until enough
    rows pass the filter."""
    few = await _few_with_facets(conn, org_id, where)
    conditions, values = restricted(conn.vault, org_id, where)
    values |= {"vector": HalfVector(near.vector), "model": near.model, "limit": near.limit, "few": few}
    table, dim = table_of(len(near.vector)), len(near.vector)
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
            f"SELECT v.memory_id AS id, 1 - ({by_cosine}) AS score {joined} ORDER BY {by_cosine} LIMIT %(limit)s",
            values,
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
        f"WITH v AS MATERIALIZED ({first}) SELECT v.found AS id, 1 - v.distance AS score FROM v"
        " JOIN memories m ON m.id = v.found WHERE m.org_id = %(org)s ORDER BY v.distance LIMIT %(limit)s",
        {**values, "candidates": candidates},
    )


def _ef_search(candidates: int) -> int:
    return min(1000, max(MIN_EF_SEARCH, 2 * candidates if candidates < MIN_EF_SEARCH else candidates))


async def _tune(conn: Connection, options: Mapping[str, str | int]) -> None:
    """Settings of the index, for this transaction, where they are not those of the connection."""
    if options == SEARCH_OPTIONS:
        return
    asked = ", ".join("set_config(%s, %s, true)" for _ in options)
    await conn.execute(f"SELECT {asked}", [text for pair in options.items() for text in map(str, pair)])


async def _few_with_facets(conn: Connection, org_id: UUID, where: MemoryFilter) -> str | None:
    """Rows that pass a filter with facets, when the facets are so rare that all can be compared; else None.

    As PostgreSQL writes them, since they only go back to it.
    """
    wanted = facets(conn.vault, where)
    if not wanted or (org_id, *wanted) in _COMMON_FACETS:
        return None
    cursor = await conn.execute(
        f"SELECT memories_by_facets(%(wanted)s::bigint[], %(at_most)s, {OTHERS})::text AS ids",
        {"wanted": wanted, "at_most": EXACT, **others(where)},
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


async def matching(conn: Connection, *, org_id: UUID, query: str, limit: int, where: MemoryFilter) -> list[Scored]:
    """By BM25 of the query's words, any of which may match."""
    asked = await keyword_query(conn, org_id=org_id, query=query)
    return await scores_of(await ask_matching(conn, asked=asked, limit=limit, where=where))


async def ask_matching(conn: Connection, *, asked: KeywordQuery, limit: int, where: MemoryFilter) -> Rows:
    """Send the query for rows with these words."""
    return await conn.execute(
        "SELECT ranked.id, ranked.score FROM memories_by_words(%(weights)s::sparsevec, %(essential)s::integer[],"
        f" %(wanted)s::bigint[], %(limit)s, {OTHERS}) AS ranked (id, score) ORDER BY ranked.score DESC, ranked.id",
        {
            "weights": sealing.sparse_text(asked.weights),
            "essential": asked.essential,
            "wanted": facets(conn.vault, where),
            "limit": limit,
            **others(where),
        },
    )


async def keyword_query(conn: Connection, *, org_id: UUID, query: str) -> KeywordQuery:
    """Weigh the words by how rare they are, and choose those rare enough to start from.

    Common words alone would bring most rows of a large organisation. So the rarest words that together bring
    CANDIDATES rows choose the candidates, and all words score them (after MaxScore, Turtle & Flood 1995).
    """
    return await weighed(await ask_words(conn, org_id=org_id, query=query))


async def ask_words(conn: Connection, *, org_id: UUID, query: str) -> Rows:
    """Send the question how many rows hold each of the query's words."""
    return await conn.execute(
        "SELECT t.term, t.documents, c.documents AS total FROM term_stats t JOIN corpus_stats c USING (org_id)"
        " WHERE t.org_id = %s AND t.term = ANY(%s) AND t.documents > 0 ORDER BY t.documents, t.term",
        [org_id, sorted(set(sealing.terms(query, conn.vault)))],
    )


async def weighed(words: Rows) -> KeywordQuery:
    """The query made of the words' counts, which were asked for."""
    weights, essential, brought = dict[int, float](), list[int](), 0
    for row in await words.fetchall():
        weights[row["term"]] = idf(documents=row["total"], containing=row["documents"])
        if not essential or brought + row["documents"] <= CANDIDATES:
            essential.append(row["term"])
            brought += row["documents"]
    return KeywordQuery(weights, essential)


async def scores_of(rows: Rows) -> list[Scored]:
    """What was asked for."""
    return [Scored(row["id"], row["score"]) for row in await rows.fetchall()]


async def cosines_of(
    conn: Connection, *, org_id: UUID, ids: Sequence[UUID], vector: Floats, model: str
) -> dict[UUID, float]:
    """Cosine similarity of those of these rows that have a vector of this model."""
    cursor = await conn.execute(
        f"SELECT memory_id, 1 - (embedding <=> %s) AS score FROM {table_of(len(vector))}"
        " WHERE org_id = %s AND model = %s AND memory_id = ANY(%s)",
        [HalfVector(vector), org_id, model, list(ids)],
    )
    return {row["memory_id"]: row["score"] for row in await cursor.fetchall()}


async def bm25_of(conn: Connection, *, org_id: UUID, ids: Sequence[UUID], asked: KeywordQuery) -> dict[UUID, float]:
    """BM25 of the query's words in these rows, 0 without any of them."""
    if not asked.weights:
        return dict.fromkeys(ids, 0.0)
    cursor = await conn.execute(
        "SELECT id, -(terms <#> %s::sparsevec) AS score FROM memories WHERE org_id = %s AND id = ANY(%s)",
        [sealing.sparse_text(asked.weights), org_id, list(ids)],
    )
    return {row["id"]: row["score"] for row in await cursor.fetchall()}
