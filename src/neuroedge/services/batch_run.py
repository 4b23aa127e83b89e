"""One run of a bulk job: a few items at a time, each outcome stored as soon as it is there, until none waits.

Nothing but outcomes is kept, so that a run that is cut off is resumed by the next one where it stopped. A long batch
gives its worker back after a while and queues anew, so that others' work goes on.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal
from uuid import UUID

import stamina
import structlog

from neuroedge.contract.errors import InvalidInput, NeuroEdgeError, TooLarge, Unavailable
from neuroedge.contract.principal import Principal
from neuroedge.contract.scope import call_scope
from neuroedge.infra.queue import JobQueue
from neuroedge.services.accounts import PROBE
from neuroedge.services.batch_progress import BatchProgress, counts, require
from neuroedge.services.batches import enqueue
from neuroedge.services.run_engine import EngineRunner
from neuroedge.services.task_run import principal_today
from neuroedge.stores import accounts, batches
from neuroedge.stores.batches import Batch, Item, ItemState
from neuroedge.stores.postgres import Database

log = structlog.get_logger(__name__)

AT_ONCE: Final = 4
MAX_STARTS: Final = 3
"""Starts of one item that crashes cut off before it is taken for what brings the worker down."""
MAX_TRIES: Final = 3
"""Runs of one item that fail for a reason that may pass."""
SLICE_S: Final = 30.0
"""Seconds after which a batch lets others' jobs go first."""
MAX_RESULT_BYTES: Final = 1 << 20
_LONGEST_WAIT_S: Final = 30.0
_STORE_FOR_S: Final = 60.0
_LET_GO_S: Final = 5.0

Outcome = Literal["skipped", "again", "done", "failed", "outdated"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """A job that may work on a batch, for the user who ordered it."""

    batch: Batch
    principal: Principal
    job_id: int


class BatchRuns:
    """Runs batches the queue gives out."""

    def __init__(
        self, *, db: Database, runner: EngineRunner, queue: JobQueue, progress: BatchProgress, retry_wait_s: float
    ) -> None:
        self._db = db
        self._runner = runner
        self._queue = queue
        self._progress = progress
        self._retry_wait_s = retry_wait_s

    async def run(self, org_id: UUID, batch_id: UUID, *, job_id: int) -> Outcome:
        """Work on a batch if this job may. Raises Unavailable without the database."""
        began = await self._begin(org_id, batch_id, job_id)
        if not isinstance(began, _Run):
            return began
        until = time.monotonic() + SLICE_S
        while time.monotonic() < until:
            items = await self._take(began)
            if items is None:
                return "outdated"
            if not items:
                return await self._end(began)
            await self._answer(began, items)
        return await self._later(began)

    async def _begin(self, org_id: UUID, batch_id: UUID, job_id: int) -> _Run | Outcome:
        """Take the batch on; "failed" when its user is gone."""
        async with self._db.tenant(replace(PROBE, org_id=org_id)) as conn:
            batch = await batches.find(conn, batch_id, lock=True)
            if batch is None or batch.job_id != job_id or batch.state in batches.FINISHED:
                return "skipped"
            member = await accounts.member(conn, batch.user_id)
            if member is None:
                await batches.end(conn, batch_id, "failed")
            else:
                await batches.start(conn, batch_id)
        if member is None:
            await self._progress.publish(org_id, batch_id, "failed", counts(batch))
            return "failed"
        if batch.started_at is None:
            await self._progress.publish(org_id, batch_id, "started", counts(batch))
        return _Run(batch=batch, principal=principal_today(member), job_id=job_id)

    async def _take(self, run: _Run) -> list[Item] | None:
        """The next items; None when this job counts no more."""
        async with self._db.tenant(run.principal) as conn:
            batch = await batches.find(conn, run.batch.id, lock=True)
            if batch is None or batch.job_id != run.job_id or batch.state != "running":
                return None
            return await batches.take(conn, run.batch.id, limit=AT_ONCE)

    async def _answer(self, run: _Run, items: Sequence[Item]) -> None:
        """Run the items together and tell how far the batch is."""
        try:
            async with asyncio.TaskGroup() as together:
                for item in items:
                    together.create_task(self._one(run, item))
        except asyncio.CancelledError:
            await asyncio.shield(self._let_go(run, items))
            raise
        async with self._db.tenant(run.principal) as conn:
            batch = await batches.find(conn, run.batch.id)
        if batch is not None and batch.state == "running":
            await self._progress.publish(run.principal.org_id, run.batch.id, "progress", counts(batch))

    async def _one(self, run: _Run, item: Item) -> None:
        """Run an item, again where that can help, and store what came of it."""
        state: ItemState = "succeeded"
        try:
            outcome = {"result": await self._call(run, item)}
        except NeuroEdgeError as error:
            state, outcome = "failed", {"error": _told(error)}
        except Exception as error:
            log.error("batch_item_failed", batch_id=str(run.batch.id), engine=item.engine, exc_info=error)
            state, outcome = "failed", {"error": _told(NeuroEdgeError("the engine failed unexpectedly"))}
        async for attempt in stamina.retry_context(on=Unavailable, attempts=None, timeout=_STORE_FOR_S, wait_max=3.0):
            with attempt:
                async with self._db.tenant(run.principal) as conn:
                    await batches.finish_item(conn, run.batch.id, item.id, state=state, outcome=outcome)

    async def _call(self, run: _Run, item: Item) -> dict[str, Any]:
        """The engine's answer. Raises what the last try raised."""
        if item.starts >= MAX_STARTS:
            raise NeuroEdgeError(f"the item was cut off {item.starts} times", hint="the worker's log tells by what")
        tries = 0
        while True:
            try:
                return await self._try(run, item)
            except NeuroEdgeError as error:
                tries += 1
                if tries >= MAX_TRIES or not (error.retryable or error.status >= 500):
                    raise
                wait_s = max(self._retry_wait_s * 2.0 ** (tries - 1), float(error.retry_after_s or 0))
                await asyncio.sleep(min(wait_s, _LONGEST_WAIT_S))

    async def _try(self, run: _Run, item: Item) -> dict[str, Any]:
        with call_scope(priority=run.batch.priority):
            answer = await self._runner.run(
                item.engine, item.payload, principal=run.principal, request_id=run.batch.request_id
            )
        data = answer.model_dump_json()
        if len(data) > MAX_RESULT_BYTES:
            raise TooLarge(
                f"the result is larger than {MAX_RESULT_BYTES} bytes", hint="POST /v1/tasks keeps larger ones"
            )
        result: dict[str, Any] = json.loads(data)
        return result

    async def _let_go(self, run: _Run, items: Sequence[Item]) -> None:
        """Say that a stopping worker let go; if that fails, the next run counts it as a crash."""
        with contextlib.suppress(NeuroEdgeError, TimeoutError):
            async with asyncio.timeout(_LET_GO_S), self._db.tenant(run.principal) as conn:
                await batches.let_go(conn, [item.id for item in items])

    async def _end(self, run: _Run) -> Outcome:
        """No item waits any more."""
        async with self._db.tenant(run.principal) as conn:
            ended = await batches.end(conn, run.batch.id, "done")
            batch = await require(conn, run.batch.id)
        if not ended:
            return "outdated"
        await self._progress.publish(run.principal.org_id, run.batch.id, "done", counts(batch))
        return "done"

    async def _later(self, run: _Run) -> Outcome:
        """Queue the rest behind what waits already."""
        async with self._db.tenant(run.principal) as conn:
            batch = await batches.find(conn, run.batch.id, lock=True)
            if batch is None or batch.job_id != run.job_id or batch.state != "running":
                return "outdated"
            await enqueue(self._queue, conn, run.principal.org_id, run.batch.id, priority=batch.priority)
        return "again"


def _told(error: NeuroEdgeError) -> dict[str, Any]:
    """An error as an outcome holds it."""
    said: dict[str, Any] = {"code": error.code, "detail": error.detail, "hint": error.hint}
    if isinstance(error, InvalidInput) and error.errors:
        said["errors"] = [{**one, "loc": list(one.get("loc", ()))} for one in error.errors]
    return said
