"""Chat completions as OpenAI defined them: OpenAI itself, Qwen (DashScope's compatible mode), vLLM, Ollama and others.

Sources: https://platform.openai.com/docs/api-reference/chat (request, chunks, usage); vLLM's `continuous_usage_stats`
(usage with every chunk) is understood where a server sends it.
"""

import base64
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final

from neuroedge.contract.chat import (
    ChatDelta,
    ChatMessage,
    ChatRequest,
    Finish,
    Image,
    TokenLogprob,
    Tool,
    ToolCallPart,
)
from neuroedge.contract.errors import ProviderFailed
from neuroedge.runtimes.remote_llm.connections import Client
from neuroedge.runtimes.remote_llm.errors import refused_parameter
from neuroedge.runtimes.remote_llm.remote_chat import RemoteChat
from neuroedge.runtimes.remote_llm.tokens import Counts

MOST_TOP_LOGPROBS: Final = 20
_FINISHES: Final[Mapping[str, Finish]] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}
_INSTEAD: Final[Mapping[str, str | None]] = {
    "max_tokens": "max_completion_tokens",
    "temperature": None,
    "top_p": None,
    "presence_penalty": None,
    "frequency_penalty": None,
    "seed": None,
    "logprobs": None,
    "top_logprobs": None,
    "stream_options": None,
}
"""Parameters some models or servers do not take, with what says the same to them."""


class OpenAIChat(RemoteChat):
    """A ChatModel of a provider that speaks this wire format."""

    async def _deltas(self, client: Client, request: ChatRequest) -> AsyncGenerator[ChatDelta, None]:
        # Imported late: it needs the SDKs' HTTP library, which the client's opening has imported.
        from neuroedge.runtimes.remote_llm.openai_wire import chunks

        finish: Finish | None = None
        counts = Counts()
        heard = False
        async with aclosing(chunks(await self._asked(client, request))) as told:
            async for chunk in told:
                if usage := chunk.get("usage"):
                    counts = _counts(usage)
                for choice in (chunk.get("choices") or ())[:1]:
                    finish = _finish(choice.get("finish_reason")) or finish
                    said = choice["delta"]
                    delta = _delta(choice, said, counts)
                    # Empty pieces are given where they tell something: the first, that the prompt was taken, others
                    # that the model thinks.
                    if delta.text or delta.tool_calls or delta.logprobs or not heard or _thinks(said):
                        heard = True
                        yield delta
        if finish is None:
            raise ProviderFailed(f"{self.provider} stopped without saying why")
        yield ChatDelta(finish_reason=finish, **counts)

    async def _asked(self, client: Client, request: ChatRequest) -> Any:
        """The open answer. A parameter that the model is found not to take is left out, now and from then on."""
        from neuroedge.runtimes.remote_llm.openai_wire import opened

        refused = client.refused[self.model]
        while True:
            asked = without(body(request, model=self.model), refused)
            try:
                return await opened(client, asked, silence_s=self.silence_s)
            except Exception as error:
                name = refused_parameter(error)
                if name is None or name not in _INSTEAD or name in refused:
                    raise
                refused.add(name)


def body(request: ChatRequest, *, model: str) -> dict[str, Any]:
    """The request on the wire."""
    asked: dict[str, Any] = {
        "model": model,
        "messages": [_message(m) for m in request.messages],
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "presence_penalty": request.presence_penalty,
        "frequency_penalty": request.frequency_penalty,
        "seed": request.seed,
        "stop": list(request.stop) or None,
        "response_format": _format(request),
    }
    if request.tools:
        asked["tools"] = [_tool(tool) for tool in request.tools]
        asked["tool_choice"] = _choice(request.tool_choice)
    if request.logprobs is not None:
        asked |= {"logprobs": True, "top_logprobs": min(request.logprobs, MOST_TOP_LOGPROBS)}
    given = {name: value for name, value in asked.items() if value is not None}
    return {**given, "stream": True, "stream_options": {"include_usage": True}}


def without(asked: Mapping[str, Any], refused: set[str]) -> dict[str, Any]:
    """The request without parameters the model does not take, or with what stands for them."""
    names = {name: _INSTEAD[name] if name in refused else name for name in asked}
    return {str(name): asked[old] for old, name in names.items() if name is not None}


def _message(message: ChatMessage) -> dict[str, Any]:
    said: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.images:
        text = [{"type": "text", "text": message.content}] if message.content else []
        said["content"] = [*text, *({"type": "image_url", "image_url": {"url": _data_url(i)}} for i in message.images)]
    if message.tool_calls:
        said["content"] = message.content or None
        said["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        said["tool_call_id"] = message.tool_call_id
    if message.name is not None and message.role != "tool":
        said["name"] = message.name
    return said


def _data_url(image: Image) -> str:
    return f"data:{image.media_type};base64,{base64.b64encode(image.data).decode()}"


def _tool(tool: Tool) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
    return {"type": "function", "function": function}


def _choice(choice: str) -> Any:
    if choice in ("auto", "none", "required"):
        return choice
    return {"type": "function", "function": {"name": choice}}


def _format(request: ChatRequest) -> dict[str, Any] | None:
    if request.json_schema is not None:
        schema = dict(request.json_schema)
        named = {"name": "answer", "schema": schema, "strict": True if is_strict(schema) else None}
        return {"type": "json_schema", "json_schema": {k: v for k, v in named.items() if v is not None}}
    return {"type": "json_object"} if request.json_object else None


def is_strict(schema: Any) -> bool:
    """Whether a schema is of the kind that OpenAI can hold its models to: every property required, none beside them."""
    if isinstance(schema, Sequence) and not isinstance(schema, str):
        return all(is_strict(part) for part in schema)
    if not isinstance(schema, Mapping):
        return True
    if schema.get("type") == "object" or "properties" in schema:
        properties = schema.get("properties", {})
        if schema.get("additionalProperties") is not False or set(schema.get("required", ())) != set(properties):
            return False
        return all(is_strict(part) for part in properties.values()) and is_strict(
            list(schema.get("$defs", {}).values())
        )
    return all(is_strict(schema[key]) for key in ("items", "anyOf") if key in schema)


def _delta(choice: Mapping[str, Any], said: Mapping[str, Any], counts: Counts) -> ChatDelta:
    tokens = (choice.get("logprobs") or {}).get("content")
    return ChatDelta(
        text=_text(said.get("content")) + _text(said.get("refusal")),
        tool_calls=[_part(part, position) for position, part in enumerate(said.get("tool_calls") or ())],
        logprobs=[_logprob(token) for token in tokens or ()],
        **counts,
    )


def _text(value: Any) -> str:
    """Text, or none at all. Raises TypeError for anything else."""
    if value is not None and not isinstance(value, str):
        raise TypeError("no text")
    return value or ""


def _thinks(said: Mapping[str, Any]) -> bool:
    """Thoughts come in a field of each server's own choice: DeepSeek's and Qwen's, or Ollama's and vLLM's."""
    return bool(said.get("reasoning_content") or said.get("reasoning"))


def _part(part: Mapping[str, Any], position: int) -> ToolCallPart:
    function = part.get("function") or {}
    index = part.get("index")
    return ToolCallPart(
        index=position if index is None else int(index),
        id=_text(part.get("id")) or None,
        name=_text(function.get("name")) or None,
        arguments=_text(function.get("arguments")),
    )


def _logprob(token: Mapping[str, Any]) -> TokenLogprob:
    top = [(_text(other["token"]), float(other["logprob"])) for other in token.get("top_logprobs") or ()]
    return TokenLogprob(token=_text(token["token"]), logprob=float(token["logprob"]), top=top)


def _finish(reason: str | None) -> Finish | None:
    return _FINISHES.get(reason, "stop") if reason else None


def _counts(usage: Mapping[str, Any]) -> Counts:
    """As the provider tells them; whether they can be true is the caller's to ask."""
    counts = Counts()
    if isinstance(prompt := usage.get("prompt_tokens"), int):
        counts["prompt_tokens"] = prompt
    if isinstance(completion := usage.get("completion_tokens"), int):
        counts["completion_tokens"] = completion
    if isinstance(cached := (usage.get("prompt_tokens_details") or {}).get("cached_tokens"), int):
        counts["cached_tokens"] = cached
    return counts
