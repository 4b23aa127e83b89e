"""Diarization of one recording against its reference: error rate by component, and real time factor.

    python -m benchmarks.diarization --wav call.wav --rttm call.rttm --models DIR

DIR holds resemblyzer-ge2e/. Overlapping speech is scored unless a line says otherwise; the scored region reaches from 0
to the last reference or answered moment. A collar of ±0.25 s (NIST md-eval) is `collar=0.5` in pyannote.metrics, whose
figure is the total width.
"""

import argparse
import asyncio
import statistics
import time
from pathlib import Path

import soundfile
import soxr
from pyannote.core import Annotation, Segment, Timeline
from pyannote.metrics.diarization import DiarizationErrorRate

from neuroedge.contract.models import SAMPLE_RATE_HZ, Floats
from neuroedge.engines.speech.diarization import speaker_turns
from neuroedge.kit.diarization import Turn
from neuroedge.runtimes import silero, speaker


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wav", type=Path, required=True)
    parser.add_argument("--rttm", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    samples = read_wav(given.wav)
    turns, seconds = asyncio.run(measure(samples, given.models, repeats=given.repeats, threads=given.threads))
    reference = read_rttm(given.rttm)
    answer = annotation([(turn.start_s, turn.end_s, turn.speaker) for turn in turns])
    print(f"speakers: {len(answer.labels())} found, {len(reference.labels())} in the reference")
    for total_collar_s, skip_overlap in ((0.0, False), (0.25, False), (0.5, False), (0.5, True)):
        print(score(reference, answer, total_collar_s=total_collar_s, skip_overlap=skip_overlap))
    duration_s = len(samples) / SAMPLE_RATE_HZ
    print(
        f"time: median {statistics.median(seconds):.2f} s, min {min(seconds):.2f}, max {max(seconds):.2f} for "
        f"{duration_s:.1f} s of audio over {len(seconds)} runs; RTF {statistics.median(seconds) / duration_s:.3f}"
    )


async def measure(samples: Floats, models: Path, *, repeats: int, threads: int) -> tuple[list[Turn], list[float]]:
    """Turns, and the seconds of each run after one that warms up."""
    voice = silero.load("silero-vad", models / "silero-vad", threads=threads, options={})
    encoder = speaker.load("resemblyzer-ge2e", models / "resemblyzer-ge2e", threads=threads, options={})
    turns, _ = await speaker_turns(samples, voice, encoder)
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        await speaker_turns(samples, voice, encoder)
        seconds.append(time.perf_counter() - start)
    voice.close()
    encoder.close()
    return turns, seconds


def read_wav(path: Path) -> Floats:
    """Mono float32 [n] at 16 kHz."""
    samples, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    resampled: Floats = soxr.resample(samples.mean(axis=1), rate_hz, SAMPLE_RATE_HZ)
    return resampled


def read_rttm(path: Path) -> Annotation:
    """The reference of an RTTM file with one recording."""
    rows = [line.split() for line in path.read_text().splitlines() if line.startswith("SPEAKER")]
    return annotation([(float(row[3]), float(row[3]) + float(row[4]), row[7]) for row in rows])


def annotation(stretches: list[tuple[float, float, str]]) -> Annotation:
    """(start, end, speaker) as pyannote wants it."""
    found = Annotation()
    for track, (start_s, end_s, name) in enumerate(stretches):
        found[Segment(start_s, end_s), track] = name
    return found


def der(reference: Annotation, answer: Annotation, *, total_collar_s: float) -> float:
    """Error rate with overlap scored, from 0 to the last moment of either."""
    end_s = max(segment.end for part in (reference, answer) for segment in part.itersegments())
    metric = DiarizationErrorRate(collar=total_collar_s)
    return float(metric(reference, answer, uem=Timeline([Segment(0, end_s)])))


def score(reference: Annotation, answer: Annotation, *, total_collar_s: float, skip_overlap: bool) -> str:
    """A line with the error rate and its parts."""
    metric = DiarizationErrorRate(collar=total_collar_s, skip_overlap=skip_overlap)
    end_s = max(segment.end for part in (reference, answer) for segment in part.itersegments())
    parts = metric(reference, answer, uem=Timeline([Segment(0, end_s)]), detailed=True)
    shares = [f"{name} {parts[name] / parts['total']:.3f}" for name in ("missed detection", "false alarm", "confusion")]
    overlap = "left out" if skip_overlap else "scored"
    rate = parts["diarization error rate"]
    return f"collar ±{total_collar_s / 2:.3f} s, overlap {overlap}: DER {rate:.3f} ({', '.join(shares)})"


if __name__ == "__main__":
    main()
