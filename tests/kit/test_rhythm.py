"""Rhythm by the papers' formulas, and vocalic intervals of made syllables."""

from itertools import pairwise

import numpy as np
import pytest
from benchmarks.voices import syllables

from neuroedge.kit.pitch import track
from neuroedge.kit.rhythm import in_phrases, npvi, npvi_within, percent_v, vocalic_intervals
from neuroedge.kit.syllables import talk
from neuroedge.kit.waveform import Span


def test_npvi_is_that_of_the_paper() -> None:
    """Equal durations have 0; 1 and 3 differ by 2 over a mean of 2: 100."""
    assert npvi([0.1, 0.1, 0.1]) == 0
    assert npvi([0.1, 0.3]) == pytest.approx(100)
    assert npvi([0.1, 0.2, 0.1]) == pytest.approx(100 * 2 / 3)


def test_a_pause_makes_no_pair() -> None:
    """Weighted by the pairs of each group; single vowels have none."""
    assert npvi_within([[0.1, 0.3], [0.2], [0.1, 0.1, 0.1]]) == pytest.approx(100 / 3)
    assert npvi_within([[0.1], []]) is None
    vowels = [Span(start_s=a, end_s=a + 0.1) for a in (0.0, 0.2, 1.0)]
    groups = in_phrases(vowels, [Span(start_s=0.4, end_s=0.9)])
    assert [len(g) for g in groups] == [2, 1]


def test_share_of_vowels() -> None:
    """Half of a second; of nothing there is none."""
    assert percent_v([Span(start_s=0.0, end_s=0.5)], 1.0) == pytest.approx(50)
    assert percent_v([], 0.0) is None


def test_vocalic_intervals_lie_around_the_nuclei() -> None:
    """One for each, in order, apart; regular syllables have nearly even vowels."""
    samples = syllables(16, 4.0)
    voice = track(samples)
    spoken = talk(samples, voice)
    vowels = vocalic_intervals(samples, voice, spoken)
    assert abs(len(vowels) - 16) <= 1
    assert all(a.end_s <= b.start_s for a, b in pairwise(vowels))
    lengths = np.array([v.end_s - v.start_s for v in vowels])
    assert 0.08 < np.median(lengths) < 0.25
    assert npvi(lengths[1:-1].tolist()) < 25
