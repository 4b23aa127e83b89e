"""POST /v1/messages as Anthropic's clients know it, over the organisation's language models.

Where a model that is not Anthropic's answers, `stop_reason` is end_turn also after a stop sequence: only Anthropic's
own API tells which one ended an answer.
"""

import json
from typing import Any, Final
from uuid import uuid4

from fastapi import APIRouter, Depends, Request, Response
from pydantic_core import to_json

from neuroedge.contract.chat import ChatDelta, ChatRequest
from neuroedge.contract.errors import NeuroEdgeError
from neuroedge.http.anthropic.errors import anthropic_error, error_body
from neuroedge.http.anthropic.schemas import CountIn, MessageIn, messages_request
from neuroedge.http.auth import bearer, engine_caller, platform_of, request_id_of
from neuroedge.http.chat_answer import IDEMPOTENCY, Answer, Asked, converse, policy_of
from neuroedge.http.chat_parts import inlined, understood
from neuroedge.http.json_body import json_object
from neuroedge.http.openai.errors import RawRoute, with_errors
from neuroedge.http.openai.limits_headers import anthropic_headers

_STOPS: Final = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}
_TURN_TOKENS: Final = 4
"""What a chat template adds to a turn, about."""


class Message:
    """One answer in the shape of a `message` or its events."""

    def __init__(self) -> None:
        self._id = f"msg_{uuid4().hex}"
        self._open: int | None = None
        """Position of the block being written."""
        self._call: int | None = None
        """The call it belongs to; None: it holds words."""
        self._blocks = 0
        self._head = b""

    def whole(self, answer: Answer) -> bytes:
        """The body."""
        content: list[dict[str, Any]] = [{"type": "text", "text": answer.text}] if answer.text else []
        content += [
            {"type": "tool_use", "id": call.id, "name": call.name, "input": _input(call.arguments)}
            for call in answer.tool_calls()
        ]
        return to_json({**self._message(answer), "content": content, "stop_reason": _STOPS[answer.finish]})

    def begin(self, answer: Answer) -> bytes:
        """The message as it begins; the tokens of the prompt are told for sure at the end."""
        return _event("message_start", message=self._message(answer)) + _event("ping")

    def piece(self, delta: ChatDelta, answer: Answer) -> bytes:
        """Deltas of words and of calls, with the blocks they need."""
        data = b""
        if delta.text:
            if self._open is None or self._call is not None:
                data += self._start(None, {"type": "text", "text": ""})
                kind = to_json({"type": "content_block_delta", "index": self._open})
                self._head = b'event: content_block_delta\ndata: %s,"delta":{"type":"text_delta","text":' % kind[:-1]
            data += b"%s%s}}\n\n" % (self._head, to_json(delta.text))
        for part in delta.tool_calls:
            if self._open is None or self._call != part.index:
                call = answer.calls[part.index]
                block = {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
                data += self._start(part.index, block)
            if part.arguments:
                change = {"type": "input_json_delta", "partial_json": part.arguments}
                data += _event("content_block_delta", index=self._open, delta=change)
        return data

    def end(self, answer: Answer) -> bytes:
        """The last block closed, why it ended, and the token counts."""
        stop = {"stop_reason": _STOPS[answer.finish], "stop_sequence": None}
        return self._stop() + _event("message_delta", delta=stop, usage=_usage(answer)) + _event("message_stop")

    def broken(self, error: NeuroEdgeError, answer: Answer) -> bytes:
        """An event with the error; nothing follows."""
        return b"event: error\ndata: %s\n\n" % to_json(error_body(error))

    def _start(self, call: int | None, block: dict[str, Any]) -> bytes:
        data = self._stop()
        self._open, self._call = self._blocks, call
        self._blocks += 1
        return data + _event("content_block_start", index=self._open, content_block=block)

    def _stop(self) -> bytes:
        return b"" if self._open is None else _event("content_block_stop", index=self._open)

    def _message(self, answer: Answer) -> dict[str, Any]:
        return {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": answer.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": _usage(answer),
        }


def _event(kind: str, **facts: Any) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), to_json({"type": kind, **facts}))


def _usage(answer: Answer) -> dict[str, int]:
    return {
        "input_tokens": answer.prompt_tokens - answer.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": answer.cached_tokens,
        "output_tokens": answer.completion_tokens,
    }


def _input(arguments: str) -> Any:
    """A call's arguments as an object; what is none is given as it was written."""
    try:
        value = json.loads(arguments or "{}")
    except ValueError:
        value = None
    return value if isinstance(value, dict) else {"_unparsed": arguments}


async def _create(request: Request) -> Response:
    """Go on with a conversation."""
    caller = await engine_caller(request)
    body = understood(MessageIn, await json_object(request))
    asked = Asked(
        request=messages_request(body),
        policy=policy_of(body.model, body.neuroedge),
        model=body.model,
        stream=bool(body.stream),
        voice=Message(),
    )
    return await converse(request, caller, asked, lambda: _headers(request))


async def _count(request: Request) -> Response:
    """Tokens of a conversation in the vocabulary of the model that would be asked; what templates add is estimated."""
    caller = await engine_caller(request)
    body = understood(CountIn, await json_object(request))
    asked = messages_request(body)
    llm = platform_of(request).runner.context(caller, request_id=request_id_of(request)).llm
    model = await llm.chosen(policy_of(body.model, body.neuroedge))
    tokens = await model.count_tokens(_text(asked)) + _TURN_TOKENS * len(asked.messages)
    return Response(to_json({"input_tokens": tokens}), headers=_headers(request), media_type="application/json")


def _text(asked: ChatRequest) -> str:
    texts = [message.content for message in asked.messages]
    texts += [f"{call.name} {call.arguments}" for message in asked.messages for call in message.tool_calls]
    texts += [f"{tool.name} {tool.description} {json.dumps(tool.parameters)}" for tool in asked.tools]
    return "\n".join(texts)


def _headers(request: Request) -> dict[str, str]:
    return anthropic_headers(request.scope.get("quota"), request_id_of(request))


def build_router() -> APIRouter:
    """The routes."""
    router = APIRouter(tags=["anthropic"])
    for path, endpoint, kind, summary in (
        ("/v1/messages", _create, MessageIn, "Go on with a conversation (Anthropic)"),
        ("/v1/messages/count_tokens", _count, CountIn, "Count the tokens of a conversation (Anthropic)"),
    ):
        router.add_api_route(
            path,
            with_errors(endpoint, anthropic_error),
            methods=["POST"],
            response_model=None,
            dependencies=[Depends(bearer)],
            route_class_override=RawRoute,
            summary=summary,
            openapi_extra={
                **(IDEMPOTENCY if kind is MessageIn else {}),
                "requestBody": {"required": True, "content": {"application/json": {"schema": inlined(kind)}}},
            },
        )
    return router
