"""Sentence encoders as GGUF files (BERT, XLM-R, Qwen3 …) over llama.cpp, through the server engine of xllamacpp."""

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np

from neuroedge.contract.errors import ModelUnavailable, Unavailable
from neuroedge.contract.models import Floats
from neuroedge.runtimes.embedding import tokens
from neuroedge.runtimes.embedding.layout import BackendName, EncoderOptions, Layout, batches
from neuroedge.runtimes.embedding.pooling import unit
from neuroedge.runtimes.llama_library import llama_library
from neuroedge.runtimes.llama_server import parameters, started

FILE: Final = "model.gguf"
_SEQUENCES: Final = 32
"""Texts llama.cpp computes together at most."""
_SPARE_TOKENS: Final = 64
"""Room of the context beyond a batch; a text that fills it to the last token is refused."""


def open_llama(model_id: str, folder: Path, options: EncoderOptions, layout: Layout, *, device: str) -> "LlamaBackend":
    """Load folder/model.gguf. Raises ModelUnavailable.

    With folder/tokenizer.json beside it texts are tokenised by that, else by the tokenizer inside the GGUF.
    """
    path = folder / FILE
    hint = f"run `neuroedge models verify {model_id}`"
    if not path.is_file():
        raise ModelUnavailable(f"{model_id}: {FILE} is missing", hint=hint)
    key = secrets.token_urlsafe(32)
    own = tokens.read(model_id, folder, options) if (folder / "tokenizer.json").is_file() else None
    try:
        server = _server(path, options, layout, key=key, gpu=device != "cpu")
    except RuntimeError as error:
        raise ModelUnavailable(f"{model_id} does not load: {error}", hint=hint) from error
    return LlamaBackend(model_id, server, options, layout, key=key, own=own)


def _server(path: Path, options: EncoderOptions, layout: Layout, *, key: str, gpu: bool) -> Any:
    params = parameters(path, threads=layout.threads, gpu=gpu, key=key)
    params.embedding = True
    pooling = (options.pooling or "unspecified").upper()
    params.pooling_type = llama_library().llama_pooling_type[f"LLAMA_POOLING_TYPE_{pooling}"]
    # A text must fit one batch as a whole: encoders see all of it at once.
    params.n_batch = params.n_ubatch = _batch_tokens(options, layout)
    params.n_parallel = _SEQUENCES
    params.kv_unified = True
    params.n_ctx = params.n_batch + _SPARE_TOKENS
    params.cache_ram_mib = 0
    params.n_threads_http = 1
    return started(params)


def _batch_tokens(options: EncoderOptions, layout: Layout) -> int:
    """Tokens llama.cpp computes at once at most."""
    return max(layout.token_budget, options.max_tokens)


class LlamaBackend:
    """A Backend over one llama.cpp context."""

    name: BackendName = "llama.cpp"

    def __init__(
        self,
        model_id: str,
        server: Any,
        options: EncoderOptions,
        layout: Layout,
        *,
        key: str,
        own: tokens.Tokens | None,
    ) -> None:
        self.max_tokens = options.max_tokens
        self.token_budget = layout.token_budget
        self.workers = layout.workers
        self.threads = layout.threads
        self.quick_tokens = own is not None  # else llama.cpp's server is asked, text by text
        self._model_id = model_id
        self._options = options
        self._server = server
        self._own = own
        self._http = httpx.Client(
            base_url=server.listening_address,
            headers={"Authorization": f"Bearer {key}"},
            timeout=60.0,
            trust_env=False,
        )
        self._batch_tokens = _batch_tokens(options, layout)
        self._end: list[int] = []
        try:
            if own is None and options.append_token is not None:
                self._end = self._ids(options.append_token, special=False)
            self.dim = unit(self._embed(self.tokenise(["a"])), dims=options.dims).shape[1]
        except Unavailable as error:
            self.close()
            raise ModelUnavailable(
                f"{model_id} does not embed: {error.detail}",
                hint="it must be an embedding model; the option pooling is mean, cls or last",
            ) from error

    def tokenise(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids, cut at `max_tokens` with the model's last special token kept."""
        if self._own is not None:
            return self._own(texts)
        return [self._cut(self._ids(text, special=True)) for text in texts]

    def forward(self, ids: Sequence[Sequence[int]]) -> Floats:
        """L2-normalised vectors of one batch, in steps when it is larger than llama.cpp's. Raises Unavailable."""
        vectors = np.empty((len(ids), self.dim), np.float32)
        for group in batches([len(sequence) for sequence in ids], token_budget=self._batch_tokens):
            vectors[group] = unit(self._embed([list(ids[i]) for i in group]), dims=self._options.dims)
        return vectors

    def _embed(self, ids: list[list[int]]) -> Floats:
        try:
            answer = self._server.handle_embeddings({"input": ids})
        except RuntimeError as error:
            raise Unavailable(f"{self._model_id} failed: {error}") from error
        if "data" not in answer:
            raise Unavailable(f"{self._model_id} failed: {answer.get('error', answer)}")
        rows = [row["embedding"] for row in sorted(answer["data"], key=lambda row: int(row["index"]))]
        if isinstance(rows[0][0], list):
            raise Unavailable(f"{self._model_id} gives a vector a token: its file does not say how to pool them")
        return np.asarray(rows, np.float32)

    def close(self) -> None:
        """Free weights and context."""
        self._http.close()
        self._server = None

    def _ids(self, text: str, *, special: bool) -> list[int]:
        body = {"content": text, "add_special": special, "parse_special": not special}
        try:
            answer = self._http.post("/tokenize", json=body).raise_for_status()
        except httpx.HTTPError as error:
            raise Unavailable(f"{self._model_id} does not tokenise: {error}") from error
        return [int(token) for token in answer.json()["tokens"]]

    def _cut(self, ids: list[int]) -> list[int]:
        if self._end and ids[-1:] != self._end:
            ids = [*ids, *self._end]
        if len(ids) > self.max_tokens:
            ids = [*ids[: self.max_tokens - 1], ids[-1]]
        return ids
