"""Whether diarization finds the right number of speakers, whatever the length and level of a recording.

    python -m benchmarks.speaker_count --data DIR --models DIR

DIR of the data holds a folder of WAV files for each voice, named as in CHOSEN_ON (Debian's asterisk-core-sounds-*-wav
and asterisk-prompt-it-menardi-wav, unpacked) and others: asterisk-prompt-es-co, asterisk-prompt-fr-armelle and the
Ukrainian and Catalan of ktuberling-data, decoded to WAV. Conversations are spliced from them: one voice alone for three
minutes, two voices for one minute and for four (with overlaps and interjections), three for three; and the sample call,
twelve times over with pauses between. Of each there is one as it is and one whose gain changes every 4 to 15 s by up to
20 dB. The constants were chosen on the voices of CHOSEN_ON and on the call; the figures are of the other voices, and,
by itself, of the call. The baseline is the criterion without a cosine (Tuning.same_cosine 1): the cost of a union
alone, which grows with the length. Intervals are Wilson's.
"""

import argparse
import asyncio
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
from scipy.stats import binomtest

from benchmarks.diarization import annotation, der, read_rttm, read_wav
from benchmarks.overlap import SEED, Conversation, Stretch, clip_of, converse
from benchmarks.report import Figure, figure, save
from neuroedge.contract.models import SAMPLE_RATE_HZ, Floats, SpeakerEncoder, VoiceActivity
from neuroedge.kit.diarization import DEFAULT, Tuning, cut, find_turns, sliding_windows
from neuroedge.runtimes import silero, speaker
from neuroedge.settings import default_data_dir

CHOSEN_ON = (
    "en_US_f_Allison",
    "es_MX_f_Allison",
    "fr_CA_f_June",
    "it_IT_f_Menardi",
    "it_IT_m_Carlo",
    "ru_RU_f_IvrvoiceRU",
)
THE_CALL = "the call repeated"
SHORT_TURNS, LONG_TURNS = 14, 40
CALLS = 12
_SOFTEST = 0.1
_BASELINE = replace(DEFAULT, same_cosine=1.0)


@dataclass(frozen=True)
class Judged:
    """What came out for one conversation."""

    kind: str
    right: bool
    right_by_cost: bool
    error_rate: float


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder for each voice")
    parser.add_argument("--models", type=Path, default=default_data_dir() / "models")
    parser.add_argument("--dev", action="store_true", help="the voices the constants were chosen on; nothing is saved")
    given = parser.parse_args()
    voice = silero.load("silero-vad", given.models / "silero-vad", threads=1, options={})
    encoder = speaker.load("resemblyzer-ge2e", given.models / "resemblyzer-ge2e", threads=2, options={})
    names = sorted(path.name for path in given.data.iterdir() if path.is_dir() and len(list(path.glob("*.wav"))) > 50)
    voices = [given.data / name for name in names if (name in CHOSEN_ON) is given.dev]
    judged = [
        asyncio.run(judge(kind, conversation, voice, encoder))
        for kind, plain in [*conversations(voices), (THE_CALL, call_again(given.models / "sample-call"))]
        for conversation in (plain, Conversation(changing_level(plain.samples), plain.spoken))
    ]
    voice.close()
    encoder.close()
    figures = [*_shares(judged), *_rates(judged)]
    for one in figures:
        print(f"{one.name}: {one.median} ({one.low} to {one.high}), n = {one.runs}")
    if not given.dev:
        command = "python -m benchmarks.speaker_count --data DIR"
        save("speaker_count", figures, title="The number of speakers in diarization", command=command)


def conversations(voices: list[Path]) -> Iterator[tuple[str, Conversation]]:
    """What is spliced from the voices, by kind."""
    for number, own in enumerate(voices):
        yield "one voice", in_turn([own], seed=SEED + number)
    for number, pair in enumerate(combinations(voices, 2)):
        yield "two voices, a minute", converse(pair, seed=SEED + 100 + number, turns=SHORT_TURNS)
        yield "two voices, four minutes", converse(pair, seed=SEED + 200 + number, turns=LONG_TURNS)
    for number, three in enumerate(combinations(voices, 3)):
        yield "three voices", in_turn(list(three), seed=SEED + 300 + number)


def in_turn(voices: list[Path], *, seed: int) -> Conversation:
    """Voices in any order, with short pauses, never two at once."""
    chance = random.Random(seed)
    at_s, placed, last = 0.5, list[tuple[float, Floats, str]](), None
    for _ in range(30):
        last = chance.choice([voice for voice in voices if voice != last] or voices)
        until_s = at_s + chance.uniform(1.5, 6.0)
        while at_s < until_s:
            clip = clip_of(last, chance, longest_s=8.0)
            placed.append((at_s, clip, last.name))
            at_s += len(clip) / SAMPLE_RATE_HZ + chance.uniform(0.05, 0.3)
        at_s += chance.uniform(0.1, 0.5)
    noise = np.random.default_rng(seed).normal(0, 3e-4, int((at_s + 0.5) * SAMPLE_RATE_HZ))
    samples = noise.astype(np.float32)
    for start_s, clip, _ in placed:
        first = int(start_s * SAMPLE_RATE_HZ)
        samples[first : first + len(clip)] += clip
    return Conversation(samples, [(start, start + len(clip) / SAMPLE_RATE_HZ, name) for start, clip, name in placed])


def call_again(folder: Path) -> Conversation:
    """The sample call again and again, with pauses of 0.2 to 3 s."""
    samples = read_wav(folder / "sample.wav")
    reference = [(s.start, s.end, str(label)) for s, _, label in read_rttm(folder / "sample.rttm").itertracks(True)]
    chance = np.random.default_rng(SEED)
    pieces, spoken, at = list[Floats](), list[Stretch](), 0
    for _ in range(CALLS):
        pause = chance.normal(0, 1e-4, int(chance.uniform(0.2, 3) * SAMPLE_RATE_HZ)).astype(np.float32)
        pieces += [samples, pause]
        spoken += [(a + at / SAMPLE_RATE_HZ, b + at / SAMPLE_RATE_HZ, name) for a, b, name in reference]
        at += len(samples) + len(pause)
    return Conversation(np.concatenate(pieces), spoken)


def changing_level(samples: Floats) -> Floats:
    """The same at a gain that is drawn anew every 4 to 15 s, from 0 down to -20 dB."""
    chance = np.random.default_rng(SEED)
    gains, at = np.empty(len(samples), np.float32), 0
    while at < len(samples):
        length = int(chance.uniform(4, 15) * SAMPLE_RATE_HZ)
        gains[at : at + length] = np.exp(chance.uniform(np.log(_SOFTEST), 0))
        at += length
    return samples * gains


async def judge(kind: str, conversation: Conversation, voice: VoiceActivity, encoder: SpeakerEncoder) -> Judged:
    """Diarize with the constants as they are, and by the baseline."""
    spans = [(span.start_s, span.end_s) for span in await voice.speech(conversation.samples)]
    windows = sliding_windows(spans)
    pieces = cut(conversation.samples, windows, rate_hz=SAMPLE_RATE_HZ)
    vectors = np.concatenate([await encoder.encode(pieces[i : i + 128]) for i in range(0, len(pieces), 128)])
    speakers = len({name for *_, name in conversation.spoken})

    def turns(tuning: Tuning) -> list[Stretch]:
        found = find_turns(vectors, windows, spans, tuning=tuning)
        return [(turn.start_s, turn.end_s, turn.speaker) for turn in found]

    own, by_cost = turns(DEFAULT), turns(_BASELINE)
    return Judged(
        kind=kind,
        right=len({name for *_, name in own}) == speakers,
        right_by_cost=len({name for *_, name in by_cost}) == speakers,
        error_rate=der(annotation(conversation.spoken), annotation(own), total_collar_s=0.5),
    )


def _shares(judged: list[Judged]) -> list[Figure]:
    kinds = dict.fromkeys(one.kind for one in judged)
    spliced = [one for one in judged if one.kind != THE_CALL]
    return [
        _share("right number of speakers", [one.right for one in spliced], at_least=0.9),
        _share("the same by the cost of a union alone", [one.right_by_cost for one in spliced], note="baseline"),
        *(_share(f"right number, {kind}", [one.right for one in judged if one.kind == kind]) for kind in kinds),
    ]


def _share(name: str, right: list[bool], *, at_least: float | None = None, note: str = "") -> Figure:
    low, high = binomtest(sum(right), len(right)).proportion_ci(method="wilson")
    one = figure(name, "", [sum(right) / len(right)], at_least=at_least, note=note or "95 % interval")
    return replace(one, low=round(low, 3), high=round(high, 3), runs=len(right))


def _rates(judged: list[Judged]) -> list[Figure]:
    kinds = dict.fromkeys(one.kind for one in judged)
    name = "DER, 0.25 s collar, overlap scored"
    return [figure(f"{name}, {kind}", "", [one.error_rate for one in judged if one.kind == kind]) for kind in kinds]


if __name__ == "__main__":
    main()
