"""Requests and answers of these tests."""

from typing import Any

from neuroedge.contract.chat import ChatDelta, ChatMessage, ChatModel, ChatRequest, Image, Tool, ToolCall

WEATHER = Tool(
    name="weather",
    description="Weather of a town.",
    parameters={"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]},
)
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
TALK = [
    ChatMessage(role="system", content="Be brief."),
    ChatMessage(role="user", content="What is this?", images=[Image(media_type="image/png", data=b"\x89PNG")]),
    ChatMessage(
        role="assistant", content="", tool_calls=[ToolCall(id="c1", name="weather", arguments='{"town": "Riga"}')]
    ),
    ChatMessage(role="tool", content="sunny", tool_call_id="c1"),
]


def ask(text: str = "one two three", **change: Any) -> ChatRequest:
    """A request of one message."""
    return ChatRequest([ChatMessage(role="user", content=text)], **change)


async def answer(model: ChatModel, request: ChatRequest | None = None) -> list[ChatDelta]:
    """All pieces."""
    return [delta async for delta in model.stream(request or ask())]


def text(deltas: list[ChatDelta]) -> str:
    """What was said."""
    return "".join(delta.text for delta in deltas)


def calls(deltas: list[ChatDelta]) -> list[tuple[str | None, str | None, str]]:
    """(id, name, arguments) of each tool call, put together from its pieces."""
    whole: dict[int, list[Any]] = {}
    for part in (part for delta in deltas for part in delta.tool_calls):
        call = whole.setdefault(part.index, [None, None, ""])
        call[0], call[1], call[2] = part.id or call[0], part.name or call[1], call[2] + part.arguments
    return [(call[0], call[1], call[2]) for _, call in sorted(whole.items())]
