"""What POST /v1/messages takes, and how it is asked of a model.

Fields this server has no use for (`metadata`, `top_k`, `cache_control`, `service_tier`, …) are accepted and ignored.
"""

import json
from typing import Annotated, Any, Literal

from pydantic import Field

from neuroedge.contract.chat import ChatMessage, ChatRequest, Image, Tool, ToolCall
from neuroedge.http.chat_parts import (
    MAX_STOPS,
    MAX_TOOLS,
    Lenient,
    Preferences,
    picture_of,
    schema_of,
    tool_of,
    wrong,
)

Place = tuple[str | int, ...]


class TextBlock(Lenient):
    """Words."""

    type: Literal["text"]
    text: str


class PictureSource(Lenient):
    """Where a picture is: in the request."""

    type: Literal["base64"] = Field(description="No URL is fetched.")
    data: str


class PictureBlock(Lenient):
    """A picture: PNG, JPEG, WebP or GIF."""

    type: Literal["image"]
    source: PictureSource


class ToolUseBlock(Lenient):
    """A call the assistant asked for."""

    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]


class ToolResultBlock(Lenient):
    """What a call gave."""

    type: Literal["tool_result"]
    tool_use_id: str
    content: str | list[Annotated[TextBlock | PictureBlock, Field(discriminator="type")]] | None = None
    is_error: bool = False


class ThinkingBlock(Lenient):
    """A model's own thoughts of an earlier turn, which only the one that had them can read; left out."""

    type: Literal["thinking", "redacted_thinking"]


Block = Annotated[
    TextBlock | PictureBlock | ToolUseBlock | ToolResultBlock | ThinkingBlock, Field(discriminator="type")
]


class TurnIn(Lenient):
    """A turn."""

    role: Literal["user", "assistant"]
    content: str | list[Block]


class MessageTool(Lenient):
    """A function the model may ask for."""

    type: Literal["custom"] | None = None
    name: str
    description: str | None = None
    input_schema: dict[str, Any]


class MessageToolChoice(Lenient):
    """Whether a tool is to be called, and which."""

    type: Literal["auto", "any", "none", "tool"]
    name: str | None = None


class OutputFormat(Lenient):
    """Shape of the answer."""

    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class OutputConfig(Lenient):
    """How the answer is written."""

    format: OutputFormat | None = None


class Thinking(Lenient):
    """Thoughts before the answer."""

    type: str


class CountIn(Lenient):
    """A conversation."""

    model: str = Field(description="`provider/model`, a model's id, or auto for the organisation's choice.")
    messages: list[TurnIn] = Field(min_length=1, max_length=10_000)
    system: str | list[TextBlock] | None = None
    tools: list[MessageTool] | None = Field(default=None, max_length=MAX_TOOLS)
    tool_choice: MessageToolChoice | None = None
    thinking: Thinking | None = Field(default=None, description="`enabled` is not available.")
    output_config: OutputConfig | None = None
    neuroedge: Preferences | None = Field(default=None, description="Which models may answer; NeuroEdge's own.")


class MessageIn(CountIn):
    """A conversation to go on with."""

    max_tokens: int = Field(ge=1)
    stream: bool | None = None
    temperature: float | None = Field(default=None, ge=0, le=1)
    top_p: float | None = Field(default=None, ge=0, le=1)
    stop_sequences: list[str] | None = Field(default=None, max_length=MAX_STOPS)


def messages_request(asked: CountIn) -> ChatRequest:
    """As models are asked. Raises InvalidInput."""
    if asked.thinking is not None and asked.thinking.type == "enabled":
        raise wrong(("thinking",), "models here do not show their thoughts; leave it out")
    messages = [message for n, turn in enumerate(asked.messages) for message in _messages(turn, ("messages", n))]
    if asked.system:
        system = asked.system if isinstance(asked.system, str) else "\n".join(block.text for block in asked.system)
        messages.insert(0, ChatMessage(role="system", content=system))
    if not messages:
        raise wrong(("messages",), "hold nothing to answer")
    tools = [
        tool_of(tool.name, tool.description, tool.input_schema, place=("tools", n))
        for n, tool in enumerate(asked.tools or [])
    ]
    shape = asked.output_config.format if asked.output_config else None
    schema = None if shape is None else schema_of(shape.schema_, ("output_config", "format", "schema"))
    choice = _choice(asked.tool_choice, tools)
    if not isinstance(asked, MessageIn):
        return ChatRequest(messages, tools=tools, tool_choice=choice, json_schema=schema)
    return ChatRequest(
        messages,
        max_tokens=asked.max_tokens,
        temperature=asked.temperature,
        top_p=asked.top_p,
        stop=asked.stop_sequences or (),
        json_schema=schema,
        tools=tools,
        tool_choice=choice,
    )


def _messages(turn: TurnIn, place: Place) -> list[ChatMessage]:
    """A turn; results of tools are turns of their own for other models, before the words beside them."""
    if isinstance(turn.content, str):
        return [ChatMessage(role=turn.role, content=turn.content)]
    texts: list[str] = []
    images: list[Image] = []
    calls: list[ToolCall] = []
    results: list[ChatMessage] = []
    for n, block in enumerate(turn.content):
        match block:
            case TextBlock():
                texts.append(block.text)
            case PictureBlock():
                images.append(picture_of(block.source.data, (*place, "content", n, "source", "data")))
            case ToolUseBlock() if turn.role == "assistant":
                calls.append(ToolCall(id=block.id, name=block.name, arguments=json.dumps(block.input)))
            case ToolResultBlock() if turn.role == "user":
                results.append(_result(block, (*place, "content", n)))
            case ThinkingBlock():
                continue
            case _:
                raise wrong((*place, "content", n), f"{block.type} is no part of a turn of the {turn.role}")
    if texts or images or calls:
        results.append(ChatMessage(role=turn.role, content="\n".join(texts), images=images, tool_calls=calls))
    return results


def _result(block: ToolResultBlock, place: Place) -> ChatMessage:
    content = block.content or ""
    parts = [] if isinstance(content, str) else content
    text = content if isinstance(content, str) else "\n".join(p.text for p in parts if isinstance(p, TextBlock))
    images = [
        picture_of(part.source.data, (*place, "content", n, "source", "data"))
        for n, part in enumerate(parts)
        if isinstance(part, PictureBlock)
    ]
    said = f"Error: {text}" if block.is_error else text
    return ChatMessage(role="tool", content=said, images=images, tool_call_id=block.tool_use_id)


def _choice(choice: MessageToolChoice | None, tools: list[Tool]) -> str:
    if choice is None or choice.type in ("auto", "none"):
        return choice.type if choice else "auto"
    if choice.type == "any" and tools:
        return "required"
    if choice.type == "tool" and choice.name in {tool.name for tool in tools}:
        return str(choice.name)
    raise wrong(("tool_choice",), "no such tool in 'tools'")
