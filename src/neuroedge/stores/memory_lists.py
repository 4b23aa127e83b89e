"""Remembered rows as a whole: counted by time and kind, compared with each other, expired.

What counts is what the caller may see: row level security holds every query to it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

from neuroedge.contract.ports import MemoryFilter, Visibility
from neuroedge.stores import sealing
from neuroedge.stores.indexes import MIN_EF_SEARCH
from neuroedge.stores.memories import DIMENSIONS, division_of
from neuroedge.stores.memory_filters import CHAT_MESSAGE, restricted
from neuroedge.stores.postgres import Connection

Unit = Literal["day", "month"]
TAGS: Final = 100
"""Tags a statistic tells of, the commonest."""
_FACETS: Final = 2000
"""Commonest keyed hashes looked at for tags: those of metadata and sources are among them."""
NEIGHBOURS: Final = 50
"""Rows nearest to one that are compared with it."""
_LIVING: Final = (
    f"m.org_id = %(org)s AND (m.expires_at IS NULL OR m.expires_at > now()) AND m.memory_type <> '{CHAT_MESSAGE}'"
)
"""What a search without a type sees: what chat messages are found by is no memory of anybody's."""


async def by_time(
    conn: Connection, *, org_id: UUID, unit: Unit, limit: int, where: MemoryFilter
) -> list[tuple[datetime, int]]:
    """Rows of each day or month (UTC) that has any, the latest first: (its begin, how many)."""
    conditions, values = restricted(conn.vault, org_id, where)
    cursor = await conn.execute(
        "SELECT date_trunc(%(unit)s, m.occurred_at, 'UTC') AS begin, count(*) AS rows FROM memories m"
        f" WHERE {conditions} GROUP BY 1 ORDER BY 1 DESC LIMIT %(limit)s",
        {**values, "unit": unit, "limit": limit},
    )
    return [(row["begin"], row["rows"]) for row in await cursor.fetchall()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How many rows there are, of what kind."""

    memories: int
    sealed_bytes: int
    """Of titles, contents, labels and metadata, encrypted."""
    oldest: datetime | None
    newest: datetime | None
    """`occurred_at`."""
    expiring: int
    by_type: dict[str, int]
    by_visibility: dict[str, int]
    by_model: dict[str, int]
    """Rows with a vector of each embedding model."""
    tags: dict[str, int]
    """The commonest, at most TAGS."""


async def counts(conn: Connection, org_id: UUID) -> Counts:
    """Count what the caller may see."""
    values = {"org": org_id}
    cursor = await conn.execute(
        "SELECT count(*) AS memories, coalesce(sum(octet_length(m.sealed)), 0)::bigint AS sealed_bytes,"
        " min(m.occurred_at) AS oldest, max(m.occurred_at) AS newest, count(m.expires_at) AS expiring"
        f" FROM memories m WHERE {_LIVING}",
        values,
    )
    totals: dict[str, Any] = await cursor.fetchone() or {}
    by_model: dict[str, int] = {}
    for dim in DIMENSIONS:
        vectors = f"memory_vectors_{dim} v JOIN memories m ON m.org_id = v.org_id AND m.id = v.memory_id"
        for model, rows in (await _grouped(conn, f"{vectors} WHERE v.org_id = %(org)s AND", "v.model", values)).items():
            by_model[model] = by_model.get(model, 0) + rows
    return Counts(
        **totals,
        by_type=await _grouped(conn, "memories m WHERE", "m.memory_type", values),
        by_visibility=await _grouped(conn, "memories m WHERE", "m.visibility", values),
        by_model=by_model,
        tags=await _tags(conn, org_id),
    )


async def _grouped(conn: Connection, rows: str, column: str, values: dict[str, Any]) -> dict[str, int]:
    cursor = await conn.execute(
        f"SELECT {column} AS kind, count(*) AS rows FROM {rows} {_LIVING} GROUP BY 1 ORDER BY 2 DESC, 1", values
    )
    return {row["kind"]: row["rows"] for row in await cursor.fetchall()}


async def _tags(conn: Connection, org_id: UUID) -> dict[str, int]:
    """The database counts hashes; one row of each hash, opened, tells which tag it is."""
    cursor = await conn.execute(
        "SELECT f.hash, count(*) AS rows, (array_agg(m.id))[1] AS example FROM memories m, unnest(m.facets) AS f (hash)"
        f" WHERE {_LIVING} GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {_FACETS}",
        {"org": org_id},
    )
    counted = await cursor.fetchall()
    cursor = await conn.execute(
        "SELECT id, sealed FROM memories WHERE org_id = %s AND id = ANY(%s)",
        [org_id, list({row["example"] for row in counted})],
    )
    named: dict[int, str] = {}
    for row in await cursor.fetchall():
        for tag in conn.vault.open(row["sealed"], sealing.memory(row["id"]))["tags"]:
            named[sealing.facets(conn.vault, tags=[tag], metadata={}, source=None)[0]] = tag
    tags = [(named[row["hash"]], row["rows"]) for row in counted if row["hash"] in named]
    return dict(tags[:TAGS])


async def set_visibility(
    conn: Connection, *, org_id: UUID, memory_id: UUID, owner_id: UUID, visibility: Visibility
) -> None:
    """Let others see a row, or no more. Raises InvalidInput when its owner belongs to no division that could."""
    division_id = await division_of(conn, org_id, owner_id) if visibility == "division" else None
    await conn.execute(
        "UPDATE memories SET visibility = %s, division_id = %s, updated_at = now() WHERE org_id = %s AND id = %s",
        [visibility, division_id, org_id, memory_id],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a row stands in the order of age."""

    created_at: datetime
    id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class Twin:
    """A younger row that says what an older one says."""

    kept: UUID
    other: UUID
    similarity: float
    """Cosine; 1 for the same content."""
    exact: bool
    seen: tuple[datetime, datetime]
    """`updated_at` of both."""


# Passages of documents and recordings, and chat messages, are left alone: their source would lack them, and they
# change with it.
_OWN: Final = (
    f"m.org_id = %(org)s AND m.document_id IS NULL AND m.segment_id IS NULL AND m.memory_type <> '{CHAT_MESSAGE}'"
    " AND (m.expires_at IS NULL OR m.expires_at > now()) AND (%(owner)s::uuid IS NULL OR m.user_id = %(owner)s)"
)


async def by_age(
    conn: Connection, *, org_id: UUID, owner_id: UUID | None, after: Place | None, limit: int
) -> tuple[list[Place], int]:
    """A page of the rows that may be merged, of one owner or of all, the oldest first; and how many there are."""
    values: dict[str, Any] = {"org": org_id, "owner": owner_id, "limit": limit}
    later = ""
    if after is not None:
        later = " AND (m.created_at, m.id) > (%(at)s, %(id)s)"
        values |= {"at": after.created_at, "id": after.id}
    cursor = await conn.execute(
        "SELECT m.created_at, m.id, count(*) OVER () AS rows FROM memories m"
        f" WHERE {_OWN}{later} ORDER BY m.created_at, m.id LIMIT %(limit)s",
        values,
    )
    rows = await cursor.fetchall()
    return [Place(created_at=row["created_at"], id=row["id"]) for row in rows], rows[0]["rows"] if rows else 0


async def twins(
    conn: Connection, *, org_id: UUID, owner_id: UUID | None, ids: Sequence[UUID], threshold: float
) -> list[Twin]:
    """Younger rows with the content of one of `ids`, or with a cosine of at least `threshold` to it; same type,
    visibility and recording. Of the near ones only the NEIGHBOURS nearest are looked at."""
    own = {"org": org_id, "owner": owner_id}
    page = await _compared(conn, "m.id = ANY(%(ids)s)", {**own, "ids": list(ids)})
    macs = list({row.content_mac for row in page.values()})
    same = await _compared(conn, "m.content_mac = ANY(%(macs)s)", {**own, "macs": macs})
    near = [pair for dim in DIMENSIONS for pair in await _near(conn, dim, org_id, list(page), threshold)]
    others = await _compared(conn, "m.id = ANY(%(ids)s)", {**own, "ids": list({other for _, other, _ in near})})
    found = {(twin.kept, twin.other): twin for twin in _exact(page, same)}
    for kept, other, similarity in near:
        if other in others and others[other].alike == page[kept].alike and others[other].age > page[kept].age:
            seen = (page[kept].updated_at, others[other].updated_at)
            twin = Twin(kept=kept, other=other, similarity=similarity, exact=False, seen=seen)
            found.setdefault((kept, other), twin)
    return list(found.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Compared:
    """What of a row decides whether it can be another one's twin."""

    id: UUID
    age: tuple[datetime, UUID]
    alike: tuple[Any, ...]
    """Equal for rows that may be merged."""
    content_mac: int
    updated_at: datetime


async def _compared(conn: Connection, condition: str, values: dict[str, Any]) -> dict[UUID, _Compared]:
    cursor = await conn.execute(
        "SELECT m.id, m.created_at, m.memory_type, m.visibility, m.division_id, m.recording_id, m.content_mac,"
        f" m.updated_at FROM memories m WHERE {condition} AND {_OWN}",
        values,
    )
    return {
        row["id"]: _Compared(
            id=row["id"],
            age=(row["created_at"], row["id"]),
            alike=(row["memory_type"], row["visibility"], row["division_id"], row["recording_id"]),
            content_mac=row["content_mac"],
            updated_at=row["updated_at"],
        )
        for row in await cursor.fetchall()
    }


def _exact(page: Mapping[UUID, _Compared], same: Mapping[UUID, _Compared]) -> list[Twin]:
    """Of equal rows the oldest one of the page, with all that are younger."""
    equal: dict[tuple[Any, ...], list[_Compared]] = {}
    for row in sorted(same.values(), key=lambda row: row.age):
        equal.setdefault((row.content_mac, row.alike), []).append(row)
    found = []
    for rows in equal.values():
        first = next((n for n, row in enumerate(rows) if row.id in page), len(rows))
        found += [
            Twin(kept=kept.id, other=row.id, similarity=1.0, exact=True, seen=(kept.updated_at, row.updated_at))
            for kept in rows[first : first + 1]
            for row in rows[first + 1 :]
        ]
    return found


async def _near(
    conn: Connection, dim: int, org_id: UUID, ids: Sequence[UUID], threshold: float
) -> list[tuple[UUID, UUID, float]]:
    """(row, another one, cosine), the nearest first."""
    await conn.execute(
        "SELECT set_config('hnsw.iterative_scan', 'strict_order', true), set_config('hnsw.ef_search', %s, true)",
        [str(MIN_EF_SEARCH)],
    )
    vectors = f"memory_vectors_{dim}"
    cursor = await conn.execute(
        f"SELECT v.memory_id AS kept, n.memory_id AS other, n.similarity FROM {vectors} v CROSS JOIN LATERAL ("
        f"SELECT w.memory_id, 1 - (w.embedding <=> v.embedding) AS similarity FROM {vectors} w"
        " WHERE w.org_id = %(org)s AND w.model = v.model ORDER BY w.embedding <=> v.embedding"
        f" LIMIT {NEIGHBOURS}) n WHERE v.org_id = %(org)s AND v.memory_id = ANY(%(ids)s)"
        " AND n.memory_id <> v.memory_id AND n.similarity >= %(threshold)s ORDER BY n.similarity DESC",
        {"org": org_id, "ids": list(ids), "threshold": threshold},
    )
    return [(row["kept"], row["other"], row["similarity"]) for row in await cursor.fetchall()]


async def present(conn: Connection, *, org_id: UUID, ids: Sequence[UUID]) -> set[UUID]:
    """Which of these rows the caller may see."""
    cursor = await conn.execute("SELECT id FROM memories WHERE org_id = %s AND id = ANY(%s)", [org_id, list(ids)])
    return {row["id"] for row in await cursor.fetchall()}


async def organisations_with_expired(conn: Connection) -> list[UUID]:
    """Organisations that have rows to delete; for the platform's own housekeeping."""
    cursor = await conn.execute("SELECT org_id FROM organisations_with_expired_memories()")
    return [row["org_id"] for row in await cursor.fetchall()]


async def delete_expired(conn: Connection, *, org_id: UUID, limit: int) -> int:
    """Delete at most `limit` rows whose time is over; how many."""
    cursor = await conn.execute(
        "DELETE FROM memories WHERE org_id = %(org)s AND id IN (SELECT id FROM memories WHERE org_id = %(org)s"
        " AND expires_at <= now() ORDER BY id LIMIT %(limit)s FOR UPDATE)",
        {"org": org_id, "limit": limit},
    )
    return cursor.rowcount
