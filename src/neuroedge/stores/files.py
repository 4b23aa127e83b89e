"""Files that applications keep; each is seen by its user alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from neuroedge.stores.postgres import Connection

_COLUMNS: Final = "id, purpose, bytes, sealed, created_at, expires_at"
_ALIVE: Final = "(expires_at IS NULL OR expires_at > now())"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A file without its content, which is an object."""

    id: UUID
    filename: str
    purpose: str
    bytes: int
    created_at: datetime
    expires_at: datetime | None


def context(file_id: UUID) -> str:
    """Where a row's sealed value belongs."""
    return f"files/{file_id}"


async def insert(
    conn: Connection,
    *,
    org_id: UUID,
    user_id: UUID,
    file_id: UUID,
    filename: str,
    purpose: str,
    size_bytes: int,
    expires_at: datetime | None,
) -> StoredFile:
    """Store a file's row."""
    cursor = await conn.execute(
        "INSERT INTO files (org_id, id, user_id, purpose, bytes, sealed, expires_at)"
        f" VALUES (%s, %s, %s, %s, %s, %s, %s) RETURNING {_COLUMNS}",
        [
            org_id,
            file_id,
            user_id,
            purpose,
            size_bytes,
            conn.vault.seal({"filename": filename}, context(file_id)),
            expires_at,
        ],
    )
    return _opened(conn, await cursor.fetchone() or {})


async def find(conn: Connection, file_id: UUID) -> StoredFile | None:
    """One of the user's, unless its time is over."""
    row = await (await conn.execute(f"SELECT {_COLUMNS} FROM files WHERE id = %s AND {_ALIVE}", [file_id])).fetchone()
    return _opened(conn, row) if row else None


async def page(
    conn: Connection, *, limit: int, after: UUID | None, ascending: bool, purpose: str | None
) -> list[StoredFile]:
    """The user's files by time (ids are in time order), beyond the id `after`."""
    order, beyond = ("ASC", ">") if ascending else ("DESC", "<")
    cursor = await conn.execute(
        f"SELECT {_COLUMNS} FROM files WHERE {_ALIVE} AND (%(after)s::uuid IS NULL OR id {beyond} %(after)s)"
        f" AND (%(purpose)s::text IS NULL OR purpose = %(purpose)s) ORDER BY id {order} LIMIT %(limit)s",
        {"after": after, "purpose": purpose, "limit": limit},
    )
    return [_opened(conn, row) for row in await cursor.fetchall()]


async def count(conn: Connection) -> int:
    """How many the user has, those included whose time is over."""
    row = await (await conn.execute("SELECT count(*) AS n FROM files")).fetchone()
    return int(row["n"]) if row else 0


async def delete(conn: Connection, file_id: UUID) -> bool:
    """Delete the row; whether it was there. Its object is the caller's to delete."""
    return (await conn.execute("DELETE FROM files WHERE id = %s", [file_id])).rowcount == 1


async def exist(conn: Connection, file_ids: Sequence[UUID]) -> set[UUID]:
    """Which of these ids are files the transaction sees."""
    cursor = await conn.execute("SELECT id FROM files WHERE id = ANY(%s)", [list(file_ids)])
    return {row["id"] for row in await cursor.fetchall()}


async def delete_expired(conn: Connection, *, org_id: UUID, limit: int) -> list[UUID]:
    """Delete rows of files whose time is over; the transaction must see all of the organisation's."""
    cursor = await conn.execute(
        "DELETE FROM files WHERE org_id = %s AND id IN"
        " (SELECT id FROM files WHERE org_id = %s AND expires_at <= now() LIMIT %s) RETURNING id",
        [org_id, org_id, limit],
    )
    return [row["id"] for row in await cursor.fetchall()]


async def organisations_with_expired(conn: Connection) -> list[UUID]:
    """Organisations with a file whose time is over."""
    cursor = await conn.execute("SELECT org_id FROM organisations_with_expired_files()")
    return [row["org_id"] for row in await cursor.fetchall()]


def _opened(conn: Connection, row: dict[str, Any]) -> StoredFile:
    told = conn.vault.open(row["sealed"], context(row["id"]))
    return StoredFile(
        id=row["id"],
        filename=told["filename"],
        purpose=row["purpose"],
        bytes=row["bytes"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
    )
