"""Tool calls of models whose chat template or training knows little of them.

llama.cpp parses the calls of models that keep to their template. Small ones write the call as bare JSON, and a
template without tools shows the model none. So the tools are told in words where the template does not, a call that
must come is forced by grammar, and one that comes as JSON is read here while it streams.
"""

import json
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal

from neuroedge.contract.chat import ChatMessage, ChatRequest, Tool, ToolCallPart
from neuroedge.contract.errors import InvalidInput
from neuroedge.runtimes.llama_schema import Nesting, Schema

_OPENINGS: Final = tuple(
    opening + '{"name":"' for opening in ("", "<tool_call>", "```json", "```")
)  # without white space
_HEAD: Final = re.compile(
    r'\s*(?:<tool_call>|```(?:json)?)?\s*\{\s*"name"\s*:\s*"([^"\\]+)"\s*,\s*"(?:arguments|parameters)"\s*:\s*(?=\{)'
)
_LONGEST_HEAD: Final = 300
"""Characters of an answer held back at most until it is clear whether they begin a call."""
_CALL: Final = 'a JSON object of the form {"name": <function name>, "arguments": <object of arguments>}'


def wanted(request: ChatRequest) -> Sequence[Tool]:
    """The tools the model may call for this request."""
    if request.tool_choice == "none":
        return ()
    if request.tool_choice in ("auto", "required"):
        return request.tools
    return [tool for tool in request.tools if tool.name == request.tool_choice]


def forced(request: ChatRequest) -> bool:
    """Whether the answer must be a call."""
    return request.tool_choice not in ("auto", "none")


def answer_schema(tools: Sequence[Tool], words: Mapping[str, Any] | None) -> Schema:
    """Of the JSON that calls one of the tools or, where `words` is given, of what that schema allows."""
    nesting = Nesting()
    choices = [
        {
            "type": "object",
            "properties": {"name": {"const": tool.name}, "arguments": nesting.part(_of_object(tool.parameters))},
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for tool in tools
    ]
    if words is not None:
        choices.append(nesting.part(words))
    return nesting.whole(choices[0] if len(choices) == 1 else {"anyOf": choices})


def check(tools: Sequence[Tool]) -> None:
    """Raises InvalidInput for parameters that are no JSON Schema."""
    from jsonschema import Draft202012Validator, SchemaError

    for tool in tools:
        try:
            Draft202012Validator.check_schema(_of_object(tool.parameters))
        except SchemaError as error:
            raise InvalidInput(f"the parameters of the tool {tool.name} are no JSON Schema: {error.message}") from error
        except RecursionError as error:
            raise InvalidInput(f"the parameters of the tool {tool.name} are nested too deeply") from error


def _of_object(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", **parameters} if parameters else {"type": "object", "properties": {}}


def declared(tool: Tool) -> dict[str, Any]:
    """The tool as chat templates and OpenAI's clients know it."""
    function = {"name": tool.name, "description": tool.description, "parameters": _of_object(tool.parameters)}
    return {"type": "function", "function": function}


def told(messages: Sequence[ChatMessage], tools: Sequence[Tool], *, must: bool) -> list[dict[str, Any]]:
    """The conversation with tools, calls and results in words, for a template that knows none of them."""
    plain = [_in_words(message) for message in messages]
    if not tools:
        return plain
    functions = "\n".join(json.dumps(declared(tool)["function"], ensure_ascii=False) for tool in tools)
    how = f"Answer with {_CALL}." if must else f"To call one, answer only with {_CALL}; else answer in words."
    instructions = f"You may call these functions:\n{functions}\n{how}"
    if plain and plain[0]["role"] == "system":
        plain[0]["content"] = f"{plain[0]['content']}\n\n{instructions}"
        return plain
    return [{"role": "system", "content": instructions}, *plain]


def _in_words(message: ChatMessage) -> dict[str, Any]:
    if message.role == "tool":
        return {"role": "user", "content": f"<tool_response>\n{message.content}\n</tool_response>"}
    calls = [f'{{"name": {json.dumps(call.name)}, "arguments": {call.arguments}}}' for call in message.tool_calls]
    return {"role": message.role, "content": "\n".join([*([message.content] if message.content else []), *calls])}


class CallReader:
    """Tells a call written as JSON from words, piece by piece."""

    def __init__(self, tools: Sequence[Tool]) -> None:
        self._names = {tool.name for tool in tools}
        self._held = ""
        self._state: Literal["open", "words", "call", "done"] = "open"
        self._depth = 0
        self._in_string = self._escaped = False

    @property
    def called(self) -> bool:
        """Whether a call has begun."""
        return self._state in ("call", "done")

    @property
    def done(self) -> bool:
        """Whether the call is complete; what follows it is no part of the answer."""
        return self._state == "done"

    def read(self, text: str) -> Iterator[str | ToolCallPart]:
        """What is certain after one more piece: words, or a part of the call."""
        if self._state == "words":
            yield text
        elif self._state == "call":
            yield from self._arguments(text)
        elif self._state == "open":
            self._held += text
            yield from self._decide()

    def rest(self) -> str:
        """At the end: words still held back."""
        held, self._held = self._held, ""
        return held

    def _decide(self) -> Iterator[str | ToolCallPart]:
        head = _HEAD.match(self._held)
        if head and head[1] in self._names:
            self._state = "call"
            arguments = self._held[head.end() :]
            self._held = ""
            yield ToolCallPart(index=0, id=f"call_{secrets.token_hex(12)}", name=head[1])
            yield from self._arguments(arguments)
            return
        compact = "".join(self._held.split())
        possible = any(o.startswith(compact) or compact.startswith(o) for o in _OPENINGS)
        if head or not possible or len(self._held) > _LONGEST_HEAD:
            self._state = "words"
            yield self.rest()

    def _arguments(self, text: str) -> Iterator[ToolCallPart]:
        end = self._closing(text)
        if end is not None:
            self._state, text = "done", text[:end]
        if text:
            yield ToolCallPart(index=0, arguments=text)

    def _closing(self, text: str) -> int | None:
        """Where the arguments' object ends in this piece."""
        for at, char in enumerate(text):
            if self._in_string:
                self._in_string = char != '"' or self._escaped
                self._escaped = char == "\\" and not self._escaped
            elif char == '"':
                self._in_string = True
            elif char in "{[":
                self._depth += 1
            elif char in "}]":
                self._depth -= 1
                if self._depth == 0:
                    return at + 1
        return None
