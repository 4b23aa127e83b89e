"""A model's place in the pool, and the model while it is in memory."""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from neuroedge.contract.errors import NeuroEdgeError
from neuroedge.contract.models import ModelState, Priority
from neuroedge.runtimes.catalogue import ModelEntry

RANK: Final[dict[Priority, int]] = {"low": 0, "normal": 1, "high": 2}


@dataclass(eq=False, slots=True, kw_only=True)
class Loaded:
    """A model in memory. Leases are counted here, not in the slot: a replaced model drains by itself."""

    model: Any
    device: str
    bytes: int
    leases: int = 0
    priority: Priority = "low"
    """The highest that asked for it since it was last idle."""
    last_used: float = field(default_factory=time.monotonic)
    idle: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.idle.set()

    def take(self, priority: Priority) -> None:
        """One more lease."""
        if not self.leases or RANK[priority] > RANK[self.priority]:
            self.priority = priority
        self.leases += 1
        self.last_used = time.monotonic()
        self.idle.clear()

    def release(self) -> None:
        """One lease less."""
        self.leases -= 1
        self.last_used = time.monotonic()
        if self.leases == 0:
            self.idle.set()

    async def unused(self) -> None:
        """Return when nobody holds it: nobody can, until the caller waits for something else."""
        while self.leases:  # whoever runs between the last release and this one may have taken it again
            await self.idle.wait()


@dataclass(eq=False, slots=True, kw_only=True)
class Slot:
    """What the pool knows of one model of the catalogue."""

    entry: ModelEntry
    pinned: bool = False
    state: ModelState = "unloaded"
    loaded: Loaded | None = None
    loading: "asyncio.Task[None] | None" = None
    waits_for_room: bool = False
    loads: int = 0
    load_s: float | None = None
    measured_bytes: int | None = None
    """What it took when it was last loaded."""
    error: str | None = None
    error_code: str | None = None
    failures: int = 0
    """Loads that failed since the last good one."""
    _failed_at: float = 0.0
    _wanted: "Counter[Priority]" = field(default_factory=Counter)

    def want(self, priority: Priority) -> None:
        """Somebody waits for the model."""
        self._wanted[priority] += 1

    def unwant(self, priority: Priority) -> None:
        """Somebody does not wait any more."""
        self._wanted[priority] -= 1

    @property
    def wanted(self) -> int | None:
        """Rank of the most urgent caller that waits for the model; None when all have left."""
        return max((RANK[priority] for priority, count in self._wanted.items() if count > 0), default=None)

    @property
    def leases(self) -> int:
        """How many hold it now."""
        return self.loaded.leases if self.loaded else 0

    @property
    def loaded_on(self) -> str | None:
        """The device it is on."""
        return self.loaded.device if self.loaded else None

    @property
    def priority(self) -> Priority | None:
        """Of its last use."""
        return self.loaded.priority if self.loaded else None

    @property
    def evictable(self) -> bool:
        """Whether it is loaded, not pinned, not held and not about to be: those it was loaded for come next."""
        return self.loaded is not None and self.loaded.leases == 0 and self.wanted is None and not self.pinned

    def worth(self) -> tuple[int, float]:
        """For choosing whom to evict: lowest priority first, then least recently used."""
        assert self.loaded is not None
        return RANK[self.loaded.priority], self.loaded.last_used

    def idle_for_s(self) -> float:
        """Seconds since its last use."""
        return time.monotonic() - self.loaded.last_used if self.loaded else 0.0

    def failed_for_s(self) -> float:
        """Seconds since its load failed."""
        return time.monotonic() - self._failed_at

    def succeeded(self, *, seconds: float) -> None:
        """A load has ended well."""
        assert self.loaded is not None
        self.state, self.error, self.error_code = "ready", None, None
        self.failures = 0
        self.loads += 1
        self.load_s = seconds
        self.measured_bytes = self.loaded.bytes

    def failed(self, error: NeuroEdgeError) -> None:
        """A load has failed."""
        self.state, self.error, self.error_code = "failed", error.detail, error.code
        self.failures += 1
        self._failed_at = time.monotonic()

    def refused(self, error: NeuroEdgeError) -> None:
        """A load was not begun: there was no room, or its files were never fetched. That says nothing against the
        model."""
        self.state, self.error, self.error_code = "unloaded", error.detail, error.code

    def emptied(self) -> None:
        """The model leaves."""
        self.loaded, self.state = None, "unloaded"
