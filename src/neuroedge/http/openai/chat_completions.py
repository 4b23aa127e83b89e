"""POST /v1/chat/completions as OpenAI's clients know it, over the organisation's language models."""

import time
from typing import Any, Final
from uuid import uuid4

from fastapi import APIRouter, Depends, Request, Response
from pydantic_core import to_json

from neuroedge.contract.chat import ChatDelta, TokenLogprob
from neuroedge.contract.errors import NeuroEdgeError, NotFound
from neuroedge.contract.principal import Principal
from neuroedge.http.auth import bearer, engine_caller
from neuroedge.http.chat_answer import IDEMPOTENCY, Answer, Asked, converse, policy_of
from neuroedge.http.chat_parts import inlined, understood
from neuroedge.http.json_body import json_object
from neuroedge.http.openai.chat_schemas import ChatCompletionIn, chat_request
from neuroedge.http.openai.errors import (
    Endpoint,
    ModelNotFound,
    RawRoute,
    error_body,
    openai_error,
    with_errors,
)
from neuroedge.http.openai.limits_headers import openai_headers

PATH: Final = "/v1/chat/completions"
DONE: Final = b"data: [DONE]\n\n"


def usage_of(answer: Answer) -> dict[str, Any]:
    """Token counts."""
    return {
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.completion_tokens,
        "total_tokens": answer.prompt_tokens + answer.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": answer.cached_tokens},
    }


def event(data: Any) -> bytes:
    """An event without a name."""
    return b"data: %s\n\n" % to_json(data)


def logprob(token: TokenLogprob) -> dict[str, Any]:
    """A token's, with those of what could have stood in its place."""
    top = [{"token": t, "logprob": p, "bytes": list(t.encode())} for t, p in token.top]
    return {
        "token": token.token,
        "logprob": token.logprob,
        "bytes": list(token.token.encode()),
        "top_logprobs": top,
    }


class Completion:
    """One answer in the shape of `chat.completion` or its chunks."""

    def __init__(self, *, include_usage: bool) -> None:
        self._id = f"chatcmpl-{uuid4().hex}"
        self._created = int(time.time())
        self._include_usage = include_usage
        self._head = b""
        self._begun: set[int] = set()

    def whole(self, answer: Answer) -> bytes:
        """The body."""
        calls = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in answer.tool_calls()
        ]
        message: dict[str, Any] = {"role": "assistant", "content": answer.text or None, "refusal": None}
        if calls:
            message["tool_calls"] = calls
        elif message["content"] is None:
            message["content"] = ""
        tokens = [logprob(token) for token in answer.logprobs]
        choice = {
            "index": 0,
            "message": message,
            "logprobs": {"content": tokens, "refusal": None} if tokens else None,
            "finish_reason": answer.finish,
        }
        return to_json(
            {
                "id": self._id,
                "object": "chat.completion",
                "created": self._created,
                "model": answer.model,
                "choices": [choice],
                "usage": usage_of(answer),
                "system_fingerprint": None,
            }
        )

    def begin(self, answer: Answer) -> bytes:
        """The chunk with the role. What all chunks share is written once."""
        shared = {
            "id": self._id,
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": answer.model,
            "system_fingerprint": None,
        }
        if self._include_usage:
            shared["usage"] = None
        self._head = b'data: %s,"choices":[{"index":0,"delta":' % to_json(shared)[:-1]
        return self._chunk({"role": "assistant", "content": "", "refusal": None})

    def piece(self, delta: ChatDelta, answer: Answer) -> bytes:
        """A chunk for the words, one for the calls; most pieces are words and nothing else."""
        data = b""
        if delta.logprobs:
            data = self._chunk({"content": delta.text}, logprobs=[logprob(token) for token in delta.logprobs])
        elif delta.text:
            data = b'%s{"content":%s},"logprobs":null,"finish_reason":null}]}\n\n' % (self._head, to_json(delta.text))
        if delta.tool_calls:
            data += self._chunk({"tool_calls": [self._call_part(part, answer) for part in delta.tool_calls]})
        return data

    def end(self, answer: Answer) -> bytes:
        """Why it ended, the usage where it is wanted, and the sign that nothing follows."""
        data = self._chunk({}, finish=answer.finish)
        if self._include_usage:
            data += event(
                {
                    "id": self._id,
                    "object": "chat.completion.chunk",
                    "created": self._created,
                    "model": answer.model,
                    "choices": [],
                    "usage": usage_of(answer),
                }
            )
        return data + DONE

    def broken(self, error: NeuroEdgeError, answer: Answer) -> bytes:
        """An event with the error; nothing follows."""
        return event(error_body(error))

    def _call_part(self, part: Any, answer: Answer) -> dict[str, Any]:
        if part.index in self._begun:
            return {"index": part.index, "function": {"arguments": part.arguments}}
        self._begun.add(part.index)
        call = answer.calls[part.index]
        function = {"name": call.name, "arguments": part.arguments}
        return {"index": part.index, "id": call.id, "type": "function", "function": function}

    def _chunk(self, delta: dict[str, Any], *, logprobs: Any = None, finish: str | None = None) -> bytes:
        tokens = None if logprobs is None else {"content": logprobs, "refusal": None}
        return b'%s%s,"logprobs":%s,"finish_reason":%s}]}\n\n' % (
            self._head,
            to_json(delta),
            to_json(tokens),
            to_json(finish),
        )


def model_error(request: Request, error: NeuroEdgeError) -> Response:
    """As openai_error; what is not found on routes that name a model is the model."""
    if isinstance(error, NotFound):
        error = ModelNotFound(error.detail, hint=error.hint)
    return openai_error(request, error)


async def answered(request: Request, caller: Principal, asked: Asked) -> Response:
    """The conversation's answer, with OpenAI's headers."""
    return await converse(request, caller, asked, lambda: openai_headers(request.scope.get("quota")))


async def _complete(request: Request) -> Response:
    """Go on with a conversation."""
    caller = await engine_caller(request)
    body = understood(ChatCompletionIn, await json_object(request))
    include_usage = body.stream_options is not None and body.stream_options.include_usage
    asked = Asked(
        request=chat_request(body),
        policy=policy_of(body.model, body.neuroedge),
        model=body.model,
        stream=bool(body.stream),
        voice=Completion(include_usage=include_usage),
    )
    return await answered(request, caller, asked)


complete: Endpoint = with_errors(_complete, model_error)
"""For http/middleware.py's DirectRoute too: the framework's layers would cost a part of the first token's time."""


def build_router() -> APIRouter:
    """The route."""
    router = APIRouter(tags=["openai"])
    router.add_api_route(
        PATH,
        complete,
        methods=["POST"],
        response_model=None,
        dependencies=[Depends(bearer)],
        route_class_override=RawRoute,
        summary="Go on with a conversation (OpenAI)",
        openapi_extra={
            **IDEMPOTENCY,
            "requestBody": {"required": True, "content": {"application/json": {"schema": inlined(ChatCompletionIn)}}},
        },
    )
    return router
