"""Syllable nuclei, speech and pauses from the intensity of a recording.

N. H. de Jong & T. Wempe (2009), "Praat script to detect syllable nuclei and measure speech rate automatically",
Behavior Research Methods 41: peaks of intensity above a threshold, set apart from their neighbours by dips, where the
voice is periodic. As in its third version, intensity is that of a band in which vowels are strong, so that sibilants
make no syllables. A pause is a silence of more than 250 ms (F. Goldman-Eisler 1968; usual since).
Counts are estimates: fast or mumbled syllables run together, and a long vowel that swells counts twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from neuroedge.kit.pitch import HOP_S, Doubles, Track, runs
from neuroedge.kit.waveform import SAMPLE_RATE_HZ, Floats, Span

SILENCE_BELOW_TOP_DB = 25.0
TOP_QUANTILE = 0.99
DIP_DB = 2.0
MIN_PAUSE_S = 0.25
MIN_SPEECH_S = 0.08
"""A shorter sound between silences is a click."""
NOISE_MARGIN_DB = 6.0
LEAST_RANGE_DB = 10.0
"""Where loud and soft are no further apart there is no telling sound from silence."""
SILENT_BELOW_DB = -70.0
"""A recording that never gets louder holds the noise of its own samples."""
BAND_HZ = (300.0, 3_300.0)

_STEP = SAMPLE_RATE_HZ // 1_000
_WINDOW_MS = 128
"""Twice Praat's effective 3.2 periods of 50 Hz: a Kaiser window's tails count little."""
_BAND_WINDOW_MS = 64
_QUIETEST_DB = -100.0
_NEAR_VOICE_S = 0.02
_APART = round(0.06 / HOP_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class Talk:
    """Where a recording is spoken: nuclei (s) of its syllables, stretches of sound, pauses between them."""

    nuclei_s: list[float]
    speech: list[Span]
    pauses: list[Span]
    threshold_db: float

    @property
    def span_s(self) -> float:
        """From the start of the first sound to the end of the last."""
        return self.speech[-1].end_s - self.speech[0].start_s if self.speech else 0.0

    @property
    def phonation_s(self) -> float:
        """Without the pauses."""
        return self.span_s - sum(p.end_s - p.start_s for p in self.pauses)

    @property
    def speech_rate_syl_s(self) -> float | None:
        """Syllables a second, pauses included."""
        return len(self.nuclei_s) / self.span_s if self.span_s > 0 else None

    @property
    def articulation_rate_syl_s(self) -> float | None:
        """Syllables a second of phonation."""
        return len(self.nuclei_s) / self.phonation_s if self.phonation_s > 0 else None

    def run_lengths(self) -> list[int]:
        """Syllables of each run between pauses; runs without any are left out."""
        edges = [p.start_s for p in self.pauses]
        places = np.searchsorted(edges, self.nuclei_s)
        return [int(n) for n in np.bincount(places) if n] if len(places) else []


def intensity_db(samples: Floats, *, window_ms: int = _WINDOW_MS) -> Doubles:
    """Level [frames] in dB of full scale, one frame each 10 ms (frame k at k x 10 ms), smoothed by a Kaiser window."""
    x = samples.astype(np.float64)
    whole = len(x) // _STEP * _STEP
    power = np.mean(x[:whole].reshape(-1, _STEP) ** 2, axis=1)
    if not len(power):
        return np.zeros(0)
    window = np.kaiser(window_ms + 1, 20.0)
    level = np.convolve(np.pad(power, window_ms // 2), window / window.sum(), "valid")
    frames: Doubles = np.maximum(10 * np.log10(np.maximum(level[:: round(HOP_S * 1000)], 1e-12)), _QUIETEST_DB)
    return frames


def talk(samples: Floats, voice: Track) -> Talk:
    """Syllables, speech and pauses of `samples` [n] (mono, 16 kHz) with its pitch track."""
    level_db = intensity_db(samples)
    sounding, threshold_db = _sounding(level_db)
    speech = _speech(sounding)
    pauses = [
        Span(start_s=one.end_s, end_s=two.start_s)
        for one, two in pairwise(speech)
        if two.start_s - one.end_s > MIN_PAUSE_S
    ]
    return Talk(nuclei_s=_nuclei(samples, voice, sounding), speech=speech, pauses=pauses, threshold_db=threshold_db)


def joined(spans: Sequence[Span], *, gap_s: float) -> list[Span]:
    """Stretches with those less than `gap_s` apart joined: phrases, when the gap is a pause."""
    whole: list[Span] = []
    for span in spans:
        if whole and span.start_s - whole[-1].end_s <= gap_s:
            whole[-1] = Span(start_s=whole[-1].start_s, end_s=span.end_s)
        else:
            whole.append(span)
    return whole


def _sounding(level_db: Doubles) -> tuple[np.ndarray, float]:
    """Which frames are no silence, and the threshold in dB."""
    if not len(level_db) or level_db.max() <= SILENT_BELOW_DB:
        return np.zeros(len(level_db), bool), 0.0
    top = float(np.quantile(level_db, TOP_QUANTILE))
    floor = float(np.quantile(level_db, 0.05))
    threshold = max(top - SILENCE_BELOW_TOP_DB, min(floor + NOISE_MARGIN_DB, top - LEAST_RANGE_DB))
    return level_db >= threshold, threshold


def _speech(sounding: np.ndarray) -> list[Span]:
    found = [Span(start_s=a * HOP_S, end_s=b * HOP_S) for a, b in runs(sounding)]
    whole = joined(found, gap_s=MIN_SPEECH_S)
    return [s for s in whole if s.end_s - s.start_s >= MIN_SPEECH_S]


def _nuclei(samples: Floats, voice: Track, sounding: np.ndarray) -> list[float]:
    from scipy.signal import butter, find_peaks, sosfiltfilt

    if not sounding.any() or not len(voice.time_s):
        return []
    band = butter(4, BAND_HZ, btype="band", fs=SAMPLE_RATE_HZ, output="sos")
    level_db = intensity_db(sosfiltfilt(band, samples).astype(np.float32), window_ms=_BAND_WINDOW_MS)
    # Quiet before and behind, so that a sound that starts or ends with the recording is a peak too.
    framed = np.pad(level_db, 1, constant_values=_QUIETEST_DB)
    peaks = find_peaks(framed, prominence=DIP_DB, distance=_APART)[0] - 1
    voiced_s = voice.time_s[np.isfinite(voice.f0_hz)]
    at = peaks[sounding[peaks]] * HOP_S
    if not len(voiced_s):
        return []
    after = (
        np.clip(np.searchsorted(voiced_s, at), 1, len(voiced_s) - 1) if len(voiced_s) > 1 else np.zeros(len(at), int)
    )
    off = np.minimum(np.abs(voiced_s[after] - at), np.abs(voiced_s[np.maximum(after - 1, 0)] - at))
    return [round(float(t), 3) for t in at[off <= _NEAR_VOICE_S]]
