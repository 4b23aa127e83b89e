"""Disfluencies heard in the sound itself, since recognisers of words leave most of them out.

Repetitions: a stretch of 0.12 to 0.8 s whose spectral envelope and level come again, at once or behind a gap of up to
0.2 s, 30 ms of give at each frame (local self-similarity; the sound must change within the stretch, or any long vowel
would repeat itself).
Prolongations and filled pauses: sound whose envelope stays the same for longer than syllables last; a filled pause is
voiced, of level pitch and next to a silence (M. Goto, K. Itou & S. Hayamizu 1999, "A real-time filled pause detection
system for spontaneous speech recognition", Eurospeech). Blocks: a silence inside a word, so only with words.
Stuttering-like disfluencies after N. G. Ambrose & E. Yairi (1999), "Normative disfluency data for early childhood
stuttering", JSLHR 42: repetitions of parts of words and of one-syllable words, prolongations, blocks. Thresholds are
chosen on the dev half of benchmarks/fluency.py. Observations, not a diagnosis.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from neuroedge.kit.envelope import change_db, envelope_db
from neuroedge.kit.pitch import HOP_S, Doubles, Track, runs
from neuroedge.kit.syllables import MIN_PAUSE_S, Talk, intensity_db
from neuroedge.kit.waveform import Floats, Span

Kind = Literal["repetition", "prolongation", "filled_pause", "block"]
STEADY_DB = 3.0
MIN_STEADY_S = 0.32
FILLED_PAUSE_RANGE_ST = 2.0
SHORTEST_UNIT_S = 0.12
LONGEST_UNIT_S = 0.8
ALIKE = 0.34
"""Most mean distance of a repetition's frames, over the usual distance (see `_repetitions`)."""
ALIKE_BEHIND_A_GAP = 0.3
"""The same for a repetition behind a gap, of which there are more to choose from."""
LONGEST_GAP_S = 0.2
GAP_SOFTER_DB = 10.0
"""A gap is so much softer than what is repeated."""
LIVELY = 0.45
"""Least spread within a repeated stretch, over the same: a steady sound is no repetition."""

_GIVE = 3
_OVER = 5
_GAP_STEP = 3
_LEVEL_WEIGHT = 0.2
_EDGE_S = 0.06
_NEXT_TO_S = 0.1
_LEAST_SOUNDING = 0.5
_LEAST_FRAMES = 50
_LETTERS_OF_A_SYLLABLE = 5
"""Words up to so many letters are taken for one syllable."""

FILLERS = {
    "en": frozenset(("uh", "um", "uhm", "er", "erm", "hm", "hmm", "mm", "mmm", "ah", "eh")),
    "de": frozenset(("äh", "ähm", "öh", "hm", "hmm", "mhm")),
    "fr": frozenset(("euh", "heu", "hum", "bah", "ben")),
    "es": frozenset(("eh", "em", "mmm", "este")),
    "it": frozenset(("eh", "ehm", "mmm", "uhm")),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """A recognised word with its times in seconds."""

    w: str
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Disfluency:
    """One disfluency; `syllables` is how many the repeated unit has, `times` how often it came again."""

    kind: Kind
    start_s: float
    end_s: float
    times: int = 1
    syllables: int = 0
    text: str | None = None
    source: Literal["sound", "words"] = "sound"

    @property
    def is_stuttering_like(self) -> bool:
        """Of the kinds that Ambrose & Yairi count: a longer repeated phrase and a filler are not."""
        return self.kind in ("prolongation", "block") or (self.kind == "repetition" and self.syllables <= 1)


def disfluencies(samples: Floats, voice: Track, talk: Talk, words: Sequence[Word] | None = None) -> list[Disfluency]:
    """Disfluencies of a recording (mono, 16 kHz), in order of time; blocks only where `words` are given."""
    envelope = envelope_db(samples)
    sounding = _mask(talk.speech, len(envelope))
    steady = _steady(envelope, sounding, voice, talk, words)
    level = _level(samples, len(envelope))
    repeated = [r for r in _repetitions(envelope, level, sounding, talk) if not any(_overlap(s, r) for s in steady)]
    found = [*steady, *repeated]
    if words is not None:
        spelt = _repeated_words(words)
        found = [d for d in found if d.kind != "repetition" or not any(_overlap(d, w) for w in spelt)]
        found += [*_blocks(words, talk), *spelt]
    return sorted(found, key=lambda d: d.start_s)


def _overlap(one: Disfluency, other: Disfluency) -> bool:
    return one.start_s < other.end_s and other.start_s < one.end_s


def _mask(spans: Sequence[Span], frames: int) -> np.ndarray:
    mask = np.zeros(frames, bool)
    for span in spans:
        mask[round(span.start_s / HOP_S) : round(span.end_s / HOP_S)] = True
    return mask


def _steady(
    envelope: Doubles, sounding: np.ndarray, voice: Track, talk: Talk, words: Sequence[Word] | None
) -> list[Disfluency]:
    still = (change_db(envelope, over_frames=_OVER) < STEADY_DB) & sounding
    found = []
    for first, after in runs(still):
        start_s, end_s = (first - _OVER) * HOP_S, (after + _OVER) * HOP_S
        if end_s - start_s >= MIN_STEADY_S and _near_voice(start_s, end_s, voice):
            filler = _is_filler(start_s, end_s, voice, talk, words)
            found.append(
                Disfluency(kind="filled_pause" if filler else "prolongation", start_s=start_s, end_s=end_s, syllables=1)
            )
    return found


def _near_voice(start_s: float, end_s: float, voice: Track) -> bool:
    """Whether a voice sounds in or next to it; else it is a noise, which is steady too."""
    return bool(np.isfinite(voice.between(start_s - _NEXT_TO_S, end_s + _NEXT_TO_S).f0_hz).any())


def _is_filler(start_s: float, end_s: float, voice: Track, talk: Talk, words: Sequence[Word] | None) -> bool:
    f0_hz = voice.between(start_s, end_s).f0_hz
    voiced = f0_hz[np.isfinite(f0_hz)]
    if len(voiced) < 0.8 * len(f0_hz) or not len(voiced):
        return False
    low, high = np.percentile(voiced, [10, 90])
    if 12 * np.log2(high / low) > FILLED_PAUSE_RANGE_ST:
        return False
    if words is not None:
        covered = sum(max(0.0, min(end_s, w.end_s) - max(start_s, w.start_s)) for w in words)
        return covered < 0.5 * (end_s - start_s)
    before = any(abs(p.end_s - start_s) < _NEXT_TO_S for p in talk.pauses)
    behind = any(abs(p.start_s - end_s) < _NEXT_TO_S for p in talk.pauses)
    return before and behind


def _level(samples: Floats, frames: int) -> Doubles:
    """[frames] in dB, no lower than 45 dB below the loudest."""
    level_db = intensity_db(samples, window_ms=32)[:frames]
    level = np.pad(level_db, (0, frames - len(level_db)), mode="edge") if len(level_db) else np.zeros(frames)
    return np.asarray(np.maximum(level, level.max(initial=-100.0) - 45.0), np.float64)


def _repetitions(envelope: Doubles, level: Doubles, sounding: np.ndarray, talk: Talk) -> list[Disfluency]:
    """Stretches that come again, the most alike first, then those that do not overlap them.

    What is alike is weighed against the recording's usual distance and, in equal parts, against how alike the stretch
    is to what follows at any other distance: near silence or in a drone everything is like everything.
    """
    weight = _LEVEL_WEIGHT * np.sqrt(envelope.shape[1])
    features = np.column_stack([envelope, weight * (level - level.mean())])
    units = _units()
    if sounding.sum() < _LEAST_FRAMES or len(features) < 2 * units[0][0] + _GIVE:
        return []
    usual = _usual_distance(features[sounding])
    if usual <= 0:
        return []
    apart = _distances_again(features, units)
    known = np.isfinite(apart).any(axis=0)
    own = np.full(len(features), usual)
    own[known] = np.nanmedian(apart[:, known], axis=0)
    score = apart / np.sqrt(usual * np.maximum(own, 1e-9))
    hits: list[tuple[float, int, int, int]] = []
    for row, (length, gap) in zip(score, units, strict=True):
        limit = ALIKE if gap == 0 else ALIKE_BEHIND_A_GAP
        starts = np.flatnonzero(np.nan_to_num(row, nan=np.inf) < limit)
        good = starts[sounding[starts] & _lively(features, sounding, starts, length, gap, usual)]
        hits += [(float(row[t]) / limit, int(t), length, gap) for t in good if _quiet(level, int(t), length, gap)]
    return _apart(sorted(hits), talk)


def _units() -> list[tuple[int, int]]:
    """Lengths of a repeated stretch with the gaps behind it, in frames."""
    shortest, longest = round(SHORTEST_UNIT_S / HOP_S), round(LONGEST_UNIT_S / HOP_S)
    at_once = [(length, 0) for length in range(shortest, longest + 1)]
    gaps = range(_GAP_STEP, round(LONGEST_GAP_S / HOP_S) + 1, _GAP_STEP)
    return at_once + [(length, gap) for gap in gaps for length in range(shortest, longest // 2 + 1, 2)]


def _quiet(level: Doubles, start: int, length: int, gap: int) -> bool:
    """Whether the gap behind a stretch is one: softer than the stretch, or other sounds would stand between."""
    between = level[start + length + 1 : start + length + gap - 1]
    return not len(between) or float(np.mean(between)) < float(np.mean(level[start : start + length])) - GAP_SOFTER_DB


def _distances_again(features: Doubles, units: Sequence[tuple[int, int]]) -> Doubles:
    """Mean distance [units, frames] of the stretch from each frame on to the next such stretch, behind its gap.

    Each frame may be met up to 30 ms early or late; NaN where the recording ends before.
    """
    frames = len(features)
    lags = sorted({length + gap for length, gap in units})
    shifted = {k: _shifted(features, k) for k in range(lags[0] - _GIVE, min(frames, lags[-1] + _GIVE + 1))}
    near = {
        lag: np.min([shifted[lag + d][: frames - lag - _GIVE] for d in range(-_GIVE, _GIVE + 1)], axis=0)
        for lag in lags
        if lag + _GIVE < frames
    }
    apart = np.full((len(units), frames), np.nan)
    for row, (length, gap) in enumerate(units):
        compared = near.get(length + gap)
        if compared is not None and len(compared) >= length:
            summed = np.concatenate([[0.0], np.cumsum(compared)])
            apart[row, : len(compared) - length + 1] = (summed[length:] - summed[:-length]) / length
    return apart


def _lively(
    features: Doubles, sounding: np.ndarray, starts: NDArray[np.intp], length: int, gap: int, usual: float
) -> NDArray[np.bool_]:
    """Whether the stretch of `length` frames from each start changes within, and it and the next one sound."""
    told = np.zeros(len(starts), bool)
    for i, t in enumerate(starts.tolist()):
        unit = features[t : t + length]
        spread = float(np.sqrt(np.mean(np.sum((unit - unit.mean(axis=0)) ** 2, axis=1))))
        again = t + length + gap
        heard = min(sounding[t : t + length].mean(), sounding[again : again + length].mean())
        told[i] = spread > LIVELY * usual and heard > _LEAST_SOUNDING
    return told


def _shifted(features: Doubles, lag: int) -> Doubles:
    distance: Doubles = np.sqrt(np.sum((features[lag:] - features[:-lag]) ** 2, axis=1))
    return distance


def _usual_distance(features: Doubles) -> float:
    """Median distance of two frames far apart: each of the first half and its fellow in the second."""
    half = len(features) // 2
    return float(np.median(np.sqrt(np.sum((features[:half] - features[half : 2 * half]) ** 2, axis=1))))


def _apart(hits: Sequence[tuple[float, int, int, int]], talk: Talk) -> list[Disfluency]:
    taken: list[Disfluency] = []
    nuclei = np.asarray(talk.nuclei_s)
    for _, start, length, gap in hits:
        start_s, end_s = start * HOP_S, (start + 2 * length + gap) * HOP_S
        if any(t.start_s < end_s and start_s < t.end_s for t in taken):
            continue
        inside = int(np.sum((nuclei >= start_s) & (nuclei < start_s + length * HOP_S)))
        taken.append(Disfluency(kind="repetition", start_s=start_s, end_s=end_s, syllables=inside))
    return taken


def fillers(words: Sequence[Word], language: str | None, found: Sequence[Disfluency]) -> list[Disfluency]:
    """Fillers that stand in the words and were not heard already (`found`)."""
    known = FILLERS.get((language or "en")[:2], FILLERS["en"])
    return [
        Disfluency(kind="filled_pause", start_s=w.start_s, end_s=w.end_s, syllables=1, text=w.w, source="words")
        for w in words
        if _plain(w.w) in known
        and not any(d.kind == "filled_pause" and d.start_s < w.end_s and w.start_s < d.end_s for d in found)
    ]


def _blocks(words: Sequence[Word], talk: Talk) -> list[Disfluency]:
    """Silences of more than 250 ms with sound of the same word before and behind."""
    return [
        Disfluency(kind="block", start_s=p.start_s, end_s=p.end_s, text=w.w)
        for p in talk.pauses
        for w in words
        if w.start_s + _EDGE_S <= p.start_s and p.end_s <= w.end_s - _EDGE_S and p.end_s - p.start_s > MIN_PAUSE_S
    ]


def _repeated_words(words: Sequence[Word]) -> list[Disfluency]:
    found: list[Disfluency] = []
    plain = [_plain(w.w) for w in words]
    i = 0
    while i < len(words):
        after = i + 1
        while after < len(words) and plain[after] and plain[after] == plain[i]:
            after += 1
        if after - i > 1:
            found.append(
                Disfluency(
                    kind="repetition",
                    start_s=words[i].start_s,
                    end_s=words[after - 1].end_s,
                    times=after - i - 1,
                    syllables=1 if len(plain[i]) <= _LETTERS_OF_A_SYLLABLE else 2,
                    text=words[i].w,
                    source="words",
                )
            )
        i = after
    return found


def _plain(word: str) -> str:
    return "".join(c for c in word.lower() if c.isalnum())
