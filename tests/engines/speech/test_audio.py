"""The audio engine: measures of a recording through its contract."""

import base64
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from neuroedge.contract.errors import InvalidInput, MediaTooShort, ModelUnavailable
from neuroedge.contract.models import Floats, Span
from neuroedge.contract.ports import AudioSource
from neuroedge.engines.speech.audio import AudioEngine, Input, Output
from neuroedge.infra.media import PyAVMedia, decode
from neuroedge.infra.sound import PyAVSound
from neuroedge.runtimes import silero
from tests.audio_samples import make, tone
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


async def process(data: bytes, *spans: Span, **fields: Any) -> Output:
    """Run the engine on a file, with the real decoder."""
    media = PyAVMedia(blobs=FakeBlobs(), max_bytes=50_000_000, max_duration_s=3600)
    ctx = make_context(models={"voice_activity": ScriptedVoice(*spans)}, media=media)
    ctx = replace(ctx, sound=PyAVSound(media))
    payload = Input.model_validate({"audio": {"base64": base64.b64encode(data).decode()}, **fields})
    return await AudioEngine(probe=ctx).run(payload, ctx)


@pytest.mark.anyio
async def test_each_channel_is_measured_by_itself() -> None:
    """A soft left and a clipped right one; the mix would hide it."""
    loud = np.clip(3 * tone(1.0, rate_hz=48_000), -1, 1)
    planes = np.stack([0.1 * tone(1.0, rate_hz=48_000), loud])
    out = await process(make("wav", planes, layout="stereo"), channels=True, peaks=4)
    left, right = out.channels
    assert left.clipping_percent == 0
    assert right.clipping_percent == pytest.approx(53, abs=3)
    assert [left.peak_dbfs, right.peak_dbfs] == pytest.approx([-26, 0], abs=0.1)
    assert left.peaks == pytest.approx([0.05] * 4, abs=0.001)
    assert (out.clipping_percent, len(out.peaks)) == (0, 4)


@pytest.mark.anyio
async def test_the_sound_comes_back_cleaner_at_another_rate() -> None:
    """A buzz between silences in noise: less of the noise, the length kept, a WAV that decodes."""
    t = np.arange(16_000 * 4) / 16_000
    buzz = 0.1 * sum(np.sin(2 * np.pi * 150 * k * t) / k for k in range(1, 12)) * ((t > 1) & (t < 3))
    noisy = np.asarray(buzz + np.random.default_rng(0).normal(0, 0.01, len(t)), np.float32)
    process_ = {"denoise_db": 20, "rate_hz": 8_000}
    out = await process(make("flac", noisy, rate_hz=16_000), Span(start_s=1.0, end_s=3.0), process=process_)
    (cleaned,) = out.processed
    assert (cleaned.channel, cleaned.rate_hz, cleaned.duration_s) == (None, 8_000, 4.0)
    assert cleaned.snr_before_db is not None
    assert cleaned.snr_after_db is not None
    assert cleaned.snr_after_db > cleaned.snr_before_db + 8
    data = base64.b64decode(cleaned.base64)
    assert len(data) == cleaned.bytes
    again = decode(data, max_duration_s=10)
    assert (again.source_rate_hz, again.source_channels) == (8_000, 1)
    assert np.abs(again.samples[:8_000]).mean() < 0.3 * np.abs(noisy[:8_000]).mean()


@pytest.mark.anyio
async def test_channels_are_split_into_files_of_their_own() -> None:
    """Two files; or the one asked for; a third is not there."""
    planes = np.stack([tone(1.0, rate_hz=48_000, level=0.5), tone(1.0, rate_hz=48_000, level=0.25)])
    data = make("wav", planes, layout="stereo")
    both = (await process(data, process={"channel": "each"})).processed
    assert [(p.channel, p.rate_hz) for p in both] == [(0, 48_000), (1, 48_000)]
    levels = [np.abs(decode(base64.b64decode(p.base64), max_duration_s=10).samples).max() for p in both]
    assert levels == pytest.approx([0.5, 0.25], abs=0.01)
    assert [p.channel for p in (await process(data, process={"channel": 1})).processed] == [1]
    with pytest.raises(InvalidInput, match="no channel 2"):
        await process(data, process={"channel": 2})


@pytest.mark.anyio
async def test_silences_are_mapped() -> None:
    """Where there is next to no sound, long enough."""
    samples = np.concatenate([tone(1.0), np.zeros(16_000, np.float32), tone(1.0)])
    out = await measure(samples)
    assert [(s.start_s, s.end_s) for s in out.silences] == [(1.0, 2.0)]
    assert out.silence_s == 1.0


@pytest.mark.anyio
async def test_what_makes_the_speech_doubtful_is_said() -> None:
    """No speech; noise as loud as speech; clipping; a pitch no grown voice has; nothing voiced."""
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.05, 16_000 * 6).astype(np.float32)
    t = np.arange(16_000 * 6) / 16_000
    voice = np.asarray(0.2 * sum(np.sin(2 * np.pi * 130 * k * t) / k for k in range(1, 12)), np.float32)
    middle = Span(start_s=2.0, end_s=4.0)
    inside = (t > 2) & (t < 4)
    fine = await measure(np.asarray(voice * inside + 1e-3 * noise, np.float32), middle)
    assert (fine.reliable, fine.warnings) == (True, [])
    for samples, spans, told in [
        (noise, [], "nobody is heard to speak"),
        (np.asarray(0.2 * voice * inside + noise, np.float32), [middle], "above the background"),
        (np.clip(8 * voice * inside, -1, 1), [middle], "are clipped"),
        (np.asarray(noise * inside + 1e-4 * noise, np.float32), [middle], "voiced: whispering"),
        (np.asarray(0.2 * np.sin(2 * np.pi * 420 * t) * inside, np.float32), [middle], "wrong sampling"),
    ]:
        out = await measure(samples, *spans)
        assert not out.reliable
        assert any(told in warning for warning in out.warnings), (told, out.warnings)


@pytest.mark.parametrize(
    "fields",
    [
        {"process": {"denoise_db": 0}},
        {"process": {"denoise_db": float("nan")}},
        {"process": {"rate_hz": 1}},
        {"process": {"channel": "left"}},
        {"process": {"volume": 2}},
        {"silence_below_dbfs": 3},
        {"silence_at_least_s": float("inf")},
        {"channels": "perhaps"},
    ],
)
def test_wishes_out_of_range_are_refused(fields: dict[str, Any]) -> None:
    """Numbers outside their limits, no numbers, unknown names."""
    with pytest.raises(ValidationError):
        Input.model_validate({"audio": {"blob": "x"}, **fields})


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
