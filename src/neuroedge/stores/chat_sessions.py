"""Chat sessions: who holds one, who may read along, which branch is active.

Row level security shows a session to its user, and to others when it is shared; only its user can change it.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from neuroedge.contract.ports import Visibility
from neuroedge.stores.postgres import Connection

_COLUMNS: Final = "id, user_id, visibility, archived, leaf_id, sealed, created_at, updated_at"


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSettings:
    """How a session is answered."""

    local_only: bool = False
    """Nothing of it leaves the machine."""
    system_prompt: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What is said of a session; sealed."""

    title: str | None = None
    """None until there is a question to make it from."""
    model: str | None = None
    """The user's choice, as `contract.chat.Policy.model` takes it."""
    settings: SessionSettings = SessionSettings()


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A conversation of one user."""

    id: UUID
    user_id: UUID
    title: str | None
    model: str | None
    settings: SessionSettings
    visibility: Visibility
    archived: bool
    leaf_id: UUID | None
    """The newest message of the branch that is shown; None without messages."""
    created_at: datetime
    updated_at: datetime


async def insert(
    conn: Connection, *, org_id: UUID, user_id: UUID, session_id: UUID, said: Said, visibility: Visibility
) -> Session:
    """Store a new session. Raises psycopg's CheckViolation for a division the user is in none of."""
    cursor = await conn.execute(
        "INSERT INTO chat_sessions (org_id, id, user_id, visibility, division_id, sealed) VALUES (%(org)s, %(id)s,"
        " %(user)s, %(visibility)s, CASE WHEN %(visibility)s = 'division' THEN (SELECT division_id FROM memberships"
        f" WHERE org_id = %(org)s AND user_id = %(user)s) END, %(sealed)s) RETURNING {_COLUMNS}",
        {
            "org": org_id,
            "id": session_id,
            "user": user_id,
            "visibility": visibility,
            "sealed": conn.vault.seal(asdict(said), _context(session_id)),
        },
    )
    row = await cursor.fetchone()
    assert row is not None
    return _opened(conn, row)


async def find(conn: Connection, session_id: UUID) -> Session | None:
    """One session the caller may see."""
    cursor = await conn.execute(f"SELECT {_COLUMNS} FROM chat_sessions WHERE id = %s", [session_id])
    row = await cursor.fetchone()
    return _opened(conn, row) if row else None


async def lock(conn: Connection, session_id: UUID) -> Session | None:
    """A session of the caller's own, which nobody else changes until the transaction ends; nor its messages."""
    cursor = await conn.execute(f"SELECT {_COLUMNS} FROM chat_sessions WHERE id = %s FOR UPDATE", [session_id])
    row = await cursor.fetchone()
    return _opened(conn, row) if row else None


async def recent(
    conn: Connection,
    *,
    user_id: UUID,
    shared: bool,
    archived: bool,
    limit: int,
    before: tuple[datetime, UUID] | None,
) -> list[Session]:
    """By their last change, the latest first: the user's own, or with `shared` what others let the user read."""
    conditions = [f"user_id {'<>' if shared else '='} %(user)s", "archived = %(archived)s"]
    values: dict[str, Any] = {"user": user_id, "archived": archived, "limit": limit}
    if before is not None:
        conditions.append("(updated_at, id) < (%(at)s, %(id)s)")
        values |= {"at": before[0], "id": before[1]}
    cursor = await conn.execute(
        f"SELECT {_COLUMNS} FROM chat_sessions WHERE {' AND '.join(conditions)}"
        " ORDER BY updated_at DESC, id DESC LIMIT %(limit)s",
        values,
    )
    return [_opened(conn, row) for row in await cursor.fetchall()]


async def named(conn: Connection, session_ids: Sequence[UUID]) -> dict[UUID, Session]:
    """Those of these sessions the caller may see."""
    cursor = await conn.execute(f"SELECT {_COLUMNS} FROM chat_sessions WHERE id = ANY(%s)", [list(session_ids)])
    return {row["id"]: _opened(conn, row) for row in await cursor.fetchall()}


async def update(
    conn: Connection, session_id: UUID, *, said: Said, archived: bool, visibility: Visibility, leaf_id: UUID | None
) -> None:
    """Store what a session is from now on. Raises psycopg's CheckViolation as `insert` does."""
    await conn.execute(
        "UPDATE chat_sessions s SET sealed = %(sealed)s, archived = %(archived)s, visibility = %(visibility)s,"
        " division_id = CASE WHEN %(visibility)s = 'division' THEN coalesce(s.division_id, (SELECT m.division_id FROM"
        " memberships m WHERE m.org_id = s.org_id AND m.user_id = s.user_id)) END, leaf_id = %(leaf)s,"
        " updated_at = now() WHERE id = %(id)s",
        {
            "sealed": conn.vault.seal(asdict(said), _context(session_id)),
            "archived": archived,
            "visibility": visibility,
            "leaf": leaf_id,
            "id": session_id,
        },
    )


async def set_leaf(conn: Connection, session_id: UUID, leaf_id: UUID | None) -> None:
    """Another message is the newest of the branch that is shown."""
    await conn.execute("UPDATE chat_sessions SET leaf_id = %s, updated_at = now() WHERE id = %s", [leaf_id, session_id])


async def touch(conn: Connection, session_id: UUID) -> None:
    """Something of the session changed."""
    await conn.execute("UPDATE chat_sessions SET updated_at = now() WHERE id = %s", [session_id])


async def delete(conn: Connection, session_id: UUID) -> bool:
    """Delete a session of the caller's own with its messages, what they are found by, and its attachments' rows;
    whether it was there."""
    if await lock(conn, session_id) is None:
        return False
    await conn.execute(
        "DELETE FROM memories m USING chat_messages c WHERE c.session_id = %s AND m.org_id = c.org_id AND m.id = c.id",
        [session_id],
    )
    return (await conn.execute("DELETE FROM chat_sessions WHERE id = %s", [session_id])).rowcount == 1


async def exist(conn: Connection, session_ids: Sequence[UUID]) -> set[UUID]:
    """Which of these ids are sessions the transaction sees."""
    cursor = await conn.execute("SELECT id FROM chat_sessions WHERE id = ANY(%s)", [list(session_ids)])
    return {row["id"] for row in await cursor.fetchall()}


async def organisations_with_unfinished(conn: Connection, before: datetime) -> list[UUID]:
    """Organisations with answers or uploads that began before that time and have not ended."""
    cursor = await conn.execute("SELECT org_id FROM organisations_with_unfinished_chats(%s)", [before])
    return [row["org_id"] for row in await cursor.fetchall()]


def _opened(conn: Connection, row: dict[str, Any]) -> Session:
    said = conn.vault.open(row.pop("sealed"), _context(row["id"]))
    return Session(**row, title=said["title"], model=said["model"], settings=SessionSettings(**said["settings"]))


def _context(session_id: UUID) -> str:
    return f"chat_sessions/{session_id}"
