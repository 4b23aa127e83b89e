"""One pool for all models of a process: loaded on demand within a memory budget, evicted when idle, never while held.

Every model is measured while it loads (resident memory before and after) and counts against the budget of its device.
A load that finds no room evicts idle models, those of the lowest priority and longest unused first; when that is not
enough it waits, in order of priority, until its caller's deadline. At most one model loads on a device at a time, so
that what is measured is its own.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import structlog

from neuroedge.contract import scope
from neuroedge.contract.errors import (
    Conflict,
    ModelFailed,
    ModelUnavailable,
    NeuroEdgeError,
    NotEnoughMemory,
    Unavailable,
)
from neuroedge.contract.models import ModelRef, ModelStatus, Priority
from neuroedge.runtimes import memory
from neuroedge.runtimes.catalogue import Catalogue
from neuroedge.runtimes.cores import CoreBudget
from neuroedge.runtimes.device import CPU, Router
from neuroedge.runtimes.opening import Opener, load_error
from neuroedge.runtimes.pool_metrics import PoolMetrics, Unmeasured
from neuroedge.runtimes.residents import Residents
from neuroedge.runtimes.room import Reservation, Rooms
from neuroedge.runtimes.slot import Loaded, Slot

log = structlog.get_logger(__name__)

M = TypeVar("M")
Alone = Callable[[str], AbstractAsyncContextManager[Any]]
"""A block in which a role has the device to itself; most roles need none."""
Guard = Callable[[str, Callable[[BaseException], bool]], AbstractAsyncContextManager[Any]]
"""A circuit breaker's block: (name, which errors count)."""

FIRST_GUESS: Final = 1.3
"""Memory a model never loaded before is expected to take, as a multiple of its files."""
RETRY_FAILED_S: Final = 30.0
"""A failed load is tried again after so long, twice as long after each further failure, so that it mends itself."""
LONGEST_RETRY_FAILED_S: Final = 600.0
_TICK_S: Final = 1.0
_held: ContextVar[int] = ContextVar("held", default=0)
"""Models the present call holds."""


def beside_others(role: str) -> AbstractAsyncContextManager[Any]:
    """Shares the device with whoever uses it."""
    return nullcontext()


def unguarded(name: str, counts: Callable[[BaseException], bool]) -> AbstractAsyncContextManager[Any]:
    """No circuit breaker."""
    return nullcontext()


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSettings:
    """How a pool behaves."""

    cores: int
    threads: int
    """Threads of one model's computation."""
    budget_bytes: Mapping[str, int]
    """Per device; one not named here has no limit."""
    idle_s: float = 0
    """Unload a model not used for so long; 0: never."""
    wait_s: float = 60.0
    """Longest wait of a lease for memory and loading; a nearer deadline of its call counts instead."""
    pinned: Collection[str] = ()
    """Roles or ids of models that are never evicted."""
    options: Mapping[str, Any] | None = None
    """Given to every runtime's `load` beside the catalogue's options."""


class Pool:
    """Leases models by role."""

    def __init__(
        self,
        catalogue: Catalogue,
        settings: PoolSettings,
        *,
        router: Router,
        metrics: PoolMetrics | None = None,
        guard: Guard = unguarded,
        on_pressure: Callable[[memory.PressureLevel], object] = lambda level: None,
    ) -> None:
        self.catalogue = catalogue
        self.cores = CoreBudget(settings.cores)
        self.rooms = Rooms(settings.budget_bytes)
        self._settings = settings
        self._router = router
        self._metrics: PoolMetrics = metrics or Unmeasured()
        self._residents = Residents(self.rooms, self._metrics, pinned=settings.pinned, idle_s=settings.idle_s)
        self._opener = Opener(
            cores=self.cores, threads=settings.threads, on_phase=self._metrics.phase, options=settings.options
        )
        self._guard = guard
        self._on_pressure = on_pressure
        self._alone: Alone = beside_others
        self._loading_on: dict[str, asyncio.Lock] = {}
        self._open = asyncio.Event()
        self._open.set()
        """Cleared while another process has the device for itself."""
        self._paused: dict[str, None] = {}
        """Ids of the models to load again afterwards, in order."""
        self._level: memory.PressureLevel = "normal"
        self._closed = False

    # -- leases ---------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def lease(self, ref: ModelRef[M], *, priority: Priority | None = None) -> AsyncIterator[M]:
        """Hold a role's model; it is not unloaded while held.

        Raises ModelUnavailable, NotEnoughMemory when no room came free in time, CircuitOpen.
        """
        slot = self._slot_for(ref)
        model_id = slot.entry.id

        def counts(error: BaseException) -> bool:
            return isinstance(error, ModelFailed) and error.model_id == model_id

        async with self._guard(f"model:{model_id}", counts), self._alone(ref.role):
            loaded = await self._take(slot, priority or scope.priority())
            _held.set(_held.get() + 1)
            try:
                yield loaded.model
            finally:
                _held.set(_held.get() - 1)
                loaded.release()
                self.rooms.changed()

    def share_device(self, alone: Alone) -> None:
        """Ask `alone` before each lease; it knows the other processes on the device."""
        self._alone = alone

    def status(self, ref: ModelRef[Any]) -> ModelStatus:
        """What is known of a role's model."""
        try:
            slot = self._slot_for(ref)
        except NeuroEdgeError as error:
            return ModelStatus(role=ref.role, id=ref.role, state="missing", runtime="none", detail=error.detail)
        state, detail = slot.state, slot.error
        if state == "unloaded" and not self.catalogue.present(slot.entry):
            state, detail = "missing", f"{slot.entry.id} is not pulled: run `neuroedge models pull {slot.entry.id}`"
        return ModelStatus(
            role=ref.role,
            id=slot.entry.id,
            state=state,
            runtime=slot.entry.runtime,
            detail=detail,
            fingerprint=slot.entry.fingerprint,
        )

    def slots(self) -> list[Slot]:
        """Every model of the catalogue that was ever asked for."""
        return self._residents.slots()

    def slot(self, model_id: str) -> Slot:
        """One model's slot by its catalogue id. Raises NotFound."""
        return self._residents.slot(self.catalogue.entry(model_id))

    def failed(self) -> list[Slot]:
        """Models whose last load failed."""
        return [slot for slot in self.slots() if slot.state == "failed"]

    # -- what operators do ----------------------------------------------------------------------------------------

    async def load(self, model_id: str, *, priority: Priority = "normal") -> Slot:
        """Load a model now, without holding it. Raises what a lease raises."""
        slot = self.slot(model_id)
        (await self._take(slot, priority)).release()
        self.rooms.changed()
        return slot

    async def unload(self, model_id: str, *, timeout_s: float = 30.0) -> bool:
        """Free a model once nobody holds it; whether it was loaded. Raises NotFound, Conflict when it stays in use."""
        slot = self.slot(model_id)
        loaded = slot.loaded
        if loaded is None:
            return False
        try:
            async with asyncio.timeout(timeout_s):
                await loaded.unused()
        except TimeoutError as error:
            raise Conflict(f"{model_id} is in use", hint="try again when its requests have finished") from error
        await self._residents.free(slot, loaded, reason="asked")
        return True

    async def warm_up(self, names: Collection[str]) -> None:
        """Load models by role or id, one after the other; a failure is logged and shows in `failed`."""
        for name in names:
            try:
                await self.load(self._id_of(name), priority="low")
            except NeuroEdgeError as error:
                log.warning("warm_up_failed", model=name, code=error.code, detail=error.detail)

    async def pause(self) -> None:
        """Let go of all models and begin nothing until `resume`: another process has the device for itself.

        A call that holds a model may still ask for another one: else it would wait for the end of its own pause.
        """
        self._open.clear()
        while there := [slot for slot in self.slots() if slot.loaded is not None or slot.loading is not None]:
            self._paused.update(dict.fromkeys(slot.entry.id for slot in there if slot.loaded is not None))
            idle = [(slot, slot.loaded) for slot in there if slot.loaded is not None and not slot.leases]
            for slot, loaded in idle:  # first, as what still loads may need their room
                await self._residents.free(slot, loaded, reason="pause")
            if not idle:
                await _first_of(there)

    async def resume(self) -> None:
        """Load again what `pause` let go; one that is cancelled leaves the rest to the next."""
        self._open.set()
        while self._paused:
            name = next(iter(self._paused))
            await self.warm_up([name])
            self._paused.pop(name, None)

    async def watch(self) -> None:
        """For ever: unload idle models, relieve memory pressure, replace hung models, try failed loads again."""
        while True:
            await asyncio.sleep(_TICK_S)
            try:
                await self._tick()
            except Exception:
                log.exception("pool_watch_failed")

    async def close(self) -> None:
        """Wait for running loads, free every model and refuse leases from now on."""
        self._closed = True
        self._open.set()
        self.rooms.changed()
        if loading := [slot.loading for slot in self.slots() if slot.loading is not None]:
            await asyncio.wait(loading)
        for slot in self.slots():
            if slot.loaded is not None:
                await self._residents.free(slot, slot.loaded, reason="closed")
        self._residents.close()

    # -- loading --------------------------------------------------------------------------------------------------

    def _slot_for(self, ref: ModelRef[Any]) -> Slot:
        entry = self.catalogue.for_role(ref.role) if ref.id is None else self.catalogue.entry(ref.id)
        if entry.role != ref.role:
            raise ModelUnavailable(f"{entry.id} is a model for {entry.role}, not for {ref.role}")
        return self._residents.slot(entry)

    def _id_of(self, name: str) -> str:
        try:
            return self.catalogue.entry(name).id
        except NeuroEdgeError:
            return self.catalogue.for_role(name).id

    async def _take(self, slot: Slot, priority: Priority) -> Loaded:
        """One more lease of the model; who is cancelled while it loads leaves the load to the others."""
        slot.want(priority)
        try:
            async with asyncio.timeout(scope.remaining_s(self._settings.wait_s)):
                while True:
                    if self._closed:
                        raise ModelUnavailable(f"{slot.entry.id} is not loaded any more: the process is ending")
                    if not _held.get():
                        await self._open.wait()
                    if (loaded := slot.loaded) is not None:
                        loaded.take(priority)
                        return loaded
                    if slot.loading is None:
                        slot.loading = asyncio.create_task(self._load(slot))
                        slot.loading.add_done_callback(_retrieve)
                    await asyncio.shield(slot.loading)
        except TimeoutError as error:
            raise self._too_late(slot) from error
        finally:
            slot.unwant(priority)
            self.rooms.changed()

    def _too_late(self, slot: Slot) -> Unavailable:
        if not self._open.is_set():
            return Unavailable(
                "the device is in use by another process", hint="try again when its job is done", retry_after_s=5
            )
        if slot.waits_for_room:
            return NotEnoughMemory(
                f"no memory came free for {slot.entry.id} in time",
                hint="try again; or raise NEUROEDGE_MEMORY_BUDGET_BYTES or unload a model (GET /v1/models)",
                retry_after_s=5,
            )
        return ModelUnavailable(f"{slot.entry.id} is still loading", hint="try again", retry_after_s=5)

    async def _load(self, slot: Slot) -> None:
        """The one load of a slot under way; it alone moves the state on, whoever waits for it and whoever left."""
        slot.state = "loading"
        try:
            folder = await self._files(slot)
            await self._load_from(folder, slot, await self._reserve(slot))
        except Exception as error:
            failure = error if isinstance(error, NeuroEdgeError) else load_error(error, slot.entry)
            if slot.state == "loading":
                slot.failed(failure)
                self._metrics.load_failed(slot.entry.id, failure.code)
            if failure is error:
                raise
            raise failure from error
        finally:
            slot.loading = None
            self.rooms.changed()

    async def _files(self, slot: Slot) -> Path:
        """Where the model's files lie, checked. One whose files were never fetched says nothing of the process."""
        try:
            return await asyncio.to_thread(self.catalogue.require, slot.entry)
        except ModelUnavailable as error:
            if not await asyncio.to_thread(self.catalogue.fetched, slot.entry):
                slot.refused(error)
            raise

    async def _load_from(self, folder: Path, slot: Slot, reservation: Reservation) -> None:
        entry, started = slot.entry, time.perf_counter()
        try:
            async with self._loading_on.setdefault(reservation.device, asyncio.Lock()):
                if reservation.device == CPU:
                    await asyncio.to_thread(memory.try_bytes, reservation.bytes)
                slot.loaded = await self._opener.open(entry, folder, reservation.device)
            reservation.settle(slot.loaded.bytes)
            slot.succeeded(seconds=time.perf_counter() - started)
        except Exception as error:
            reservation.cancel()
            await asyncio.to_thread(memory.give_back)
            failure = load_error(error, entry)
            if failure is error:
                raise
            raise failure from error

    async def _reserve(self, slot: Slot) -> Reservation:
        entry = slot.entry
        need = slot.measured_bytes or int(entry.bytes * FIRST_GUESS)
        device = await asyncio.to_thread(
            self._router.place, role=entry.role, runtime=entry.runtime, need_bytes=need, held=self.rooms.reserved
        )
        slot.waits_for_room = True
        try:
            return await self.rooms.reserve(
                device, need, slot=slot, evict=lambda: self._residents.evict_one(device), closed=lambda: self._closed
            )
        except NotEnoughMemory as error:
            slot.refused(error)
            raise
        finally:
            slot.waits_for_room = False

    # -- upkeep ---------------------------------------------------------------------------------------------------

    def pressure(self) -> memory.PressureLevel:
        """What everything takes of the machine's memory (or the container's)."""
        system = memory.system_memory()
        return memory.pressure(system.total_bytes - system.available_bytes, system.total_bytes)

    async def _tick(self) -> None:
        self._residents.replace_stuck()
        level = await asyncio.to_thread(self.pressure)
        if level in ("critical", "emergency") or (level == "high" and self._level == "normal"):
            self._on_pressure(level)
        self._level = level
        await self._residents.thin_out(level, self.pressure)
        for slot in self.failed():
            due = slot.failed_for_s() > min(RETRY_FAILED_S * 2 ** (slot.failures - 1), LONGEST_RETRY_FAILED_S)
            if due and slot.loading is None and self.catalogue.present(slot.entry):
                await self.warm_up([slot.entry.id])


async def _first_of(slots: Collection[Slot]) -> None:
    """Return when one of these models is held by nobody, or one of the loads has ended."""
    free = [asyncio.create_task(slot.loaded.unused()) for slot in slots if slot.loaded is not None]
    try:
        loads = [slot.loading for slot in slots if slot.loading is not None]
        await asyncio.wait([*free, *loads], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in free:
            each.cancel()


def _retrieve(done: "asyncio.Task[None]") -> None:
    """Mark a load's error as seen: it stands in the slot, and nobody may be left to raise it to."""
    if not done.cancelled():
        done.exception()
