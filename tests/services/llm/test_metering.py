"""Tokens of a call: told where that can be true, else estimated, and which of the two it was."""

from typing import Any

import pytest

from neuroedge.contract.chat import ChatDelta, ChatMessage, ChatRequest, Image, Tool, ToolCallPart
from neuroedge.contract.errors import ModelUnavailable
from neuroedge.services.llm.calls import Spent
from neuroedge.services.llm.metering import Meter, rough_tokens

pytestmark = pytest.mark.anyio


class Words:
    """Counts words; `away` raises instead."""

    model_id, context_tokens = "words", 1000

    def __init__(self, *, away: bool = False) -> None:
        self.away = away
        self.counted = 0

    def stream(self, request: ChatRequest) -> Any:
        """Not asked here."""
        raise AssertionError

    async def count_tokens(self, text: str) -> int:
        """A token a word."""
        self.counted += 1
        if self.away:
            raise ModelUnavailable("gone")
        return len(text.split())


async def spent(
    *deltas: ChatDelta, prompt: str = "one two three", max_tokens: int = 50, model: Words | None = None
) -> tuple[Spent, list[str]]:
    """What is kept of an answer of these pieces, and what was doubted."""
    doubts: list[str] = []
    request = ChatRequest([ChatMessage(role="user", content=prompt)], max_tokens=max_tokens)
    meter = Meter(request=request, context_tokens=1000, doubt=doubts.append)
    for delta in deltas:
        meter.saw(delta)
    kept = await meter.spent(model or Words(), outcome="ok", seconds=1.0, first_token_s=0.1, error=None)
    return kept, doubts


def told(prompt: int | None, completion: int | None, cached: int | None = None) -> ChatDelta:
    """The last piece."""
    return ChatDelta(finish_reason="stop", prompt_tokens=prompt, completion_tokens=completion, cached_tokens=cached)


async def test_what_is_told_is_kept_and_nothing_is_counted() -> None:
    """Counting would cost the local model's time."""
    model = Words()
    kept, doubts = await spent(ChatDelta(text="a b"), told(9, 2, 4), model=model)
    assert (kept.prompt_tokens, kept.completion_tokens, kept.cached_tokens, kept.estimated) == (9, 2, 4, False)
    assert (model.counted, doubts) == (0, [])


@pytest.mark.parametrize(
    ("prompt", "completion", "doubted"),
    [
        (-1, 2, ["prompt"]),
        (9, -1, ["completion"]),
        (10**7, 2, ["prompt"]),
        (9, 10**7, ["completion"]),
        (-1, -1, ["prompt", "completion"]),
    ],
)
async def test_impossible_numbers_are_replaced_one_by_one(prompt: int, completion: int, doubted: list[str]) -> None:
    """The other one is still believed."""
    kept, doubts = await spent(ChatDelta(text="some longer words "), ChatDelta(text="here"), told(prompt, completion))
    assert doubts == doubted
    assert kept.estimated
    assert kept.prompt_tokens == (9 if prompt == 9 else 7)
    assert kept.completion_tokens == (2 if completion == 2 else 4)


async def test_far_fewer_tokens_than_were_seen_are_not_believed() -> None:
    """Nor nothing at all for a long prompt."""
    kept, doubts = await spent(*[ChatDelta(text="word ")] * 100, told(0, 3), prompt="a long question " * 50)
    assert doubts == ["prompt", "completion"]
    assert (kept.prompt_tokens, kept.completion_tokens) == (154, 100)


async def test_thoughts_that_are_not_shown_are_believed() -> None:
    """More was counted than was seen, or even allowed, but not more than a context holds."""
    kept, doubts = await spent(ChatDelta(text="42"), told(9, 900), max_tokens=50)
    assert (kept.completion_tokens, doubts) == (900, [])


async def test_hidden_words_of_a_template_are_believed() -> None:
    """A few hundred tokens more than the words take are no lie."""
    kept, doubts = await spent(told(500, 1))
    assert (kept.prompt_tokens, doubts) == (500, [])


async def test_pieces_of_a_token_each_are_counted_as_they_came() -> None:
    """As OpenAI's wire brings them."""
    kept, _ = await spent(*[ChatDelta(text="ab")] * 7)
    assert (kept.completion_tokens, kept.estimated) == (7, True)


async def test_large_pieces_are_counted_by_their_words() -> None:
    """As Anthropic's wire brings them."""
    kept, _ = await spent(ChatDelta(text="a whole sentence in a single piece"))
    assert kept.completion_tokens == 7


async def test_tool_calls_are_part_of_an_answer() -> None:
    """Their names and arguments are generated too."""
    part = ToolCallPart(index=0, id="c", name="weather", arguments='{"town": "Riga", "day": 1}')
    kept, _ = await spent(ChatDelta(tool_calls=[part]))
    assert kept.completion_tokens > 1


async def test_a_model_that_is_gone_is_counted_for_roughly() -> None:
    """The ledger must not fail for that."""
    kept, _ = await spent(ChatDelta(text="a whole sentence in one piece"), model=Words(away=True))
    assert kept.completion_tokens == len("a whole sentence in one piece") // 4


async def test_more_cached_than_there_was_is_cut() -> None:
    """Else a call could cost less than nothing."""
    kept, _ = await spent(told(9, 1, 50))
    assert kept.cached_tokens == 9
    kept, _ = await spent(told(9, 1, -50))
    assert kept.cached_tokens == 0


def test_the_rough_length_counts_everything_that_is_sent() -> None:
    """Pictures, tools and schemas beside words."""
    message = ChatMessage(role="user", content="x" * 400)
    plain = rough_tokens(ChatRequest([message]))
    assert 100 <= plain <= 110
    assert rough_tokens(ChatRequest([message], tools=[Tool(name="f", description="y" * 400)])) >= plain + 100
    picture = ChatMessage(role="user", content="", images=[Image(media_type="image/png", data=b"x")])
    assert rough_tokens(ChatRequest([message, picture])) >= plain + 500
