"""MaxSim on vectors whose cosines are plain to see."""

import numpy as np
import pytest

from neuroedge.kit.late_interaction import READ_CHARS, max_sim, read_part

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


@pytest.mark.parametrize(
    ("passage", "read"),
    [
        ("short one", "short one"),
        ("x" * READ_CHARS, "x" * READ_CHARS),
        ("x" * READ_CHARS + " y", "x" * READ_CHARS),
        ("a " + "x" * READ_CHARS, "a"),
        ("東" * 2 * READ_CHARS, "東" * READ_CHARS),
        (" " * 2 * READ_CHARS, " " * READ_CHARS),
    ],
)
def test_the_part_that_is_read_ends_with_a_whole_word(passage: str, read: str) -> None:
    """Unless one word, or a script without spaces, fills it."""
    assert read_part(passage) == read
