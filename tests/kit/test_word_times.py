"""Word times cut back to the sound of the word."""

import numpy as np
import pytest

from neuroedge.kit.word_times import trimmed
from tests.audio_samples import tone


def _recording(*, noise: float = 1e-4) -> np.ndarray:
    """Six seconds of soft noise with a sound from 2 to 3 s."""
    samples = np.random.default_rng(0).normal(0, noise, 16_000 * 6).astype(np.float32)
    samples[32_000:48_000] += tone(1.0, level=0.2)
    return samples


def test_silence_at_the_ends_of_a_word_is_cut_off() -> None:
    """A word said to last from 1.5 to 3.4 s, and one that already fits."""
    (long, fitting) = trimmed([(1.5, 3.4), (2.2, 2.8)], _recording())
    assert list(long) == pytest.approx([2.0, 3.0], abs=0.04)
    assert fitting == (2.2, 2.8)


def test_words_in_noise_as_loud_or_in_silence_are_left_alone() -> None:
    """Nothing stands out: the recogniser's times are the best there are."""
    assert trimmed([(1.0, 2.0)], np.random.default_rng(0).normal(0, 0.1, 80_000).astype(np.float32)) == [(1.0, 2.0)]
    assert trimmed([(1.0, 2.0)], np.zeros(80_000, np.float32)) == [(1.0, 2.0)]


def test_words_are_never_cut_to_nothing_nor_made_longer() -> None:
    """Very short ones, ones beyond the recording's end, a click."""
    samples = _recording()
    samples[16_000] = 0.9
    words = [(0.98, 1.03), (5.9, 6.5), (7.0, 8.0), (0.5, 1.5)]
    for (start, end), (was_start, was_end) in zip(trimmed(words, samples), words, strict=True):
        assert was_start <= start < end <= was_end
        assert end - start >= min(0.05, was_end - was_start) - 1e-9
    assert trimmed([], samples) == []
