"""Integrated loudness by ITU-R BS.1770-4, through pyloudnorm."""

import math

import numpy as np

from neuroedge.kit.waveform import SAMPLE_RATE_HZ, Floats

_BLOCK_S = 0.4
_PIECE = SAMPLE_RATE_HZ * 60
"""Longer recordings are measured in pieces: pyloudnorm needs six times a waveform's memory."""
_OVERLAP = SAMPLE_RATE_HZ * 3 // 10
"""Of two pieces: blocks begin every 0.1 s, so that each block lies whole in one of them."""
_ABSOLUTE_GATE = -70.0
_RELATIVE_GATE = -10.0
_OFFSET = -0.691


def loudness_lufs(samples: Floats) -> float | None:
    """Integrated, gated loudness of a mono waveform [n] in LUFS.

    None when there is none: shorter than the 0.4 s gating block, or nothing above -70 LUFS.
    """
    import pyloudnorm

    blocks: list[float] = []
    meter = pyloudnorm.Meter(SAMPLE_RATE_HZ, block_size=_BLOCK_S)
    for start in range(0, len(samples), _PIECE):
        piece = np.asarray(samples[max(0, start - _OVERLAP) : start + _PIECE])
        if len(piece) >= _BLOCK_S * SAMPLE_RATE_HZ:
            meter.integrated_loudness(piece)
            blocks += meter.blockwise_loudness
    return _gated(np.array(blocks, np.float64))


def _gated(blocks: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float | None:
    """Loudness of the blocks [n] (LUFS) that pass both gates (BS.1770-4, equations 5 to 7)."""
    heard = blocks[blocks >= _ABSOLUTE_GATE]
    if not len(heard):
        return None
    power = 10 ** ((heard - _OFFSET) / 10)
    gate = _OFFSET + 10 * math.log10(float(power.mean())) + _RELATIVE_GATE
    return _OFFSET + 10 * math.log10(float(power[heard > gate].mean()))
