"""Progress of a bulk job: published by its runs, followed by whoever may read it."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

from neuroedge.contract.errors import NotFound
from neuroedge.contract.principal import Principal
from neuroedge.infra.events import Events
from neuroedge.services.progress import PING, Following, ProgressEvent
from neuroedge.stores import batches
from neuroedge.stores.batches import Batch
from neuroedge.stores.postgres import Connection, Database

END = (*batches.FINISHED, "deleted")


class BatchProgress:
    """Publishes to and follows one batch's topic."""

    def __init__(self, *, db: Database, events: Events) -> None:
        self._db = db
        self._events = events
        self._following = Following(events, ends=END)

    async def publish(self, org_id: UUID, batch_id: UUID, name: str, data: dict[str, Any]) -> None:
        """Tell listeners; losing an event never fails the work."""
        await self._events.publish(org_id, _topic(batch_id), name, data)

    async def forget(self, org_id: UUID, batch_id: UUID) -> None:
        """Drop the events so far: of a deleted batch, or of one that begins anew."""
        await self._events.forget(org_id, _topic(batch_id))

    async def follow(
        self, principal: Principal, batch_id: UUID, *, after: str | None = None
    ) -> AsyncIterator[ProgressEvent]:
        """Progress until the end, first what already happened. Raises NotFound, Overloaded before the first event."""
        self._following.admit(principal)
        async with self._db.tenant(principal) as conn:
            await require(conn, batch_id)
        return self._following.follow(
            principal, _topic(batch_id), after=after or "0", look=lambda: self._from_row(principal, batch_id)
        )

    async def _from_row(self, principal: Principal, batch_id: UUID) -> ProgressEvent:
        async with self._db.tenant(principal) as conn:
            batch = await batches.find(conn, batch_id)
        if batch is None:
            return ProgressEvent(id=None, name="deleted", data={})
        if batch.state in batches.FINISHED:
            return ProgressEvent(id=None, name=batch.state, data=counts(batch))
        return PING


def counts(batch: Batch) -> dict[str, Any]:
    """How far a batch is, as an event carries it."""
    return {"total": batch.total, "succeeded": batch.succeeded, "failed": batch.failed}


async def require(conn: Connection, batch_id: UUID, *, lock: bool = False) -> Batch:
    """The batch of the transaction's organisation. Raises NotFound, the same for another tenant's."""
    batch = await batches.find(conn, batch_id, lock=lock)
    if batch is None:
        raise NotFound(f"no batch {batch_id}", hint="GET /v1/batches lists yours")
    return batch


def _topic(batch_id: UUID) -> str:
    return f"batch:{batch_id}"
