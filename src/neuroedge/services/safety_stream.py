"""A streamed answer that is judged sentence by sentence before it is sent."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Final, Literal, Protocol

from neuroedge.contract.chat import ChatDelta, TokenLogprob
from neuroedge.kit.passages import ended

HELD_CHARS: Final = 600
"""A sentence that does not end is judged in pieces of about this length."""


class Judged(Protocol):
    """What the check of a text says."""

    @property
    def action(self) -> Literal["allow", "flag", "mask", "block"]:
        """block: nothing of it may be sent."""
        ...

    @property
    def text(self) -> str:
        """What may be sent instead."""
        ...


Check = Callable[[str], Awaitable[Judged]]
Note = Callable[[str], Awaitable[None]]


async def guarded(
    deltas: AsyncGenerator[ChatDelta, None], *, check: Check | None = None, note: Note | None = None
) -> AsyncGenerator[ChatDelta, None]:
    """The pieces that may be sent; closes `deltas`. With `check` each sentence waits for its judgement; with `note`
    alone nothing waits, and the whole is told at its end.
    """
    async with aclosing(deltas):
        if check is not None:
            async with aclosing(_held(deltas, check)) as judged:
                async for delta in judged:
                    yield delta
            return
        said: list[str] = []
        try:
            async for delta in deltas:
                said.append(delta.text)
                yield delta
        finally:  # also of an answer that broke off, or whose reader left
            if note is not None:
                await note("".join(said))


async def _held(deltas: AsyncGenerator[ChatDelta, None], check: Check) -> AsyncGenerator[ChatDelta, None]:
    waiting, tokens = "", _Tokens()
    async for delta in deltas:
        waiting += delta.text
        tokens.add(delta.logprobs)
        # What follows the text must not overtake it.
        last = delta.finish_reason is not None or bool(delta.tool_calls)
        length = len(waiting) if last else ended(waiting, max_chars=HELD_CHARS)
        ready, waiting = waiting[:length], waiting[length:]
        out = replace(delta, text="", logprobs=())
        if ready:
            judged = await check(ready)
            if judged.action == "block":
                yield replace(out, tool_calls=(), finish_reason="content_filter")
                return
            out = replace(out, text=judged.text, logprobs=tokens.of_next(len(ready), masked=judged.action == "mask"))
        if out != _EMPTY:
            yield out
    if waiting:  # an answer that broke off without an end
        judged = await check(waiting)
        if judged.action == "block":
            yield ChatDelta(finish_reason="content_filter")
        else:
            said = tokens.of_next(len(waiting), masked=judged.action == "mask")
            yield ChatDelta(text=judged.text, logprobs=said)


_EMPTY: Final = ChatDelta()


class _Tokens:
    """Log-probabilities tell the text: they wait with it, and from the first mask on none is told."""

    def __init__(self) -> None:
        self._waiting: list[TokenLogprob] = []
        self._sent_chars = 0
        """Of the first that waits, which reaches into the next sentence."""
        self._tells = True

    def add(self, tokens: Sequence[TokenLogprob]) -> None:
        """More have come."""
        self._waiting += tokens

    def of_next(self, chars: int, *, masked: bool) -> tuple[TokenLogprob, ...]:
        """Those that lie within the text that is sent next."""
        self._tells &= not masked
        left, count = chars + self._sent_chars, 0
        while count < len(self._waiting) and len(self._waiting[count].token) <= left:
            left -= len(self._waiting[count].token)
            count += 1
        taken, self._waiting, self._sent_chars = self._waiting[:count], self._waiting[count:], left
        return tuple(taken) if self._tells else ()
