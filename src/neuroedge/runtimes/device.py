"""What the machine offers, and where a model runs: CPU features, cores, GPUs, and the choice among them."""

import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal

from neuroedge.contract.errors import ModelUnavailable
from neuroedge.runtimes.llama_library import llama_library

Wanted = Literal["auto", "cpu", "cuda", "mps"]
CPU: Final = "cpu"
_SHOWN_FLAGS: Final = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_vnni": "AVX-512 VNNI",
    "avx512_bf16": "AVX-512 BF16",
    "avx_vnni": "AVX-VNNI",
    "amx_int8": "AMX INT8",
    "amx_bf16": "AMX BF16",
    "asimddp": "dot product (ARM)",
    "i8mm": "int8 matrix (ARM)",
    "bf16": "BF16 (ARM)",
}
GPU_TASKS: Final = frozenset({"speech_to_text", "chat", "text_embedding", "rerank"})
"""Roles whose models gain from a GPU. The others are so small that the way there costs more than the computation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One CUDA device."""

    index: int
    name: str
    total_bytes: int
    free_bytes: int

    @property
    def device(self) -> str:
        """Its name in the pool: "cuda:0"."""
        return f"cuda:{self.index}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What was found."""

    cores: int
    cpu: str
    features: tuple[str, ...]
    gpus: tuple[Gpu, ...]
    mps: bool


def available_cores(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Cores by affinity and by the control group's quota (a container's limit), at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroup / "cpu.max"
    if quota.is_file():
        limit, _, period = quota.read_text().partition(" ")
        if limit != "max" and int(limit) > 0:
            cores = min(cores, max(1, round(int(limit) / int(period))))
    return max(1, cores)


def overload() -> float:
    """How many times as much work the machine has as cores, over the last minute; at least 1."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return max(1.0, load / (os.cpu_count() or 1))


@lru_cache(maxsize=1)
def cpu_features(cpuinfo: Path = Path("/proc/cpuinfo")) -> tuple[str, tuple[str, ...]]:
    """The processor's name and the vector extensions that matter for inference; empty where Linux does not tell."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine(), ()
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines) if value}
    flags = set((facts.get("flags") or facts.get("Features") or "").split())
    name = facts.get("model name") or platform.machine()
    return name, tuple(label for flag, label in _SHOWN_FLAGS.items() if flag in flags)


def gpus() -> tuple[Gpu, ...]:
    """CUDA devices with their free memory now, by NVIDIA's management library; none without a driver.

    CUDA_VISIBLE_DEVICES hides devices from the runtimes, so it hides them here too; indices are the runtimes' own.
    """
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ()
    try:
        found = []
        for index, physical in enumerate(_visible(pynvml.nvmlDeviceGetCount())):
            handle = pynvml.nvmlDeviceGetHandleByIndex(physical)
            memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
            name = pynvml.nvmlDeviceGetName(handle)
            found.append(Gpu(index=index, name=str(name), total_bytes=int(memory.total), free_bytes=int(memory.free)))
        return tuple(found)
    except pynvml.NVMLError:
        return ()
    finally:
        pynvml.nvmlShutdown()


def _visible(count: int) -> list[int]:
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return list(range(count))
    ids = [part.strip() for part in named.split(",")]
    return [int(part) for part in ids if part.isdigit() and int(part) < count]


def machine() -> Machine:
    """Look at the machine."""
    name, features = cpu_features()
    return Machine(
        cores=available_cores(),
        cpu=name,
        features=features,
        gpus=gpus(),
        mps=sys.platform == "darwin" and platform.machine() == "arm64",
    )


def _runtime_devices(runtime: str) -> frozenset[str]:
    """Kinds of device the installed build of a runtime computes on."""
    if runtime == "ctranslate2-whisper":
        import ctranslate2

        return frozenset({"cpu", "cuda"} if ctranslate2.get_cuda_device_count() > 0 else {"cpu"})
    if runtime == "onnx-text":
        import onnxruntime

        return frozenset({"cpu", "cuda"} if "CUDAExecutionProvider" in onnxruntime.get_available_providers() else {CPU})
    if runtime in ("llama-cpp", "llama-text"):
        try:
            xllamacpp = llama_library()
        except ModelUnavailable:
            return frozenset({CPU})  # loading the model tells why it cannot
        gpu = any(d["type"].name.endswith("GPU") for d in xllamacpp.get_device_info())
        return frozenset({CPU, "mps" if sys.platform == "darwin" else "cuda"} if gpu else {CPU})
    return frozenset({CPU})


def split(device: str) -> tuple[str, int]:
    """Kind and index of a device: "cuda:1" is ("cuda", 1), "cpu" is ("cpu", 0)."""
    kind, _, index = device.partition(":")
    return kind, int(index or 0)


class Router:
    """Decides where a model runs. `gpus` is asked anew each time: free memory changes."""

    def __init__(
        self,
        wanted: Wanted = "auto",
        *,
        gpus: Callable[[], Sequence[Gpu]] = gpus,
        runtime_devices: Callable[[str], frozenset[str]] = _runtime_devices,
    ) -> None:
        self._wanted = wanted
        self._gpus = gpus
        self._runtime_devices = runtime_devices

    def place(self, *, role: str, runtime: str, need_bytes: int, held: Mapping[str, int] | None = None) -> str:
        """The device for a model: "cpu", "cuda:N" or "mps".

        A forced device is taken where the runtime can compute on it, else the CPU. With "auto", a GPU is chosen for
        tasks that gain from one and only when the model fits its free memory; of several, the one with most room
        after what the pool has promised there (`held`, bytes a device).
        """
        if self._wanted == CPU or (self._wanted == "auto" and role not in GPU_TASKS):
            return CPU
        kinds = self._runtime_devices(runtime)
        if self._wanted == "mps":
            return "mps" if "mps" in kinds else CPU
        if "cuda" not in kinds:
            return "mps" if self._wanted == "auto" and "mps" in kinds else CPU
        promised = held or {}
        rooms = sorted(
            ((gpu.free_bytes - promised.get(gpu.device, 0), gpu.device) for gpu in self._gpus()), reverse=True
        )
        if not rooms:
            return CPU
        room, device = rooms[0]
        return device if room >= need_bytes or self._wanted == "cuda" else CPU
