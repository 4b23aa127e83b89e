"""Opens a model with the runtime its catalogue entry names, and measures what memory it took."""

import asyncio
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from neuroedge.contract.errors import ModelFailed, ModelUnavailable, NeuroEdgeError, NotEnoughMemory
from neuroedge.runtimes import memory
from neuroedge.runtimes.catalogue import ModelEntry
from neuroedge.runtimes.cores import CoreBudget
from neuroedge.runtimes.device import CPU, gpus
from neuroedge.runtimes.slot import Loaded
from neuroedge.runtimes.threaded import OnPhase, Surroundings, Threaded

RUNTIMES: Final = {
    "ctranslate2-whisper": "neuroedge.runtimes.whisper",
    "silero-vad": "neuroedge.runtimes.silero",
    "ge2e-onnx": "neuroedge.runtimes.speaker",
    "onnx-text": "neuroedge.runtimes.text_encoder",
    "llama-text": "neuroedge.runtimes.text_encoder",
    "text-classifier": "neuroedge.runtimes.text_classifier",
    "llama-cpp": "neuroedge.runtimes.llama",
    "onnx-rerank": "neuroedge.runtimes.reranking.cross_encoder",
    "llama-rerank": "neuroedge.runtimes.reranking.gguf",
    "spacy": "neuroedge.runtimes.entities",
    "paddle-ocr": "neuroedge.runtimes.ocr",
    "open-nsfw": "neuroedge.runtimes.image_safety",
    "clip-onnx": "neuroedge.runtimes.clip",
    "piper": "neuroedge.runtimes.piper_voice",
    "espeak": "neuroedge.runtimes.espeak",
    "hama-ctc": "neuroedge.runtimes.phonemes",
    "ctranslate2-translation": "neuroedge.runtimes.translation",
}
"""Runtime names of the catalogue and the module whose `load` makes the model; imported on first use."""
MAPPED: Final = frozenset({"llama-cpp", "llama-text", "llama-rerank"})
"""Runtimes that map their weights from the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opener:
    """Opens models for one pool."""

    cores: CoreBudget
    """Shared by all models that compute in threads of ours."""
    threads: int
    """Threads of one model's computation."""
    on_phase: OnPhase
    options: Mapping[str, Any] | None = None
    """Given to every runtime's `load` beside the catalogue's options."""

    async def open(self, entry: ModelEntry, folder: Path, device: str) -> Loaded:
        """The model of an entry, from its files in `folder`, on a device; its bytes are what the device gave it.

        What is measured is the model's own as long as nothing else loads on the device meanwhile. Raises
        ModelUnavailable for an unknown runtime and whatever the runtime's library raises (see `load_error`).
        """
        before = await asyncio.to_thread(_used_bytes, device)
        model = await asyncio.to_thread(self._open_blocking, entry, folder, device)
        taken = await asyncio.to_thread(_used_bytes, device) - before
        return Loaded(model=model, device=device, bytes=max(taken, _least_bytes(entry, device)))

    def _open_blocking(self, entry: ModelEntry, folder: Path, device: str) -> Any:
        if entry.runtime not in RUNTIMES:
            raise ModelUnavailable(
                f"the runtime {entry.runtime} of {entry.id} is not known", hint=f"known: {', '.join(RUNTIMES)}"
            )
        module = importlib.import_module(RUNTIMES[entry.runtime])
        options = {**(self.options or {}), "device": device, **entry.options}
        model = module.load(entry.id, folder, threads=self.threads, options=options)
        if isinstance(model, Threaded):
            threads = (model.cores or self.threads) if device == CPU else 1
            model.surroundings = Surroundings(cores=self.cores, threads=threads, on_phase=self.on_phase)
        return model


def load_error(error: Exception, entry: ModelEntry) -> NeuroEdgeError:
    """What a failed load is to its callers: NotEnoughMemory when memory ran out, ModelFailed for a library's error."""
    if isinstance(error, MemoryError) or "bad_alloc" in str(error) or "Failed to allocate" in str(error):
        return NotEnoughMemory(
            f"the machine ran out of memory while {entry.id} loaded",
            hint="lower NEUROEDGE_MEMORY_BUDGET_BYTES, choose a smaller model or give the process more memory",
            retry_after_s=30,
        )
    if isinstance(error, NeuroEdgeError) and type(error) is not ModelUnavailable:
        return error
    detail = error.detail if isinstance(error, NeuroEdgeError) else f"{entry.id} did not load: {error}"
    hint = error.hint if isinstance(error, NeuroEdgeError) else None
    return ModelFailed(
        detail, model_id=entry.id, hint=hint or f"run `neuroedge models verify {entry.id}` and `neuroedge doctor`"
    )


def _least_bytes(entry: ModelEntry, device: str) -> int:
    """What a model takes even where less was measured: memory another thread freed meanwhile hides some of it.

    Weights mapped from a file come in page by page, when they are first read: in the end all are there. Others may be
    kept narrower than in the file.
    """
    if device != CPU:
        return 0
    return entry.bytes if entry.runtime in MAPPED else entry.bytes // 2


def _used_bytes(device: str) -> int:
    if device.startswith("cuda"):
        return next((gpu.total_bytes - gpu.free_bytes for gpu in gpus() if gpu.device == device), 0)
    return memory.resident_bytes()
