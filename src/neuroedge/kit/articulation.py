"""From what a phone recogniser hears to which expected phones were said otherwise, with calibrated probabilities.

Goodness of pronunciation (kit/goodness.py) is measured on several views of the same recording (silence around it,
level, tempo), for a small recogniser's opinion of a lone word depends on them; the mean of the views is kept, and a
logistic regression over few measures makes a probability of it. A recogniser also has habits: it hears some right
phones as certain others. So what is named as heard instead is what is likelier and least its habit.
`training/articulation.py` fits both.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Final

import numpy as np
from numpy.typing import NDArray

from neuroedge.kit.goodness import Changes, best_path, changes
from neuroedge.kit.phonology import (
    CONSONANTS,
    GLOTTAL_STOP,
    INDEX,
    PHONES,
    VOWELS,
    Slip,
    SlipType,
    alike,
    realised,
)
from neuroedge.kit.waveform import SAMPLE_RATE_HZ, Floats

Doubles = NDArray[np.float64]

PAD_S: Final = 0.3
DISTORTION_NATS: Final = -3.0
"""Where the best rival is so much less likely than the expected phone, it is not what was said."""
LEAST_CLARITY_NATS: Final = -0.5
"""Below, the recogniser understands the voice too badly for its opinion of one phone; thresholds are set above."""
_LIMIT_NATS: Final = 20.0
"""Beyond, a difference says no more."""
_TEMPI: Final = ((1, 1), (9, 8))
_LEVELS: Final = (0.5, 0.1)
_FLOOR: Final = 5e-4
"""Level of the noise under a view: a recogniser is not used to digital silence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """The phones that should be heard."""

    phones: tuple[str, ...]
    words: tuple[tuple[int, int], ...]
    """First place of each word and the place after its last."""
    reduced: tuple[bool, ...]
    """Whether the phone belongs to a little word that connected speech weakens."""

    def word_of(self, place: int) -> int:
        """The word a place belongs to; the last for the place after the end."""
        return next((w for w, (_, end) in enumerate(self.words) if place < end), len(self.words) - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The mean over all views of what each change of one place would gain, in nats, cut at 20."""

    substituted: Doubles
    """[n, PHONES]."""
    omitted: Doubles
    """[n]."""
    added: Doubles
    """[n + 1, PHONES]."""
    peak: Doubles
    """[n]: log probability of the phone in the frame where it is clearest."""
    misfit_nats: float
    """Nats a phone by which the expected phones are less likely than the best phones at all."""
    times_s: Doubles
    """[n, 2]: start and end."""
    heard: tuple[str, ...]
    """What the recogniser hears when it expects nothing."""


def expected_of(words: Sequence[Sequence[str]], *, weak: Sequence[bool]) -> Expected:
    """Join words of phones; `weak` marks the little ones."""
    ends = np.cumsum([len(word) for word in words]).tolist()
    return Expected(
        phones=tuple(phone for word in words for phone in word),
        words=tuple(zip([0, *ends[:-1]], ends, strict=True)),
        reduced=tuple(w for word, w in zip(words, weak, strict=True) for _ in word),
    )


def views(samples: Floats) -> Iterator[tuple[Floats, float]]:
    """Waveforms of the same speech with how much slower than `samples` each is: two levels, two tempi."""
    from scipy.signal import resample_poly

    peak = float(np.abs(samples).max(initial=0.0)) or 1.0
    pad = round(PAD_S * SAMPLE_RATE_HZ)
    noise = np.random.default_rng(0)
    for level, (up, down) in ((_LEVELS[0], _TEMPI[0]), (_LEVELS[1], _TEMPI[0]), *((_LEVELS[0], t) for t in _TEMPI[1:])):
        wave = samples if up == down else resample_poly(samples, up, down)
        wave = np.pad(wave * (level / peak), pad)
        yield (wave + noise.normal(0, _FLOOR * level, len(wave))).astype(np.float32), up / down


def evidence(frames: Sequence[tuple[Doubles, float]], expected: Expected, *, frame_s: float) -> Evidence:
    """Weigh all changes on each view: its pooled log probabilities and how much slower it is.

    Raises ValueError when a view has too few frames for the phones.
    """
    ids = np.array([INDEX[phone] for phone in expected.phones], np.int64)
    found: list[Changes] = []
    peaks, misfits = [], []
    for log_p, _ in frames:
        own = realised(log_p, expected.phones, reduced=expected.reduced)
        weighed = changes(log_p, ids, expected_log_p=own)
        found.append(weighed)
        peaks.append([own[max(0, a - 1) : b + 1, i].max() for i, (a, b) in enumerate(weighed.frames)])
        misfits.append((log_p.max(axis=1).sum() - weighed.log_p) / len(ids))
    return Evidence(
        substituted=_mean([c.substituted for c in found]),
        omitted=_mean([c.omitted for c in found]),
        added=_mean([c.added for c in found]),
        peak=_mean([np.array(p) for p in peaks]),
        misfit_nats=float(np.mean(misfits)),
        times_s=_times(found[0], frames[0], frame_s=frame_s),
        heard=tuple(PHONES[k] for k in best_path(frames[0][0])),
    )


def together(found: Sequence[Evidence]) -> Evidence:
    """The mean of what several recordings of the same words say; times and what is heard are those of the first."""
    return Evidence(
        substituted=_mean([e.substituted for e in found]),
        omitted=_mean([e.omitted for e in found]),
        added=_mean([e.added for e in found]),
        peak=_mean([e.peak for e in found]),
        misfit_nats=float(np.mean([e.misfit_nats for e in found])),
        times_s=found[0].times_s,
        heard=found[0].heard,
    )


def _mean(values: Sequence[Doubles]) -> Doubles:
    return np.asarray(np.mean([np.clip(v, -_LIMIT_NATS, _LIMIT_NATS) for v in values], axis=0), np.float64)


def _times(weighed: Changes, view: tuple[Doubles, float], *, frame_s: float) -> Doubles:
    """A phone lasts to the next one, at most 0.2 s: CTC marks where a phone is clear, not where it ends."""
    starts = weighed.frames[:, 0] * frame_s
    ends = np.append(starts[1:], np.inf)
    ends = np.minimum(ends, np.maximum(weighed.frames[:, 1] * frame_s, starts + 0.2))
    return np.maximum(0.0, np.stack([starts, ends], axis=1) - PAD_S) / view[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Opinion:
    """What the judge makes of one expected phone."""

    p_error: float
    """Calibrated probability that it was not said right."""
    gop_nats: float
    """Log share of the expected phone among all that may stand in its place, nothing included; at most 0."""
    rival: str | None
    """The likeliest phone in its place; None when leaving it out is likelier."""
    rival_nats: float
    """How much likelier the recording is with the rival."""


class Judge:
    """Trained habits and a logistic regression over the measures of a phone.

    Arrays of the file: habit_mean, habit_spread [PHONES, PHONES + 1] (gain of an exchange, and in the last column of an
    omission, on phones said right); phone_mean, phone_scale, phone_weights [MEASURES], phone_bias; added_mean,
    added_spread [PHONES], added_threshold; threshold.
    """

    def __init__(self, arrays: "dict[str, Doubles]") -> None:
        self._a = arrays
        self.threshold = float(arrays["threshold"])
        self.vowel_threshold = float(arrays["vowel_threshold"])

    @classmethod
    def shipped(cls) -> "Judge":
        """The judge in NeuroEdge's weights."""
        path = resources.files("neuroedge").joinpath("weights", "articulation", "judge.npz")
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return cls({name: arrays[name] for name in arrays.files})

    def opinions(self, found: Evidence, expected: Expected) -> list[Opinion]:
        """One for each expected phone."""
        x = measures(found, expected)
        scaled = (x - self._a["phone_mean"]) / self._a["phone_scale"]
        p = 1 / (1 + np.exp(-(scaled @ self._a["phone_weights"] + self._a["phone_bias"])))
        return [
            Opinion(p_error=float(p[i]), gop_nats=float(gop(found, expected, i)), rival=rival, rival_nats=nats)
            for i, (rival, nats) in enumerate(_rival(found, expected, i, self._a) for i in range(len(expected.phones)))
        ]

    def slip(self, word: tuple[str, ...], place: int, opinion: Opinion) -> Slip | None:
        """The difference at a place of a word, if there is one.

        A distortion is a consonant that fits badly although neither another phone nor nothing comes near.
        """
        vowel = word[place] in VOWELS
        if opinion.p_error < (self.vowel_threshold if vowel else self.threshold):
            return None
        if vowel and opinion.rival_nats <= 0:
            return None
        if opinion.rival_nats < DISTORTION_NATS:
            return Slip(type="distortion", word=word, place=place, heard=None)
        kind: SlipType = "omission" if opinion.rival is None else "substitution"
        return Slip(type=kind, word=word, place=place, heard=opinion.rival)

    def additions(
        self, found: Evidence, expected: Expected, *, slipped: Collection[int]
    ) -> list[tuple[int, int, str, float]]:
        """Word, place, phone and gain in nats of what was said between the phones of a word.

        Not beside the places that `slipped`: a phone said for another is no second error.
        """
        a = self._a
        out: list[tuple[int, int, str, float]] = []
        for w, (start, end) in enumerate(expected.words):
            for place in range(start + 1, end):
                if place in slipped or place - 1 in slipped:
                    continue
                z = (found.added[place] - a["added_mean"]) / a["added_spread"]
                best = int(z.argmax())
                if z[best] > float(a["added_threshold"]) and found.added[place, best] > 0:
                    out.append((w, place, PHONES[best], float(found.added[place, best])))
        return out


def rivals(phone: str) -> NDArray[np.bool_]:
    """[PHONES]: what may be heard in place of a phone: consonants for a consonant, clearly other vowels for a vowel."""
    if phone in VOWELS:
        return np.array([p in VOWELS and not alike(phone, p) for p in PHONES])
    return np.array([p != phone and (p in CONSONANTS or p == GLOTTAL_STOP) for p in PHONES])


def gop(found: Evidence, expected: Expected, place: int) -> float:
    """Goodness of pronunciation of the phone at `place` in nats, at most 0 (Cao et al. 2024, with omission)."""
    others = found.substituted[place, rivals(expected.phones[place])]
    return -float(np.logaddexp.reduce([0.0, *others, found.omitted[place]]))


def clarity(found: Evidence, expected: Expected) -> float:
    """Mean goodness of pronunciation in nats of all phones but the worst: how well the voice is understood."""
    goodness = sorted(gop(found, expected, i) for i in range(len(expected.phones)))
    return float(np.mean(goodness[1:] or goodness))


MEASURES: Final = ("exchange", "omission", "gop", "peak", "others_of_word")


def measures(found: Evidence, expected: Expected) -> Doubles:
    """[n, MEASURES] for each expected phone: few, for what a voice has taught of more does not hold for the next."""
    n = len(expected.phones)
    goodness = np.array([gop(found, expected, i) for i in range(n)])
    out = np.zeros((n, len(MEASURES)))
    for start, end in expected.words:
        for i in range(start, end):
            others = np.delete(goodness[start:end], i - start)
            out[i] = (
                *(found.substituted[i, rivals(expected.phones[i])].max(), found.omitted[i], goodness[i]),
                *(max(found.peak[i], -12.0), others.mean() if len(others) else -1.0),
            )
    return out


def _rival(found: Evidence, expected: Expected, place: int, arrays: "dict[str, Doubles]") -> tuple[str | None, float]:
    """What stands there instead: the most unusual of what is likelier than the expected phone, else of everything.

    Returns the phone, None for nothing at all, and its gain.
    """
    own = INDEX[expected.phones[place]]
    gain = np.append(found.substituted[place], found.omitted[place])
    possible = np.append(rivals(expected.phones[place]), True)
    z = np.where(possible, (gain - arrays["habit_mean"][own]) / arrays["habit_spread"][own], -np.inf)
    likelier = possible & (gain > 0)
    best = int(np.where(likelier, z, -np.inf).argmax() if likelier.any() else z.argmax())
    return (PHONES[best] if best < len(PHONES) else None), float(gain[best])


_MANNERS: Final = ({*"pbtdkɡ", GLOTTAL_STOP}, set("mnŋ"), {*"fvθðszʃʒh", "t͡ʃ", "d͡ʒ"}, set("lɹwj"))
_PLACES: Final = (set("pbmfvw"), {*"tdnszθðlɹʃʒj", "t͡ʃ", "d͡ʒ"}, set("kɡŋhwj"))


def mismatch(expected: Sequence[str], heard: Sequence[str]) -> float:
    """How far what was heard is from the expected phones: 0 for the same, 1 for another text; weighted edit distance.

    Related phones cost half, so that a child who fronts, stops and glides is still heard to say the words.
    """
    row = np.arange(len(heard) + 1, dtype=np.float64)
    for i, phone in enumerate(expected, start=1):
        above, row = row, np.empty_like(row)
        row[0] = i
        for j, other in enumerate(heard, start=1):
            row[j] = min(above[j] + 1, row[j - 1] + 1, above[j - 1] + _cost(phone, other))
    return float(min(1.0, row[-1] / max(len(expected), 1)))


def _cost(a: str, b: str) -> float:
    if alike(a, b):
        return 0.0
    if a in VOWELS and b in VOWELS:
        return 0.5
    return 0.5 if any(a in group and b in group for group in (*_MANNERS, *_PLACES)) else 1.0
