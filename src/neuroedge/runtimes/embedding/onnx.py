"""Sentence encoders as ONNX graphs over ONNX Runtime."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from neuroedge.contract.errors import ModelUnavailable, Unavailable
from neuroedge.contract.models import Floats
from neuroedge.runtimes.embedding import onnx_int8, onnx_simplify
from neuroedge.runtimes.embedding.layout import BackendName, EncoderOptions, Layout
from neuroedge.runtimes.embedding.pooling import Integers, pad, pool, unit
from neuroedge.runtimes.embedding.tokens import Tokens, read

FILE: Final = "model.onnx"
_STATES: Final = ("last_hidden_state", "token_embeddings", "hidden_states")
"""Names exporters give the token states [n, tokens, dim]."""
_LARGEST_REWRITTEN_BYTES: Final = 1 << 31
"""Protobuf's limit for a graph held in memory; larger ones are computed as they are stored."""
Feed = dict[str, NDArray[Any]]
Run = Callable[[Feed], NDArray[Any]]
Made = TypeVar("Made")


class OnnxFile:
    """folder/model.onnx, prepared once and opened in any layout."""

    def __init__(self, model_id: str, folder: Path, options: EncoderOptions, *, device: str) -> None:
        self.model_id = model_id
        self.path = folder / FILE
        self.options = options
        self._device = device

    @cached_property
    def tokens(self) -> Tokens:
        """The tokenizer beside the graph. Raises ModelUnavailable."""
        return read(self.model_id, self.path.parent, self.options)

    @cached_property
    def graph(self) -> str | bytes:
        """What to load: the file's path, or the graph rewritten to compute in int8. Raises ModelUnavailable."""
        if (
            self.options.precision == "float32"
            or self._device.startswith("cuda")
            or _bytes_of(self.path) > _LARGEST_REWRITTEN_BYTES
        ):
            return str(self.path)
        import onnx
        from google.protobuf.message import DecodeError, EncodeError

        try:
            stored = onnx.load(self.path, load_external_data=False)
            if self.options.precision == "auto" and not onnx_int8.stores_int8(stored):
                return str(self.path)
            onnx.load_external_data_for_model(stored, str(self.path.parent))
            onnx_simplify.simplify(stored)
            onnx_int8.rewrite(stored)
            return bytes(stored.SerializeToString())
        except (DecodeError, EncodeError, ValueError, KeyError, OSError) as error:
            raise _broken(self.model_id, error) from error

    @property
    def as_stored(self) -> bool:
        """Whether it is computed as it is stored. Raises ModelUnavailable."""
        return isinstance(self.graph, str)

    def open(self, layout: Layout) -> "OnnxBackend":
        """Load it into ONNX Runtime. Raises ModelUnavailable."""
        return self._opened(layout, OnnxBackend)

    def classifier(self, layout: Layout) -> "OnnxClassifier":
        """Load it as a sequence classifier with one logit. Raises ModelUnavailable."""
        return self._opened(layout, OnnxClassifier)

    def _opened(self, layout: Layout, make: "Callable[[OnnxFile, Any, Layout], Made]") -> "Made":
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = layout.threads
        settings.log_severity_level = 3
        # Threads that spin while they wait starve the other models of a small machine.
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            session = onnxruntime.InferenceSession(
                self.graph,
                sess_options=settings,
                providers=_providers(self._device, onnxruntime.get_available_providers()),
                # The fused operator is slower on a CPU than the addition and the normalisation it replaces.
                disabled_optimizers=["SkipLayerNormFusion"],
            )
            return make(self, session, layout)
        except ModelUnavailable:
            raise
        except Exception as error:  # the library raises bare exceptions of its own
            raise _broken(self.model_id, error) from error


def _broken(model_id: str, error: Exception) -> ModelUnavailable:
    return ModelUnavailable(f"{model_id} does not load: {error}", hint=f"run `neuroedge models verify {model_id}`")


def _bytes_of(path: Path) -> int:
    """Size of a graph with the files of its weights beside it (model.onnx_data, model.onnx.data)."""
    return sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))


def _providers(device: str, available: Sequence[str]) -> list[Any]:
    kind, _, index = device.partition(":")
    if kind == "cuda" and "CUDAExecutionProvider" in available:
        return [("CUDAExecutionProvider", {"device_id": int(index or 0)}), "CPUExecutionProvider"]
    return ["CPUExecutionProvider"]


class GraphInputs:
    """Makes what an exported graph asks for beside the token ids."""

    def __init__(self, model_id: str, shapes: Mapping[str, tuple[Sequence[Any], Any]]) -> None:
        """`shapes`: input name to (dimensions, numpy type). Raises ModelUnavailable for an input nobody knows."""
        self._shapes = shapes
        known = {"input_ids", "attention_mask", "token_type_ids", "position_ids", "use_cache_branch"}
        strange = [n for n in shapes if n not in known and not n.startswith("past_key_values")]
        if "input_ids" not in shapes or strange:
            raise ModelUnavailable(
                f"{model_id} is no text encoder: its inputs are {', '.join(shapes)}",
                hint="export the model for feature extraction",
            )

    def feed(self, padded: Integers, mask: Integers) -> Feed:
        """Inputs of one batch."""
        return {name: self._value(name, padded, mask) for name in self._shapes}

    def _value(self, name: str, padded: Integers, mask: Integers) -> NDArray[Any]:
        dims, kind = self._shapes[name]
        if name == "input_ids":
            return np.asarray(padded, kind)
        if name == "attention_mask":
            return np.asarray(mask, kind)
        if name == "position_ids":
            return np.asarray(np.maximum(mask.cumsum(axis=1) - 1, 0), kind)
        if name == "token_type_ids":
            return np.zeros(padded.shape, kind)
        if name == "use_cache_branch":
            return np.zeros(1, kind)
        # A generating model's cache: [batch, heads, 0 tokens so far, head size].
        return np.zeros((len(padded), int(dims[1]), 0, int(dims[3])), kind)


class OnnxBackend:
    """A Backend over one ONNX Runtime session, which may run in several threads at once."""

    name: BackendName = "onnxruntime"
    quick_tokens = True

    def __init__(self, file: OnnxFile, session: Any, layout: Layout) -> None:
        self.max_tokens = file.options.max_tokens
        self.token_budget = layout.token_budget
        self.workers = layout.workers
        self.threads = layout.threads
        self._options = file.options
        self._tokens: Tokens | None = file.tokens
        self._session = session
        self._inputs = GraphInputs(file.model_id, {i.name: (i.shape, _TYPES[i.type]) for i in session.get_inputs()})
        self._output = output_name([o.name for o in session.get_outputs()], file.options.output)
        # Graphs do not always state their width: one short run tells.
        self.dim = self.forward([[file.tokens.pad_id]]).shape[1]

    def tokenise(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids, cut at `max_tokens`."""
        assert self._tokens is not None
        return self._tokens(texts)

    def forward(self, ids: Sequence[Sequence[int]]) -> Floats:
        """L2-normalised vectors of one batch."""
        assert self._tokens is not None
        padded, mask = pad(ids, pad_id=self._tokens.pad_id)
        (states,) = self._session.run([self._output], self._inputs.feed(padded, mask))
        return vectors(states, mask, self._options)

    def token_states(self, ids: Sequence[Sequence[int]]) -> list[Floats]:
        """What the graph makes of each token of one batch, before pooling: see `token_vectors`."""
        assert self._tokens is not None
        padded, mask = pad(ids, pad_id=self._tokens.pad_id)
        (states,) = self._session.run([self._output], self._inputs.feed(padded, mask))
        return token_vectors(states, mask)

    def close(self) -> None:
        """Free the graph."""
        self._session = self._tokens = None


class OnnxClassifier:
    """A graph that gives one logit a sequence, such as a cross-encoder's; for any number of threads."""

    def __init__(self, file: OnnxFile, session: Any, layout: Layout) -> None:
        self._session = session
        self._model_id = file.model_id
        self._inputs = GraphInputs(file.model_id, {i.name: (i.shape, _TYPES[i.type]) for i in session.get_inputs()})
        names = [output.name for output in session.get_outputs()]
        self._output = file.options.output or ("logits" if "logits" in names else names[0])
        token = np.zeros((1, 1), np.int64)
        self.logits(token, token, token + 1)

    def logits(self, ids: Integers, segments: Integers, mask: Integers) -> Floats:
        """float32 [n, 1] for a padded batch [n, tokens]. Raises ModelUnavailable for a graph with other outputs."""
        feed = self._inputs.feed(ids, mask)
        if "token_type_ids" in feed:
            feed["token_type_ids"] = segments.astype(feed["token_type_ids"].dtype)
        (logits,) = self._session.run([self._output], feed)
        if logits.shape != (len(ids), 1):
            raise ModelUnavailable(
                f"{self._model_id} is no cross-encoder: {self._output} has the shape {list(logits.shape)}",
                hint="export a sequence classifier with one label",
            )
        return np.asarray(logits, np.float32)

    def close(self) -> None:
        """Free the graph."""
        self._session = None


def vectors(states: NDArray[Any], mask: Integers, options: EncoderOptions) -> Floats:
    """Unit vectors from a graph's output: token states, or vectors it has pooled itself."""
    pooled = states if states.ndim == 2 else pool(np.asarray(states, np.float32), mask, options.pooling or "mean")
    return unit(pooled, dims=options.dims)


def token_vectors(states: NDArray[Any], mask: Integers) -> list[Floats]:
    """L2-normalised float32 vectors [tokens, width] of each text, special tokens among them, padding not.

    Raises Unavailable when the graph's output is one vector a text.
    """
    if states.ndim == 2:
        raise Unavailable(
            "the encoder gives one vector a text, none for its tokens", hint="set the model's option output"
        )
    return [unit(text[:length]) for text, length in zip(states, mask.sum(axis=1), strict=True)]


def output_name(names: Sequence[str], wanted: str | None) -> str:
    """The output to use of those a graph has. Raises ValueError."""
    if wanted is not None:
        if wanted not in names:
            raise ValueError(f"there is no output {wanted!r}, only {', '.join(names)}")
        return wanted
    return next((name for name in _STATES if name in names), names[0])


_TYPES: Final[Mapping[str, Any]] = {
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(bool)": np.bool_,
}
