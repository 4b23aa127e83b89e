"""What every call needs to know of its organisation: read once for many, and anew after some seconds."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextvars import Context
from functools import partial
from typing import Generic, TypeVar
from uuid import UUID

V = TypeVar("V")


class Kept(Generic[V]):
    """A value for each organisation, kept for `kept_s`; those asked for at the same time are read once."""

    def __init__(self, read: Callable[[UUID], Awaitable[V]], *, kept_s: float, most: int = 5_000) -> None:
        self._read = read
        self._kept_s = kept_s
        self._most = most
        self._values: OrderedDict[UUID, tuple[V, float]] = OrderedDict()
        self._reading: dict[UUID, asyncio.Task[V]] = {}

    async def get(self, org_id: UUID) -> V:
        """The value, some seconds old at most. Raises what reading raises."""
        found = self._values.get(org_id)
        if found is not None and time.monotonic() - found[1] <= self._kept_s:
            return found[0]
        task = self._reading.get(org_id)
        if task is None:
            # Without the caller's context: its deadline is not that of the others who wait.
            task = self._reading[org_id] = asyncio.create_task(self._load(org_id), context=Context())
            task.add_done_callback(partial(self._done, org_id))
        return await asyncio.shield(task)

    def last(self, org_id: UUID) -> V | None:
        """What was read last, however long ago."""
        found = self._values.get(org_id)
        return found[0] if found else None

    def forget(self, org_id: UUID) -> None:
        """Read anew; what is being read at this moment is not kept either."""
        self._values.pop(org_id, None)
        self._reading.pop(org_id, None)

    async def _load(self, org_id: UUID) -> V:
        value = await self._read(org_id)
        if self._reading.get(org_id) is asyncio.current_task():
            self._values[org_id] = value, time.monotonic()
            self._values.move_to_end(org_id)
            if len(self._values) > self._most:
                self._values.popitem(last=False)
        return value

    def _done(self, org_id: UUID, task: "asyncio.Task[V]") -> None:
        if self._reading.get(org_id) is task:
            del self._reading[org_id]
        if not task.cancelled():
            task.exception()  # known to whoever waited, if anybody still does
