"""The running summary: what was said before the turns that still fit."""

from collections.abc import Sequence
from contextlib import aclosing
from typing import Any, Final

from neuroedge.contract.chat import ChatMessage, ChatModel, ChatRequest, Policy
from neuroedge.contract.engine import EngineContext, Usage
from neuroedge.kit.prompts import SUMMARISE
from neuroedge.services.chat.citations import without_markers
from neuroedge.services.chat.packing import RESERVE_TOKENS, divided, uncovered
from neuroedge.services.chat.state import SaidTurn, Summary

SUMMARY_TOKENS: Final = 256
_CHARS_PER_TOKEN: Final = 3
"""Fewer than most texts have, so that a cut by characters fits."""


async def summarised(
    turns: Sequence[SaidTurn], before: Summary | None, *, ctx: EngineContext, policy: Policy, usage: Usage
) -> tuple[list[SaidTurn], Summary | None, dict[str, Any] | None]:
    """The turns to show word for word, the summary of all others, and what the trace tells of it."""
    llm = await ctx.llm.chosen(policy)
    older, newest = await divided(uncovered(turns, before), llm)
    if not older:
        return newest, before, None
    text = before["text"] if before else ""
    for part in _parts(older, llm):
        text = await _folded(text, part, ctx=ctx, policy=policy, usage=usage)
    covered = len(older) + (before["messages"] if before else 0)
    summary = Summary(text=text, upto=older[-1]["id"], messages=covered)
    return newest, summary, {"summarised": [turn["id"] for turn in older], "covered": covered, "summary": text}


def _parts(turns: Sequence[SaidTurn], llm: ChatModel) -> list[str]:
    """What is said, in pieces that fit the model beside the summary so far."""
    room = max(200, (llm.context_tokens - 2 * SUMMARY_TOKENS - 2 * RESERVE_TOKENS) * _CHARS_PER_TOKEN)
    lines = [f"{turn['role']}: {without_markers(turn['content'])}" for turn in turns]
    pieces = [each[start : start + room] for each in lines for start in range(0, len(each), room)]
    parts = [""]
    for piece in pieces:
        if parts[-1] and len(parts[-1]) + len(piece) > room:
            parts.append("")
        parts[-1] += f"{piece}\n"
    return parts


async def _folded(before: str, said: str, *, ctx: EngineContext, policy: Policy, usage: Usage) -> str:
    content = f"Notes so far:\n{before or 'none'}\n\nConversation:\n{said}\nNew notes:"
    request = ChatRequest(
        [ChatMessage(role="system", content=SUMMARISE), ChatMessage(role="user", content=content)],
        max_tokens=SUMMARY_TOKENS,
    )
    text = ""
    async with aclosing(ctx.llm.stream(request, policy=policy)) as deltas:
        async for delta in deltas:
            text += delta.text
            usage.count(delta)
    return text.strip() or before
