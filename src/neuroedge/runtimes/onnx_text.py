"""Sentence encoders (all-MiniLM, E5, BGE, GTE …) as ONNX graphs over ONNX Runtime with a Hugging Face tokenizer.

Source of the default: Reimers & Gurevych 2019 (Sentence-BERT), all-MiniLM-L6-v2 with int8 weights. That graph widens
its weights to float32 before it computes, so a text gets the same vector alone and in any batch (largest difference
measured: 0). Batching pays little and padding costs: on two CPU cores 128 texts of 22 tokens on average ran at 212
texts/s one by one, at 262 in batches of 256 tokens and at 162 in batches of 4096; texts of 143 tokens at 32, 33 and 28.
So texts are sorted by length and a batch holds at most `token_budget` tokens, padding included.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from neuroedge.contract.errors import ModelUnavailable
from neuroedge.contract.models import Embeddings, Floats
from neuroedge.runtimes.threaded import Threaded

Pooling = Literal["mean", "cls", "last"]
DEFAULT_MAX_TOKENS: Final = 256
DEFAULT_TOKEN_BUDGET: Final = 256


def load(model_id: str, folder: Path, *, threads: int, options: Mapping[str, Any]) -> "OnnxTextEncoder":
    """Load folder/model.onnx with folder/tokenizer.json (blocking).

    Options: pooling (mean | cls | last), max_tokens, token_budget (padded tokens a batch), query_prefix,
    passage_prefix. Raises ModelUnavailable when the files do not load.
    """
    pooling = options.get("pooling", "mean")
    if pooling not in get_args(Pooling):
        raise ModelUnavailable(f"{model_id}: unknown pooling {pooling!r}", hint="use mean, cls or last")
    try:
        tokenizer, session = _open(folder, threads=threads)
    except Exception as error:  # both libraries raise bare exceptions of their own
        raise ModelUnavailable(
            f"{model_id} does not load: {error}", hint=f"run `neuroedge models verify {model_id}`"
        ) from error
    max_tokens = int(options.get("max_tokens", DEFAULT_MAX_TOKENS))
    # The file may ask for padding to a fixed length: batches are padded here, to their longest text only.
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    return OnnxTextEncoder(
        model_id,
        tokenizer=tokenizer,
        session=session,
        pooling=pooling,
        max_tokens=max_tokens,
        token_budget=int(options.get("token_budget", DEFAULT_TOKEN_BUDGET)),
        prefixes={"query": options.get("query_prefix", ""), "passage": options.get("passage_prefix", "")},
    )


def _open(folder: Path, *, threads: int) -> tuple[Any, Any]:
    import onnxruntime
    from tokenizers import Tokenizer

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.log_severity_level = 3
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    session = onnxruntime.InferenceSession(
        str(folder / "model.onnx"), sess_options=settings, providers=["CPUExecutionProvider"]
    )
    return tokenizer, session


class OnnxTextEncoder(Threaded):
    """A TextEncoder (contract/models.py) over one ONNX graph."""

    def __init__(
        self,
        model_id: str,
        *,
        tokenizer: Any,
        session: Any,
        pooling: Pooling,
        max_tokens: int,
        token_budget: int,
        prefixes: Mapping[str, str],
    ) -> None:
        super().__init__(model_id)
        self.max_tokens = max_tokens
        self.dim = int(session.get_outputs()[0].shape[-1])
        self._tokenizer = tokenizer
        self._session = session
        self._inputs = {i.name for i in session.get_inputs()}
        self._pooling = pooling
        self._token_budget = token_budget
        self._prefixes = prefixes

    async def encode(self, texts: Sequence[str], *, kind: Literal["query", "passage"] = "passage") -> Embeddings:
        """Embed `texts`; vectors float32 [len(texts), dim], in the order given."""
        return await self._in_thread(self._encode, texts, kind)

    def close(self) -> None:
        """Wait for the running batch and free the graph."""
        super().close()
        self._session = self._tokenizer = None

    def _encode(self, texts: Sequence[str], kind: str) -> Embeddings:
        prefix = self._prefixes[kind]
        ids = [e.ids for e in self._tokenizer.encode_batch([prefix + t for t in texts])]
        lengths = [len(i) for i in ids]
        vectors = np.empty((len(texts), self.dim), np.float32)
        for batch in batches(lengths, token_budget=self._token_budget):
            vectors[batch] = self._forward([ids[i] for i in batch])
        return Embeddings(vectors=vectors, tokens=lengths)

    def _forward(self, ids: Sequence[Sequence[int]]) -> Floats:
        padded, mask = _pad(ids)
        feed = {"input_ids": padded, "attention_mask": mask, "token_type_ids": np.zeros_like(padded)}
        states = self._session.run(None, {k: v for k, v in feed.items() if k in self._inputs})[0]
        pooled = _pool(states, mask, self._pooling)
        norms = np.linalg.norm(pooled, axis=1, keepdims=True)
        return np.asarray(pooled / np.maximum(norms, 1e-12), np.float32)


def batches(lengths: Sequence[int], *, token_budget: int) -> Iterator[list[int]]:
    """Indices of `lengths` in batches of similar length whose padded size stays within `token_budget`.

    A text longer than the budget gets a batch of its own.
    """
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        # Ascending order: the newcomer is the longest, so it sets the padded width.
        if batch and (len(batch) + 1) * lengths[i] > token_budget:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def _pad(ids: Sequence[Sequence[int]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    width = max(len(i) for i in ids)
    padded = np.zeros((len(ids), width), np.int64)
    mask = np.zeros_like(padded)
    for row, tokens in enumerate(ids):
        padded[row, : len(tokens)] = tokens
        mask[row, : len(tokens)] = 1
    return padded, mask


def _pool(states: Floats, mask: NDArray[np.int64], pooling: Pooling) -> Floats:
    """One vector a text [batch, dim] from token states [batch, tokens, dim]."""
    if pooling == "cls":
        return states[:, 0]
    if pooling == "last":
        last: Floats = states[np.arange(len(states)), mask.sum(axis=1) - 1]
        return last
    weights = mask[..., None].astype(np.float32)
    mean: Floats = (states * weights).sum(axis=1) / np.maximum(weights.sum(axis=1), 1.0)
    return mean
