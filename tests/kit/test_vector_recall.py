"""Recall of approximate searches against counts made by hand."""

from typing import Any

import numpy as np
import pytest

from neuroedge.kit.vector_recall import exact_cosines, mean_ci95, recalls


def unit(n: int, dim: int, seed: int) -> Any:
    """Random directions."""
    rows = np.random.default_rng(seed).normal(size=(n, dim))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def test_the_best_cosines_are_those_of_a_full_sort() -> None:
    """For more queries than are computed at once."""
    vectors, queries = unit(200, 16, 1), unit(150, 16, 2)
    expected = -np.sort(-(queries @ vectors.T), axis=1)[:, :7]
    assert np.allclose(exact_cosines(vectors, queries, k=7), expected)
    assert np.allclose(exact_cosines(vectors, queries, k=200)[:, 0], expected[:, 0])


def test_each_query_has_the_part_that_was_found() -> None:
    """All, one of four, none; order does not count, nothing found is nothing."""
    vectors, queries = unit(50, 8, 3), unit(4, 8, 4)
    right = np.argsort(-(queries @ vectors.T), axis=1)
    found = [right[0, :4][::-1].tolist(), [right[1, 0], *right[1, 20:23].tolist()], right[2, 30:34].tolist(), []]
    assert recalls(vectors, queries, found, k=4).tolist() == [1, 0.25, 0, 0]


def test_equal_vectors_are_equally_right() -> None:
    """Which of ten equal rows is given is no matter."""
    vectors = np.concatenate([np.repeat(unit(1, 8, 5), 10, axis=0), unit(20, 8, 6)])
    assert recalls(vectors, vectors[:1], [[9, 8]], k=2).tolist() == [1]


def test_the_interval_holds_the_mean_and_shrinks() -> None:
    """More queries, a narrower interval; equal values, none."""
    values = np.random.default_rng(7).random(400)
    low, high = mean_ci95(values)
    few_low, few_high = mean_ci95(values[:20])
    assert low < values.mean() < high
    assert high - low < few_high - few_low
    assert mean_ci95(np.ones(5)) == pytest.approx((1, 1))
