"""What the machine offers: cores this process may use, and the device models run on."""

import os
from pathlib import Path
from typing import Literal

Device = Literal["cpu", "cuda", "mps"]


def available_cores() -> int:
    """Cores by affinity and by the control group's quota (a container's limit), at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = Path("/sys/fs/cgroup/cpu.max")
    if quota.is_file():
        limit, _, period = quota.read_text().partition(" ")
        if limit != "max" and int(limit) > 0:
            cores = min(cores, max(1, round(int(limit) / int(period))))
    return max(1, cores)


def resolve(wanted: Literal["auto", "cpu", "cuda", "mps"]) -> Device:
    """The device for `wanted`: auto takes CUDA where CTranslate2 finds a GPU, else the CPU."""
    if wanted != "auto":
        return wanted
    import ctranslate2

    return "cuda" if ctranslate2.get_cuda_device_count() > 0 else "cpu"
