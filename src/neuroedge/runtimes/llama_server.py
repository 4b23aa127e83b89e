"""llama.cpp's server engine inside this process: the settings all models share, and a start that can be ended."""

import os
from pathlib import Path
from typing import Any, Final

from neuroedge.runtimes.llama_library import llama_library

_ALL_LAYERS: Final = 999
"""More than any model has: all go to the GPU."""
_QUIET: Final = -1
_VERBOSE: Final = 4


def parameters(path: Path, *, threads: int, gpu: bool, key: str) -> Any:
    """`CommonParams` for the GGUF file at `path`; its HTTP side, on loopback, asks for `key`."""
    params = llama_library().CommonParams()
    params.model.path = str(path)
    params.n_gpu_layers = _ALL_LAYERS if gpu else 0
    for cpu in (params.cpuparams, params.cpuparams_batch):
        cpu.n_threads = threads
        # Threads that spin while they wait starve the other models of a small machine.
        cpu.poll = 0
    params.warmup = False
    params.ui = False
    params.api_keys = [key]
    params.endpoint_metrics = True  # what `started` asks for
    # llama.cpp writes to stderr by itself; it is heard only where the operator asked for debug output.
    params.verbosity = _VERBOSE if os.environ.get("NEUROEDGE_LOG_LEVEL", "").lower() == "debug" else _QUIET
    return params


def started(params: Any) -> Any:
    """A `Server` for `parameters`, with its loop running. Raises RuntimeError when the model does not load.

    The constructor returns before llama.cpp's loop runs, and a server freed in that moment never ends: its order to
    stop is forgotten when the loop begins. The loop itself answers for the metrics, so their answer shows that it runs.
    """
    server = llama_library().Server(params)
    if "llamacpp:" not in (told := str(server.handle_metrics())):
        raise RuntimeError(f"llama.cpp tells no metrics: {told[:200]}")
    return server
