"""The assistant's turns: who answers which message, since when, and whether it shall stop.

A turn is running as long as a worker is named: one run of it, in one process. It says every second that it lives; a
turn whose worker has been silent may be taken over by another one, which goes on from the last checkpoint. The same
second brings the worker the news that its turn is cancelled or taken over, or that the session is gone.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal
from uuid import UUID

from neuroedge.stores.postgres import Connection

_COLUMNS = "id, session_id, message_id, fingerprint, worker, seen_at < now() - %(silent)s AS silent"
SILENT_AFTER = timedelta(seconds=10)
"""A worker that has not been heard of for so long is taken for dead."""

Standing = Literal["mine", "cancelled", "gone"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A question being answered, or answered."""

    id: UUID
    """Also the thread of its checkpoints."""
    session_id: UUID
    message_id: UUID | None
    """The assistant's message; None until it is there."""
    fingerprint: bytes
    """Hash of all that was asked for."""
    worker: UUID | None
    """The run that answers; None when it is over."""
    silent: bool
    """Nothing was heard of the worker for SILENT_AFTER."""

    @property
    def abandoned(self) -> bool:
        """It was begun, and nobody is at it any more."""
        return self.worker is not None and self.silent


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """What a process that died was answering."""

    id: UUID
    user_id: UUID
    session_id: UUID
    message_id: UUID
    cancelled: bool
    """Its user wanted it stopped."""
    age: timedelta


async def insert(
    conn: Connection,
    *,
    org_id: UUID,
    user_id: UUID,
    turn_id: UUID,
    session_id: UUID,
    worker: UUID,
    idempotency_key: str | None,
    fingerprint: bytes,
) -> bool:
    """Begin a turn; False, and nothing stored, when its user has one with its key. Raises NotFound: no session."""
    cursor = await conn.execute(
        "INSERT INTO turns (org_id, id, user_id, session_id, worker, idempotency_key, fingerprint)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s)"
        " ON CONFLICT (org_id, user_id, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING",
        [org_id, turn_id, user_id, session_id, worker, idempotency_key, fingerprint],
    )
    return cursor.rowcount == 1


async def set_message(conn: Connection, turn_id: UUID, message_id: UUID) -> None:
    """Name the message the answer goes to. Raises NotFound when it is gone."""
    await conn.execute("UPDATE turns SET message_id = %s WHERE id = %s", [message_id, turn_id])


async def find(conn: Connection, turn_id: UUID) -> Turn | None:
    """One of the caller's turns."""
    return await _one(conn, "id = %(wanted)s", turn_id)


async def of_message(conn: Connection, message_id: UUID) -> Turn | None:
    """The turn that answers with this message."""
    return await _one(conn, "message_id = %(wanted)s", message_id)


async def of_key(conn: Connection, user_id: UUID, idempotency_key: str) -> Turn | None:
    """The turn a user began with this key."""
    cursor = await conn.execute(
        f"SELECT {_COLUMNS} FROM turns WHERE user_id = %(user)s AND idempotency_key = %(key)s",
        {"silent": SILENT_AFTER, "user": user_id, "key": idempotency_key},
    )
    row = await cursor.fetchone()
    return Turn(**row) if row else None


async def left(conn: Connection, *, limit: int) -> list[Left]:
    """Turns of every user that were begun and nobody is at any more, though their messages wait, the oldest first; the
    transaction must see all of them."""
    cursor = await conn.execute(
        "SELECT t.id, t.user_id, t.session_id, t.message_id, t.cancelled, now() - t.created_at AS age FROM turns t"
        " JOIN chat_messages m ON m.org_id = t.org_id AND m.id = t.message_id AND m.state = 'running'"
        " WHERE t.worker IS NOT NULL AND t.seen_at < now() - %s ORDER BY t.id LIMIT %s",
        [SILENT_AFTER, limit],
    )
    return [Left(**row) for row in await cursor.fetchall()]


async def take_over(conn: Connection, turn_id: UUID, *, worker: UUID) -> bool:
    """Be the worker of a turn nobody is at any more; False when somebody is, or it is over."""
    cursor = await conn.execute(
        "UPDATE turns SET worker = %s, seen_at = now() WHERE id = %s AND worker IS NOT NULL AND seen_at < now() - %s",
        [worker, turn_id, SILENT_AFTER],
    )
    return cursor.rowcount == 1


async def seen(conn: Connection, turn_id: UUID, *, worker: UUID) -> Standing:
    """Say that the worker lives; hear whether the turn is still its own."""
    cursor = await conn.execute(
        "UPDATE turns SET seen_at = now() WHERE id = %s AND worker = %s RETURNING cancelled", [turn_id, worker]
    )
    row = await cursor.fetchone()
    if row is None:
        return "gone"
    return "cancelled" if row["cancelled"] else "mine"


async def cancel(conn: Connection, turn_id: UUID) -> None:
    """Ask the worker to stop."""
    await conn.execute("UPDATE turns SET cancelled = true WHERE id = %s AND worker IS NOT NULL", [turn_id])


async def finish(conn: Connection, turn_id: UUID, *, worker: UUID) -> bool:
    """The turn is over; False when it was not this worker's any more."""
    cursor = await conn.execute("UPDATE turns SET worker = NULL WHERE id = %s AND worker = %s", [turn_id, worker])
    return cursor.rowcount == 1


async def delete(conn: Connection, turn_id: UUID) -> None:
    """Forget a turn with its states."""
    await conn.execute("DELETE FROM turns WHERE id = %s", [turn_id])


async def _one(conn: Connection, condition: str, wanted: UUID) -> Turn | None:
    cursor = await conn.execute(
        f"SELECT {_COLUMNS} FROM turns WHERE {condition}", {"silent": SILENT_AFTER, "wanted": wanted}
    )
    row = await cursor.fetchone()
    return Turn(**row) if row else None
