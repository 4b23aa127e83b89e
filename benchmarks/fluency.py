"""Fluency against planted truth: `python -m benchmarks.fluency --data DIR` (DIR: benchmarks/speech_clips.py).

Silences, repeated sounds (another speed and loudness each, a gap between) and prolonged sounds are spliced into real
fluent speech; what is found without having been planted is a false alarm. Rates are compared with espeak-ng's own
vowels. Thresholds were chosen on the dev speakers; --dev shows those. Planted disfluencies are not stuttering: this
proves the code, not its validity.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.espeak_voice import say
from benchmarks.report import Figure, figure, save
from benchmarks.resampling import interval
from benchmarks.speech_clips import DEV_SPEAKERS, RATE_HZ, TEST_SPEAKERS, Clip, clips
from neuroedge.kit.disfluency import Disfluency, disfluencies
from neuroedge.kit.pitch import track
from neuroedge.kit.syllables import Talk, intensity_db, talk

Wave = NDArray[np.float32]
SEED = 20_261
SENTENCES = {
    "en-us": "She had your dark suit in greasy wash water all year. Bring me a large basket of apples and pears.",
    "en": "The old house on the hill was painted yellow. Nobody knew who had lived there before the war.",
    "es": "La casa vieja de la colina estaba pintada de amarillo. Nadie sabía quién había vivido allí.",
    "de": "Das alte Haus auf dem Hügel war gelb gestrichen. Niemand wusste, wer dort gewohnt hatte.",
    "it": "La vecchia casa sulla collina era dipinta di giallo. Nessuno sapeva chi ci avesse abitato.",
    "hi": "पहाड़ी पर पुराना घर पीला रंगा हुआ था। कोई नहीं जानता था कि वहाँ कौन रहता था।",
}
RATES_WPM = (110, 150, 190, 230)


@dataclass(frozen=True, kw_only=True)
class Planted:
    """A clip with one thing spliced in, from start to end in seconds."""

    samples: Wave
    start_s: float
    end_s: float


def with_silence(clip: Clip, draw: np.random.Generator) -> Planted:
    """0.3 to 1.2 s of the clip's own background at a quiet place between two syllables."""
    at = _quiet_place(clip, draw)
    gap = _background(clip, round(float(draw.uniform(0.3, 1.2)) * RATE_HZ), draw)
    return _spliced(clip.samples, at, gap)


def with_repetition(clip: Clip, draw: np.random.Generator) -> Planted:
    """The next 0.16 to 0.4 s said once before: up to 6 % faster or slower, 3 dB louder or softer, gap up to 0.15 s."""
    from scipy.signal import resample

    at = _quiet_place(clip, draw)
    unit = clip.samples[at : at + round(float(draw.uniform(0.16, 0.4)) * RATE_HZ)]
    said = resample(unit, round(len(unit) * float(draw.uniform(0.94, 1.06)))) * 10 ** (float(draw.uniform(-3, 3)) / 20)
    fade = np.minimum(1.0, np.arange(len(said))[::-1] / (0.02 * RATE_HZ))
    gap = _background(clip, round(float(draw.uniform(0.0, 0.15)) * RATE_HZ), draw)
    found = _spliced(clip.samples, at, np.concatenate([said * fade, gap]).astype(np.float32))
    return Planted(samples=found.samples, start_s=found.start_s, end_s=found.end_s + len(unit) / RATE_HZ)


def with_prolongation(clip: Clip, draw: np.random.Generator) -> Planted:
    """The sound of a syllable's nucleus held for 0.4 to 0.9 s more, by overlapped grains in phase."""
    spoken = talk(clip.samples, track(clip.samples))
    inside = [t for t in spoken.nuclei_s if 0.2 < t < clip.seconds - 0.2]
    at = round(float(draw.choice(inside)) * RATE_HZ)
    return _spliced(clip.samples, at, _held(clip.samples, at, float(draw.uniform(0.4, 0.9)), draw))


def _held(samples: Wave, at: int, seconds: float, draw: np.random.Generator) -> Wave:
    grain, step = 640, 320
    window = np.hanning(grain + 1)[:-1]
    out = np.zeros(round(seconds * RATE_HZ) + grain)
    out[:grain] = samples[at - grain // 2 : at + grain // 2] * window
    for start in range(step, len(out) - grain, step):
        around = at - grain // 2 + int(draw.integers(-160, 160))
        tail = out[start : start + step]
        starts = np.arange(around - 110, around + 110)
        fits = [float(np.dot(samples[s : s + step] * window[:step], tail)) for s in starts]
        best = int(starts[int(np.argmax(fits))])
        out[start : start + grain] += samples[best : best + grain] * window
    return out[step : step + round(seconds * RATE_HZ)].astype(np.float32)


def _quiet_place(clip: Clip, draw: np.random.Generator) -> int:
    """The softest sample between two syllables, well inside the clip."""
    spoken = talk(clip.samples, track(clip.samples))
    level = intensity_db(clip.samples, window_ms=32)
    pairs = [
        (a, b)
        for a, b in zip(spoken.nuclei_s, spoken.nuclei_s[1:], strict=False)
        if a > 0.2 and b < clip.seconds - 0.6 and not any(a < p.start_s < b for p in spoken.pauses)
    ]
    one, two = pairs[int(draw.integers(len(pairs)))]
    first = round(one * 100)
    return (first + int(np.argmin(level[first : round(two * 100) + 1]))) * RATE_HZ // 100


def _background(clip: Clip, size: int, draw: np.random.Generator) -> Wave:
    blocks = clip.samples[: len(clip.samples) // 160 * 160].reshape(-1, 160)
    quiet = float(np.quantile(np.sqrt(np.mean(blocks**2, axis=1)), 0.03))
    return (draw.normal(size=size) * max(quiet, 1e-5)).astype(np.float32)


def _spliced(samples: Wave, at: int, piece: Wave) -> Planted:
    whole = np.concatenate([samples[:at], piece, samples[at:]])
    return Planted(samples=whole, start_s=at / RATE_HZ, end_s=(at + len(piece)) / RATE_HZ)


def heard(samples: Wave) -> tuple[list[Disfluency], Talk]:
    """What the kit finds."""
    voice = track(samples)
    spoken = talk(samples, voice)
    return disfluencies(samples, voice, spoken), spoken


@dataclass(kw_only=True)
class Tally:
    """Planted things found, and alarms without one."""

    planted: int = 0
    found: int = 0
    false: int = 0

    @property
    def recall(self) -> float:
        """Share of the planted that were found."""
        return self.found / self.planted

    @property
    def precision(self) -> float:
        """Share of the alarms that were planted."""
        return self.found / max(1, self.found + self.false)


Detector = Callable[[Wave], list[tuple[float, float]]]
Plant = Callable[[Clip, np.random.Generator], Planted]


def detected(some: Sequence[Clip], plant: Plant, detector: Detector, *, forgive: bool = False) -> list[Tally]:
    """A tally of each clip; `forgive`: what the untouched clip has already is no false alarm (its own pauses)."""
    tallies = []
    for i, clip in enumerate(some):
        planted = plant(clip, np.random.default_rng(SEED + i))
        spans = detector(planted.samples)
        hits = [s for s in spans if s[0] < planted.end_s and planted.start_s < s[1]]
        own = len(detector(clip.samples)) if forgive else 0
        false = max(0, len(spans) - min(1, len(hits)) - own)
        tallies.append(Tally(planted=1, found=min(1, len(hits)), false=false))
    return tallies


def pauses(samples: Wave) -> list[tuple[float, float]]:
    """Pauses found."""
    return [(p.start_s, p.end_s) for p in heard(samples)[1].pauses]


def repetitions(samples: Wave) -> list[tuple[float, float]]:
    """Repetitions found."""
    return [(d.start_s, d.end_s) for d in heard(samples)[0] if d.kind == "repetition"]


def prolongations(samples: Wave) -> list[tuple[float, float]]:
    """Held sounds found, as a prolongation or a filled pause: the two differ by their surroundings only."""
    return [(d.start_s, d.end_s) for d in heard(samples)[0] if d.kind in ("prolongation", "filled_pause")]


def _interval(tallies: Sequence[Tally], what: str) -> tuple[float, float, float]:
    """The measure over all clips with its 95 % interval by bootstrap over clips."""
    counts = np.array([(t.planted, t.found, t.false) for t in tallies])

    def measure(rows: NDArray[np.int64]) -> float:
        whole = Tally(planted=int(rows[:, 0].sum()), found=int(rows[:, 1].sum()), false=int(rows[:, 2].sum()))
        return whole.recall if what == "recall" else whole.precision

    return measure(counts), *interval(len(counts), lambda rows: measure(counts[rows]))


def _figures(name: str, tallies: Sequence[Tally], note: str) -> list[Figure]:
    told = []
    for what in ("recall", "precision"):
        value, low, high = _interval(tallies, what)
        told.append(_measured(f"{name}: {what}", "", value, low, high, len(tallies), note=f"{note}; 95 % interval"))
    return told


def _measured(name: str, unit: str, value: float, low: float, high: float, n: int, *, note: str) -> Figure:
    return Figure(
        name=name, unit=unit, median=round(value, 4), low=round(low, 4), high=round(high, 4), runs=n, note=note
    )


def _rates() -> list[Figure]:
    """Articulation rate of espeak-ng, whose vowels and silences are known."""
    errors, truth, told = [], [], []
    for voice, text in SENTENCES.items():
        for words_per_minute in RATES_WPM:
            spoken = say(text, voice=voice, words_per_minute=words_per_minute)
            found = heard(spoken.samples)[1]
            true = len(spoken.vowels) / found.phonation_s
            rate = found.articulation_rate_syl_s or 0.0
            errors.append(100 * abs(rate / true - 1))
            truth.append(true)
            told.append(rate)
    r = float(np.corrcoef(truth, told)[0, 1])
    return [
        figure("articulation rate: error", "%", errors, at_most=10, note="espeak-ng, 6 languages, 4 rates each"),
        figure("articulation rate: correlation with the truth", "", [r], note=f"n={len(told)}"),
    ]


def _false_alarms(some: Sequence[Clip]) -> list[Figure]:
    minutes = sum(c.seconds for c in some) / 60
    found = [d for c in some for d in heard(c.samples)[0]]
    return [
        figure(
            f"{kind} found in untouched fluent speech", "/min", [sum(d.kind == kind for d in found) / minutes],
            note=f"{minutes:.1f} min of {len(some)} clips; a false alarm unless the reader did it",
        )
        for kind in ("repetition", "prolongation", "filled_pause")
    ]  # fmt: skip


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with the unpacked packages")
    parser.add_argument("--per-speaker", type=int, default=10)
    parser.add_argument("--dev", action="store_true", help="the dev speakers; prints, does not save")
    arguments = parser.parse_args()
    speakers = DEV_SPEAKERS if arguments.dev else TEST_SPEAKERS
    some = clips(arguments.data, speakers, per_speaker=arguments.per_speaker, least_s=2.5, most_s=15.0)
    note = f"real clips of {len(speakers)} speakers"
    figures = [
        *_figures("spliced silences", detected(some, with_silence, pauses, forgive=True), note),
        *_figures("planted repetitions", detected(some, with_repetition, repetitions), note),
        *_figures("planted prolongations", detected(some, with_prolongation, prolongations), note),
        *_false_alarms(some),
        *([] if arguments.dev else _rates()),
    ]
    if arguments.dev:
        for f in figures:
            print(f"{f.name}: {f.median:g} ({f.low:g}–{f.high:g}) {f.note}")
        return
    save(
        "fluency",
        figures,
        title="Fluency: planted disfluencies and known rates",
        command="python -m benchmarks.fluency --data DIR",
    )


if __name__ == "__main__":
    main()
