"""How many tokens a call took: as the provider tells it where that can be true, else as near as can be known here."""

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final

from neuroedge.contract.chat import ChatDelta, ChatModel, ChatRequest
from neuroedge.contract.errors import NeuroEdgeError
from neuroedge.services.llm.calls import Outcome, Spent
from neuroedge.services.llm.offers import Price

BYTES_PER_TOKEN: Final = 4
"""Of ordinary text, roughly."""
MESSAGE_TOKENS: Final = 4
"""What marks a message's beginning, end and role takes."""
IMAGE_TOKENS: Final = 1000
"""Roughly what vendors count for a picture of usual size."""
LONGEST_TOKEN_CHARACTERS: Final = 16
"""Text of fewer tokens than its length divided by this is no text of a language."""
ONE_TOKEN_CHARACTERS: Final = 8
"""Streams whose pieces are no longer than this, on average, bring one token a piece."""
MOST_IMAGE_TOKENS: Final = 50_000
OVERHEAD_TOKENS: Final = 2000
"""More than this beside the words is no template and no hidden prompt any more."""
COUNT_S: Final = 5.0
Doubt = Callable[[str], object]
"""Told the kind of number, prompt or completion, that cannot be true."""


def prompt_text(request: ChatRequest) -> str:
    """All words of a request, for counting."""
    parts = [message.content for message in request.messages]
    parts += [call.name + call.arguments for message in request.messages for call in message.tool_calls]
    parts += [tool.name + tool.description + json.dumps(dict(tool.parameters)) for tool in request.tools]
    if request.json_schema is not None:
        parts.append(json.dumps(dict(request.json_schema)))
    return "\n".join(parts)


def fixed_tokens(request: ChatRequest) -> int:
    """What a request takes beside its words."""
    images = sum(len(message.images) for message in request.messages)
    return MESSAGE_TOKENS * len(request.messages) + IMAGE_TOKENS * images


def rough_tokens(request: ChatRequest) -> int:
    """A prompt's length without asking any model."""
    return len(prompt_text(request).encode("utf-8", "replace")) // BYTES_PER_TOKEN + fixed_tokens(request)


@dataclass(slots=True, kw_only=True)
class Meter:
    """What one answer brought so far."""

    request: ChatRequest
    context_tokens: int
    doubt: Doubt
    alive: bool = False
    """Whether the provider said anything, so that it took the prompt."""
    pieces: int = 0
    thoughts: int = 0
    told_prompt: int | None = None
    told_completion: int | None = None
    told_cached: int = 0
    _text: list[str] = field(default_factory=list)

    def saw(self, delta: ChatDelta) -> None:
        """Take in a piece. The first empty one says that the prompt was taken, any other is a thought not shown."""
        thought = self.alive and not (delta.text or delta.tool_calls) and delta.finish_reason is None
        self.thoughts += thought
        self.alive = True
        told = (delta.prompt_tokens, delta.completion_tokens, delta.cached_tokens)
        self.told_prompt = self.told_prompt if told[0] is None else told[0]
        self.told_completion = self.told_completion if told[1] is None else told[1]
        self.told_cached = self.told_cached if told[2] is None else told[2]
        text = delta.text + "".join((part.name or "") + part.arguments for part in delta.tool_calls)
        if text:
            self.pieces += 1
            self._text.append(text)

    async def spent(
        self, model: ChatModel, *, outcome: Outcome, seconds: float, first_token_s: float | None, error: str | None
    ) -> Spent:
        """What goes into the ledger."""
        told_prompt, told_completion = self._plausible_prompt(), self._plausible_completion()
        prompt = await self._prompt(model) if told_prompt is None else told_prompt
        return Spent(
            outcome=outcome,
            prompt_tokens=prompt,
            completion_tokens=await self._completion(model) if told_completion is None else told_completion,
            cached_tokens=min(max(0, self.told_cached), prompt),
            estimated=told_prompt is None or told_completion is None,
            seconds=seconds,
            first_token_s=first_token_s,
            error=error,
        )

    async def _prompt(self, model: ChatModel) -> int:
        return await _count(model, prompt_text(self.request)) + fixed_tokens(self.request)

    async def _completion(self, model: ChatModel) -> int:
        text = "".join(self._text)
        if len(text) <= ONE_TOKEN_CHARACTERS * self.pieces:
            return self.thoughts + self.pieces
        return self.thoughts + max(self.pieces, await _count(model, text))

    def _plausible_prompt(self) -> int | None:
        """What was told, unless its words would be absurdly long, or shorter than a byte each."""
        words = sum(len(message.content) for message in self.request.messages)
        images = sum(len(message.images) for message in self.request.messages)
        most = len(prompt_text(self.request).encode("utf-8", "replace")) + fixed_tokens(self.request)
        return self._plausible(
            "prompt", self.told_prompt, least=words, most=most + images * MOST_IMAGE_TOKENS + OVERHEAD_TOKENS
        )

    def _plausible_completion(self) -> int | None:
        """Thoughts that are not shown are counted too, by some providers beyond what was allowed."""
        shown = "".join(self._text)
        most = max(self.context_tokens, self.request.max_tokens, len(shown.encode("utf-8", "replace")))
        return self._plausible("completion", self.told_completion, least=len(shown), most=most + OVERHEAD_TOKENS)

    def _plausible(self, kind: str, told: int | None, *, least: int, most: int) -> int | None:
        """`least` in characters, `most` in tokens."""
        if told is None or max(0, least // LONGEST_TOKEN_CHARACTERS) <= told <= most:
            return told
        self.doubt(kind)
        return None


async def _count(model: ChatModel, text: str) -> int:
    """By the model; when it cannot be asked any more, roughly."""
    with suppress(NeuroEdgeError, TimeoutError):
        async with asyncio.timeout(COUNT_S):
            return await model.count_tokens(text)
    return len(text.encode("utf-8", "replace")) // BYTES_PER_TOKEN


def total(delta: ChatDelta, spent: Spent, price: Price | None) -> ChatDelta:
    """The last piece with the tokens, and the cost, as they are in the ledger."""
    prompt, completion, cached = spent.prompt_tokens, spent.completion_tokens, spent.cached_tokens
    return replace(
        delta,
        prompt_tokens=prompt,
        completion_tokens=completion,
        cached_tokens=cached,
        cost_usd=price.of(prompt_tokens=prompt, completion_tokens=completion, cached_tokens=cached) if price else None,
    )
