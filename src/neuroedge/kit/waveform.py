"""What a waveform is inside NeuroEdge."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
SAMPLE_RATE_HZ = 16_000
"""Rate of every waveform inside NeuroEdge: mono float32 in [-1, 1]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A stretch of time, in seconds."""

    start_s: float
    end_s: float
