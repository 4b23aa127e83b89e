"""The memory engine."""

from uuid import uuid4

import pytest
from pydantic import ValidationError

from neuroedge.contract.errors import ModelUnavailable
from neuroedge.engines.knowledge.memory import Input, Item, MemoryEngine
from tests.engines.knowledge.fake_encoder import HashedWords
from tests.fakes import FakeMemories, make_context


@pytest.mark.anyio
async def test_items_are_stored_whole_with_vector_and_keywords() -> None:
    """Nothing of an item is lost, ids come in order."""
    memories, recording = FakeMemories(), uuid4()
    ctx = make_context(models={"text_embedding": HashedWords()}, memories=memories)
    first = Item(
        content="Sheila lives in Texas.",
        title="Call",
        tags=["people"],
        memory_type="segment",
        metadata={"speaker": "S2", "start_s": 14.4},
        recording_id=recording,
    )
    answer = await MemoryEngine(probe=ctx).run(Input(items=[first, Item(content="...")]), ctx)
    assert answer.ids == [row[0] for row in memories.rows]
    stored = memories.rows[0][1]
    assert (stored.content, stored.title, stored.memory_type) == (first.content, "Call", "segment")
    assert (stored.recording_id, stored.metadata["start_s"]) == (recording, 14.4)
    assert stored.embedding_model == "hashed-words"
    assert "texas" in answer.keywords[0]
    assert list(stored.keywords) == answer.keywords[0]
    assert answer.keywords[1] == []


@pytest.mark.anyio
async def test_nothing_is_stored_without_a_model() -> None:
    """All or none."""
    memories = FakeMemories()
    ctx = make_context(memories=memories)
    with pytest.raises(ModelUnavailable):
        await MemoryEngine(probe=ctx).run(Input(items=[Item(content="a")]), ctx)
    assert memories.rows == []


@pytest.mark.anyio
async def test_the_engines_own_test_leaves_no_row_behind() -> None:
    """The probe organisation stays empty."""
    memories = FakeMemories()
    ctx = make_context(models={"text_embedding": HashedWords()}, memories=memories)
    await MemoryEngine(probe=ctx).post_swap_test()
    assert memories.rows == []


@pytest.mark.parametrize(
    "item",
    [{"content": ""}, {"content": "x" * 20_001}, {"content": "x", "organisation": "y"}, {"content": "x", "tags": [""]}],
)
def test_bad_items_are_refused(item: dict[str, object]) -> None:
    """Empty, too long, a field that does not exist, an empty tag."""
    with pytest.raises(ValidationError):
        Input.model_validate({"items": [item]})
