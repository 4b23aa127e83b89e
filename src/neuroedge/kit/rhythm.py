"""Rhythm of speech: how vowels alternate and how much of it they are.

nPVI-V: E. Grabe & E. L. Low (2002), "Durational variability in speech and the rhythm class hypothesis". %V: F. Ramus,
M. Nespor & J. Mehler (1999), "Correlates of linguistic rhythm in the speech signal", Cognition 73. Both were defined on
vowels marked by hand. Here a vocalic interval is the voiced stretch around a syllable's nucleus that is nearly as loud
in the vowels' band as the nucleus: an estimate, in which nasals and liquids next to a vowel often count with it.
"""

from collections.abc import Sequence

import numpy as np

from neuroedge.kit.pitch import HOP_S, Doubles, Track
from neuroedge.kit.syllables import BAND_HZ, Talk, intensity_db
from neuroedge.kit.waveform import SAMPLE_RATE_HZ, Floats, Span

MIN_VOWELS = 10
"""Fewer intervals give an nPVI that says more of the words than of the rhythm."""
VOWEL_WITHIN_DB = 12.0
"""Chosen on espeak-ng, where %V is known (benchmarks/prosody.py has other sentences)."""

_WINDOW_MS = 32
_REACH_S = 0.25


def npvi(durations_s: Sequence[float]) -> float:
    """Mean of |a - b| / ((a + b) / 2) over consecutive durations, x 100. Needs two or more, all above 0."""
    d = np.asarray(durations_s, np.float64)
    return float(100 * np.mean(np.abs(d[1:] - d[:-1]) / ((d[1:] + d[:-1]) / 2)))


def npvi_within(groups: Sequence[Sequence[float]]) -> float | None:
    """nPVI over the pairs within each group only (a pause between two vowels makes no pair); None without pairs."""
    pairs = [(len(g) - 1, npvi(g)) for g in groups if len(g) > 1]
    n = sum(weight for weight, _ in pairs)
    return sum(weight * value for weight, value in pairs) / n if n else None


def vocalic_intervals(samples: Floats, voice: Track, talk: Talk) -> list[Span]:
    """Vocalic intervals around the nuclei of `talk`, in order, not overlapping."""
    from scipy.signal import butter, sosfiltfilt

    if not talk.nuclei_s:
        return []
    band = butter(4, BAND_HZ, btype="band", fs=SAMPLE_RATE_HZ, output="sos")
    level_db = intensity_db(sosfiltfilt(band, samples).astype(np.float32), window_ms=_WINDOW_MS)
    voiced = np.zeros(len(level_db), bool)
    voiced[np.clip(np.rint(voice.time_s[np.isfinite(voice.f0_hz)] / HOP_S).astype(int), 0, len(level_db) - 1)] = True
    nuclei = [min(round(t / HOP_S), len(level_db) - 1) for t in talk.nuclei_s]
    found: list[Span] = []
    for i, nucleus in enumerate(nuclei):
        low = max(_dip(level_db, nuclei[i - 1], nucleus) if i else 0, nucleus - round(_REACH_S / HOP_S))
        high = _dip(level_db, nucleus, nuclei[i + 1]) if i + 1 < len(nuclei) else len(level_db) - 1
        high = min(high, nucleus + round(_REACH_S / HOP_S))
        loud = voiced & (level_db >= level_db[nucleus] - VOWEL_WITHIN_DB)
        start = end = nucleus
        while start > low and loud[start - 1]:
            start -= 1
        while end < high and loud[end]:
            end += 1
        if end > start:
            found.append(Span(start_s=start * HOP_S, end_s=end * HOP_S))
    return found


def _dip(level_db: Doubles, first: int, second: int) -> int:
    return first + int(level_db[first : second + 1].argmin())


def percent_v(vowels: Sequence[Span], phonation_s: float) -> float | None:
    """Share of phonation that is vocalic, in percent; None without phonation."""
    return 100 * sum(v.end_s - v.start_s for v in vowels) / phonation_s if phonation_s > 0 else None


def in_phrases(vowels: Sequence[Span], pauses: Sequence[Span]) -> list[list[float]]:
    """Durations (s) of vowels, grouped by the pauses between them."""
    edges = [p.start_s for p in pauses]
    groups: dict[int, list[float]] = {}
    for vowel in vowels:
        groups.setdefault(int(np.searchsorted(edges, vowel.start_s)), []).append(vowel.end_s - vowel.start_s)
    return list(groups.values())
