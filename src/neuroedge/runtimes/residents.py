"""The models of a pool that are or were in memory, and how each leaves it: asked to, evicted, idle or hung."""

import asyncio
import threading
import time
from collections.abc import Callable, Collection
from typing import Any

import structlog

from neuroedge.runtimes import memory
from neuroedge.runtimes.catalogue import ModelEntry
from neuroedge.runtimes.pool_metrics import PoolMetrics
from neuroedge.runtimes.room import Rooms
from neuroedge.runtimes.slot import Loaded, Slot
from neuroedge.runtimes.threaded import Threaded

log = structlog.get_logger(__name__)
_LAST_S = 15.0
"""Time a computation has to end in when the process does; one that hangs would take for ever."""
_LOOK_S = 0.05


class Residents:
    """Slots by model id. What is held is never freed."""

    def __init__(self, rooms: Rooms, metrics: PoolMetrics, *, pinned: Collection[str], idle_s: float) -> None:
        """`pinned`: roles or ids that are never evicted; `idle_s`: unload what was not used for so long, 0: never."""
        self._rooms = rooms
        self._metrics = metrics
        self._pinned = pinned
        self._idle_s = idle_s
        self._slots: dict[str, Slot] = {}
        self._given_up: set[asyncio.Task[None]] = set()

    def slot(self, entry: ModelEntry) -> Slot:
        """The slot of a catalogue entry; made when it is first asked for."""
        slot = self._slots.get(entry.id)
        if slot is None:
            pinned = entry.id in self._pinned or entry.role in self._pinned
            slot = self._slots[entry.id] = Slot(entry=entry, pinned=pinned)
        return slot

    def slots(self) -> list[Slot]:
        """All that were ever asked for."""
        return list(self._slots.values())

    async def free(self, slot: Slot, loaded: Loaded, *, reason: str) -> None:
        """Close a model nobody holds, or any when the process ends.

        It leaves the slot first, so that nobody leases what is being closed. One that left already, or that somebody
        holds again, stays as it is.
        """
        if slot.loaded is not loaded or (loaded.leases and reason != "closed"):
            return
        slot.emptied()
        if reason == "closed" and not await _over_in_time(loaded.model):
            log.error("model_stuck", model=slot.entry.id)
            return
        try:
            await asyncio.to_thread(_close, loaded.model)
        except Exception:
            log.exception("model_not_closed", model=slot.entry.id)
        else:
            log.info("model_unloaded", model=slot.entry.id, reason=reason, bytes=loaded.bytes)
        finally:
            self._rooms.release(loaded.device, loaded.bytes)
            if reason not in ("asked", "closed"):
                self._metrics.evicted(slot.entry.id, reason)

    async def evict_one(self, device: str) -> bool:
        """Free the idle model of a device that is worth least; False when none is idle."""
        for slot in self._idle(device):
            if slot.loaded is not None:
                await self.free(slot, slot.loaded, reason="room")
                return True
        return False

    async def thin_out(self, level: memory.PressureLevel, pressure: Callable[[], memory.PressureLevel]) -> None:
        """Free what has been idle for long and, at a level above normal, idle models until `pressure` is relieved."""
        for slot in self._idle():
            # Closing the one before took its time: this one may be held by now.
            if slot.evictable and slot.loaded is not None and (reason := self._why_unload(slot, level)):
                await self.free(slot, slot.loaded, reason=reason)
                level = await asyncio.to_thread(pressure)

    def replace_stuck(self) -> None:
        """Give up hung models, so that their next lease loads them anew.

        Their memory does not block the budget; it comes back when what hung ends after all.
        """
        for slot in self.slots():
            loaded = slot.loaded
            if loaded is not None and isinstance(loaded.model, Threaded) and loaded.model.stuck():
                log.error("model_stuck", model=slot.entry.id)
                slot.emptied()
                loaded.model.abandon()
                closing = asyncio.create_task(_close_when_over(loaded))
                self._given_up.add(closing)
                closing.add_done_callback(self._given_up.discard)
                self._rooms.release(loaded.device, loaded.bytes)
                self._metrics.evicted(slot.entry.id, "stuck")

    def close(self) -> None:
        """Wait no more for models that were given up."""
        for closing in self._given_up:
            closing.cancel()

    def _idle(self, device: str | None = None) -> list[Slot]:
        """Slots whose model may be evicted, the first to go first."""
        found = [s for s in self.slots() if s.evictable and (device is None or s.loaded_on == device)]
        return sorted(found, key=Slot.worth)

    def _why_unload(self, slot: Slot, level: memory.PressureLevel) -> str | None:
        if self._idle_s and slot.idle_for_s() >= self._idle_s:
            return "idle"
        # What the budget has no room for is evicted when it is asked for. Here the machine is short: what background
        # jobs loaded goes first, in an emergency whatever is idle.
        if level == "emergency" or (level == "critical" and slot.priority != "high"):
            return "pressure"
        return "pressure" if level == "high" and slot.priority == "low" else None


async def _over_in_time(model: Any) -> bool:
    """Begin nothing more; whether what a model computes ends before the process has to."""
    if not isinstance(model, Threaded):
        return True
    model.abandon()
    give_up_at = time.monotonic() + _LAST_S
    while model.busy:
        if time.monotonic() > give_up_at:
            return False
        await asyncio.sleep(_LOOK_S)
    return True


async def _close_when_over(loaded: Loaded) -> None:
    """Close a model that was given up once nobody holds it and its computation has ended, which may be never."""
    await loaded.idle.wait()
    # No thread of a pool: one that waits for ever must hold up nothing, not even the end of the process.
    threading.Thread(target=_close, args=(loaded.model,), name="model-given-up", daemon=True).start()


def _close(model: Any) -> None:
    model.close()
    del model
    memory.give_back()
