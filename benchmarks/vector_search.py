"""Search among a million memories of 50 tenants: recall, the database's part, the whole over HTTP, side by side.

    python -m benchmarks.vector_search --wordnet DIR --folder DIR [--rows N]

benchmarks/vector_data.py says how the rows are made; --wordnet is the folder of data.noun … (Debian's `wordnet-base`),
--folder keeps vectors and the filled database between runs (about 12 GB for a million rows). The large tenant, a tenth
of all rows, is searched with real glosses that are no rows. Peers in the same run: usearch in process with the same
vectors of that tenant (an index of its own, m 16, ef_construction 64, ef 100), and one pgvector table of all rows
without partitions (HNSW over all, filtered by tenant, iterative scan), also behind a bare route with the same encoder
(benchmarks/search_bare.py), the least a search over HTTP takes on the machine.

The database's part is what `TenantMemories.search` waits for: a transaction with both searches, opening the content of
the rows wanted included. Up to 8 callers, one process, which shares the processors with PostgreSQL's: the processor
time of a search, of both together, says how many a machine can answer. "server" is the time PostgreSQL itself says the
statement by meaning takes.
"""

import argparse
import asyncio
import itertools
import json
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil
import psycopg
import uvloop
from numpy.typing import NDArray
from pgvector import HalfVector
from pgvector.psycopg import register_vector

from benchmarks import search_bare, search_timing, vector_data
from benchmarks.calling import Connection, Tally, percentile, users
from benchmarks.report import Figure, figure, save
from benchmarks.search_timing import FEWER, MOST, Search
from benchmarks.serving import serve
from benchmarks.vector_data import MODEL, Base
from neuroedge.bootstrap import app_password, open_servers, open_vault
from neuroedge.contract.models import Floats
from neuroedge.contract.ports import MemoryFilter
from neuroedge.contract.principal import Principal
from neuroedge.infra.tokens import AccessTokens
from neuroedge.settings import Settings
from neuroedge.stores import memory_search, schema
from neuroedge.stores.postgres import Database
from neuroedge.stores.tenant_memories import TenantMemories

_ROWS: Final = 1_000_000
DATABASE_MS: Final = 10.0
"""Most the database's part may take, p95."""
WHOLE_MS: Final = 40.0
"""Most a whole search over HTTP may take, p95."""
TOP: Final = 10
LIMIT: Final = 15
"""Candidates of each search for the five hits an engine call asks for by default."""
KEPT: Final = 5
"""Rows that are opened, as for `top_k` 5."""
RECALL_QUERIES: Final = 200
FILTERS: Final = {"no filter": MemoryFilter(), "tag of 1 %": MemoryFilter(tags=["rare"])}
_BOTH: Final = "database part, by meaning and words"
_USEARCH: Final = "usearch in process, ids only"
_PGVECTOR: Final = "plain pgvector table, ids only"


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wordnet", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=_ROWS)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    given.folder.chmod(0o755)  # the embedded PostgreSQL of root runs as another user
    of = vector_data.base(given.wordnet, given.folder)
    settings = Settings(data_dir=given.folder / f"rows-{given.rows}")
    figures = uvloop.run(measure(settings, of, rows=given.rows, rounds=given.rounds))
    name, shown = ("vector_search", "") if given.rows == _ROWS else ("vector_search_fewer", f" --rows {given.rows}")
    save(
        name,
        figures,
        title=f"Search: {given.rows // 10:,} memories of one tenant among {given.rows:,} of {vector_data.TENANTS}",
        command=f"python -m benchmarks.vector_search --wordnet DIR --folder DIR{shown}",
    )


async def measure(settings: Settings, of: Base, *, rows: int, rounds: int) -> list[Figure]:
    """All figures."""
    async with open_servers(settings) as servers:
        vault = open_vault(settings, servers.secrets)
        password = app_password(settings, servers.secrets)
        schema.upgrade(servers.postgres_owner, app_password=password, keys=vault)
        db = Database(servers.postgres_app, max_size=MOST + 2, keys=vault)
        await db.open()
        tenants = await vector_data.load(owner_url=servers.postgres_owner, db=db, rows=rows, of=of)
        _plain_table(servers.postgres_owner)
        large = tenants[0]
        ids, stored = _stored(servers.postgres_owner, large)
        index = _usearch(stored)
        figures = await _recall(db, servers.postgres_owner, large, of, ids, stored, index)
        postgres = psutil.Process(int((settings.data_dir / "postgres" / "postmaster.pid").read_text().split("\n")[0]))
        figures += await _database(db, servers.postgres_owner, large, of, index, server=postgres, rounds=rounds)
        figures.append(await _server(db, large, of))
        await db.close()
        token = AccessTokens(servers.secrets.jwt_secret).issue(large, now=datetime.now(UTC), ttl_s=3600)
        with serve(settings.data_dir, NEUROEDGE_REQUESTS_PER_MINUTE="0") as server:
            figures += await _http(
                server.url,
                f"Bearer {token}",
                of,
                path="/v1/engines/search/run",
                name="whole search over HTTP without rerank",
                filters={"no filter": {}, "tag of 1 %": {"tags": ["rare"]}},
                rounds=rounds,
                spent_s=_spending(postgres, server.process.pid),
                at_most=WHOLE_MS,
            )
        with search_bare.served(servers.postgres_owner, large.org_id) as (url, pid):
            figures += await _http(
                url,
                "",
                of,
                path="/search",
                name="bare route over plain pgvector, ids only",
                filters={"no filter": {}},
                rounds=rounds,
                spent_s=_spending(postgres, pid),
            )
    return figures


def _spending(postgres: psutil.Process, server_pid: int) -> Callable[[], float]:
    """Processor time spent so far by PostgreSQL, a server and who calls it."""
    others = [psutil.Process(server_pid), psutil.Process()]
    return lambda: search_timing.processor_s(postgres, *others)


async def _recall(
    db: Database,
    owner_url: str,
    large: Principal,
    of: Base,
    ids: list[Any],
    stored: Floats,
    index: Any,
) -> list[Figure]:
    """Share of the ten nearest rows that are found."""
    queries = of.question_vectors[:RECALL_QUERIES]
    exact = np.argsort(-(queries @ stored.T), axis=1)[:, :TOP]
    wanted = [{ids[i] for i in row} for row in exact]
    ours = []
    for vector, right in zip(queries, wanted, strict=True):
        async with db.tenant(large) as conn:
            found = await memory_search.nearest(
                conn, org_id=large.org_id, vector=vector, model=MODEL, limit=TOP, where=MemoryFilter()
            )
        ours.append(len({hit.id for hit in found} & right) / TOP)
    near = index.search(queries, TOP).keys
    theirs = [len({ids[i] for i in row} & right) / TOP for row, right in zip(near, wanted, strict=True)]
    with closing(_owner(owner_url)) as conn_:
        plain = [
            len({row[0] for row in _plain(conn_, large, v)} & right) / TOP
            for v, right in zip(queries, wanted, strict=True)
        ]
    return [
        _mean("recall@10 against exact search, one tenant", ours, at_least=0.95),
        _mean("recall@10 of usearch in process, its own index", theirs),
        _mean("recall@10 of a plain pgvector table", plain),
    ]


def _mean(name: str, values: list[float], *, at_least: float | None = None) -> Figure:
    return figure(name, "", [float(np.mean(values))], at_least=at_least, note=f"{len(values)} queries")


async def _database(
    db: Database,
    owner_url: str,
    large: Principal,
    of: Base,
    index: Any,
    *,
    server: psutil.Process,
    rounds: int,
) -> list[Figure]:
    store = TenantMemories(db, large)
    ways: dict[str, Search] = {}
    for name, where in FILTERS.items():

        async def search(i: int, where: MemoryFilter = where) -> None:
            await store.search(
                query=of.questions[i],
                vector=of.question_vectors[i],
                model=MODEL,
                limit=LIMIT,
                where=where,
                keep=KEPT,
            )

        async def dense(i: int, where: MemoryFilter = where) -> None:
            await store.search(
                query="", vector=of.question_vectors[i], model=MODEL, limit=LIMIT, where=where, keep=KEPT
            )

        ways[f"{_BOTH}, {name}"] = search
        ways[f"database part, by meaning alone, {name}"] = dense

    async def in_process(i: int) -> None:
        await asyncio.to_thread(index.search, of.question_vectors[i], LIMIT)

    pool = [await _async_owner(owner_url) for _ in range(MOST)]
    free: asyncio.Queue[psycopg.AsyncConnection[Any]] = asyncio.Queue()
    for conn in pool:
        free.put_nowait(conn)

    async def plain(i: int) -> None:
        conn = await free.get()
        await conn.execute(
            search_bare.PLAIN, {"org": large.org_id, "vector": HalfVector(of.question_vectors[i]), "n": LIMIT}
        )
        free.put_nowait(conn)

    ways[_USEARCH], ways[_PGVECTOR] = in_process, plain
    asked = f"{_BOTH}, no filter"
    compared = {name: ways[name] for name in (asked, _USEARCH, _PGVECTOR)}
    by_callers = {
        callers: await search_timing.timed(
            ways if callers == MOST else compared, server, rounds=rounds, callers=callers, searches=vector_data.QUERIES
        )
        for callers in (MOST, *FEWER)
    }
    for conn in pool:
        await conn.close()
    targets = {asked: DATABASE_MS}
    return [
        *(each for callers, taken in by_callers.items() for each in search_timing.p95(taken, callers, targets)),
        search_timing.met(asked, {n: [t.p95_ms for t in taken[asked]] for n, taken in by_callers.items()}, DATABASE_MS),
        *search_timing.processor(by_callers[MOST]),
    ]


async def _server(db: Database, large: Principal, of: Base) -> Figure:
    """What PostgreSQL says the search by meaning takes, one at a time."""
    times = []
    async with db.tenant(large) as conn:
        await conn.execute(
            "SELECT set_config('hnsw.iterative_scan', 'strict_order', true), set_config('hnsw.ef_search', '100', true)"
        )
        for i in range(100):
            cursor = await conn.execute(
                "EXPLAIN (ANALYZE, FORMAT json) SELECT v.memory_id, m.sealed FROM memory_vectors_384 v"
                " JOIN memories m ON m.org_id = v.org_id AND m.id = v.memory_id"
                " WHERE v.org_id = %(org)s AND v.model = %(model)s"
                " ORDER BY v.embedding <=> %(vector)s LIMIT %(n)s",
                {"org": large.org_id, "model": MODEL, "vector": HalfVector(of.question_vectors[i]), "n": LIMIT},
            )
            row = await cursor.fetchone()
            assert row is not None
            times.append(float(row["QUERY PLAN"][0]["Execution Time"]))
    return figure(
        "server, search by meaning: p95",
        "ms",
        [percentile(times, 0.95)],
        note=f"one caller; p50 {percentile(times, 0.5):.1f} ms",
    )


async def _http(
    url: str,
    token: str,
    of: Base,
    *,
    path: str,
    name: str,
    filters: Mapping[str, dict[str, Any]],
    rounds: int,
    spent_s: Callable[[], float],
    at_most: float | None = None,
) -> list[Figure]:
    """POST `path` as a caller sees it; `spent_s` tells the processor time of all who take part."""
    plain, figures, cost_ms = dict[int, list[float]](), list[Figure](), list[float]()
    asked = [(shown, MOST, more) for shown, more in filters.items()]
    asked += [(search_timing.named(callers), callers, {}) for callers in FEWER]
    for shown, callers, more in asked:
        # New ones each time: the server hangs up on those that were idle meanwhile.
        connections = [Connection(url, token) for _ in range(callers)]
        p50, p95 = list[float](), list[float]()
        for turn in range(rounds + 1):
            tally, numbers = Tally(), itertools.count()

            async def one(
                caller: int, more: Any = more, numbers: Any = numbers, tally: Tally = tally, by: Any = connections
            ) -> None:
                while (i := next(numbers)) < vector_data.QUERIES:
                    body = json.dumps({"query": of.questions[i], "top_k": KEPT, **more}).encode()
                    tally.add(await by[caller].post(path, body))

            before_s = spent_s()
            await users(callers, one)
            if tally.refused:
                raise SystemExit(f"search answered {tally.refused}")
            if turn and callers == MOST and not more:
                cost_ms.append(1e3 * (spent_s() - before_s) / vector_data.QUERIES)
            if turn:
                p50.append(1e3 * percentile(tally.good_s, 0.5))
                p95.append(1e3 * percentile(tally.good_s, 0.95))
        for connection in connections:
            await connection.close()
        if not more:
            plain[callers] = p95
        figures.append(
            figure(
                f"{name}, {shown}: p95",
                "ms",
                p95,
                at_most=at_most,
                note=f"callers: {callers}; p50 {np.median(p50):.1f} ms, embedding the query included",
            )
        )
    if at_most is not None:
        figures.append(search_timing.met(f"{name}, no filter", plain, at_most))
    return [*figures, search_timing.cost(f"{name}, no filter", cost_ms)]


def _usearch(stored: Floats) -> Any:
    from usearch.index import Index

    index = Index(
        ndim=vector_data.DIM, metric="cos", dtype="f16", connectivity=16, expansion_add=64, expansion_search=100
    )
    index.add(np.arange(len(stored)), stored)
    return index


def _plain_table(owner_url: str) -> None:
    """The same vectors in one table."""
    with closing(_owner(owner_url)) as conn:
        if conn.execute("SELECT to_regclass('bench_plain')").fetchone() != (None,):
            return
        conn.execute("SET maintenance_work_mem = '2GB'")
        conn.execute("CREATE TABLE bench_plain AS SELECT org_id, memory_id, embedding FROM memory_vectors_384")
        started = time.perf_counter()
        conn.execute("CREATE INDEX ON bench_plain USING hnsw (embedding halfvec_cosine_ops)")
        print(f"plain HNSW built in {time.perf_counter() - started:.0f} s", flush=True)
        conn.execute("CREATE INDEX ON bench_plain (org_id)")
        conn.execute("ALTER TABLE bench_plain ENABLE ROW LEVEL SECURITY")
        conn.execute("VACUUM ANALYZE bench_plain")


def _plain(conn: psycopg.Connection[Any], tenant: Principal, vector: NDArray[np.float32]) -> list[Any]:
    return conn.execute(search_bare.PLAIN, {"org": tenant.org_id, "vector": HalfVector(vector), "n": TOP}).fetchall()


def _owner(owner_url: str) -> psycopg.Connection[Any]:
    conn = psycopg.connect(owner_url, autocommit=True)
    register_vector(conn)
    conn.execute("SET hnsw.iterative_scan = strict_order")
    conn.execute("SET hnsw.ef_search = 100")
    return conn


async def _async_owner(owner_url: str) -> psycopg.AsyncConnection[Any]:
    conn = await psycopg.AsyncConnection.connect(owner_url)
    await search_bare.prepared(conn)
    return conn


def _stored(owner_url: str, tenant: Principal) -> tuple[list[Any], Floats]:
    """Ids and vectors of a tenant as the database keeps them."""
    with closing(_owner(owner_url)) as conn, conn.cursor(binary=True) as cursor:
        cursor.execute("SELECT memory_id, embedding FROM memory_vectors_384 WHERE org_id = %s", [tenant.org_id])
        ids, vectors = [], []
        for memory_id, embedding in cursor:
            ids.append(memory_id)
            vectors.append(embedding.to_numpy())
    stored = np.stack(vectors).astype(np.float32)
    return ids, stored / np.linalg.norm(stored, axis=1, keepdims=True)


if __name__ == "__main__":
    main()
