"""Writes artifacts - documents, code, tables, diagrams, JSON by a schema, outlines of slides - and proves them.

Method: a language model writes; JSON, tables and slides are held to their JSON Schema while they are written (decoding
constrained by a grammar or the provider's strict mode), the others follow instructions. The draft is then opened as its
type: JSON against its schema, Python by its parser, CSV for rows of one width, Markdown and Mermaid for their
structure (kit/artifact_checks.py). When a check fails, the model is shown what failed and writes once more (after
self-refinement with execution feedback, Chen et al. 2023, "Teaching Large Language Models to Self-Debug"); the better
draft is returned with its checks. What fails both times is returned as invalid, never as if it were right.

Model: the organisation's choice for artifacts, by default the local model of the role chat. Limits: a passed check says
that the form is right, not that the content is true; code in languages without a parser here is `unchecked`; Mermaid
is checked structurally. Cells of generated tables are texts. Material that does not fit the model's context is left
out from its end, and `context_used` says how much was shown.
"""

import asyncio
import hashlib
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import BaseModel, Field, model_validator

from neuroedge.contract.chat import ChatMessage, ChatModel, ChatRequest, Policy
from neuroedge.contract.engine import Engine, EngineContext, EngineInput, EngineOutput, Usage
from neuroedge.contract.errors import ContextTooLong, InvalidInput
from neuroedge.contract.models import CHAT
from neuroedge.kit import artifact_prompts as prompts
from neuroedge.kit.artifact_checks import (
    MAX_SLIDES,
    Check,
    Type,
    check,
    format_of,
    is_valid,
    rendered_table,
    require_together,
)
from neuroedge.kit.artifact_schema import require_schema

POLICY: Final = Policy(query_type="artifact")
MAX_CHARACTERS: Final = 400_000
MAX_EXCERPTS: Final = 100
CONSTRAINED: Final = "schema-constrained"
INSTRUCTED: Final = "format-instructed"
_TEMPLATE_TOKENS: Final = 64
"""What the chat template adds to the messages, at most."""
_LEAST_TOKENS: Final = 16
_TELL_EVERY: Final = 200
"""Characters."""


class Material(EngineInput):
    """Something to use."""

    text: str = Field(min_length=1, max_length=20_000, description="What it says.")
    title: str | None = Field(default=None, max_length=500, description="What it belongs to.")


class Input(EngineInput):
    """What to write."""

    type: Type = Field(description="document (Markdown), code, table, diagram (Mermaid), json or slides (an outline).")
    instruction: str = Field(min_length=1, max_length=20_000, description="What it shall hold, or what shall change.")
    format: str | None = Field(
        default=None, max_length=50, description="Of code its language, such as python; of a table csv or json."
    )
    json_schema: dict[str, Any] | None = Field(
        default=None, description="For the type json: the JSON Schema (2020-12) it must be valid by."
    )
    slides: int | None = Field(default=None, ge=1, le=MAX_SLIDES, description="How many slides.")
    context: list[Material] = Field(
        default_factory=list, max_length=MAX_EXCERPTS, description="Material, the best first."
    )
    present: str | None = Field(
        default=None, max_length=MAX_CHARACTERS, description="The present version, when it shall be changed."
    )
    version: int = Field(default=0, ge=0, le=10**6, description="Number of the present version; 0: there is none.")
    title: str | None = Field(default=None, max_length=200, description="Its name; found in the artifact otherwise.")
    max_tokens: int = Field(default=1024, ge=_LEAST_TOKENS, le=32_768, description="Longest artifact, in tokens.")
    model: str | None = Field(default=None, max_length=200, description="provider/model; the organisation's otherwise.")
    local_only: bool = Field(default=False, description="Nothing may leave the machine.")

    @model_validator(mode="after")
    def _together(self) -> "Input":
        """What does not go together is refused before anything is written."""
        self.format = format_of(self.type, self.format)
        require_together(self.type, schema=self.json_schema, slides=self.slides)
        return self


class WrittenCheck(BaseModel):
    """One thing that was looked at."""

    name: str = Field(description="What was looked at.")
    ok: bool | None = Field(description="null: unchecked, the detail tells why.")
    detail: str = Field(description="What was found.")


class Output(EngineOutput):
    """The artifact with its checks."""

    artifact: str = Field(description="The content.")
    type: Type = Field(description="As asked.")
    format: str = Field(description="markdown, mermaid, json, csv, or the language of code.")
    title: str = Field(description="As given, or found in the artifact.")
    version: int = Field(description="One more than the version given.")
    sha256: str = Field(description="Of the content in UTF-8, hexadecimal.")
    checks: list[WrittenCheck] = Field(description="What was looked at after it was opened again.")
    valid: bool = Field(description="Whether no check failed; false is told, never hidden.")
    attempts: int = Field(description="Drafts that were written: 2 when the first one had to be repaired.")
    context_used: int = Field(description="Excerpts of the material that fitted the model's context.")
    usage: Usage = Field(description="Tokens used.")


@dataclass(slots=True)
class _Draft:
    """An answer, opened."""

    content: str
    checks: list[Check]
    answer: str

    @property
    def failed(self) -> int:
        return sum(one.ok is False for one in self.checks)


@dataclass(slots=True)
class _Work:
    """One order on its way."""

    order: Input
    ctx: EngineContext
    policy: Policy
    usage: Usage = field(default_factory=Usage)
    models: list[str] = field(default_factory=list)


class ArtifactEngine(Engine[Input, Output]):
    """draft → check → (repair → check)."""

    name = "artifact"
    title = "Write documents, code, tables, diagrams, JSON and slides"
    method = CONSTRAINED
    example = Input(
        type="json",
        instruction="A person called Ada, 36 years old.",
        json_schema={
            "type": "object",
            "properties": {"name": {"type": "string", "maxLength": 20}, "age": {"type": "integer"}},
            "required": ["name", "age"],
            "additionalProperties": False,
        },
        max_tokens=64,
    )
    needs = (CHAT,)
    timeout_s = 600.0

    async def run(self, payload: Input, ctx: EngineContext) -> Output:
        """Write, check, and repair once."""
        await _require_schema(payload.json_schema)
        policy = Policy(model=payload.model, local_only=payload.local_only, query_type=POLICY.query_type)
        work = _Work(payload, ctx, policy)
        llm = await ctx.llm.chosen(policy)
        messages, used = await _messages(payload, llm)
        draft, attempts = await _draft(work, messages, llm, stage="draft"), 1
        if draft.failed:
            again = [
                *messages,
                ChatMessage(role="assistant", content=draft.answer or "(nothing)"),
                ChatMessage(role="user", content=prompts.repair(draft.checks)),
            ]
            if await _room(again, llm) >= _LEAST_TOKENS:
                second, attempts = await _draft(work, again, llm, stage="repair"), 2
                draft = second if second.failed <= draft.failed else draft
        return _answered(work, draft, attempts=attempts, context_used=used, llm=llm)


async def _require_schema(schema: dict[str, Any] | None) -> None:
    """Raise InvalidInput for a schema that is none."""
    if schema is None:
        return
    try:
        await asyncio.to_thread(require_schema, schema)
    except ValueError as error:
        raise InvalidInput(f"json_schema is no schema: {error}", hint="give a JSON Schema of 2020-12") from error


async def _messages(order: Input, llm: ChatModel) -> tuple[list[ChatMessage], int]:
    """The conversation that asks for the artifact, and how many excerpts are in it. Raises ContextTooLong."""
    told = prompts.system(order.type, format_=order.format or "", schema=order.json_schema, slides=order.slides)
    shown = [f"{one.title}: {one.text}" if one.title else one.text for one in order.context]

    def asking(count: int) -> list[ChatMessage]:
        text = prompts.request(order.instruction, context=shown[:count], present=order.present)
        return [ChatMessage(role="system", content=told), ChatMessage(role="user", content=text)]

    # Half of what remains stays free for the artifact, unless less than that is wanted.
    room = await _room(asking(0), llm)
    if room < _LEAST_TOKENS:
        raise ContextTooLong(
            f"instruction and present version do not fit {llm.context_tokens} tokens of {llm.model_id}",
            hint="shorten them, or choose a model with a longer context",
        )
    room -= min(order.max_tokens, room // 2)
    count = 0
    for text in shown:
        room -= await llm.count_tokens(text) + 8
        if room < 0:
            break
        count += 1
    return asking(count), count


async def _room(messages: Sequence[ChatMessage], llm: ChatModel) -> int:
    """Tokens that are left for an answer."""
    asked = await llm.count_tokens("\n".join(message.content for message in messages))
    return llm.context_tokens - asked - _TEMPLATE_TOKENS


async def _draft(work: _Work, messages: Sequence[ChatMessage], llm: ChatModel, *, stage: str) -> _Draft:
    order = work.order
    schema = prompts.output_schema(order.type, order.json_schema, order.slides)
    request = ChatRequest(
        messages,
        max_tokens=min(order.max_tokens, await _room(messages, llm)),
        json_schema=schema,
        json_object=schema is None and order.type == "json",
    )
    answer, whole = await _written(work, request, stage)
    await work.ctx.progress("check", 0.9 if stage == "draft" else 0.95)
    # In a thread: parsing may take seconds.
    content, checks = await asyncio.to_thread(_opened, order, answer)
    if not whole:
        checks.append(Check("complete", False, f"cut off after {request.max_tokens} tokens: write less"))
    return _Draft(content, checks, answer)


async def _written(work: _Work, request: ChatRequest, stage: str) -> tuple[str, bool]:
    """The model's answer, and whether it came to an end."""
    parts, length, told, whole = list[str](), 0, 0, True
    async with aclosing(work.ctx.llm.stream(request, policy=work.policy)) as deltas:
        async for delta in deltas:
            if delta.model and delta.model not in work.models:
                work.models.append(delta.model)
            work.usage.count(delta)
            whole = whole and delta.finish_reason != "length"
            parts.append(delta.text)
            length += len(delta.text)
            if length > MAX_CHARACTERS:
                return "".join(parts)[:MAX_CHARACTERS], False
            if length - told >= _TELL_EVERY or (delta.text and not told):
                told = length
                # About four characters to a token; how long it becomes, nobody knows.
                done = min(0.85, 0.05 + 0.8 * length / (4 * request.max_tokens))
                await work.ctx.progress(stage, done, characters=length)
    return "".join(parts), whole


def _opened(order: Input, answer: str) -> tuple[str, list[Check]]:
    """The artifact of an answer, with its checks (blocking)."""
    content, format_ = prompts.unwrapped(order.type, answer), order.format or ""
    if order.type == "table":
        try:
            content = rendered_table(content, format_)
        except ValueError as error:
            return content, [Check("parses", False, str(error)[:300])]
    return content, check(order.type, content, format_=format_, schema=order.json_schema, slides=order.slides)


def _answered(work: _Work, draft: _Draft, *, attempts: int, context_used: int, llm: ChatModel) -> Output:
    order = work.order
    constrained = order.type in ("table", "slides", "json")
    return Output(
        artifact=draft.content,
        type=order.type,
        format=order.format or "",
        title=order.title or prompts.title_of(order.type, draft.content, order.instruction),
        version=order.version + 1,
        sha256=hashlib.sha256(draft.content.encode("utf-8", "replace")).hexdigest(),
        checks=[WrittenCheck(name=one.name, ok=one.ok, detail=one.detail) for one in draft.checks],
        valid=is_valid(draft.checks),
        attempts=attempts,
        context_used=context_used,
        usage=work.usage,
        method=CONSTRAINED if constrained else INSTRUCTED,
        models=work.models or [llm.model_id],
    )
