"""What a session told its client: numbered, and kept for a client that comes back."""

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Any

_KEPT = 1000


@dataclass(frozen=True, slots=True)
class LiveEvent:
    """Something the client is told; numbers rise, with gaps where a partial was replaced by a later one."""

    number: int
    type: str
    data: dict[str, Any]


class EventLog:
    """The last events of a session. Of partials only the newest is kept: the others say nothing any more."""

    def __init__(self) -> None:
        self._events: deque[LiveEvent] = deque()
        self._number = 0
        self._changed = asyncio.Event()
        self.lost_until = 0
        """Highest number of an event, other than a replaced partial, that is not kept any more."""

    def add(self, type_: str, **data: Any) -> LiveEvent:
        """Tell something."""
        self._number += 1
        if type_ in ("partial", "final"):
            self._events = deque(event for event in self._events if event.type != "partial")
        event = LiveEvent(self._number, type_, data)
        self._events.append(event)
        if len(self._events) > _KEPT:
            self.lost_until = self._events.popleft().number
        self._changed.set()
        return event

    def after(self, number: int) -> list[LiveEvent]:
        """What is kept of the events after `number`, in order."""
        return [event for event in self._events if event.number > number]

    async def wait(self, number: int) -> list[LiveEvent]:
        """Like `after`, once there are any."""
        while not (found := self.after(number)):
            self._changed.clear()
            await self._changed.wait()
        return found
