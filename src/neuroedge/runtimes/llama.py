"""GGUF language models over llama.cpp, through the server engine that `xllamacpp` binds into the process.

The server's request queue, prompt cache and grammar-constrained sampling are used directly; its HTTP side serves one
purpose, tokenising (the bindings have no call for it), so it listens on the loopback interface with a random key.
"""

import asyncio
import contextlib
import os
import secrets
from collections.abc import AsyncGenerator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any, Final

import httpx

from neuroedge.contract.chat import ChatDelta, ChatRequest
from neuroedge.contract.errors import (
    ContextTooLong,
    InvalidInput,
    ModelFailed,
    ModelUnavailable,
    NeuroEdgeError,
    Unavailable,
)
from neuroedge.runtimes.device import CPU, split
from neuroedge.runtimes.threaded import Threaded

DEFAULT_CONTEXT_TOKENS: Final = 4096
DEFAULT_CACHE_MIB: Final = 128
"""Memory for computed prompts, so that two prompts used in turn are not computed anew each time."""
PROMPT_BATCH_TOKENS: Final = 256
"""Tokens of a prompt computed in one go: the longest work a cancelled request still finishes."""
MAX_WAITING_TOKENS: Final = 4096.0
"""Tokens of prompts and answers that may wait; beyond that a caller is told to come back."""
ALL_LAYERS: Final = 999
_CHARS_PER_TOKEN: Final = 4
_QUIET: Final = -1
_VERBOSE: Final = 4
Chunk = dict[str, Any]


def load(model_id: str, folder: Path, *, threads: int, options: Mapping[str, Any]) -> "LlamaChat":
    """Load folder/model.gguf (blocking). Options: n_ctx (tokens of prompt and answer together), cache_mib.

    Raises ModelUnavailable when the file is missing or no GGUF model.
    """
    context_tokens = int(options.get("n_ctx", DEFAULT_CONTEXT_TOKENS))
    cache_mib = int(options.get("cache_mib", DEFAULT_CACHE_MIB))
    key = secrets.token_urlsafe(32)
    path = folder / "model.gguf"
    hint = f"run `neuroedge models verify {model_id}`"
    if not path.is_file():
        raise ModelUnavailable(f"{model_id}: model.gguf is missing", hint=hint)
    device = str(options.get("device", CPU))
    try:
        server = _server(
            path, threads=threads, context_tokens=context_tokens, cache_mib=cache_mib, key=key, device=device
        )
    except RuntimeError as error:
        raise ModelUnavailable(f"{model_id} does not load: {error}", hint=hint) from error
    chat = LlamaChat(model_id, server=server, context_tokens=context_tokens, key=key)
    # The constructor returns before llama.cpp's threads run, and a server freed in that moment never ends.
    chat.count("")
    return chat


def _server(path: Path, *, threads: int, context_tokens: int, cache_mib: int, key: str, device: str) -> Any:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    kind, index = split(device)
    # Fitting layers to the device's memory loads the model several times; the pool has already made room for it.
    params.fit_params = False
    params.n_gpu_layers = 0 if kind == CPU else ALL_LAYERS
    params.main_gpu = index
    params.n_ctx = context_tokens
    params.n_parallel = 1
    params.n_batch = params.n_ubatch = PROMPT_BATCH_TOKENS
    for cpu in (params.cpuparams, params.cpuparams_batch):
        cpu.n_threads = threads
        # Threads that spin while they wait starve the other models of a small machine.
        cpu.poll = 0
    params.cache_ram_mib = cache_mib
    params.warmup = False
    params.ui = False
    params.api_keys = [key]
    params.n_threads_http = 2
    # llama.cpp writes to stderr by itself; it is heard only where the operator asked for debug output.
    params.verbosity = _VERBOSE if os.environ.get("NEUROEDGE_LOG_LEVEL", "").lower() == "debug" else _QUIET
    return xllamacpp.Server(params)


class LlamaChat(Threaded):
    """A ChatModel (contract/models.py) over one llama.cpp context; requests wait for each other."""

    def __init__(self, model_id: str, *, server: Any, context_tokens: int, key: str) -> None:
        super().__init__(model_id, max_waiting=MAX_WAITING_TOKENS)
        self.context_tokens = context_tokens
        self._server = server
        # Counting must not wait behind a generation, so it has a thread of its own.
        self._counting = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"{model_id}-tokens")
        self._http = httpx.Client(
            base_url=server.listening_address,
            headers={"Authorization": f"Bearer {key}"},
            timeout=30.0,
            trust_env=False,
        )

    async def stream(self, request: ChatRequest) -> AsyncGenerator[ChatDelta, None]:
        """Generate; leaving the iterator stops llama.cpp at its next token or prompt batch.

        Raises ContextTooLong when the prompt does not fit `context_tokens`.
        """
        finish: Any = None
        async with contextlib.aclosing(self._chunks(_request(request))) as chunks:
            async for chunk in chunks:
                if "error" in chunk:
                    raise _refusal(chunk["error"])
                choice = chunk["choices"][0] if chunk.get("choices") else {}
                finish = choice.get("finish_reason") or finish
                if text := choice.get("delta", {}).get("content"):
                    yield ChatDelta(text=text)
                if usage := chunk.get("usage"):
                    yield ChatDelta(
                        text="",
                        finish_reason=finish,
                        prompt_tokens=usage["prompt_tokens"],
                        completion_tokens=usage["completion_tokens"],
                    )

    async def count_tokens(self, text: str) -> int:
        """Tokens `text` takes in this model's vocabulary, without the chat template's own."""
        return await asyncio.get_running_loop().run_in_executor(self._counting, self.count, text)

    def close(self) -> None:
        """Wait for the running generation and free weights and context."""
        super().close()
        self._counting.shutdown(wait=True, cancel_futures=True)
        self._http.close()
        self._server = None

    def count(self, text: str) -> int:
        """Like `count_tokens`, blocking."""
        try:
            answer = self._http.post("/tokenize", json={"content": text, "add_special": False}).raise_for_status()
        except httpx.HTTPError as error:
            raise Unavailable(f"{self.model_id} does not tokenise: {error}") from error
        return len(answer.json()["tokens"])

    async def _chunks(self, request: Chunk) -> AsyncGenerator[Chunk, None]:
        """What llama.cpp answers, from its thread to this loop; leaving the iterator cancels it."""
        queue: asyncio.Queue[Chunk | None] = asyncio.Queue()
        cancelled = Event()
        tell = _teller(asyncio.get_running_loop(), queue)

        def on_chunk(chunk: Chunk) -> bool:
            self._alive()
            return cancelled.is_set() or not tell(chunk)

        def work() -> None:
            if not cancelled.is_set():
                self._server.handle_chat_completions(request, on_chunk)

        future = self._submit(work, cost=_cost(request))
        future.add_done_callback(lambda _: tell(None))
        try:
            while (chunk := await queue.get()) is not None:
                yield chunk
            if future.cancelled():
                raise ModelFailed(f"{self.model_id} hung and was given up", model_id=self.model_id, hint="try again")
            future.result()
        finally:
            cancelled.set()
            future.cancel()


def _cost(request: Chunk) -> float:
    """Roughly the tokens a request takes; exact counting would cost a round trip."""
    prompt = sum(len(message["content"]) for message in request["messages"])
    return float(prompt / _CHARS_PER_TOKEN + request["max_tokens"])


def _teller(loop: asyncio.AbstractEventLoop, queue: asyncio.Queue[Chunk | None]) -> Callable[[Chunk | None], bool]:
    def tell(chunk: Chunk | None) -> bool:
        try:
            loop.call_soon_threadsafe(queue.put_nowait, chunk)
        except RuntimeError:  # the loop was closed: nobody listens any more
            return False
        return True

    return tell


def _request(asked: ChatRequest) -> Chunk:
    request: Chunk = {
        "messages": [{"role": m.role, "content": m.content} for m in asked.messages],
        "max_tokens": asked.max_tokens,
        "temperature": asked.temperature,
        "stream": True,
        "stream_options": {"include_usage": True},
        # A report after every prompt batch is also the chance to cancel there.
        "return_progress": True,
    }
    if asked.seed is not None:
        request["seed"] = asked.seed
    if asked.stop:
        request["stop"] = list(asked.stop)
    if asked.json_schema is not None:
        schema = {"name": "answer", "schema": asked.json_schema}
        request["response_format"] = {"type": "json_schema", "json_schema": schema}
    return request


def _refusal(error: Mapping[str, Any]) -> NeuroEdgeError:
    if error.get("type") == "exceed_context_size_error":
        return ContextTooLong(
            f"the prompt takes {error.get('n_prompt_tokens')} tokens, the model's context holds {error.get('n_ctx')}",
            hint="send less text or history, or raise the model's n_ctx",
        )
    if int(error.get("code", 500)) < 500:
        return InvalidInput(f"the model refused the request: {error.get('message')}")
    return Unavailable(f"the model failed: {error.get('message')}")
