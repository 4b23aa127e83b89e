"""The embedding engine."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from pydantic import ValidationError

from neuroedge.contract.errors import ModelUnavailable
from neuroedge.contract.models import Embeddings
from neuroedge.engines.knowledge.embedding import EmbeddingEngine, Input
from neuroedge.runtimes.text_encoder import BatchedTextEncoder, load
from tests.engines.knowledge.fake_encoder import HashedWords
from tests.fakes import FakeCache, make_context

ENCODER = "all-minilm-l6-v2-int8"


@pytest.mark.anyio
async def test_each_text_gets_a_vector_in_order_with_its_model() -> None:
    """The output names the encoder that made the vectors."""
    ctx = make_context(models={"text_embedding": HashedWords()})
    answer = await EmbeddingEngine(probe=ctx).run(Input(texts=["a cat", "a dog barks"]), ctx)
    assert (answer.dim, answer.model, answer.models) == (64, "hashed-words", ["hashed-words"])
    assert answer.tokens == [2, 3]
    assert np.linalg.norm(answer.vectors, axis=1) == pytest.approx(1.0, abs=1e-5)


class Counted(HashedWords):
    """Keeps what it was asked to encode."""

    def __init__(self) -> None:
        self.batches: list[tuple[str, list[str]]] = []

    async def encode(self, texts: Sequence[str], *, kind: Literal["query", "passage"] = "passage") -> Embeddings:
        """Encode and remember."""
        self.batches.append((kind, list(texts)))
        return await super().encode(texts, kind=kind)


@pytest.mark.anyio
async def test_only_new_texts_are_computed_and_all_in_one_batch() -> None:
    """Known texts keep their vectors and token counts; a query is another text than a passage."""
    encoder = Counted()
    ctx = make_context(models={"text_embedding": encoder})
    engine = EmbeddingEngine(probe=ctx)
    first = await engine.run(Input(texts=["a cat", "a dog barks"]), ctx)
    second = await engine.run(Input(texts=["rain", "a dog barks", "snow fell"]), ctx)
    third = await engine.run(Input(texts=["a cat"], kind="query"), ctx)
    assert encoder.batches == [
        ("passage", ["a cat", "a dog barks"]),
        ("passage", ["rain", "snow fell"]),
        ("query", ["a cat"]),
    ]
    assert (first.cached, second.cached, third.cached) == (0, 1, 0)
    assert second.vectors[1] == first.vectors[1]
    assert second.tokens == [1, 3, 2]
    alone = await HashedWords().encode(["rain", "a dog barks", "snow fell"])
    assert second.vectors == alone.vectors.tolist()


@pytest.mark.anyio
async def test_what_is_kept_needs_no_model() -> None:
    """A model that cannot be had now does not matter for known texts; new ones fail."""
    cache = FakeCache()
    ctx = make_context(models={"text_embedding": HashedWords()}, cache=cache)
    known = await EmbeddingEngine(probe=ctx).run(Input(texts=["a cat"]), ctx)
    without = make_context(cache=cache)
    again = await EmbeddingEngine(probe=without).run(Input(texts=["a cat"]), without)
    assert again == known.model_copy(update={"cached": 1})
    with pytest.raises(ModelUnavailable):
        await EmbeddingEngine(probe=without).run(Input(texts=["a cat", "new"]), without)


@pytest.mark.anyio
async def test_without_a_model_the_call_fails_and_health_says_so() -> None:
    """No vectors are made up."""
    ctx = make_context()
    engine = EmbeddingEngine(probe=ctx)
    with pytest.raises(ModelUnavailable):
        await engine.run(Input(texts=["a"]), ctx)
    assert (await engine.health()).status == "unavailable"


@pytest.mark.parametrize(
    "payload",
    [{"texts": []}, {"texts": [""]}, {"texts": ["x" * 20_001]}, {"texts": ["x"] * 257}, {"texts": ["x"], "kind": "y"}],
)
def test_bad_input_is_refused(payload: dict[str, object]) -> None:
    """Too few, too many, too long, unknown kind."""
    with pytest.raises(ValidationError):
        Input.model_validate(payload)


@pytest.fixture(scope="module")
def encoder(models_dir: Path) -> Iterator[BatchedTextEncoder]:
    """The default encoder."""
    loaded = load(ENCODER, models_dir / ENCODER, threads=2, options={})
    yield loaded
    loaded.close()


@pytest.mark.models
@pytest.mark.anyio
async def test_the_real_model_passes_the_engines_own_test(encoder: BatchedTextEncoder) -> None:
    """What runs after a hot reload."""
    await EmbeddingEngine(probe=make_context(models={"text_embedding": encoder})).post_swap_test()
