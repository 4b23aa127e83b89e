"""Following long work: events as they come, and the row's word when the stream is silent."""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from neuroedge.contract.errors import Overloaded
from neuroedge.contract.principal import Principal
from neuroedge.infra.events import Events

MAX_LISTENERS = 100
"""Streams one user may hold open in one process."""
_CHECK_EVERY = 10
"""Silent seconds after which the row is asked whether the end was missed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgressEvent:
    """A progress event; `id` is what a listener resumes after. Name "ping" only keeps the connection alive."""

    id: str | None
    name: str
    data: dict[str, Any]


PING = ProgressEvent(id=None, name="ping", data={})


class Following:
    """Follows topics until one of the events `ends`, for a bounded number of listeners a user."""

    def __init__(self, events: Events, *, ends: Collection[str]) -> None:
        self._events = events
        self._ends = frozenset(ends)
        self._listeners: Counter[UUID] = Counter()

    def admit(self, principal: Principal) -> None:
        """Raise Overloaded when the user has too many streams open."""
        if self._listeners[principal.user_id] >= MAX_LISTENERS:
            raise Overloaded(f"{MAX_LISTENERS} streams are open already", hint="close some", retry_after_s=5)

    async def follow(
        self, principal: Principal, topic: str, *, after: str, look: Callable[[], Awaitable[ProgressEvent]]
    ) -> AsyncIterator[ProgressEvent]:
        """Events after an id until the end. `look` reads from the database what the work's state says."""
        self._listeners[principal.user_id] += 1
        silent = 0
        try:
            async for event in self._events.follow(principal.org_id, topic, after=after):
                # The stream is only a messenger: when it is silent, the row tells whether the end was missed.
                if event is not None:
                    silent = 0
                    passed = ProgressEvent(id=event.id, name=event.name, data=event.data)
                elif (silent := silent + 1) % _CHECK_EVERY == 1:
                    passed = await look()
                else:
                    passed = PING
                yield passed
                if passed.name in self._ends:
                    return
        finally:
            self._listeners[principal.user_id] -= 1
            if self._listeners[principal.user_id] <= 0:
                del self._listeners[principal.user_id]
