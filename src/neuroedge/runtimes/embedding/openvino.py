"""Sentence encoders as ONNX graphs over OpenVINO, where the operator has installed it (`neuroedge[openvino]`)."""

import importlib
import importlib.util
import sys
import threading
from collections.abc import Sequence
from types import ModuleType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from neuroedge.contract.errors import ModelUnavailable
from neuroedge.contract.models import Floats
from neuroedge.runtimes.embedding.layout import BackendName, Layout
from neuroedge.runtimes.embedding.onnx import GraphInputs, OnnxFile, output_name, token_vectors, vectors
from neuroedge.runtimes.embedding.pooling import Integers, pad
from neuroedge.runtimes.embedding.tokens import Tokens

_A_SCALE_A_TOKEN: Final = str((1 << 64) - 1)
"""Group size of dynamic quantisation that is a token's whole row, so that no text's vector depends on another's."""
_TYPES: Final = {"i64": np.int64, "i32": np.int32, "f32": np.float32, "f16": np.float16, "boolean": np.bool_}


def available() -> bool:
    """Whether OpenVINO is installed."""
    return importlib.util.find_spec("openvino") is not None


def _openvino() -> ModuleType:
    """OpenVINO without its telemetry.

    Importing it reports to Intel through Google Analytics and writes a client id to the home directory, unasked. Its
    tools do without the reporting package when that cannot be imported.
    """
    if "openvino" not in sys.modules:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    return importlib.import_module("openvino")


def open_openvino(file: OnnxFile, layout: Layout) -> "OpenVinoBackend":
    """Compile the graph as it is stored. Raises ModelUnavailable."""
    ov = _openvino()
    as_stored = file.options.precision == "float32"
    settings = {
        "INFERENCE_NUM_THREADS": layout.workers * layout.threads,
        "NUM_STREAMS": layout.workers,
        "ENABLE_CPU_PINNING": False,
        # Narrower floats (where a processor has them) would make vectors depend on the batch.
        "INFERENCE_PRECISION_HINT": "f32",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0 if as_stored else _A_SCALE_A_TOKEN,
    }
    try:
        compiled = ov.Core().compile_model(str(file.path), "CPU", settings)
        return OpenVinoBackend(file, compiled, layout)
    except ModelUnavailable:
        raise
    except Exception as error:  # the library raises bare exceptions of its own
        raise ModelUnavailable(
            f"{file.model_id} does not load in OpenVINO: {error}", hint="set the model's option backend = onnxruntime"
        ) from error


class OpenVinoBackend:
    """A Backend over one compiled model, with one inference request a thread."""

    name: BackendName = "openvino"
    quick_tokens = True

    def __init__(self, file: OnnxFile, compiled: Any, layout: Layout) -> None:
        self.max_tokens = file.options.max_tokens
        self.token_budget = layout.token_budget
        self.workers = layout.workers
        self.threads = layout.threads
        self._options = file.options
        self._tokens: Tokens | None = file.tokens
        self._compiled = compiled
        self._requests = threading.local()
        self._inputs = GraphInputs(
            file.model_id,
            {
                port.any_name: (
                    [d.get_length() if d.is_static else -1 for d in port.partial_shape],
                    _TYPES[port.element_type.get_type_name()],
                )
                for port in compiled.inputs
            },
        )
        self._output = output_name([port.any_name for port in compiled.outputs], file.options.output)
        self.dim = self.forward([[file.tokens.pad_id]]).shape[1]

    def tokenise(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids, cut at `max_tokens`."""
        assert self._tokens is not None
        return self._tokens(texts)

    def forward(self, ids: Sequence[Sequence[int]]) -> Floats:
        """L2-normalised vectors of one batch."""
        states, mask = self._run(ids)
        return vectors(states, mask, self._options)

    def token_states(self, ids: Sequence[Sequence[int]]) -> list[Floats]:
        """What the graph makes of each token of one batch, before pooling: see `token_vectors`."""
        states, mask = self._run(ids)
        return token_vectors(states, mask)

    def _run(self, ids: Sequence[Sequence[int]]) -> tuple[NDArray[Any], Integers]:
        """The graph's output, valid until this thread's next run, and the mask."""
        assert self._tokens is not None
        if not hasattr(self._requests, "request"):
            self._requests.request = self._compiled.create_infer_request()
        padded, mask = pad(ids, pad_id=self._tokens.pad_id)
        self._requests.request.infer(self._inputs.feed(padded, mask))
        return self._requests.request.get_tensor(self._output).data, mask

    def close(self) -> None:
        """Free the graph."""
        self._requests = threading.local()
        self._compiled = self._tokens = None
