"""Models that organisations trained, on ONNX Runtime: small graphs, few kept open, none shared between organisations.

The pool holds the platform's own models, pinned in its catalogue; these come and go with their owners' rows, so they
have a bounded cache of sessions of their own. A session is found by a key that names the organisation.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from threading import Lock
from typing import Any, Final

from numpy.typing import NDArray

from neuroedge.contract.errors import ModelFailed
from neuroedge.runtimes.threaded import Threaded

MAX_SESSIONS: Final = 16
MAX_BYTES: Final = 128 << 20
"""Of the graphs of all open sessions."""
_MAX_WAITING: Final = 32.0


class TabularSessions(Threaded):
    """OnnxGraphs (contract/trained.py) in one thread; the sessions used last are kept."""

    def __init__(self, *, max_sessions: int = MAX_SESSIONS, max_bytes: int = MAX_BYTES) -> None:
        super().__init__("trained-models", cores=1, max_waiting=_MAX_WAITING)
        self._max_sessions = max_sessions
        self._max_bytes = max_bytes
        self._kept: OrderedDict[str, tuple[Any, int]] = OrderedDict()
        """Session and bytes of its graph, by key, the one used last at the end."""
        self._lock = Lock()

    async def run(self, graph: bytes, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Outputs by name of a graph that is not kept. Raises ModelFailed, Overloaded."""
        return await self._in_thread(lambda: _outputs(_session(graph), inputs))

    async def run_kept(
        self, key: str, graph: Callable[[], Awaitable[bytes]], inputs: Mapping[str, NDArray[Any]]
    ) -> dict[str, NDArray[Any]]:
        """Likewise, of the graph of a key, asked for where no session of it is open."""
        with self._lock:
            found = self._kept.get(key)
        if found is None:
            content = await graph()
            found = (await self._in_thread(lambda: _session(content)), len(content))
        session = found[0]
        self._keep(key, found)
        return await self._in_thread(lambda: _outputs(session, inputs))

    def forget(self, key: str) -> None:
        """Close the session of a key; none is fine."""
        with self._lock:
            self._kept.pop(key, None)

    def kept(self) -> list[str]:
        """Keys of the open sessions, the one used last at the end."""
        with self._lock:
            return list(self._kept)

    async def aclose(self) -> None:
        """Wait for what runs, and close all sessions."""
        await asyncio.to_thread(self.close)
        with self._lock:
            self._kept.clear()

    def _keep(self, key: str, entry: tuple[Any, int]) -> None:
        with self._lock:
            self._kept[key] = entry
            self._kept.move_to_end(key)
            while len(self._kept) > 1 and (
                len(self._kept) > self._max_sessions or sum(b for _, b in self._kept.values()) > self._max_bytes
            ):
                self._kept.popitem(last=False)


def _session(graph: bytes) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(graph, sess_options=options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own exceptions share no public base
        raise ModelFailed(f"the trained model does not load: {error}", hint="train it again") from error


def _outputs(session: Any, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    names = [output.name for output in session.get_outputs()]
    wanted = {given.name for given in session.get_inputs()}
    return dict(zip(names, session.run(names, {k: v for k, v in inputs.items() if k in wanted}), strict=True))
