"""Padding and pooling, by hand."""

import numpy as np
import pytest

from neuroedge.runtimes.embedding.layout import Pooling
from neuroedge.runtimes.embedding.pooling import pad, pool, unit

STATES = np.array([[[1, 0], [3, 0], [9, 9]], [[0, 1], [0, 5], [0, 6]]], np.float32)
MASK = np.array([[1, 1, 0], [1, 1, 1]])


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [("mean", [[2, 0], [0, 4]]), ("cls", [[1, 0], [0, 1]]), ("last", [[3, 0], [0, 6]])],
)
def test_padding_never_reaches_the_vector(pooling: Pooling, expected: list[list[float]]) -> None:
    """The third state of the first text is padding."""
    assert pool(STATES, MASK, pooling).tolist() == expected


def test_batches_are_filled_up_on_the_right() -> None:
    """With the tokenizer's own padding id, masked."""
    padded, mask = pad([[5, 6], [7, 8, 9]], pad_id=3)
    assert padded.tolist() == [[5, 6, 3], [7, 8, 9]]
    assert mask.tolist() == [[1, 1, 0], [1, 1, 1]]


def test_fewer_dimensions_are_normalised_anew() -> None:
    """Matryoshka: cut first, then length one; a vector of zeros stays one."""
    cut = unit(np.array([[3, 4, 12], [0, 0, 5]], np.float32), dims=2)
    assert cut == pytest.approx(np.array([[0.6, 0.8], [0, 0]]))
    assert cut.dtype == np.float32
