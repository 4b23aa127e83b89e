"""Sentence encoders as ONNX graphs over ONNX Runtime."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neuroedge.contract.errors import ModelUnavailable
from neuroedge.contract.models import Floats
from neuroedge.runtimes.onnx_text import DEFAULT_MAX_TOKENS, DEFAULT_TOKEN_BUDGET, _open, _pad, _pool


def open_onnx(model_id: str, folder: Path, *, threads: int, options: Mapping[str, Any]) -> "OnnxBackend":
    """Load folder/model.onnx with folder/tokenizer.json. Raises ModelUnavailable."""
    try:
        tokenizer, session = _open(folder, threads=threads)
    except Exception as error:  # both libraries raise bare exceptions of their own
        raise ModelUnavailable(
            f"{model_id} does not load: {error}", hint=f"run `neuroedge models verify {model_id}`"
        ) from error
    max_tokens = int(options.get("max_tokens", DEFAULT_MAX_TOKENS))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    return OnnxBackend(
        tokenizer=tokenizer,
        session=session,
        pooling=options.get("pooling", "mean"),
        max_tokens=max_tokens,
        token_budget=int(options.get("token_budget", DEFAULT_TOKEN_BUDGET)),
    )


class OnnxBackend:
    """A Backend over one ONNX Runtime session."""

    name = "onnxruntime"
    workers = 1

    def __init__(self, *, tokenizer: Any, session: Any, pooling: Any, max_tokens: int, token_budget: int) -> None:
        self.dim = int(session.get_outputs()[0].shape[-1])
        self.max_tokens = max_tokens
        self.token_budget = token_budget
        self._tokenizer = tokenizer
        self._session = session
        self._inputs = {i.name for i in session.get_inputs()}
        self._pooling = pooling

    def tokenise(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids, cut at `max_tokens`."""
        return [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]

    def forward(self, ids: Sequence[Sequence[int]]) -> Floats:
        """L2-normalised vectors of one batch."""
        padded, mask = _pad(ids)
        feed = {"input_ids": padded, "attention_mask": mask, "token_type_ids": np.zeros_like(padded)}
        states = self._session.run(None, {k: v for k, v in feed.items() if k in self._inputs})[0]
        pooled = _pool(states, mask, self._pooling)
        norms = np.linalg.norm(pooled, axis=1, keepdims=True)
        return np.asarray(pooled / np.maximum(norms, 1e-12), np.float32)

    def close(self) -> None:
        """Free the graph."""
        self._session = self._tokenizer = None
