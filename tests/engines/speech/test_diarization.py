"""The diarization engine: the real call by the real models, and its contract without them."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from pydantic import ValidationError

from neuroedge.contract.engine import EngineContext
from neuroedge.contract.errors import ModelUnavailable
from neuroedge.contract.models import Floats, Span
from neuroedge.contract.ports import AudioSource
from neuroedge.engines.speech.diarization import Diarization, Input, Output, WordTimes
from neuroedge.runtimes import silero, speaker
from tests.conftest import SampleCall
from tests.fakes import FakeMedia, RecordedProgress, make_context

AUDIO = AudioSource(blob="call.wav")


class _Spans:
    """Voice activity that was told where the speech is."""

    model_id = "told"

    def __init__(self, *spans: tuple[float, float]) -> None:
        self._spans = [Span(start_s=start, end_s=end) for start, end in spans]

    async def speech(self, samples: Floats) -> list[Span]:
        """The spans it was given."""
        return self._spans


class _Pitch:
    """Encodes a constant waveform by its level: two levels, two directions."""

    model_id = "level"
    dim = 4

    async def encode(self, windows: Sequence[Floats]) -> Floats:
        """Share of high and of low samples, as a unit vector."""
        high = np.array([np.mean(window > 0.5) for window in windows])
        vectors = np.stack([high, 1 - high, 0 * high, 0 * high], axis=1).astype(np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _context(samples: Floats, voice: Any, encoder: Any, progress: RecordedProgress | None = None) -> EngineContext:
    return make_context(
        models={"voice_activity": voice, "speaker_embedding": encoder}, media=FakeMedia(samples), progress=progress
    )


def _two_levels() -> Floats:
    return np.repeat(np.array([1.0, 0.1, 1.0], np.float32), 5 * 16_000)


async def _run(payload: Input, ctx: EngineContext) -> Output:
    return await Diarization(probe=ctx).run(payload, ctx)


@pytest.mark.anyio
async def test_turns_follow_the_voices() -> None:
    """Two voices in three turns, with the models that answered and the progress on the way."""
    progress = RecordedProgress()
    ctx = _context(_two_levels(), _Spans((0.0, 15.0)), _Pitch(), progress)
    answer = await _run(Input(audio=AUDIO), ctx)
    assert [turn.speaker for turn in answer.turns] == ["S1", "S2", "S1"]
    assert [turn.end_s for turn in answer.turns] == pytest.approx([5, 10, 15], abs=0.3)
    assert (answer.num_speakers, answer.speech_s, answer.models) == (2, 15.0, ["told", "level"])
    assert progress.reports[-1] == ("diarization", 1.0)
    assert any("each moment has one speaker" in note for note in answer.notes)


@pytest.mark.anyio
async def test_words_keep_their_speaker_whole() -> None:
    """A change of speaker that falls into a word moves to the word's edge."""
    ctx = _context(_two_levels(), _Spans((0.0, 15.0)), _Pitch())
    plain = await _run(Input(audio=AUDIO), ctx)
    cut_s = plain.turns[0].end_s
    word = WordTimes(w="hello", start_s=cut_s - 0.1, end_s=cut_s + 0.25)
    snapped = await _run(Input(audio=AUDIO, words=[word]), ctx)
    assert snapped.turns[0].end_s == snapped.turns[1].start_s == pytest.approx(cut_s - 0.1, abs=0.002)


@pytest.mark.anyio
async def test_a_given_number_of_speakers_wins() -> None:
    """One speaker when told so; a note when more were asked for than can be told apart."""
    ctx = _context(_two_levels(), _Spans((0.0, 15.0)), _Pitch())
    assert (await _run(Input(audio=AUDIO, num_speakers=1), ctx)).num_speakers == 1
    short = _context(_two_levels(), _Spans((0.0, 1.0)), _Pitch())
    answer = await _run(Input(audio=AUDIO, num_speakers=3), short)
    assert answer.num_speakers == 1
    assert any("too little speech" in note for note in answer.notes)


@pytest.mark.anyio
async def test_silence_has_no_speakers() -> None:
    """Nobody speaks: no turns, and the answer says so."""
    answer = await _run(Input(audio=AUDIO), _context(np.zeros(16_000, np.float32), _Spans(), _Pitch()))
    assert (answer.turns, answer.num_speakers, answer.speech_s) == ([], 0, 0.0)
    assert answer.notes == ["Nobody speaks in this recording."]


@pytest.mark.parametrize(
    "bad",
    [
        {},
        {"audio": {}},
        {"audio": {"blob": "a", "base64": "b"}},
        {"audio": {"blob": "a"}, "min_speakers": 3, "max_speakers": 2},
        {"audio": {"blob": "a"}, "num_speakers": 0},
        {"audio": {"blob": "a"}, "max_speakers": 1000},
        {"audio": {"blob": "a"}, "words": [{"w": "a", "start_s": -1, "end_s": 2}]},
        {"audio": {"blob": "a"}, "speakers": 2},
    ],
)
def test_bad_input_is_refused(bad: dict[str, Any]) -> None:
    """Contradictions, impossible numbers and unknown fields."""
    with pytest.raises(ValidationError):
        Input.model_validate(bad)


@pytest.mark.anyio
async def test_without_models_it_is_unavailable() -> None:
    """Health says which model is missing, and a call fails with the remedy."""
    ctx = make_context()
    engine = Diarization(probe=ctx)
    assert (await engine.health()).status == "unavailable"
    with pytest.raises(ModelUnavailable):
        await engine.run(Input(audio=AUDIO), ctx)


@pytest.mark.anyio
async def test_an_encoder_without_unit_vectors_fails_the_self_test() -> None:
    """What a broken reload would give must not go live."""

    class Broken(_Pitch):
        async def encode(self, windows: Sequence[Floats]) -> Floats:
            return np.full((len(windows), self.dim), np.nan, np.float32)

    await Diarization(probe=_context(np.zeros(16_000, np.float32), _Spans(), _Pitch())).post_swap_test()
    with pytest.raises(ModelUnavailable):
        await Diarization(probe=_context(np.zeros(16_000, np.float32), _Spans(), Broken())).post_swap_test()


@pytest.fixture
def real_models(models_dir: Path) -> Iterator[dict[str, Any]]:
    """Silero and the GE2E encoder."""
    voice = silero.load("silero-vad", models_dir / "silero-vad", threads=1, options={})
    encoder = speaker.load("resemblyzer-ge2e", models_dir / "resemblyzer-ge2e", threads=2, options={})
    yield {"voice_activity": voice, "speaker_embedding": encoder}
    voice.close()
    encoder.close()


def _error_rate(answer: Output, rttm: Path, *, total_collar_s: float) -> float:
    from pyannote.core import Annotation, Segment, Timeline
    from pyannote.metrics.diarization import DiarizationErrorRate

    reference, found = Annotation(), Annotation()
    for track, row in enumerate(line.split() for line in rttm.read_text().splitlines()):
        reference[Segment(float(row[3]), float(row[3]) + float(row[4])), track] = row[7]
    for track, turn in enumerate(answer.turns):
        found[Segment(turn.start_s, turn.end_s), track] = turn.speaker
    metric = DiarizationErrorRate(collar=total_collar_s)
    return float(metric(reference, found, uem=Timeline([Segment(0, 30)])))


@pytest.mark.models
@pytest.mark.anyio
async def test_the_real_call_is_diarized(sample_call: SampleCall, real_models: dict[str, Any]) -> None:
    """Two speakers; DER at most 0.20 without any collar, so also with ±0.25 s (pyannote's total width 0.5)."""
    samples, _ = soundfile.read(sample_call.wav, dtype="float32")
    answer = await _run(Input(audio=AUDIO), make_context(models=real_models, media=FakeMedia(samples)))
    assert answer.num_speakers == 2
    assert _error_rate(answer, sample_call.rttm, total_collar_s=0.0) <= 0.20
    assert _error_rate(answer, sample_call.rttm, total_collar_s=0.5) <= 0.10
    assert all(before.end_s <= after.start_s for before, after in pairwise(answer.turns))


@pytest.mark.models
@pytest.mark.anyio
async def test_each_speaker_of_the_call_alone_is_one_speaker(
    sample_call: SampleCall, real_models: dict[str, Any]
) -> None:
    """The stretches where only one of them speaks, one after the other."""
    samples, _ = soundfile.read(sample_call.wav, dtype="float32")
    rows = [line.split() for line in sample_call.rttm.read_text().splitlines()]
    for name in ("speaker90", "speaker91"):
        mine, other = np.zeros(len(samples), bool), np.zeros(len(samples), bool)
        for row in rows:
            start, end = float(row[3]), float(row[3]) + float(row[4])
            (mine if row[7] == name else other)[int(start * 16_000) : int(end * 16_000)] = True
        alone = FakeMedia(samples[mine & ~other])
        assert (await _run(Input(audio=AUDIO), make_context(models=real_models, media=alone))).num_speakers == 1
