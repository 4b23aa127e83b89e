"""Several steps with tools: the model asks for a tool, sees what it returned, and so on until it answers.

ReAct (Yao et al. 2023) as one step a call, so that each step's state is saved and the next one can run in another
process. Models that call tools by their provider's own interface do so; small local ones choose a tool by JSON that a
schema constrains. Steps, tokens and time are bounded; at a bound the model must answer with what it knows.
"""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

import structlog

from neuroedge.contract.chat import ChatMessage, ChatModel, ChatRequest, Policy, Tool, ToolCall
from neuroedge.contract.engine import EngineContext, Usage
from neuroedge.contract.errors import NeuroEdgeError
from neuroedge.engines.knowledge.search import Hit
from neuroedge.kit.injection import signs
from neuroedge.kit.prompts import AGENT, CHOOSE_TOOL, UNTRUSTED
from neuroedge.services.chat.packing import RESERVE_TOKENS
from neuroedge.services.chat.state import shortened
from neuroedge.services.chat.tools import Toolbox

log = structlog.get_logger(__name__)

ANSWER: Final = "answer"
_CALLS_A_STEP: Final = 4
_SHORT_CHARS: Final = 200
_LOCAL: Final = "local/"
_ENOUGH: Final = "Answer now with what you know. Use no tool."
_TYPES: Final = ("string", "integer", "number", "boolean", "object", "array", "null")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How far a run may go."""

    steps: int = 8
    tokens: int = 30_000
    """Read and written, all steps together."""
    seconds: float = 180.0
    tool_s: float = 30.0
    """Longest a tool may take."""


Work = dict[str, Any]
"""messages, steps, tokens, began_at (Unix time), seen (tool calls made), answer (None until there is one)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What a step did."""

    work: Work
    excerpts: list[Hit]
    trace: list[dict[str, Any]]
    model: str


def begun(messages: Sequence[ChatMessage]) -> Work:
    """Work that has not taken a step yet; `messages` end with the task."""
    return {
        "messages": [_kept(message) for message in messages],
        "steps": 0,
        "tokens": 0,
        "began_at": time.time(),
        "seen": [],
        "answer": None,
    }


def system(llm: ChatModel) -> str:
    """What a model of this kind is told."""
    return AGENT if calls_natively(llm) else f"{AGENT}\n{CHOOSE_TOOL}"


def calls_natively(llm: ChatModel) -> bool:
    """Whether a model is asked through its own interface for tools: not the small ones of this machine."""
    return "/" in llm.model_id and not llm.model_id.startswith(_LOCAL)


async def step(
    work: Work,
    toolbox: Toolbox,
    *,
    ctx: EngineContext,
    policy: Policy,
    usage: Usage,
    limits: Limits,
    max_tokens: int,
) -> Step:
    """Ask the model once and run the tools it wants; the last step gives the answer."""
    llm = await ctx.llm.chosen(policy)
    began, before = time.perf_counter(), usage.prompt_tokens + usage.completion_tokens
    over = _over(work, limits)
    messages, left_out = await _fitting([_message(kept) for kept in work["messages"]], llm, max_tokens)
    request = _request(messages, toolbox.tools, llm, may_call=not over, max_tokens=max_tokens)
    text, calls = await _asked(request, ctx=ctx, policy=policy, usage=usage)
    spent = usage.prompt_tokens + usage.completion_tokens - before
    seconds = time.perf_counter() - began
    traced: dict[str, Any] = {"step": work["steps"] + 1, "seconds": round(seconds, 3), "tokens": spent}
    if left_out:
        traced["shortened_results"] = left_out
    if over:
        traced["limit"] = over
    work = {**work, "steps": work["steps"] + 1, "tokens": work["tokens"] + spent}
    if over or not calls:
        return Step(
            work={**work, "answer": text},
            excerpts=[],
            trace=[{**traced, "tool": None, "output": shortened(text)}],
            model=llm.model_id,
        )
    done = [await _run(call, toolbox, work["seen"], limits) for call in calls[:_CALLS_A_STEP]]
    said = ChatMessage(role="assistant", content=text, tool_calls=calls[:_CALLS_A_STEP])
    results = [
        ChatMessage(role="tool", content=each.text, tool_call_id=call.id, name=call.name)
        for call, each in zip(calls, done, strict=False)
    ]
    if not calls_natively(llm):
        said, results = _as_talk(said, results)
    return Step(
        work={
            **work,
            "messages": [*work["messages"], *map(_kept, [said, *results])],
            "seen": [*work["seen"], *([call.name, call.arguments] for call in calls[:_CALLS_A_STEP])],
        },
        excerpts=[hit for each in done for hit in each.excerpts],
        trace=[{**traced, **each.trace} for each in done],
        model=llm.model_id,
    )


@dataclass(frozen=True, slots=True)
class _Done:
    text: str
    excerpts: Sequence[Hit]
    trace: dict[str, Any]


async def _run(call: ToolCall, toolbox: Toolbox, seen: Sequence[Sequence[str]], limits: Limits) -> _Done:
    """A tool's answer; what goes wrong is told to the model, which may try otherwise."""
    began = time.perf_counter()
    trace: dict[str, Any] = {"tool": call.name, "input": shortened(call.arguments)}
    excerpts: Sequence[Hit] = ()
    try:
        if [call.name, call.arguments] in [list(each) for each in seen]:
            text = "You have used this tool in the same way already: see above."
        else:
            async with asyncio.timeout(limits.tool_s):
                returned = await toolbox.run(call.name, _arguments(call))
            text, excerpts = returned.text, returned.excerpts
    except TimeoutError:
        text = f"error: {call.name} did not answer within {limits.tool_s:g} s"
    except NeuroEdgeError as error:
        text = f"error: {error.detail}{f' ({error.hint})' if error.hint else ''}"
        trace["error"] = error.code
    except Exception:
        # A tool's schema and its words are a stranger's: whatever they break, the other tools still work.
        log.exception("tool_failed", tool=call.name)
        text = f"error: {call.name} failed"
        trace["error"] = NeuroEdgeError.code
    if found := signs(text):
        trace["untrusted"] = found
        text = f"{UNTRUSTED}\n{text}"
    return _Done(
        text, excerpts, {**trace, "output": shortened(text), "tool_seconds": round(time.perf_counter() - began, 3)}
    )


def _arguments(call: ToolCall) -> Mapping[str, Any]:
    try:
        arguments = json.loads(call.arguments or "{}")
    except ValueError:
        arguments = None
    return arguments if isinstance(arguments, dict) else {}


def _over(work: Work, limits: Limits) -> str | None:
    """Which limit is reached."""
    if work["steps"] + 1 >= limits.steps:
        return f"{limits.steps} steps"
    if work["tokens"] >= limits.tokens:
        return f"{limits.tokens} tokens"
    if time.time() - work["began_at"] >= limits.seconds:
        return f"{limits.seconds:g} s"
    calls = [tuple(each) for each in work["seen"]]
    if len(calls) - len(set(calls)) > 1:
        return "the same call again and again"
    return None


def _request(
    messages: Sequence[ChatMessage], tools: Sequence[Tool], llm: ChatModel, *, may_call: bool, max_tokens: int
) -> ChatRequest:
    if not may_call:
        messages = [*messages, ChatMessage(role="user", content=_ENOUGH)]
    if not calls_natively(llm):
        schema = choice_schema(tools) if may_call else None
        return ChatRequest(messages, max_tokens=max_tokens, json_schema=schema)
    # Some providers refuse messages with calls in them where no tools are told.
    return ChatRequest(messages, max_tokens=max_tokens, tools=tools, tool_choice="auto" if may_call else "none")


async def _asked(
    request: ChatRequest, *, ctx: EngineContext, policy: Policy, usage: Usage
) -> tuple[str, list[ToolCall]]:
    text = ""
    parts: dict[int, dict[str, str]] = {}
    async with aclosing(ctx.llm.stream(request, policy=policy)) as deltas:
        async for delta in deltas:
            text += delta.text
            usage.count(delta)
            for part in delta.tool_calls:
                call = parts.setdefault(part.index, {"id": "", "name": "", "arguments": ""})
                call["id"], call["name"] = part.id or call["id"], part.name or call["name"]
                call["arguments"] += part.arguments
    if request.json_schema is not None:
        return _choice(text)
    return text.strip(), [ToolCall(**{**call, "id": call["id"] or f"call_{i}"}) for i, call in sorted(parts.items())]


def choice_schema(tools: Sequence[Tool]) -> dict[str, Any]:
    """JSON that names one of the tools with its arguments, or gives the answer."""
    answer = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
    choices = [(tool.name, _inlined(tool.parameters)) for tool in tools]
    return {
        "anyOf": [
            {
                "type": "object",
                "properties": {"tool": {"const": name}, "arguments": parameters},
                "required": ["tool", "arguments"],
                "additionalProperties": False,
            }
            for name, parameters in [*choices, (ANSWER, answer)]
        ]
    }


def _inlined(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Only what constrains: titles and lengths make the grammar large. What is no schema constrains nothing."""
    told, required = parameters.get("properties"), parameters.get("required")
    properties = {
        name: {"type": about["type"]}
        for name, about in (told.items() if isinstance(told, Mapping) else ())
        if isinstance(about, Mapping) and _is_type(about.get("type"))
    }
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in required if isinstance(name, str)] if isinstance(required, list) else [],
    }


def _is_type(told: Any) -> bool:
    """Whether this is a type, or a choice of types, of JSON Schema."""
    return told in _TYPES if isinstance(told, str) else isinstance(told, list) and all(one in _TYPES for one in told)


def _choice(text: str) -> tuple[str, list[ToolCall]]:
    """The answer or the tool call a JSON choice stands for; what is no such JSON is taken for the answer."""
    try:
        chosen = json.loads(text)
        name, arguments = chosen["tool"], chosen["arguments"]
    except (ValueError, TypeError, KeyError):
        return text.strip(), []
    if name == ANSWER:
        return str(arguments.get("text", "")).strip() if isinstance(arguments, dict) else str(arguments), []
    return "", [ToolCall(id="call_0", name=str(name), arguments=json.dumps(arguments))]


def _as_talk(said: ChatMessage, results: Sequence[ChatMessage]) -> tuple[ChatMessage, list[ChatMessage]]:
    """Calls and results as plain turns, for models whose format knows no tools."""
    calls = [{"tool": call.name, "arguments": json.loads(call.arguments)} for call in said.tool_calls]
    told = "\n".join(f"{result.name} returned:\n{result.content}" for result in results)
    return (
        ChatMessage(role="assistant", content=json.dumps(calls[0], ensure_ascii=False)),
        [ChatMessage(role="user", content=told)],
    )


async def _fitting(messages: Sequence[ChatMessage], llm: ChatModel, max_tokens: int) -> tuple[list[ChatMessage], int]:
    """The messages within the model's context: the oldest results are shortened first; how many were."""
    room = llm.context_tokens - max_tokens - RESERVE_TOKENS
    kept, cut = list(messages), 0
    while await llm.count_tokens("\n".join(message.content for message in kept)) > room:
        # The first two are the instructions and the task.
        long = [i for i in range(2, len(kept)) if kept[i].role != "assistant" and len(kept[i].content) > _SHORT_CHARS]
        if not long:
            break
        kept[long[0]] = _shorter(kept[long[0]])
        cut += 1
    return kept, cut


def _shorter(message: ChatMessage) -> ChatMessage:
    return ChatMessage(
        role=message.role,
        content=f"{message.content[: _SHORT_CHARS - 20]}… (shortened)",
        tool_call_id=message.tool_call_id,
        name=message.name,
    )


def _kept(message: ChatMessage) -> dict[str, Any]:
    return {
        "role": message.role,
        "content": message.content,
        "tool_calls": [{"id": c.id, "name": c.name, "arguments": c.arguments} for c in message.tool_calls],
        "tool_call_id": message.tool_call_id,
        "name": message.name,
    }


def _message(kept: Mapping[str, Any]) -> ChatMessage:
    return ChatMessage(**{**kept, "tool_calls": [ToolCall(**call) for call in kept["tool_calls"]]})
