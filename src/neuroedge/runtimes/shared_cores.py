"""One hold on the cores for several computations that a library runs together in the same threads."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from neuroedge.contract.models import Priority
from neuroedge.runtimes.cores import CoreBudget, Hold


class SharedCores:
    """Holds cores from the first computation's begin to the last one's end."""

    def __init__(self) -> None:
        self._users = 0
        self._hold: Hold | None = None
        self._lock = Lock()

    @contextmanager
    def using(self, budget: CoreBudget, cores: int, *, priority: Priority) -> Iterator[None]:
        """Be one of the users for the block; only who comes first waits for the cores."""
        if not self._joined():
            hold = Hold(budget, min(max(1, cores), budget.cores), priority)
            budget.take(hold)
            with self._lock:
                self._users += 1
                # Another may have come meanwhile: one hold is enough.
                spare = hold if self._hold is not None else None
                self._hold = self._hold or hold
            if spare is not None:
                budget.give(spare)
        try:
            yield
        finally:
            self._leave(budget)

    def _joined(self) -> bool:
        with self._lock:
            if self._hold is None:
                return False
            self._users += 1
            return True

    def _leave(self, budget: CoreBudget) -> None:
        with self._lock:
            self._users -= 1
            hold = self._hold if not self._users else None
            if hold is not None:
                self._hold = None
        if hold is not None:
            budget.give(hold)
