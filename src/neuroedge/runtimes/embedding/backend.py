"""Opens a sentence encoder by the backend and layout that are fastest on this machine."""

import hashlib
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import structlog

from neuroedge.contract.errors import ModelUnavailable
from neuroedge.runtimes.device import cpu_features
from neuroedge.runtimes.embedding import calibration, llama, onnx, openvino
from neuroedge.runtimes.embedding.layout import Backend as Backend
from neuroedge.runtimes.embedding.layout import BackendName, EncoderOptions, Layout
from neuroedge.runtimes.embedding.layout import batches as batches
from neuroedge.runtimes.file_digest import known_sha256

log = structlog.get_logger(__name__)

LARGEST_CALIBRATED_BYTES: Final = 256 << 20
"""A larger model computes too few tokens a second to compare layouts within seconds; it gets the default."""
_LIBRARIES: Final[Mapping[BackendName, str]] = {
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "llama.cpp": "xllamacpp",
}
_FORMAT: Final = 1
"""Of the calibration; counts up when what is measured changes."""


def open_backend(
    model_id: str,
    folder: Path,
    *,
    threads: int,
    options: Mapping[str, Any],
    device: str = "cpu",
    calibration_dir: Path | None = None,
) -> Backend:
    """Load the encoder in `folder`, model.onnx or model.gguf (blocking).

    The first load on a machine measures for some seconds; what it finds is kept in `calibration_dir` until the
    weights, the processor, the threads, the options or a library change. The default layout is used without that
    folder, for a large model, while other work keeps the machine busy, and where there is nothing to choose (one
    thread, a GPU, llama.cpp). Options: those of EncoderOptions.

    Raises ModelUnavailable when the files do not load.
    """
    chosen = EncoderOptions.parse(model_id, options)
    graph = onnx.OnnxFile(model_id, folder, chosen, device=device) if (folder / onnx.FILE).is_file() else None

    def open_(layout: Layout) -> Backend:
        if graph is None or layout.backend == "llama.cpp":
            return llama.open_llama(model_id, folder, chosen, layout, device=device)
        return graph.open(layout) if layout.backend == "onnxruntime" else openvino.open_openvino(graph, layout)

    candidates = layouts(_backends(model_id, folder, chosen, graph), chosen, threads=threads, device=device)
    if calibration_dir is None or len(candidates) == 1 or _bytes(folder) > LARGEST_CALIBRATED_BYTES:
        return open_(candidates[0])
    store = calibration.Store(calibration_dir, model_id, _key(folder, chosen, candidates))
    if (found := store.read(candidates)) is not None:
        return open_(found)
    with store.lock():
        # Another process may have measured meanwhile.
        if (found := store.read(candidates)) is not None:
            return open_(found)
        budgets = calibration.BUDGETS if chosen.token_budget is None else ()
        backend, measured = calibration.fastest(candidates, open_, budgets=budgets)
        if measured:
            store.write(_layout_of(backend), measured)
    log.info("encoder_calibrated", model=model_id, layout=_layout_of(backend), busy=not measured)
    return backend


def _layout_of(backend: Backend) -> Layout:
    return Layout(
        backend=backend.name, workers=backend.workers, threads=backend.threads, token_budget=backend.token_budget
    )


def layouts(backends: Sequence[BackendName], options: EncoderOptions, *, threads: int, device: str) -> list[Layout]:
    """What may be tried, the default first: a thread for each of several batches, or all threads for one."""
    budget = {} if options.token_budget is None else {"token_budget": options.token_budget}
    found: list[Layout] = []
    for backend in backends:
        many = backend != "llama.cpp" and device == "cpu"
        counts = [options.workers] if options.workers and many else [threads, 1] if many else [1]
        for workers in dict.fromkeys(counts):
            found.append(Layout(backend=backend, workers=workers, threads=max(1, threads // workers), **budget))
    return found


def _backends(model_id: str, folder: Path, options: EncoderOptions, graph: onnx.OnnxFile | None) -> list[BackendName]:
    """Backends to try with what lies in `folder`, the usual one first. Raises ModelUnavailable when there is none."""
    possible: list[BackendName] = []
    if graph is not None:
        possible += ["onnxruntime", *(("openvino",) if openvino.available() else ())]
    if (folder / llama.FILE).is_file():
        possible.append("llama.cpp")
    if not possible:
        raise ModelUnavailable(
            f"{model_id}: neither {onnx.FILE} nor {llama.FILE} is there",
            hint=f"run `neuroedge models verify {model_id}`",
        )
    if options.backend is None:
        # A measurement must not decide what the vectors are: of several, only those that compute alike are tried.
        alike = graph is not None and graph.as_stored and "openvino" in possible
        return [possible[0], *(("openvino",) if alike else ())]
    if options.backend not in possible:
        raise ModelUnavailable(
            f"{model_id} cannot be computed by {options.backend}: its files or the library are missing",
            hint=f"what is there can be computed by {', '.join(possible)}",
        )
    return [options.backend]


def _weights(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("model.*") if path.is_file())


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in _weights(folder))


def _key(folder: Path, options: EncoderOptions, candidates: Sequence[Layout]) -> dict[str, Any]:
    """Everything a calibration depends on."""
    digest = hashlib.sha256()
    for path in _weights(folder):
        digest.update(bytes.fromhex(known_sha256(path)))
    cpu, features = cpu_features()
    return {
        "format": _FORMAT,
        "weights": digest.hexdigest(),
        "options": options.model_dump(),
        "cpu": cpu,
        "features": list(features),
        "layouts": [[c.backend, c.workers, c.threads] for c in candidates],
        "libraries": {c.backend: metadata.version(_LIBRARIES[c.backend]) for c in candidates},
    }
