"""Sound with its channels: kept apart, cleaned without being moved, resampled without aliases."""

import base64

import numpy as np
import pytest

from neuroedge.contract.errors import EmptyMedia, TooLarge, UnreadableMedia, UnsupportedMedia
from neuroedge.contract.models import Floats
from neuroedge.contract.ports import AudioSource, Channels
from neuroedge.infra.media import PyAVMedia, encode_wav
from neuroedge.infra.sound import PyAVSound
from tests import audio_samples
from tests.audio_samples import tone
from tests.fakes import FakeBlobs

pytestmark = pytest.mark.anyio


def sound() -> PyAVSound:
    """Over blobs that hold nothing."""
    return PyAVSound(PyAVMedia(blobs=FakeBlobs(), max_bytes=50_000_000, max_duration_s=3600))


def source(data: bytes) -> AudioSource:
    """A file's bytes."""
    return AudioSource(base64=base64.b64encode(data).decode())


def _syllables(seconds: float, rate_hz: int) -> Floats:
    """A buzz that comes and goes four times a second, in the first and last thirds of which nothing is heard."""
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    buzz = sum(np.sin(2 * np.pi * 150 * k * t) / k for k in range(1, 12))
    heard = (np.sin(2 * np.pi * 4 * t) > 0) & (t > seconds / 3) & (t < 2 * seconds / 3)
    return np.asarray(0.1 * buzz * heard, np.float32)


@pytest.mark.parametrize("kind", ["wav", "flac", "ogg_opus"])
async def test_channels_stay_apart(kind: str) -> None:
    """A low tone on the left, a high one on the right, at the file's own rate."""
    planes = np.stack([tone(1.0, rate_hz=48_000, hz=300), tone(1.0, rate_hz=48_000, hz=2000, level=0.25)])
    found = await sound().channels(source(audio_samples.make(kind, planes, layout="stereo")), max_duration_s=10)
    assert found.rate_hz == 48_000
    assert found.samples.shape == (2, pytest.approx(48_000, abs=2000))
    strongest = [int(np.argmax(np.abs(np.fft.rfft(c))) * 48_000 / len(c)) for c in found.samples]
    assert strongest == [pytest.approx(300, abs=2), pytest.approx(2000, abs=2)]
    assert np.abs(found.samples).max(axis=1) == pytest.approx([0.5, 0.25], abs=0.05)


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 44_100])
async def test_noise_goes_and_speech_stays_in_its_place(rate_hz: int) -> None:
    """Nearer to the clean sound by 6 dB or more, as long as before, not a sample late."""
    clean = _syllables(4.0, rate_hz)
    noisy = clean + np.random.default_rng(0).normal(0, 0.01, len(clean)).astype(np.float32)
    cleaned = await sound().denoised(
        Channels(samples=np.stack([noisy, noisy]), rate_hz=rate_hz), strength_db=20, floor_dbfs=-40
    )
    assert cleaned.samples.shape == (2, len(clean))
    left = cleaned.samples[0]

    def error(other: Floats) -> float:
        return float(10 * np.log10(np.mean((other - clean) ** 2)))

    assert error(left) < error(noisy) - 6
    assert error(left) < error(np.roll(left, 5))
    assert error(left) < error(np.roll(left, -5))


async def test_another_rate_keeps_the_sound_below_half_of_it() -> None:
    """A low tone survives, one above half the new rate is gone rather than folded down."""
    both = tone(1.0, rate_hz=48_000, hz=1000) + tone(1.0, rate_hz=48_000, hz=11_000)
    found = await sound().resampled(
        Channels(samples=(both[None] / 2).astype(np.float32), rate_hz=48_000), rate_hz=16_000
    )
    assert (found.rate_hz, found.samples.shape) == (16_000, (1, 16_000))
    spectrum = np.abs(np.fft.rfft(found.samples[0]))
    assert spectrum[1000] > 1000 * spectrum[5000]


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", EmptyMedia),
        (b"no sound at all " * 100, UnsupportedMedia),
        (audio_samples.make("wav_f32", np.full((1, 4800), np.nan, np.float32), rate_hz=16_000), UnreadableMedia),
        (audio_samples.make("wav", tone(3.0, rate_hz=48_000)), TooLarge),
        (audio_samples.silent_video(), EmptyMedia),
        (audio_samples.truncated(encode_wav(tone(1.0)), keep=0.5), UnreadableMedia),
    ],
    ids=["empty", "text", "not numbers", "too long", "no track", "cut off"],
)
async def test_bad_files_are_refused(data: bytes, error: type[Exception]) -> None:
    """By the same errors as in decoding."""
    with pytest.raises(error):
        await sound().channels(source(data), max_duration_s=2)
