"""Goodness of pronunciation against the sum over all alignments, counted one by one."""

import itertools

import numpy as np
import pytest

from neuroedge.kit.goodness import best_path, changes

PHONES = 3
BLANK = 3


def frames(count: int, *, seed: int = 0) -> np.ndarray:
    """Random log probabilities of three phones and the blank."""
    return np.log(np.random.default_rng(seed).dirichlet(np.ones(PHONES + 1), size=count))


def summed(log_p: np.ndarray, sequence: list[int]) -> float:
    """Log likelihood of a sequence: every path of the frames that collapses to it."""
    total = -np.inf
    for path in itertools.product(range(PHONES + 1), repeat=len(log_p)):
        collapsed = [k for k, _ in itertools.groupby(path) if k != BLANK]
        if collapsed == sequence:
            total = np.logaddexp(total, sum(log_p[t, k] for t, k in enumerate(path)))
    return float(total)


@pytest.mark.parametrize("expected", [[0], [0, 1], [0, 0], [0, 1, 0], [2, 1]], ids=str)
def test_every_change_of_one_place_is_the_sum_over_all_its_alignments(expected: list[int]) -> None:
    """Exchanges, omissions and additions, repeats included."""
    log_p = frames(6)
    found = changes(log_p, np.array(expected))
    base = summed(log_p, expected)
    assert found.log_p == pytest.approx(base)
    for i, phone in itertools.product(range(len(expected)), range(PHONES)):
        exchanged = [*expected[:i], phone, *expected[i + 1 :]]
        assert found.substituted[i, phone] == pytest.approx(summed(log_p, exchanged) - base)
    for i in range(len(expected)):
        assert found.omitted[i] == pytest.approx(summed(log_p, [*expected[:i], *expected[i + 1 :]]) - base)
    for i, phone in itertools.product(range(len(expected) + 1), range(PHONES)):
        added = [*expected[:i], phone, *expected[i:]]
        assert found.added[i, phone] == pytest.approx(summed(log_p, added) - base)


def test_phones_are_found_where_they_are_clear() -> None:
    """The best alignment gives each phone its own frames."""
    log_p = np.log(np.full((6, 4), 0.02))
    for t, k in enumerate([BLANK, 0, 0, BLANK, 1, BLANK]):
        log_p[t, k] = np.log(0.94)
    assert changes(log_p, np.array([0, 1])).frames.tolist() == [[1, 3], [4, 5]]
    assert best_path(log_p) == [0, 1]


def test_several_right_realisations_count_as_the_expected_phone() -> None:
    """What is given as the expected phones' own probability is what they are scored by."""
    log_p = frames(5)
    own = np.logaddexp(log_p[:, [0]], log_p[:, [1]])
    assert changes(log_p, np.array([0]), expected_log_p=own).log_p > changes(log_p, np.array([0])).log_p


def test_too_few_frames_are_an_error_and_no_number() -> None:
    """Three phones do not fit into two frames, nor a repeated one into two."""
    with pytest.raises(ValueError, match="too few"):
        changes(frames(2), np.array([0, 1, 2]))
    with pytest.raises(ValueError, match="too few"):
        changes(frames(2), np.array([0, 0]))


def test_nothing_was_heard_in_no_frames() -> None:
    """An empty recording decodes to nothing."""
    assert best_path(np.zeros((0, 4))) == []
