"""The search engine over in-memory rows."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import ValidationError

from neuroedge.contract.engine import EngineContext
from neuroedge.contract.models import Floats
from neuroedge.engines.knowledge.memory import Input as MemoryInput
from neuroedge.engines.knowledge.memory import Item, MemoryEngine
from neuroedge.engines.knowledge.search import Input, SearchEngine
from tests.engines.knowledge.fake_encoder import HashedWords
from tests.fakes import FakeMemories, make_context

RECORDING = UUID("00000000-0000-7000-8000-000000000001")


@pytest.fixture
async def ctx() -> EngineContext:
    """Four remembered rows, two of one recording."""
    context = make_context(models={"text_embedding": HashedWords()})
    items = [
        Item(
            content="Sheila lives in Texas", recording_id=RECORDING, memory_type="segment", metadata={"speaker": "S2"}
        ),
        Item(content="Diane heard a beep", recording_id=RECORDING, memory_type="segment"),
        Item(content="Texas is large", tags=["geography", "usa"]),
        Item(content="The invoice is due on Monday", tags=["office"]),
    ]
    await MemoryEngine(probe=context).run(MemoryInput(items=items), context)
    return context


@pytest.mark.anyio
async def test_a_row_found_by_meaning_and_words_comes_first_with_both_scores(ctx: EngineContext) -> None:
    """The parts say why."""
    answer = await SearchEngine(probe=ctx).run(Input(query="who lives in Texas", top_k=2), ctx)
    best = answer.hits[0]
    assert best.content == "Sheila lives in Texas"
    assert best.parts.dense is not None
    assert best.parts.keyword is not None
    assert best.score == pytest.approx(2 / 61)
    assert (best.metadata, best.recording_id) == ({"speaker": "S2"}, RECORDING)
    assert len(answer.hits) == 2
    assert answer.method == "hybrid-rrf"


@pytest.mark.anyio
async def test_filters_restrict_both_searches(ctx: EngineContext) -> None:
    """By recording, type and all tags."""
    engine = SearchEngine(probe=ctx)

    async def found(**restriction: object) -> set[str]:
        answer = await engine.run(Input.model_validate({"query": "Texas", "top_k": 50, **restriction}), ctx)
        return {hit.content for hit in answer.hits}

    assert await found(recording_id=RECORDING) == {"Sheila lives in Texas", "Diane heard a beep"}
    assert await found(recording_id=uuid4()) == set()
    assert await found(memory_type="segment") == {"Sheila lives in Texas", "Diane heard a beep"}
    assert await found(tags=["usa", "geography"]) == {"Texas is large"}
    assert await found(tags=["usa", "office"]) == set()


@pytest.mark.anyio
async def test_another_organisations_rows_are_not_found(ctx: EngineContext) -> None:
    """A context of its own has memories of its own."""
    other = make_context(models={"text_embedding": HashedWords()})
    assert (await SearchEngine(probe=other).run(Input(query="Texas"), other)).hits == []


@pytest.mark.anyio
@pytest.mark.parametrize("rerank", [False, True])
async def test_words_alone_are_made_diverse_by_the_vectors_of_the_rows(rerank: bool) -> None:
    """By those of the encoder the rows have theirs from, whatever put the hits in order."""
    asked: list[tuple[str, int]] = []

    class Memories(FakeMemories):
        """Notes which vectors are asked for."""

        async def vectors(self, ids: Sequence[UUID], *, model: str, dim: int) -> dict[UUID, Floats]:
            """Of the rows asked for."""
            asked.append((model, dim))
            return await super().vectors(ids, model=model, dim=dim)

    async def rank(name: str, payload: Any) -> Any:
        assert name == "ranking"
        scores = [1.0 - n / 10 for n in range(len(payload.passages))]
        return SimpleNamespace(method="fake", scores=scores, models=["fake-reranker"])

    context = make_context(models={"text_embedding": HashedWords()}, memories=Memories(), call=rank)
    items = [Item(content=text) for text in ("Texas is large", "Texas is large", "Texas grows rice")]
    await MemoryEngine(probe=context).run(MemoryInput(items=items), context)
    asking = Input(query="Texas large", mode="keyword", top_k=2, diversity=0.8, rerank=rerank)
    answer = await SearchEngine(probe=context).run(asking, context)
    assert {hit.content for hit in answer.hits} == {"Texas is large", "Texas grows rice"}
    assert asked == [(HashedWords.model_id, HashedWords.dim)]


@pytest.mark.parametrize("payload", [{"query": ""}, {"query": "x", "top_k": 0}, {"query": "x", "top_k": 51}, {}])
def test_bad_input_is_refused(payload: dict[str, object]) -> None:
    """No question, or a number of hits out of range."""
    with pytest.raises(ValidationError):
        Input.model_validate(payload)
