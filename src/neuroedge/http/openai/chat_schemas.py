"""What POST /v1/chat/completions takes, and how it is asked of a model.

Fields OpenAI's servers know and this one has no use for (`user`, `metadata`, `store`, `service_tier`,
`parallel_tool_calls`, …) are accepted and ignored, as are those nobody knows.
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from neuroedge.contract.chat import ChatMessage, ChatRequest, Image, Role, Tool, ToolCall
from neuroedge.http.chat_parts import (
    MAX_STOPS,
    MAX_TOKENS,
    MAX_TOOLS,
    Lenient,
    Preferences,
    picture_at,
    schema_of,
    tool_of,
    wrong,
)


class TextPart(Lenient):
    """Words."""

    type: Literal["text"]
    text: str


class RefusalPart(Lenient):
    """An earlier refusal of the assistant."""

    type: Literal["refusal"]
    refusal: str


class PictureUrl(Lenient):
    """Where a picture is: within the URL."""

    url: str = Field(description="data:image/png;base64,… (PNG, JPEG, WebP, GIF); no other URL is fetched.")


class PicturePart(Lenient):
    """A picture."""

    type: Literal["image_url"]
    image_url: PictureUrl


Part = Annotated[TextPart | RefusalPart | PicturePart, Field(discriminator="type")]


class AskedFunction(Lenient):
    """A function the assistant asked for."""

    name: str
    arguments: str = ""


class AskedCall(Lenient):
    """A call the assistant asked for."""

    id: str
    type: Literal["function"] = "function"
    function: AskedFunction


class CompletionMessage(Lenient):
    """A turn."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Part] | None = None
    name: str | None = None
    tool_calls: list[AskedCall] | None = Field(default=None, max_length=MAX_TOOLS)
    tool_call_id: str | None = None


class OfferedFunction(Lenient):
    """A function the model may ask for."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = Field(default=None, description="A JSON Schema of an object.")


class OfferedTool(Lenient):
    """A tool; functions are the only kind."""

    type: Literal["function"]
    function: OfferedFunction


class ChosenName(Lenient):
    """A function's name."""

    name: str


class ChosenTool(Lenient):
    """The one function to call."""

    type: Literal["function"]
    function: ChosenName


class SchemaFormat(Lenient):
    """A schema the answer must fit."""

    name: str = "answer"
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")


class AnswerFormat(Lenient):
    """Shape of the answer."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: SchemaFormat | None = None


class StreamOptions(Lenient):
    """What a stream holds besides."""

    include_usage: bool = Field(default=False, description="One more chunk at the end, with the token counts.")


class ChatCompletionIn(Lenient):
    """A conversation to go on with."""

    model: str = Field(description="`provider/model`, a model's id, or auto for the organisation's choice.")
    messages: list[CompletionMessage] = Field(min_length=1, max_length=10_000)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(default=None, ge=1, description=f"{MAX_TOKENS} when not given.")
    max_completion_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: str | Annotated[list[str], Field(max_length=MAX_STOPS)] | None = None
    n: int | None = Field(default=None, description="1: one answer to a request.")
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    response_format: AnswerFormat | None = None
    tools: list[OfferedTool] | None = Field(default=None, max_length=MAX_TOOLS)
    tool_choice: Literal["none", "auto", "required"] | ChosenTool | None = None
    functions: Any = Field(default=None, description="Not available: give `tools`.")
    modalities: list[str] | None = Field(default=None, description="text only.")
    neuroedge: Preferences | None = Field(default=None, description="Which models may answer; NeuroEdge's own.")


def chat_request(asked: ChatCompletionIn) -> ChatRequest:
    """As models are asked. Raises InvalidInput."""
    _refuse_unavailable(asked)
    tools = _tools(asked.tools or [])
    shape = asked.response_format
    return ChatRequest(
        [_message(message, n) for n, message in enumerate(asked.messages)],
        max_tokens=asked.max_completion_tokens or asked.max_tokens or MAX_TOKENS,
        temperature=asked.temperature,
        top_p=asked.top_p,
        presence_penalty=asked.presence_penalty,
        frequency_penalty=asked.frequency_penalty,
        seed=asked.seed,
        stop=[asked.stop] if isinstance(asked.stop, str) else asked.stop or (),
        json_object=shape is not None and shape.type == "json_object",
        json_schema=None if shape is None or shape.type != "json_schema" else _schema(shape.json_schema),
        tools=tools,
        tool_choice=_choice(asked.tool_choice, tools),
        logprobs=(asked.top_logprobs or 0) if asked.logprobs else None,
    )


def _refuse_unavailable(asked: ChatCompletionIn) -> None:
    if asked.n not in (None, 1):
        raise wrong(("n",), "one answer to a request: send the request again for another")
    if asked.functions is not None:
        raise wrong(("functions",), "give them as tools")
    if asked.modalities and set(asked.modalities) != {"text"}:
        raise wrong(("modalities",), "answers are text")
    if asked.top_logprobs is not None and not asked.logprobs:
        raise wrong(("top_logprobs",), "needs logprobs: true")


def _message(message: CompletionMessage, position: int) -> ChatMessage:
    place = ("messages", position)
    if message.role == "tool" and message.tool_call_id is None:
        raise wrong((*place, "tool_call_id"), "a message of a tool names the call it answers")
    if message.content is None and not (message.role == "assistant" and message.tool_calls):
        raise wrong((*place, "content"), "a message without content")
    role: Role = "system" if message.role == "developer" else message.role
    text, images = _content(message.content, place)
    return ChatMessage(
        role=role,
        content=text,
        images=images,
        tool_calls=[
            ToolCall(id=call.id, name=call.function.name, arguments=call.function.arguments)
            for call in message.tool_calls or ()
        ],
        tool_call_id=message.tool_call_id,
        name=message.name,
    )


def _content(content: str | list[Part] | None, place: tuple[str | int, ...]) -> tuple[str, list[Image]]:
    if content is None or isinstance(content, str):
        return content or "", []
    texts, images = [], []
    for n, part in enumerate(content):
        match part:
            case TextPart():
                texts.append(part.text)
            case RefusalPart():
                texts.append(part.refusal)
            case PicturePart():
                images.append(picture_at(part.image_url.url, (*place, "content", n, "image_url", "url")))
    return "\n".join(texts), images


def _tools(offered: list[OfferedTool]) -> list[Tool]:
    tools = [
        tool_of(f.name, f.description, f.parameters, place=("tools", n, "function"))
        for n, f in enumerate(tool.function for tool in offered)
    ]
    names = [tool.name for tool in tools]
    if len(set(names)) != len(names):
        raise wrong(("tools",), "two functions have the same name")
    return tools


def _choice(choice: str | ChosenTool | None, tools: list[Tool]) -> str:
    if choice is None or isinstance(choice, str):
        if choice == "required" and not tools:
            raise wrong(("tool_choice",), "there are no tools")
        return choice or "auto"
    if choice.function.name not in {tool.name for tool in tools}:
        raise wrong(("tool_choice", "function", "name"), "no such tool in 'tools'")
    return choice.function.name


def _schema(shape: SchemaFormat | None) -> Any:
    place = ("response_format", "json_schema")
    if shape is None or shape.schema_ is None:
        raise wrong((*place, "schema"), "is missing")
    return schema_of(shape.schema_, (*place, "schema"))
