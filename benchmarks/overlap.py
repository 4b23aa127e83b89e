"""How much of the possible overlap a diarization marks is overlap, and how much overlap it marks.

    python -m benchmarks.overlap --data DIR --models DIR

DIR of the data holds a folder of WAV files for each voice (Debian's asterisk-core-sounds-*-wav, unpacked: professional
speakers, one a language, so that voices differ more than in a call of one language). Conversations are spliced from
them: at a change of speaker the next one begins 0.1 to 0.6 s after the end, or, in two of five, 0.2 to 1 s before it;
one turn in four gets a short interjection by the other voice on top of it. The threshold was chosen on the pairs of the
first three voices; the figures are of the other pairs, and of the sample call, whose reference is real.

A point in time counts when two speak by the reference; precision and recall are shares of such time. The interval is a
bootstrap over conversations; that of the sample call's error rates, which is one conversation, a bootstrap over its
blocks of 2 s: it tells how much they hang on single moments of this call, nothing of other calls.
"""

import argparse
import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import soundfile
import soxr
from pyannote.core import Annotation, Segment, Timeline
from pyannote.metrics.diarization import DiarizationErrorRate
from pyannote.metrics.identification import IdentificationErrorRate

from benchmarks.diarization import annotation, der, read_rttm, read_wav
from benchmarks.report import Figure, figure, save
from benchmarks.resampling import interval
from neuroedge.contract.models import SAMPLE_RATE_HZ, Floats, SpeakerEncoder, VoiceActivity
from neuroedge.engines.speech.diarization import who_spoke
from neuroedge.kit.diarization import Diarized
from neuroedge.runtimes import silero, speaker
from neuroedge.settings import default_data_dir

TURNS = 14
SEED = 6
DEV_VOICES = 3
STEP_S = 0.01
BLOCK_S = 2.0
Stretch = tuple[float, float, str]


@dataclass(frozen=True)
class Conversation:
    """A waveform, and who speaks when in it."""

    samples: Floats
    spoken: list[Stretch]


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder for each voice")
    parser.add_argument("--models", type=Path, default=default_data_dir() / "models")
    parser.add_argument("--each", type=int, default=2, help="conversations of each pair of voices")
    parser.add_argument("--dev", action="store_true", help="the pairs the threshold was chosen on; nothing is saved")
    given = parser.parse_args()
    voice = silero.load("silero-vad", given.models / "silero-vad", threads=1, options={})
    encoder = speaker.load("resemblyzer-ge2e", given.models / "resemblyzer-ge2e", threads=2, options={})
    names = sorted(path.name for path in given.data.iterdir() if path.is_dir() and len(list(path.glob("*.wav"))) > 50)
    dev = set(combinations(names[:DEV_VOICES], 2))
    pairs = sorted(dev) if given.dev else [pair for pair in combinations(names, 2) if pair not in dev]
    conversations = [
        converse([given.data / name for name in pair], seed=SEED + 100 * number + 7 * i)
        for number, pair in enumerate(pairs)
        for i in range(given.each)
    ]
    found = [diarize(c.samples, voice, encoder) for c in conversations]
    sample = given.models / "sample-call"
    reference = [(s.start, s.end, str(label)) for s, _, label in read_rttm(sample / "sample.rttm").itertracks(True)]
    call = Conversation(read_wav(sample / "sample.wav"), reference)
    call_found = diarize(call.samples, voice, encoder)
    voice.close()
    encoder.close()
    figures = [
        *scores("spliced conversations", conversations, found),
        *scores("the sample call", [call], [call_found]),
        *rates(call, call_found),
    ]
    for one in figures:
        print(f"{one.name}: {one.median} ({one.low} to {one.high})")
    if not given.dev:
        save(
            "overlap",
            figures,
            title="Possible overlap in diarization",
            command="python -m benchmarks.overlap --data DIR",
        )


def diarize(samples: Floats, voice: VoiceActivity, encoder: SpeakerEncoder) -> Diarized:
    """Turns and possible overlaps, the number of speakers not told."""
    return asyncio.run(who_spoke(samples, voice, encoder))[0]


def converse(voices: Sequence[Path], *, seed: int, turns: int = TURNS) -> Conversation:
    """Two voices in turn, with gaps, overlaps and interjections."""
    chance = random.Random(seed)
    at_s, end_s = 0.5, 0.5
    placed: list[tuple[float, Floats, str]] = []
    for turn in range(turns):
        speaking, other = voices[turn % 2], voices[(turn + 1) % 2]
        early = turn > 0 and chance.random() < 0.4
        at_s = max(0.0, end_s - chance.uniform(0.2, 1.0)) if early else end_s + chance.uniform(0.1, 0.6)
        begun_s, wanted_s = at_s, chance.uniform(1.5, 6.0)
        while at_s - begun_s < wanted_s:
            clip = clip_of(speaking, chance, longest_s=8.0)
            placed.append((at_s, clip, speaking.name))
            at_s += len(clip) / SAMPLE_RATE_HZ + chance.uniform(0.05, 0.3)
            end_s = placed[-1][0] + len(clip) / SAMPLE_RATE_HZ
        if chance.random() < 0.25 and end_s - begun_s > 2.5:
            short = clip_of(other, chance, longest_s=1.0)
            placed.append((chance.uniform(begun_s + 0.8, end_s - 1.2), short, other.name))
    samples = np.zeros(int((max(a + len(c) / SAMPLE_RATE_HZ for a, c, _ in placed) + 0.5) * SAMPLE_RATE_HZ), np.float32)
    samples += np.random.default_rng(seed).normal(0, 3e-4, len(samples)).astype(np.float32)
    spoken = []
    for start_s, clip, name in placed:
        first = int(start_s * SAMPLE_RATE_HZ)
        samples[first : first + len(clip)] += clip
        spoken.append((start_s, start_s + len(clip) / SAMPLE_RATE_HZ, name))
    return Conversation(samples, spoken)


def clip_of(folder: Path, chance: random.Random, *, longest_s: float) -> Floats:
    """A prompt of the voice without the silence at its ends, at a mean power of -26 dB of full scale."""
    while True:
        path = chance.choice(sorted(folder.glob("*.wav")))
        read, rate_hz = soundfile.read(path, dtype="float32")
        samples = soxr.resample(read, rate_hz, SAMPLE_RATE_HZ).astype(np.float32)
        loud = np.flatnonzero(np.abs(samples) > 0.03 * np.abs(samples).max()) if len(samples) else np.zeros(0, int)
        if len(loud) < 0.3 * SAMPLE_RATE_HZ:
            continue
        samples = samples[loud[0] : loud[-1] + 1]
        if 0.3 * SAMPLE_RATE_HZ <= len(samples) <= longest_s * SAMPLE_RATE_HZ:
            return np.asarray(samples * (0.05 / np.sqrt(np.mean(samples**2))), np.float32)


def masks(conversation: Conversation, found: Diarized) -> tuple[Floats, Floats]:
    """Where two speak by the reference, and where they may by the answer, every 10 ms."""
    count = int(len(conversation.samples) / SAMPLE_RATE_HZ / STEP_S)
    by_speaker: dict[str, Floats] = {}
    for start_s, end_s, name in conversation.spoken:
        by_speaker.setdefault(name, np.zeros(count, np.float32))[int(start_s / STEP_S) : int(end_s / STEP_S)] = 1
    truth = (np.sum(list(by_speaker.values()), axis=0) > 1).astype(np.float32)
    marked = np.zeros(count, np.float32)
    for overlap in found.overlaps:
        marked[int(overlap.start_s / STEP_S) : int(overlap.end_s / STEP_S)] = 1
    return truth, marked


def scores(name: str, conversations: Sequence[Conversation], found: Sequence[Diarized]) -> list[Figure]:
    """Precision, recall and the share of overlap, with bootstrap intervals where there are several."""
    counts = []
    for conversation, answer in zip(conversations, found, strict=True):
        truth, marked = masks(conversation, answer)
        counts.append((float((truth * marked).sum()), float(marked.sum()), float(truth.sum()), float(len(truth))))
    table = np.array(counts)
    figures = []
    for what, top, bottom in (("precision", 0, 1), ("recall", 0, 2), ("share of time in overlap", 2, 3)):
        parts = table[:, [top, bottom]]
        low, high = interval(len(table), lambda rows, parts=parts: _share(parts[rows]))  # type: ignore[misc]
        figures.append(
            Figure(
                name=f"{what}, {name}",
                unit="",
                median=round(_share(parts), 3),
                low=round(low, 3),
                high=round(high, 3),
                runs=len(table),
                note="low and high: 95 % bootstrap interval over conversations" if len(table) > 1 else "",
            )
        )
    return figures


def _share(parts: Floats) -> float:
    """The sum of the first column by that of the second."""
    top, bottom = parts.sum(axis=0)
    return float(top / max(bottom, 1e-9))


def block_errors(reference: Annotation, answer: Annotation, *, total_collar_s: float) -> Floats:
    """Seconds of error and of reference in each block of BLOCK_S, speakers matched once over the whole; [n, 2].

    Blocks where nobody is to be heard and nobody is answered are in it, with zeros.
    """
    end_s = max(segment.end for part in (reference, answer) for segment in part.itersegments())
    diarization = DiarizationErrorRate()
    kept = diarization.uemify(reference, answer, uem=Timeline([Segment(0, end_s)]), collar=total_collar_s)
    matched = diarization.optimal_mapping(*kept)
    # A speaker without a match keeps a name that the reference does not have.
    named = answer.rename_labels({label: matched.get(label, f"no match {label}") for label in answer.labels()})
    metric = IdentificationErrorRate(collar=total_collar_s)
    rows = []
    for start_s in np.arange(0, end_s, BLOCK_S):
        block = Timeline([Segment(start_s, min(start_s + BLOCK_S, end_s))])
        parts = metric.compute_components(reference, named, uem=block)
        rows.append((parts["missed detection"] + parts["false alarm"] + parts["confusion"], parts["total"]))
    return np.array(rows)


def _rated(name: str, reference: Annotation, answer: Annotation, *, total_collar_s: float) -> Figure:
    """An error rate of the sample call; the interval stands in its note."""
    blocks = block_errors(reference, answer, total_collar_s=total_collar_s)
    low, high = interval(len(blocks), lambda rows: _share(blocks[rows]))
    note = f"95 % {low:.3f} to {high:.3f} by bootstrap over the call's n = {len(blocks)} blocks of {BLOCK_S:g} s"
    return figure(
        name,
        "",
        [der(reference, answer, total_collar_s=total_collar_s)],
        at_most=0.20 if total_collar_s else None,
        note=note,
    )


def rates(call: Conversation, found: Diarized) -> list[Figure]:
    """DER of the sample call as it is answered, and with the second speaker put in where overlap is possible."""
    turns = [(turn.start_s, turn.end_s, turn.speaker) for turn in found.turns]
    both = list(turns)
    for overlap in found.overlaps:
        for start_s, end_s, name in turns:
            first, last = max(start_s, overlap.start_s), min(end_s, overlap.end_s)
            if last > first:
                both += [(first, last, other) for other in overlap.speakers if other != name]
    reference = annotation(call.spoken)
    alone, together = annotation(turns), annotation(both)
    return [
        _rated("DER of the sample call, 0.25 s collar, overlap scored", reference, alone, total_collar_s=0.5),
        _rated("DER of the sample call, no collar", reference, alone, total_collar_s=0.0),
        _rated("the same with both speakers where overlap is possible", reference, together, total_collar_s=0.0),
    ]


if __name__ == "__main__":
    main()
