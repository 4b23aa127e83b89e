"""Answers of language models over HTTP, whole or as server-sent events, whatever API asks for them.

The way of a token from the model to the socket is short on purpose: no object but its ChatDelta, no task of its own.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final, Protocol
from uuid import uuid4

import structlog
from fastapi import Request, Response
from starlette.types import Receive, Scope, Send

from neuroedge.contract.chat import ChatDelta, ChatRequest, Finish, Policy, TokenLogprob, ToolCall
from neuroedge.contract.errors import Conflict, DeadlineExceeded, NeuroEdgeError
from neuroedge.contract.principal import Principal
from neuroedge.contract.scope import remaining_s
from neuroedge.http.auth import platform_of, request_id_of
from neuroedge.http.budget_header import tell_budget
from neuroedge.http.chat_parts import Preferences, wrong
from neuroedge.http.departure import unless_client_leaves
from neuroedge.services.llm.judged import JudgedLLM

log = structlog.get_logger(__name__)
ANY_MODEL: Final = frozenset({"auto", "default", "neuroedge"})
_LONGEST_MODEL: Final = 200
UNREAD_S: Final = 60.0
"""A client that takes nothing for so long is given up: its answer holds a model."""


@dataclass(slots=True)
class _Call:
    id: str
    name: str = ""
    arguments: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Answer:
    """What came so far."""

    model: str
    """As it was asked for, then who answers."""
    texts: list[str] = field(default_factory=list)
    calls: dict[int, _Call] = field(default_factory=dict)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish: Finish = "stop"
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0

    def add(self, delta: ChatDelta) -> None:
        """Take a piece in."""
        if delta.text:
            self.texts.append(delta.text)
        for part in delta.tool_calls:
            call = self.calls.get(part.index)
            if call is None:
                # A provider that gives no id would leave nothing to answer to.
                call = self.calls[part.index] = _Call(part.id or f"call_{uuid4().hex}")
            call.name = part.name or call.name
            call.arguments.append(part.arguments)
        self.logprobs += delta.logprobs
        self.model = delta.model or self.model
        self.finish = delta.finish_reason or self.finish
        if delta.prompt_tokens is not None:
            self.prompt_tokens = delta.prompt_tokens
        if delta.completion_tokens is not None:
            self.completion_tokens = delta.completion_tokens
        if delta.cached_tokens is not None:
            self.cached_tokens = delta.cached_tokens

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self.texts)

    def tool_calls(self) -> list[ToolCall]:
        """All of them, in order."""
        calls = [self.calls[index] for index in sorted(self.calls)]
        return [ToolCall(id=call.id, name=call.name, arguments="".join(call.arguments)) for call in calls]


class Voice(Protocol):
    """How one API says one answer. `answer` holds each piece already when it is to be said."""

    def whole(self, answer: Answer) -> bytes:
        """The body of an answer that is not streamed."""
        ...

    def begin(self, answer: Answer) -> bytes:
        """The first events; the first piece is known."""
        ...

    def piece(self, delta: ChatDelta, answer: Answer) -> bytes:
        """Events of a piece; empty for none."""
        ...

    def end(self, answer: Answer) -> bytes:
        """The last events."""
        ...

    def broken(self, error: NeuroEdgeError, answer: Answer) -> bytes:
        """The last event of an answer that failed after its first piece."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request, understood."""

    request: ChatRequest
    policy: Policy
    model: str
    """As the caller names it, given back where the answer does not tell."""
    stream: bool
    voice: Voice


IDEMPOTENCY: Final[Mapping[str, Any]] = {
    "parameters": [
        {
            "name": "idempotency-key",
            "in": "header",
            "required": False,
            "description": "A name of your choice for this request: sent again within ten minutes, it gives the answer "
            "of the first time, unless that was streamed; 409 while the first is being worked on.",
            "schema": {"type": "string", "maxLength": 255},
        }
    ]
}
"""What OpenAPI tells of the header that `converse` reads."""


async def converse(
    request: Request, caller: Principal, asked: Asked, headers: Callable[[], Mapping[str, str]]
) -> Response:
    """Ask the caller's language models and answer. Raises what can be told before the first piece."""
    platform, key = platform_of(request), request.headers.get("idempotency-key")
    if not asked.stream:
        if key is None:
            body, repeated = await _whole(request, caller, asked), False
        else:
            body, repeated = await platform.idempotency.once(
                caller,
                route=request.url.path,
                key=key,
                body=await request.body(),
                work=lambda: _whole(request, caller, asked),
            )
        more = {"idempotency-replayed": "true"} if repeated else {}
        await tell_budget(request, caller)
        return Response(body, headers={**headers(), **more}, media_type="application/json")
    if key is None:
        return await _begun(request, caller, asked, headers, _nothing)
    route = request.url.path
    if not await platform.idempotency.begin(caller, route=route, key=key):
        raise Conflict("a request with this Idempotency-Key is being worked on", hint="wait for its answer")

    async def ended() -> None:
        await platform.idempotency.end(caller, route=route, key=key)

    try:
        return await _begun(request, caller, asked, headers, ended)
    except BaseException:
        await ended()
        raise


async def _nothing() -> None:
    """Nothing is to be given back."""


def _deltas(request: Request, caller: Principal, asked: Asked) -> AsyncGenerator[ChatDelta, None]:
    platform, request_id = platform_of(request), request_id_of(request)
    llm = platform.runner.contexts.llm(caller, request_id=request_id)
    judged = JudgedLLM(llm, platform.safety, caller, request_id=request_id)
    return judged.stream(asked.request, policy=asked.policy)


async def _in_time(request: Request, work: Awaitable[Any]) -> Any:
    """What `work` gives, unless the caller leaves or the time for requests is over. Raises DeadlineExceeded."""
    limit_s = remaining_s(platform_of(request).settings.request_timeout_s)
    try:
        async with asyncio.timeout(limit_s):
            return await unless_client_leaves(request, work)
    except TimeoutError as error:
        raise DeadlineExceeded(f"no answer within {limit_s:.3g} s", hint="ask for less, or stream") from error


async def _whole(request: Request, caller: Principal, asked: Asked) -> bytes:
    answer = Answer(asked.model)

    async def collect() -> None:
        async with aclosing(_deltas(request, caller, asked)) as deltas:
            async for delta in deltas:
                answer.add(delta)

    await _in_time(request, collect())
    return asked.voice.whole(answer)


async def _begun(
    request: Request,
    caller: Principal,
    asked: Asked,
    headers: Callable[[], Mapping[str, str]],
    ended: Callable[[], Awaitable[None]],
) -> Response:
    """A stream whose first piece is there: what fails before it is still an answer with a status of its own."""
    deltas = _deltas(request, caller, asked)
    try:
        first = await _in_time(request, anext(deltas, ChatDelta()))
        await tell_budget(request, caller)
    except BaseException:
        await deltas.aclose()
        raise
    return EventStream(first, deltas, answer=Answer(asked.model), voice=asked.voice, headers=headers(), ended=ended)


class EventStream(Response):
    """Writes an answer's events as its pieces come, and ends the generation when the client leaves."""

    def __init__(
        self,
        first: ChatDelta,
        deltas: AsyncGenerator[ChatDelta, None],
        *,
        answer: Answer,
        voice: Voice,
        headers: Mapping[str, str],
        ended: Callable[[], Awaitable[None]],
    ) -> None:
        # Caches and proxies must not hold events back.
        super().__init__(
            headers={**headers, "cache-control": "no-cache, no-transform", "x-accel-buffering": "no"},
            media_type="text/event-stream",
        )
        del self.headers["content-length"]
        self._first = first
        self._deltas = deltas
        self._answer = answer
        self._voice = voice
        self._ended = ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        own = asyncio.current_task()
        assert own is not None
        left = False

        async def watch() -> None:
            nonlocal left
            while (await receive())["type"] != "http.disconnect":
                pass
            left = True
            own.cancel()

        watcher = asyncio.create_task(watch())
        try:
            async with aclosing(self._deltas), asyncio.timeout(None) as patience:
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
                await self._write(send, patience)
        except asyncio.CancelledError:
            if not left or own.uncancel():
                raise
        except TimeoutError:
            log.warning("stream_not_read", seconds=UNREAD_S)
        finally:
            watcher.cancel()
            await self._ended()

    async def _write(self, send: Send, patience: asyncio.Timeout) -> None:
        time = asyncio.get_running_loop().time

        async def write(data: bytes, *, more: bool = True) -> None:
            patience.reschedule(time() + UNREAD_S)
            await send({"type": "http.response.body", "body": data, "more_body": more})
            patience.reschedule(None)

        answer, voice, said = self._answer, self._voice, False

        def told(delta: ChatDelta, *, first: bool = False) -> bytes:
            # The end is told with the last piece. What is written down of the call after it holds up only the end of
            # the body: who has read that finds the call in the ledger.
            nonlocal said
            answer.add(delta)
            data = (voice.begin(answer) if first else b"") + voice.piece(delta, answer)
            if delta.finish_reason is not None:
                said = True
                data += voice.end(answer)
            return data

        try:
            await write(told(self._first, first=True))
            async for delta in self._deltas:
                if data := told(delta):
                    await write(data)
        except NeuroEdgeError as error:
            log.warning("stream_broken", code=error.code, detail=error.detail)
            await write(b"" if said else voice.broken(error, answer), more=False)
        except Exception as error:
            log.error("stream_crashed", exc_info=error)
            unknown = NeuroEdgeError("an unexpected error; the request id finds it in the log")
            await write(b"" if said else voice.broken(unknown, answer), more=False)
        else:
            await write(b"" if said else voice.end(answer), more=False)


def policy_of(model: str, preferences: Preferences | None = None) -> Policy:
    """The policy of a request that names a model so; auto, default and neuroedge leave the choice to us."""
    if not model.strip() or len(model) > _LONGEST_MODEL:
        raise wrong(("model",), f"1 to {_LONGEST_MODEL} characters, or auto")
    named = None if model.lower() in ANY_MODEL else model
    return Policy(model=named, **({} if preferences is None else preferences.model_dump()))
