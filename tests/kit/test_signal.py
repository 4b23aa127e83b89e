"""Measures of a waveform against values known from theory."""

import numpy as np
import pytest

from neuroedge.contract.models import Span
from neuroedge.kit.signal import (
    background_dbfs,
    clipped_fraction,
    peak_dbfs,
    quiet_blocks,
    rms_dbfs,
    silences,
    snr_db,
    waveform_peaks,
)
from tests.audio_samples import tone


def test_a_sine_has_the_levels_theory_says() -> None:
    """Half scale peaks at -6.02 dBFS and has 3.01 dB less RMS."""
    samples = tone(1.0, hz=100, level=0.5)
    assert peak_dbfs(samples) == pytest.approx(-6.02, abs=0.01)
    assert rms_dbfs(samples) == pytest.approx(-9.03, abs=0.01)


def test_digital_silence_has_no_level() -> None:
    """Nothing, and no samples at all, are not minus infinity."""
    for samples in (np.zeros(100, np.float32), np.empty(0, np.float32)):
        assert peak_dbfs(samples) is None
        assert rms_dbfs(samples) is None
        assert clipped_fraction(samples) == 0.0


def test_an_overdriven_sine_is_clipped_and_a_full_scale_one_is_not() -> None:
    """Twice full scale is beyond it two thirds of the time; a sine that just touches it is not clipped."""
    assert clipped_fraction(np.clip(2 * tone(1.0, level=1.0), -1, 1)) == pytest.approx(2 / 3, abs=0.03)
    assert clipped_fraction(tone(1.0, level=1.0)) == 0.0


@pytest.mark.parametrize("expected_db", [0.0, 10.0, 30.0])
def test_snr_is_found_from_speech_and_background(expected_db: float) -> None:
    """White noise throughout, louder noise for speech in the middle."""
    rng = np.random.default_rng(0)
    samples = rng.normal(0, 0.01, 16_000 * 6).astype(np.float32)
    samples[32_000:64_000] += rng.normal(0, 0.01 * 10 ** (expected_db / 20), 32_000).astype(np.float32)
    assert snr_db(samples, [Span(start_s=2.0, end_s=4.0)]) == pytest.approx(expected_db, abs=0.3)


@pytest.mark.parametrize(
    "speech",
    [[], [Span(start_s=0.0, end_s=2.0)], [Span(start_s=0.5, end_s=0.6)]],
    ids=["nobody speaks", "no background", "too little speech"],
)
def test_snr_is_none_when_it_cannot_be_told(speech: list[Span]) -> None:
    """Better no figure than an invented one."""
    assert snr_db(np.random.default_rng(0).normal(0, 0.1, 32_000).astype(np.float32), speech) is None


def test_snr_over_a_digitally_silent_background_is_none() -> None:
    """There is no noise to compare with."""
    samples = np.zeros(32_000, np.float32)
    samples[:16_000] = tone(1.0)
    assert snr_db(samples, [Span(start_s=0.0, end_s=1.0)]) is None


def test_peaks_are_the_highest_of_equal_stretches() -> None:
    """Negative swings count; the count is kept or, for few samples, lowered."""
    samples = np.array([0, 0.5, -0.75, 0.25, 0, 0, 1, 0], np.float32)
    assert waveform_peaks(samples, 4) == [0.5, 0.75, 0.0, 1.0]
    assert len(waveform_peaks(samples, 100)) == 8
    assert waveform_peaks(samples, 0) == []
    assert waveform_peaks(np.empty(0, np.float32), 10) == []


def test_blocks_are_cut_where_it_is_quiet() -> None:
    """Nothing is lost, no block is longer than asked for, and the cut falls into the pause."""
    samples = np.random.default_rng(0).normal(0, 0.1, 16_000 * 25).astype(np.float32)
    samples[16_000 * 8 : 16_000 * 8 + 8_000] = 0
    blocks = list(quiet_blocks(samples, max_s=10.0, search_s=4.0))
    assert np.array_equal(np.concatenate([block for _, block in blocks]), samples)
    assert [offset for offset, _ in blocks] == list(np.cumsum([0, *(len(b) for _, b in blocks[:-1])]))
    assert all(len(block) <= 160_000 for _, block in blocks)
    assert 8.0 <= blocks[1][0] / 16_000 <= 8.5


@pytest.mark.parametrize("n", [0, 1, 160_000])
def test_what_fits_is_one_block(n: int) -> None:
    """Short waveforms pass as they are, without a copy."""
    samples = np.zeros(n, np.float32)
    ((offset, block),) = quiet_blocks(samples, max_s=10.0)
    assert offset == 0
    assert len(block) == n
    assert n == 0 or np.shares_memory(block, samples)


def test_silences_are_the_quiet_stretches_long_enough() -> None:
    """Found to 10 ms over the borders of the pieces they are looked for in; shorter ones are left out."""
    samples = np.random.default_rng(0).normal(0, 0.1, 16_000 * 130).astype(np.float32)
    quiet = [(3.0, 4.0), (59.5, 60.7), (100.0, 100.3)]
    for start, end in quiet:
        samples[int(start * 16_000) : int(end * 16_000)] *= 1e-3
    found = silences(samples, below_dbfs=-50, at_least_s=0.5)
    assert [(s.start_s, s.end_s) for s in found] == [pytest.approx(q, abs=0.011) for q in quiet[:2]]
    assert len(silences(samples, below_dbfs=-50, at_least_s=0.25)) == 3
    assert silences(samples, below_dbfs=-85, at_least_s=0.25) == []


def test_silence_of_next_to_nothing_and_of_everything() -> None:
    """No samples have none; digital silence is one, to its last sample."""
    assert silences(np.empty(0, np.float32), below_dbfs=-50, at_least_s=0.1) == []
    (all_of_it,) = silences(np.zeros(16_050, np.float32), below_dbfs=-50, at_least_s=0.1)
    assert (all_of_it.start_s, all_of_it.end_s) == (0, 16_050 / 16_000)


def test_the_background_is_what_lies_outside_speech() -> None:
    """Level of the noise, not of the speech beside it; none where there is too little of it."""
    samples = np.random.default_rng(0).normal(0, 0.01, 16_000 * 4).astype(np.float32)
    samples[16_000:32_000] *= 30
    speech = [Span(start_s=1.0, end_s=2.0)]
    assert background_dbfs(samples, speech) == pytest.approx(-40, abs=0.2)
    assert background_dbfs(samples, [Span(start_s=0.0, end_s=4.0)]) is None
    assert background_dbfs(np.zeros(16_000, np.float32), []) is None
