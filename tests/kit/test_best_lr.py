"""Best-LR: its counts by hand, its weights against a logistic regression over the same columns."""

import numpy as np
import pytest

from neuroedge.kit import best_lr
from neuroedge.kit.best_lr import History


def test_counts_are_of_the_past_only() -> None:
    """Right answers and attempts in all, at the skill, at the item, as log(1 + x)."""
    history = History()
    assert history.counts(("s", "i", "k")) == [0.0] * best_lr.COUNTS
    history.add(("s", "i", "k"), correct=True)
    history.add(("s", "j", "k"), correct=False)
    history.add(("t", "i", "k"), correct=True)
    expected = np.log1p([1, 2, 1, 2, 1, 1])
    assert history.counts(("s", "i", "k")) == pytest.approx(expected)


def _practice(seed: int) -> tuple[list[best_lr.Answer], list[bool]]:
    rng = np.random.default_rng(seed)
    answers, correct = [], []
    for s in range(120):
        ability, seen = rng.standard_normal(), [0, 0]
        for _ in range(25):
            skill = int(rng.integers(0, 2))
            item = int(rng.integers(0, 5)) + 5 * skill
            logit = ability - (item - 5) / 3 + 0.15 * seen[skill]
            answers.append((f"s{s}", f"i{item}", f"k{skill}"))
            correct.append(bool(rng.random() < 1 / (1 + np.exp(-logit))))
            seen[skill] += 1
    return answers, correct


def test_it_predicts_new_students_better_than_item_shares() -> None:
    """Fitted on some students, scored on others, answer by answer."""
    fitted = _practice(0)
    model = best_lr.fit(*fitted)
    answers, correct = _practice(1)
    told = np.array(best_lr.followed(model, answers, correct))
    truth = np.array(correct)
    share = {f"i{i}": np.mean([c for a, c in zip(*fitted, strict=True) if a[1] == f"i{i}"]) for i in range(10)}
    base = np.array([share[item] for _, item, _ in answers])

    def loss(p: np.ndarray) -> float:
        return float(-np.log(np.where(truth, p, 1 - p)).mean())

    assert loss(told) < loss(base) - 0.02


def test_hard_items_have_low_weights_and_unknown_ones_none() -> None:
    """The order of the items comes out; what was never seen counts as average."""
    model = best_lr.fit(*_practice(0))
    assert model.item["i0"] > model.item["i4"]
    assert model.item["i5"] > model.item["i9"]
    history = best_lr.history_of(*_practice(0))
    assert 0 < model.p(("new", "unheard", "of"), history) < 1


def test_one_outcome_only_is_refused() -> None:
    """Nothing to tell apart."""
    with pytest.raises(ValueError, match="all answers"):
        best_lr.fit([("s", "i", "k")], [True])
