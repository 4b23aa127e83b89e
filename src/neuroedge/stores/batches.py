"""Bulk jobs: many engine calls ordered at once, each with an outcome of its own.

`job_id` names the one queue job that may work on a batch; an item's outcome is stored once, whoever ran it.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, get_args
from uuid import UUID

from neuroedge.contract.models import Priority
from neuroedge.stores.ids import new_id
from neuroedge.stores.postgres import Connection

State = Literal["queued", "running", "done", "cancelled", "failed"]
ItemState = Literal["succeeded", "failed"]
STATES: tuple[State, ...] = get_args(State)
FINISHED: tuple[State, ...] = ("done", "cancelled", "failed")
_COLUMNS: Final = (
    "id, user_id, request_id, priority, state, fingerprint, job_id, total, succeeded, failed, created_at, started_at,"
    " finished_at"
)
_INSERTED_AT_ONCE: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class NewItem:
    """One call of a batch: the caller's own name for it, the engine, and its input as JSON."""

    name: str | None
    engine: str
    payload: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewBatch:
    """A batch to store; `fingerprint` is a keyed hash of all the caller asked for."""

    id: UUID
    user_id: UUID
    request_id: str
    priority: Priority
    idempotency_key: str | None
    fingerprint: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A batch and how far it is."""

    id: UUID
    user_id: UUID
    request_id: str
    priority: Priority
    state: State
    fingerprint: bytes
    job_id: int | None
    total: int
    succeeded: int
    failed: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One call of a batch. `outcome` is {"result": …} or {"error": …}; None while it waits."""

    id: UUID
    position: int
    name: str | None
    engine: str
    starts: int
    state: ItemState | None
    payload: dict[str, Any]
    outcome: dict[str, Any] | None


async def insert(conn: Connection, *, org_id: UUID, batch: NewBatch, items: Sequence[NewItem]) -> bool:
    """Store a waiting batch; False, and nothing stored, when its user has one with its idempotency key."""
    cursor = await conn.execute(
        "INSERT INTO batches (org_id, id, user_id, request_id, priority, state, idempotency_key, fingerprint, total)"
        " VALUES (%s, %s, %s, %s, %s, 'queued', %s, %s, %s)"
        " ON CONFLICT (org_id, user_id, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING",
        [
            org_id,
            batch.id,
            batch.user_id,
            batch.request_id,
            batch.priority,
            batch.idempotency_key,
            batch.fingerprint,
            len(items),
        ],
    )
    if cursor.rowcount != 1:
        return False
    async with conn.cursor() as cursor:
        for first in range(0, len(items), _INSERTED_AT_ONCE):
            rows = []
            for position, item in enumerate(items[first : first + _INSERTED_AT_ONCE], first):
                item_id = new_id()
                sealed = _sealed(conn, item_id, "payload", {"name": item.name, "payload": item.payload})
                rows.append((org_id, item_id, batch.id, position, item.engine, sealed))
            await cursor.executemany(
                "INSERT INTO batch_items (org_id, id, batch_id, position, engine, payload)"
                " VALUES (%s, %s, %s, %s, %s, %s)",
                rows,
            )
    return True


async def set_job(conn: Connection, batch_id: UUID, job_id: int) -> None:
    """Name the queue job that may work on the batch from now on."""
    await conn.execute("UPDATE batches SET job_id = %s WHERE id = %s", [job_id, batch_id])


async def find(conn: Connection, batch_id: UUID, *, lock: bool = False) -> Batch | None:
    """One batch of the transaction's organisation; `lock` holds its row until the transaction ends."""
    query = f"SELECT {_COLUMNS} FROM batches WHERE id = %s" + (" FOR UPDATE" if lock else "")
    row = await (await conn.execute(query, [batch_id])).fetchone()
    return Batch(**row) if row else None


async def find_by_key(conn: Connection, user_id: UUID, idempotency_key: str) -> Batch | None:
    """The batch a user made with this key."""
    query = f"SELECT {_COLUMNS} FROM batches WHERE user_id = %s AND idempotency_key = %s"
    row = await (await conn.execute(query, [user_id, idempotency_key])).fetchone()
    return Batch(**row) if row else None


async def recent(conn: Connection, *, limit: int, before: UUID | None, state: State | None) -> list[Batch]:
    """Newest first; `before` continues after the last id of the page before (ids are in time order)."""
    cursor = await conn.execute(
        f"SELECT {_COLUMNS} FROM batches WHERE (%(before)s::uuid IS NULL OR id < %(before)s)"
        " AND (%(state)s::text IS NULL OR state = %(state)s) ORDER BY id DESC LIMIT %(limit)s",
        {"before": before, "state": state, "limit": limit},
    )
    return [Batch(**row) for row in await cursor.fetchall()]


async def count_unfinished(conn: Connection) -> int:
    """Items of the organisation that wait, all batches together."""
    cursor = await conn.execute(
        "SELECT coalesce(sum(total - succeeded - failed), 0) AS n FROM batches WHERE state IN ('queued', 'running')"
    )
    row = await cursor.fetchone()
    return int(row["n"]) if row else 0


async def start(conn: Connection, batch_id: UUID) -> None:
    """A worker begins or goes on."""
    await conn.execute(
        "UPDATE batches SET state = 'running', started_at = coalesce(started_at, now()) WHERE id = %s", [batch_id]
    )


async def take(conn: Connection, batch_id: UUID, *, limit: int) -> list[Item]:
    """The next items that wait, counted as started; one that was cut off before comes alone."""
    cursor = await conn.execute(
        "SELECT id, position, engine, starts, state, payload, outcome FROM batch_items"
        " WHERE batch_id = %s AND state IS NULL ORDER BY position LIMIT %s FOR UPDATE",
        [batch_id, limit],
    )
    items = [_opened(conn, row) for row in await cursor.fetchall()]
    if any(item.starts for item in items):
        items = items[:1]
    await conn.execute("UPDATE batch_items SET starts = starts + 1 WHERE id = ANY(%s)", [[item.id for item in items]])
    return items


async def finish_item(
    conn: Connection, batch_id: UUID, item_id: UUID, *, state: ItemState, outcome: dict[str, Any]
) -> bool:
    """Keep an item's outcome and count it; False when it has one already or its batch was cancelled."""
    cursor = await conn.execute(
        "UPDATE batch_items i SET state = %s, outcome = %s FROM batches b WHERE i.id = %s AND i.state IS NULL"
        " AND b.org_id = i.org_id AND b.id = i.batch_id AND b.state = 'running'",
        [state, _sealed(conn, item_id, "outcome", outcome), item_id],
    )
    if cursor.rowcount != 1:
        return False
    column = "succeeded" if state == "succeeded" else "failed"
    await conn.execute(f"UPDATE batches SET {column} = {column} + 1 WHERE id = %s", [batch_id])
    return True


async def let_go(conn: Connection, item_ids: Sequence[UUID]) -> None:
    """A worker that stops in order gives items back: this start says nothing about them."""
    await conn.execute(
        "UPDATE batch_items SET starts = starts - 1 WHERE id = ANY(%s) AND state IS NULL AND starts > 0",
        [list(item_ids)],
    )


async def end(conn: Connection, batch_id: UUID, state: Literal["done", "cancelled", "failed"]) -> bool:
    """The batch is over; False when it was over before."""
    cursor = await conn.execute(
        "UPDATE batches SET state = %s, finished_at = now() WHERE id = %s AND state IN ('queued', 'running')",
        [state, batch_id],
    )
    return cursor.rowcount == 1


async def queue_again(conn: Connection, batch_id: UUID) -> int:
    """Let the failed items, and those that a cancellation left, wait anew; how many wait now."""
    await conn.execute(
        "UPDATE batch_items SET state = NULL, outcome = NULL, starts = 0"
        " WHERE batch_id = %s AND state IS DISTINCT FROM 'succeeded'",
        [batch_id],
    )
    cursor = await conn.execute(
        "UPDATE batches SET state = 'queued', failed = 0, finished_at = NULL WHERE id = %s"
        " RETURNING total - succeeded AS waiting",
        [batch_id],
    )
    row = await cursor.fetchone()
    return int(row["waiting"]) if row else 0


async def items(
    conn: Connection, batch_id: UUID, *, after: int, limit: int, state: ItemState | None = None
) -> list[Item]:
    """Items beyond a position, in the order they were given, at most `limit` of them."""
    cursor = await conn.execute(
        "SELECT id, position, engine, starts, state, payload, outcome FROM batch_items"
        " WHERE batch_id = %(batch)s AND position > %(after)s AND (%(state)s::text IS NULL OR state = %(state)s)"
        " ORDER BY position LIMIT %(limit)s",
        {"batch": batch_id, "after": after, "state": state, "limit": limit},
    )
    return [_opened(conn, row) for row in await cursor.fetchall()]


async def engines(conn: Connection, batch_id: UUID) -> list[str]:
    """The engines of items that did not succeed."""
    cursor = await conn.execute(
        "SELECT DISTINCT engine FROM batch_items WHERE batch_id = %s AND state IS DISTINCT FROM 'succeeded'"
        " ORDER BY engine",
        [batch_id],
    )
    return [row["engine"] for row in await cursor.fetchall()]


async def delete(conn: Connection, batch_id: UUID) -> None:
    """Delete a batch with its items."""
    await conn.execute("DELETE FROM batches WHERE id = %s", [batch_id])


async def organisations_before(conn: Connection, finished: datetime) -> list[UUID]:
    """Organisations with batches that finished before a time; needs no tenant."""
    cursor = await conn.execute("SELECT org_id FROM organisations_with_batches_before(%s)", [finished])
    return [row["org_id"] for row in await cursor.fetchall()]


async def delete_before(conn: Connection, finished: datetime) -> int:
    """Delete the batches that finished before a time; how many."""
    return (await conn.execute("DELETE FROM batches WHERE finished_at < %s", [finished])).rowcount


def _place(item_id: UUID, part: str) -> str:
    return f"batch_items/{item_id}/{part}"


def _sealed(conn: Connection, item_id: UUID, part: str, value: dict[str, Any]) -> bytes:
    # As a text of ASCII: what an engine takes and gives may hold zero characters, which the vault's own JSON refuses.
    return conn.vault.seal(json.dumps(value), _place(item_id, part))


def _unsealed(conn: Connection, item_id: UUID, part: str, sealed: bytes) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(conn.vault.open(sealed, _place(item_id, part)))
    return value


def _opened(conn: Connection, row: dict[str, Any]) -> Item:
    asked = _unsealed(conn, row["id"], "payload", row["payload"])
    sealed = row["outcome"]
    return Item(
        id=row["id"],
        position=row["position"],
        name=asked["name"],
        engine=row["engine"],
        starts=row["starts"],
        state=row["state"],
        payload=asked["payload"],
        outcome=None if sealed is None else _unsealed(conn, row["id"], "outcome", sealed),
    )
