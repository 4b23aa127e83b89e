"""Memory of this process and machine: how much there is, how much is used, how to give it back."""

import ctypes
import gc
import mmap
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal

PressureLevel = Literal["normal", "high", "critical", "emergency"]
LEVELS: Final[tuple[tuple[float, PressureLevel], ...]] = ((0.70, "normal"), (0.85, "high"), (0.95, "critical"))
"""Used share of a budget below which a level holds; above all of them it is an emergency."""
DEFAULT_SHARE: Final = 0.8
"""Part of the free memory that models may take when no budget is set; the rest is for requests and other programs."""
_M_TOP_PAD: Final = -2
_M_MMAP_THRESHOLD: Final = -3
_DEFAULT_STEP_BYTES: Final = 128 << 10
_LARGE_STEP_BYTES: Final = 64 << 20
"""As large as the heap of a thread may become."""
_CGROUP = Path("/sys/fs/cgroup")


def pressure(used_bytes: float, budget_bytes: float) -> PressureLevel:
    """The level of `used_bytes` in a budget."""
    share = used_bytes / budget_bytes if budget_bytes > 0 else 1.0
    return next((level for bound, level in LEVELS if share < bound), "emergency")


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemMemory:
    """Bytes of RAM this process may ever use, and those still free; a container's limit counts."""

    total_bytes: int
    available_bytes: int


def system_memory(cgroup: Path = _CGROUP) -> SystemMemory:
    """The machine's memory, or the control group's where it is smaller."""
    import psutil

    machine = psutil.virtual_memory()
    total, available = machine.total, machine.available
    limit, used = _bytes_in(cgroup / "memory.max"), _bytes_in(cgroup / "memory.current")
    if limit is not None and limit < total:
        # Cached file pages count as used there, and are given back when memory is asked for.
        cached = _stat(cgroup / "memory.stat", "inactive_file") or 0
        total = limit
        available = min(available, max(0, limit - (used or 0) + cached))
    return SystemMemory(total_bytes=total, available_bytes=available)


def default_budget_bytes() -> int:
    """What models may take on this machine, measured now."""
    return int(system_memory().available_bytes * DEFAULT_SHARE)


def resident_bytes() -> int:
    """Resident memory of this process."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def try_bytes(size_bytes: int) -> None:
    """Raise MemoryError unless the process could take so many more bytes now.

    Some native libraries end the process when an allocation fails in one of their threads, so a load is tried only
    when the address space (rlimit) and the machine or container have room for it.
    """
    if size_bytes <= 0:
        return
    if system_memory().available_bytes < size_bytes:
        raise MemoryError(f"{size_bytes >> 20} MiB are needed, the machine has less")
    try:
        mmap.mmap(-1, size_bytes).close()
    except OSError as error:
        raise MemoryError(f"the process may not take {size_bytes >> 20} MiB more") from error


def keep_large_blocks_apart() -> None:
    """Let glibc map blocks over 1 MiB by themselves, so that freeing one gives it back; call once, at process start.

    By default glibc raises that bound with use, up to 32 MiB: freed weights then leave holes in the heaps of many
    threads. The default encoder loaded and unloaded 30 times left 240 MB resident, and leaves 107 MB with this.
    """
    _mallopt(_M_MMAP_THRESHOLD, 1 << 20)


@contextmanager
def large_steps() -> Iterator[None]:
    """Let glibc's heaps grow in large steps within the block: for loads that make very many small blocks.

    The heap of a thread otherwise grows page by page, with a system call for each: 14,600 of them while llama.cpp reads
    a vocabulary of 150,000 tokens, 180 within this block. What is not used takes no memory.
    """
    _mallopt(_M_TOP_PAD, _LARGE_STEP_BYTES)
    try:
        yield
    finally:
        _mallopt(_M_TOP_PAD, _DEFAULT_STEP_BYTES)


def _mallopt(parameter: int, value: int) -> None:
    if sys.platform.startswith("linux") and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        mallopt(parameter, value)


def give_back() -> None:
    """Return freed memory to the system: Python's cycles first, then what the C allocator keeps for later (glibc)."""
    gc.collect()
    if (trim := _malloc_trim()) is not None:
        trim(0)


@lru_cache(maxsize=1)
def _malloc_trim() -> Callable[[int], int] | None:
    if not sys.platform.startswith("linux"):
        return None
    trim: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return trim


def _bytes_in(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _stat(path: Path, name: str) -> int | None:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.split()[:1] == [name]), None)
