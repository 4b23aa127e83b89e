"""What llama.cpp is asked: a ChatRequest as the body of its chat completions."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from neuroedge.contract.chat import ChatMessage, ChatRequest, Tool
from neuroedge.contract.errors import InvalidInput
from neuroedge.runtimes.llama_tools import CallReader, answer_schema, check, declared, forced, told, wanted

Body = dict[str, Any]
_CHARS_PER_TOKEN: Final = 4
_MESSAGE_TOKENS: Final = 16
"""What a template puts around a message, at most."""
_TEMPLATE_TOKENS: Final = 512
"""What a template says by itself, at most: a system prompt, how to call tools."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A request in llama.cpp's words."""

    body: Body
    max_tokens: int
    reader: CallReader | None = None
    """Reads the answer where it may be a call written as JSON."""

    @property
    def cost(self) -> float:
        """Roughly the tokens it takes; exact counting would cost a round trip."""
        return self._chars() / _CHARS_PER_TOKEN + self.max_tokens

    @property
    def most_tokens(self) -> int:
        """Tokens of prompt and answer at most: none is shorter than a byte."""
        messages = len(self.body["messages"]) * _MESSAGE_TOKENS + _TEMPLATE_TOKENS
        return len(_dumps(self._prompt()).encode()) + messages + self.max_tokens

    def _prompt(self) -> list[Any]:
        return [self.body["messages"], self.body.get("tools"), self.body.get("response_format")]

    def _chars(self) -> int:
        return sum(len(message["content"]) for message in self.body["messages"])


def question(asked: ChatRequest, *, knows_tools: bool) -> Question:
    """The question. `knows_tools`: whether the model's template shows it tools. Raises InvalidInput."""
    if any(message.images for message in asked.messages):
        raise InvalidInput("this model does not see images", hint="choose a model with vision, or send text only")
    tools, must = wanted(asked), forced(asked)
    if must and not tools:
        raise InvalidInput(
            f"tool_choice names no tool: {asked.tool_choice}", hint="auto, none, required or a tool's name"
        )
    if tools and not knows_tools:
        check(tools)  # llama.cpp checks those it is told of
    body: Body = {
        **_sampling(asked),
        "messages": [_message(m) for m in asked.messages] if knows_tools else told(asked.messages, tools, must=must),
        "max_tokens": asked.max_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
        # A report after every prompt batch is also the chance to cancel there.
        "return_progress": True,
    }
    schema = _answer_schema(asked, tools, must=must)
    if schema is not None:
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    elif asked.json_object:
        body["response_format"] = {"type": "json_object"}
    if tools:
        # An answer that seems a call is ended there, and its tokens are then known from the last piece.
        body["timings_per_token"] = True
        if knows_tools:
            body["tools"] = [declared(tool) for tool in tools]
            body["tool_choice"] = "auto" if schema is None else "none"
    return Question(
        body=body,
        max_tokens=asked.max_tokens,
        reader=CallReader(tools) if tools else None,
    )


def _answer_schema(asked: ChatRequest, tools: Sequence[Tool], *, must: bool) -> Body | None:
    """What the grammar must allow; None: anything (or any JSON object)."""
    if must:
        return answer_schema(tools, None)
    words = asked.json_schema
    if words is None and asked.json_object and tools:
        words = {"type": "object"}
    if words is None or not tools:
        return None if words is None else dict(words)
    return answer_schema(tools, words)


def _sampling(asked: ChatRequest) -> Body:
    given: Body = {
        "temperature": asked.temperature,
        "top_p": asked.top_p,
        "presence_penalty": asked.presence_penalty,
        "frequency_penalty": asked.frequency_penalty,
        "seed": asked.seed,
        "stop": list(asked.stop) or None,
    }
    if asked.logprobs is not None:
        # With 0 llama.cpp gives none at all, not even the chosen token's.
        given |= {"logprobs": True, "top_logprobs": max(1, asked.logprobs)}
    return {key: value for key, value in given.items() if value is not None}


def _message(message: ChatMessage) -> Body:
    made: Body = {"role": message.role, "content": message.content}
    if message.tool_calls:
        made["tool_calls"] = [
            {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": _object(c.arguments)}}
            for c in message.tool_calls
        ]
    if message.tool_call_id is not None:
        made["tool_call_id"] = message.tool_call_id
    if message.name is not None:
        made["name"] = message.name
    return made


def _object(arguments: str) -> str:
    """JSON of an object, as templates need it, also where the model wrote none."""
    try:
        if isinstance(json.loads(arguments or "{}"), dict):
            return arguments or "{}"
    except ValueError:
        pass
    return json.dumps({"not_json": arguments})


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
