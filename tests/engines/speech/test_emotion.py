"""The emotion engine: words and voice kept apart, what it abstains from, and the shipped head on plain sentences."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import soundfile
from pydantic import ValidationError

from neuroedge.contract.engine import EngineContext
from neuroedge.contract.errors import InvalidInput, ModelUnavailable
from neuroedge.contract.models import Embeddings, Floats
from neuroedge.contract.ports import AudioSource, NothingAllowed
from neuroedge.engines.speech.emotion import Emotion, Input, Output, SpokenSegment
from neuroedge.runtimes import text_classifier, text_encoder
from tests.conftest import SampleCall
from tests.fakes import FakeMedia, RecordedProgress, make_context

AUDIO = AudioSource(blob="call.wav")
LABELS = ("joy", "anger", "neutral", "ekman:joy", "ekman:anger", "ekman:neutral")


class _Allowed:
    """An organisation that has allowed everything."""

    async def allowed(self, name: str) -> bool:
        """Always."""
        return True


class _Encoder:
    """The text's own numbers as its vector, so that a test writes the probabilities it wants."""

    model_id = "numbers"
    dim = 6
    max_tokens = 8

    def __init__(self) -> None:
        self.batches: list[int] = []

    async def encode(self, texts: Sequence[str], *, kind: Literal["query", "passage"] = "passage") -> Embeddings:
        """One vector a text."""
        self.batches.append(len(texts))
        vectors = np.array([[float(x) for x in t.split()[:6]] for t in texts], np.float32)
        return Embeddings(vectors=vectors, tokens=[len(t.split()) for t in texts])


class _VectorHead:
    """Says the vectors as probabilities."""

    model_id = "vector-head"
    labels = LABELS
    thresholds = np.array([0.3, 0.3, 0.3, 0.4, 0.4, 0.4], np.float32)

    async def predict(self, vectors: Floats) -> Floats:
        """The vectors."""
        return vectors


class _TextHead(_VectorHead):
    """Also abstains, and is bound to an encoder."""

    model_id = "text-head"
    embedding_model = "numbers"
    abstain_below = 0.5

    async def predict_texts(self, vectors: Floats, texts: Sequence[str]) -> Floats:
        """The vectors."""
        assert len(texts) == len(vectors)
        return vectors


def _context(*, head: Any = None, samples: Floats | None = None, encoder: Any = None, **more: Any) -> EngineContext:
    models = {"text_embedding": encoder or _Encoder(), "emotion_text": head or _TextHead()}
    return replace(make_context(models=models, media=FakeMedia(samples), **more), switches=_Allowed())


async def _run(ctx: EngineContext, *texts: str, **fields: Any) -> Output:
    segments = [SpokenSegment(text=t) for t in texts]
    return await Emotion(probe=ctx).run(Input(segments=segments, **fields), ctx)


def _voice(*, f0_hz: float, level: float, seconds: float = 2.0) -> Floats:
    t = np.arange(round(seconds * 16_000)) / 16_000
    return np.asarray(level * sum(np.sin(2 * np.pi * k * f0_hz * t) / k for k in range(1, 9)), np.float32)


@pytest.mark.anyio
async def test_labels_over_their_thresholds_come_best_first_with_their_groups_apart() -> None:
    """The head's grouped outputs are answered without their prefix."""
    answer = (await _run(_context(), "0.4 0.7 0.1 0.45 0.8 0.1")).segments[0]
    assert [(x.label, x.p) for x in answer.labels] == [("anger", 0.7), ("joy", 0.4)]
    assert [(x.label, x.p) for x in answer.ekman] == [("anger", 0.8), ("joy", 0.45)]
    assert not answer.abstained
    assert answer.reason is None


@pytest.mark.anyio
async def test_unclear_words_are_abstained_from() -> None:
    """Below the head's level nothing is said, though labels are over their thresholds."""
    answer = (await _run(_context(), "0.4 0.35 0.1 0.45 0.4 0.1")).segments[0]
    assert answer.abstained
    assert "0.45 is below 0.50" in (answer.reason or "")
    assert answer.labels == answer.ekman == []


@pytest.mark.anyio
async def test_nothing_over_a_threshold_is_an_abstention_too() -> None:
    """A head without a level abstains by its thresholds."""
    output = await _run(_context(head=_VectorHead()), "0.1 0.1 0.1 0.1 0.1 0.1")
    assert output.segments[0].reason == "no emotion reaches its threshold"
    assert output.text_method == "vector-head"


@pytest.mark.anyio
@pytest.mark.parametrize("text", ["", "   ", "0.9", "... !!! 1"])
async def test_fewer_than_two_words_are_not_judged(text: str) -> None:
    """And the models are not asked for: none is needed."""
    ctx = make_context(models={})
    output = await _run(ctx, text)
    assert output.segments[0].reason == "fewer than 2 words"
    assert (output.text_method, output.models) == ("none", [])


@pytest.mark.anyio
async def test_words_of_another_language_are_not_judged() -> None:
    """The head learnt English; regional English is English."""
    text = "0.4 0.7 0.1 0.45 0.8 0.1"
    assert "not 'de'" in str((await _run(_context(), text, language="de")).segments[0].reason)
    assert not (await _run(_context(), text, language="en-GB")).segments[0].abstained


@pytest.mark.anyio
async def test_at_most_five_labels_are_given() -> None:
    """Six labels over their thresholds."""
    head = _TextHead()
    head.labels = tuple("abcdef")
    answer = (await _run(_context(head=head), "0.9 0.8 0.7 0.6 0.5 0.55")).segments[0]
    assert [x.label for x in answer.labels] == ["a", "b", "c", "d", "f"]


@pytest.mark.anyio
async def test_many_segments_go_in_batches_and_come_back_in_order() -> None:
    """300 segments, some of them not judged; progress ends at 1."""
    encoder, progress = _Encoder(), RecordedProgress()
    texts = ["yes" if i % 7 == 0 else f"0.{i % 4 + 5} 0 0 0 0 0" for i in range(300)]
    output = await _run(_context(encoder=encoder, progress=progress), *texts)
    assert max(encoder.batches) <= 128
    assert sum(encoder.batches) == sum(t != "yes" for t in texts)
    for text, segment in zip(texts, output.segments, strict=True):
        assert segment.abstained if text == "yes" else segment.labels[0].p == pytest.approx(float(text[:3]), abs=1e-3)
    assert progress.reports[-1] == ("emotion", 1.0)


@pytest.mark.anyio
async def test_a_cut_text_is_marked() -> None:
    """The encoder reads eight tokens only."""
    output = await _run(_context(), "0.9 0 0 0 0 0", "0.9 0 0 0 0 0 and so on", "0.1 0 0 0 0 0 and so on")
    assert [s.truncated for s in output.segments] == [False, True, True]


@pytest.mark.anyio
async def test_the_whole_is_summed_up_over_the_answered_segments() -> None:
    """Shares and mean probabilities leave the abstained segment out."""
    output = await _run(_context(), "0.9 0 0 0.9 0 0", "0.7 0.5 0 0.6 0 0", "0.1 0.1 0.1 0.1 0.1 0.1")
    assert [(e.label, e.score) for e in output.emotions] == [("joy", 0.8), ("anger", 0.25)]
    assert (output.summary.segments, output.summary.abstained) == (3, 1)
    assert output.summary.labels == {"joy": 1.0, "anger": 0.5}
    assert output.summary.ekman == {"joy": 1.0}


@pytest.mark.anyio
async def test_a_head_for_another_encoder_is_refused() -> None:
    """Same width, other vectors: plausible nonsense, so an error with the remedy."""
    head = _TextHead()
    head.embedding_model = "another"
    with pytest.raises(ModelUnavailable, match="trained on vectors of another") as error:
        await _run(_context(head=head), "0.9 0 0 0 0 0")
    assert "text_embedding" in (error.value.hint or "")


@pytest.mark.anyio
async def test_a_missing_model_is_reported() -> None:
    """Words to judge and no head."""
    with pytest.raises(ModelUnavailable):
        await _run(make_context(models={"text_embedding": _Encoder()}), "0.9 0 0 0 0 0")


@pytest.mark.anyio
async def test_the_voice_is_judged_apart_from_the_words() -> None:
    """One loud high segment among calm ones; all words abstained from."""
    calm = [_voice(f0_hz=110 + i, level=0.05) for i in range(4)]
    ctx = _context(samples=np.concatenate([*calm, _voice(f0_hz=200, level=0.4)]))
    spoken = [SpokenSegment(text="", start_s=2.0 * i, end_s=2.0 * (i + 1), speaker="A") for i in range(5)]
    output = await Emotion(probe=ctx).run(Input(segments=spoken, audio=AUDIO), ctx)
    arousals = [s.arousal for s in output.segments]
    assert arousals[4] is not None
    assert arousals[4] > 0.5
    assert all(a is not None and abs(a) < 0.4 for a in arousals[:4])
    assert all(s.abstained and s.valence is None and s.valence_reason for s in output.segments)
    assert not output.segments[4].arousal_uncertain
    assert (output.voice_method, output.summary.arousal_segments) == ("prosody-vs-own-baseline", 5)


@pytest.mark.anyio
async def test_the_voice_is_not_judged_unless_the_organisation_allows_it() -> None:
    """Off by default: the words are answered, the audio is not even decoded, and the answer says how to allow it."""
    ctx = replace(_context(), switches=NothingAllowed(), media=None)
    spoken = [SpokenSegment(text="0.9 0 0 0 0 0", start_s=0, end_s=2, speaker="A")]
    output = await Emotion(probe=ctx).run(Input(segments=spoken, audio=AUDIO), ctx)
    assert output.segments[0].labels[0].label == "joy"
    assert output.segments[0].arousal is None
    assert "switched off; an administrator can allow it with a purpose" in (output.segments[0].arousal_reason or "")
    assert output.voice_method == "none"
    assert "switched off" in output.notes[0]


@pytest.mark.anyio
async def test_valence_is_that_of_the_words_and_never_of_the_voice() -> None:
    """Joy less anger; none where the words are abstained from."""
    output = await _run(_context(), "0.9 0.2 0 0 0 0", "0.1 0.8 0 0 0 0", "0.1 0.1 0.1 0.1 0.1 0.1")
    assert [s.words_valence for s in output.segments] == [pytest.approx(0.7), pytest.approx(-0.7), None]
    assert [s.words_uncertain for s in output.segments] == [False, False, True]
    assert all(s.valence is None for s in output.segments)


@pytest.mark.anyio
async def test_without_audio_times_or_speaker_there_is_no_arousal_but_a_reason() -> None:
    """Each missing piece is named."""
    output = await _run(_context(), "0.9 0 0 0 0 0")
    assert (output.segments[0].arousal, output.segments[0].arousal_reason) == (None, "no audio given")
    assert output.voice_method == "none"
    ctx = _context(samples=np.zeros(80_000, np.float32))
    spoken = [SpokenSegment(text=""), SpokenSegment(text="", start_s=0, end_s=2)]
    answer = await Emotion(probe=ctx).run(Input(segments=spoken, audio=AUDIO), ctx)
    assert [s.arousal_reason for s in answer.segments] == [
        "no times given for this segment",
        "no speaker given: a baseline needs to know whose voice it is",
    ]


@pytest.mark.anyio
async def test_a_segment_after_the_end_of_the_audio_is_refused() -> None:
    """An end a little beyond is cut, as recognisers write such; a start beyond is a mistake."""
    ctx = _context(samples=np.zeros(32_000, np.float32))
    late = Input(segments=[SpokenSegment(text="", start_s=2.5, end_s=3, speaker="A")], audio=AUDIO)
    with pytest.raises(InvalidInput, match=r"segment 0 starts at 2\.50 s, but the audio lasts 2\.00 s"):
        await Emotion(probe=ctx).run(late, ctx)
    over = Input(segments=[SpokenSegment(text="", start_s=0, end_s=2.2, speaker="A")], audio=AUDIO)
    assert len((await Emotion(probe=ctx).run(over, ctx)).segments) == 1


@pytest.mark.anyio
async def test_a_segment_without_length_has_its_words_judged_and_no_arousal() -> None:
    """Recognisers give single words that end where they start."""
    ctx = _context(samples=_voice(f0_hz=110, level=0.1))
    spoken = [SpokenSegment(text="0.4 0.7 0.1 0.45 0.8 0.1", start_s=at, end_s=at, speaker="A") for at in (0.0, 1.25)]
    output = await Emotion(probe=ctx).run(Input(segments=spoken, audio=AUDIO), ctx)
    for segment in output.segments:
        assert segment.labels[0].label == "anger"
        assert (segment.arousal, segment.arousal_reason) == (None, "the segment is shorter than 0.6 s")


@pytest.mark.parametrize(
    "payload",
    [
        {"segments": []},
        {"segments": [{"text": "x"}] * 2001},
        {"segments": [{"text": "x" * 4001}]},
        {"segments": [{"text": "x", "start_s": 1.0}]},
        {"segments": [{"text": "x", "start_s": 2.0, "end_s": 1.0}]},
        {"segments": [{"text": "x", "start_s": -1.0, "end_s": 1.0}]},
        {"segments": [{"text": "x", "mood": "good"}]},
        {"segments": [{"text": "x"}], "audio": {}},
        {"segments": [{"text": "x"}], "language": "not a tag"},
    ],
)
def test_input_that_breaks_the_contract_is_refused(payload: dict[str, Any]) -> None:
    """Sizes, half-given and reversed times, unknown fields, audio of no source."""
    with pytest.raises(ValidationError):
        Input.model_validate(payload)


@pytest.fixture(scope="module")
def real(models_dir: Path) -> Iterator[dict[str, Any]]:
    """The default encoder and the shipped head."""
    encoder = text_encoder.load("all-minilm-l6-v2-int8", models_dir / "all-minilm-l6-v2-int8", threads=2, options={})
    folder = Path(str(resources.files("neuroedge"))) / "weights" / "goemotions-head"
    head = text_classifier.load("goemotions-head", folder, threads=1, options={})
    yield {"text_embedding": encoder, "emotion_text": head}
    encoder.close()
    head.close()


@pytest.mark.models
@pytest.mark.anyio
async def test_the_shipped_head_hears_plain_emotions(real: dict[str, Any]) -> None:
    """Sentences nobody would read otherwise, by their group; a bare statement is neutral."""
    sentences = {
        "Thank you so much, this is wonderful news!": "joy",
        "I am so angry at them, this is outrageous and I hate it.": "anger",
        "I'm really sad, I miss my grandmother and I cried all night.": "sadness",
        "I was terrified, it was the scariest thing that ever happened to me.": "fear",
        "Wow, I did not expect that at all, what a surprise!": "surprise",
        "That is disgusting, what a gross smell.": "disgust",
        "The meeting starts at nine on Tuesday.": "neutral",
    }
    output = await _run(make_context(models=real), *sentences)
    assert [s.ekman[0].label for s in output.segments] == list(sentences.values())
    assert output.segments[0].labels[0].label == "gratitude"
    assert output.text_method == "vector-and-words-head"
    assert output.models == ["all-minilm-l6-v2-int8", "goemotions-head"]


@pytest.mark.models
@pytest.mark.anyio
async def test_it_proves_itself_after_a_reload(real: dict[str, Any]) -> None:
    """The example is answered by the real models."""
    await Emotion(probe=make_context(models=real)).post_swap_test()


@pytest.mark.models
@pytest.mark.anyio
async def test_the_real_call_is_answered_for_words_and_voice(real: dict[str, Any], sample_call: SampleCall) -> None:
    """A polite call between strangers: no strong emotion; a voice with too little other speech has no arousal."""
    samples, rate_hz = soundfile.read(sample_call.wav, dtype="float32")
    assert rate_hz == 16_000
    rows = [line.split(maxsplit=5) for line in sample_call.stm.read_text().splitlines() if line.strip()]
    spoken = [SpokenSegment(text=r[5], start_s=float(r[3]), end_s=float(r[4]), speaker=r[2]) for r in rows]
    ctx = replace(make_context(models=real, media=FakeMedia(samples)), switches=_Allowed())
    output = await Emotion(probe=ctx).run(Input(segments=spoken, audio=AUDIO, language="en"), ctx)
    assert len(output.segments) == len(rows)
    assert not {"anger", "disgust", "fear", "sadness"} & set(output.summary.ekman)
    assert output.summary.arousal_segments >= 5
    for segment in output.segments:
        assert (segment.arousal is None) == (segment.arousal_reason is not None)
