"""Recall by relevance, recency and importance."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from neuroedge.contract.engine import EngineContext
from neuroedge.engines.knowledge.memory import Input, Item, MemoryEngine, Output, Recall
from tests.engines.knowledge.fake_encoder import HashedWords
from tests.fakes import FakeMemories, make_context

pytestmark = pytest.mark.anyio
NOW = datetime.now(UTC)


@pytest.fixture
def ctx() -> EngineContext:
    """A context whose memories can be searched."""
    return make_context(models={"text_embedding": HashedWords()}, memories=FakeMemories())


async def _remember(ctx: EngineContext, *items: Item) -> None:
    await MemoryEngine(probe=ctx).run(Input(items=list(items)), ctx)


async def _recall(ctx: EngineContext, query: str, **asked: Any) -> Output:
    return await MemoryEngine(probe=ctx).run(Input(recall=Recall(query=query, **asked)), ctx)


def _ago(days: float) -> datetime:
    return NOW - timedelta(days=days)


async def test_of_equal_texts_the_newer_and_weightier_come_first(ctx: EngineContext) -> None:
    """Each part is shown, and their product is the score."""
    text = "The boiler pressure was checked."
    await _remember(
        ctx,
        Item(content=text, title="old", occurred_at=_ago(60)),
        Item(content=text, title="new", occurred_at=_ago(0)),
        Item(content=text, title="weighty", occurred_at=_ago(30), importance=0.9),
    )
    answer = await _recall(ctx, "boiler pressure", half_life_days=30)
    assert [memory.title for memory in answer.memories] == ["new", "weighty", "old"]
    by_title = {memory.title: memory for memory in answer.memories}
    assert by_title["old"].why.recency == pytest.approx(0.25, rel=1e-3)
    assert by_title["weighty"].why.recency == pytest.approx(0.5, rel=1e-3)
    assert by_title["weighty"].score == pytest.approx(by_title["new"].score * 0.9, rel=1e-2)
    assert by_title["old"].score == pytest.approx(by_title["new"].score / 4, rel=1e-2)
    for memory in answer.memories:
        why = memory.why
        assert memory.score == pytest.approx(why.relevance * why.recency * why.importance)
    assert answer.method == "hybrid-recall"
    assert answer.ids == []


async def test_the_half_life_decides_between_relevant_and_new(ctx: EngineContext) -> None:
    """With a long memory relevance wins, with a short one the day does."""
    await _remember(
        ctx,
        Item(content="Sheila lives in Texas near Austin.", occurred_at=_ago(90)),
        Item(content="Somebody lives in town.", occurred_at=_ago(1)),
    )
    query = "Sheila lives in Texas"
    patient = await _recall(ctx, query, half_life_days=3650)
    hasty = await _recall(ctx, query, half_life_days=7)
    assert patient.memories[0].content.startswith("Sheila")
    assert hasty.memories[0].content.startswith("Somebody")


async def test_what_does_not_matter_is_last_and_what_is_to_come_is_new(ctx: EngineContext) -> None:
    """Importance 0 makes a score of 0; a time to come counts as now."""
    await _remember(
        ctx,
        Item(content="The meeting is on Monday.", importance=0),
        Item(content="The meeting was moved.", occurred_at=_ago(-10), importance=0.1),
    )
    first, last = (await _recall(ctx, "meeting")).memories
    assert (first.why.recency, first.why.age_days) == (1.0, 0.0)
    assert last.score == 0


async def test_what_was_known_then_is_recalled_without_what_was_learnt_later(ctx: EngineContext) -> None:
    """A move was recorded a week after it happened: until then the old address was what was known."""
    await _remember(ctx, Item(content="Sheila lives in Texas.", occurred_at=_ago(400)))
    await _remember(ctx, Item(content="Sheila lives in Ohio.", occurred_at=_ago(30)))
    rows = ctx.memories.rows  # type: ignore[attr-defined]
    rows[:] = [(id_, item, _ago(days)) for (id_, item, _), days in zip(rows, (400, 23), strict=True)]
    known = {
        days: [m.content for m in (await _recall(ctx, "Sheila lives in", known_at=_ago(days))).memories]
        for days in (500, 25, 1)
    }
    assert known == {
        500: [],
        25: ["Sheila lives in Texas."],
        1: ["Sheila lives in Ohio.", "Sheila lives in Texas."],
    }
    (then,) = (await _recall(ctx, "Sheila lives in", known_at=_ago(25))).memories
    assert then.why.age_days == pytest.approx(375, abs=0.1)


async def test_a_recall_is_restricted_and_bounded(ctx: EngineContext) -> None:
    """By tag and type; never more than wanted; nothing from nothing."""
    assert (await _recall(ctx, "anything")).memories == []
    await _remember(ctx, *(Item(content=f"Pump {n} runs.", tags=["even"] if n % 2 == 0 else []) for n in range(10)))
    assert len((await _recall(ctx, "pump", top_k=3)).memories) == 3
    assert {m.content for m in (await _recall(ctx, "pump", tags=["even"], top_k=50)).memories} == {
        f"Pump {n} runs." for n in range(0, 10, 2)
    }


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"items": []},
        {"items": [{"content": "a"}], "recall": {"query": "a"}},
        {"recall": {"query": ""}},
        {"recall": {"query": "a", "top_k": 0}},
        {"recall": {"query": "a", "top_k": 10**9}},
        {"recall": {"query": "a", "half_life_days": 0}},
        {"recall": {"query": "a", "half_life_days": "nan"}},
        {"recall": {"query": "a", "colour": "red"}},
        {"recall": {"query": "a", "since": "2020-01-01T00:00:00"}},
        {"recall": {"query": "a", "known_at": "2020-01-01T00:00:00"}},
    ],
)
def test_bad_recalls_are_refused(payload: dict[str, Any]) -> None:
    """Neither or both modes, no bounds, no time zone, a field that does not exist."""
    with pytest.raises(ValidationError):
        Input.model_validate(payload)
