"""States of the assistant's turns, sealed, as LangGraph saves them after each step."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from neuroedge.stores.postgres import Connection

_COLUMNS = "checkpoint_id, parent_id, sealed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """A state; `data` is what was given to `put`."""

    checkpoint_id: str
    parent_id: str | None
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """What a step gave to one channel, before the next state is saved."""

    task_id: str
    idx: int
    """Place among the writes of its task; below 0 for LangGraph's own channels, of which there is one of each kind."""
    data: bytes


async def put(
    conn: Connection,
    *,
    org_id: UUID,
    user_id: UUID,
    thread_id: UUID,
    checkpoint_id: str,
    parent_id: str | None,
    data: bytes,
) -> None:
    """Save a state, or the same one anew. Raises NotFound when its message is gone."""
    await conn.execute(
        "INSERT INTO checkpoints (org_id, thread_id, checkpoint_id, user_id, parent_id, sealed)"
        " VALUES (%s, %s, %s, %s, %s, %s)"
        " ON CONFLICT (org_id, thread_id, checkpoint_id) DO UPDATE SET sealed = EXCLUDED.sealed",
        [
            org_id,
            thread_id,
            checkpoint_id,
            user_id,
            parent_id,
            _sealed(conn, data, _place(thread_id, checkpoint_id)),
        ],
    )


async def put_writes(
    conn: Connection, *, org_id: UUID, user_id: UUID, thread_id: UUID, checkpoint_id: str, writes: Sequence[Write]
) -> None:
    """Keep what a step wrote; of a write that is there already the first one counts, of LangGraph's own the last."""
    async with conn.cursor() as cursor:
        for write in writes:
            place = _write_place(thread_id, checkpoint_id, write.task_id, write.idx)
            anew = "DO UPDATE SET sealed = EXCLUDED.sealed" if write.idx < 0 else "DO NOTHING"
            await cursor.execute(
                "INSERT INTO checkpoint_writes (org_id, thread_id, checkpoint_id, task_id, idx, user_id, sealed)"
                " VALUES (%s, %s, %s, %s, %s, %s, %s)"
                f" ON CONFLICT (org_id, thread_id, checkpoint_id, task_id, idx) {anew}",
                [
                    org_id,
                    thread_id,
                    checkpoint_id,
                    write.task_id,
                    write.idx,
                    user_id,
                    _sealed(conn, write.data, place),
                ],
            )


async def find(conn: Connection, thread_id: UUID, checkpoint_id: str | None = None) -> Saved | None:
    """One state; the last one without an id."""
    cursor = await conn.execute(
        f"SELECT {_COLUMNS} FROM checkpoints WHERE thread_id = %s"
        " AND (%s::text IS NULL OR checkpoint_id = %s) ORDER BY checkpoint_id DESC LIMIT 1",
        [thread_id, checkpoint_id, checkpoint_id],
    )
    row = await cursor.fetchone()
    return _saved(conn, thread_id, row) if row else None


async def history(conn: Connection, thread_id: UUID, *, before: str | None, limit: int) -> list[Saved]:
    """States of a turn, the last first."""
    cursor = await conn.execute(
        f"SELECT {_COLUMNS} FROM checkpoints WHERE thread_id = %s"
        " AND (%s::text IS NULL OR checkpoint_id < %s) ORDER BY checkpoint_id DESC LIMIT %s",
        [thread_id, before, before, limit],
    )
    return [_saved(conn, thread_id, row) for row in await cursor.fetchall()]


async def writes_of(conn: Connection, thread_id: UUID, checkpoint_id: str) -> list[Write]:
    """What steps wrote after a state, in the order of tasks and places."""
    cursor = await conn.execute(
        "SELECT task_id, idx, sealed FROM checkpoint_writes WHERE thread_id = %s AND checkpoint_id = %s"
        " ORDER BY task_id, idx",
        [thread_id, checkpoint_id],
    )
    return [
        Write(
            task_id=row["task_id"],
            idx=row["idx"],
            data=_opened(conn, row["sealed"], _write_place(thread_id, checkpoint_id, row["task_id"], row["idx"])),
        )
        for row in await cursor.fetchall()
    ]


async def prune(conn: Connection, thread_id: UUID) -> None:
    """Keep the last state of a finished turn only."""
    await conn.execute("DELETE FROM checkpoint_writes WHERE thread_id = %s", [thread_id])
    await conn.execute(
        "DELETE FROM checkpoints WHERE thread_id = %s AND checkpoint_id <"
        " (SELECT max(checkpoint_id) FROM checkpoints WHERE thread_id = %s)",
        [thread_id, thread_id],
    )


async def delete(conn: Connection, thread_id: UUID) -> None:
    """Forget a turn's states."""
    await conn.execute("DELETE FROM checkpoint_writes WHERE thread_id = %s", [thread_id])
    await conn.execute("DELETE FROM checkpoints WHERE thread_id = %s", [thread_id])


def _saved(conn: Connection, thread_id: UUID, row: dict[str, Any]) -> Saved:
    place = _place(thread_id, row["checkpoint_id"])
    return Saved(
        checkpoint_id=row["checkpoint_id"], parent_id=row["parent_id"], data=_opened(conn, row["sealed"], place)
    )


def _sealed(conn: Connection, data: bytes, place: str) -> bytes:
    # The bytes are MessagePack, full of zeros, which no sealed text may hold.
    return conn.vault.seal(base64.b64encode(data).decode(), place)


def _opened(conn: Connection, sealed: bytes, place: str) -> bytes:
    return base64.b64decode(conn.vault.open(sealed, place))


def _place(thread_id: UUID, checkpoint_id: str) -> str:
    return f"checkpoints/{thread_id}/{checkpoint_id}"


def _write_place(thread_id: UUID, checkpoint_id: str, task_id: str, idx: int) -> str:
    return f"checkpoint_writes/{thread_id}/{checkpoint_id}/{task_id}/{idx}"
