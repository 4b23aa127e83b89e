"""One budget of cores for all models of a process, so that their thread pools do not fight over the same cores.

Each model's library brings a thread pool as large as the machine. Two that compute at the same time would run twice
as many threads as there are cores. So a computation asks here first. What a person waits for goes first and waits
only for what is soon over: never longer than its patience, and not at all for a computation that has been running
that long already. A short embedding beside a long answer of an LLM is better served by sharing the cores than by
waiting for them. But the short ones leave it half of the cores: threads of a library that meet at every step are as
fast as the slowest of them. Background work (priority low) waits, and steps aside between its pieces (`Hold.breathe`).
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from neuroedge.contract.models import Priority

PATIENCE_S: Final[dict[Priority, float]] = {"high": 0.02, "normal": 0.05, "low": 30.0}
"""Longest wait for a core, by priority; after that the computation runs beside the others."""


@dataclass(eq=False, slots=True)
class Hold:
    """Cores in use by one computation."""

    budget: "CoreBudget"
    cores: int
    priority: Priority
    since: float = 0.0
    """When it began to use them (time.monotonic)."""

    def breathe(self) -> None:
        """Let others go first: for long work, between two pieces."""
        if self.priority == "low" and self.budget.foreground_waiting:
            self.budget.give(self)
            self.budget.take(self)


class CoreBudget:
    """Counts cores in use, across threads. A computation that wants more cores than there are gets all of them."""

    def __init__(self, cores: int) -> None:
        self.cores = max(1, cores)
        self.overcommitted = 0
        """Computations that ran beside others."""
        self.foreground_waiting = 0
        self._holds: set[Hold] = set()
        self._freed = threading.Condition()

    @property
    def in_use(self) -> int:
        """Cores in use; more than there are while computations run beside each other."""
        return sum(hold.cores for hold in list(self._holds))

    @contextmanager
    def using(self, cores: int, *, priority: Priority = "normal") -> Iterator[Hold]:
        """Hold `cores` of the budget for the block."""
        hold = Hold(self, min(max(1, cores), self.cores), priority)
        self.take(hold)
        try:
            yield hold
        finally:
            self.give(hold)

    def take(self, hold: Hold) -> None:
        """Wait for room as long as the hold's priority says, then count it."""
        background = hold.priority == "low"
        until = time.monotonic() + PATIENCE_S[hold.priority]
        with self._freed:
            self.foreground_waiting += not background
            try:
                while self._worth_waiting(hold) or (background and self.foreground_waiting):
                    left = until - time.monotonic()
                    if left <= 0:
                        break
                    self._freed.wait(left)
            finally:
                self.foreground_waiting -= not background
            self.overcommitted += self.in_use + hold.cores > self.cores
            hold.since = time.monotonic()
            self._holds.add(hold)
            self._freed.notify_all()

    def give(self, hold: Hold) -> None:
        """Count it no more."""
        with self._freed:
            self._holds.discard(hold)
            self._freed.notify_all()

    def _worth_waiting(self, hold: Hold) -> bool:
        """Whether cores are missing that may soon be free: what has run for long will run for longer."""
        long_ago = time.monotonic() - PATIENCE_S[hold.priority]
        soon_free, kept = 0, 0
        for other in self._holds:
            if other.since > long_ago:
                soon_free += other.cores
            elif other.priority != "low":
                kept = max(kept, other.cores // 2)
        return soon_free > 0 and soon_free + kept + hold.cores > self.cores
