"""Engine calls as durable background tasks: taken in, listed, read, cancelled, made again, deleted.

A run of one is `task_run`, a job of the queue.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from neuroedge.contract.errors import (
    Conflict,
    Forbidden,
    InvalidInput,
    NeuroEdgeError,
    Overloaded,
    TooLarge,
    of_code,
)
from neuroedge.contract.models import Priority
from neuroedge.contract.ports import Clock
from neuroedge.contract.principal import Principal
from neuroedge.contract.vault import Cipher
from neuroedge.infra.queue import TASK_QUEUE, JobQueue
from neuroedge.services.accounts import PROBE
from neuroedge.services.audit import audited
from neuroedge.services.housekeeping import in_each
from neuroedge.services.run_engine import EngineRunner, validate
from neuroedge.services.task_progress import TaskProgress, require
from neuroedge.stores import tasks
from neuroedge.stores.ids import new_id
from neuroedge.stores.postgres import Connection, Database
from neuroedge.stores.tasks import FINISHED, NewTask, State, Task

RUN_TASK = "run_task"
DELETE_RESULT_TASK = "delete_task_result"
MAX_PAYLOAD_BYTES = 1 << 20
MAX_DELAY_S = 366 * 86_400.0
_PAST_S = 60.0
"""A start so far in the past is a clock that goes wrong, not a wish to start at once."""
_SWEEP_ROWS = 500
_UPLOAD_HINT = (
    "send a recording with POST /v1/recordings, which keeps its sound in your blob storage, and give the engine"
    ' {"blob": "recordings/<id>/audio.wav"} in place of the bytes'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a caller wants done: the engine's input, when, how urgently, how often to try."""

    engine: str
    payload: Mapping[str, Any]
    priority: Priority = "normal"
    run_at: datetime | None = None
    delay_s: float | None = None
    max_attempts: int = 3
    timeout_s: float | None = None


class Tasks:
    """Tasks of the caller's organisation."""

    def __init__(
        self,
        *,
        db: Database,
        runner: EngineRunner,
        queue: JobQueue,
        progress: TaskProgress,
        clock: Clock,
        keep_days: float,
        max_unfinished: int,
    ) -> None:
        self._db = db
        self._runner = runner
        self._queue = queue
        self._progress = progress
        self._clock = clock
        self._keep = timedelta(days=keep_days)
        self._max_unfinished = max_unfinished

    async def submit(
        self, order: Order, *, principal: Principal, request_id: str, idempotency_key: str | None = None
    ) -> Task:
        """Keep and queue a task; with a key already used for the same order, the task made then.

        Raises NotFound for an unknown engine, Forbidden, InvalidInput, TooLarge, Conflict for a key used for another
        order, Overloaded when too many tasks of the organisation are unfinished.
        """
        payload = _as_json(order.payload)
        fingerprint = _fingerprint(order, (await self._db.known(principal.org_id)).cipher)
        if idempotency_key is not None:
            async with self._db.tenant(principal) as conn:
                if (made := await self._made(conn, principal, idempotency_key, fingerprint)) is not None:
                    return made
        self._check(order, payload, principal)
        task = NewTask(
            id=new_id(),
            user_id=principal.user_id,
            request_id=request_id,
            engine=order.engine,
            payload=payload,
            priority=order.priority,
            max_attempts=order.max_attempts,
            timeout_s=order.timeout_s,
            idempotency_key=idempotency_key,
            fingerprint=fingerprint,
            run_at=self._start_of(order),
        )
        return await self._store(task, principal)

    async def list(
        self,
        principal: Principal,
        *,
        limit: int,
        before: UUID | None = None,
        state: State | None = None,
        engine: str | None = None,
    ) -> list[Task]:
        """Newest first; state "dead" is the dead letter list."""
        async with self._db.tenant(principal) as conn:
            return await tasks.recent(conn, limit=limit, before=before, state=state, engine=engine)

    async def get(self, principal: Principal, task_id: UUID) -> Task:
        """One task. Raises NotFound."""
        async with self._db.tenant(principal) as conn:
            return await require(conn, task_id)

    async def result(self, principal: Principal, task_id: UUID) -> tuple[Task, bytes]:
        """A task with its engine's answer as JSON. Raises NotFound, Conflict while there is none, its failure."""
        async with self._db.tenant(principal) as conn:
            task = await require(conn, task_id)
            kept = await tasks.result(conn, task_id)
        if task.state in ("failed", "dead"):
            raise of_code(task.error_code or NeuroEdgeError.code, task.error_detail or "", hint=task.error_hint)
        if task.state == "cancelled":
            raise Conflict(f"the task {task_id} was cancelled", hint=f"POST /v1/tasks/{task_id}/retry runs it anew")
        if task.state != "succeeded":
            raise Conflict(f"the task {task_id} is {task.state}", hint=f"GET /v1/tasks/{task_id}/events tells its end")
        if kept.blob is not None:
            return task, await self._runner.contexts.blobs(principal).get(kept.blob)
        return task, kept.data or b"null"

    async def cancel(self, principal: Principal, task_id: UUID, *, request_id: str) -> Task:
        """End a task: one that waits at once, one that runs by cancelling the engine's call wherever it runs.

        Cancelling a cancelled task changes nothing. Raises NotFound, Conflict for one that ended otherwise.
        """
        async with self._db.tenant(principal) as conn:
            task = await require(conn, task_id, lock=True)
            if task.state == "cancelled":
                return task
            if task.state in FINISHED:
                raise Conflict(f"the task {task_id} is {task.state} already", hint="there is nothing to cancel")
            await tasks.cancel(conn, task_id)
            if task.job_id is not None:
                await self._queue.cancel(conn, task.job_id)
            await self._audit(conn, principal, request_id, "task.cancelled", task_id)
            task = await require(conn, task_id)
        await self._progress.publish(principal.org_id, task_id, "cancelled", {})
        return task

    async def retry(self, principal: Principal, task_id: UUID, *, request_id: str) -> Task:
        """Queue a failed, dead or cancelled task anew, with all its attempts, under the user who made it.

        Raises NotFound, Forbidden when the caller may not run its engine, Conflict in any other state.
        """
        async with self._db.tenant(principal) as conn:
            task = await require(conn, task_id, lock=True)
            self._permit(task.engine, principal)
            if task.state not in ("failed", "dead", "cancelled"):
                raise Conflict(
                    f"the task {task_id} is {task.state}", hint="only failed, dead and cancelled ones run anew"
                )
            await tasks.queue_again(conn, task_id)
            await enqueue(self._queue, conn, principal.org_id, task_id, priority=task.priority)
            await self._audit(conn, principal, request_id, "task.retried", task_id)
            task = await require(conn, task_id)
        # Its old end must not be the first thing a new listener hears.
        await self._progress.forget(principal.org_id, task_id)
        await self._progress.publish(principal.org_id, task_id, "queued", {})
        return task

    async def delete(self, principal: Principal, task_id: UUID, *, request_id: str) -> None:
        """Delete a finished task with its result. Raises NotFound, Conflict for one that is not finished."""
        async with self._db.tenant(principal) as conn:
            task = await require(conn, task_id, lock=True)
            if task.state not in FINISHED:
                raise Conflict(f"the task {task_id} is {task.state}", hint=f"POST /v1/tasks/{task_id}/cancel first")
            blob = await tasks.delete(conn, task_id)
            await self._forget_result(conn, principal.org_id, task_id, blob)
            await self._audit(conn, principal, request_id, "task.deleted", task_id)
        await self._progress.publish(principal.org_id, task_id, "deleted", {})
        await self._progress.forget(principal.org_id, task_id)

    async def delete_result(self, org_id: UUID, task_id: UUID) -> None:
        """Delete the blobs of a deleted task; none is fine. Raises Unavailable when the blob store is away."""
        await self._runner.contexts.blobs(replace(PROBE, org_id=org_id)).delete_prefix(blob_folder(task_id))

    async def sweep(self) -> int:
        """Delete, in every organisation, tasks that finished longer ago than they are kept; how many."""
        before = self._clock.now() - self._keep
        async with self._db.unbound() as conn:
            organisations = await tasks.organisations_before(conn, before)
        return await in_each(organisations, lambda org_id: self._sweep_of(org_id, before))

    async def _sweep_of(self, org_id: UUID, before: datetime) -> int:
        swept, full = 0, True
        while full:
            async with self._db.tenant(replace(PROBE, org_id=org_id)) as conn:
                gone = await tasks.delete_before(conn, before, limit=_SWEEP_ROWS)
                for task_id, blob in gone:
                    await self._forget_result(conn, org_id, task_id, blob)
            swept += len(gone)
            full = len(gone) == _SWEEP_ROWS
        return swept

    def _check(self, order: Order, payload: bytes, principal: Principal) -> None:
        """Refuse now what could only fail later."""
        engine = self._permit(order.engine, principal)
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise TooLarge(f"the payload is larger than {MAX_PAYLOAD_BYTES} bytes", hint=_UPLOAD_HINT)
        try:
            validate(engine, order.payload)
        except InvalidInput as error:
            located = [{**e, "loc": ("body", "payload", *e["loc"])} for e in error.errors]
            raise InvalidInput(error.detail, hint=error.hint, errors=located) from error

    def _permit(self, name: str, principal: Principal) -> Any:
        """The engine, if the caller may run it. Raises NotFound, Forbidden."""
        engine = self._runner.registry.get(name)
        if not principal.may(engine.permission):
            raise Forbidden(f"running {name} needs the permission {engine.permission}")
        # A worker runs the task for the user, without what limits the key it was ordered with.
        if not principal.may_run(name) or principal.models is not None:
            raise Forbidden(f"this API key does not allow running {name} in the background")
        return engine

    def _start_of(self, order: Order) -> datetime | None:
        """When to start; None: at once. Raises InvalidInput for two answers, the past, and what is too far away."""
        now = self._clock.now()
        if order.run_at is None:
            return now + timedelta(seconds=order.delay_s) if order.delay_s else None
        if order.delay_s is not None:
            raise InvalidInput("run_at and delay_s contradict each other", hint="give one of them")
        away_s = (order.run_at - now).total_seconds()
        if not -_PAST_S <= away_s <= MAX_DELAY_S:
            raise InvalidInput(
                "run_at is in the past" if away_s < 0 else "run_at is too far away",
                hint=f"give one within {MAX_DELAY_S / 86_400:g} days; here it is {now:%Y-%m-%dT%H:%M:%SZ}",
                errors=[{"loc": ("body", "run_at"), "msg": "not a time to start at", "type": "out_of_range"}],
            )
        return order.run_at if away_s > 0 else None

    async def _store(self, task: NewTask, principal: Principal) -> Task:
        """Insert the row and its job, both or none."""
        async with self._db.tenant(principal) as conn:
            if await tasks.count_unfinished(conn, limit=self._max_unfinished) >= self._max_unfinished:
                raise Overloaded(
                    f"{self._max_unfinished} tasks of your organisation are unfinished",
                    hint="wait for some, or cancel some",
                    retry_after_s=10,
                )
            if not await tasks.insert(conn, org_id=principal.org_id, task=task):
                # The same key at the same moment; the other one was first.
                made = await self._made(conn, principal, task.idempotency_key or "", task.fingerprint)
                if made is None:
                    raise Conflict("the task of this Idempotency-Key was just deleted", hint="send it again")
                return made
            await enqueue(self._queue, conn, principal.org_id, task.id, priority=task.priority, run_at=task.run_at)
            await self._audit(conn, principal, task.request_id, "task.created", task.id)
            stored = await require(conn, task.id)
        await self._progress.publish(principal.org_id, task.id, "queued", {})
        return stored

    async def _made(self, conn: Connection, principal: Principal, key: str, fingerprint: bytes) -> Task | None:
        """The task this caller made with a key. Raises Conflict when it was for another order."""
        task = await tasks.find_by_key(conn, principal.user_id, key)
        if task is not None and task.fingerprint != fingerprint:
            raise Conflict(
                "this Idempotency-Key was used for another task",
                hint=f"take a new key for each task; /v1/tasks/{task.id} has this one",
            )
        return task

    async def _forget_result(self, conn: Connection, org_id: UUID, task_id: UUID, blob: str | None) -> None:
        """Have a blob deleted, by a job that outlives a crash and a blob store that is away."""
        if blob is None:
            return
        args = {"task_id": str(task_id), "org_id": str(org_id)}
        await self._queue.defer(conn, DELETE_RESULT_TASK, lock=f"task:{task_id}", args=args, queue=TASK_QUEUE)

    async def _audit(self, conn: Connection, principal: Principal, request_id: str, action: str, task_id: UUID) -> None:
        await audited(conn, principal, request_id=request_id, action=action, target=f"task:{task_id}")


async def enqueue(
    queue: JobQueue,
    conn: Connection,
    org_id: UUID,
    task_id: UUID,
    *,
    priority: Priority,
    run_at: datetime | None = None,
) -> None:
    """Give a waiting task its job: from now on this one, and no earlier one, may start it."""
    args = {"task_id": str(task_id), "org_id": str(org_id)}
    job_id = await queue.defer(
        conn, RUN_TASK, lock=f"task:{task_id}", args=args, queue=TASK_QUEUE, priority=priority, run_at=run_at
    )
    await tasks.set_job(conn, task_id, job_id)


def blob_folder(task_id: UUID) -> str:
    """Where a task's large results lie."""
    return f"tasks/{task_id}"


def _as_json(value: Mapping[str, Any], *, sort_keys: bool = False) -> bytes:
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=sort_keys)
        # Half a surrogate pair is no text, but it is JSON: the engine's own validation tells what it thinks of it.
        return text.encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError) as error:
        raise InvalidInput(
            "the payload cannot be kept as JSON", hint="leave out NaN and Infinity, and nest less deeply"
        ) from error


def _fingerprint(order: Order, cipher: Cipher) -> bytes:
    """The same for orders of one organisation that ask for the same; keyed, so that it tells nobody else what."""
    asked = {
        "engine": order.engine,
        "payload": order.payload,
        "priority": order.priority,
        "run_at": order.run_at and order.run_at.timestamp(),
        "delay_s": order.delay_s,
        "max_attempts": order.max_attempts,
        "timeout_s": order.timeout_s,
    }
    digest = hashlib.sha256(_as_json(asked, sort_keys=True)).hexdigest()
    return cipher.blind(f"task:{digest}").to_bytes(8)
