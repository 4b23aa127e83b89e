"""What llama.cpp answers: its chunks as ChatDelta, handed from its thread to the event loop."""

import asyncio
import math
import time
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, Final

from neuroedge.contract.chat import ChatDelta, TokenLogprob, ToolCallPart
from neuroedge.contract.errors import ContextTooLong, InvalidInput, NeuroEdgeError, Unavailable
from neuroedge.runtimes.llama_tools import CallReader

Chunk = dict[str, Any]


REST_S: Final = 0.05
"""Tokens that come faster than this are handed on together: no reader sees the difference, and each time the reader
runs, it takes a core from the threads that compute the next token."""


class Mailbox:
    """Chunks from one thread to one reader on the loop, which is woken once for all that are there."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._chunks: deque[Chunk | None] = deque()
        self._waking = False
        self._waiter: asyncio.Future[None] | None = None
        self._put_at = -math.inf
        self._quick = False
        """Whether the last two chunks came within REST_S."""
        self._rest_until = -math.inf
        self._resting = False
        self._ended = False

    def put(self, chunk: Chunk | None) -> bool:
        """From any thread; None ends. False when the loop is closed: nobody listens any more."""
        now = time.monotonic()  # the loop's own clock is the loop's alone
        self._quick, self._put_at = now - self._put_at < REST_S, now
        self._ended = chunk is None
        self._chunks.append(chunk)
        if not self._waking and (self._ended or not self._resting):
            self._waking = True
            try:
                self._loop.call_soon_threadsafe(self._wake)
            except RuntimeError:
                return False
        return not self._loop.is_closed()

    async def get(self) -> list[Chunk | None]:
        """All chunks there are, at least one; never sooner than REST_S after the last ones when they come quickly.

        The first is not waited for, nor what comes one by one, nor the end.
        """
        if self._quick and not self._ended and self._loop.time() < self._rest_until:
            self._resting = True
            alarm = self._loop.call_at(self._rest_until, self._rested)
            try:
                while self._resting and not self._ended:
                    await self._woken()
            finally:
                alarm.cancel()
                self._resting = False  # before the reader looks: what is put from now on wakes it
        while not self._chunks:
            await self._woken()
        self._rest_until = self._loop.time() + REST_S
        return [self._chunks.popleft() for _ in range(len(self._chunks))]

    async def _woken(self) -> None:
        self._waiter = self._loop.create_future()
        await self._waiter

    def _rested(self) -> None:
        self._resting = False
        self._wake()

    def _wake(self) -> None:
        # Before the reader looks: what is put from now on wakes it anew.
        self._waking = False
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Answer:
    """Turns chunks into deltas. Raises what llama.cpp says is wrong."""

    def __init__(self, *, reader: CallReader | None, top_logprobs: int) -> None:
        self._reader = reader
        self._top = top_logprobs
        self._finish: Any = None
        self._counts: tuple[int, int, int] = (0, 0, 0)
        """Tokens of the prompt, of those cached, of the answer."""
        self.cut = False
        """Whether the answer was ended here: what llama.cpp may go on to say is not wanted."""

    def deltas(self, chunks: list[Chunk]) -> Iterator[ChatDelta]:
        """Of chunks that came together; words of several are one piece."""
        words = ""
        for chunk in chunks:
            for delta in self._of(chunk):
                if delta.text and not delta.logprobs:
                    words += delta.text
                    continue
                if words:
                    yield ChatDelta(text=words)
                    words = ""
                yield delta
            if self.cut:
                break
        if words:
            yield ChatDelta(text=words)

    def _of(self, chunk: Chunk) -> Iterator[ChatDelta]:
        if "error" in chunk:
            raise refusal(chunk["error"])
        self._count(chunk)
        choice = chunk["choices"][0] if chunk.get("choices") else {}
        self._finish = choice.get("finish_reason") or self._finish
        delta = choice.get("delta") or {}
        if calls := delta.get("tool_calls"):
            yield ChatDelta(tool_calls=[_part(call) for call in calls])
        logprobs = self._logprobs(choice)
        if (text := delta.get("content")) or logprobs:
            yield from self._said(text or "", logprobs)
        if usage := chunk.get("usage"):
            cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
            self._counts = usage["prompt_tokens"], cached, usage["completion_tokens"]
            yield from self._end()
        elif self._reader is not None and self._reader.done and not self._finish:
            self.cut = True
            yield from self._end()

    def _said(self, text: str, logprobs: list[TokenLogprob]) -> Iterator[ChatDelta]:
        if self._reader is None:
            yield ChatDelta(text=text, logprobs=logprobs)
            return
        for piece in self._reader.read(text):
            if isinstance(piece, ToolCallPart):
                yield ChatDelta(tool_calls=[piece])
            else:
                yield ChatDelta(text=piece)
        if logprobs:
            yield ChatDelta(logprobs=logprobs)

    def _end(self) -> Iterator[ChatDelta]:
        finish = self._finish
        if self._reader is not None:
            if rest := self._reader.rest():
                yield ChatDelta(text=rest)
            if self._reader.done or (self._reader.called and finish == "stop"):
                finish = "tool_calls"
        prompt, cached, answer = self._counts
        yield ChatDelta(finish_reason=finish, prompt_tokens=prompt, completion_tokens=answer, cached_tokens=cached)

    def _count(self, chunk: Chunk) -> None:
        if timings := chunk.get("timings"):
            cached = timings["cache_n"]
            self._counts = timings["prompt_n"] + cached, cached, timings["predicted_n"]

    def _logprobs(self, choice: Mapping[str, Any]) -> list[TokenLogprob]:
        tokens = (choice.get("logprobs") or {}).get("content") or ()
        return [
            TokenLogprob(
                token=token["token"],
                logprob=token["logprob"],
                top=[(other["token"], other["logprob"]) for other in token["top_logprobs"][: self._top]],
            )
            for token in tokens
        ]


def says_something(chunk: Chunk) -> bool:
    """Whether it is more than a sign of life."""
    if chunk.get("usage") or "error" in chunk or not chunk.get("choices"):
        return True
    choice = chunk["choices"][0]
    delta = choice.get("delta") or {}
    return bool(delta.get("content") or delta.get("tool_calls") or choice.get("finish_reason") or "logprobs" in choice)


def _part(call: Mapping[str, Any]) -> ToolCallPart:
    function = call.get("function") or {}
    return ToolCallPart(
        index=call.get("index", 0),
        id=call.get("id"),
        name=function.get("name"),
        arguments=function.get("arguments") or "",
    )


def refusal(error: Mapping[str, Any]) -> NeuroEdgeError:
    """The error llama.cpp describes."""
    if error.get("type") == "exceed_context_size_error":
        return ContextTooLong(
            f"the prompt takes {error.get('n_prompt_tokens')} tokens, the model's context holds {error.get('n_ctx')}",
            hint="send less text or history, or raise the model's n_ctx",
        )
    if int(error.get("code", 500)) < 500:
        return InvalidInput(f"the model refused the request: {error.get('message')}")
    return Unavailable(f"the model failed: {error.get('message')}")
