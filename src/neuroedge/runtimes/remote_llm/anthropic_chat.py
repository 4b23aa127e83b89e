"""Anthropic's Messages API.

Source: https://docs.anthropic.com/en/api/messages, its streaming page and that on structured outputs. Since version
2026-10-21 it takes no temperature and no top_p; it never had seed, penalties or logprobs. A request that has them is
answered without them.
"""

import base64
import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Final

from neuroedge.contract.chat import ChatDelta, ChatMessage, ChatRequest, Finish, Image, ToolCallPart
from neuroedge.contract.errors import ProviderFailed, ProviderRefused
from neuroedge.runtimes.remote_llm.connections import Client
from neuroedge.runtimes.remote_llm.remote_chat import RemoteChat
from neuroedge.runtimes.remote_llm.tokens import Counts

JSON_ONLY: Final = "Answer with one JSON object and nothing else."
_FINISHES: Final[Mapping[str, Finish]] = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


class AnthropicChat(RemoteChat):
    """A ChatModel of a provider that speaks this wire format."""

    async def _deltas(self, client: Client, request: ChatRequest) -> AsyncGenerator[ChatDelta, None]:
        reading = _Reading()
        asked = body(request, model=self.model)
        async with await client.sdk.messages.create(
            **asked, stream=True, timeout=client.timeout(self.silence_s)
        ) as events:
            async for event in events:
                if (delta := reading.read(event)) is not None:
                    yield delta
        if reading.finish is None:
            raise ProviderFailed(f"{self.provider} stopped without saying why")
        yield ChatDelta(finish_reason=reading.finish, **reading.counts)


class _Reading:
    """What the events of one answer have told so far."""

    def __init__(self) -> None:
        self.finish: Finish | None = None
        self.counts = Counts()
        self._call_of_block: dict[int, int] = {}

    def read(self, event: Any) -> ChatDelta | None:
        """The piece that an event brings; None: none."""
        match event.type:
            case "message_start":
                self._count(event.message.usage, completion=False)
                return ChatDelta(**self.counts)
            case "content_block_start" if event.content_block.type == "tool_use":
                return self._call(event)
            case "content_block_delta":
                return self._piece(event)
            case "message_delta":
                self._count(event.usage, completion=True)
                if reason := event.delta.stop_reason:
                    self.finish = _FINISHES.get(reason, "stop")
        return None

    def _call(self, event: Any) -> ChatDelta:
        index = self._call_of_block[event.index] = len(self._call_of_block)
        block = event.content_block
        return ChatDelta(tool_calls=[ToolCallPart(index=index, id=block.id, name=block.name)])

    def _piece(self, event: Any) -> ChatDelta | None:
        match event.delta.type:
            case "text_delta":
                return ChatDelta(text=event.delta.text)
            case "input_json_delta":
                part = ToolCallPart(index=self._call_of_block[event.index], arguments=event.delta.partial_json)
                return ChatDelta(tool_calls=[part])
            case "thinking_delta":
                # Thoughts are not part of the answer, but a sign of life.
                return ChatDelta()
        return None

    def _count(self, usage: Any, *, completion: bool) -> None:
        """Cached tokens are counted apart from `input_tokens` here; in NeuroEdge they are part of the prompt."""
        cached = getattr(usage, "cache_read_input_tokens", None) or 0
        written = getattr(usage, "cache_creation_input_tokens", None) or 0
        if isinstance(fresh := getattr(usage, "input_tokens", None), int):
            self.counts["prompt_tokens"] = fresh + cached + written
            self.counts["cached_tokens"] = cached
        if completion and isinstance(said := getattr(usage, "output_tokens", None), int):
            self.counts["completion_tokens"] = said


def body(request: ChatRequest, *, model: str) -> dict[str, Any]:
    """The request on the wire."""
    system = [m.content for m in request.messages if m.role == "system" and m.content]
    if request.json_object:
        system.append(JSON_ONLY)
    asked: dict[str, Any] = {
        "model": model,
        "max_tokens": request.max_tokens,
        "messages": [_message(m) for m in request.messages if m.role != "system"],
        "system": "\n\n".join(system) or None,
        "stop_sequences": list(request.stop) or None,
    }
    if request.tools:
        asked["tools"] = [
            {"name": t.name, "description": t.description, "input_schema": dict(t.parameters)} for t in request.tools
        ]
        asked["tool_choice"] = _choice(request.tool_choice)
    if request.json_schema is not None:
        asked["output_config"] = {"format": {"type": "json_schema", "schema": _schema(request.json_schema)}}
    return {name: value for name, value in asked.items() if value is not None}


def _schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """What their grammar knows of it; the rest becomes a description, as their SDK does it."""
    from anthropic import transform_schema

    try:
        return transform_schema(dict(schema))
    except Exception as error:
        raise ProviderRefused(f"the provider knows no such JSON schema: {error}") from error


def _choice(choice: str) -> dict[str, Any]:
    match choice:
        case "auto" | "none":
            return {"type": choice}
        case "required":
            return {"type": "any"}
    return {"type": "tool", "name": choice}


def _message(message: ChatMessage) -> dict[str, Any]:
    if message.role == "tool":
        result = {"type": "tool_result", "tool_use_id": message.tool_call_id, "content": message.content}
        return {"role": "user", "content": [result]}
    if not message.images and not message.tool_calls:
        return {"role": message.role, "content": message.content}
    # An empty text block is refused.
    content: list[dict[str, Any]] = [{"type": "text", "text": message.content}] if message.content else []
    content += [_image(image) for image in message.images]
    for call in message.tool_calls:
        content.append({"type": "tool_use", "id": call.id, "name": call.name, "input": _arguments(call.arguments)})
    return {"role": message.role, "content": content}


def _image(image: Image) -> dict[str, Any]:
    data = base64.b64encode(image.data).decode()
    return {"type": "image", "source": {"type": "base64", "media_type": image.media_type, "data": data}}


def _arguments(text: str) -> dict[str, Any]:
    """Arguments must be an object here; what a model wrote that is none is kept as it is."""
    try:
        given = json.loads(text or "{}")
    except ValueError:
        return {"arguments": text}
    return given if isinstance(given, dict) else {"arguments": given}
