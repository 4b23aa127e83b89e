"""Bulk jobs: many engine calls taken in at once, listed, read, cancelled, made again, deleted.

Each call has an outcome of its own: one that fails does not fail the others. A run is `batch_run`, a job of the queue.
"""

import hashlib
import json
from collections.abc import AsyncGenerator, Sequence
from dataclasses import asdict, replace
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from pydantic_core import to_json

from neuroedge.contract.errors import Conflict, Forbidden, InvalidInput, Overloaded, TooLarge
from neuroedge.contract.models import Priority
from neuroedge.contract.ports import Clock
from neuroedge.contract.principal import Principal
from neuroedge.infra.queue import TASK_QUEUE, JobQueue
from neuroedge.services.accounts import PROBE
from neuroedge.services.audit import audited
from neuroedge.services.batch_progress import BatchProgress, counts, require
from neuroedge.services.housekeeping import in_each
from neuroedge.services.run_engine import EngineRunner
from neuroedge.stores import batches
from neuroedge.stores.batches import FINISHED, Batch, Item, ItemState, NewBatch, NewItem, State
from neuroedge.stores.ids import new_id
from neuroedge.stores.postgres import Connection, Database

RUN_BATCH: Final = "run_batch"
MAX_ITEMS: Final = 10_000
MAX_PAYLOAD_BYTES: Final = 1 << 20
_PAGE: Final = 100
"""Items opened at a time when outcomes are downloaded: each may hold a mebibyte."""


class Batches:
    """Bulk jobs of the caller's organisation."""

    def __init__(
        self,
        *,
        db: Database,
        runner: EngineRunner,
        queue: JobQueue,
        progress: BatchProgress,
        clock: Clock,
        keep_days: float,
        max_waiting: int,
    ) -> None:
        self._db = db
        self._runner = runner
        self._queue = queue
        self._progress = progress
        self._clock = clock
        self._keep = timedelta(days=keep_days)
        self._max_waiting = max_waiting

    async def submit(
        self,
        items: Sequence[NewItem],
        *,
        priority: Priority,
        principal: Principal,
        request_id: str,
        idempotency_key: str | None = None,
    ) -> Batch:
        """Keep and queue a batch; with a key already used for the same order, the batch made then.

        What is wrong with one payload is that item's outcome. Raises NotFound for an unknown engine, Forbidden,
        InvalidInput for names that repeat, TooLarge, Conflict for a key used for another order, Overloaded when too
        many items of the organisation wait.
        """
        self._check(items, principal)
        fingerprint = await self._fingerprint(items, priority, principal)
        batch = NewBatch(
            id=new_id(),
            user_id=principal.user_id,
            request_id=request_id,
            priority=priority,
            idempotency_key=idempotency_key,
            fingerprint=fingerprint,
        )
        async with self._db.tenant(principal) as conn:
            if idempotency_key and (made := await _made(conn, batch)):
                return made
            await self._admit(conn, len(items))
            if not await batches.insert(conn, org_id=principal.org_id, batch=batch, items=items):
                # The same key at the same moment; the other one was first.
                made = await _made(conn, batch)
                if made is None:
                    raise Conflict("the batch of this Idempotency-Key was just deleted", hint="send it again")
                return made
            await enqueue(self._queue, conn, principal.org_id, batch.id, priority=priority)
            await _audit(conn, principal, request_id, "batch.created", batch.id)
            stored = await require(conn, batch.id)
        await self._progress.publish(principal.org_id, batch.id, "queued", counts(stored))
        return stored

    async def recent(
        self, principal: Principal, *, limit: int, before: UUID | None, state: State | None
    ) -> list[Batch]:
        """Newest first."""
        async with self._db.tenant(principal) as conn:
            return await batches.recent(conn, limit=limit, before=before, state=state)

    async def get(self, principal: Principal, batch_id: UUID) -> Batch:
        """One batch. Raises NotFound."""
        async with self._db.tenant(principal) as conn:
            return await require(conn, batch_id)

    async def items(
        self, principal: Principal, batch_id: UUID, *, after: int, limit: int, state: ItemState | None = None
    ) -> list[Item]:
        """Items beyond a position with their outcomes, in the order they were given. Raises NotFound."""
        async with self._db.tenant(principal) as conn:
            await require(conn, batch_id)
            return await batches.items(conn, batch_id, after=after, limit=limit, state=state)

    async def outcomes(
        self, principal: Principal, batch_id: UUID, *, state: ItemState | None = None
    ) -> AsyncGenerator[bytes, None]:
        """A JSON line for each item that has an outcome, in the order they were given. Raises NotFound."""
        after = -1
        while found := await self.items(principal, batch_id, after=after, limit=_PAGE, state=state):
            for item in found:
                if item.state is not None:
                    yield to_json(told(item)) + b"\n"
            after = found[-1].position

    async def cancel(self, principal: Principal, batch_id: UUID, *, request_id: str) -> Batch:
        """End a batch that waits or runs; outcomes there are stay. Cancelling a cancelled one changes nothing.

        Raises NotFound, Conflict for one that ended otherwise.
        """
        async with self._db.tenant(principal) as conn:
            batch = await require(conn, batch_id, lock=True)
            if batch.state == "cancelled":
                return batch
            if batch.state in FINISHED:
                raise Conflict(f"the batch {batch_id} is {batch.state} already", hint="there is nothing to cancel")
            await batches.end(conn, batch_id, "cancelled")
            if batch.job_id is not None:
                await self._queue.cancel(conn, batch.job_id)
            await _audit(conn, principal, request_id, "batch.cancelled", batch_id)
            batch = await require(conn, batch_id)
        await self._progress.publish(principal.org_id, batch_id, "cancelled", counts(batch))
        return batch

    async def retry(self, principal: Principal, batch_id: UUID, *, request_id: str) -> Batch:
        """Run the items anew that failed or that a cancellation left; those that succeeded keep their results.

        Raises NotFound, Forbidden, Conflict while it is not finished and when nothing is left to run, Overloaded.
        """
        async with self._db.tenant(principal) as conn:
            batch = await require(conn, batch_id, lock=True)
            if batch.state not in FINISHED:
                raise Conflict(f"the batch {batch_id} is {batch.state}", hint="wait for its end, or cancel it")
            if batch.succeeded == batch.total:
                raise Conflict(f"every item of the batch {batch_id} succeeded", hint="there is nothing to run anew")
            for name in await batches.engines(conn, batch_id):
                self._permit(name, principal)
            await self._admit(conn, batch.total - batch.succeeded)
            await batches.queue_again(conn, batch_id)
            await enqueue(self._queue, conn, principal.org_id, batch_id, priority=batch.priority)
            await _audit(conn, principal, request_id, "batch.retried", batch_id)
            batch = await require(conn, batch_id)
        # Its old end must not be the first thing a new listener hears.
        await self._progress.forget(principal.org_id, batch_id)
        await self._progress.publish(principal.org_id, batch_id, "queued", counts(batch))
        return batch

    async def delete(self, principal: Principal, batch_id: UUID, *, request_id: str) -> None:
        """Delete a finished batch with its items. Raises NotFound, Conflict for one that is not finished."""
        async with self._db.tenant(principal) as conn:
            batch = await require(conn, batch_id, lock=True)
            if batch.state not in FINISHED:
                raise Conflict(f"the batch {batch_id} is {batch.state}", hint=f"POST /v1/batches/{batch_id}/cancel")
            await batches.delete(conn, batch_id)
            await _audit(conn, principal, request_id, "batch.deleted", batch_id)
        await self._progress.publish(principal.org_id, batch_id, "deleted", {})
        await self._progress.forget(principal.org_id, batch_id)

    async def sweep(self) -> int:
        """Delete, in every organisation, batches that finished longer ago than they are kept; how many."""
        before = self._clock.now() - self._keep
        async with self._db.unbound() as conn:
            organisations = await batches.organisations_before(conn, before)

        async def of(org_id: UUID) -> int:
            async with self._db.tenant(replace(PROBE, org_id=org_id)) as conn:
                return await batches.delete_before(conn, before)

        return await in_each(organisations, of)

    def _check(self, items: Sequence[NewItem], principal: Principal) -> None:
        """Refuse now what concerns the whole batch."""
        for name in sorted({item.engine for item in items}):
            self._permit(name, principal)
        names: set[str] = set()
        for position, item in enumerate(items):
            if item.name is not None and item.name in names:
                raise InvalidInput(
                    f"two items have the id {item.name}",
                    hint="give each its own, or none: outcomes carry the position too",
                    errors=[{"loc": ("body", "items", position, "id"), "msg": "is not unique", "type": "repeated"}],
                )
            names |= {item.name} if item.name is not None else set()

    def _permit(self, name: str, principal: Principal) -> None:
        engine = self._runner.registry.get(name)
        if not principal.may(engine.permission):
            raise Forbidden(f"running {name} needs the permission {engine.permission}")
        # A worker runs the items for the user, without what limits the key they were ordered with.
        if not principal.may_run(name) or principal.models is not None:
            raise Forbidden(f"this API key does not allow running {name} in the background")

    async def _admit(self, conn: Connection, more: int) -> None:
        if await batches.count_unfinished(conn) + more > self._max_waiting:
            raise Overloaded(
                f"more than {self._max_waiting} items of your organisation would wait",
                hint="wait for some batches, or cancel some",
                retry_after_s=30,
            )

    async def _fingerprint(self, items: Sequence[NewItem], priority: Priority, principal: Principal) -> bytes:
        """The same for orders of one organisation that ask for the same; keyed, so that it tells nobody else what."""
        digest = hashlib.sha256(priority.encode())
        for position, item in enumerate(items):
            data = _as_json(item, position)
            if len(data) > MAX_PAYLOAD_BYTES:
                raise TooLarge(
                    f"item {position} is larger than {MAX_PAYLOAD_BYTES} bytes",
                    hint="store the file first and give its blob",
                )
            digest.update(hashlib.sha256(data).digest())
        cipher = (await self._db.known(principal.org_id)).cipher
        return cipher.blind(f"batch:{digest.hexdigest()}").to_bytes(8)


def told(item: Item) -> dict[str, Any]:
    """An item as callers read it: with `result` or `error` once it has an outcome."""
    said = {"position": item.position, "id": item.name, "engine": item.engine, "state": item.state or "waiting"}
    return {**said, **(item.outcome or {})}


async def enqueue(queue: JobQueue, conn: Connection, org_id: UUID, batch_id: UUID, *, priority: Priority) -> None:
    """Give a batch its job: from now on this one, and no earlier one, works on it."""
    args = {"batch_id": str(batch_id), "org_id": str(org_id)}
    job_id = await queue.defer(
        conn, RUN_BATCH, lock=f"batch:{batch_id}", args=args, queue=TASK_QUEUE, priority=priority
    )
    await batches.set_job(conn, batch_id, job_id)


async def _made(conn: Connection, batch: NewBatch) -> Batch | None:
    """The batch this caller made with its key. Raises Conflict when it was for another order."""
    made = await batches.find_by_key(conn, batch.user_id, batch.idempotency_key or "")
    if made is not None and made.fingerprint != batch.fingerprint:
        raise Conflict(
            "this Idempotency-Key was used for another batch",
            hint=f"take a new key for each batch; /v1/batches/{made.id} has this one",
        )
    return made


async def _audit(conn: Connection, principal: Principal, request_id: str, action: str, batch_id: UUID) -> None:
    await audited(conn, principal, request_id=request_id, action=action, target=f"batch:{batch_id}")


def _as_json(item: NewItem, position: int) -> bytes:
    try:
        return json.dumps(asdict(item), allow_nan=False, sort_keys=True).encode()
    except (ValueError, RecursionError) as error:
        raise InvalidInput(
            f"item {position} cannot be kept as JSON",
            hint="leave out NaN and Infinity, and nest less deeply",
            errors=[{"loc": ("body", "items", position, "payload"), "msg": "is no JSON", "type": "json"}],
        ) from error
