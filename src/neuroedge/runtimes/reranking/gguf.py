"""Rerankers as GGUF files (BGE, Jina, Qwen3-Reranker …) over llama.cpp, through the server engine of xllamacpp."""

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np

from neuroedge.contract.errors import ModelUnavailable, Unavailable
from neuroedge.contract.models import Floats
from neuroedge.runtimes.llama_library import llama_library
from neuroedge.runtimes.llama_server import parameters, started
from neuroedge.runtimes.reranking.gguf_header import tensor_names
from neuroedge.runtimes.threaded import Threaded

FILE: Final = "model.gguf"
MAX_TOKENS: Final = 512
"""Of query and passage together, with the model's template."""
MAX_WAITING_PASSAGES: Final = 512.0
_TEMPLATE_TOKENS: Final = 8
"""Room for the special tokens around and between the two texts."""
_SEQUENCES: Final = 8
"""Pairs llama.cpp computes together at most."""
_HEADS: Final = frozenset({"cls.weight", "cls.output.weight"})
"""The layers that make a score out of a text's state. Without one llama.cpp gives the state's first number instead."""


def load(model_id: str, folder: Path, *, threads: int, options: Mapping[str, Any]) -> "GgufReranker":
    """Load folder/model.gguf (blocking). Options: max_tokens (512), template_tokens (8; more where the file brings a
    chat template of its own). Raises ModelUnavailable when the file does not load or does not rank.
    """
    path, hint = folder / FILE, f"run `neuroedge models verify {model_id}`"
    if not path.is_file():
        raise ModelUnavailable(f"{model_id}: {FILE} is missing", hint=hint)
    _check_head(model_id, path, hint=hint)
    max_tokens, key = int(options.get("max_tokens", MAX_TOKENS)), secrets.token_urlsafe(32)
    gpu = str(options.get("device", "cpu")) != "cpu"
    try:
        server = _server(path, max_tokens=max_tokens, threads=threads, key=key, gpu=gpu)
    except RuntimeError as error:
        raise ModelUnavailable(f"{model_id} does not load: {error}", hint=hint) from error
    room = max_tokens - int(options.get("template_tokens", _TEMPLATE_TOKENS))
    return GgufReranker(model_id, server, key=key, room_tokens=room, threads=threads)


def _check_head(model_id: str, path: Path, *, hint: str) -> None:
    try:
        names = tensor_names(path)
    except (ValueError, OSError) as error:
        raise ModelUnavailable(f"{model_id} does not load: {error}", hint=hint) from error
    if not _HEADS & set(names):
        raise ModelUnavailable(
            f"{model_id} does not rank: its file has no ranking head", hint="it must be a reranker's GGUF file"
        )


def _server(path: Path, *, max_tokens: int, threads: int, key: str, gpu: bool) -> Any:
    params = parameters(path, threads=threads, gpu=gpu, key=key)
    params.embedding = True
    params.pooling_type = llama_library().llama_pooling_type.LLAMA_POOLING_TYPE_RANK
    # A pair must fit one batch as a whole: the model sees all of it at once.
    params.n_batch = params.n_ubatch = max_tokens
    params.n_parallel = _SEQUENCES
    params.kv_unified = True
    params.n_ctx = _SEQUENCES * max_tokens
    params.cache_ram_mib = 0
    params.n_threads_http = 1
    return started(params)


class GgufReranker(Threaded):
    """A Reranker (contract/models.py); one call is computed at a time, its passages side by side."""

    method: Final = "gguf-reranker"

    def __init__(self, model_id: str, server: Any, *, key: str, room_tokens: int, threads: int) -> None:
        super().__init__(model_id, cores=threads, max_waiting=MAX_WAITING_PASSAGES)
        self._server = server
        self._room_tokens = room_tokens
        self._http = httpx.Client(
            base_url=server.listening_address,
            headers={"Authorization": f"Bearer {key}"},
            timeout=60.0,
            trust_env=False,
        )
        try:
            self._score("a", ["b"])
        except Unavailable as error:
            self.close()
            raise ModelUnavailable(
                f"{model_id} does not rank: {error.detail}", hint="it must be a reranker's GGUF file"
            ) from error

    async def score(self, query: str, passages: Sequence[str]) -> Floats:
        """Relevance [len(passages)], 0 to 1, in the order given. Raises Overloaded, DeadlineExceeded, ModelFailed."""
        if not passages:
            return np.zeros(0, np.float32)
        return await self._in_thread(lambda: self._score(query, passages), cost=len(passages))

    def close(self) -> None:
        """Wait for the running call and free weights and context."""
        super().close()
        self._http.close()
        self._server = None

    def _score(self, query: str, passages: Sequence[str]) -> Floats:
        asked, taken = self._cut(query, self._room_tokens // 2)
        documents = [self._cut(passage, self._room_tokens - taken)[0] for passage in passages]
        try:
            answer = self._server.handle_rerank({"query": asked, "documents": documents})
        except RuntimeError as error:
            raise Unavailable(f"{self.model_id} failed: {error}") from error
        if "results" not in answer:
            raise Unavailable(f"{self.model_id} failed: {answer.get('error', answer)}")
        logits = np.empty(len(documents), np.float32)
        for row in answer["results"]:
            logits[int(row["index"])] = row["relevance_score"]
        return np.asarray(1 / (1 + np.exp(-np.clip(logits, -30, 30))), np.float32)

    def _cut(self, text: str, max_tokens: int) -> tuple[str, int]:
        """The beginning of `text` within `max_tokens`, and the tokens it takes."""
        tokens = self._post("/tokenize", {"content": text, "add_special": False})["tokens"]
        if len(tokens) <= max_tokens:
            return text, len(tokens)
        return str(self._post("/detokenize", {"tokens": tokens[:max_tokens]})["content"]), max_tokens

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        try:
            return self._http.post(path, json=body).raise_for_status().json()
        except httpx.HTTPError as error:
            raise Unavailable(f"{self.model_id} does not tokenise: {error}") from error
