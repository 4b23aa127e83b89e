"""Progress of a task: published by its runs, followed by whoever may read it."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

from neuroedge.contract.errors import NotFound
from neuroedge.contract.principal import Principal
from neuroedge.infra.events import Events
from neuroedge.services.progress import PING, Following, ProgressEvent
from neuroedge.stores import tasks
from neuroedge.stores.postgres import Connection, Database
from neuroedge.stores.tasks import Task

END = (*tasks.FINISHED, "deleted")


class TaskProgress:
    """Publishes to and follows one task's topic."""

    def __init__(self, *, db: Database, events: Events) -> None:
        self._db = db
        self._events = events
        self._following = Following(events, ends=END)

    async def publish(self, org_id: UUID, task_id: UUID, name: str, data: dict[str, Any]) -> None:
        """Tell listeners; losing an event never fails the work."""
        await self._events.publish(org_id, _topic(task_id), name, data)

    async def forget(self, org_id: UUID, task_id: UUID) -> None:
        """Drop the events so far: of a deleted task, or of one that begins anew."""
        await self._events.forget(org_id, _topic(task_id))

    async def follow(
        self, principal: Principal, task_id: UUID, *, after: str | None = None
    ) -> AsyncIterator[ProgressEvent]:
        """Progress until the end, first what already happened. Raises NotFound, Overloaded before the first event."""
        self._following.admit(principal)
        async with self._db.tenant(principal) as conn:
            await require(conn, task_id)
        return self._following.follow(
            principal, _topic(task_id), after=after or "0", look=lambda: self._from_row(principal, task_id)
        )

    async def _from_row(self, principal: Principal, task_id: UUID) -> ProgressEvent:
        async with self._db.tenant(principal) as conn:
            task = await tasks.find(conn, task_id)
        if task is None:
            return ProgressEvent(id=None, name="deleted", data={})
        if task.state in tasks.FINISHED:
            return ProgressEvent(id=None, name=task.state, data=failure(task))
        return PING


def failure(task: Task) -> dict[str, Any]:
    """The failure of a task as an event carries it; empty when there is none."""
    if task.error_code is None:
        return {}
    return {"code": task.error_code, "detail": task.error_detail, "hint": task.error_hint}


async def require(conn: Connection, task_id: UUID, *, lock: bool = False) -> Task:
    """The task of the transaction's organisation. Raises NotFound, the same for another tenant's."""
    task = await tasks.find(conn, task_id, lock=lock)
    if task is None:
        raise NotFound(f"no task {task_id}", hint="GET /v1/tasks lists yours")
    return task


def _topic(task_id: UUID) -> str:
    return f"task:{task_id}"
