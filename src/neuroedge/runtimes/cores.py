"""One budget of cores for all models of a process, so that their thread pools do not fight over the same cores.

Each model's library brings a thread pool as large as the machine. Two that compute at the same time would run twice
as many threads as there are cores. So a computation asks here first. What a person waits for goes first and waits no
longer than `patience_s`: a short embedding beside a long transcription is better served by sharing the cores than by
waiting for them. Background work (priority low) waits, and steps aside between its pieces (`breathe`).
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from neuroedge.contract.models import Priority

PATIENCE_S: Final[dict[Priority, float]] = {"high": 0.02, "normal": 0.05, "low": 30.0}
"""Longest wait for a core, by priority; after that the computation runs beside the others."""


class CoreBudget:
    """Counts cores in use, across threads. A computation that wants more cores than there are gets all of them."""

    def __init__(self, cores: int) -> None:
        self.cores = max(1, cores)
        self.in_use = 0
        self.overcommitted = 0
        """Computations that ran beside others because their patience had ended."""
        self._foreground_waiting = 0
        self._freed = threading.Condition()

    @contextmanager
    def using(self, cores: int, *, priority: Priority = "normal") -> Iterator[None]:
        """Hold `cores` of the budget for the block."""
        wanted = min(max(1, cores), self.cores)
        self._take(wanted, priority)
        try:
            yield
        finally:
            self._give(wanted)

    def breathe(self, cores: int, *, priority: Priority) -> None:
        """Let others go first: for long work, between two pieces, inside `using`."""
        if priority == "low" and self._foreground_waiting:
            wanted = min(max(1, cores), self.cores)
            self._give(wanted)
            self._take(wanted, priority)

    def _take(self, wanted: int, priority: Priority) -> None:
        until = time.monotonic() + PATIENCE_S[priority]
        background = priority == "low"
        with self._freed:
            self._foreground_waiting += not background
            try:
                while self.in_use + wanted > self.cores or (background and self._foreground_waiting):
                    left = until - time.monotonic()
                    if left <= 0:
                        self.overcommitted += 1
                        break
                    self._freed.wait(left)
            finally:
                self._foreground_waiting -= not background
            self.in_use += wanted
            self._freed.notify_all()

    def _give(self, wanted: int) -> None:
        with self._freed:
            self.in_use -= wanted
            self._freed.notify_all()
