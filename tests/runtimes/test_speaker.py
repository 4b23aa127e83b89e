"""The speaker encoder: the converted graph computes what the paper's network computes."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from neuroedge.contract.errors import InvalidInput, ModelUnavailable
from neuroedge.contract.models import Floats
from neuroedge.kit.mel import mel_filters, mel_power
from neuroedge.runtimes.speaker import VoiceEncoder, convert, load, partial_mels, raised
from neuroedge.runtimes.torch_checkpoint import read_tensors
from tests.conftest import SampleCall

MODEL = "resemblyzer-ge2e"


@pytest.fixture
def encoder(models_dir: Path) -> Iterator[VoiceEncoder]:
    """The real encoder."""
    opened = load(MODEL, models_dir / MODEL, threads=1, options={})
    yield opened
    opened.close()


def _noise(seconds: float, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(0, 0.05, int(seconds * 16_000)).astype(np.float32)


def _reference(mels: Floats, weights: dict[str, Floats]) -> Floats:
    """The network written out: gates i, f, g, o as PyTorch defines them."""

    def sigmoid(x: Floats) -> Floats:
        return 1 / (1 + np.exp(-x))

    x = mels
    for layer in range(3):
        w_in, w_state = (weights[f"lstm.weight_{name}_l{layer}"].T for name in ("ih", "hh"))
        bias = weights[f"lstm.bias_ih_l{layer}"] + weights[f"lstm.bias_hh_l{layer}"]
        state = cell = np.zeros((len(x), 256), np.float32)
        outputs = []
        for t in range(x.shape[1]):
            i, f, g, o = np.split(x[:, t] @ w_in + state @ w_state + bias, 4, axis=1)
            cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
            state = sigmoid(o) * np.tanh(cell)
            outputs.append(state)
        x = np.stack(outputs, axis=1)
    raw = np.maximum(0, state @ weights["linear.weight"].T + weights["linear.bias"])
    return raw / np.linalg.norm(raw, axis=1, keepdims=True)


@pytest.mark.models
def test_the_graph_equals_the_network_written_out(models_dir: Path, tmp_path: Path) -> None:
    """Any batch and any number of frames, within float32 rounding."""
    import onnxruntime

    source = models_dir / MODEL / "pretrained.pt"
    convert(source, tmp_path / "speaker.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "speaker.onnx"), providers=["CPUExecutionProvider"])
    weights = read_tensors(source, section="model_state")
    rng = np.random.default_rng(1)
    for shape in ((1, 160, 40), (3, 25, 40)):
        mels = rng.gamma(0.3, 0.1, shape).astype(np.float32)
        np.testing.assert_allclose(session.run(None, {"mels": mels})[0], _reference(mels, weights), atol=1e-5)
    assert [file.name for file in tmp_path.iterdir()] == ["speaker.onnx"]


@pytest.mark.models
@pytest.mark.anyio
async def test_batched_vectors_equal_single_ones(encoder: VoiceEncoder) -> None:
    """Windows of different lengths, short and long, come out in their order and of length 1."""
    windows = [_noise(seconds, seed) for seed, seconds in enumerate((0.3, 1.6, 4.0, 1.6, 0.01))]
    together = await encoder.encode(windows)
    alone = np.concatenate([await encoder.encode([window]) for window in windows])
    assert together.shape == (5, encoder.dim)
    assert together.dtype == np.float32
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1.0, atol=1e-5)
    assert (await encoder.encode([])).shape == (0, encoder.dim)


@pytest.mark.models
@pytest.mark.anyio
async def test_one_voice_is_nearer_to_itself_than_to_the_other(encoder: VoiceEncoder, sample_call: SampleCall) -> None:
    """Single-speaker stretches of the real call, two of each speaker."""
    samples, rate_hz = soundfile.read(sample_call.wav, dtype="float32")
    assert rate_hz == 16_000
    stretches = [(10.9, 12.6), (12.7, 14.4), (22.0, 24.5), (24.5, 27.5)]
    vectors = await encoder.encode([samples[int(a * 16_000) : int(b * 16_000)] for a, b in stretches])
    likeness = vectors @ vectors.T
    assert min(likeness[0, 1], likeness[2, 3]) > likeness[:2, 2:].max()


@pytest.mark.models
@pytest.mark.anyio
async def test_silence_and_empty_windows(encoder: VoiceEncoder) -> None:
    """Digital silence gives a finite vector; an empty or stereo window is refused."""
    assert np.isfinite(await encoder.encode([np.zeros(16_000, np.float32)])).all()
    for broken in (np.zeros(0, np.float32), np.zeros((2, 100), np.float32)):
        with pytest.raises(InvalidInput):
            await encoder.encode([broken])


@pytest.mark.models
def test_a_stale_or_broken_conversion_is_made_anew(models_dir: Path, tmp_path: Path) -> None:
    """Garbage or another checkpoint's graph in the folder is replaced; a good one is left alone."""
    shutil.copy(models_dir / MODEL / "pretrained.pt", tmp_path)
    target = tmp_path / "speaker.onnx"
    target.write_bytes(b"cut off")
    load(MODEL, tmp_path, threads=1, options={}).close()
    made = target.stat()
    load(MODEL, tmp_path, threads=1, options={}).close()
    assert target.stat().st_mtime_ns == made.st_mtime_ns
    with (tmp_path / "pretrained.pt").open("ab") as file:
        file.write(b"other bytes")
    load(MODEL, tmp_path, threads=1, options={}).close()
    assert target.stat().st_ino != made.st_ino


def test_missing_and_broken_weights_are_unavailable(tmp_path: Path) -> None:
    """The error names the remedy."""
    with pytest.raises(ModelUnavailable) as missing:
        load(MODEL, tmp_path, threads=1, options={})
    assert "models pull" in (missing.value.hint or "")
    (tmp_path / "pretrained.pt").write_bytes(b"no checkpoint")
    with pytest.raises(ModelUnavailable):
        load(MODEL, tmp_path, threads=1, options={})
    assert not (tmp_path / "speaker.onnx").exists()


def test_mel_bands_peak_where_the_tone_is() -> None:
    """A 1 kHz tone is strongest in the band around 1 kHz, and power grows with the square of the amplitude."""
    tone = np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000).astype(np.float32)
    mel = mel_power(tone, rate_hz=16_000, n_fft=400, hop=160, n_mels=40)
    assert mel.shape == (101, 40)
    filters = mel_filters(rate_hz=16_000, n_fft=400, n_mels=40)
    assert mel[50].argmax() == filters[:, 25].argmax()
    louder = mel_power(2 * tone, rate_hz=16_000, n_fft=400, hop=160, n_mels=40)
    np.testing.assert_allclose(louder, 4 * mel, rtol=1e-3, atol=1e-5)


def test_mel_filters_equal_whispers() -> None:
    """An independent implementation of librosa's filters agrees."""
    from faster_whisper.feature_extractor import FeatureExtractor

    expected = FeatureExtractor.get_mel_filters(16_000, 400, 40)
    np.testing.assert_allclose(mel_filters(rate_hz=16_000, n_fft=400, n_mels=40), expected, atol=1e-7)


@pytest.mark.parametrize(("seconds", "partials"), [(0.1, 1), (1.6, 1), (1.9, 1), (2.0, 2), (2.5, 2), (4.0, 4)])
def test_partial_windows_follow_resemblyzers_rule(seconds: float, partials: int) -> None:
    """1.6 s parts every 0.77 s; the last one counts only when three quarters full."""
    (mels,) = partial_mels([_noise(seconds)])
    assert mels.shape == (partials, 160, 40)


def test_only_soft_speech_is_made_louder() -> None:
    """Soft speech rises to -30 dB of full scale; louder speech and silence stay."""
    soft, loud = _noise(1) * 0.01, _noise(1) * 5
    assert np.sqrt(np.mean(raised(soft) ** 2)) == pytest.approx(10 ** (-30 / 20), rel=1e-3)
    np.testing.assert_array_equal(raised(loud), loud)
    assert not raised(np.zeros(100, np.float32)).any()
