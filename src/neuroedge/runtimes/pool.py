"""One pool for all models of a process: each is loaded on its first lease, checked by hash, unloaded on demand."""

import asyncio
import importlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from neuroedge.contract.errors import Conflict, ModelUnavailable, NeuroEdgeError
from neuroedge.contract.models import ModelRef, ModelState, ModelStatus
from neuroedge.runtimes.catalogue import Catalogue, ModelEntry

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
    """A model's place in the pool."""

    entry: ModelEntry
    state: ModelState = "unloaded"
    model: Any = None
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

    def _slot(self, role: str) -> Slot:
        entry = self.catalogue.for_role(role)
        return self._slots.setdefault(entry.id, Slot(entry=entry))

    @asynccontextmanager
    async def lease(self, ref: ModelRef[M]) -> AsyncIterator[M]:
        """Hold a role's model; it is not unloaded while held. Raises ModelUnavailable."""
        slot = self._slot(ref.role)
        async with slot.lock:
            if slot.state != "ready":
                await self._load(slot)
            slot.leases += 1
            slot.idle.clear()
        try:
            yield slot.model
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
            async with asyncio.timeout(timeout_s):
                async with slot.lock:
                    if slot.leases:
                        await slot.idle.wait()
                    await self._free(slot)
        except TimeoutError as error:
            raise Conflict(f"{model_id} is in use", hint="try again when its requests have finished") from error

    async def reap_idle(self) -> None:
        """Unload models nobody used for `idle_s`, for ever; run as a task. Returns at once when idle_s is 0."""
        while self._idle_s:
            await asyncio.sleep(min(self._idle_s, 30))
            for slot in self.slots():
                idle_for = time.monotonic() - (slot.last_used or time.monotonic())
                if slot.state == "ready" and slot.leases == 0 and idle_for >= self._idle_s:
                    async with slot.lock:
                        if slot.leases == 0:
                            await self._free(slot)

    async def close(self) -> None:
        """Free every model."""
        for slot in self.slots():
            if slot.state == "ready":
                await self._free(slot)

    async def _load(self, slot: Slot) -> None:
        slot.state = "loading"
        started = time.perf_counter()
        loading = asyncio.ensure_future(asyncio.to_thread(self._load_blocking, slot.entry))
        try:
            # A caller that leaves does not waste the load: the next lease finds the model ready.
            slot.model = await asyncio.shield(loading)
        except asyncio.CancelledError:
            loading.add_done_callback(lambda done: self._loaded_late(slot, done, started))
            raise
        except NeuroEdgeError as error:
            slot.state, slot.error = "failed", error.detail
            raise
        except Exception as error:
            slot.state, slot.error = "failed", f"{slot.entry.id} did not load: {error}"
            raise ModelUnavailable(
                slot.error, hint=f"run `neuroedge models verify {slot.entry.id}` and `neuroedge doctor`"
            ) from error
        self._mark_ready(slot, started)

    def _loaded_late(self, slot: Slot, done: "asyncio.Future[Any]", started: float) -> None:
        if done.cancelled() or done.exception() is not None:
            slot.state = "unloaded"
            return
        if slot.state == "ready":  # another lease loaded it meanwhile
            done.result().close()
            return
        slot.model = done.result()
        self._mark_ready(slot, started)

    def _mark_ready(self, slot: Slot, started: float) -> None:
        slot.state, slot.error = "ready", None
        slot.loads += 1
        slot.load_s = time.perf_counter() - started

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
        model, slot.model, slot.state = slot.model, None, "unloaded"
        await asyncio.to_thread(model.close)
