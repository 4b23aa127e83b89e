"""The embedding engine."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from neuroedge.contract.errors import ModelUnavailable
from neuroedge.engines.knowledge.embedding import EmbeddingEngine, Input
from neuroedge.runtimes.onnx_text import OnnxTextEncoder, load
from tests.engines.knowledge.fake_encoder import HashedWords
from tests.fakes import make_context

ENCODER = "all-minilm-l6-v2-int8"


@pytest.mark.anyio
async def test_each_text_gets_a_vector_in_order_with_its_model() -> None:
    """The output names the encoder that made the vectors."""
    ctx = make_context(models={"text_embedding": HashedWords()})
    answer = await EmbeddingEngine(probe=ctx).run(Input(texts=["a cat", "a dog barks"]), ctx)
    assert (answer.dim, answer.model, answer.models) == (64, "hashed-words", ["hashed-words"])
    assert answer.tokens == [2, 3]
    assert np.linalg.norm(answer.vectors, axis=1) == pytest.approx(1.0, abs=1e-5)


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
def encoder(models_dir: Path) -> Iterator[OnnxTextEncoder]:
    """The default encoder."""
    loaded = load(ENCODER, models_dir / ENCODER, threads=2, options={})
    yield loaded
    loaded.close()


@pytest.mark.models
@pytest.mark.anyio
async def test_the_real_model_passes_the_engines_own_test(encoder: OnnxTextEncoder) -> None:
    """What runs after a hot reload."""
    await EmbeddingEngine(probe=make_context(models={"text_embedding": encoder})).post_swap_test()
