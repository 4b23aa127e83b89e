"""The audio engine's measures against FFmpeg's and Praat's, and its noise reduction on known noise.

    python -m benchmarks.audio_measures [--data DIR]

Same clips, same run: stretches of the sample call and, with --data, every WAV file below DIR, at most 40. Loudness is
compared with FFmpeg's ebur128 filter (libavfilter through PyAV), level with Praat's mean square (praat-parselmouth, a
test-time oracle under the GPL), silences with FFmpeg's silencedetect. Noise: white and pink noise is mixed into clips
padded with a second of silence at 20, 10 and 5 dB; the SNR found is compared with the one mixed, and the distance to
the clean clip (SI-SDR, Le Roux et al. 2019) before and after noise reduction.
"""

import argparse
import asyncio
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

from benchmarks import resampling
from benchmarks.report import Figure, save
from neuroedge.contract.models import SAMPLE_RATE_HZ, Floats, Span
from neuroedge.contract.ports import Channels
from neuroedge.infra.media import PyAVMedia
from neuroedge.infra.sound import PyAVSound
from neuroedge.kit.loudness import loudness_lufs
from neuroedge.kit.signal import background_dbfs, rms_dbfs, silences, snr_db
from neuroedge.settings import default_data_dir

SEED = 6
MOST_CLIPS = 40
SNRS_DB = (20, 10, 5)
STRENGTH_DB = 20.0


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=default_data_dir() / "models", help="the model store")
    parser.add_argument("--data", type=Path, help="a folder with WAV files of speech")
    given = parser.parse_args()
    clips = load(given.models / "sample-call" / "sample.wav", given.data)
    figures = [
        differences("loudness: ours less FFmpeg's ebur128", "LU", clips, lambda c: loudness_lufs(c), ebur128, most=0.2),
        differences("level: ours less Praat's", "dB", clips, lambda c: rms_dbfs(c), praat_rms_dbfs, most=0.05),
        silence_agreement(clips),
        *noise_figures(clips),
    ]
    save(
        "audio_measures",
        figures,
        title="Measures of sound against FFmpeg and Praat, and noise reduction",
        command="python -m benchmarks.audio_measures --data DIR",
    )


def load(sample: Path, data: Path | None) -> list[Floats]:
    """Clips of 2 s or more at 16 kHz mono."""
    call, _ = soundfile.read(sample, dtype="float32")
    clips = [np.asarray(call[i * 5 * SAMPLE_RATE_HZ :][: 5 * SAMPLE_RATE_HZ], np.float32) for i in range(1, 6)]
    paths = sorted(data.rglob("*.wav")) if data else []
    for at in np.linspace(0, len(paths) - 1, min(len(paths), 4 * MOST_CLIPS)).astype(int):
        samples, rate_hz = soundfile.read(paths[at], dtype="float32", always_2d=True)
        clip = soxr.resample(samples.mean(axis=1), rate_hz, SAMPLE_RATE_HZ).astype(np.float32)
        if len(clip) >= 2 * SAMPLE_RATE_HZ and len(clips) < MOST_CLIPS:
            clips.append(clip)
    return clips


def interval(name: str, unit: str, values: Sequence[float], *, most: float | None = None, note: str = "") -> Figure:
    """The median with its 95 % bootstrap interval; judged by its size where `most` is given."""
    table = np.asarray(values, float)
    low, high = resampling.interval(len(table), lambda rows: np.median(table[rows]))
    median = float(np.median(table))
    return Figure(
        name=name,
        unit=unit,
        median=round(median, 4),
        low=round(low, 4),
        high=round(high, 4),
        runs=len(table),
        target="" if most is None else f"≤ {most:g}",
        met=None if most is None else abs(median) <= most,
        note=note or "range: 95 % bootstrap interval of the median",
    )


def differences(
    name: str,
    unit: str,
    clips: Sequence[Floats],
    ours: Callable[[Floats], float | None],
    theirs: Callable[[Floats], float],
    *,
    most: float,
) -> Figure:
    """Ours less theirs over the clips; the largest stands in the note."""
    values = [found - theirs(clip) for clip in clips if (found := ours(clip)) is not None]
    return interval(name, unit, values, most=most, note=f"largest difference {max(map(abs, values)):.3f}")


def ebur128(samples: Floats) -> float:
    """Integrated loudness (LUFS) by FFmpeg."""
    told = [frame.metadata.get("lavfi.r128.I") for frame in filtered(samples, "ebur128", "metadata=1")]
    return float([value for value in told if value is not None][-1])


def filtered(samples: Floats, name: str, options: str) -> list[Any]:
    """Frames of the filter's output."""
    import av
    from av.filter import Graph

    graph = Graph()
    source = graph.add_abuffer(
        sample_rate=SAMPLE_RATE_HZ, format="flt", layout="mono", time_base=Fraction(1, SAMPLE_RATE_HZ)
    )
    graph.link_nodes(source, graph.add(name, options), graph.add("abuffersink")).configure()
    found = []
    for start in range(0, len(samples), 1600):
        part = np.ascontiguousarray(samples[None, start : start + 1600])
        frame = av.AudioFrame.from_ndarray(part, format="flt", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE_HZ, start, Fraction(1, SAMPLE_RATE_HZ)
        graph.push(frame)
        found += pulled(graph)
    graph.push(None)
    return [*found, *pulled(graph)]


def pulled(graph: Any) -> list[Any]:
    """What the graph has ready."""
    import av

    found = []
    while True:
        try:
            found.append(graph.pull())
        except (av.BlockingIOError, av.EOFError):
            return found


def praat_rms_dbfs(samples: Floats) -> float:
    """Root mean square in dB of full scale, by Praat."""
    import parselmouth

    sound = parselmouth.Sound(samples.astype(np.float64), SAMPLE_RATE_HZ)
    return float(20 * np.log10(sound.get_root_mean_square()))


def silence_agreement(clips: Sequence[Floats]) -> Figure:
    """Share of time on which ours and FFmpeg's silencedetect agree, at -40 dB and 0.3 s."""
    shares = []
    for clip in clips:
        ours, theirs = np.zeros(len(clip), bool), np.zeros(len(clip), bool)
        for span in silences(clip, below_dbfs=-40, at_least_s=0.3):
            ours[int(span.start_s * SAMPLE_RATE_HZ) : int(span.end_s * SAMPLE_RATE_HZ)] = True
        start = None
        for frame in filtered(clip, "silencedetect", "noise=-37dB:d=0.3"):
            told = frame.metadata
            if "lavfi.silence_start" in told:
                start = float(told["lavfi.silence_start"])
            if "lavfi.silence_end" in told and start is not None:
                theirs[int(start * SAMPLE_RATE_HZ) : int(float(told["lavfi.silence_end"]) * SAMPLE_RATE_HZ)] = True
                start = None
        if start is not None:
            theirs[int(start * SAMPLE_RATE_HZ) :] = True
        shares.append(float((ours == theirs).mean()))
    note = "theirs goes by single samples (-37 dB: a sine's peak), ours by the level of 10 ms (-40 dB)"
    return interval("time on which silences agree with FFmpeg's silencedetect", "", shares, note=note)


def noise_figures(clips: Sequence[Floats]) -> list[Figure]:
    """SNR found against SNR mixed, and what noise reduction gains, by kind and amount of noise."""
    chance = np.random.default_rng(SEED)
    figures = []
    for kind in ("white", "pink"):
        for wanted_db in SNRS_DB:
            off, gained, snr_gained = [], [], []
            for clip in clips:
                padding = np.zeros(SAMPLE_RATE_HZ, np.float32)
                clean = np.concatenate([padding, clip, padding])
                speech = [Span(start_s=1.0, end_s=1.0 + len(clip) / SAMPLE_RATE_HZ)]
                noise = noise_of(kind, len(clean), chance)
                noise *= np.sqrt(np.mean(clip**2)) / 10 ** (wanted_db / 20)
                mixed = clean + noise
                found = snr_db(mixed, speech)
                assert found is not None
                off.append(found - wanted_db)
                cleaned = denoised(mixed, background_dbfs(mixed, speech))
                inside = slice(SAMPLE_RATE_HZ, SAMPLE_RATE_HZ + len(clip))
                gained.append(si_sdr(clean[inside], cleaned[inside]) - si_sdr(clean[inside], mixed[inside]))
                after = snr_db(cleaned, speech)
                snr_gained.append((after if after is not None else found) - found)
            label = f"{kind} noise at {wanted_db} dB"
            figures += [
                interval(f"SNR found less SNR mixed, {label}", "dB", off, most=1.0),
                interval(f"SI-SDR gained by noise reduction, {label}", "dB", gained),
                interval(
                    f"SNR gained by noise reduction, {label}", "dB", snr_gained, note="by the engine's own measure"
                ),
            ]
    return figures


def noise_of(kind: str, count: int, chance: np.random.Generator) -> Floats:
    """Noise of unit power, white or with 3 dB less an octave."""
    spectrum = np.fft.rfft(chance.normal(0, 1, count))
    if kind == "pink":
        spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
    made = np.fft.irfft(spectrum, count)
    return np.asarray(made / np.sqrt(np.mean(made**2)), np.float32)


def denoised(samples: Floats, floor_dbfs: float | None) -> Floats:
    """By the engine's filter."""
    sound = PyAVSound(PyAVMedia(blobs=None, max_bytes=1, max_duration_s=1))  # type: ignore[arg-type]
    given = Channels(samples=samples[None], rate_hz=SAMPLE_RATE_HZ)
    cleaned = asyncio.run(sound.denoised(given, strength_db=STRENGTH_DB, floor_dbfs=floor_dbfs))
    return np.asarray(cleaned.samples[0], np.float32)


def si_sdr(clean: Floats, other: Floats) -> float:
    """Scale-invariant signal-to-distortion ratio, dB."""
    target = np.dot(other, clean) / np.dot(clean, clean) * clean
    return float(10 * np.log10(np.dot(target, target) / np.dot(other - target, other - target)))


if __name__ == "__main__":
    main()
