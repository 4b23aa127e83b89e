"""What POST /v1/responses takes, and how it is asked of a model. Nothing of a response is stored."""

from typing import Annotated, Any, Literal

from pydantic import Field

from neuroedge.contract.chat import ChatMessage, ChatRequest, Image, Role, Tool, ToolCall
from neuroedge.http.chat_parts import (
    MAX_TOKENS,
    MAX_TOOLS,
    Lenient,
    Preferences,
    picture_at,
    schema_of,
    tool_of,
    understood,
    wrong,
)


class ResponseFormat(Lenient):
    """Shape of the answer."""

    type: Literal["text", "json_object", "json_schema"]
    name: str = "answer"
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")


class ResponseText(Lenient):
    """How the answer is written."""

    format: ResponseFormat | None = None


class ResponseIn(Lenient):
    """A conversation, or the beginning of one."""

    model: str = Field(description="`provider/model`, a model's id, or auto for the organisation's choice.")
    input: str | Annotated[list[dict[str, Any]], Field(min_length=1, max_length=10_000)] = Field(
        description="A user's text, or messages, function calls and their outputs."
    )
    instructions: str | None = None
    stream: bool | None = None
    max_output_tokens: int | None = Field(default=None, ge=1, description=f"{MAX_TOKENS} when not given.")
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    include: list[str] | None = None
    text: ResponseText | None = None
    tools: list[dict[str, Any]] | None = Field(default=None, max_length=MAX_TOOLS, description="Functions only.")
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = Field(default=None, description="Not available: nothing is stored.")
    previous_response_id: str | None = Field(default=None, description="Not available: send the whole conversation.")
    conversation: Any = Field(default=None, description="Not available: send the whole conversation.")
    background: bool | None = Field(default=None, description="Not available.")
    neuroedge: Preferences | None = Field(default=None, description="Which models may answer; NeuroEdge's own.")


class InputMessage(Lenient):
    """A turn."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[dict[str, Any]]


class InputCall(Lenient):
    """A call the assistant asked for."""

    call_id: str
    name: str
    arguments: str = ""


class InputOutput(Lenient):
    """What a call gave."""

    call_id: str
    output: str | list[dict[str, Any]]


class InputFunction(Lenient):
    """A function the model may ask for."""

    type: Literal["function"]
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None


LOGPROBS = "message.output_text.logprobs"


def response_request(asked: ResponseIn) -> ChatRequest:
    """As models are asked. Raises InvalidInput."""
    _refuse_unavailable(asked)
    messages = [ChatMessage(role="system", content=asked.instructions)] if asked.instructions else []
    if isinstance(asked.input, str):
        messages.append(ChatMessage(role="user", content=asked.input))
    else:
        for n, item in enumerate(asked.input):
            _add(messages, item, ("input", n))
    if not messages:
        raise wrong(("input",), "holds nothing to answer")
    tools = [_tool(tool, n) for n, tool in enumerate(asked.tools or [])]
    shape = asked.text.format if asked.text else None
    wants_logprobs = LOGPROBS in (asked.include or ()) or asked.top_logprobs is not None
    return ChatRequest(
        messages,
        max_tokens=asked.max_output_tokens or MAX_TOKENS,
        temperature=asked.temperature,
        top_p=asked.top_p,
        json_object=shape is not None and shape.type == "json_object",
        json_schema=_schema(shape) if shape is not None and shape.type == "json_schema" else None,
        tools=tools,
        tool_choice=_choice(asked.tool_choice, tools),
        logprobs=(asked.top_logprobs or 0) if wants_logprobs else None,
    )


def _refuse_unavailable(asked: ResponseIn) -> None:
    if asked.store:
        raise wrong(("store",), "responses are not stored; leave it out, or send false")
    for name in ("previous_response_id", "conversation"):
        if getattr(asked, name) is not None:
            raise wrong((name,), "responses are not stored: send the whole conversation as input")
    if asked.background:
        raise wrong(("background",), "not available; POST /v1/tasks runs an engine in the background")


def _add(messages: list[ChatMessage], item: dict[str, Any], place: tuple[str | int, ...]) -> None:
    """The turn an item is, or becomes part of."""
    match item.get("type", "message"):
        case "message":
            message = understood(InputMessage, item)
            text, images = _content(message.content, (*place, "content"))
            role: Role = "system" if message.role == "developer" else message.role
            messages.append(ChatMessage(role=role, content=text, images=images))
        case "function_call":
            made = understood(InputCall, item)
            call = ToolCall(id=made.call_id, name=made.name, arguments=made.arguments)
            last = messages.pop() if messages and messages[-1].role == "assistant" else None
            said, calls = (last.content, last.tool_calls) if last else ("", ())
            messages.append(ChatMessage(role="assistant", content=said, tool_calls=[*calls, call]))
        case "function_call_output":
            output = understood(InputOutput, item)
            text, images = _content(output.output, (*place, "output"))
            messages.append(ChatMessage(role="tool", content=text, images=images, tool_call_id=output.call_id))
        case "reasoning":
            # A model's own thoughts of an earlier turn, which only the one that had them can read.
            return
        case kind:
            raise wrong((*place, "type"), f"items of the type {kind!r} are not available")


def _content(content: str | list[dict[str, Any]], place: tuple[str | int, ...]) -> tuple[str, list[Image]]:
    if isinstance(content, str):
        return content, []
    texts, images = [], []
    for n, part in enumerate(content):
        match part:
            case {"type": "input_text" | "output_text" | "text", "text": str(text)}:
                texts.append(text)
            case {"type": "refusal", "refusal": str(text)}:
                texts.append(text)
            case {"type": "input_image", "image_url": str(url)}:
                images.append(picture_at(url, (*place, n, "image_url")))
            case _:
                raise wrong((*place, n), "neither a text nor a picture as a data URL")
    return "\n".join(texts), images


def _tool(tool: dict[str, Any], position: int) -> Tool:
    place = ("tools", position)
    if tool.get("type") != "function":
        raise wrong((*place, "type"), "functions are the only tools here")
    offered = understood(InputFunction, tool)
    return tool_of(offered.name, offered.description, offered.parameters, place=place)


def _choice(choice: str | dict[str, Any] | None, tools: list[Tool]) -> str:
    match choice:
        case None:
            return "auto"
        case "auto" | "none":
            return str(choice)
        case "required" if tools:
            return "required"
        case {"type": "function", "name": str(name)} if name in {tool.name for tool in tools}:
            return name
        case _:
            raise wrong(("tool_choice",), "auto, none, required, or one of the functions in 'tools'")


def _schema(shape: ResponseFormat) -> Any:
    if shape.schema_ is None:
        raise wrong(("text", "format", "schema"), "is missing")
    return schema_of(shape.schema_, ("text", "format", "schema"))
