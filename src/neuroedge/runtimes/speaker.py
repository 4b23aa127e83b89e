"""Speaker encoder: Resemblyzer's GE2E voice encoder on ONNX Runtime, converted once from its PyTorch weights.

Wan et al. 2018, "Generalized End-to-End Loss for Speaker Verification"; weights and feature settings of Resemblyzer
0.1.4 (Apache-2.0): 40 mel bands (power, no logarithm), 25 ms windows, 10 ms hop; three LSTM layers of 256, a linear
layer, ReLU and L2 norm.
"""

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroedge.contract.errors import InvalidInput, ModelUnavailable
from neuroedge.contract.models import SAMPLE_RATE_HZ, Floats
from neuroedge.kit.mel import mel_power
from neuroedge.runtimes.file_digest import known_sha256
from neuroedge.runtimes.threaded import MAX_WAITING_AUDIO_S, Threaded
from neuroedge.runtimes.torch_checkpoint import CheckpointError, read_tensors

MEL_BANDS = 40
HIDDEN = 256
LAYERS = 3
DIM = 256
_N_FFT = SAMPLE_RATE_HZ * 25 // 1000
_HOP = SAMPLE_RATE_HZ * 10 // 1000
_PARTIAL_FRAMES = 160
_PARTIAL_STEP_FRAMES = 77
"""1.3 partial windows a second, Resemblyzer's default."""
_MIN_COVERAGE = 0.75
_TARGET_DBFS = -30.0
_BATCH = 64
_CONVERSION = "1"
"""Raise it when the graph changes, so that stored conversions are made anew."""


def load(model_id: str, folder: Path, *, threads: int, options: Mapping[str, Any]) -> "VoiceEncoder":
    """Open folder/speaker.onnx, converting it first from folder/pretrained.pt when it is missing or stale.

    Raises ModelUnavailable when neither file is usable. Knows no options.
    """
    source, target = folder / "pretrained.pt", folder / "speaker.onnx"
    try:
        if not target.exists() or _is_stale(source, target):
            convert(source, target)
        session = _session(target, threads=threads)
    except (OSError, CheckpointError, KeyError) as error:
        raise ModelUnavailable(
            f"{model_id} cannot be converted: {error}", hint=f"run `neuroedge models pull {model_id}`"
        ) from error
    except Exception as error:  # ONNX Runtime's own exceptions share no public base
        raise ModelUnavailable(
            f"{model_id} does not load: {error}", hint=f"remove {target.name} from the model's folder"
        ) from error
    return VoiceEncoder(model_id, session)


def convert(source: Path, target: Path) -> None:
    """Write the encoder of the checkpoint `source` as an ONNX graph to `target`, whole or not at all.

    The graph maps `mels` float32 [batch, frames, 40] to `embedding` float32 [batch, 256], L2-normalised, for any
    batch and number of frames. Raises CheckpointError for another checkpoint, OSError for the file system.
    """
    content = _graph(read_tensors(source, section="model_state"), source_sha256=known_sha256(source))
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=target.name, suffix=".part")
    part = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        part.chmod(0o644)
        part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


class VoiceEncoder(Threaded):
    """SpeakerEncoder over an ONNX Runtime session of the converted graph."""

    dim = DIM

    def __init__(self, model_id: str, session: Any) -> None:
        super().__init__(model_id, max_waiting=MAX_WAITING_AUDIO_S)
        self._session = session

    async def encode(self, windows: Sequence[Floats]) -> Floats:
        """L2-normalised vectors float32 [len(windows), 256] of waveforms [n] at 16 kHz.

        Waveforms over 1.6 s are averaged over overlapping 1.6 s parts, shorter ones padded with silence. Raises
        InvalidInput for an empty waveform.
        """
        seconds = sum(window.size for window in windows) / SAMPLE_RATE_HZ
        return await self._in_thread(lambda: self._encode(windows), cost=seconds)

    def close(self) -> None:
        """End the thread and free the session."""
        super().close()
        self._session = None

    def _encode(self, windows: Sequence[Floats]) -> Floats:
        if any(window.ndim != 1 or window.size == 0 for window in windows):
            raise InvalidInput("a speaker window must be a non-empty mono waveform")
        if not windows:
            return np.zeros((0, DIM), np.float32)
        parts = partial_mels(windows)
        vectors = self._embed(np.concatenate(parts))
        starts = np.cumsum([0, *(len(part) for part in parts[:-1])])
        sums = np.add.reduceat(vectors, starts, axis=0)
        norms = np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-9)
        means: Floats = (sums / norms).astype(np.float32)
        return means

    def _embed(self, mels: Floats) -> Floats:
        vectors: list[Floats] = []
        for start in range(0, len(mels), _BATCH):
            self._alive()
            vectors.append(self._session.run(None, {"mels": mels[start : start + _BATCH]})[0])
        return np.concatenate(vectors)


def partial_mels(windows: Sequence[Floats]) -> list[Floats]:
    """The encoder's view of waveforms [n] at 16 kHz: for each, mel power float32 [partials, 160, 40].

    Softer waveforms are raised to -30 dB of full scale. Waveforms of one length are computed together: one matrix
    product for many windows is far quicker than a product each.
    """
    starts = [_partial_starts(len(window)) for window in windows]
    lengths = [max(len(w), (s[-1] + _PARTIAL_FRAMES) * _HOP) for w, s in zip(windows, starts, strict=True)]
    parts: list[Floats] = [np.empty(0, np.float32)] * len(windows)
    for length in set(lengths):
        members = [i for i, other in enumerate(lengths) if other == length]
        padded = np.stack([np.pad(raised(windows[i]), (0, length - len(windows[i]))) for i in members])
        mels = mel_power(padded, rate_hz=SAMPLE_RATE_HZ, n_fft=_N_FFT, hop=_HOP, n_mels=MEL_BANDS)
        for i, mel in zip(members, mels, strict=True):
            parts[i] = np.stack([mel[start : start + _PARTIAL_FRAMES] for start in starts[i]])
    return parts


def _partial_starts(samples: int) -> list[int]:
    """First frames of the partial windows over a waveform; the last one is dropped when mostly padding."""
    frames = int(np.ceil((samples + 1) / _HOP))
    starts = list(range(0, max(1, frames - _PARTIAL_FRAMES + _PARTIAL_STEP_FRAMES + 1), _PARTIAL_STEP_FRAMES))
    if len(starts) > 1 and samples - starts[-1] * _HOP < _MIN_COVERAGE * _PARTIAL_FRAMES * _HOP:
        starts.pop()
    return starts


def raised(samples: Floats) -> Floats:
    """`samples` amplified to -30 dB of full scale when they are softer; louder ones and silence as they are."""
    rms = float(np.sqrt(np.mean(samples.astype(np.float64) ** 2)))
    gain = 10 ** (_TARGET_DBFS / 20) / rms if rms > 0 else 1.0
    louder: Floats = (samples * max(1.0, gain)).astype(np.float32)
    return louder


def _session(path: Path, *, threads: int) -> Any:
    import onnxruntime as ort

    settings = ort.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    return ort.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])


def _is_stale(source: Path, target: Path) -> bool:
    """Whether `target` was made by another conversion or from other weights; never without the weights at hand."""
    if not source.exists():
        return False
    import onnx

    try:
        found = {item.key: item.value for item in onnx.load(target).metadata_props}
    except Exception:  # cut off or no protobuf at all: made anew
        return True
    return found != _stamp(known_sha256(source))


def _stamp(source_sha256: str) -> dict[str, str]:
    return {"conversion": _CONVERSION, "source_sha256": source_sha256}


def _graph(weights: Mapping[str, Any], *, source_sha256: str) -> bytes:
    from onnx import TensorProto, checker, helper, numpy_helper

    constants: dict[str, NDArray[Any]] = {
        "lw": weights["linear.weight"],
        "lb": weights["linear.bias"],
        "floor": np.array([1e-9], np.float32),
        "axis0": np.array([0], np.int64),
        "axis1": np.array([1], np.int64),
    }
    nodes = [helper.make_node("Transpose", ["mels"], ["x0"], perm=[1, 0, 2])]
    for i in range(LAYERS):
        constants |= {f"{name}{i}": array for name, array in _lstm(weights, i).items()}
        inputs = [f"x{i}", f"w{i}", f"r{i}", f"b{i}"]
        nodes.append(helper.make_node("LSTM", inputs, [f"y{i}", f"h{i}"], hidden_size=HIDDEN))
        nodes.append(helper.make_node("Squeeze", [f"y{i}", "axis1"], [f"x{i + 1}"]))
    nodes.pop()  # nothing reads the last layer's sequence, only its final state
    nodes += [
        helper.make_node("Squeeze", [f"h{LAYERS - 1}", "axis0"], ["state"]),
        helper.make_node("Gemm", ["state", "lw", "lb"], ["linear"], transB=1),
        helper.make_node("Relu", ["linear"], ["positive"]),
        helper.make_node("ReduceL2", ["positive", "axis1"], ["norm"], keepdims=1),
        helper.make_node("Max", ["norm", "floor"], ["length"]),
        helper.make_node("Div", ["positive", "length"], ["embedding"]),
    ]
    graph = helper.make_graph(
        nodes,
        "ge2e_voice_encoder",
        [helper.make_tensor_value_info("mels", TensorProto.FLOAT, ["batch", "frames", MEL_BANDS])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", DIM])],
        [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, _stamp(source_sha256))
    checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString()
    return content


def _lstm(weights: Mapping[str, Any], layer: int) -> dict[str, Floats]:
    """A layer's weights as ONNX wants them: a leading direction axis and gates in the order i, o, f, c.

    PyTorch stacks the gates as i, f, c, o.
    """

    def reordered(name: str) -> Floats:
        i, f, c, o = np.split(weights[f"lstm.{name}_l{layer}"], 4)
        return np.concatenate([i, o, f, c])

    bias = np.concatenate([reordered("bias_ih"), reordered("bias_hh")])
    return {"w": reordered("weight_ih")[None], "r": reordered("weight_hh")[None], "b": bias[None]}
