"""One pool for all models of a process: each is loaded on its first lease, checked by hash, unloaded on demand."""

import asyncio
import importlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import structlog

from neuroedge.contract.errors import Conflict, ModelUnavailable, NeuroEdgeError
from neuroedge.contract.models import ModelRef, ModelState, ModelStatus
from neuroedge.runtimes.catalogue import Catalogue, ModelEntry

log = structlog.get_logger(__name__)

M = TypeVar("M")

RUNTIMES = {
    "ctranslate2-whisper": "neuroedge.runtimes.whisper",
    "silero-vad": "neuroedge.runtimes.silero",
    "ge2e-onnx": "neuroedge.runtimes.speaker",
    "onnx-text": "neuroedge.runtimes.onnx_text",
    "text-classifier": "neuroedge.runtimes.text_classifier",
    "llama-cpp": "neuroedge.runtimes.llama",
}
"""Runtime names of the catalogue and the module whose `load` makes the model; imported on first use."""


@dataclass
class Slot:
    """A model's place in the pool. `lock` is held to take a lease and to unload, never while loading."""

    entry: ModelEntry
    state: ModelState = "unloaded"
    model: Any = None
    loading: "asyncio.Task[None] | None" = None
    """The one load under way; it alone moves the state on, whoever waits for it and whoever left."""
    leases: int = 0
    loads: int = 0
    load_s: float | None = None
    last_used: float | None = None
    error: str | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    idle: asyncio.Event = field(default_factory=asyncio.Event)


class Pool:
    """Leases models by role. `device` is called on the first load only: finding GPUs imports a large library."""

    def __init__(self, catalogue: Catalogue, *, threads: int, device: Callable[[], str], idle_s: int = 0) -> None:
        self.catalogue = catalogue
        self._threads = threads
        self._device = device
        self._idle_s = idle_s
        self._slots: dict[str, Slot] = {}
        self._closed = False

    def _slot(self, role: str) -> Slot:
        entry = self.catalogue.for_role(role)
        return self._slots.setdefault(entry.id, Slot(entry=entry))

    @asynccontextmanager
    async def lease(self, ref: ModelRef[M]) -> AsyncIterator[M]:
        """Hold a role's model; it is not unloaded while held. Raises ModelUnavailable."""
        slot = self._slot(ref.role)
        model = await self._take(slot)
        try:
            yield model
        finally:
            slot.leases -= 1
            slot.last_used = time.monotonic()
            if slot.leases == 0:
                slot.idle.set()

    def status(self, ref: ModelRef[Any]) -> ModelStatus:
        """What is known of a role's model."""
        try:
            slot = self._slot(ref.role)
        except NeuroEdgeError as error:
            return ModelStatus(role=ref.role, id=ref.role, state="missing", runtime="none", detail=error.detail)
        state, detail = slot.state, slot.error
        if state == "unloaded" and not self.catalogue.present(slot.entry):
            state, detail = "missing", f"{slot.entry.id} is not pulled: run `neuroedge models pull {slot.entry.id}`"
        return ModelStatus(role=ref.role, id=slot.entry.id, state=state, runtime=slot.entry.runtime, detail=detail)

    def slots(self) -> list[Slot]:
        """Every model that was ever asked for."""
        return list(self._slots.values())

    async def unload(self, model_id: str, *, timeout_s: float = 30.0) -> None:
        """Free a model once nobody holds it. Raises Conflict when it stays in use."""
        slot = self._slots.get(model_id)
        if slot is None or slot.state != "ready":
            return
        try:
            async with asyncio.timeout(timeout_s) as limit, slot.lock:
                if slot.leases:
                    await slot.idle.wait()
                limit.reschedule(None)  # only waiting for others is limited
                await self._free(slot)
        except TimeoutError as error:
            raise Conflict(f"{model_id} is in use", hint="try again when its requests have finished") from error

    async def reap_idle(self) -> None:
        """Unload models nobody used for `idle_s`, for ever; run as a task. Returns at once when idle_s is 0."""
        while self._idle_s:
            await asyncio.sleep(min(self._idle_s, 30))
            for slot in self.slots():
                if self._is_idle(slot):
                    async with slot.lock:
                        if self._is_idle(slot):  # it may have been leased or unloaded while the lock was awaited
                            await self._free_or_log(slot)

    async def close(self) -> None:
        """Wait for running loads, free every model and refuse leases from now on."""
        self._closed = True
        if loading := [slot.loading for slot in self.slots() if slot.loading is not None]:
            await asyncio.wait(loading)
        for slot in self.slots():
            await self._free_or_log(slot)

    async def _take(self, slot: Slot) -> Any:
        """Count one more lease and give the model; who is cancelled while it loads leaves the load alone."""
        while True:
            async with slot.lock:
                if self._closed:
                    raise ModelUnavailable(f"{slot.entry.id} is not loaded any more: the process is ending")
                if slot.state == "ready":
                    slot.leases += 1
                    slot.idle.clear()
                    return slot.model
                if slot.loading is None:
                    slot.state = "loading"
                    slot.loading = asyncio.create_task(self._load(slot))
                    slot.loading.add_done_callback(_retrieve)
                loading = slot.loading
            await asyncio.shield(loading)

    def _is_idle(self, slot: Slot) -> bool:
        idle_for = time.monotonic() - (slot.last_used or time.monotonic())
        return slot.state == "ready" and slot.leases == 0 and idle_for >= self._idle_s

    async def _load(self, slot: Slot) -> None:
        started = time.perf_counter()
        try:
            slot.model = await asyncio.to_thread(self._load_blocking, slot.entry)
        except NeuroEdgeError as error:
            slot.state, slot.error = "failed", error.detail
            raise
        except Exception as error:
            slot.state, slot.error = "failed", f"{slot.entry.id} did not load: {error}"
            raise ModelUnavailable(
                slot.error, hint=f"run `neuroedge models verify {slot.entry.id}` and `neuroedge doctor`"
            ) from error
        else:
            slot.state, slot.error = "ready", None
            slot.loads += 1
            slot.load_s = time.perf_counter() - started
            slot.last_used = time.monotonic()  # so that it is unloaded even if all who asked for it have left
        finally:
            slot.loading = None

    def _load_blocking(self, entry: ModelEntry) -> Any:
        if entry.runtime not in RUNTIMES:
            raise ModelUnavailable(
                f"the runtime {entry.runtime} of {entry.id} is not known", hint=f"known: {', '.join(RUNTIMES)}"
            )
        folder = self.catalogue.require(entry)
        module = importlib.import_module(RUNTIMES[entry.runtime])
        options = {"device": self._device(), **entry.options}
        return module.load(entry.id, folder, threads=self._threads, options=options)

    async def _free(self, slot: Slot) -> None:
        if slot.state != "ready":
            return
        model, slot.model, slot.state = slot.model, None, "unloaded"
        await asyncio.to_thread(model.close)

    async def _free_or_log(self, slot: Slot) -> None:
        """For callers that nobody listens to: a model that does not close must not keep the others loaded."""
        try:
            await self._free(slot)
        except Exception:
            log.exception("model_not_closed", model=slot.entry.id)


def _retrieve(done: "asyncio.Task[None]") -> None:
    """Mark a load's error as seen: it stands in the slot, and nobody may be left to raise it to."""
    if not done.cancelled():
        done.exception()
