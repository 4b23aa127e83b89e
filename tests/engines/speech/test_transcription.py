"""The transcription engine: its contract over a scripted recogniser, and the real one on a real call."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.peer_whisper import wer
from pydantic import ValidationError

from neuroedge.contract.errors import MediaTooShort, ModelUnavailable
from neuroedge.contract.models import Floats, SpeechTask, SpokenWord, Transcription, Utterance
from neuroedge.contract.ports import AudioSource
from neuroedge.engines.speech.transcription import Input, Output, TranscriptionEngine
from neuroedge.infra.media import PyAVMedia, decode
from neuroedge.runtimes import whisper
from tests.audio_samples import tone
from tests.conftest import SampleCall
from tests.fakes import FakeBlobs, FakeMedia, RecordedProgress, make_context

SOURCE = AudioSource(blob="call.wav")
HELLO = Utterance(
    text="Oh, hello.",
    start_s=1.0004,
    end_s=2.0,
    words=[
        SpokenWord(w="Oh,", start_s=1.0, end_s=1.4, p=0.98765),
        SpokenWord(w="hello.", start_s=1.4, end_s=2.0, p=0.5),
    ],
    avg_logprob=-0.5,
    no_speech_prob=0.01,
)


class ScriptedSpeech:
    """Speech recognition that hears what it is told and reports progress from another thread."""

    model_id = "scripted-stt"

    def __init__(self, *utterances: Utterance, language: str = "en", reports: int = 0) -> None:
        self.asked: dict[str, Any] = {}
        self._utterances = list(utterances)
        self._language = language
        self._reports = reports

    async def transcribe(
        self,
        samples: Floats,
        *,
        language: str | None = None,
        hot_words: Sequence[str] = (),
        on_progress: Callable[[float], None] | None = None,
        task: SpeechTask = "transcribe",
        prompt: str = "",
        beam_size: int | None = None,
        vad: bool = True,
    ) -> Transcription:
        """The script."""
        self.asked = {"language": language, "hot_words": list(hot_words), "task": task}
        if on_progress and self._reports:
            worker = threading.Thread(target=lambda: [on_progress(i / self._reports) for i in range(self._reports)])
            worker.start()
            await asyncio.to_thread(worker.join)
            await asyncio.sleep(0)
        return Transcription(
            utterances=self._utterances,
            language=self._language,
            language_p=0.9 if self._utterances else 0.0,
            duration_s=len(samples) / 16_000,
        )


async def hear(model: ScriptedSpeech, *, seconds: float = 3.0, progress: Any = None, **fields: Any) -> Output:
    """Run the engine over a scripted recogniser."""
    ctx = make_context(models={"speech_to_text": model}, media=FakeMedia(tone(seconds)), progress=progress)
    return await TranscriptionEngine(probe=ctx).run(Input(audio=SOURCE, **fields), ctx)


@pytest.mark.anyio
async def test_text_segments_and_words_are_answered() -> None:
    """The whole text, rounded times and a confidence from the log-probability."""
    out = await hear(ScriptedSpeech(HELLO, HELLO))
    assert out.text == "Oh, hello. Oh, hello."
    assert (out.language, out.language_p, out.duration_s) == ("en", 0.9, 3.0)
    segment = out.segments[0]
    assert (segment.start_s, segment.end_s) == (1.0, 2.0)
    assert segment.confidence == pytest.approx(np.exp(-0.5), abs=1e-4)
    assert [(w.w, w.p) for w in segment.words] == [("Oh,", 0.9877), ("hello.", 0.5)]
    assert (out.method, out.models) == ("whisper", ["scripted-stt"])


@pytest.mark.anyio
async def test_silence_is_an_empty_text_without_language() -> None:
    """Nothing said is an answer, not an error."""
    out = await hear(ScriptedSpeech(language="und"))
    assert (out.text, out.segments, out.language) == ("", [], None)


@pytest.mark.anyio
@pytest.mark.parametrize(("asked", "passed"), [(None, None), ("auto", None), ("de", "de"), ("haw", "haw")])
async def test_the_language_is_passed_on(asked: str | None, passed: str | None) -> None:
    """auto means detect; hot words reach the recogniser as given."""
    model = ScriptedSpeech(HELLO)
    await hear(model, language=asked, hot_words=["Diane"])
    assert model.asked == {"language": passed, "hot_words": ["Diane"], "task": "transcribe"}


@pytest.mark.parametrize(
    "fields",
    [
        {"language": "English"},
        {"language": "EN"},
        {"language": ""},
        {"language": "e1"},
        {"hot_words": [""]},
        {"hot_words": ["x" * 81]},
        {"hot_words": ["x"] * 51},
        {"lang": "en"},
    ],
)
def test_bad_fields_are_refused(fields: dict[str, Any]) -> None:
    """Codes that are none, hot words without end, typos."""
    with pytest.raises(ValidationError):
        Input(audio=SOURCE, **fields)


@pytest.mark.anyio
async def test_progress_is_passed_on_from_the_thread_throttled_and_ends_at_one() -> None:
    """A thousand reports become a few, on the event loop's own thread, and never fall."""
    progress = RecordedProgress()
    await hear(ScriptedSpeech(HELLO, reports=1_000), progress=progress)
    fractions = [fraction for stage, fraction in progress.reports if stage == "transcription"]
    assert 2 <= len(fractions) <= 4
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0


@pytest.mark.anyio
async def test_a_translation_is_asked_for_and_told() -> None:
    """The model gets the task; the language stays the one spoken."""
    model = ScriptedSpeech(HELLO, language="de")
    out = await hear(model, task="translate")
    assert (model.asked["task"], out.task, out.language) == ("translate", "translate", "de")
    with pytest.raises(ValidationError):
        Input(audio=SOURCE, task="summarise")  # type: ignore[arg-type]


@pytest.mark.anyio
async def test_too_short_is_refused() -> None:
    """0.25 s is the least."""
    with pytest.raises(MediaTooShort):
        await hear(ScriptedSpeech(HELLO), seconds=0.2)
    assert (await hear(ScriptedSpeech(HELLO), seconds=0.25)).text


@pytest.mark.anyio
async def test_without_its_model_the_engine_says_so() -> None:
    """Unavailable in health, an error in a call."""
    ctx = make_context()
    engine = TranscriptionEngine(probe=ctx)
    assert (await engine.health()).status == "unavailable"
    with pytest.raises(ModelUnavailable):
        await engine.run(Input(audio=SOURCE), ctx)


def media() -> PyAVMedia:
    """The real decoder."""
    return PyAVMedia(blobs=FakeBlobs(), max_bytes=100_000, max_duration_s=10)


@pytest.mark.anyio
async def test_a_model_that_hears_words_in_silence_fails_its_self_test() -> None:
    """The test after a swap can fail."""
    probe = make_context(models={"speech_to_text": ScriptedSpeech(HELLO)}, media=media())
    with pytest.raises(ModelUnavailable, match="in silence"):
        await TranscriptionEngine(probe=probe).post_swap_test()


@pytest.mark.anyio
@pytest.mark.models
async def test_the_real_model_proves_itself_and_transcribes_a_call(models_dir: Path, sample_call: SampleCall) -> None:
    """Self-test passes; word error rate of the call under 25 %."""
    model = whisper.load("whisper-base", models_dir / "whisper-base", threads=2, options={})
    try:
        probe = make_context(models={"speech_to_text": model}, media=media())
        engine = TranscriptionEngine(probe=probe)
        await engine.post_swap_test()
        samples = decode(sample_call.wav, max_duration_s=60).samples
        ctx = make_context(models={"speech_to_text": model}, media=FakeMedia(samples))
        out = await engine.run(Input(audio=SOURCE), ctx)
    finally:
        model.close()
    assert wer(sample_call.stm, out.text) < 0.25
    assert out.language == "en"
