"""Something scarce, shared out to the requests that run in one llama.cpp context, in the order they came.

A context shared by several streams that overflows ends all of them. So a request begins only when the tokens of its
prompt and its longest answer fit beside those that run. Its prompt also takes its turn among the others.
"""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Condition, Event
from typing import Final

_LOOK_AGAIN_S: Final = 1.0
"""Between two signs of life of a thread that waits."""


class SharedRoom:
    """Counts what is in use, across threads."""

    def __init__(self, units: int) -> None:
        self.units = units
        self._free = units
        self._queue: deque[object] = deque()
        self._changed = Condition()

    @contextmanager
    def holding(
        self, most: int, *, exactly: Callable[[], int], cancelled: Event, alive: Callable[[], None]
    ) -> Iterator[None]:
        """Hold room for a request of at most `most` units; `exactly` counts them, asked only where room is scarce.

        Gives up waiting when `cancelled` is set (call `wake` then); calls `alive` while it waits.
        """
        need = min(most, self.units)
        if not self._ample(need):
            need = min(need, max(1, exactly()))
        taken = self._take(need, cancelled, alive)
        try:
            yield
        finally:
            with self._changed:
                self._free += taken
                self._changed.notify_all()

    def wake(self) -> None:
        """Let those that wait see that they were cancelled."""
        with self._changed:
            self._changed.notify_all()

    def _ample(self, need: int) -> bool:
        """Whether as much again stays free."""
        with self._changed:
            return not self._queue and 2 * need <= self._free

    def _take(self, need: int, cancelled: Event, alive: Callable[[], None]) -> int:
        me = object()
        with self._changed:
            self._queue.append(me)
            try:
                while (self._queue[0] is not me or need > self._free) and not cancelled.is_set():
                    self._changed.wait(_LOOK_AGAIN_S)
                    alive()
                if cancelled.is_set():
                    return 0
                self._free -= need
                return need
            finally:
                self._queue.remove(me)
                self._changed.notify_all()
