"""One run of a task: under the rights its user has now, tried again when that can help, its outcome stored once."""

import asyncio
import contextlib
import json
import random
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Literal
from uuid import UUID

import stamina
import structlog

from neuroedge.contract.errors import Forbidden, NeuroEdgeError, TooLarge, Unavailable
from neuroedge.contract.ports import Clock
from neuroedge.contract.principal import ROLE_PERMISSIONS, Principal
from neuroedge.contract.scope import call_scope
from neuroedge.infra.queue import JobQueue
from neuroedge.services.accounts import PROBE
from neuroedge.services.run_engine import EngineRunner
from neuroedge.services.task_progress import TaskProgress
from neuroedge.services.tasks import blob_folder, enqueue
from neuroedge.stores import accounts, tasks
from neuroedge.stores.accounts import Login
from neuroedge.stores.postgres import Database
from neuroedge.stores.tasks import Task

log = structlog.get_logger(__name__)

MAX_INTERRUPTIONS = 5
"""Starts cut off, by an orderly stop or a crash, before a task is taken for what brings the worker down."""
RESULT_IN_ROW_BYTES = 1 << 20
MAX_RESULT_BYTES = 64 << 20
_LONGEST_WAIT_S = 300.0
_PROGRESS_EVERY_S = 0.5
_STORE_FOR_S = 60.0
"""An outcome is not lost because the database is away for a moment."""
_LET_GO_S = 5.0

Outcome = Literal["skipped", "succeeded", "retrying", "failed", "dead", "outdated"]


class Interrupted(NeuroEdgeError):
    """A task's runs were cut off too often."""

    code = "interrupted"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """A start of a task that counts until another one is made."""

    task: Task
    attempt: int
    payload: dict[str, Any]
    principal: Principal


class TaskRuns:
    """Runs tasks the queue gives out."""

    def __init__(
        self,
        *,
        db: Database,
        runner: EngineRunner,
        queue: JobQueue,
        progress: TaskProgress,
        clock: Clock,
        retry_wait_s: float,
    ) -> None:
        self._db = db
        self._runner = runner
        self._queue = queue
        self._progress = progress
        self._clock = clock
        self._retry_wait_s = retry_wait_s

    async def run(self, org_id: UUID, task_id: UUID, *, job_id: int) -> Outcome:
        """Run a task if this job may start it, and store what came of it. Raises Unavailable without the database."""
        run = await self._begin(org_id, task_id, job_id)
        if run is None:
            return "skipped"
        try:
            return await self._finish(run)
        except asyncio.CancelledError:
            await asyncio.shield(self._give_back(run))
            raise

    async def _begin(self, org_id: UUID, task_id: UUID, job_id: int) -> _Run | None:
        """Take the task; None when there is nothing to run."""
        async with self._db.tenant(replace(PROBE, org_id=org_id)) as conn:
            task = await tasks.find(conn, task_id, lock=True)
            if task is None or task.job_id != job_id or task.state in tasks.FINISHED:
                return None
            # Nothing but a crash leaves a task running that a job is about to start.
            interrupted = task.interrupted + (task.state == "running")
            member = await accounts.member(conn, task.user_id)
            refusal = _refusal(task, member, interrupted)
            if refusal is not None:
                state: Literal["failed", "dead"] = "dead" if isinstance(refusal, Interrupted) else "failed"
                await tasks.refuse(conn, task_id, state=state, interrupted=interrupted, **_stored(refusal))
            else:
                attempt = await tasks.start(conn, task_id, interrupted=interrupted)
                payload = await tasks.payload(conn, task_id)
        if refusal is not None:
            await self._progress.publish(org_id, task_id, state, _stored(refusal))
            return None
        assert member is not None
        await self._progress.publish(org_id, task_id, "started", {"attempt": attempt, "interrupted": interrupted})
        return _Run(task=task, attempt=attempt, payload=json.loads(payload), principal=principal_today(member))

    async def _finish(self, run: _Run) -> Outcome:
        """Call the engine and store the outcome."""
        try:
            data = await self._call(run)
        except NeuroEdgeError as error:
            # A caller's mistake stays one; what the platform did wrong may go right the next time.
            return await self._fail(run, error, again=error.retryable or error.status >= 500)
        except Exception as error:
            log.error("task_failed", task_id=str(run.task.id), engine=run.task.engine, exc_info=error)
            unexpected = NeuroEdgeError(f"the engine failed unexpectedly (request {run.task.request_id})")
            return await self._fail(run, unexpected, again=True)
        if not await self._succeed(run, data):
            return "outdated"
        await self._progress.publish(run.principal.org_id, run.task.id, "succeeded", {})
        return "succeeded"

    async def _call(self, run: _Run) -> bytes:
        """The engine's answer as JSON."""
        task = run.task
        with call_scope(timeout_s=task.timeout_s, priority=task.priority):
            answer = await self._runner.run(
                task.engine,
                run.payload,
                principal=run.principal,
                request_id=task.request_id,
                progress=_Progress(run, self._db, self._progress),
            )
        data = answer.model_dump_json().encode()
        if len(data) > MAX_RESULT_BYTES:
            raise TooLarge(f"the result is larger than {MAX_RESULT_BYTES} bytes", hint="ask for less at a time")
        return data

    async def _succeed(self, run: _Run, data: bytes) -> bool:
        """Store an answer; False when another start was made since."""
        task_id, blob = run.task.id, None
        if len(data) > RESULT_IN_ROW_BYTES:
            blob = f"{blob_folder(task_id)}/{run.attempt}/result.json"
            await self._runner.contexts.blobs(run.principal).put(blob, data)
        counted = False
        async for attempt in _until_stored():
            with attempt:
                async with self._db.tenant(run.principal) as conn:
                    counted = await tasks.succeed(
                        conn, task_id, attempt=run.attempt, data=None if blob else data, blob=blob
                    )
        if blob and not counted:
            await self._runner.contexts.blobs(run.principal).delete_prefix(f"{blob_folder(task_id)}/{run.attempt}")
        return counted

    async def _fail(self, run: _Run, error: NeuroEdgeError, *, again: bool) -> Outcome:
        """Store an error, and with it the next attempt or the end."""
        last = run.task.errors + 1 >= run.task.max_attempts
        run_at = self._clock.now() + timedelta(seconds=self._wait_s(run.task.errors, error))
        state: Literal["failed", "dead"] = "dead" if again else "failed"
        counted = False
        async for attempt in _until_stored():
            with attempt:
                async with self._db.tenant(run.principal) as conn:
                    if not again or last:
                        counted = await tasks.end(conn, run.task.id, attempt=run.attempt, state=state, **_stored(error))
                    elif counted := await tasks.wait_again(
                        conn, run.task.id, attempt=run.attempt, run_at=run_at, **_stored(error)
                    ):
                        await enqueue(
                            self._queue,
                            conn,
                            run.principal.org_id,
                            run.task.id,
                            priority=run.task.priority,
                            run_at=run_at,
                        )
        if not counted:
            return "outdated"
        if not again or last:
            await self._progress.publish(run.principal.org_id, run.task.id, state, _stored(error))
            return state
        told = {**_stored(error), "next_run_at": run_at.isoformat()}
        await self._progress.publish(run.principal.org_id, run.task.id, "retrying", told)
        return "retrying"

    def _wait_s(self, errors: int, error: NeuroEdgeError) -> float:
        """Doubled with each error, half of it by chance so that what failed together is not retried together."""
        wait_s: float = min(_LONGEST_WAIT_S, self._retry_wait_s * 2.0**errors)
        return max(wait_s * random.uniform(0.5, 1.0), float(error.retry_after_s or 0))

    async def _give_back(self, run: _Run) -> None:
        """Say that a stopping worker let go; if that fails, the next start finds out by itself."""
        with contextlib.suppress(NeuroEdgeError, TimeoutError):
            async with asyncio.timeout(_LET_GO_S), self._db.tenant(run.principal) as conn:
                counted = await tasks.give_back(conn, run.task.id, attempt=run.attempt)
            if counted:
                await self._progress.publish(run.principal.org_id, run.task.id, "interrupted", {})


class _Progress:
    """The Progress port of a run: told on at most twice a second, in the stream and in the row."""

    def __init__(self, run: _Run, db: Database, progress: TaskProgress) -> None:
        self._run = run
        self._db = db
        self._progress = progress
        self._last = float("-inf")

    async def __call__(self, stage: str, fraction: float, **_: Any) -> None:
        """Tell how far the engine is; never fails it."""
        now = time.monotonic()
        if now - self._last < _PROGRESS_EVERY_S:
            return
        self._last = now
        stage = _plain(stage)[:200]
        fraction = round(max(0.0, min(1.0, fraction)), 3) if fraction == fraction else 0.0
        run = self._run
        try:
            async with self._db.tenant(run.principal) as conn:
                await tasks.set_progress(conn, run.task.id, attempt=run.attempt, stage=stage, fraction=fraction)
        except Unavailable as error:
            log.warning("progress_not_stored", task_id=str(run.task.id), detail=error.detail)
        told = {"stage": stage, "fraction": fraction}
        await self._progress.publish(run.principal.org_id, run.task.id, "progress", told)


def _refusal(task: Task, member: Login | None, interrupted: int) -> NeuroEdgeError | None:
    """Why a task is not started any more, if so."""
    if member is None:
        return Forbidden("the user who made this task is no member of the organisation any more")
    if interrupted >= MAX_INTERRUPTIONS:
        return Interrupted(
            f"the task was interrupted {interrupted} times",
            hint=f"the worker's log tells what stopped it; POST /v1/tasks/{task.id}/retry tries it anew",
        )
    return None


def _stored(error: NeuroEdgeError) -> dict[str, Any]:
    """An error as a row and an event hold it."""
    return {"code": error.code, "detail": _plain(error.detail)[:4000], "hint": error.hint and _plain(error.hint)[:2000]}


def _plain(text: str) -> str:
    """Text a database can hold: no zero characters, no halves of surrogate pairs."""
    return text.replace("\x00", "").encode("utf-8", "replace").decode()


def _until_stored() -> AsyncIterator[stamina.Attempt]:
    return stamina.retry_context(on=Unavailable, attempts=None, timeout=_STORE_FOR_S, wait_max=3.0).__aiter__()


def principal_today(member: Login) -> Principal:
    """The user with the role of today, not that of the day the task was made."""
    return Principal(
        user_id=member.user_id,
        org_id=member.org_id,
        username=member.username,
        role=member.role,
        permissions=ROLE_PERMISSIONS[member.role],
        admin=member.admin,
    )
