"""Memory budgets of the devices: who has reserved what, and who waits for room."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Mapping

from neuroedge.contract.errors import ModelUnavailable, NotEnoughMemory
from neuroedge.runtimes import memory
from neuroedge.runtimes.slot import Slot


class Reservation:
    """Room set aside for a load, until its true size is known."""

    def __init__(self, rooms: "Rooms", device: str, size_bytes: int) -> None:
        self.device, self.bytes = device, size_bytes
        self._rooms = rooms
        self._rooms.reserved[device] = self._rooms.reserved.get(device, 0) + size_bytes

    def settle(self, used_bytes: int) -> None:
        """The load has ended: count what it really took."""
        self.cancel()
        self._rooms.used[self.device] = self._rooms.used.get(self.device, 0) + used_bytes

    def cancel(self) -> None:
        """Give the room back."""
        self._rooms.reserved[self.device] -= self.bytes
        self.bytes = 0  # once only
        self._rooms.changed()


class Rooms:
    """Bytes used and promised on each device, against its budget. For one event loop."""

    def __init__(self, budget_bytes: Mapping[str, int]) -> None:
        self.budget_bytes = dict(budget_bytes)
        self.used: dict[str, int] = {}
        self.reserved: dict[str, int] = {}
        self._waiting: list[tuple[Slot, int, str]] = []
        self._order = itertools.count()
        self._change = asyncio.Event()

    def taken(self, device: str) -> int:
        """Bytes used or promised."""
        return self.used.get(device, 0) + self.reserved.get(device, 0)

    def changed(self) -> None:
        """Something became free, idle or unwanted: let those that wait look again."""
        self._change.set()
        self._change = asyncio.Event()

    def release(self, device: str, size_bytes: int) -> None:
        """A model has gone."""
        self.used[device] = max(0, self.used.get(device, 0) - size_bytes)
        self.changed()

    def pressure(self) -> memory.PressureLevel:
        """The level of the fullest device."""
        shares = [self.taken(device) / budget for device, budget in self.budget_bytes.items() if budget > 0]
        return memory.pressure(max(shares, default=0.0), 1.0)

    async def reserve(
        self,
        device: str,
        size_bytes: int,
        *,
        slot: Slot,
        evict: Callable[[], Awaitable[bool]],
        closed: Callable[[], bool],
    ) -> Reservation:
        """Room for a model: at once, after evicting idle ones, or when others have finished; most urgent first.

        Gives up when nobody wants the model any more. Raises NotEnoughMemory when it can never fit.
        """
        budget = self.budget_bytes.get(device)
        if budget is not None and size_bytes > budget:
            raise NotEnoughMemory(
                f"{slot.entry.id} takes about {size_bytes >> 20} MiB, the budget of {device} is {budget >> 20} MiB",
                hint="raise NEUROEDGE_MEMORY_BUDGET_BYTES or choose a smaller model with NEUROEDGE_MODELS",
            )
        mine = (slot, next(self._order), device)
        self._waiting.append(mine)
        try:
            while True:
                if closed():
                    raise ModelUnavailable("the process is ending")
                change = self._change
                if self._first(device) is mine:
                    if budget is None or self.taken(device) + size_bytes <= budget:
                        return Reservation(self, device, size_bytes)
                    if await evict():
                        continue
                if slot.wanted is None:
                    raise NotEnoughMemory(f"no memory came free for {slot.entry.id} in time", retry_after_s=5)
                await change.wait()
        finally:
            self._waiting.remove(mine)
            self.changed()

    def _first(self, device: str) -> tuple[Slot, int, str]:
        here = [waiting for waiting in self._waiting if waiting[2] == device]
        return min(here, key=lambda waiting: (-(waiting[0].wanted or 0), waiting[1]))
