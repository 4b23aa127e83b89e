"""Files attached to chat sessions: where their reading stands, and their text. The file itself lies in the blob store.

A row is stored before its object and deleted after it, so that what a crash leaves is found by its row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

from neuroedge.stores.postgres import Connection

State = Literal["storing", "queued", "running", "done", "failed"]
Kind = Literal["text", "image", "audio"]
FOLDER: Final = "chat_sessions"
_NAMES: Final = (
    "id",
    "session_id",
    "user_id",
    "state",
    "kind",
    "media_type",
    "bytes",
    "pages",
    "characters",
    "attempts",
    "sealed",
    "error_code",
    "error_detail",
    "error_hint",
    "created_at",
    "finished_at",
)
_COLUMNS: Final = ", ".join(_NAMES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """A file and where its reading stands."""

    id: UUID
    session_id: UUID
    user_id: UUID
    filename: str
    unread_pages: Sequence[int]
    """Pages, from 1, without text: optical character recognition reads them."""
    state: State
    kind: Kind
    media_type: str
    bytes: int
    pages: int | None
    characters: int | None
    """Of its text, once it is read."""
    attempts: int
    error_code: str | None
    error_detail: str | None
    error_hint: str | None
    created_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewAttachment:
    """A file to keep."""

    id: UUID
    session_id: UUID
    filename: str
    unread_pages: Sequence[int]
    kind: Kind
    media_type: str
    bytes: int
    pages: int | None


def folder_of(session_id: UUID, attachment_id: UUID | None = None) -> str:
    """Where the objects of a session, or of one of its attachments, lie."""
    return f"{FOLDER}/{session_id}" + (f"/{attachment_id}" if attachment_id else "")


def original_of(attachment: Attachment | NewAttachment) -> str:
    """Where the file as it was sent lies."""
    return f"{folder_of(attachment.session_id, attachment.id)}/original"


async def insert(conn: Connection, *, org_id: UUID, user_id: UUID, item: NewAttachment) -> None:
    """Store a file that is on its way into the blob store."""
    sealed = conn.vault.seal({"filename": item.filename, "unread_pages": list(item.unread_pages)}, _context(item.id))
    await conn.execute(
        "INSERT INTO chat_attachments (org_id, id, session_id, user_id, state, kind, media_type, bytes, pages, sealed)"
        " VALUES (%s, %s, %s, %s, 'storing', %s, %s, %s, %s, %s)",
        [org_id, item.id, item.session_id, user_id, item.kind, item.media_type, item.bytes, item.pages, sealed],
    )


async def find(
    conn: Connection, *, session_id: UUID, ids: Sequence[UUID] | None = None, lock: bool = False
) -> list[Attachment]:
    """Those of these attachments, or all, that belong to a session the caller may see; in the order they came."""
    cursor = await conn.execute(
        f"SELECT {_COLUMNS} FROM chat_attachments WHERE session_id = %(session)s AND state <> 'storing'"
        " AND (%(ids)s::uuid[] IS NULL OR id = ANY(%(ids)s)) ORDER BY id" + (" FOR UPDATE" if lock else ""),
        {"session": session_id, "ids": None if ids is None else list(ids)},
    )
    return [_opened(conn, row) for row in await cursor.fetchall()]


async def texts(conn: Connection, *, session_id: UUID, ids: Sequence[UUID]) -> dict[UUID, str]:
    """What was read in those of these attachments that are read."""
    cursor = await conn.execute(
        "SELECT id, text FROM chat_attachments WHERE session_id = %s AND id = ANY(%s) AND text IS NOT NULL",
        [session_id, list(ids)],
    )
    return {row["id"]: conn.vault.open(row["text"], _text_context(row["id"])) for row in await cursor.fetchall()}


async def count(conn: Connection, session_id: UUID) -> int:
    """Attachments of a session, those on their way included."""
    cursor = await conn.execute("SELECT count(*) AS n FROM chat_attachments WHERE session_id = %s", [session_id])
    row = await cursor.fetchone()
    return int(row["n"]) if row else 0


async def stored(conn: Connection, attachment_id: UUID) -> bool:
    """The object is in the blob store and waits to be read; whether the row was still there."""
    cursor = await conn.execute(
        "UPDATE chat_attachments SET state = 'queued' WHERE id = %s AND state = 'storing'", [attachment_id]
    )
    return cursor.rowcount == 1


async def start_attempt(conn: Connection, attachment_id: UUID) -> None:
    """A worker took the job."""
    await conn.execute(
        "UPDATE chat_attachments SET state = 'running', attempts = attempts + 1 WHERE id = %s", [attachment_id]
    )


async def finish(conn: Connection, attachment_id: UUID, *, text: str) -> bool:
    """Keep what was read; whether the row was still there."""
    cursor = await conn.execute(
        "UPDATE chat_attachments SET state = 'done', text = %s, characters = %s, error_code = NULL,"
        " error_detail = NULL, error_hint = NULL, finished_at = now() WHERE id = %s",
        [conn.vault.seal(text, _text_context(attachment_id)), len(text), attachment_id],
    )
    return cursor.rowcount == 1


async def fail(conn: Connection, attachment_id: UUID, *, code: str, detail: str, hint: str | None) -> bool:
    """The file can't be read; whether the row was still there."""
    cursor = await conn.execute(
        "UPDATE chat_attachments SET state = 'failed', error_code = %s, error_detail = %s, error_hint = %s,"
        " finished_at = now() WHERE id = %s",
        [code, detail, hint, attachment_id],
    )
    return cursor.rowcount == 1


async def delete(conn: Connection, *, session_id: UUID, attachment_id: UUID) -> bool:
    """Delete the row; whether it was there. Its object is the caller's to delete, first."""
    cursor = await conn.execute(
        "DELETE FROM chat_attachments WHERE session_id = %s AND id = %s", [session_id, attachment_id]
    )
    return cursor.rowcount == 1


async def abandoned(conn: Connection, before: datetime, *, limit: int) -> list[tuple[UUID, UUID]]:
    """(session, attachment) of uploads that began before that time and never arrived; the transaction must see all."""
    cursor = await conn.execute(
        "SELECT session_id, id FROM chat_attachments WHERE state = 'storing' AND created_at < %s ORDER BY id LIMIT %s",
        [before, limit],
    )
    return [(row["session_id"], row["id"]) for row in await cursor.fetchall()]


def _opened(conn: Connection, row: dict[str, Any]) -> Attachment:
    said = conn.vault.open(row.pop("sealed"), _context(row["id"]))
    return Attachment(**row, filename=said["filename"], unread_pages=said["unread_pages"])


def _context(attachment_id: UUID) -> str:
    return f"chat_attachments/{attachment_id}"


def _text_context(attachment_id: UUID) -> str:
    return f"chat_attachments/{attachment_id}/text"
