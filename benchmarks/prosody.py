"""Prosody against Praat (parselmouth, dev group only) and known truth: `python -m benchmarks.prosody --data DIR`.

The same 16 kHz samples go to both: vowels with known jitter and shimmer, espeak-ng at known pitches, real clips
(benchmarks/speech_clips.py says what DIR is). Nothing of the pitch, HNR, jitter and shimmer code was tuned on these
clips. Rhythm has no reference program: it is compared with espeak-ng's own vowels. Synthetic voices prove code only.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.espeak_voice import say
from benchmarks.report import Figure, figure, save
from benchmarks.resampling import interval
from benchmarks.speech_clips import DEV_SPEAKERS, TEST_SPEAKERS, clips
from benchmarks.voices import FORMANTS_HZ, vowel
from neuroedge.kit.perturbation import jitter_local, pulses, shimmer_local
from neuroedge.kit.pitch import harmonicity_db, track
from neuroedge.kit.rhythm import in_phrases, npvi_within, percent_v, vocalic_intervals
from neuroedge.kit.syllables import talk
from neuroedge.kit.voice_signal import MOST_SECOND_VOICE_SHARE, second_voice_share
from neuroedge.kit.waveform import Span

Wave = NDArray[np.float32]
RATE_HZ = 16_000
SEED = 1993
MEASURES = ("f0_hz", "hnr_db", "jitter", "shimmer")
SENTENCES = {
    "en-us": "The boy who lived next door had never seen the ocean. His sister sent him pictures of the beach.",
    "es": "El niño que vivía al lado nunca había visto el mar. Su hermana le mandaba fotos de la playa.",
    "de": "Der Junge von nebenan hatte noch nie das Meer gesehen. Seine Schwester schickte ihm Bilder vom Strand.",
    "fr": "Le garçon qui habitait à côté n'avait jamais vu la mer. Sa soeur lui envoyait des photos de la plage.",
    "it": "Il ragazzo che abitava accanto non aveva mai visto il mare. Sua sorella gli mandava foto della spiaggia.",
}


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A clip as both measure it, [ours, Praat's], in the order of MEASURES."""

    ours: tuple[float, ...]
    praat: tuple[float, ...]


def compare(samples: Wave) -> Pair:
    """F0 median, mean HNR of the voiced frames, jitter and shimmer (local) over the whole clip, by both."""
    voice = track(samples)
    time_s, hnr_db = harmonicity_db(samples)
    voiced = np.array([np.isfinite(voice.at(float(t))) for t in time_s], bool) & np.isfinite(hnr_db)
    times = pulses(samples, voice)
    ours = (
        float(np.nanmedian(voice.f0_hz)),
        float(hnr_db[voiced].mean()),
        jitter_local(times) or np.nan,
        shimmer_local(samples, times) or np.nan,
    )
    return Pair(ours=ours, praat=_praat(samples))


def _praat(samples: Wave) -> tuple[float, ...]:
    import parselmouth

    call = parselmouth.praat.call
    sound = parselmouth.Sound(samples.astype(np.float64), RATE_HZ)
    pitch = sound.to_pitch_ac(time_step=0.01, pitch_floor=75, pitch_ceiling=600)
    f0_hz = pitch.selected_array["frequency"]
    harmonicity = sound.to_harmonicity_ac(0.01, 75, 0.1, 4.5)
    values = harmonicity.values[0]
    spoken = [bool(np.isfinite(pitch.get_value_at_time(t))) for t in harmonicity.xs()]
    voiced = np.array(spoken, bool) & (values > -199)
    points = call([sound, pitch], "To PointProcess (cc)")
    limits = (0, 0, 0.0001, 0.02, 1.3)
    return (
        float(np.median(f0_hz[f0_hz > 0])),
        float(values[voiced].mean()),
        call(points, "Get jitter (local)", *limits),
        call([sound, points], "Get shimmer (local)", *limits, 1.6),
    )


def made_vowels() -> tuple[list[Wave], list[float], list[float]]:
    """48 vowels with their true jitter and shimmer."""
    waves, jitters, shimmers = [], [], []
    grid = product((95.0, 150.0, 220.0, 310.0), FORMANTS_HZ, ((0.002, 0.02, 35), (0.008, 0.05, 25), (0.02, 0.1, 15)))
    for i, (f0_hz, name, (jitter, shimmer, noise_db)) in enumerate(grid):
        made = vowel(f0_hz, 1.5, jitter=jitter, shimmer=shimmer, noise_db=noise_db, name=name, seed=SEED + i)
        waves.append(made.samples)
        jitters.append(made.jitter)
        shimmers.append(made.shimmer)
    return waves, jitters, shimmers


def _interval(ours: Sequence[float], praat: Sequence[float]) -> tuple[float, float, float]:
    """Pearson's r with its 95 % interval by bootstrap over clips."""
    both = np.array([ours, praat]).T
    both = both[np.isfinite(both).all(axis=1)]

    def r(rows: NDArray[np.float64]) -> float:
        return float(np.corrcoef(rows[:, 0], rows[:, 1])[0, 1])

    return r(both), *interval(len(both), lambda rows: r(both[rows]))


def agreement(name: str, waves: Sequence[Wave]) -> list[Figure]:
    """The four measures of a set of clips."""
    pairs = [compare(wave) for wave in waves]
    n = f"{len(pairs)} clips"
    off_f0 = [100 * abs(p.ours[0] / p.praat[0] - 1) for p in pairs]
    off_hnr = [abs(p.ours[1] - p.praat[1]) for p in pairs]
    figures = [
        figure(f"{name}: F0 median, difference", "%", off_f0, at_most=1, note=f"{n}; Praat To Pitch (ac)"),
        figure(f"{name}: HNR, difference", "dB", off_hnr, at_most=0.5, note=f"{n}; Praat To Harmonicity (ac)"),
    ]
    for i, measure in enumerate(MEASURES[1:], start=1):
        r, low, high = _interval([p.ours[i] for p in pairs], [p.praat[i] for p in pairs])
        figures.append(
            Figure(
                name=f"{name}: {measure.split('_')[0]}, correlation", unit="", median=round(r, 4), low=round(low, 4),
                high=round(high, 4), runs=len(pairs), target="≥ 0.95", met=r >= 0.95, note="95 % interval by bootstrap",
            )
        )  # fmt: skip
    return figures


def _truth() -> list[Figure]:
    """Jitter and shimmer of made vowels against what was put in, ours and Praat's."""
    waves, jitters, _ = made_vowels()
    pairs = [compare(wave) for wave in waves]
    ours = [100 * abs(p.ours[2] - t) for p, t in zip(pairs, jitters, strict=True)]
    praat = [100 * abs(p.praat[2] - t) for p, t in zip(pairs, jitters, strict=True)]
    return [
        figure(
            "jitter against the truth, ours: error", "points", ours, note=f"{len(waves)} made vowels; jitter 0.2–2 %"
        ),
        figure("jitter against the truth, Praat: error", "points", praat, note="the same vowels"),
    ]


def _spoken() -> list[Wave]:
    """espeak-ng at five pitches in five languages."""
    return [
        say(text, voice=voice, pitch=pitch).samples
        for (voice, text), pitch in product(SENTENCES.items(), (10, 30, 50, 70, 90))
    ]


def _rhythm() -> list[Figure]:
    """%V and nPVI-V against espeak-ng's own vowels, on sentences not used to choose the threshold."""
    shares, variabilities = [], []
    for (voice_name, text), words_per_minute in product(SENTENCES.items(), (130, 175, 220)):
        spoken = say(text, voice=voice_name, words_per_minute=words_per_minute)
        voice = track(spoken.samples)
        found = talk(spoken.samples, voice)
        true = [Span(start_s=start, end_s=end) for start, end in spoken.vowels]
        ours = vocalic_intervals(spoken.samples, voice, found)
        shares.append([percent_v(spans, found.phonation_s) or 0.0 for spans in (ours, true)])
        variabilities.append([npvi_within(in_phrases(spans, found.pauses)) or 0.0 for spans in (ours, true)])
    figures = []
    for name, values in (("%V", np.array(shares)), ("nPVI-V", np.array(variabilities))):
        r, low, high = _interval(values[:, 0].tolist(), values[:, 1].tolist())
        off = np.abs(values[:, 0] - values[:, 1])
        bias = float((values[:, 0] - values[:, 1]).mean())
        note = f"espeak-ng, {len(off)} texts; mean difference {bias:+.1f}, r {r:.2f} ({low:.2f}–{high:.2f})"
        figures.append(figure(f"{name}: error", "points", off.tolist(), note=note))
    return figures


def _second_voices(data: Path) -> list[Figure]:
    """How often one voice alone is taken for several, and two mixed at equal loudness are told."""
    alone = clips(data, TEST_SPEAKERS, per_speaker=20, least_s=2.5, most_s=15)
    draw = np.random.default_rng(SEED)
    mixes = []
    for one in alone:
        others = [c for c in alone if c.speaker != one.speaker]
        other = others[int(draw.integers(len(others)))]
        n = min(len(one.samples), len(other.samples))
        even = [w[:n] / np.std(w[:n]) for w in (one.samples, other.samples)]
        mixes.append((0.1 * (even[0] + even[1])).astype(np.float32))
    told = [[second_voice_share(w, track(w)) > MOST_SECOND_VOICE_SHARE for w in some]
            for some in ([c.samples for c in alone], mixes)]  # fmt: skip
    return [
        figure("one speaker taken for several at once", "", [float(np.mean(told[0]))], note=f"{len(alone)} real clips"),
        figure("two speakers at once told", "", [float(np.mean(told[1]))], note=f"{len(mixes)} mixes of those"),
    ]


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with the unpacked packages")
    parser.add_argument("--per-speaker", type=int, default=10)
    arguments = parser.parse_args()
    speakers = (*DEV_SPEAKERS, *TEST_SPEAKERS)
    real = [c.samples for c in clips(arguments.data, speakers, per_speaker=arguments.per_speaker, least_s=2, most_s=12)]
    save(
        "prosody",
        [
            *agreement("real clips", real),
            *agreement("made vowels", made_vowels()[0]),
            *agreement("espeak-ng", _spoken()),
            *_truth(),
            *_rhythm(),
            *_second_voices(arguments.data),
        ],
        title="Prosody against Praat and known truth",
        command="python -m benchmarks.prosody --data DIR",
    )


if __name__ == "__main__":
    main()
