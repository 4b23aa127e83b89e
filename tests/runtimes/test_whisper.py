"""Speech recognition: the adapter over a scripted library, and the real weights on a real call."""

import asyncio
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from benchmarks.peer_whisper import wer

from neuroedge.contract.errors import InvalidInput, ModelUnavailable
from neuroedge.infra.media import decode
from neuroedge.runtimes import whisper
from tests.audio_samples import tone
from tests.conftest import SampleCall


class ScriptedWhisper:
    """Stands for faster-whisper's model: one segment a second, each taking `delay_s`."""

    supported_languages = ("en", "de")

    def __init__(self, *, delay_s: float = 0.0, error: Exception | None = None) -> None:
        self.calls: list[dict[str, Any]] = []
        self.decoded = 0
        self.model = SimpleNamespace(unload_model=lambda: None, is_multilingual=True)
        self._delay_s = delay_s
        self._error = error

    def transcribe(self, samples: np.ndarray, **options: Any) -> tuple[Iterator[Any], Any]:
        """Segments of the waveform, or none when it is silent."""
        self.calls.append({"samples": samples, **options})
        spoken = bool(np.abs(samples).max(initial=0))
        info = SimpleNamespace(
            language="de", language_probability=0.75, duration_after_vad=len(samples) / 16_000 if spoken else 0
        )
        return self._segments(len(samples) // 16_000), info

    def _segments(self, seconds: int) -> Iterator[Any]:
        if self._error:
            raise self._error
        for i in range(seconds):
            time.sleep(self._delay_s)
            self.decoded += 1
            word = SimpleNamespace(word=" hallo", start=i + 0.1, end=i + 0.9, probability=0.5)
            yield SimpleNamespace(
                text=" hallo", start=float(i), end=i + 1.0, words=[word], avg_logprob=-0.5, no_speech_prob=0.1
            )


async def until(holds: Callable[[], object]) -> None:
    """Wait for what the adapter's thread brings about."""
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def adapter(model: ScriptedWhisper) -> whisper.WhisperSpeechToText:
    """The adapter over a scripted library."""
    return whisper.WhisperSpeechToText("scripted", model, whisper.DECODING)


@pytest.mark.anyio
async def test_segments_become_utterances_and_progress() -> None:
    """Text is trimmed, language detected, hot words passed on, progress rises to 1 from another thread."""
    model = ScriptedWhisper()
    fractions: list[float] = []
    threads: set[int] = set()
    heard = await adapter(model).transcribe(
        tone(4.0),
        hot_words=["Diane", "New Jersey"],
        on_progress=lambda f: (fractions.append(f), threads.add(threading.get_ident()))[0],
    )
    assert [u.text for u in heard.utterances] == ["hallo"] * 4
    assert heard.utterances[2].words[0].start_s == pytest.approx(2.1)
    assert (heard.language, heard.language_p, heard.duration_s) == ("de", 0.75, 4.0)
    assert fractions == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    assert threading.get_ident() not in threads
    assert model.calls[0]["hotwords"] == "Diane, New Jersey"
    assert model.calls[0]["vad_filter"]
    assert not model.calls[0]["condition_on_previous_text"]


@pytest.mark.anyio
async def test_a_short_waveform_reaches_the_library_without_a_copy() -> None:
    """Only so the adapter is as fast as the library."""
    model = ScriptedWhisper()
    samples = tone(1.0)
    await adapter(model).transcribe(samples)
    assert np.shares_memory(model.calls[0]["samples"], samples)


@pytest.mark.anyio
async def test_a_long_recording_is_decoded_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times go on over the cuts; a silent block says nothing of the language, the first spoken one fixes it."""
    monkeypatch.setattr(whisper, "_BLOCK_S", 10.0)
    model = ScriptedWhisper()
    samples = np.concatenate([np.zeros(160_000, np.float32), tone(15.0)])
    heard = await adapter(model).transcribe(samples)
    starts = [u.start_s for u in heard.utterances]
    assert len(model.calls) >= 3
    assert starts == sorted(starts)
    assert 5 < starts[0] < 10.1
    assert 23 < starts[-1] < 25
    assert model.calls[0]["language"] is None
    assert model.calls[-1]["language"] == "de"
    assert heard.language_p == 0.75


@pytest.mark.anyio
async def test_nobody_speaks_has_no_language() -> None:
    """Silence gives no utterances and an undetermined language."""
    heard = await adapter(ScriptedWhisper()).transcribe(np.zeros(32_000, np.float32))
    assert (heard.utterances, heard.language, heard.language_p) == ([], "und", 0.0)


@pytest.mark.anyio
async def test_an_unknown_language_is_refused() -> None:
    """The hint lists what the model knows."""
    with pytest.raises(InvalidInput) as caught:
        await adapter(ScriptedWhisper()).transcribe(tone(1.0), language="xx")
    assert caught.value.hint == "one of en, de"


@pytest.mark.anyio
async def test_a_cancelled_call_stops_decoding_at_the_next_segment() -> None:
    """The thread is free for the next caller instead of finishing an hour nobody waits for."""
    model = ScriptedWhisper(delay_s=0.05)
    stt = adapter(model)
    task = asyncio.create_task(stt.transcribe(tone(100.0)))
    await until(lambda: model.decoded)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    decoded = model.decoded
    await asyncio.to_thread(stt.close)
    assert model.decoded <= decoded + 1 < 100


@pytest.mark.anyio
async def test_a_failing_library_is_wrapped() -> None:
    """Callers see one exception tree."""
    with pytest.raises(ModelUnavailable, match="out of memory"):
        await adapter(ScriptedWhisper(error=RuntimeError("CUDA out of memory"))).transcribe(tone(1.0))


@pytest.mark.anyio
async def test_what_is_asked_of_a_call_reaches_the_library() -> None:
    """Task, prompt and beam of one call; the next one has the defaults again."""
    model = ScriptedWhisper()
    stt = adapter(model)
    await stt.transcribe(tone(1.0), task="translate", prompt="A novel.", beam_size=2, vad=False)
    await stt.transcribe(tone(1.0))
    asked = [(c["task"], c["initial_prompt"], c["beam_size"], c["vad_filter"]) for c in model.calls]
    assert asked == [("translate", "A novel.", 2, False), ("transcribe", None, 5, True)]


@pytest.mark.anyio
async def test_a_model_of_english_alone_refuses_to_translate() -> None:
    """Rather than transcribe and call it a translation."""
    model = ScriptedWhisper()
    model.model.is_multilingual = False
    with pytest.raises(InvalidInput, match="cannot translate"):
        await adapter(model).transcribe(tone(1.0), task="translate")
    assert model.calls == []


@pytest.mark.anyio
async def test_a_live_piece_does_not_wait_for_a_recording() -> None:
    """It goes in between; it is bounded in time: one window, no second try, no more words than anybody says."""
    model = ScriptedWhisper(delay_s=0.05)
    stt = adapter(model)
    recording = asyncio.create_task(stt.transcribe(tone(60.0)))
    await until(lambda: model.calls)
    heard = await stt.transcribe(tone(2.0), live=True, vad=False)
    assert [u.text for u in heard.utterances] == ["hallo"], "what comes after the first window is silence"
    assert not recording.done()
    assert model.calls[1]["temperature"] == 0.0
    assert model.calls[1]["max_new_tokens"] < 40
    recording.cancel()
    await asyncio.to_thread(stt.close)


@pytest.mark.anyio
async def test_two_live_pieces_are_computed_side_by_side() -> None:
    """Neither stream waits for the other's piece; a recording goes on beside them, by its own parameters."""
    together = threading.Barrier(3, timeout=60)

    class Meeting(ScriptedWhisper):
        def transcribe(self, samples: np.ndarray, **options: Any) -> tuple[Iterator[Any], Any]:
            together.wait()
            return super().transcribe(samples, **options)

    model = Meeting()
    stt = adapter(model)
    heard = await asyncio.gather(
        stt.transcribe(tone(3.0)), *(stt.transcribe(tone(1.0 + n), live=True, vad=False) for n in range(2))
    )
    await asyncio.to_thread(stt.close)
    assert [len(found.utterances) for found in heard] == [3, 1, 1]
    recorded, *live = sorted(model.calls, key=lambda call: "repetition_penalty" in call)
    assert all(call["repetition_penalty"] > 1 for call in live)
    assert "repetition_penalty" not in recorded
    assert "without_timestamps" not in recorded


def test_missing_files_are_named_and_nothing_is_fetched(tmp_path: Path) -> None:
    """A folder without weights never makes the library look elsewhere."""
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelUnavailable, match=r"model\.bin, tokenizer\.json") as caught:
        whisper.load("whisper-none", tmp_path, threads=1, options={})
    assert caught.value.hint == "run `neuroedge models pull whisper-none`"


def test_broken_weights_are_wrapped(tmp_path: Path) -> None:
    """Files that are no model give the remedy."""
    for name in ("config.json", "model.bin", "tokenizer.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(ModelUnavailable, match="does not load"):
        whisper.load("whisper-broken", tmp_path, threads=1, options={})


@pytest.fixture(scope="module")
def base(models_dir: Path) -> Iterator[whisper.WhisperSpeechToText]:
    """Whisper base with its default options."""
    model = whisper.load("whisper-base", models_dir / "whisper-base", threads=2, options={})
    yield model
    model.close()


@pytest.mark.anyio
@pytest.mark.models
async def test_transcribes_a_real_call(base: whisper.WhisperSpeechToText, sample_call: SampleCall) -> None:
    """Word error rate under 25 %, words inside their utterances and in order."""
    heard = await base.transcribe(decode(sample_call.wav, max_duration_s=60).samples)
    assert heard.language == "en"
    assert wer(sample_call.stm, " ".join(u.text for u in heard.utterances)) < 0.25
    words = [word for u in heard.utterances for word in u.words]
    assert all(a.start_s <= b.start_s for a, b in itertools.pairwise(words))
    jersey = next(word for word in words if word.w.startswith("Jersey"))
    assert 13.3 < jersey.start_s < 14.3


@pytest.mark.anyio
@pytest.mark.models
@pytest.mark.parametrize(
    "samples",
    [
        np.zeros(16_000 * 5, np.float32),
        np.random.default_rng(0).normal(0, 0.05, 16_000 * 5).astype(np.float32),
        tone(5.0),
    ],
    ids=["silence", "noise", "tone"],
)
async def test_no_words_are_invented(base: whisper.WhisperSpeechToText, samples: np.ndarray) -> None:
    """What nobody said is not written down."""
    assert (await base.transcribe(samples)).utterances == []


@pytest.mark.anyio
@pytest.mark.models
async def test_an_english_model_refuses_another_language(models_dir: Path) -> None:
    """Instead of answering in English to a request for German."""
    model = whisper.load("whisper-tiny-en", models_dir / "whisper-tiny-en", threads=2, options={"beam_size": 1})
    with pytest.raises(InvalidInput):
        await model.transcribe(tone(1.0), language="de")
    model.close()


@pytest.mark.anyio
@pytest.mark.models
async def test_a_live_piece_has_the_words_of_the_whole_window(
    base: whisper.WhisperSpeechToText, sample_call: SampleCall
) -> None:
    """Without the padding to 30 s, four seconds are heard as with it."""
    samples = decode(sample_call.wav, max_duration_s=60).samples[12 * 16_000 : 16 * 16_000]
    texts = []
    for live in (False, True):
        heard = await base.transcribe(samples, language="en", vad=False, live=live)
        texts.append(" ".join(u.text for u in heard.utterances))
        assert all(0 <= word.start_s <= word.end_s <= 4.5 for u in heard.utterances for word in u.words)
    assert wer(texts[0], texts[1]) < 0.3
