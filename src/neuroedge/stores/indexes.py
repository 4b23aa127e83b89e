"""The indexes that find memories by meaning: which kind there is, and building another while searches go on.

An index of a partitioned table cannot be built concurrently, but those of its partitions can: a parent index is made
on the empty parent, each partition's index is built concurrently and attached, and with the last one the parent turns
valid. So what is done can be read from the catalogue, and a build that was cut off goes on where it stopped.
"""

import asyncio
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row

from neuroedge.contract.errors import Unavailable

Kind = Literal["hnsw", "hnsw_binary", "ivfflat"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
DIMENSIONS: Final = (384, 768, 1024)
PROBES: Final = 20
"""Lists an ivfflat search looks into before it asks whether enough rows were found."""
OVER_FETCH: Final = 16
"""Candidates by Hamming distance for each row wanted, which are then ordered by their cosine."""
MIN_EF_SEARCH: Final = 80
"""Found recall@10 of 0.97 among 100,000 rows of one organisation (benchmarks/vector_search.py)."""
SEARCH_OPTIONS: Final = {"hnsw.iterative_scan": "strict_order", "hnsw.ef_search": MIN_EF_SEARCH}
"""Of every connection of the application; searches that need others set them for their transaction."""
_BUILD_MEMORY: Final = "1GB"
_LOCK: Final = 0x4E45_4944_58
"""Advisory lock of whoever builds: there is one at a time."""
_RETRY_S: Final = 1.0
_ROWS_PER_LIST: Final = 1000
"""pgvector's advice for up to a million rows."""
_LEAST_LISTS: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Which kind answers, and what is being built: `done` of `total` partitions."""

    kind: Kind | None
    """None: none is complete, searches compare row by row."""
    building: Kind | None
    done: int
    total: int


async def connect(owner_url: str) -> AsyncConnection[DictRow]:
    """A connection of the tables' owner without time limits, each statement a transaction. Raises Unavailable."""
    try:
        conn = await AsyncConnection.connect(owner_url, autocommit=True, row_factory=dict_row, connect_timeout=10)
        await conn.execute("SELECT set_config('maintenance_work_mem', %s, false)", [_BUILD_MEMORY])
    except psycopg.OperationalError:
        # `from None`: the driver's own text may hold the password.
        raise Unavailable("PostgreSQL does not answer", hint="check POSTGRES_URL and the server") from None
    return conn


async def begin(conn: AsyncConnection[Any]) -> bool:
    """Be the one who builds, until the connection is closed; False when somebody else does."""
    row = await (await conn.execute("SELECT pg_try_advisory_lock(%s) AS got", [_LOCK])).fetchone()
    return bool(row and row["got"])


async def kind_of(conn: AsyncConnection[Any], dim: int) -> Kind | None:
    """The newest complete index of vectors of this size."""
    cursor = await conn.execute(
        "SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
        " WHERE i.indrelid = %s::regclass AND i.indisvalid AND c.relname = ANY(%s) ORDER BY c.oid DESC LIMIT 1",
        [_table(dim), [_parent(dim, kind) for kind in KINDS]],
    )
    row = await cursor.fetchone()
    return next((kind for kind in KINDS if row and row["relname"] == _parent(dim, kind)), None)


async def standing(conn: AsyncConnection[Any]) -> Standing:
    """Of all sizes together."""
    kinds = [await kind_of(conn, dim) for dim in DIMENSIONS]
    partitions = {dim: await _partitions(conn, dim) for dim in DIMENSIONS}
    total = sum(map(len, partitions.values()))
    for kind in KINDS:
        if kind not in kinds or None in kinds or len(set(kinds)) > 1:
            done = sum([len(await attached(conn, dim, kind)) for dim in DIMENSIONS])
            if done and done < total:
                return Standing(kind=kinds[0], building=kind, done=done, total=total)
    return Standing(kind=kinds[0], building=None, done=total, total=total)


async def attached(conn: AsyncConnection[Any], dim: int, kind: Kind) -> dict[str, str]:
    """Partitions that have their part of an index, and its name."""
    cursor = await conn.execute(
        "SELECT t.relname AS partition, c.relname AS index FROM pg_inherits h"
        " JOIN pg_index i ON i.indexrelid = h.inhrelid"
        " JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid"
        " WHERE h.inhparent = to_regclass(%s) AND i.indisvalid",
        [_parent(dim, kind)],
    )
    return {row["partition"]: row["index"] for row in await cursor.fetchall()}


async def build(conn: AsyncConnection[Any], dim: int, kind: Kind) -> None:
    """Make what is missing of an index, beside the one there is. Searches and writes go on."""
    parent = _parent(dim, kind)
    await _clean(conn, dim)
    method = _method(kind, dim)
    await conn.execute(f"CREATE INDEX IF NOT EXISTS {parent} ON ONLY {_table(dim)} USING {method}")
    done = await attached(conn, dim, kind)
    for partition in await _partitions(conn, dim):
        if partition in done:
            continue
        options = await _options(conn, partition, kind)
        name = f"{partition}_{kind}"
        await conn.execute(f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {name} ON {partition} USING {method} {options}")
        await conn.execute(f"ALTER INDEX {parent} ATTACH PARTITION {name}")


async def renew(conn: AsyncConnection[Any], dim: int, kind: Kind, *, mark: str) -> None:
    """Build every partition's index anew in the place of the old one; those with this mark have been already."""
    await _clean(conn, dim)
    for index in (await attached(conn, dim, kind)).values():
        row = await (await conn.execute("SELECT obj_description(%s::regclass, 'pg_class') AS mark", [index])).fetchone()
        if row and row["mark"] == mark:
            continue
        await conn.execute(f"REINDEX INDEX CONCURRENTLY {index}")
        await conn.execute(psycopg.sql.SQL("COMMENT ON INDEX {} IS {}").format(psycopg.sql.Identifier(index), mark))


async def drop_others(conn: AsyncConnection[Any], dim: int, kind: Kind) -> None:
    """Drop the other kinds' indexes, as soon as nobody uses the table for a moment."""
    for other in (other for other in KINDS if other != kind):
        await _drop(conn, _parent(dim, other))


async def _drop(conn: AsyncConnection[Any], index: str) -> None:
    while True:
        try:
            async with conn.transaction():
                # Dropping waits for whoever uses the table, and everybody else waits behind it: so not for long.
                await conn.execute("SET LOCAL lock_timeout = '1s'")
                await conn.execute(f"DROP INDEX IF EXISTS {index}")
                return
        except psycopg.errors.LockNotAvailable:
            await asyncio.sleep(_RETRY_S)


async def _clean(conn: AsyncConnection[Any], dim: int) -> None:
    """Drop what a build that was cut off left behind on the partitions."""
    cursor = await conn.execute(
        "SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid"
        " JOIN pg_inherits h ON h.inhrelid = t.oid"
        " WHERE h.inhparent = %s::regclass AND NOT i.indisvalid AND t.relkind = 'r'",
        [_table(dim)],
    )
    for row in await cursor.fetchall():
        await conn.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {row['relname']}")


async def _partitions(conn: AsyncConnection[Any], dim: int) -> list[str]:
    cursor = await conn.execute(
        "SELECT c.relname FROM pg_inherits h JOIN pg_class c ON c.oid = h.inhrelid"
        " WHERE h.inhparent = %s::regclass ORDER BY c.oid",
        [_table(dim)],
    )
    return [row["relname"] for row in await cursor.fetchall()]


async def _options(conn: AsyncConnection[Any], partition: str, kind: Kind) -> str:
    if kind != "ivfflat":
        return "WITH (m = 16, ef_construction = 64)"
    row = await (await conn.execute(f"SELECT count(*) AS rows FROM {partition}")).fetchone()
    return f"WITH (lists = {max(_LEAST_LISTS, (row['rows'] if row else 0) // _ROWS_PER_LIST)})"


def _method(kind: Kind, dim: int) -> str:
    """Access method and column of `CREATE INDEX`."""
    if kind == "hnsw_binary":
        return f"hnsw ((binary_quantize(embedding)::bit({dim})) bit_hamming_ops)"
    return f"{kind} (embedding halfvec_cosine_ops)"


def _table(dim: int) -> str:
    return f"memory_vectors_{dim}"


def _parent(dim: int, kind: Kind) -> str:
    return f"{_table(dim)}_{kind}"
