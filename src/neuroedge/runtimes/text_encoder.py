"""Sentence encoders: texts to tokens, tokens through the batching queue to a backend that computes the vectors."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Literal, Protocol, runtime_checkable

import numpy as np

from neuroedge.contract import scope
from neuroedge.contract.errors import DeadlineExceeded, Unavailable
from neuroedge.contract.models import Embeddings, Floats, TokenStates
from neuroedge.runtimes.batcher import Batcher, Ids
from neuroedge.runtimes.embedding.backend import Backend, open_backend
from neuroedge.runtimes.embedding.layout import batches
from neuroedge.runtimes.threaded import Threaded

MAX_WAITING_TOKENS: Final = 65_536
"""Tokens that may wait for the encoder; about a minute of work on two cores."""
_READY_BATCHES: Final = 1
"""Batches put together ahead, so that no worker idles until the event loop has a turn for it."""
_INLINE_CHARS: Final = 4096
"""Texts up to this size are tokenised on the event loop where that takes less than a millisecond: so does a thread."""


@runtime_checkable
class TokenBackend(Protocol):
    """A backend that can show what its graph makes of each token, before pooling."""

    def token_states(self, ids: Sequence[Sequence[int]]) -> list[Floats]:
        """L2-normalised float32 vectors [len(ids[i]), width] of one batch; blocks."""
        ...


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
        # The batcher hands over a batch a worker and one more: what waits beyond, waits there, in tokens.
        super().__init__(model_id, workers=backend.workers, cores=backend.threads)
        self.dim = backend.dim
        self.max_tokens = backend.max_tokens
        self.method = backend.name
        self._backend: Backend | None = backend
        self._prefixes = dict(prefixes)
        self._token_budget = backend.token_budget
        self._workers = backend.workers
        self._inline_chars = _INLINE_CHARS if backend.quick_tokens else 0
        self._tokenising = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"{model_id}-tokens")
        self._batcher = Batcher(
            self._forward,
            token_budget=backend.token_budget,
            max_waiting_tokens=max_waiting_tokens,
            batches_under_way=backend.workers + _READY_BATCHES,
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
        if sum(map(len, prefixed)) <= self._inline_chars:
            ids = self._tokenise(prefixed)
        else:
            ids = await asyncio.get_running_loop().run_in_executor(self._tokenising, self._tokenise, prefixed)
        self.surroundings.on_phase(self.model_id, "tokenise", time.monotonic() - began)
        return Embeddings(vectors=await self._batcher.run(ids), tokens=[len(sequence) for sequence in ids])

    async def token_states(
        self, texts: Sequence[str], *, kind: Literal["query", "passage"] = "passage"
    ) -> list[TokenStates]:
        """What the encoder makes of every token of each text, in the order given.

        A call keeps at most the encoder's workers busy and takes turns with other callers batch by batch: the states
        of many texts are large, and what waits is only computed when it is wanted.

        Raises Unavailable where the backend only gives whole texts' vectors, Overloaded, DeadlineExceeded.
        """
        prefix = self._prefixes[kind]
        ids = await asyncio.get_running_loop().run_in_executor(
            self._tokenising, self._tokenise, [prefix + text for text in texts]
        )
        waiting = list(batches([len(sequence) for sequence in ids], token_budget=self._token_budget))
        found: dict[int, Floats] = {}
        for wave in range(0, len(waiting), self._workers):
            if scope.remaining_s(1.0) <= 0:
                raise DeadlineExceeded("the deadline passed between two batches of token states", hint="try again")
            side_by_side = waiting[wave : wave + self._workers]
            states = await asyncio.gather(*(self._states([ids[i] for i in batch]) for batch in side_by_side))
            for batch, vectors in zip(side_by_side, states, strict=True):
                found.update(zip(batch, vectors, strict=True))
        special = set(self._tokenise([""])[0])  # all that stands in an empty text
        kept = [[n for n, token in enumerate(sequence) if token not in special] for sequence in ids]
        return [
            TokenStates(ids=[ids[i][n] for n in positions], vectors=found[i][positions])
            for i, positions in enumerate(kept)
        ]

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

    async def _states(self, ids: list[list[int]]) -> list[Floats]:
        def compute() -> list[Floats]:
            if not isinstance(self._backend, TokenBackend):
                raise Unavailable(
                    f"{self.model_id} by {self.method} gives no states of its tokens",
                    hint="set its option backend = onnxruntime, or configure a model for the role rerank",
                )
            return self._backend.token_states(ids)

        return await self._in_thread(compute)

    async def _forward(self, ids: list[Ids], came: float) -> Floats:
        def compute() -> Floats:
            assert self._backend is not None
            return self._backend.forward(ids)

        return await self._in_thread(compute, since=came)
