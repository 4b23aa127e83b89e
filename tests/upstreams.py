"""A provider of language models for tests: a real HTTP server on 127.0.0.1 that speaks two vendors' wire formats.

    with running_upstream() as upstream:
        upstream.script("good", Reply(text="Hello there."))
        upstream.script("flaky", Reply(status=500), Reply(text="second time lucky"))
        client = openai.OpenAI(base_url=upstream.openai_url, api_key="sk-any")     # chat/completions, models
        client = anthropic.Anthropic(base_url=upstream.anthropic_url, api_key="sk-any")  # messages

It runs in a thread of its own, so synchronous and asynchronous tests and other processes can all use it.

- `script(model, *replies)`: one reply a request in this order, the last one for ever. A model without a script answers
  `Reply()`. Streamed and whole answers are both spoken, as the request asks.
- A token of this provider is a word: of the messages for the prompt (`words`), a piece of the answer for the
  completion. `Asked.prompt_tokens` and `Asked.completion_tokens` are what it bills: nothing for a refusal or a
  connection cut before the answer began, else the prompt and the pieces that were sent, also when nobody told the
  client. `billed(model)` sums them.
- `asked`: every request with body, headers (lower case) and how it ended; `Asked.wait()` blocks until it has.
- `keys`: when set, any other key is refused with 401, and the refusal repeats the key as some vendors do.
"""

import asyncio
import contextlib
import itertools
import json
import re
import threading
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

Ended = Literal["answering", "answered", "refused", "cut", "left"]
"""left: the client closed the connection before the answer was whole."""
_WORD: Final = re.compile(r"\S+\s*|\s+")
MALFORMED: Final = b'event: content_block_delta\ndata: {"choices": [{"delta": {"content"\n\n'
_ARGUMENT_PIECE: Final = 7
"""Characters of a tool call's arguments in one piece."""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """How one request is answered. `after`: how many pieces are sent before it happens; 0 is before the first."""

    text: str = "Hello from the upstream."
    thoughts: int = 0
    """Pieces of thinking before the text; each is billed as one token."""
    tool_calls: tuple[tuple[str, str], ...] = ()
    """(name, arguments as JSON) of each."""
    finish: str | None = None
    """In the wire's own words; None: stop (end_turn), or tool calls where there are some."""
    status: int = 200
    error: str = "the upstream was told to fail"
    error_type: str = "api_error"
    error_code: str | None = None
    error_param: str | None = None
    retry_after: str | None = None
    location: str | None = None
    """Where a redirect points."""
    cut: bool = False
    """Close the connection before the first byte of the answer."""
    cut_after: int | None = None
    stall_after: int | None = None
    """Say nothing more, until the client leaves or `stall_s` have passed."""
    stall_s: float | None = None
    malformed_after: int | None = None
    """A line that is no JSON, and the end."""
    error_after: int | None = None
    """An error event in a stream that began well."""
    end_after: int | None = None
    """The stream ends in good order, but without finish reason and usage."""
    usage: Literal["true", "missing", "each"] | tuple[int, int] = "true"
    """each: with every piece, as vLLM can; a pair: a lie about (prompt, completion)."""
    cached_tokens: int = 0
    pause_s: float = 0.0
    """Before each piece."""

    @property
    def pieces(self) -> list[str]:
        """The text as it is sent."""
        return _WORD.findall(self.text)


@dataclass(kw_only=True, eq=False)
class Asked:
    """A request that came in."""

    wire: Literal["openai", "anthropic"]
    body: dict[str, Any]
    headers: dict[str, str]
    reply: Reply
    prompt_tokens: int = 0
    completion_tokens: int = 0
    ended: Ended = "answering"
    _over: threading.Event = field(default_factory=threading.Event)

    @property
    def model(self) -> str:
        """The model that was asked for."""
        return str(self.body.get("model"))

    def wait(self, timeout_s: float = 60.0) -> Ended:
        """Block until the request is over; in a coroutine, through `asyncio.to_thread`."""
        assert self._over.wait(timeout_s), "the upstream is still answering"
        return self.ended

    def end(self, how: Ended) -> None:
        """Only the first ending counts."""
        if not self._over.is_set():
            self.ended = how
            self._over.set()


class Upstream:
    """The server's address, its script and what it saw."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[Asked] = []
        self.keys: set[str] | None = None
        self.connections = 0
        """Requests being answered now."""
        self.most_at_once = 0
        self._scripts: dict[str, list[Reply]] = {}
        self._served: defaultdict[str, int] = defaultdict(int)
        self.server: uvicorn.Server | None = None

    @property
    def openai_url(self) -> str:
        """Base URL for an OpenAI client."""
        return f"{self.url}/v1"

    @property
    def anthropic_url(self) -> str:
        """Base URL for an Anthropic client."""
        return self.url

    def script(self, model: str, *replies: Reply) -> None:
        """Answer requests for `model` with these, one each; the last one stays."""
        self._scripts[model] = list(replies)
        self._served[model] = 0

    def forget(self) -> None:
        """Scripts, keys and what was asked, so that several tests can share a server."""
        self._scripts.clear()
        self._served.clear()
        self.asked = []
        self.keys = None
        self.most_at_once = 0

    def requests(self, model: str | None = None) -> list[Asked]:
        """Those for one model, or all, in the order they came."""
        return [a for a in self.asked if model in (None, a.model)]

    def as_house(self, model: str) -> str:
        """A providers.toml that offers one of its models as the operator's own: `house/MODEL`."""
        return (
            f'[[provider]]\nname = "house"\nwire = "openai"\nbase_url = "{self.openai_url}"\nprivate = true\n'
            f'[[provider.model]]\nname = "{model}"\n'
        )

    def wait_for(self, model: str, *, count: int = 1, timeout_s: float = 60.0) -> list[Asked]:
        """Block until so many requests for a model came in; in a coroutine, through `asyncio.to_thread`."""
        until = time.monotonic() + timeout_s
        while len(asked := self.requests(model)) < count:
            assert time.monotonic() < until, f"{len(asked)} requests for {model} came in"
            time.sleep(0.005)
        return asked

    def billed(self, model: str | None = None) -> tuple[int, int]:
        """Tokens of prompts and completions that this provider would want to be paid for."""
        asked = self.requests(model)
        return sum(a.prompt_tokens for a in asked), sum(a.completion_tokens for a in asked)

    def reply(self, model: str) -> Reply:
        """The next one of a model's script."""
        replies = self._scripts.get(model) or [Reply()]
        position = min(self._served[model], len(replies) - 1)
        self._served[model] += 1
        return replies[position]

    def cut(self, scope: Scope) -> None:
        """Hang up on a request, in the middle of whatever was to be sent."""
        assert self.server is not None
        for connection in list(self.server.server_state.connections):
            if getattr(connection, "client", None) == scope["client"]:
                connection.transport.close()  # type: ignore[union-attr]


@contextlib.contextmanager
def running_upstream() -> Iterator[Upstream]:
    """A server on a free port until the block ends."""
    upstream = Upstream()
    config = uvicorn.Config(
        _app(upstream), host="127.0.0.1", port=0, log_config=None, access_log=False, lifespan="off", ws="none"
    )
    config.timeout_graceful_shutdown = 1
    upstream.server = server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name="upstream", daemon=True)
    thread.start()
    try:
        upstream.url = f"http://127.0.0.1:{_port(server, thread)}"
        yield upstream
    finally:
        server.should_exit = True
        thread.join(timeout=60)


def words(body: Mapping[str, Any]) -> int:
    """Tokens of a request's prompt: the words of its system text and messages."""
    texts = [body.get("system") or "", *(m.get("content") or "" for m in body.get("messages", ()))]
    return sum(len(_text(t).split()) for t in texts)


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return " ".join(_text(part.get("text") or part.get("content") or "") for part in content)


def _port(server: uvicorn.Server, thread: threading.Thread) -> int:
    until = time.monotonic() + 60
    while not server.started:
        assert thread.is_alive(), "the upstream did not start"
        assert time.monotonic() < until, "the upstream did not start"
        time.sleep(0.005)
    return int(server.servers[0].sockets[0].getsockname()[1])


def _app(upstream: Upstream) -> Starlette:
    async def chat(request: Request) -> Response:
        return await _answer(upstream, request, "openai", _openai_events, _openai_whole, _openai_error)

    async def messages(request: Request) -> Response:
        return await _answer(upstream, request, "anthropic", _anthropic_events, _anthropic_whole, _anthropic_error)

    async def models(request: Request) -> Response:
        data = [{"id": name, "object": "model", "created": 0, "owned_by": "upstream"} for name in upstream._scripts]
        return JSONResponse({"object": "list", "data": data})

    return Starlette(
        routes=[
            Route("/v1/chat/completions", chat, methods=["POST"]),
            Route("/v1/messages", messages, methods=["POST"]),
            Route("/v1/models", models),
        ]
    )


async def _answer(
    upstream: Upstream, request: Request, wire: Any, events: Any, whole: Any, error_body: Any
) -> Response:
    body = await request.json()
    headers = {k.lower(): v for k, v in request.headers.items()}
    key = headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ")
    known = upstream.keys is None or key in upstream.keys
    told = f"Incorrect API key provided: {key}"
    reply = upstream.reply(str(body.get("model"))) if known else Reply(status=401, error=told)
    asked = Asked(wire=wire, body=body, headers=headers, reply=reply)
    upstream.asked.append(asked)
    if reply.status != 200:
        asked.end("refused")
        more = {"retry-after": reply.retry_after, "location": reply.location}
        return JSONResponse(error_body(reply), reply.status, headers={k: v for k, v in more.items() if v is not None})
    if reply.cut:
        asked.end("cut")
        upstream.cut(request.scope)
        return Response()
    asked.prompt_tokens = words(body)
    if body.get("stream"):
        return _Stream(upstream, asked, events(asked))
    asked.completion_tokens = len(reply.pieces) + len(reply.tool_calls)
    asked.end("answered")
    return JSONResponse(whole(asked))


_LAST = (b"[DONE]", b"message_stop")
"""What the last event of an OpenAI and of an Anthropic stream holds."""


class _Stream(Response):
    """Server-sent events, until they end or the client leaves."""

    media_type = "text/event-stream"

    def __init__(self, upstream: Upstream, asked: Asked, events: AsyncIterator[bytes | None]) -> None:
        super().__init__()
        del self.headers["content-length"]
        self._upstream, self._asked, self._events = upstream, asked, events
        self._counted = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        upstream, asked = self._upstream, self._asked
        self._counted = True
        upstream.connections += 1
        upstream.most_at_once = max(upstream.most_at_once, upstream.connections)
        sending = asyncio.create_task(self._send(scope, send))
        leaving = asyncio.create_task(_left(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not sending.done():
                asked.end("left")
        finally:
            self._over()
            for task in (sending, leaving):
                task.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)
            asked.end("left")

    async def _send(self, scope: Scope, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async for event in self._events:
            if event is None:
                self._asked.end("cut")
                self._upstream.cut(scope)
                return
            if any(mark in event for mark in _LAST):
                self._over()  # a client that has read it may be back with its next request at once
            await send({"type": "http.response.body", "body": event, "more_body": True})
        self._asked.end("answered")
        await send({"type": "http.response.body", "body": b""})

    def _over(self) -> None:
        if self._counted:
            self._counted = False
            self._upstream.connections -= 1


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _faults(reply: Reply, sent: int) -> AsyncIterator[bytes | None]:
    """What happens before piece `sent`; None: the connection is cut."""
    if reply.cut_after == sent:
        yield None
    if reply.stall_after == sent:
        await (asyncio.sleep(reply.stall_s) if reply.stall_s is not None else asyncio.Event().wait())
    if reply.pause_s:
        await asyncio.sleep(reply.pause_s)


# OpenAI -----------------------------------------------------------------------------------------------------------


def _openai_error(reply: Reply) -> dict[str, Any]:
    return {
        "error": {
            "message": reply.error,
            "type": reply.error_type,
            "param": reply.error_param,
            "code": reply.error_code,
        }
    }


def _openai_usage(asked: Asked) -> dict[str, Any]:
    told = asked.reply.usage
    prompt, completion = told if isinstance(told, tuple) else (asked.prompt_tokens, asked.completion_tokens)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": asked.reply.cached_tokens},
    }


def _openai_finish(reply: Reply) -> str:
    return reply.finish or ("tool_calls" if reply.tool_calls else "stop")


def _openai_calls(reply: Reply) -> list[dict[str, Any]]:
    return [
        {"id": f"call_{i}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for i, (name, arguments) in enumerate(reply.tool_calls)
    ]


def _openai_whole(asked: Asked) -> dict[str, Any]:
    reply = asked.reply
    message: dict[str, Any] = {"role": "assistant", "content": reply.text or None}
    if reply.tool_calls:
        message["tool_calls"] = _openai_calls(reply)
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": asked.model,
        "choices": [{"index": 0, "message": message, "finish_reason": _openai_finish(reply), "logprobs": None}],
        "usage": _openai_usage(asked),
    }


async def _openai_events(asked: Asked) -> AsyncIterator[bytes | None]:
    reply, sent = asked.reply, 0
    yield _openai_chunk(asked, {"role": "assistant", "content": ""})
    for _ in range(reply.thoughts):
        await asyncio.sleep(reply.pause_s)
        asked.completion_tokens += 1
        yield _openai_chunk(asked, {"reasoning_content": "hm "})
    for piece in reply.pieces:
        async for fault in _faults(reply, sent):
            yield fault
        if reply.error_after == sent:
            yield b"data: " + json.dumps(_openai_error(reply)).encode() + b"\n\n"
            return
        if reply.malformed_after == sent:
            yield MALFORMED
            return
        if reply.end_after == sent:
            return
        asked.completion_tokens += 1
        sent += 1
        yield _openai_chunk(asked, {"content": piece}, logprobs=_openai_logprobs(asked, piece))
    async for fault in _faults(reply, sent):
        yield fault
    for index, call in enumerate(_openai_calls(reply)):
        arguments = call["function"].pop("arguments")
        asked.completion_tokens += 1
        yield _openai_chunk(asked, {"tool_calls": [{"index": index, **call}]})
        for start in range(0, len(arguments), _ARGUMENT_PIECE):
            function = {"arguments": arguments[start : start + _ARGUMENT_PIECE]}
            yield _openai_chunk(asked, {"tool_calls": [{"index": index, "function": function}]})
    yield _openai_chunk(asked, {}, finish=_openai_finish(reply))
    if reply.usage != "missing" and (asked.body.get("stream_options") or {}).get("include_usage"):
        yield _openai_chunk(asked, None, usage=_openai_usage(asked))
    yield b"data: [DONE]\n\n"


def _openai_logprobs(asked: Asked, piece: str) -> dict[str, Any] | None:
    if not asked.body.get("logprobs"):
        return None
    others = [{"token": f"other{i}", "logprob": -1.0 - i, "bytes": None} for i in range(asked.body["top_logprobs"])]
    return {"content": [{"token": piece, "logprob": -0.25, "bytes": None, "top_logprobs": others}], "refusal": None}


def _openai_chunk(
    asked: Asked,
    delta: dict[str, Any] | None,
    *,
    finish: str | None = None,
    logprobs: dict[str, Any] | None = None,
    usage: dict[str, Any] | None = None,
) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
    chunk = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": asked.model,
        "choices": [] if delta is None else [choice],
        "usage": _openai_usage(asked) if asked.reply.usage == "each" else usage,
    }
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


# Anthropic --------------------------------------------------------------------------------------------------------


def _anthropic_error(reply: Reply) -> dict[str, Any]:
    return {"type": "error", "error": {"type": reply.error_type, "message": reply.error}, "request_id": "req_1"}


def _anthropic_usage(asked: Asked) -> dict[str, Any]:
    told = asked.reply.usage
    prompt, completion = told if isinstance(told, tuple) else (asked.prompt_tokens, asked.completion_tokens)
    cached = asked.reply.cached_tokens
    # This vendor counts cached tokens apart from the others.
    return {
        "input_tokens": prompt - cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": completion,
    }


def _anthropic_stop(reply: Reply) -> str:
    return reply.finish or ("tool_use" if reply.tool_calls else "end_turn")


def _anthropic_message(asked: Asked, content: list[dict[str, Any]], stop: str | None) -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": asked.model,
        "content": content,
        "stop_reason": stop,
        "stop_sequence": None,
        "usage": _anthropic_usage(asked),
    }


def _anthropic_whole(asked: Asked) -> dict[str, Any]:
    reply = asked.reply
    content: list[dict[str, Any]] = [{"type": "text", "text": reply.text}] if reply.text else []
    for i, (name, arguments) in enumerate(reply.tool_calls):
        content.append({"type": "tool_use", "id": f"toolu_{i}", "name": name, "input": json.loads(arguments)})
    return _anthropic_message(asked, content, _anthropic_stop(reply))


def _event(kind: str, **data: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **data})}\n\n".encode()


async def _anthropic_events(asked: Asked) -> AsyncIterator[bytes | None]:
    reply, sent, blocks = asked.reply, 0, itertools.count()
    yield _event("message_start", message=_anthropic_message(asked, [], None))
    yield _event("ping")
    if reply.thoughts:
        index = next(blocks)
        yield _event("content_block_start", index=index, content_block={"type": "thinking", "thinking": ""})
        for _ in range(reply.thoughts):
            await asyncio.sleep(reply.pause_s)
            asked.completion_tokens += 1
            yield _event("content_block_delta", index=index, delta={"type": "thinking_delta", "thinking": "hm "})
        yield _event("content_block_stop", index=index)
    if reply.pieces:
        index = next(blocks)
        yield _event("content_block_start", index=index, content_block={"type": "text", "text": ""})
        for piece in reply.pieces:
            async for fault in _faults(reply, sent):
                yield fault
            if reply.error_after == sent:
                yield _event("error", error=_anthropic_error(reply)["error"])
                return
            if reply.malformed_after == sent:
                yield MALFORMED
                return
            if reply.end_after == sent:
                return
            asked.completion_tokens += 1
            sent += 1
            yield _event("content_block_delta", index=index, delta={"type": "text_delta", "text": piece})
        yield _event("content_block_stop", index=index)
    async for fault in _faults(reply, sent):
        yield fault
    for i, (name, arguments) in enumerate(reply.tool_calls):
        index = next(blocks)
        asked.completion_tokens += 1
        block = {"type": "tool_use", "id": f"toolu_{i}", "name": name, "input": {}}
        yield _event("content_block_start", index=index, content_block=block)
        for start in range(0, len(arguments), _ARGUMENT_PIECE):
            part = {"type": "input_json_delta", "partial_json": arguments[start : start + _ARGUMENT_PIECE]}
            yield _event("content_block_delta", index=index, delta=part)
        yield _event("content_block_stop", index=index)
    usage = {} if reply.usage == "missing" else _anthropic_usage(asked)
    yield _event(
        "message_delta",
        delta={"stop_reason": _anthropic_stop(reply), "stop_sequence": None},
        usage={"output_tokens": 0, **usage} if usage else {},
    )
    yield _event("message_stop")
