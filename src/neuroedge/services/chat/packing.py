"""What fits a model's context: excerpts, earlier turns and the question, counted in the model's own tokens.

Nothing is left out silently: turns that do not fit are in the running summary, excerpts that do not fit are counted in
the trace.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from neuroedge.contract.chat import ChatMessage, ChatModel
from neuroedge.contract.errors import ContextTooLong
from neuroedge.engines.knowledge.search import Hit
from neuroedge.engines.language.chat import line
from neuroedge.kit import injection
from neuroedge.kit.prompts import SOURCED, SYSTEM, UNTRUSTED
from neuroedge.services.chat.citations import without_markers
from neuroedge.services.chat.state import SaidTurn, Summary

RESERVE_TOKENS: Final = 96
"""For the chat template and what counting piece by piece misses."""
MAX_EXCERPT_TOKENS: Final = 6000
"""More excerpts cost more than they help."""
HISTORY_SHARE: Final = 4
"""One part in so many of the context may be earlier turns; what is older is summarised."""
KEPT_TURNS: Final = 2
"""The last question and its answer are what "it" and "that" refer to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """A prompt that fits."""

    messages: list[ChatMessage]
    shown: list[Hit]
    left_out: int
    """Excerpts that did not fit."""
    tokens: int
    """The prompt's, roughly."""
    untrusted: list[dict[str, Any]]
    """Excerpts with signs of injected orders, by id."""


def history_room(llm: ChatModel) -> int:
    """Tokens earlier turns may take."""
    return llm.context_tokens // HISTORY_SHARE


async def divided(turns: Sequence[SaidTurn], llm: ChatModel) -> tuple[list[SaidTurn], list[SaidTurn]]:
    """The turns that must be summarised, and the newest ones, which are shown word for word."""
    room, kept = history_room(llm), 0
    taken = 0
    for turn in reversed(turns):
        taken += await llm.count_tokens(turn["content"])
        if taken > room:
            break
        kept += 1
    cut = len(turns) - kept
    # A prompt that has to be cut is cut further than it must, else every turn would summarise again.
    if cut and kept > KEPT_TURNS:
        cut = len(turns) - max(KEPT_TURNS, kept // 2)
    return list(turns[:cut]), list(turns[cut:])


def uncovered(turns: Sequence[SaidTurn], summary: Summary | None) -> list[SaidTurn]:
    """The turns after those the summary covers."""
    ids = [turn["id"] for turn in turns]
    if summary is None or summary["upto"] not in ids:
        return list(turns)
    return list(turns[ids.index(summary["upto"]) + 1 :])


async def packed(
    question: str,
    *,
    hits: Sequence[Hit],
    turns: Sequence[SaidTurn],
    summary: Summary | None,
    instructions: str | None,
    llm: ChatModel,
    max_tokens: int,
) -> Packed:
    """The prompt of a grounded answer. Raises ContextTooLong when the question alone does not fit."""
    room = llm.context_tokens - max_tokens - RESERVE_TOKENS
    fixed = await _tokens(llm, grounded(question, [], turns, summary, instructions))
    if fixed > room:
        raise ContextTooLong(
            f"the question takes {fixed} tokens, {max(room, 0)} are left beside an answer of {max_tokens}",
            hint="ask for a shorter answer, send less, or choose a model with a larger context",
        )
    kept = list(hits)
    left = min(MAX_EXCERPT_TOKENS, room - fixed)
    while kept and await llm.count_tokens(_excerpts(kept)) > left:
        ranked = {hit.id for hit in sorted(kept, key=lambda hit: -hit.score)[: len(kept) * 3 // 4]}
        kept = [hit for hit in kept if hit.id in ranked]
    messages = grounded(question, kept, turns, summary, instructions)
    return Packed(
        messages=messages,
        shown=kept,
        left_out=len(hits) - len(kept),
        tokens=await _tokens(llm, messages),
        untrusted=[{"id": str(hit.id), "signs": found} for hit in kept if (found := injection.signs(hit.content))],
    )


def grounded(
    question: str,
    hits: Sequence[Hit],
    turns: Sequence[SaidTurn],
    summary: Summary | None,
    instructions: str | None,
) -> list[ChatMessage]:
    """Sources first and the question last, so that the next question shares the beginning."""
    earlier = "".join(
        f"\n{'Question' if turn['role'] == 'user' else 'Answer'}: {without_markers(turn['content'])}" for turn in turns
    )
    told = f"\nEarlier in this conversation: {summary['text']}\n" if summary else ""
    # Of conversations alone small models answer best with the words of the engine `chat`, which were measured.
    spoken = bool(hits) and all(hit.recording_id for hit in hits)
    system, heading = (SYSTEM, "Transcript") if spoken else (SOURCED, "Sources")
    content = f"{heading}:\n{_excerpts(hits)}\n{told}{earlier}\nQuestion: {question}\nAnswer:"
    return [_system(system, instructions), ChatMessage(role="user", content=content)]


def conversation(
    system: str, question: str, turns: Sequence[SaidTurn], summary: Summary | None, instructions: str | None
) -> list[ChatMessage]:
    """A prompt without sources: the turns as the model's own format has them."""
    told = f"{system}\n\nEarlier in this conversation: {summary['text']}" if summary else system
    said = [
        ChatMessage(role="user" if turn["role"] == "user" else "assistant", content=without_markers(turn["content"]))
        for turn in turns
    ]
    return [_system(told, instructions), *said, ChatMessage(role="user", content=question)]


def _system(text: str, instructions: str | None) -> ChatMessage:
    return ChatMessage(role="system", content=f"{text}\n\n{instructions}" if instructions else text)


def _excerpts(hits: Sequence[Hit]) -> str:
    return "\n".join(f"{UNTRUSTED}\n{line(hit)}" if injection.signs(hit.content) else line(hit) for hit in hits)


async def _tokens(llm: ChatModel, messages: Sequence[ChatMessage]) -> int:
    return await llm.count_tokens("\n".join(message.content for message in messages))
