"""Voice activity on the network that faster-whisper ships."""

import asyncio
import itertools
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from faster_whisper.vad import get_vad_model

from neuroedge.contract.models import VOICE_FRAME
from neuroedge.infra.media import decode
from neuroedge.runtimes import silero
from tests.audio_samples import tone
from tests.conftest import SampleCall


@pytest.fixture
def model(tmp_path: Path) -> Iterator[silero.SileroVoiceActivity]:
    """The network with its default options."""
    loaded = silero.load("silero-vad", tmp_path, threads=1, options={})
    yield loaded
    loaded.close()


@pytest.mark.anyio
@pytest.mark.parametrize(
    "samples",
    [
        np.empty(0, np.float32),
        np.zeros(48_000, np.float32),
        np.random.default_rng(0).normal(0, 0.1, 48_000).astype(np.float32),
        tone(3.0),
    ],
    ids=["nothing", "silence", "noise", "tone"],
)
async def test_what_is_not_speech_gives_no_spans(model: silero.SileroVoiceActivity, samples: np.ndarray) -> None:
    """Silence, noise and tones are not voices."""
    assert await model.speech(samples) == []


@pytest.mark.anyio
@pytest.mark.models
async def test_finds_the_speech_of_a_real_call(model: silero.SileroVoiceActivity, sample_call: SampleCall) -> None:
    """Against the call's reference, missed speech and false alarms together stay under 5 % of the speech."""
    audio = decode(sample_call.wav, max_duration_s=60)
    truth = np.zeros(3_000, bool)
    for line in sample_call.rttm.read_text().splitlines():
        start_s, length_s = (float(field) for field in line.split()[3:5])
        truth[round(start_s * 100) : round((start_s + length_s) * 100)] = True
    found = np.zeros(3_000, bool)
    spans = await model.speech(audio.samples)
    for span in spans:
        found[round(span.start_s * 100) : round(span.end_s * 100)] = True
    assert (found ^ truth).sum() / truth.sum() < 0.05
    assert spans[0].start_s == pytest.approx(6.69, abs=0.15), "the first short hello counts"


@pytest.mark.anyio
@pytest.mark.models
async def test_blocks_give_the_spans_of_the_whole(
    model: silero.SileroVoiceActivity, sample_call: SampleCall, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long recording goes block by block; spans keep their place, order and never overlap."""
    samples = decode(sample_call.wav, max_duration_s=60).samples
    whole = await model.speech(samples)
    monkeypatch.setattr(silero, "_BLOCK_S", 10.0)
    pieces = await model.speech(samples)
    assert all(a.end_s < b.start_s for a, b in itertools.pairwise(pieces))
    assert sum(s.end_s - s.start_s for s in pieces) == pytest.approx(sum(s.end_s - s.start_s for s in whole), abs=0.6)


@pytest.mark.anyio
async def test_a_cancelled_call_stops_between_blocks(
    model: silero.SileroVoiceActivity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits, so the thread does not go through the remaining hours."""
    monkeypatch.setattr(silero, "_BLOCK_S", 2.0)
    blocks, begun, go = list[int](), threading.Event(), threading.Event()

    def alive() -> None:
        blocks.append(1)
        begun.set()
        go.wait(60)

    monkeypatch.setattr(model, "_alive", alive)
    task = asyncio.create_task(model.speech(np.zeros(16_000 * 3_600, np.float32)))
    assert await asyncio.to_thread(begun.wait, 60)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go.set()
    assert await model.speech(np.zeros(16_000, np.float32)) == []
    assert len(blocks) == 2


@pytest.mark.anyio
async def test_options_reach_the_network(tmp_path: Path) -> None:
    """A threshold nothing can pass finds nothing; padding and lengths are taken over."""
    model = silero.load(
        "strict", tmp_path, threads=1, options={"threshold": 0.7, "min_silence_ms": 300, "speech_pad_ms": 0}
    )
    assert model._options.threshold == 0.7
    assert model._options.min_silence_duration_ms == 300
    assert model._options.speech_pad_ms == 0
    model.close()


@pytest.mark.anyio
@pytest.mark.models
async def test_a_stream_is_judged_as_if_it_were_whole(
    model: silero.SileroVoiceActivity, sample_call: SampleCall
) -> None:
    """Frame by frame, in uneven pieces or all at once: the same probabilities, high where somebody speaks."""
    samples = decode(sample_call.wav, max_duration_s=60).samples[: VOICE_FRAME * 400]
    whole, _ = await model.listen(samples, None)
    state, pieces = None, []
    for start, end in itertools.pairwise([0, 1, 2, 7, 150, 151, 400]):
        found, state = await model.listen(samples[start * VOICE_FRAME : end * VOICE_FRAME], state)
        pieces.append(found)
    assert np.concatenate(pieces) == pytest.approx(whole, abs=1e-4)
    assert whole[:-1] == pytest.approx(get_vad_model()(samples.copy()).reshape(-1)[:-1], abs=1e-4)
    assert whole[round(6.7 / 0.032) : round(7.2 / 0.032)].max() > 0.5
    assert whole[: round(6.0 / 0.032)].max() < 0.5
    nothing, same = await model.listen(np.empty(0, np.float32), state)
    assert (len(nothing), same) == (0, state)
