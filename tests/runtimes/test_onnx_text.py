"""The sentence encoder with its real weights, and its batching without."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuroedge.contract.errors import ModelUnavailable
from neuroedge.runtimes.onnx_text import OnnxTextEncoder, batches, load

ENCODER = "all-minilm-l6-v2-int8"


@given(st.lists(st.integers(1, 300), max_size=60), st.integers(1, 600))
def test_batches_hold_every_text_once_within_the_budget(lengths: list[int], budget: int) -> None:
    """Padded size stays within the budget; only a text longer than it may stand alone."""
    made = list(batches(lengths, token_budget=budget))
    assert sorted(i for batch in made for i in batch) == list(range(len(lengths)))
    for batch in made:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget


def test_missing_files_are_reported_with_the_remedy(tmp_path: Path) -> None:
    """An empty folder is no model."""
    with pytest.raises(ModelUnavailable) as caught:
        load("m", tmp_path, threads=1, options={})
    assert caught.value.hint is not None
    assert "models verify m" in caught.value.hint


def test_an_unknown_pooling_is_refused(tmp_path: Path) -> None:
    """A typo in the catalogue does not silently become mean pooling."""
    with pytest.raises(ModelUnavailable, match="maximum"):
        load("m", tmp_path, threads=1, options={"pooling": "maximum"})


@pytest.fixture(scope="module")
def encoder(models_dir: Path) -> Iterator[OnnxTextEncoder]:
    """The default encoder."""
    loaded = load(ENCODER, models_dir / ENCODER, threads=2, options={})
    yield loaded
    loaded.close()


@pytest.mark.models
@pytest.mark.anyio
async def test_a_text_gets_the_same_vector_alone_and_in_a_batch(encoder: OnnxTextEncoder) -> None:
    """Padding and neighbours do not leak into a vector; the order is kept."""
    texts = ["Hello?", "This is Diane in New Jersey.", "word " * 400, "And I'm Sheila in Texas.", "Oh, hello."]
    together = await encoder.encode(texts)
    alone = [(await encoder.encode([text])).vectors[0] for text in texts]
    assert np.abs(together.vectors - np.stack(alone)).max() < 1e-3
    assert together.vectors.shape == (5, encoder.dim)
    assert together.vectors.dtype == np.float32
    assert np.linalg.norm(together.vectors, axis=1) == pytest.approx(1.0, abs=1e-5)
    assert max(together.tokens) == together.tokens[2] == encoder.max_tokens


@pytest.mark.models
@pytest.mark.anyio
async def test_near_meanings_have_near_vectors(encoder: OnnxTextEncoder) -> None:
    """A paraphrase without a common word is nearer than another topic."""
    vectors = (await encoder.encode(["The kitten sleeps.", "A young cat is dozing.", "Taxes rose in May."])).vectors
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.3


@pytest.mark.models
@pytest.mark.anyio
async def test_poolings_and_prefixes_change_the_vector(models_dir: Path, encoder: OnnxTextEncoder) -> None:
    """Each option reaches the computation."""
    folder = models_dir / ENCODER
    reference = (await encoder.encode(["a cat"], kind="query")).vectors[0]
    for options in ({"pooling": "cls"}, {"pooling": "last"}, {"query_prefix": "query: "}):
        other = load(ENCODER, folder, threads=1, options=options)
        assert (await other.encode(["a cat"], kind="query")).vectors[0] @ reference < 0.999, options
        other.close()


@pytest.mark.models
@pytest.mark.anyio
async def test_no_texts_give_no_vectors(encoder: OnnxTextEncoder) -> None:
    """An empty batch has the right shape."""
    assert (await encoder.encode([])).vectors.shape == (0, encoder.dim)
