"""Remembered rows found: by meaning through an index over halfvec, by words through BM25 over keyed hashes.

Statements are sent apart from reading their rows, so that a pipeline can send several at once. They bring the rows
whole but sealed, for whoever opens those that come first; to ask for these again would take longer than to send them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from cachetools import TTLCache
from pgvector import HalfVector
from psycopg import AsyncCursor
from psycopg.rows import DictRow

from neuroedge.contract.models import Floats
from neuroedge.contract.ports import MemoryFilter, Scored
from neuroedge.stores import sealing
from neuroedge.stores.indexes import MIN_EF_SEARCH, OVER_FETCH, PROBES, SEARCH_OPTIONS, Kind
from neuroedge.stores.memories import COLUMNS, table_of
from neuroedge.stores.memory_filters import OTHERS, facets, others, restricted
from neuroedge.stores.postgres import Connection

CANDIDATES: Final = 500
"""Rows that the rarest of a query's words should at least bring; commoner words then only add to their scores."""
EXACT: Final = 2000
"""Rows with the facets asked for that are compared one by one; more are found through the index by meaning."""
_COMMON_FACETS: Final[TTLCache[tuple[int | UUID, ...], bool]] = TTLCache(4096, ttl=600)
"""Facets that more rows have: to count them again would take longer than the search. Only speed depends on it."""
_PLANNED_ANEW: Final = {"plan_cache_mode": "force_custom_plan"}
FILTERED_SCAN: Final[Mapping[str, str]] = {"hnsw.max_scan_tuples": "40000", "hnsw.scan_mem_multiplier": "4"}
"""How far a search with a filter reads an index: about 10 µs a row. To compare all rows takes a quarter of that for
each, so from there on it is the shorter way in all but the largest organisations."""
_COSINE: Final = "v.embedding <=> %(vector)s"
_ROW: Final = ", ".join(f"m.{name.strip()}" for name in COLUMNS.split(","))
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
    return scores(await (await ask_nearest(conn, near, org_id=org_id, where=where)).fetchall())


@dataclass(frozen=True, slots=True, kw_only=True)
class Near:
    """What rows are wanted by meaning."""

    vector: Floats
    model: str
    limit: int
    kind: Kind


async def ask_nearest(conn: Connection, near: Near, *, org_id: UUID, where: MemoryFilter) -> Rows:
    """Among few rows with the facets asked for exactly, else by the index, whose iterative scan goes on until enough
    rows pass the filter.

    The scan has its bounds, and behind them the rows are compared one by one: where a filter let too few pass. Without
    a filter this waits for no rows, so that the next statement can be sent: `may_be_more` says whether to `ask_every`.
    """
    few = await _few_with_facets(conn, org_id, where)
    joined, values = _may_be_found(conn, near, org_id, where)
    if few is not None:
        # They passed the filter already.
        passed = (
            f"FROM {table_of(len(near.vector))} v WHERE v.org_id = %(org)s AND v.model = %(model)s"
            " AND v.memory_id = ANY(%(few)s::uuid[])"
        )
        return await conn.execute(_compared(passed, near.limit), {**values, "few": few})
    settings, statement = _by_index(near, joined)
    await _tune(conn, settings)
    rows = await conn.execute(_planned(statement, org_id, where), values)
    if where == MemoryFilter() or near.kind == "ivfflat" or await _number(rows) >= near.limit:
        return rows
    return await ask_every(conn, near, org_id=org_id, where=where)


def may_be_more(near: Near, where: MemoryFilter, found: int) -> bool:
    """Whether a search by the index may have ended at its bounds before it `found` enough: where the nearest rows are
    chat messages, others' private ones, or another organisation's."""
    return where == MemoryFilter() and near.kind != "ivfflat" and found < near.limit


async def ask_every(conn: Connection, near: Near, *, org_id: UUID, where: MemoryFilter) -> Rows:
    """By comparing all rows that may be found."""
    joined, values = _may_be_found(conn, near, org_id, where)
    return await conn.execute(_compared(joined, near.limit), values)


def _may_be_found(conn: Connection, near: Near, org_id: UUID, where: MemoryFilter) -> tuple[str, dict[str, Any]]:
    """The rows that pass the filter and have a vector of the model, and the values of this SQL."""
    conditions, values = restricted(conn.vault, org_id, where)
    joined = (
        f"FROM {table_of(len(near.vector))} v JOIN memories m ON m.org_id = v.org_id AND m.id = v.memory_id"
        f" WHERE v.org_id = %(org)s AND v.model = %(model)s AND {conditions}"
    )
    return joined, values | {"vector": HalfVector(near.vector), "model": near.model}


def _by_index(near: Near, joined: str) -> tuple[Mapping[str, str | int], str]:
    """Settings and statement of a search through the index; `joined`: the rows that may be found."""
    dim, best = len(near.vector), f"LIMIT {near.limit:d}"
    settings: dict[str, str | int]
    if near.kind == "hnsw":
        settings = {"hnsw.iterative_scan": "strict_order", "hnsw.ef_search": _ef_search(near.limit)}
        return settings, f"SELECT {_ROW}, 1 - ({_COSINE}) AS score {joined} ORDER BY {_COSINE} {best}"
    found = f"SELECT v.memory_id AS found, {_COSINE} AS distance {joined}"
    if near.kind == "ivfflat":
        settings = {"ivfflat.iterative_scan": "relaxed_order", "ivfflat.probes": PROBES}
        return settings, _whole(f"{found} ORDER BY {_COSINE} {best}", near.limit)
    candidates = OVER_FETCH * near.limit
    settings = {"hnsw.iterative_scan": "strict_order", "hnsw.ef_search": _ef_search(candidates)}
    by_hamming = f"binary_quantize(v.embedding)::bit({dim}) <~> binary_quantize(%(vector)s::halfvec)::bit({dim})"
    return settings, _whole(f"{found} ORDER BY {by_hamming} LIMIT {candidates:d}", near.limit)


def _compared(passed: str, limit: int) -> str:
    """A search that compares every row that `passed`.

    These are materialised before they are put in order: the index by meaning would read many rows to find few.
    """
    every = f"SELECT v.memory_id AS found, {_COSINE} AS distance {passed}"
    best = f"SELECT found, distance FROM every ORDER BY distance LIMIT {limit:d}"
    return _whole(f"WITH every AS MATERIALIZED ({every}) {best}", limit)


def _whole(chosen: str, limit: int) -> str:
    """The rows of what was chosen, the nearest first."""
    return (
        f"WITH v AS MATERIALIZED ({chosen}) SELECT {_ROW}, 1 - v.distance AS score FROM v"
        f" JOIN memories m ON m.id = v.found WHERE m.org_id = %(org)s ORDER BY v.distance LIMIT {limit:d}"
    )


async def _number(rows: Rows) -> int:
    """How many rows there are; they can still be fetched."""
    if await rows.fetchone() is None:
        return 0
    await rows.scroll(0, mode="absolute")
    return rows.rowcount


def options(where: MemoryFilter) -> Mapping[str, str]:
    """Settings for a transaction that searches with this filter.

    The best plan depends on what is asked for, in the functions of the tables' owner too: one that serves all values
    reads a whole partition for a rare tag. And the index is read further than usual, as many rows may not pass.
    """
    return {} if where == MemoryFilter() else {**_PLANNED_ANEW, **FILTERED_SCAN}


def _planned(statement: str, org_id: UUID, where: MemoryFilter) -> str:
    """The statement so that without a filter it is planned once a connection: planning takes half as long as searching.

    PostgreSQL keeps a plan when it is as good as one for the values, which it is only with the organisation as a
    constant, whose rows were counted.
    """
    return statement.replace("%(org)s", f"'{org_id}'::uuid") if where == MemoryFilter() else statement


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


async def matching(conn: Connection, *, org_id: UUID, query: str, limit: int, where: MemoryFilter) -> list[Scored]:
    """By BM25 of the query's words, any of which may match."""
    rows = await ask_matching(conn, org_id=org_id, query=query, limit=limit, where=where)
    return [] if rows is None else scores(await rows.fetchall())


async def ask_matching(conn: Connection, *, org_id: UUID, query: str, limit: int, where: MemoryFilter) -> Rows | None:
    """Send the query for rows with these words; None when it has no word.

    Common words alone would bring most rows of a large organisation. So the rarest words that together bring
    CANDIDATES rows choose the candidates, and all words score them (after MaxScore, Turtle & Flood 1995).
    """
    terms = _terms(conn, query)
    if not terms:
        return None
    statement = (
        f"WITH {_asked()} SELECT {_ROW}, ranked.score FROM asked CROSS JOIN LATERAL memories_by_words("
        f"asked.weights, asked.essential, %(wanted)s::bigint[], {limit:d}, {OTHERS}) AS ranked (id, score)"
        " JOIN memories m ON m.org_id = %(org)s AND m.id = ranked.id ORDER BY ranked.score DESC, ranked.id"
    )
    values = {"org": org_id, "terms": terms, "wanted": facets(conn.vault, where), **others(where)}
    return await conn.execute(_planned(statement, org_id, where), values)


def _terms(conn: Connection, query: str) -> list[int]:
    return sorted(set(sealing.terms(query, conn.vault)))


def _asked() -> str:
    """SQL of `asked`, one row: the query's words weighed by how rare they are, and the rarest, NULL without any known.

    A word's weight is its inverse document frequency in Lucene's form, which is never negative. A row without any of
    the `essential` words is not looked at. Computing it also lets memories_by_words, which needs it first, plan for
    these words: how many rows have them decides which index serves.
    """
    return f"""
        counted AS (
            SELECT t.term, ln(1 + (c.documents - t.documents + 0.5::float8) / (t.documents + 0.5::float8)) AS idf,
                sum(t.documents) OVER rarest_first AS brought, row_number() OVER rarest_first AS place
            FROM term_stats t JOIN corpus_stats c USING (org_id)
            WHERE t.org_id = %(org)s AND t.term = ANY(%(terms)s::integer[]) AND t.documents > 0
            WINDOW rarest_first AS (ORDER BY t.documents, t.term ROWS UNBOUNDED PRECEDING)
        ), asked AS MATERIALIZED (
            SELECT set_config('plan_cache_mode', '{_PLANNED_ANEW["plan_cache_mode"]}', true),
                ('{{' || string_agg(term || ':' || idf, ',' ORDER BY term) || '}}/{sealing.TERMS}')::sparsevec
                AS weights, array_agg(term) FILTER (WHERE place = 1 OR brought <= {CANDIDATES}) AS essential
            FROM counted
        )
    """


def scores(rows: Sequence[Mapping[str, Any]]) -> list[Scored]:
    """Ids and scores of what was found."""
    return [Scored(row["id"], row["score"]) for row in rows]


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


async def bm25_of(conn: Connection, *, org_id: UUID, ids: Sequence[UUID], query: str) -> dict[UUID, float]:
    """BM25 of the query's words in these rows, 0 without any of them."""
    cursor = await conn.execute(
        f"WITH {_asked()} SELECT m.id, coalesce(-(m.terms <#> asked.weights), 0) AS score"
        " FROM asked CROSS JOIN memories m WHERE m.org_id = %(org)s AND m.id = ANY(%(ids)s)",
        {"org": org_id, "terms": _terms(conn, query), "ids": list(ids)},
    )
    return {row["id"]: row["score"] for row in await cursor.fetchall()}
