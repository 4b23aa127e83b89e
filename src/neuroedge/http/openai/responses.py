"""POST /v1/responses as OpenAI's clients know it, over the organisation's language models; nothing is stored."""

import time
from typing import Any, Literal
from uuid import uuid4

from fastapi import APIRouter, Depends, Request, Response
from pydantic_core import to_json

from neuroedge.contract.chat import ChatDelta, ToolCallPart
from neuroedge.contract.errors import NeuroEdgeError
from neuroedge.http.auth import bearer, engine_caller
from neuroedge.http.chat_answer import IDEMPOTENCY, Answer, Asked, policy_of
from neuroedge.http.chat_parts import inlined, understood
from neuroedge.http.json_body import json_object
from neuroedge.http.openai.chat_completions import answered, logprob, model_error
from neuroedge.http.openai.errors import RawRoute, error_body, with_errors
from neuroedge.http.openai.responses_schemas import ResponseIn, response_request

_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


class Said:
    """One answer in the shape of a `response` or its typed events.

    The words are one message, which comes before the function calls; each is an item of the output.
    """

    def __init__(self, asked: ResponseIn) -> None:
        self._asked = asked
        self._id = f"resp_{uuid4().hex}"
        self._message_id = f"msg_{uuid4().hex}"
        self._created = time.time()
        self._sequence = 0
        self._message_at: int | None = None
        self._message_open = False
        self._calls_at: dict[int, tuple[int, str]] = {}
        """Position and id of the item of each call."""
        self._head = b""

    def whole(self, answer: Answer) -> bytes:
        """The body."""
        if answer.text or not answer.calls:
            self._message_at = 0
        for index in sorted(answer.calls):
            self._place(index)
        return to_json(self._response(answer, "completed"))

    def begin(self, answer: Answer) -> bytes:
        """The response as it begins."""
        shown = self._response(answer, "in_progress")
        return self._event("response.created", response=shown) + self._event("response.in_progress", response=shown)

    def piece(self, delta: ChatDelta, answer: Answer) -> bytes:
        """Deltas of words and of calls, with what has to be opened before them."""
        data = b""
        if delta.text or delta.logprobs:
            data = b"" if self._message_open else self._open_message()
            data += self._text(delta)
        for part in delta.tool_calls:
            data += self._call_part(part, answer)
        return data

    def end(self, answer: Answer) -> bytes:
        """Everything closed, and the whole response."""
        data = b""
        if self._message_at is None and not answer.calls:
            data += self._open_message()
        data += self._close_message(answer)
        for index, (at, item_id) in self._calls_at.items():
            item = self._call_item(answer, index)
            data += self._event(
                "response.function_call_arguments.done",
                item_id=item_id,
                output_index=at,
                name=item["name"],
                arguments=item["arguments"],
            )
            data += self._event("response.output_item.done", output_index=at, item=item)
        response = self._response(answer, "completed")
        return data + self._event(f"response.{response['status']}", response=response)

    def broken(self, error: NeuroEdgeError, answer: Answer) -> bytes:
        """The failed response; nothing follows."""
        known = error_body(error)["error"]
        failed = self._response(answer, "failed")
        failed["error"] = {"code": "server_error", "message": known["message"]}
        told = self._event("error", code=known["code"], message=known["message"], param=known["param"])
        return told + self._event("response.failed", response=failed)

    def _event(self, kind: str, **facts: Any) -> bytes:
        data = to_json({"type": kind, **facts, "sequence_number": self._sequence})
        self._sequence += 1
        return b"event: %s\ndata: %s\n\n" % (kind.encode(), data)

    def _text(self, delta: ChatDelta) -> bytes:
        tokens = [logprob(token) for token in delta.logprobs]
        number, self._sequence = self._sequence, self._sequence + 1
        return b'%s%s,"logprobs":%s,"sequence_number":%d}\n\n' % (
            self._head,
            to_json(delta.text),
            to_json(tokens),
            number,
        )

    def _open_message(self) -> bytes:
        self._message_at, self._message_open = len(self._calls_at), True
        place = {"item_id": self._message_id, "output_index": self._message_at, "content_index": 0}
        kind = "response.output_text.delta"
        self._head = b'event: %s\ndata: %s,"delta":' % (kind.encode(), to_json({"type": kind, **place})[:-1])
        item = {"id": self._message_id, "type": "message", "role": "assistant", "status": "in_progress", "content": []}
        part = {"type": "output_text", "text": "", "annotations": []}
        return self._event("response.output_item.added", output_index=self._message_at, item=item) + self._event(
            "response.content_part.added", **place, part=part
        )

    def _close_message(self, answer: Answer) -> bytes:
        if not self._message_open:
            return b""
        self._message_open = False
        item = self._message(answer)
        place = {"item_id": self._message_id, "output_index": self._message_at, "content_index": 0}
        part = item["content"][0]
        return (
            self._event("response.output_text.done", **place, text=part["text"], logprobs=part["logprobs"])
            + self._event("response.content_part.done", **place, part=part)
            + self._event("response.output_item.done", output_index=self._message_at, item=item)
        )

    def _place(self, index: int) -> tuple[int, str]:
        at = len(self._calls_at) + (self._message_at is not None)
        self._calls_at[index] = at, f"fc_{uuid4().hex}"
        return self._calls_at[index]

    def _call_part(self, part: ToolCallPart, answer: Answer) -> bytes:
        data, call = b"", answer.calls[part.index]
        if part.index not in self._calls_at:
            at, item_id = self._place(part.index)
            item = {
                "id": item_id,
                "type": "function_call",
                "status": "in_progress",
                "call_id": call.id,
                "name": call.name,
                "arguments": "",
            }
            data = self._event("response.output_item.added", output_index=at, item=item)
        at, item_id = self._calls_at[part.index]
        if part.arguments:
            data += self._event(
                "response.function_call_arguments.delta", item_id=item_id, output_index=at, delta=part.arguments
            )
        return data

    def _message(self, answer: Answer) -> dict[str, Any]:
        tokens = [logprob(token) for token in answer.logprobs]
        part = {"type": "output_text", "text": answer.text, "annotations": [], "logprobs": tokens}
        status = "incomplete" if answer.finish in _INCOMPLETE else "completed"
        return {
            "id": self._message_id,
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": [part],
        }

    def _call_item(self, answer: Answer, index: int) -> dict[str, Any]:
        call = answer.calls[index]
        return {
            "id": self._calls_at[index][1],
            "type": "function_call",
            "status": "completed",
            "call_id": call.id,
            "name": call.name,
            "arguments": "".join(call.arguments),
        }

    def _output(self, answer: Answer) -> list[dict[str, Any]]:
        items = {at: self._call_item(answer, index) for index, (at, _) in self._calls_at.items()}
        if self._message_at is not None:
            items[self._message_at] = self._message(answer)
        return [items[at] for at in sorted(items)]

    def _response(self, answer: Answer, status: Literal["in_progress", "completed", "failed"]) -> dict[str, Any]:
        asked, reason = self._asked, _INCOMPLETE.get(answer.finish)
        ended = status == "completed"
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._created,
            "status": "incomplete" if ended and reason else status,
            "background": False,
            "error": None,
            "incomplete_details": {"reason": reason} if ended and reason else None,
            "instructions": asked.instructions,
            "max_output_tokens": asked.max_output_tokens,
            "metadata": asked.metadata or {},
            "model": answer.model,
            "output": [] if status == "in_progress" else self._output(answer),
            "parallel_tool_calls": asked.parallel_tool_calls is not False,
            "previous_response_id": None,
            "store": False,
            "temperature": asked.temperature,
            "text": asked.text.model_dump(by_alias=True, exclude_none=True) if asked.text else {},
            "tool_choice": asked.tool_choice or "auto",
            "tools": asked.tools or [],
            "top_p": asked.top_p,
            "truncation": "disabled",
            "usage": _usage(answer) if ended else None,
        }


def _usage(answer: Answer) -> dict[str, Any]:
    return {
        "input_tokens": answer.prompt_tokens,
        "input_tokens_details": {"cached_tokens": answer.cached_tokens},
        "output_tokens": answer.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": answer.prompt_tokens + answer.completion_tokens,
    }


async def _respond(request: Request) -> Response:
    """Answer a text or a conversation."""
    caller = await engine_caller(request)
    body = understood(ResponseIn, await json_object(request))
    asked = Asked(
        request=response_request(body),
        policy=policy_of(body.model, body.neuroedge),
        model=body.model,
        stream=bool(body.stream),
        voice=Said(body),
    )
    return await answered(request, caller, asked)


def build_router() -> APIRouter:
    """The route."""
    router = APIRouter(tags=["openai"])
    router.add_api_route(
        "/v1/responses",
        with_errors(_respond, model_error),
        methods=["POST"],
        response_model=None,
        dependencies=[Depends(bearer)],
        route_class_override=RawRoute,
        summary="Answer a text or a conversation (OpenAI)",
        openapi_extra={
            **IDEMPOTENCY,
            "requestBody": {"required": True, "content": {"application/json": {"schema": inlined(ResponseIn)}}},
        },
    )
    return router
