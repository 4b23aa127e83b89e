"""POST /v1/completions: the older API of prompts, for clients that still speak it.

Today's models are trained on conversations, so the prompt is asked as the one message of a user, in the model's chat
template; a raw continuation of it is not available, nor what only that could give (`suffix`, `echo`, `best_of`).
"""

import time
from typing import Annotated, Any, Final
from uuid import uuid4

from fastapi import APIRouter, Depends, Request, Response
from pydantic import Field
from pydantic_core import to_json

from neuroedge.contract.chat import ChatDelta, ChatMessage, ChatRequest, TokenLogprob
from neuroedge.contract.errors import NeuroEdgeError
from neuroedge.http.auth import bearer, engine_caller
from neuroedge.http.chat_answer import IDEMPOTENCY, Answer, Asked, policy_of
from neuroedge.http.chat_parts import MAX_STOPS, Lenient, Preferences, inlined, understood, wrong
from neuroedge.http.json_body import json_object
from neuroedge.http.openai.chat_completions import DONE, answered, event, model_error, usage_of
from neuroedge.http.openai.chat_schemas import StreamOptions
from neuroedge.http.openai.errors import RawRoute, error_body, with_errors

_MAX_TOKENS: Final = 16
"""What the older API gives where nothing is asked for."""


class CompletionIn(Lenient):
    """A prompt."""

    model: str = Field(description="`provider/model`, a model's id, or auto for the organisation's choice.")
    prompt: str | list[Any] = Field(description="A text, or a list with one text; asked as a user's message.")
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(default=None, ge=1, description=f"{_MAX_TOKENS} when not given.")
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: str | Annotated[list[str], Field(max_length=MAX_STOPS)] | None = None
    n: int | None = Field(default=None, description="1.")
    best_of: int | None = Field(default=None, description="1.")
    echo: bool | None = Field(default=None, description="Not available.")
    suffix: str | None = Field(default=None, description="Not available.")
    logprobs: int | None = Field(default=None, ge=0, le=20)
    neuroedge: Preferences | None = Field(default=None, description="Which models may answer; NeuroEdge's own.")


class TextCompletion:
    """One answer in the shape of `text_completion`, which is the same for its chunks."""

    def __init__(self, *, include_usage: bool) -> None:
        self._head = {"id": f"cmpl-{uuid4().hex}", "object": "text_completion", "created": int(time.time())}
        self._include_usage = include_usage
        self._written = 0

    def whole(self, answer: Answer) -> bytes:
        """The body."""
        choice = self._choice(answer.text, answer.logprobs, answer.finish)
        return to_json({**self._head, "model": answer.model, "choices": [choice], "usage": usage_of(answer)})

    def begin(self, answer: Answer) -> bytes:
        """Nothing: there is no role."""
        return b""

    def piece(self, delta: ChatDelta, answer: Answer) -> bytes:
        """A chunk of words."""
        if not delta.text and not delta.logprobs:
            return b""
        choice = self._choice(delta.text, delta.logprobs, None)
        self._written += len(delta.text)
        return event({**self._head, "model": answer.model, "choices": [choice]})

    def end(self, answer: Answer) -> bytes:
        """Why it ended, the usage where it is wanted, and the sign that nothing follows."""
        choice = self._choice("", (), answer.finish)
        data = event({**self._head, "model": answer.model, "choices": [choice]})
        if self._include_usage:
            data += event({**self._head, "model": answer.model, "choices": [], "usage": usage_of(answer)})
        return data + DONE

    def broken(self, error: NeuroEdgeError, answer: Answer) -> bytes:
        """An event with the error; nothing follows."""
        return event(error_body(error))

    def _choice(self, text: str, tokens: Any, finish: str | None) -> dict[str, Any]:
        logprobs = self._logprobs(tokens) if tokens else None
        return {"index": 0, "text": text, "logprobs": logprobs, "finish_reason": finish}

    def _logprobs(self, tokens: list[TokenLogprob]) -> dict[str, Any]:
        offsets, at = [], self._written
        for token in tokens:
            offsets.append(at)
            at += len(token.token)
        return {
            "tokens": [token.token for token in tokens],
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [dict(token.top) for token in tokens],
            "text_offset": offsets,
        }


def completion_request(asked: CompletionIn) -> ChatRequest:
    """As models are asked. Raises InvalidInput."""
    for name, usual in (("n", 1), ("best_of", 1), ("echo", False), ("suffix", None)):
        if getattr(asked, name) not in (None, usual):
            raise wrong((name,), "not available here: POST /v1/chat/completions instead")
    return ChatRequest(
        [ChatMessage(role="user", content=_prompt(asked.prompt))],
        max_tokens=asked.max_tokens or _MAX_TOKENS,
        temperature=asked.temperature,
        top_p=asked.top_p,
        presence_penalty=asked.presence_penalty,
        frequency_penalty=asked.frequency_penalty,
        seed=asked.seed,
        stop=[asked.stop] if isinstance(asked.stop, str) else asked.stop or (),
        logprobs=asked.logprobs,
    )


def _prompt(prompt: str | list[Any]) -> str:
    if isinstance(prompt, list):
        if len(prompt) != 1 or not isinstance(prompt[0], str):
            raise wrong(("prompt",), "one text to a request; token ids are not taken")
        return prompt[0]
    return prompt


async def _complete(request: Request) -> Response:
    """Answer a prompt."""
    caller = await engine_caller(request)
    body = understood(CompletionIn, await json_object(request))
    include_usage = body.stream_options is not None and body.stream_options.include_usage
    asked = Asked(
        request=completion_request(body),
        policy=policy_of(body.model, body.neuroedge),
        model=body.model,
        stream=bool(body.stream),
        voice=TextCompletion(include_usage=include_usage),
    )
    return await answered(request, caller, asked)


def build_router() -> APIRouter:
    """The route."""
    router = APIRouter(tags=["openai"])
    router.add_api_route(
        "/v1/completions",
        with_errors(_complete, model_error),
        methods=["POST"],
        response_model=None,
        dependencies=[Depends(bearer)],
        route_class_override=RawRoute,
        summary="Answer a prompt (OpenAI, legacy)",
        openapi_extra={
            **IDEMPOTENCY,
            "requestBody": {"required": True, "content": {"application/json": {"schema": inlined(CompletionIn)}}},
        },
    )
    return router
