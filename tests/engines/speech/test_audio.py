"""The audio engine: measures of a recording through its contract."""

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from neuroedge.contract.errors import MediaTooShort, ModelUnavailable
from neuroedge.contract.models import Floats, Span
from neuroedge.contract.ports import AudioSource
from neuroedge.engines.speech.audio import AudioEngine, Input, Output
from neuroedge.infra.media import PyAVMedia, decode
from neuroedge.runtimes import silero
from tests.audio_samples import tone
from tests.conftest import SampleCall
from tests.fakes import FakeBlobs, FakeMedia, make_context

SOURCE = AudioSource(blob="call.wav")


class ScriptedVoice:
    """Voice activity that hears what it is told."""

    model_id = "scripted-vad"

    def __init__(self, *spans: Span) -> None:
        self._spans = list(spans)

    async def speech(self, samples: Floats) -> list[Span]:
        """The script."""
        return self._spans


async def measure(samples: Floats, *spans: Span, peaks: int = 0) -> Output:
    """Run the engine on a waveform."""
    ctx = make_context(models={"voice_activity": ScriptedVoice(*spans)}, media=FakeMedia(samples))
    return await AudioEngine(probe=ctx).run(Input(audio=SOURCE, peaks=peaks), ctx)


@pytest.mark.anyio
async def test_a_voice_over_noise_is_measured() -> None:
    """Length, speech, SNR, levels and peaks fit the waveform that was made."""
    samples = np.random.default_rng(0).normal(0, 0.001, 16_000 * 4).astype(np.float32)
    samples[16_000:48_000] += tone(2.0, level=0.1)
    out = await measure(samples, Span(start_s=1.0, end_s=3.0), peaks=4)
    assert out.duration_s == 4.0
    assert out.speech_s == 2.0
    assert out.snr_db == pytest.approx(20 * np.log10(0.1 / np.sqrt(2) / 0.001), abs=0.3)
    assert out.peak_dbfs == pytest.approx(-20, abs=0.4)
    assert out.peaks == pytest.approx([0.0, 0.1, 0.1, 0.0], abs=0.01)
    assert out.loudness_lufs is not None
    assert out.clipping_percent == 0
    assert (out.method, out.models) == ("silero-vad-v6+bs1770-4", ["scripted-vad"])


@pytest.mark.anyio
async def test_silence_has_no_levels_and_no_speech() -> None:
    """Everything that can't be told is null, and the answer is valid JSON."""
    out = await measure(np.zeros(16_000, np.float32))
    assert (out.loudness_lufs, out.peak_dbfs, out.rms_dbfs, out.snr_db) == (None, None, None, None)
    assert (out.speech, out.speech_s, out.peaks) == ([], 0.0, [])
    Output.model_validate_json(out.model_dump_json())


@pytest.mark.anyio
async def test_an_overdriven_recording_is_reported_as_clipped() -> None:
    """Two thirds of a sine of twice full scale."""
    assert (await measure(np.clip(4 * tone(1.0), -1, 1))).clipping_percent == pytest.approx(66.7, abs=3)


@pytest.mark.anyio
async def test_too_short_is_refused_and_the_shortest_is_not() -> None:
    """0.25 s is the limit; under 0.4 s there is no loudness."""
    with pytest.raises(MediaTooShort):
        await measure(tone(0.24))
    assert (await measure(tone(0.25))).loudness_lufs is None


@pytest.mark.parametrize("peaks", [-1, 2001])
def test_peaks_out_of_range_are_refused(peaks: int) -> None:
    """0 to 2000."""
    with pytest.raises(ValidationError):
        Input(audio=SOURCE, peaks=peaks)


@pytest.mark.anyio
async def test_without_its_model_the_engine_says_so() -> None:
    """Unavailable in health, an error in a call."""
    ctx = make_context()
    engine = AudioEngine(probe=ctx)
    assert (await engine.health()).status == "unavailable"
    with pytest.raises(ModelUnavailable):
        await engine.run(Input(audio=SOURCE), ctx)


@pytest.mark.anyio
async def test_proves_itself_on_its_own_example(tmp_path: Path) -> None:
    """The example is decoded and measured by the real parts."""
    model = silero.load("silero-vad", tmp_path, threads=1, options={})
    media = PyAVMedia(blobs=FakeBlobs(), max_bytes=100_000, max_duration_s=10)
    await AudioEngine(probe=make_context(models={"voice_activity": model}, media=media)).post_swap_test()
    model.close()


@pytest.mark.anyio
@pytest.mark.models
async def test_measures_a_real_call(sample_call: SampleCall, tmp_path: Path) -> None:
    """A telephone call: 30 s, speech from 6.7 s on, an SNR as telephones have it."""
    model = silero.load("silero-vad", tmp_path, threads=1, options={})
    samples = decode(sample_call.wav, max_duration_s=60).samples
    ctx = make_context(models={"voice_activity": model}, media=FakeMedia(samples))
    out = await AudioEngine(probe=ctx).run(Input(audio=SOURCE, peaks=200), ctx)
    model.close()
    assert out.duration_s == pytest.approx(30, abs=0.1)
    assert out.speech_s == pytest.approx(22.8, abs=1.0)
    assert out.snr_db is not None
    assert 10 < out.snr_db < 60
    assert len(out.peaks) == 200
