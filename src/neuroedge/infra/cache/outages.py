"""Levels that fail are skipped for a moment: no request waits for them, one in a while tries whether they are back."""

from collections.abc import Awaitable, Callable
from typing import Literal, TypeVar

import structlog

from neuroedge.contract.errors import CircuitOpen, Unavailable
from neuroedge.infra.breaker import Breakers, State

log = structlog.get_logger(__name__)
T = TypeVar("T")

Level = Literal["memory", "valkey", "disk", "flight"]
"""Where a value came from; flight: from another call that was computing it."""
Event = Literal["hit", "miss", "error", "dropped"]
Count = Callable[[Event, Level | None, int], None]
"""Told what happened, where, and to how many keys or calls; a miss is of all levels."""

_THRESHOLD = 2
_REST_S = 1.0


class Outages:
    """Runs a level's work unless it failed twice in a row within the last second.

    Reads and writes are apart: a full disk can still be read.
    """

    def __init__(self, count: Count) -> None:
        self._count = count
        self._away: set[str] = set()
        self._breakers = Breakers(threshold=_THRESHOLD, open_s=_REST_S, on_change=self._changed)

    async def attempt(self, level: Level, what: Literal["read", "write"], work: Callable[[], Awaitable[T]]) -> T | None:
        """What `work` gives; None when it fails, or when the level is left alone."""
        part = f"{level} {what}"
        try:
            async with self._breakers.guard(part):
                return await work()
        except CircuitOpen:
            return None
        except Unavailable as error:
            log.debug("cache_failed", part=part, error=error.detail)
        except Exception:
            log.exception("cache_failed", part=part)  # a defect, but not one to fail a request with
        self._count("error", level, 1)
        return None

    def _changed(self, name: str, state: State) -> None:
        """Tell of an outage once, however often it is probed."""
        if state == "open" and name not in self._away:
            self._away.add(name)
            log.warning("cache_away", part=name)
        elif state == "closed":
            self._away.discard(name)
            log.info("cache_back", part=name)
