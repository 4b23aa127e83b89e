"""Cross-encoders (Nogueira & Cho 2019) as ONNX graphs: BGE rerankers, MS MARCO MiniLM and others of their kind.

A folder holds model.onnx, a sequence classifier with one logit, and tokenizer.json with the model's template for pairs.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np

from neuroedge.contract.errors import ModelUnavailable
from neuroedge.contract.models import Floats
from neuroedge.runtimes.batcher import Batcher, Ids
from neuroedge.runtimes.embedding.layout import EncoderOptions, Layout
from neuroedge.runtimes.embedding.onnx import FILE, OnnxFile
from neuroedge.runtimes.embedding.pooling import pad
from neuroedge.runtimes.reranking.pairs import PairTokens, segments
from neuroedge.runtimes.threaded import Threaded

MAX_TOKENS: Final = 512
"""Of query and passage together, special tokens counted."""
TOKEN_BUDGET: Final = 1024
"""Padded tokens computed at once."""
MAX_WAITING_TOKENS: Final = 65_536


def load(model_id: str, folder: Path, *, threads: int, options: Mapping[str, Any]) -> "CrossEncoder":
    """Open the cross-encoder in `folder` (blocking).

    Options: max_tokens (512), token_budget (1024), max_waiting_tokens, output and precision (see EncoderOptions).
    Raises ModelUnavailable when the files do not load or are no cross-encoder.
    """
    chosen = EncoderOptions.parse(model_id, {"max_tokens": MAX_TOKENS, "token_budget": TOKEN_BUDGET, **options})
    if not (folder / FILE).is_file():
        raise ModelUnavailable(f"{model_id}: {FILE} is missing", hint=f"run `neuroedge models verify {model_id}`")
    return CrossEncoder(
        model_id,
        OnnxFile(model_id, folder, chosen, device=str(options.get("device", "cpu"))),
        PairTokens(model_id, folder, max_tokens=chosen.max_tokens),
        threads=threads,
        max_waiting_tokens=int(options.get("max_waiting_tokens", MAX_WAITING_TOKENS)),
    )


class CrossEncoder(Threaded):
    """A Reranker (contract/models.py): callers at the same time share batches."""

    method: Final = "cross-encoder"

    def __init__(
        self, model_id: str, file: OnnxFile, tokens: PairTokens, *, threads: int, max_waiting_tokens: int
    ) -> None:
        super().__init__(model_id, cores=threads)
        budget = file.options.token_budget or TOKEN_BUDGET
        self._tokens = tokens
        self._graph = file.classifier(Layout(backend="onnxruntime", workers=1, threads=threads, token_budget=budget))
        self._tokenising = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"{model_id}-tokens")
        self._batcher = Batcher(self._forward, token_budget=budget, max_waiting_tokens=max_waiting_tokens)

    async def score(self, query: str, passages: Sequence[str]) -> Floats:
        """Probabilities of relevance [len(passages)], 0 to 1, in the order given.

        Raises Overloaded when the queue is full, DeadlineExceeded, ModelFailed.
        """
        if not passages:
            return np.zeros(0, np.float32)
        began = time.monotonic()
        loop = asyncio.get_running_loop()
        pairs = await loop.run_in_executor(self._tokenising, self._tokens, query, passages)
        self.surroundings.on_phase(self.model_id, "tokenise", time.monotonic() - began)
        logits = (await self._batcher.run(pairs))[:, 0]
        return np.asarray(1 / (1 + np.exp(-np.clip(logits, -30, 30))), np.float32)

    def close(self) -> None:
        """Wait for the running batch and free the weights."""
        super().close()
        self._tokenising.shutdown(wait=True, cancel_futures=True)
        self._graph.close()

    async def _forward(self, pairs: list[Ids], came: float) -> Floats:
        def compute() -> Floats:
            padded, mask = pad(pairs, pad_id=2 * self._tokens.pad_id)
            return self._graph.logits(*segments(padded), mask)

        return await self._in_thread(compute, since=came)
