"""What the steps of a recording make of the engines' answers."""

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from neuroedge.engines.speech import emotion
from neuroedge.services.recording_steps import Steps, felt
from neuroedge.stores.ids import new_id
from neuroedge.stores.recordings import Recording
from tests.fakes import make_principal

pytestmark = pytest.mark.anyio
ONE_SPEAKER = [{"speaker": "S1", "start_s": 0.0, "end_s": 60.0, "confidence": 0.9}]


class Diarization:
    """Stands for the engines: one speaker, or nobody."""

    def __init__(self, turns: list[dict[str, Any]]) -> None:
        self.asked: list[dict[str, Any]] = []
        self._turns = turns

    async def run(self, name: str, payload: dict[str, Any], **_: Any) -> SimpleNamespace:
        """The answer of the engine `diarization`."""
        assert name == "diarization"
        self.asked.append(payload)
        answer = {"turns": self._turns, "num_speakers": len(self._turns), "method": "scripted"}
        return SimpleNamespace(model_dump=lambda mode: answer)


def recording() -> Recording:
    """One that is being processed."""
    return Recording(
        id=new_id(),
        user_id=new_id(),
        title="A call",
        context=None,
        filename="call.wav",
        language=None,
        bytes=1,
        status="running",
        step="diarize",
        attempts=1,
        error_code=None,
        error_detail=None,
        error_hint=None,
        created_at=datetime.now(UTC),
        finished_at=None,
    )


def transcript(*pieces: tuple[str, list[str]]) -> dict[str, Any]:
    """What the engine `transcription` answers: texts with their words, 0.4 s each."""
    segments: list[dict[str, Any]] = []
    at = 0.0
    for text, words in pieces:
        timed = []
        for w in words:
            timed.append({"w": w, "start_s": at, "end_s": at + 0.35, "p": 0.9})
            at += 0.4
        segments.append({"text": text, "words": timed})
    return {"segments": segments}


async def progress(stage: str, fraction: float, **_: Any) -> None:
    """Nobody listens."""


async def diarized(engine: Diarization, *pieces: tuple[str, list[str]]) -> dict[str, Any]:
    """The output of the step."""
    steps = Steps(runner=engine, principal=make_principal(), request_id="test")  # type: ignore[arg-type]
    return await steps.run("diarize", recording(), {"transcribe": transcript(*pieces)}, progress)


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        ([("下雨了。", ["下", "雨", "了", "。"]), ("我们走吧。", ["我们", "走", "吧", "。"])], "下雨了。我们走吧。"),
        ([("今日は雨です。", ["今日", "は", "雨", "です", "。"])], "今日は雨です。"),
        ([("ฝนตกแล้ว", ["ฝน", "ตก", "แล้ว"])], "ฝนตกแล้ว"),
        ([("A cold-hearted man.", ["A", "cold", "-hearted", "man."])], "A cold-hearted man."),
        ([("J'ai dit 50 %.", ["J", "'ai", "dit", "50", "%."])], "J'ai dit 50 %."),
        ([("Yes.", ["Yes."]), ("No.", ["No."])], "Yes. No."),
    ],
)
async def test_a_segment_reads_as_the_recogniser_wrote_it(pieces: list[tuple[str, list[str]]], text: str) -> None:
    """Spaces are where the transcript has them: none in Chinese, Japanese and Thai, none before "-hearted"."""
    engine = Diarization(ONE_SPEAKER)
    found = await diarized(engine, *pieces)
    assert [segment["text"] for segment in found["segments"]] == [text]
    words = [word for _, own in pieces for word in own]
    assert [word["w"] for word in found["segments"][0]["words"]] == words, "words themselves have no spaces"
    assert [word["w"] for word in engine.asked[0]["words"]] == words


async def test_nobody_found_is_an_unknown_speaker() -> None:
    """Words without any turn keep their place."""
    found = await diarized(Diarization([]), ("Hello there.", ["Hello", "there."]))
    assert [(segment["speaker"], segment["text"]) for segment in found["segments"]] == [("unknown", "Hello there.")]


async def test_without_words_no_engine_is_asked() -> None:
    """A recording of silence is done at once, also one whose transcript has a piece without words."""
    engine = Diarization(ONE_SPEAKER)
    for pieces in ([], [("", [])]):
        assert (await diarized(engine, *pieces))["segments"] == []
    assert engine.asked == []


class Feeling:
    """Stands for the emotion engine, with its limit: a segment's text is its emotion, "." is not understood."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    async def __call__(self, payload: dict[str, Any]) -> dict[str, Any]:
        """The answer."""
        texts = [segment.text for segment in emotion.Input.model_validate(payload).segments]
        self.asked.append(len(texts))
        answered = [text for text in texts if text != "."]
        return {
            "segments": [{"labels": [text], "abstained": text == "."} for text in texts],
            "emotions": [{"label": e, "score": answered.count(e) / len(answered)} for e in sorted({*answered})],
            "summary": {"segments": len(texts), "abstained": len(texts) - len(answered)},
            "text_method": "scripted" if answered else "none",
            "voice_method": "none",
        }


def texts(*counted: tuple[str, int]) -> list[dict[str, Any]]:
    """So many segments of each text."""
    return [{"text": text} for text, count in counted for _ in range(count)]


async def test_more_segments_than_the_emotion_engine_takes_are_felt_in_parts() -> None:
    """In their order; an emotion's score is the mean over all segments that were understood, of whichever part."""
    engine = Feeling()
    found = await felt(texts(("joy", 1500), (".", 500), ("fear", 1000), ("joy", 500), ("grief", 500)), {}, engine)
    assert engine.asked == [2000, 2000]
    assert [s["labels"][0] for s in found["segments"]].index("fear") == 2000
    assert len(found["segments"]) == 4000
    scores = [(one["label"], one["score"]) for one in found["emotions"]]
    assert scores == [("joy", pytest.approx(2000 / 3500, abs=1e-4)), ("fear", 0.2857), ("grief", 0.1429)]


async def test_a_part_in_which_nothing_was_understood_counts_for_nothing() -> None:
    """And what nobody said is felt as nothing, without asking."""
    engine = Feeling()
    found = await felt(texts(("joy", 2000), (".", 3)), {}, engine)
    assert found["emotions"] == [{"label": "joy", "score": 1.0}]
    assert found["text_method"] == "scripted"
    assert len(found["segments"]) == 2003
    nothing = await felt([], {}, engine)
    assert (nothing["segments"], nothing["emotions"], nothing["text_method"]) == ([], [], "none")
    assert engine.asked == [2000, 3]
