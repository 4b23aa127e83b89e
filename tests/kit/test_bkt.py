"""Knowledge tracing against brute force over all hidden paths, and simulated learners."""

from itertools import product

import numpy as np
import pytest

from neuroedge.kit import bkt
from neuroedge.kit.bkt import Skill

TRUE = Skill(known_at_first=0.3, learn=0.2, guess=0.2, slip=0.08)


def _brute(answers: list[bool], skill: Skill) -> tuple[float, float]:
    """Likelihood, and probability of mastery after the last answer and its chance to learn."""
    total, mastered = 0.0, 0.0
    for path in product((0, 1), repeat=len(answers) + 1):
        p = skill.known_at_first if path[0] else 1 - skill.known_at_first
        for t, right in enumerate(answers):
            chance = 1 - skill.slip if path[t] else skill.guess
            p *= chance if right else 1 - chance
            following = 1.0 if path[t] else skill.learn
            p *= following if path[t + 1] else 1 - following
        total += p
        mastered += p * path[-1]
    return total, mastered / total


@pytest.mark.parametrize("answers", [[True], [False, True, True], [True, False, False, True, True, True]])
def test_mastery_is_the_sum_over_hidden_paths(answers: list[bool]) -> None:
    """Bayes by hand."""
    known, following = bkt.mastery(answers, TRUE)
    _, expected = _brute(answers, TRUE)
    assert known == pytest.approx(expected)
    assert following == pytest.approx(expected * (1 - TRUE.slip) + (1 - expected) * TRUE.guess)


def test_the_fits_likelihood_is_the_sum_over_hidden_paths_and_never_falls() -> None:
    """One EM step's likelihood by brute force; more steps do not lower it."""
    sequences = [[False, True, True], [True, False], [False, False, True, True]]
    skill, before = bkt.DEFAULT, -np.inf
    for _ in range(15):
        moved, likelihood = bkt._step(bkt._groups(sequences), skill)
        assert likelihood == pytest.approx(sum(np.log(_brute(s, skill)[0]) for s in sequences))
        assert likelihood >= before - 1e-9
        skill, before = moved, likelihood


def test_grouping_sequences_by_length_changes_no_result() -> None:
    """A step over groups is one over all sequences padded to the longest; empty ones say nothing."""
    rng = np.random.default_rng(4)
    lengths = [1, 2, 2, 3, 4, 7, 8, 9, 31, 64, 65, 100, *rng.integers(1, 120, 60).tolist()]
    sequences = [(rng.random(n) < 0.6).tolist() for n in lengths]
    skill = Skill(known_at_first=0.35, learn=0.12, guess=0.17, slip=0.06)
    for _ in range(6):
        moved, likelihood = bkt._step(bkt._groups([[], *sequences]), skill)
        plain, expected = bkt._step([bkt._padded(sequences)], skill)
        assert bkt._values(moved) == pytest.approx(bkt._values(plain), abs=1e-9)
        assert likelihood == pytest.approx(expected, rel=1e-12)
        skill = moved


def test_hundreds_of_right_answers_before_hundreds_of_wrong_ones_can_be_fitted() -> None:
    """Neither state's probability comes to 0, from where its weight would be no number."""
    found = bkt.fit([[True] * 500 + [False] * 500, [True, False, True], [False, True]])
    assert np.isfinite(bkt._values(found.skill)).all()
    assert np.isfinite(found.log_likelihood)
    for skill in (bkt.Skill(known_at_first=0, learn=0.1, guess=0.2, slip=0), bkt.DEFAULT):
        assert all(0 <= p <= 1 for p in bkt.mastery([True] * 2000 + [False] * 9, skill))


def test_of_a_long_sequence_the_first_answers_are_fitted_to() -> None:
    """And all of them tell where the student stands now."""
    rng = np.random.default_rng(4)
    first, rest = [*(rng.random(bkt.FIT_ANSWERS - 9) < 0.7).tolist(), *[True] * 9], [False] * 500
    assert bkt.fit([first + rest, [True, False]]) == bkt.fit([first, [True, False]])
    assert bkt.mastery(first + rest, bkt.DEFAULT)[0] < bkt.mastery(first, bkt.DEFAULT)[0]


def test_one_long_sequence_among_many_short_ones_takes_no_more_cells_than_twice_the_answers() -> None:
    """One student of 10,000 answers and 10,000 students of one."""
    sequences = [[True] * 10_000, *([[False]] * 10_000), *([[True, False, True]] * 50)]
    cells = sum(group.answers.size for group in bkt._groups(sequences))
    assert cells <= 2 * sum(map(len, sequences))
    assert bkt._step(bkt._groups(sequences), bkt.DEFAULT)[1] < 0


def test_parameters_are_recovered() -> None:
    """From 2,000 simulated learners."""
    rng = np.random.default_rng(0)
    sequences = []
    for _ in range(2000):
        known, own = rng.random() < TRUE.known_at_first, []
        for _ in range(10):
            own.append(bool(rng.random() < (1 - TRUE.slip if known else TRUE.guess)))
            known = known or rng.random() < TRUE.learn
        sequences.append(own)
    found = bkt.fit(sequences)
    assert found.converged
    assert found.at_bounds == ()
    assert found.skill.known_at_first == pytest.approx(TRUE.known_at_first, abs=0.04)
    assert found.skill.learn == pytest.approx(TRUE.learn, abs=0.03)
    assert found.skill.guess == pytest.approx(TRUE.guess, abs=0.03)
    assert found.skill.slip == pytest.approx(TRUE.slip, abs=0.02)


def test_answers_at_random_do_not_turn_the_meaning_of_mastery_round() -> None:
    """Bounds keep a mastered state of more right answers, and the fit says where it stands at them."""
    rng = np.random.default_rng(1)
    found = bkt.fit([(rng.random(8) < 0.5).tolist() for _ in range(200)])
    assert 1 - found.skill.slip > found.skill.guess
    assert "guess" in found.at_bounds or "slip" in found.at_bounds


def test_predictions_come_before_the_answers() -> None:
    """The first is the prior's."""
    told = bkt.predictions([True, True], TRUE)
    assert told[0] == pytest.approx(0.3 * 0.92 + 0.7 * 0.2)
    assert told[1] > told[0]


def test_nothing_to_fit_is_refused() -> None:
    """No answers."""
    for nothing in ([], [[]]):
        with pytest.raises(ValueError, match="no answers"):
            bkt.fit(nothing)
