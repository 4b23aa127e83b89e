"""No level is needed for a right answer: what fails is counted, and the caller goes on without it."""

from collections.abc import Awaitable, Callable
from typing import Literal, TypeVar

import structlog

from neuroedge.contract.errors import CircuitOpen, Unavailable

log = structlog.get_logger(__name__)
T = TypeVar("T")

Level = Literal["memory", "valkey", "disk", "flight"]
"""Where a value came from; flight: from another call that was computing it."""
Event = Literal["hit", "miss", "error", "dropped"]
Count = Callable[[Event, Level | None, int], None]
"""Told what happened, where, and to how many keys (error: calls); a miss is of all levels."""


async def attempt(level: Level, access: Awaitable[T], count: Count) -> T | None:
    """What an access to a level gives; None when it fails, or when the level is left alone for a moment."""
    try:
        return await access
    except CircuitOpen:
        return None
    except Unavailable as error:
        log.debug("cache_failed", part=level, error=error.detail)
    except Exception:
        log.exception("cache_failed", part=level)  # a defect, but not one to fail a request with
    count("error", level, 1)
    return None
