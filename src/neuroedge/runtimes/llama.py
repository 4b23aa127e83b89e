"""GGUF language models over llama.cpp, through the server engine that `xllamacpp` binds into the process.

The server's request queue, prompt cache and grammar-constrained sampling are used directly; its HTTP side serves one
purpose, tokenising (the bindings have no call for it), so it listens on the loopback interface with a random key.
"""

import asyncio
import contextlib
import secrets
import ssl
from collections.abc import AsyncGenerator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from threading import Event
from typing import Any, Final

import httpx

from neuroedge.contract.chat import ChatDelta, ChatRequest
from neuroedge.contract.errors import InvalidInput, ModelFailed, ModelUnavailable, Unavailable
from neuroedge.contract.models import Priority
from neuroedge.runtimes import memory
from neuroedge.runtimes.device import CPU, split
from neuroedge.runtimes.llama_answer import Answer, Chunk, Mailbox, says_something
from neuroedge.runtimes.llama_request import Question, question
from neuroedge.runtimes.llama_server import parameters, started
from neuroedge.runtimes.shared_cores import SharedCores
from neuroedge.runtimes.shared_room import SharedRoom
from neuroedge.runtimes.threaded import Threaded

DEFAULT_CONTEXT_TOKENS: Final = 4096
DEFAULT_PARALLEL: Final = 4
"""Answers written at the same time."""
DEFAULT_CACHE_MIB: Final = 128
"""Memory for computed prompts, so that two prompts used in turn are not computed anew each time."""
PROMPT_BATCH_TOKENS: Final = 256
"""Tokens of a prompt computed in one go: the longest work a cancelled request still finishes."""
PROMPTS_AT_ONCE: Final = 2
"""Prompts a processor is given at a time: the one it computes and the next. Several computed together take as long as
one after the other, and then the first words of all come when those of the last do."""
MAX_WAITING_TOKENS: Final = 4096.0
"""Tokens of prompts and answers that may wait; beyond that a caller is told to come back."""


def load(model_id: str, folder: Path, *, threads: int, options: Mapping[str, Any]) -> "LlamaChat":
    """Load folder/model.gguf (blocking).

    Options: n_ctx (tokens of prompt and answer together; all requests that run share so much memory), parallel
    (answers written at the same time), cache_mib.

    Raises ModelUnavailable when the file is missing or no GGUF model.
    """
    context_tokens = int(options.get("n_ctx", DEFAULT_CONTEXT_TOKENS))
    parallel = max(1, int(options.get("parallel", DEFAULT_PARALLEL)))
    path = folder / "model.gguf"
    hint = f"run `neuroedge models verify {model_id}`"
    if not path.is_file():
        raise ModelUnavailable(f"{model_id}: model.gguf is missing", hint=hint)
    key = secrets.token_urlsafe(32)
    kind, index = split(str(options.get("device", CPU)))
    params = _params(path, kind=kind, index=index, threads=threads, key=key)
    params.n_ctx = context_tokens
    params.n_parallel = parallel
    # A connection that is kept keeps a thread: one for each stream's own counting, one for everybody's.
    params.n_threads_http = parallel + 2
    # One memory for all streams: a long prompt may use the whole of it.
    params.kv_unified = True
    params.cache_ram_mib = int(options.get("cache_mib", DEFAULT_CACHE_MIB))
    try:
        with memory.large_steps():
            server = started(params)
    except RuntimeError as error:
        raise ModelUnavailable(f"{model_id} does not load: {error}", hint=hint) from error
    prompts = PROMPTS_AT_ONCE if kind == CPU else parallel
    return LlamaChat(
        model_id, server=server, context_tokens=context_tokens, parallel=parallel, prompts=prompts, key=key
    )


def _params(path: Path, *, kind: str, index: int, threads: int, key: str) -> Any:
    params = parameters(path, threads=threads, gpu=kind != CPU, key=key)
    # Fitting layers to the device's memory loads the model several times; the pool has already made room for it.
    params.fit_params = False
    params.main_gpu = index
    params.n_batch = params.n_ubatch = PROMPT_BATCH_TOKENS
    return params


class LlamaChat(Threaded):
    """A ChatModel (contract/chat.py) over one llama.cpp context that writes several answers at the same time."""

    def __init__(
        self, model_id: str, *, server: Any, context_tokens: int, parallel: int, prompts: int, key: str
    ) -> None:
        super().__init__(model_id, workers=parallel, max_waiting=MAX_WAITING_TOKENS)
        self.context_tokens = context_tokens
        self._server = server
        self._room, self._prompts = SharedRoom(context_tokens), SharedRoom(prompts)
        self._shared = SharedCores()
        # Counting must not wait behind a generation, so it has a thread of its own.
        self._counting = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"{model_id}-tokens")
        self._http = httpx.Client(
            base_url=server.listening_address,
            headers={"Authorization": f"Bearer {key}"},
            timeout=30.0,
            limits=httpx.Limits(max_connections=parallel + 1),
            trust_env=False,
            # Reading the authorities' certificates takes 20 to 50 ms, and loopback has no TLS.
            verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
        )
        self._knows_tools = bool(self._loopback("GET", "/props").get("chat_template_caps", {}).get("supports_tools"))

    async def stream(self, request: ChatRequest) -> AsyncGenerator[ChatDelta, None]:
        """Generate; leaving the iterator stops llama.cpp at its next token or prompt batch.

        Raises ContextTooLong when the prompt does not fit `context_tokens`, InvalidInput for images, a schema that is
        none, a tool_choice without its tool.
        """
        asked = question(request, knows_tools=self._knows_tools)
        answer = Answer(reader=asked.reader, top_logprobs=request.logprobs or 0)
        async with contextlib.aclosing(self._chunks(asked)) as batches:
            async for chunks in batches:
                for delta in answer.deltas(chunks):
                    yield delta
                if answer.cut:
                    return

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
        return len(self._loopback("POST", "/tokenize", json={"content": text, "add_special": False})["tokens"])

    def _cores(self, priority: Priority) -> AbstractContextManager[None]:
        # The streams share llama.cpp's threads, which go on whether or not who reads the answer steps aside.
        return self._shared.using(self.surroundings.cores, self.surroundings.threads, priority=priority)

    def _loopback(self, method: str, path: str, **what: Any) -> Any:
        try:
            return self._http.request(method, path, **what).raise_for_status().json()
        except httpx.HTTPError as error:
            raise Unavailable(f"{self.model_id} does not answer on {path}: {error}") from error

    async def _chunks(self, asked: Question) -> AsyncGenerator[list[Chunk], None]:
        """What llama.cpp answers, from its thread to this loop; leaving the iterator cancels it."""
        mailbox = Mailbox(asyncio.get_running_loop())
        cancelled = Event()
        future = self._submit(lambda: self._answer(asked, mailbox, cancelled), cost=asked.cost)
        future.add_done_callback(lambda _: mailbox.put(None))
        try:
            ended = False
            while not ended:
                chunks = await mailbox.get()
                ended = chunks[-1] is None
                yield [chunk for chunk in chunks if chunk is not None]
            if future.cancelled():
                raise ModelFailed(f"{self.model_id} hung and was given up", model_id=self.model_id, hint="try again")
            future.result()
        finally:
            cancelled.set()
            future.cancel()
            self._room.wake()
            self._prompts.wake()

    def _answer(self, asked: Question, mailbox: Mailbox, cancelled: Event) -> None:
        """In a worker: wait for room and for the prompt's turn, which the first chunk ends; have it answered."""
        turn = contextlib.ExitStack()

        def on_chunk(chunk: Chunk) -> bool:
            self._alive()
            turn.close()
            if cancelled.is_set():
                return True
            return says_something(chunk) and not mailbox.put(chunk)

        room = self._room.holding(
            asked.most_tokens, exactly=lambda: self._tokens(asked), cancelled=cancelled, alive=self._alive
        )
        with room, turn:
            turn.enter_context(self._prompts.holding(1, exactly=lambda: 1, cancelled=cancelled, alive=self._alive))
            if not cancelled.is_set():
                try:
                    self._server.handle_chat_completions(asked.body, on_chunk)
                except (ValueError, RuntimeError) as error:
                    # What goes wrong while it computes comes as a chunk; this is about the request itself.
                    raise InvalidInput(f"the model refused the request: {error}") from error

    def _tokens(self, asked: Question) -> int:
        """Tokens of the prompt, with the template's, and of the longest answer."""
        try:
            counted = self._http.post("/v1/chat/completions/input_tokens", json=asked.body)
        except httpx.HTTPError as error:
            raise Unavailable(f"{self.model_id} does not count tokens: {error}") from error
        if counted.is_error:
            return 0  # whatever is wrong is told by the answer itself
        return int(counted.json()["input_tokens"]) + asked.max_tokens
