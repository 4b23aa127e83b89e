"""MaxSim on vectors whose cosines are plain to see."""

import numpy as np
import pytest

from neuroedge.kit.late_interaction import max_sim

EAST, NORTH, WEST = [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]


def states(*vectors: list[float]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Token states."""
    return np.array(vectors, np.float32).reshape(-1, 2)


def test_each_query_token_finds_its_best_match() -> None:
    """Both found, one found, neither; more tokens in the passage do no harm."""
    scores = max_sim(states(EAST, NORTH), [states(WEST, NORTH, EAST), states(EAST), states(WEST)])
    assert scores == pytest.approx([1.0, 0.5, -0.5])


def test_texts_without_tokens() -> None:
    """An empty passage is the worst of all; an empty query prefers none."""
    assert max_sim(states(EAST), [states(), states(WEST)]).tolist() == [-1.0, -1.0]
    assert max_sim(states(), [states(EAST)]).tolist() == [0.0]
    assert max_sim(states(EAST), []).shape == (0,)
