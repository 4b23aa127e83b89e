"""Documents, where their processing stands, and which memories are their passages."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

from neuroedge.contract.ports import NewMemory, Visibility
from neuroedge.stores import memories
from neuroedge.stores.postgres import Connection

Status = Literal["queued", "running", "done", "failed"]
_NAMED_AT_ONCE: Final = 128
"""Chunks that are held open while they are looked at."""
_COLUMNS = (
    "id, user_id, visibility, status, sealed, media_type, bytes, pages, chunks, version, staged, attempts, error_code,"
    " error_detail, error_hint, created_at, updated_at, finished_at"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """What is said of a document; sealed."""

    title: str
    filename: str
    sha256: str
    source: str | None
    """The URL it was fetched from."""
    tags: Sequence[str]
    metadata: dict[str, Any]
    unread_pages: Sequence[int]
    """Pages without text, which optical character recognition is to read."""
    extract: bool = False
    """Whether its passages are to be read into the knowledge graph; documents of earlier versions do not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A document's file as it is stored: what was said of it, its size and what it was recognised as."""

    described: Described
    media_type: str
    bytes: int
    pages: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A document and where its processing stands. `version` counts the files it had, from 1."""

    id: UUID
    user_id: UUID
    described: Described
    visibility: Visibility
    status: Status
    media_type: str
    bytes: int
    pages: int | None
    chunks: int | None
    version: int
    staged: int
    """Batches of new chunks of this version that are embedded and kept."""
    attempts: int
    error_code: str | None
    error_detail: str | None
    error_hint: str | None
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None


async def insert(
    conn: Connection, *, org_id: UUID, user_id: UUID, document_id: UUID, file: File, visibility: Visibility
) -> Document:
    """Store a new document, queued. Raises psycopg's CheckViolation for a division the user is in none of."""
    await conn.execute(
        "INSERT INTO documents (org_id, id, user_id, visibility, division_id, status, sealed, content_mac, media_type,"
        " bytes, pages) VALUES (%(org)s, %(id)s, %(user)s, %(visibility)s, CASE WHEN %(visibility)s = 'division' THEN"
        " (SELECT division_id FROM memberships WHERE org_id = %(org)s AND user_id = %(user)s) END, 'queued',"
        " %(sealed)s, %(content_mac)s, %(media_type)s, %(bytes)s, %(pages)s)",
        {"org": org_id, "id": document_id, "user": user_id, "visibility": visibility, **_file(conn, document_id, file)},
    )
    found = await find(conn, document_id)
    assert found is not None
    return found


async def replace_file(conn: Connection, document_id: UUID, *, file: File) -> None:
    """The document has a new file, to be processed; its chunks stay until that is done."""
    await conn.execute(
        "UPDATE documents SET status = 'queued', sealed = %(sealed)s, content_mac = %(content_mac)s,"
        " media_type = %(media_type)s, bytes = %(bytes)s, pages = %(pages)s, version = version + 1, staged = 0,"
        " attempts = 0, errors = 0, error_code = NULL, error_detail = NULL, error_hint = NULL, finished_at = NULL,"
        " updated_at = now() WHERE id = %(id)s",
        {"id": document_id, **_file(conn, document_id, file)},
    )


async def find(conn: Connection, document_id: UUID, *, lock: bool = False) -> Document | None:
    """One document the caller may see; `lock` holds its row until the transaction ends."""
    query = f"SELECT {_COLUMNS} FROM documents WHERE id = %s" + (" FOR UPDATE" if lock else "")
    row = await (await conn.execute(query, [document_id])).fetchone()
    return _opened(conn, row) if row else None


async def with_content(conn: Connection, *, sha256: str, lock: bool = False) -> Document | None:
    """The oldest document the caller may see whose file has this hash, failed ones apart.

    With `lock`, others that ask for the same hash with it wait until this transaction ends.
    """
    mac = _content_mac(conn, sha256)
    if lock:
        await conn.execute("SELECT pg_advisory_xact_lock(%s)", [mac])
    cursor = await conn.execute(
        f"SELECT {_COLUMNS} FROM documents WHERE content_mac = %s AND status <> 'failed' ORDER BY id", [mac]
    )
    found = [_opened(conn, row) for row in await cursor.fetchall()]
    return next((one for one in found if one.described.sha256 == sha256), None)


async def recent(
    conn: Connection, *, limit: int, before: UUID | None = None, status: Status | None = None
) -> list[Document]:
    """Newest first; `before` continues after the last id of the page before (ids are in time order)."""
    cursor = await conn.execute(
        f"SELECT {_COLUMNS} FROM documents WHERE (%(before)s::uuid IS NULL OR id < %(before)s)"
        " AND (%(status)s::text IS NULL OR status = %(status)s) ORDER BY id DESC LIMIT %(limit)s",
        {"before": before, "status": status, "limit": limit},
    )
    return [_opened(conn, row) for row in await cursor.fetchall()]


async def delete(conn: Connection, document_id: UUID) -> bool:
    """Delete a document with its memories; whether it was there."""
    cursor = await conn.execute("DELETE FROM documents WHERE id = %s", [document_id])
    return cursor.rowcount == 1


async def exist(conn: Connection, document_ids: Sequence[UUID]) -> set[UUID]:
    """Which of these ids are documents the transaction sees."""
    cursor = await conn.execute("SELECT id FROM documents WHERE id = ANY(%s)", [list(document_ids)])
    return {row["id"] for row in await cursor.fetchall()}


async def start_attempt(conn: Connection, document_id: UUID) -> None:
    """A worker took the job."""
    await conn.execute(
        "UPDATE documents SET status = 'running', attempts = attempts + 1, updated_at = now() WHERE id = %s",
        [document_id],
    )


async def set_staged(conn: Connection, document_id: UUID, *, version: int, staged: int) -> bool:
    """So many batches are kept: progress, so the starts without it are forgotten. False: not this version any more."""
    cursor = await conn.execute(
        "UPDATE documents SET staged = %s, attempts = 0, updated_at = now() WHERE id = %s AND version = %s",
        [staged, document_id, version],
    )
    return cursor.rowcount == 1


async def count_error(conn: Connection, document_id: UUID) -> int:
    """One more error of its processing; how many there were."""
    cursor = await conn.execute(
        "UPDATE documents SET errors = errors + 1, updated_at = now() WHERE id = %s RETURNING errors", [document_id]
    )
    row = await cursor.fetchone()
    return int(row["errors"]) if row else 0


async def finish(conn: Connection, document_id: UUID, *, chunks: int) -> None:
    """Every chunk of the present version is a memory."""
    await conn.execute(
        "UPDATE documents SET status = 'done', chunks = %s, staged = 0, error_code = NULL, error_detail = NULL,"
        " error_hint = NULL, updated_at = now(), finished_at = now() WHERE id = %s",
        [chunks, document_id],
    )


async def fail(conn: Connection, document_id: UUID, *, code: str, detail: str, hint: str | None) -> None:
    """The document can't be processed."""
    await conn.execute(
        "UPDATE documents SET status = 'failed', error_code = %s, error_detail = %s, error_hint = %s,"
        " updated_at = now(), finished_at = now() WHERE id = %s",
        [code, detail, hint, document_id],
    )


async def chunk_macs(conn: Connection, document_id: UUID) -> dict[int, list[UUID]]:
    """The document's memories by the keyed hash of their chunk; equal chunks in order."""
    cursor = await conn.execute(
        "SELECT chunk_mac, memory_id FROM document_chunks WHERE document_id = %s ORDER BY memory_id", [document_id]
    )
    found: dict[int, list[UUID]] = {}
    for row in await cursor.fetchall():
        found.setdefault(row["chunk_mac"], []).append(row["memory_id"])
    return found


async def add_chunks(
    conn: Connection, *, org_id: UUID, user_id: UUID, document_id: UUID, items: Sequence[tuple[int, NewMemory]]
) -> None:
    """Store chunks, each with its keyed hash, as memories; for the document's division, wherever its user is now."""
    cursor = await conn.execute(
        "SELECT division_id FROM documents WHERE org_id = %s AND id = %s", [org_id, document_id]
    )
    row = await cursor.fetchone()
    ids = await memories.insert(
        conn,
        org_id=org_id,
        user_id=user_id,
        items=[item for _, item in items],
        division_id=row["division_id"] if row else None,
    )
    async with conn.cursor() as cursor:
        await cursor.executemany(
            "INSERT INTO document_chunks (org_id, document_id, memory_id, chunk_mac) VALUES (%s, %s, %s, %s)",
            [(org_id, document_id, memory_id, mac) for memory_id, (mac, _) in zip(ids, items, strict=True)],
        )


async def keep_chunks(conn: Connection, *, org_id: UUID, document_id: UUID, kept: dict[UUID, int]) -> None:
    """Delete the document's memories but `kept`, which get these positions. Run it before `add_chunks`."""
    # All at once and in one order, before anything else: so does who changes one of them.
    await conn.execute(
        "SELECT 1 FROM memories WHERE org_id = %s AND document_id = %s ORDER BY id FOR UPDATE", [org_id, document_id]
    )
    await conn.execute(
        "DELETE FROM memories WHERE org_id = %s AND document_id = %s AND NOT id = ANY(%s)",
        [org_id, document_id, list(kept)],
    )
    await conn.execute(
        "UPDATE memories m SET position = n.position, updated_at = now()"
        " FROM unnest(%s::uuid[], %s::integer[]) n (id, position)"
        " WHERE m.org_id = %s AND m.id = n.id AND m.position IS DISTINCT FROM n.position",
        [list(kept), list(kept.values()), org_id],
    )


async def name_chunks(conn: Connection, *, org_id: UUID, ids: Sequence[UUID], filename: str, source: str) -> None:
    """Let chunks that were kept tell which file they are of now."""
    for start in range(0, len(ids), _NAMED_AT_ONCE):
        items = {}
        for memory in await memories.find(conn, org_id=org_id, ids=ids[start : start + _NAMED_AT_ONCE], lock=True):
            named = {"metadata": {**memory.metadata, "filename": filename}, "source": source}
            if named != {"metadata": memory.metadata, "source": memory.source}:
                items[memory.id] = memories.item_of(memory, named)
        await memories.relabel(conn, org_id=org_id, items=items)


async def chunk_ids(conn: Connection, *, org_id: UUID, document_id: UUID, limit: int, after: int = -1) -> list[UUID]:
    """Memories of a document's chunks in order, those beyond the position `after`."""
    cursor = await conn.execute(
        "SELECT id FROM memories WHERE org_id = %s AND document_id = %s AND position > %s ORDER BY position LIMIT %s",
        [org_id, document_id, after, limit],
    )
    return [row["id"] for row in await cursor.fetchall()]


def _file(conn: Connection, document_id: UUID, file: File) -> dict[str, Any]:
    described = file.described
    kept = {
        "title": described.title,
        "filename": described.filename,
        "sha256": described.sha256,
        "source": described.source,
        "tags": list(described.tags),
        "metadata": described.metadata,
        "unread_pages": list(described.unread_pages),
        "extract": described.extract,
    }
    return {
        "sealed": conn.vault.seal(kept, _context(document_id)),
        "content_mac": _content_mac(conn, described.sha256),
        "media_type": file.media_type,
        "bytes": file.bytes,
        "pages": file.pages,
    }


def _opened(conn: Connection, row: dict[str, Any]) -> Document:
    described = conn.vault.open(row.pop("sealed"), _context(row["id"]))
    return Document(described=Described(**described), **row)


def _content_mac(conn: Connection, sha256: str) -> int:
    return conn.vault.blind(f"document:{sha256}")


def _context(document_id: UUID) -> str:
    return f"documents/{document_id}"
