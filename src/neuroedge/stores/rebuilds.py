"""Embedding an organisation's memories anew: what lacks a vector of the new model, the switch, the old vectors' end.

The transaction must see all memories of the organisation (`sees_all`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

from neuroedge.contract.models import Floats
from neuroedge.kit.chunking import PATH_SEPARATOR
from neuroedge.stores import knowledge, sealing
from neuroedge.stores.derived import ALL_TYPES
from neuroedge.stores.memories import DIMENSIONS, add_vectors, rederive, searched
from neuroedge.stores.postgres import Connection

State = Literal["running", "done", "failed"]
_DELETED_AT_ONCE: Final = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuild:
    """The last rebuild of an organisation's index."""

    id: UUID
    model: str
    words: bool
    """Whether the words' weights are made anew too."""
    state: State
    stage: str
    done: int
    total: int
    error: str | None
    requested_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lacking:
    """A memory without a vector; `updated_at` tells later whether `text` is still what it says."""

    id: UUID
    text: str
    updated_at: datetime


async def request(conn: Connection, *, org_id: UUID, rebuild_id: UUID, model: str, words: bool) -> bool:
    """Note a new rebuild in the place of the last; False when that one is not over."""
    cursor = await conn.execute(
        "INSERT INTO rebuilds AS r (org_id, id, model, words, total)"
        " SELECT %(org)s, %(id)s, %(model)s, %(words)s, count(*) FROM memories WHERE org_id = %(org)s"
        " ON CONFLICT (org_id) DO UPDATE SET id = EXCLUDED.id, model = EXCLUDED.model, words = EXCLUDED.words,"
        " state = 'running', stage = 'embedding', done = 0, total = EXCLUDED.total, error = NULL,"
        " requested_at = now(), finished_at = NULL WHERE r.state <> 'running'",
        {"org": org_id, "id": rebuild_id, "model": model, "words": words},
    )
    return cursor.rowcount == 1


async def find(conn: Connection, *, org_id: UUID) -> Rebuild | None:
    """The last one."""
    cursor = await conn.execute(
        "SELECT id, model, words, state, stage, done, total, error, requested_at, finished_at FROM rebuilds"
        " WHERE org_id = %s",
        [org_id],
    )
    row = await cursor.fetchone()
    return Rebuild(**row) if row else None


async def note(conn: Connection, *, org_id: UUID, rebuild_id: UUID, stage: str, done: int) -> None:
    """Where it is."""
    await conn.execute(
        "UPDATE rebuilds SET stage = %s, done = %s, total = greatest(total, %s) WHERE org_id = %s AND id = %s",
        [stage, done, done, org_id, rebuild_id],
    )


async def finish(conn: Connection, *, org_id: UUID, rebuild_id: UUID, error: str | None = None) -> None:
    """Note its end, good or bad."""
    await conn.execute(
        "UPDATE rebuilds SET state = %s, error = %s, finished_at = now() WHERE org_id = %s AND id = %s",
        ["failed" if error else "done", error, org_id, rebuild_id],
    )


async def lacking(
    conn: Connection, *, org_id: UUID, model: str, dim: int, after: UUID | None, limit: int
) -> list[Lacking]:
    """Memories without a vector by this model, by id."""
    cursor = await conn.execute(
        f"SELECT m.id, m.sealed, m.updated_at, m.document_id FROM memories m WHERE {_LACKS.format(dim=dim)}"
        " AND (%(after)s::uuid IS NULL OR m.id > %(after)s) ORDER BY m.id LIMIT %(limit)s",
        {"org": org_id, "model": model, "after": after, "limit": limit, **_unembedded(conn)},
    )
    return [
        Lacking(id=row["id"], text=_embedded(conn, row), updated_at=row["updated_at"])
        for row in await cursor.fetchall()
    ]


async def embedded(conn: Connection, *, org_id: UUID, model: str, dim: int) -> int:
    """How many vectors by this model there are."""
    cursor = await conn.execute(
        f"SELECT count(*) AS n FROM memory_vectors_{dim} WHERE org_id = %s AND model = %s", [org_id, model]
    )
    row = await cursor.fetchone()
    return int(row["n"]) if row else 0


async def keep(
    conn: Connection, *, org_id: UUID, model: str, rows: Sequence[Lacking], vectors: Sequence[Floats]
) -> None:
    """Store vectors of those rows that still say what was embedded."""
    cursor = await conn.execute(
        # Shared: nobody changes or deletes them before the vectors are stored.
        "SELECT id, updated_at FROM memories WHERE org_id = %s AND id = ANY(%s) ORDER BY id FOR SHARE",
        [org_id, [row.id for row in rows]],
    )
    present = {row["id"]: row["updated_at"] for row in await cursor.fetchall()}
    await add_vectors(
        conn,
        org_id=org_id,
        vectors=[
            (row.id, model, vector)
            for row, vector in zip(rows, vectors, strict=True)
            if present.get(row.id) == row.updated_at
        ],
    )


async def switch(conn: Connection, *, org_id: UUID, model: str, dim: int) -> bool:
    """Search with this model from now on; False, and nothing done, while some memory has no vector by it."""
    # Who stores memories takes this row first: none is stored until this transaction ends.
    await conn.execute("SELECT FROM corpus_stats WHERE org_id = %s FOR UPDATE", [org_id])
    cursor = await conn.execute(
        f"SELECT EXISTS (SELECT FROM memories m WHERE {_LACKS.format(dim=dim)}) AS lacking",
        {"org": org_id, "model": model, **_unembedded(conn)},
    )
    row = await cursor.fetchone()
    if row is None or row["lacking"]:
        return False
    await conn.execute("UPDATE organisations SET embedding_model = %s WHERE id = %s", [model, org_id])
    return True


async def forget_others(conn: Connection, *, org_id: UUID, model: str) -> bool:
    """Delete some vectors by other models; False when there are none left."""
    deleted = 0
    for dim in DIMENSIONS:
        cursor = await conn.execute(
            f"DELETE FROM memory_vectors_{dim} WHERE org_id = %(org)s AND (memory_id, model) IN"
            f" (SELECT memory_id, model FROM memory_vectors_{dim} WHERE org_id = %(org)s AND model <> %(model)s"
            " LIMIT %(limit)s)",
            {"org": org_id, "model": model, "limit": _DELETED_AT_ONCE},
        )
        deleted += cursor.rowcount
    return deleted > 0


async def forget_unembedded(conn: Connection, *, org_id: UUID) -> bool:
    """Delete some vectors of memories whose type must have none; False when there are none left."""
    deleted = 0
    for dim in DIMENSIONS:
        cursor = await conn.execute(
            f"DELETE FROM memory_vectors_{dim} v USING (SELECT id FROM memories m WHERE m.org_id = %(org)s"
            f" AND {_UNEMBEDDED} AND EXISTS (SELECT FROM memory_vectors_{dim} w WHERE w.org_id = m.org_id"
            " AND w.memory_id = m.id) LIMIT %(limit)s) gone WHERE v.org_id = %(org)s AND v.memory_id = gone.id",
            {"org": org_id, "limit": _DELETED_AT_ONCE, **_unembedded(conn)},
        )
        deleted += cursor.rowcount
    return deleted > 0


async def reweigh(conn: Connection, *, org_id: UUID, after: UUID | None, limit: int) -> UUID | None:
    """Give memories after one the BM25 weights of today's average length; the last, None when there was none."""
    cursor = await conn.execute(
        "SELECT id, memory_type, length, sealed FROM memories WHERE org_id = %(org)s"
        " AND (%(after)s::uuid IS NULL OR id > %(after)s)"
        " ORDER BY id LIMIT %(limit)s FOR UPDATE",
        {"org": org_id, "after": after, "limit": limit},
    )
    rows = await cursor.fetchall()
    if not rows:
        return None
    last: UUID = rows[-1]["id"]
    stale = [row["id"] for row in rows if (row["length"] > 0) != conn.underived.hashes(row["memory_type"])]
    nameless = [row["id"] for row in rows if not conn.underived.hashes(row["memory_type"])]
    # The graph holds keyed hashes of words of names. It comes before the corpus: else two could wait for one another.
    await knowledge.forget(conn, org_id=org_id, memory_ids=nameless)
    await rederive(conn, org_id=org_id, ids=stale)
    rows = [row for row in rows if row["id"] not in stale]
    stats = await (
        await conn.execute("SELECT documents, words FROM corpus_stats WHERE org_id = %s", [org_id])
    ).fetchone()
    average = stats["words"] / stats["documents"] if stats and stats["documents"] else 0.0
    said = [conn.vault.open(row["sealed"], sealing.memory(row["id"])) for row in rows]
    hashed = [conn.underived.hashes(row["memory_type"]) for row in rows]
    texts = [searched(one["title"], one["content"]) if kept else "" for one, kept in zip(said, hashed, strict=True)]
    weights = sealing.Words.of(texts, conn.vault).weights(average_length=average)
    async with conn.cursor() as writing:
        await writing.executemany(
            "UPDATE memories SET terms = %s::sparsevec WHERE org_id = %s AND id = %s",
            [(weight.text(), org_id, row["id"]) for row, weight in zip(rows, weights, strict=True)],
        )
    return last


_UNEMBEDDED: Final = "(m.memory_type = ANY(%(unembedded)s) OR %(none_embedded)s)"
_LACKS: Final = (
    f"m.org_id = %(org)s AND NOT {_UNEMBEDDED} AND NOT EXISTS (SELECT FROM memory_vectors_{{dim}} v"
    " WHERE v.org_id = m.org_id AND v.memory_id = m.id AND v.model = %(model)s)"
)


def _unembedded(conn: Connection) -> dict[str, Any]:
    types = conn.underived.embedding
    return {"unembedded": list(types), "none_embedded": ALL_TYPES in types}


def _embedded(conn: Connection, row: dict[str, Any]) -> str:
    """What is embedded of a memory: a document's passage with its headings, else the content."""
    said = conn.vault.open(row["sealed"], sealing.memory(row["id"]))
    path = said["metadata"].get("heading_path") if row["document_id"] else None
    content: str = said["content"]
    return f"{PATH_SEPARATOR.join(path)}\n\n{content}" if path else content
