"""Trials of vector indexes: over vectors a caller gives, in a table of its own transaction, and over its memories.

The trial's table is temporary and dropped when the transaction ends; nobody else sees it.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import psycopg
from pgvector import HalfVector
from psycopg import sql

from neuroedge.contract.errors import DeadlineExceeded
from neuroedge.contract.index_trials import IndexMethod, IndexTrial, MemoryTrial
from neuroedge.contract.models import Floats
from neuroedge.contract.ports import MemoryFilter
from neuroedge.contract.principal import Principal
from neuroedge.stores import memory_search
from neuroedge.stores.indexes import DIMENSIONS, OVER_FETCH
from neuroedge.stores.memories import table_of
from neuroedge.stores.postgres import Connection, Database

_BUILD_MEMORY: Final = "128MB"
_ROWS_PER_LIST: Final = 1000
_LEAST_LISTS: Final = 10
_MAX_EF: Final = 1000
_TABLE: Final = sql.Identifier("index_trial")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """How a method indexes and searches."""

    index: sql.SQL | sql.Composed | None
    settings: dict[str, str]
    search: sql.SQL | sql.Composed


class TenantIndexes:
    """The Indexes port over the caller's own transaction."""

    def __init__(self, db: Database, principal: Principal, *, slots: asyncio.Semaphore) -> None:
        """`slots`: of the process; a trial keeps a connection and a processor of the database busy."""
        self._db = db
        self._principal = principal
        self._slots = slots

    async def trial(
        self,
        vectors: Floats,
        queries: Floats,
        *,
        method: IndexMethod,
        k: int,
        m: int,
        ef_construction: int,
        effort: int,
    ) -> IndexTrial:
        """Index `vectors`, find the nearest of each query, and forget both."""
        plan = _plan(method, dim=vectors.shape[1], n=len(vectors), k=k, m=m, build=ef_construction, effort=effort)
        try:
            async with self._slots, self._db.tenant(self._principal) as conn:
                await _filled(conn, vectors)
                began = time.perf_counter()
                index_bytes = 0
                if plan.index is not None:
                    await conn.execute(plan.index)
                    row = await (await conn.execute("SELECT pg_relation_size('index_trial_index') AS size")).fetchone()
                    index_bytes = int(row["size"]) if row else 0
                build_s = time.perf_counter() - began if plan.index is not None else 0.0
                await _set(conn, {**plan.settings, "enable_seqscan": "off" if plan.index is not None else "on"})
                began = time.perf_counter()
                found = [await _nearest(conn, plan.search, query, k) for query in queries]
                query_s = time.perf_counter() - began
        except psycopg.errors.QueryCanceled as error:
            raise DeadlineExceeded(
                "the index was not built within the database's time", hint="send fewer vectors"
            ) from error
        return IndexTrial(
            positions=[[position for position, _ in rows] for rows in found],
            cosines=[[cosine for _, cosine in rows] for rows in found],
            build_s=build_s,
            query_s=query_s,
            index_bytes=index_bytes,
        )

    async def memories(self, *, queries: int, k: int) -> MemoryTrial:
        """Search the caller's memories for a sample of their vectors, by the index and by comparing all."""
        async with self._slots:
            return await self._memories(queries=queries, k=k)

    async def _memories(self, *, queries: int, k: int) -> MemoryTrial:
        org_id = self._principal.org_id
        async with self._db.tenant(self._principal) as conn:
            model, dim, rows = await _commonest(conn, org_id)
        kind = await self._db.index_kind(dim)
        if model is None:
            return MemoryTrial(kind=kind, model=None, dim=0, rows=0, found=[], exact=[], query_s=0.0, exact_s=0.0)
        async with self._db.tenant(self._principal) as conn:
            sample = await _sample(conn, org_id, model=model, dim=dim, queries=queries)
            began = time.perf_counter()
            found = [await self._by_index(conn, vector, model=model, kind=kind, k=k) for vector in sample]
            query_s = time.perf_counter() - began
        async with self._db.tenant(self._principal) as conn:
            await _set(conn, {"enable_indexscan": "off"})
            began = time.perf_counter()
            exact = [await _compared(conn, org_id, vector, model=model, k=k) for vector in sample]
            exact_s = time.perf_counter() - began
        return MemoryTrial(
            kind=kind, model=model, dim=dim, rows=rows, found=found, exact=exact, query_s=query_s, exact_s=exact_s
        )

    async def _by_index(self, conn: Connection, vector: Floats, *, model: str, kind: Any, k: int) -> list[UUID]:
        """As the engine search does it."""
        org_id = self._principal.org_id
        found = await memory_search.nearest(
            conn, org_id=org_id, vector=vector, model=model, limit=k, where=MemoryFilter(), kind=kind
        )
        return [row.id for row in found]


async def _filled(conn: Connection, vectors: Floats) -> None:
    """A temporary table of the vectors, gone with the transaction."""
    await _set(conn, {"maintenance_work_mem": _BUILD_MEMORY})
    dim = sql.Literal(vectors.shape[1])
    await conn.execute(
        sql.SQL("CREATE TEMPORARY TABLE {} (position integer, embedding halfvec({})) ON COMMIT DROP").format(
            _TABLE, dim
        )
    )
    copy = sql.SQL("COPY {} (position, embedding) FROM STDIN (FORMAT BINARY)").format(_TABLE)
    async with conn.cursor() as cursor, cursor.copy(copy) as rows:
        rows.set_types(["int4", "halfvec"])
        for position, vector in enumerate(vectors):
            await rows.write_row((position, HalfVector(vector)))
    await conn.execute(sql.SQL("ANALYZE {}").format(_TABLE))


def _plan(method: IndexMethod, *, dim: int, n: int, k: int, m: int, build: int, effort: int) -> _Plan:
    exact = sql.SQL(
        "SELECT position, 1 - (embedding <=> %(vector)s) AS cosine FROM {table}"
        " ORDER BY embedding <=> %(vector)s LIMIT %(k)s"
    ).format(table=_TABLE)
    graph = sql.SQL("WITH (m = {m}, ef_construction = {build})").format(m=sql.Literal(m), build=sql.Literal(build))
    if method == "exact":
        return _Plan(index=None, settings={}, search=exact)
    if method == "hnsw":
        index = _index(sql.SQL("hnsw (embedding halfvec_cosine_ops)"), graph)
        return _Plan(index=index, settings={"hnsw.ef_search": str(min(_MAX_EF, max(k, effort)))}, search=exact)
    if method == "ivfflat":
        lists = min(max(_LEAST_LISTS, n // _ROWS_PER_LIST), n)
        options = sql.SQL("WITH (lists = {})").format(sql.Literal(lists))
        index = _index(sql.SQL("ivfflat (embedding halfvec_cosine_ops)"), options)
        return _Plan(index=index, settings={"ivfflat.probes": str(min(lists, effort))}, search=exact)
    candidates = min(_MAX_EF, max(effort, OVER_FETCH * k))
    bits = sql.SQL("binary_quantize({what})::bit({dim})")
    quantized = bits.format(what=sql.Identifier("embedding"), dim=sql.Literal(dim))
    asked = bits.format(what=sql.SQL("%(vector)s::halfvec"), dim=sql.Literal(dim))
    search = sql.SQL(
        "WITH near AS MATERIALIZED (SELECT position, embedding <=> %(vector)s AS distance FROM {table}"
        " ORDER BY {quantized} <~> {asked} LIMIT {candidates})"
        " SELECT position, 1 - distance AS cosine FROM near ORDER BY distance LIMIT %(k)s"
    ).format(table=_TABLE, quantized=quantized, asked=asked, candidates=sql.Literal(candidates))
    index = _index(sql.SQL("hnsw (({}) bit_hamming_ops)").format(quantized), graph)
    return _Plan(index=index, settings={"hnsw.ef_search": str(candidates)}, search=search)


def _index(method: sql.Composable, options: sql.Composable) -> sql.Composed:
    return sql.SQL("CREATE INDEX index_trial_index ON {table} USING {method} {options}").format(
        table=_TABLE, method=method, options=options
    )


async def _set(conn: Connection, settings: dict[str, str]) -> None:
    """Settings for this transaction."""
    for name, value in settings.items():
        await conn.execute("SELECT set_config(%s, %s, true)", [name, value])


async def _nearest(conn: Connection, search: sql.SQL | sql.Composed, query: Floats, k: int) -> list[tuple[int, float]]:
    cursor = await conn.execute(search, {"vector": HalfVector(query), "k": k})
    # An index normalises before it rounds: its order differs from that of the cosines in the last digits.
    return sorted(((row["position"], row["cosine"]) for row in await cursor.fetchall()), key=lambda found: -found[1])


async def _commonest(conn: Connection, org_id: UUID) -> tuple[str | None, int, int]:
    """The model most of the rows the caller may see are embedded by, its dimensions, and how many they are."""
    counts: list[tuple[int, int, str]] = []
    for dim in DIMENSIONS:
        cursor = await conn.execute(
            f"SELECT v.model, count(*) AS rows FROM {table_of(dim)} v JOIN memories m"
            " ON m.org_id = v.org_id AND m.id = v.memory_id WHERE v.org_id = %s GROUP BY v.model",
            [org_id],
        )
        counts += [(row["rows"], dim, row["model"]) for row in await cursor.fetchall()]
    rows, dim, model = max(counts, default=(0, DIMENSIONS[0], None))
    return model, dim, rows


async def _sample(conn: Connection, org_id: UUID, *, model: str, dim: int, queries: int) -> Sequence[Floats]:
    """Vectors of some rows, the same ones for the same rows: ordered by a hash of their ids."""
    cursor = await conn.execute(
        f"SELECT v.embedding FROM {table_of(dim)} v JOIN memories m ON m.org_id = v.org_id AND m.id = v.memory_id"
        " WHERE v.org_id = %s AND v.model = %s ORDER BY md5(v.memory_id::text) LIMIT %s",
        [org_id, model, queries],
    )
    return [row["embedding"].to_numpy().astype("float32") for row in await cursor.fetchall()]


async def _compared(conn: Connection, org_id: UUID, vector: Floats, *, model: str, k: int) -> list[UUID]:
    """The nearest rows the caller may see, every one compared."""
    cursor = await conn.execute(
        f"WITH v AS MATERIALIZED (SELECT memory_id, embedding <=> %s AS distance FROM {table_of(len(vector))}"
        " WHERE org_id = %s AND model = %s)"
        " SELECT v.memory_id FROM v JOIN memories m ON m.id = v.memory_id"
        " WHERE m.org_id = %s AND (m.expires_at IS NULL OR m.expires_at > now()) ORDER BY v.distance LIMIT %s",
        [HalfVector(vector), org_id, model, org_id, k],
    )
    return [row["memory_id"] for row in await cursor.fetchall()]
