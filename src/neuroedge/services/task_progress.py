"""Progress of a task: published by its runs, followed by whoever may read it."""

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from neuroedge.contract.errors import NotFound, Overloaded
from neuroedge.contract.principal import Principal
from neuroedge.infra.events import Events
from neuroedge.stores import tasks
from neuroedge.stores.postgres import Connection, Database
from neuroedge.stores.tasks import Task

MAX_LISTENERS = 20
"""Streams one user may hold open in one process; each costs a connection to Valkey."""
_CHECK_EVERY = 10
"""Silent seconds after which the row is asked whether the end was missed."""
END = (*tasks.FINISHED, "deleted")


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskEvent:
    """A progress event; `id` is what a listener resumes after. Name "ping" only keeps the connection alive."""

    id: str | None
    name: str
    data: dict[str, Any]


class TaskProgress:
    """Publishes to and follows one task's topic."""

    def __init__(self, *, db: Database, events: Events) -> None:
        self._db = db
        self._events = events
        self._listeners: Counter[UUID] = Counter()

    async def publish(self, org_id: UUID, task_id: UUID, name: str, data: dict[str, Any]) -> None:
        """Tell listeners; losing an event never fails the work."""
        await self._events.publish(org_id, _topic(task_id), name, data)

    async def forget(self, org_id: UUID, task_id: UUID) -> None:
        """Drop the events so far: of a deleted task, or of one that begins anew."""
        await self._events.forget(org_id, _topic(task_id))

    async def follow(
        self, principal: Principal, task_id: UUID, *, after: str | None = None
    ) -> AsyncIterator[TaskEvent]:
        """Progress until the end, first what already happened. Raises NotFound, Overloaded before the first event."""
        if self._listeners[principal.user_id] >= MAX_LISTENERS:
            raise Overloaded(f"{MAX_LISTENERS} streams are open already", hint="close some", retry_after_s=5)
        async with self._db.tenant(principal) as conn:
            await require(conn, task_id)
        return self._follow(principal, task_id, after or "0")

    async def _follow(self, principal: Principal, task_id: UUID, after: str) -> AsyncIterator[TaskEvent]:
        self._listeners[principal.user_id] += 1
        silent = 0
        try:
            async for event in self._events.follow(principal.org_id, _topic(task_id), after=after):
                # The stream is only a messenger: when it is silent, the row tells whether the end was missed.
                if event is not None:
                    silent = 0
                    passed = TaskEvent(id=event.id, name=event.name, data=event.data)
                elif (silent := silent + 1) % _CHECK_EVERY == 1:
                    passed = await self._from_row(principal, task_id)
                else:
                    passed = TaskEvent(id=None, name="ping", data={})
                yield passed
                if passed.name in END:
                    return
        finally:
            self._listeners[principal.user_id] -= 1
            if self._listeners[principal.user_id] <= 0:
                del self._listeners[principal.user_id]

    async def _from_row(self, principal: Principal, task_id: UUID) -> TaskEvent:
        async with self._db.tenant(principal) as conn:
            task = await tasks.find(conn, task_id)
        if task is None:
            return TaskEvent(id=None, name="deleted", data={})
        if task.state in tasks.FINISHED:
            return TaskEvent(id=None, name=task.state, data=failure(task))
        return TaskEvent(id=None, name="ping", data={})


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
