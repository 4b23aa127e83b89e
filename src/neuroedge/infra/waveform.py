"""A waveform that grows as it is decoded: a short one in memory, a long one in a file that has no name."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from neuroedge.contract.models import SAMPLE_RATE_HZ, Floats

IN_MEMORY_S = 600.0
"""Longer waveforms lie in a file and are mapped: the system drops and re-reads their pages as memory allows."""


class GrowingWaveform:
    """Takes blocks of samples [n] and gives them back in one piece, clipped to [-1, 1].

    `tmp`: folder for long ones, the system's when None. The file is unlinked from the start: it is gone with the
    waveform, or with the process.
    """

    def __init__(self, tmp: Path | None = None) -> None:
        self._file: Any = tempfile.SpooledTemporaryFile(  # noqa: SIM115 (closed by finish, or when it is collected)
            max_size=int(IN_MEMORY_S * SAMPLE_RATE_HZ) * 4, dir=None if tmp is None else str(tmp)
        )
        self._samples = 0

    def extend(self, samples: Floats) -> None:
        """Keep a copy of a block [n]."""
        self._file.write(np.clip(samples, -1.0, 1.0).astype(np.float32, copy=False).tobytes())
        self._samples += len(samples)

    def finish(self) -> Floats:
        """The whole waveform [n]; nothing can be added after. What is written into it changes no file."""
        with self._file as file:
            file.seek(0)
            if self._samples <= IN_MEMORY_S * SAMPLE_RATE_HZ:
                return np.frombuffer(bytearray(file.read()), np.float32)
            file.flush()
            mapped: Floats = np.memmap(file, np.float32, mode="c", shape=(self._samples,))
            return mapped

    def close(self) -> None:
        """Forget it."""
        self._file.close()
