"""Loudness against the standard's own reference and the library's plain call."""

import numpy as np
import pyloudnorm
import pytest

from neuroedge.kit import loudness
from neuroedge.kit.loudness import loudness_lufs
from tests.audio_samples import tone


def test_a_full_scale_997_hz_sine_has_the_loudness_the_standard_says() -> None:
    """BS.1770-4: 0 dBFS at 997 Hz on one channel reads -3.01 LKFS."""
    assert loudness_lufs(tone(5.0, hz=997, level=1.0)) == pytest.approx(-3.01, abs=0.1)


def test_pieces_give_the_loudness_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long recordings are measured in pieces; the gates still see all blocks."""
    quiet, loud = 0.02 * tone(20.0), tone(15.0, hz=700)
    samples = np.concatenate([quiet, loud, quiet]).astype(np.float32)
    whole = pyloudnorm.Meter(16_000).integrated_loudness(samples)
    assert loudness_lufs(samples) == pytest.approx(whole, abs=0.01)
    monkeypatch.setattr(loudness, "_PIECE", 16_000 * 10)
    assert loudness_lufs(samples) == pytest.approx(whole, abs=0.01)


@pytest.mark.parametrize("samples", [tone(0.39), np.zeros(16_000, np.float32), np.empty(0, np.float32)])
def test_too_short_or_silent_has_no_loudness(samples: np.ndarray) -> None:
    """Under one gating block, or nothing above the absolute gate."""
    assert loudness_lufs(samples) is None
