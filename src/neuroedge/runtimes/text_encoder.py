"""Sentence encoders: texts to tokens, tokens through the batching queue to a backend that computes the vectors."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from neuroedge.contract.models import Embeddings, Floats
from neuroedge.runtimes.batcher import Batcher, Ids
from neuroedge.runtimes.embedding.backend import Backend, open_backend
from neuroedge.runtimes.threaded import Threaded

MAX_WAITING_TOKENS: Final = 65_536
"""Tokens that may wait for the encoder; about a minute of work on two cores."""
_INLINE_CHARS: Final = 4096
"""Texts up to this size are tokenised on the event loop: that takes less than a millisecond, and so does a thread."""


def load(model_id: str, folder: Path, *, threads: int, options: Mapping[str, Any]) -> "BatchedTextEncoder":
    """Open the encoder in `folder` (blocking). Options: those of `open_backend`, query_prefix, passage_prefix,
    max_waiting_tokens. Raises ModelUnavailable when the files do not load."""
    calibration_dir = options.get("calibration_dir")
    backend = open_backend(
        model_id,
        folder,
        threads=threads,
        options=options,
        device=str(options.get("device", "cpu")),
        calibration_dir=Path(calibration_dir) if calibration_dir else None,
    )
    return BatchedTextEncoder(
        model_id,
        backend=backend,
        prefixes={"query": str(options.get("query_prefix", "")), "passage": str(options.get("passage_prefix", ""))},
        max_waiting_tokens=int(options.get("max_waiting_tokens", MAX_WAITING_TOKENS)),
    )


class BatchedTextEncoder(Threaded):
    """A TextEncoder (contract/models.py): callers at the same time share batches."""

    def __init__(
        self,
        model_id: str,
        *,
        backend: Backend,
        prefixes: Mapping[str, str],
        max_waiting_tokens: int = MAX_WAITING_TOKENS,
    ) -> None:
        # The batcher hands over one batch a worker: what waits, waits there, in tokens.
        super().__init__(model_id, workers=backend.workers, cores=backend.threads)
        self.dim = backend.dim
        self.max_tokens = backend.max_tokens
        self.method = backend.name
        self._backend: Backend | None = backend
        self._prefixes = dict(prefixes)
        self._tokenising = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"{model_id}-tokens")
        self._batcher = Batcher(
            self._forward,
            token_budget=backend.token_budget,
            max_waiting_tokens=max_waiting_tokens,
            workers=backend.workers,
        )

    async def encode(self, texts: Sequence[str], *, kind: Literal["query", "passage"] = "passage") -> Embeddings:
        """Embed `texts`; vectors float32 [len(texts), dim], L2-normalised, in the order given.

        Raises Overloaded when the queue is full, DeadlineExceeded.
        """
        if not texts:
            return Embeddings(vectors=np.zeros((0, self.dim), np.float32), tokens=[])
        began = time.monotonic()
        prefix = self._prefixes[kind]
        prefixed = [prefix + text for text in texts] if prefix else list(texts)
        if sum(map(len, prefixed)) <= _INLINE_CHARS:
            ids = self._tokenise(prefixed)
        else:
            ids = await asyncio.get_running_loop().run_in_executor(self._tokenising, self._tokenise, prefixed)
        self.surroundings.on_phase(self.model_id, "tokenise", time.monotonic() - began)
        return Embeddings(vectors=await self._batcher.run(ids), tokens=[len(sequence) for sequence in ids])

    def close(self) -> None:
        """Wait for the running batch and free the weights."""
        super().close()
        self._tokenising.shutdown(wait=True, cancel_futures=True)
        backend, self._backend = self._backend, None
        if backend is not None:
            backend.close()

    def _tokenise(self, texts: list[str]) -> list[list[int]]:
        assert self._backend is not None
        return self._backend.tokenise(texts)

    async def _forward(self, ids: list[Ids], came: float) -> Floats:
        def compute() -> Floats:
            assert self._backend is not None
            return self._backend.forward(ids)

        return await self._in_thread(compute, since=came)
