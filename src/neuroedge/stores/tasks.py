"""Engine calls as durable background tasks.

Two numbers keep a task from being finished twice: `job_id` names the one queue job that may start it, and `attempts`
the one start whose outcome counts. A run that was given up (its worker stalled, or the task was cancelled) still ends
some day; its outcome then changes no row.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, get_args
from uuid import UUID

from neuroedge.contract.models import Priority
from neuroedge.stores import sealing
from neuroedge.stores.postgres import Connection

State = Literal["scheduled", "queued", "running", "succeeded", "failed", "cancelled", "dead"]
STATES: tuple[State, ...] = get_args(State)
FINISHED: tuple[State, ...] = ("succeeded", "failed", "cancelled", "dead")
# Waiting is stored as one state: a clock's tick must not need a write to turn scheduled into queued.
_SHOWN_STATE = "CASE WHEN state = 'queued' AND next_run_at > now() THEN 'scheduled' ELSE state END AS state"
_COLUMNS = (
    f"id, user_id, request_id, engine, priority, max_attempts, timeout_s, fingerprint, {_SHOWN_STATE}, job_id,"
    " attempts, errors, interrupted, stage, fraction, error_code, error_detail, error_hint, created_at, next_run_at,"
    " started_at, finished_at"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTask:
    """A task to store; `payload` is the engine's input as JSON, `fingerprint` a hash of all the caller asked for.

    `run_at` None: at once, by the database's own clock.
    """

    id: UUID
    user_id: UUID
    request_id: str
    engine: str
    payload: bytes
    priority: Priority
    max_attempts: int
    timeout_s: float | None
    idempotency_key: str | None
    fingerprint: bytes
    run_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A task and where it stands, without payload and result."""

    id: UUID
    user_id: UUID
    request_id: str
    engine: str
    priority: Priority
    max_attempts: int
    timeout_s: float | None
    fingerprint: bytes
    state: State
    job_id: int | None
    attempts: int
    errors: int
    interrupted: int
    stage: str | None
    fraction: float | None
    error_code: str | None
    error_detail: str | None
    error_hint: str | None
    created_at: datetime
    next_run_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a task's engine answered, as JSON: here, or in the organisation's blob of this key."""

    data: bytes | None
    blob: str | None


async def insert(conn: Connection, *, org_id: UUID, task: NewTask) -> bool:
    """Store a waiting task; False, and nothing stored, when its user has one with its idempotency key."""
    cursor = await conn.execute(
        "INSERT INTO tasks (org_id, id, user_id, request_id, engine, payload, priority, max_attempts, timeout_s,"
        " idempotency_key, fingerprint, state, next_run_at)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, 'queued', COALESCE(%s, now()))"
        " ON CONFLICT (org_id, user_id, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING",
        [
            org_id,
            task.id,
            task.user_id,
            task.request_id,
            task.engine,
            conn.vault.seal(sealing.text(task.payload), sealing.task(task.id, "payload")),
            task.priority,
            task.max_attempts,
            task.timeout_s,
            task.idempotency_key,
            task.fingerprint,
            task.run_at,
        ],
    )
    return cursor.rowcount == 1


async def set_job(conn: Connection, task_id: UUID, job_id: int) -> None:
    """Name the queue job that may start the task from now on."""
    await conn.execute("UPDATE tasks SET job_id = %s WHERE id = %s", [job_id, task_id])


async def find(conn: Connection, task_id: UUID, *, lock: bool = False) -> Task | None:
    """One task of the transaction's organisation; `lock` holds its row until the transaction ends."""
    query = f"SELECT {_COLUMNS} FROM tasks WHERE id = %s" + (" FOR UPDATE" if lock else "")
    row = await (await conn.execute(query, [task_id])).fetchone()
    return Task(**row) if row else None


async def find_by_key(conn: Connection, user_id: UUID, idempotency_key: str) -> Task | None:
    """The task a user made with this key."""
    query = f"SELECT {_COLUMNS} FROM tasks WHERE user_id = %s AND idempotency_key = %s"
    row = await (await conn.execute(query, [user_id, idempotency_key])).fetchone()
    return Task(**row) if row else None


async def recent(
    conn: Connection, *, limit: int, before: UUID | None = None, state: State | None = None, engine: str | None = None
) -> list[Task]:
    """Newest first; `before` continues after the last id of the page before (ids are in time order)."""
    conditions, values = ["true"], {"limit": limit, "before": before, "engine": engine, "state": state}
    if before is not None:
        conditions.append("id < %(before)s")
    if engine is not None:
        conditions.append("engine = %(engine)s")
    if state in ("scheduled", "queued"):
        conditions.append(f"state = 'queued' AND next_run_at {'>' if state == 'scheduled' else '<='} now()")
    elif state is not None:
        conditions.append("state = %(state)s")
    cursor = await conn.execute(
        f"SELECT {_COLUMNS} FROM tasks WHERE {' AND '.join(conditions)} ORDER BY id DESC LIMIT %(limit)s", values
    )
    return [Task(**row) for row in await cursor.fetchall()]


async def count_unfinished(conn: Connection, *, limit: int) -> int:
    """Tasks that wait or run; counting stops at `limit`."""
    cursor = await conn.execute(
        "SELECT count(*) AS n FROM (SELECT 1 FROM tasks WHERE state IN ('queued', 'running') LIMIT %s) AS t", [limit]
    )
    row = await cursor.fetchone()
    return int(row["n"]) if row else 0


async def payload(conn: Connection, task_id: UUID) -> bytes:
    """The engine's input as JSON; of a task that is there."""
    row = await (await conn.execute("SELECT payload FROM tasks WHERE id = %s", [task_id])).fetchone()
    return _opened(conn, task_id, "payload", row["payload"]) if row else b"{}"


def _opened(conn: Connection, task_id: UUID, part: str, sealed: bytes) -> bytes:
    return sealing.plain(conn.vault.open(sealed, sealing.task(task_id, part)))


async def result(conn: Connection, task_id: UUID) -> Result:
    """What the engine answered; both fields None for a task without."""
    row = await (await conn.execute("SELECT result, result_blob FROM tasks WHERE id = %s", [task_id])).fetchone()
    if row is None:
        return Result(data=None, blob=None)
    data = None if row["result"] is None else _opened(conn, task_id, "result", row["result"])
    return Result(data=data, blob=row["result_blob"])


async def start(conn: Connection, task_id: UUID, *, interrupted: int) -> int:
    """A worker begins; `interrupted` starts before were cut off. The number of this start."""
    cursor = await conn.execute(
        "UPDATE tasks SET state = 'running', attempts = attempts + 1, interrupted = %s,"
        " next_run_at = NULL, stage = NULL, fraction = NULL, started_at = now() WHERE id = %s RETURNING attempts",
        [interrupted, task_id],
    )
    row = await cursor.fetchone()
    return int(row["attempts"]) if row else 0


async def set_progress(conn: Connection, task_id: UUID, *, attempt: int, stage: str, fraction: float) -> None:
    """How far a start has come."""
    await conn.execute(
        "UPDATE tasks SET stage = %s, fraction = %s WHERE id = %s AND state = 'running' AND attempts = %s",
        [stage, fraction, task_id, attempt],
    )


async def succeed(
    conn: Connection, task_id: UUID, *, attempt: int, data: bytes | None = None, blob: str | None = None
) -> bool:
    """Keep a start's answer; False when the start counts no more."""
    cursor = await conn.execute(
        "UPDATE tasks SET state = 'succeeded', result = %s, result_blob = %s, error_code = NULL, error_detail = NULL,"
        " error_hint = NULL, fraction = 1, finished_at = now()"
        " WHERE id = %s AND state = 'running' AND attempts = %s",
        [
            None if data is None else conn.vault.seal(sealing.text(data), sealing.task(task_id, "result")),
            blob,
            task_id,
            attempt,
        ],
    )
    return cursor.rowcount == 1


async def wait_again(
    conn: Connection, task_id: UUID, *, attempt: int, run_at: datetime, code: str, detail: str, hint: str | None
) -> bool:
    """A start failed and another will be made; False when the start counts no more."""
    cursor = await conn.execute(
        "UPDATE tasks SET state = 'queued', next_run_at = %s, errors = errors + 1, error_code = %s, error_detail = %s,"
        " error_hint = %s WHERE id = %s AND state = 'running' AND attempts = %s",
        [run_at, code, detail, hint, task_id, attempt],
    )
    return cursor.rowcount == 1


async def give_back(conn: Connection, task_id: UUID, *, attempt: int) -> bool:
    """A worker that stops lets go of the task; False when the start counts no more."""
    cursor = await conn.execute(
        "UPDATE tasks SET state = 'queued', next_run_at = now(), interrupted = interrupted + 1"
        " WHERE id = %s AND state = 'running' AND attempts = %s",
        [task_id, attempt],
    )
    return cursor.rowcount == 1


async def end(
    conn: Connection,
    task_id: UUID,
    *,
    attempt: int,
    state: Literal["failed", "dead"],
    code: str,
    detail: str,
    hint: str | None,
) -> bool:
    """A start was the last one; False when the start counts no more."""
    cursor = await conn.execute(
        "UPDATE tasks SET state = %s, errors = errors + 1, error_code = %s, error_detail = %s, error_hint = %s,"
        " finished_at = now() WHERE id = %s AND state = 'running' AND attempts = %s",
        [state, code, detail, hint, task_id, attempt],
    )
    return cursor.rowcount == 1


async def refuse(
    conn: Connection,
    task_id: UUID,
    *,
    state: Literal["failed", "dead"],
    interrupted: int,
    code: str,
    detail: str,
    hint: str | None,
) -> None:
    """A task is over before another start is made; its row is locked."""
    await conn.execute(
        "UPDATE tasks SET state = %s, interrupted = %s, error_code = %s, error_detail = %s, error_hint = %s,"
        " next_run_at = NULL, finished_at = now() WHERE id = %s",
        [state, interrupted, code, detail, hint, task_id],
    )


async def cancel(conn: Connection, task_id: UUID) -> None:
    """The task is over, whatever a run of it may still bring."""
    await conn.execute(
        "UPDATE tasks SET state = 'cancelled', next_run_at = NULL, finished_at = now() WHERE id = %s", [task_id]
    )


async def queue_again(conn: Connection, task_id: UUID) -> None:
    """A finished task waits anew, with all its attempts; `attempts` goes on counting its starts."""
    await conn.execute(
        "UPDATE tasks SET state = 'queued', next_run_at = now(), errors = 0, interrupted = 0, stage = NULL,"
        " fraction = NULL, error_code = NULL, error_detail = NULL, error_hint = NULL, started_at = NULL,"
        " finished_at = NULL WHERE id = %s",
        [task_id],
    )


async def delete(conn: Connection, task_id: UUID) -> str | None:
    """Delete a task with payload and result; the key of its result's blob, if there is one."""
    cursor = await conn.execute("DELETE FROM tasks WHERE id = %s RETURNING result_blob", [task_id])
    row = await cursor.fetchone()
    return row["result_blob"] if row else None


async def organisations_before(conn: Connection, finished: datetime) -> list[UUID]:
    """Organisations with tasks that finished before a time; needs no tenant."""
    cursor = await conn.execute("SELECT org_id FROM organisations_with_tasks_before(%s)", [finished])
    return [row["org_id"] for row in await cursor.fetchall()]


async def delete_before(conn: Connection, finished: datetime, *, limit: int) -> list[tuple[UUID, str | None]]:
    """Delete up to `limit` tasks that finished before a time; their ids with the keys of their results' blobs."""
    cursor = await conn.execute(
        "DELETE FROM tasks WHERE id IN (SELECT id FROM tasks WHERE finished_at < %s LIMIT %s)"
        " RETURNING id, result_blob",
        [finished, limit],
    )
    return [(row["id"], row["result_blob"]) for row in await cursor.fetchall()]
