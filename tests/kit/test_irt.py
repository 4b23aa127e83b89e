"""Item response models against known parameters, a numerical Hessian, and brute-force integration."""

import numpy as np
import pytest

from neuroedge.kit import irt
from neuroedge.kit.irt import Numbers, Responses


def _simulated(students: int, items: int, *, seed: int, two: bool) -> tuple[Responses, Numbers, Numbers, Numbers]:
    """Responses with the true abilities, difficulties and discriminations."""
    rng = np.random.default_rng(seed)
    ability = rng.standard_normal(students)
    difficulty = np.linspace(-2, 2, items)
    slope = np.exp(0.3 * rng.standard_normal(items)) if two else np.ones(items)
    p = irt.sigmoid(slope * (ability[:, None] - difficulty))
    student, item = (index.ravel() for index in np.indices(p.shape))
    correct = (rng.random(p.size) < p.ravel()).astype(float)
    answers = Responses(student=student, item=item, correct=correct, students=students, items=items)
    return answers, ability, difficulty, slope


def test_rasch_recovers_difficulties_within_their_standard_errors() -> None:
    """Over 12 simulations, about 95 % of true difficulties lie within 1.96 standard errors."""
    inside, total = 0, 0
    for seed in range(12):
        answers, _, difficulty, _ = _simulated(400, 15, seed=seed, two=False)
        found = irt.fit(answers, model="rasch")
        assert found.converged
        inside += int((np.abs(found.difficulty - difficulty) < 1.96 * found.difficulty_se).sum())
        total += len(difficulty)
    assert 0.90 <= inside / total <= 0.99


def test_two_parameters_recover_difficulty_and_discrimination() -> None:
    """High correlation, no bias, and standard errors that cover."""
    answers, _, difficulty, slope = _simulated(1500, 20, seed=1, two=True)
    found = irt.fit(answers, model="2pl")
    assert np.corrcoef(found.difficulty, difficulty)[0, 1] > 0.99
    assert np.corrcoef(found.discrimination, slope)[0, 1] > 0.9
    assert abs(float((found.discrimination - slope).mean())) < 0.1
    covered = np.abs(found.discrimination - slope) < 1.96 * found.discrimination_se
    assert covered.mean() >= 0.8


def test_standard_errors_are_the_inverse_of_the_numerical_information() -> None:
    """Louis' identity against second differences of the penalised marginal log-likelihood."""
    answers, *_ = _simulated(300, 5, seed=3, two=False)
    found = irt.fit(answers, model="rasch")
    right, wrong = irt._tables(answers)
    nodes = found.ability_sd * np.linspace(-6, 6, irt.NODES)
    prior = irt._normal_weights(nodes / found.ability_sd)

    def value(intercept: Numbers) -> float:
        likelihood = irt._posterior(right, wrong, np.ones(5), intercept, nodes, prior)[1]
        return likelihood - 0.5 * float((intercept**2).sum()) / irt._DIFFICULTY_SD**2

    at, h = -found.difficulty, 1e-3
    hessian = np.empty((5, 5))
    for i in range(5):
        for j in range(5):
            step_i, step_j = h * np.eye(5)[i], h * np.eye(5)[j]
            hessian[i, j] = (
                value(at + step_i + step_j)
                - value(at + step_i - step_j)
                - value(at - step_i + step_j)
                + value(at - step_i - step_j)
            ) / (4 * h * h)
    expected = np.sqrt(np.diag(np.linalg.inv(-hessian)))
    assert found.difficulty_se == pytest.approx(expected, rel=0.01)


def test_the_sparse_standard_errors_are_close_to_the_full_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """What large tables get differs by what items share only."""
    answers, *_ = _simulated(500, 12, seed=4, two=True)
    full = irt.fit(answers, model="2pl")
    monkeypatch.setattr(irt, "_FULL_INFORMATION", 0.0)
    each = irt.fit(answers, model="2pl")
    assert each.difficulty_se == pytest.approx(full.difficulty_se, rel=0.35)
    assert (each.difficulty_se <= full.difficulty_se * 1.01).all()


@pytest.mark.parametrize(("model", "items"), [("rasch", 1501), ("2pl", 751)])
def test_thousands_of_items_of_few_students_build_no_full_matrix(
    monkeypatch: pytest.MonkeyPatch, model: irt.Model, items: int
) -> None:
    """However few the students are, inverting it would cost the cube of the items."""

    def _full(*_: object, **__: object) -> Numbers:
        raise AssertionError("the full matrix was built")

    monkeypatch.setattr(irt, "_missing", _full)
    answers, *_ = _simulated(5, items, seed=8, two=False)
    found = irt.fit(answers, model=model)
    assert np.isfinite(found.difficulty_se).all()


def test_ability_is_the_posterior_mean() -> None:
    """Against integration on a fine grid."""
    answers = Responses.of(["a"] * 3, ["x", "y", "z"], [True, True, False])
    items = irt.Items(
        model="2pl",
        difficulty=np.array([-1.0, 0.0, 1.0]),
        discrimination=np.array([1.0, 1.5, 0.7]),
        difficulty_se=np.full(3, np.nan),
        discrimination_se=np.full(3, np.nan),
        ability_sd=1.0,
        log_likelihood=0.0,
        steps=0,
        converged=True,
    )
    found = irt.abilities(answers, items)
    theta = np.linspace(-8, 8, 20_001)
    p = irt.sigmoid(items.discrimination[:, None] * (theta - items.difficulty[:, None]))
    weight = np.exp(-0.5 * theta**2) * p[0] * p[1] * (1 - p[2])
    mean = (weight * theta).sum() / weight.sum()
    assert found.mean[0] == pytest.approx(mean, abs=1e-4)
    assert found.sd[0] == pytest.approx(np.sqrt((weight * theta**2).sum() / weight.sum() - mean**2), abs=1e-4)
    told = irt.predicted(found, items, np.array([0]), np.array([2]))
    assert told[0] == pytest.approx((weight * p[2]).sum() / weight.sum(), abs=1e-4)


def test_an_item_everybody_solves_has_a_finite_difficulty() -> None:
    """The prior holds it, and its standard error says how little is known."""
    answers, *_ = _simulated(100, 6, seed=5, two=False)
    easy = answers.item == 0
    always = Responses(
        student=answers.student,
        item=answers.item,
        correct=np.where(easy, 1.0, answers.correct),
        students=answers.students,
        items=answers.items,
    )
    found = irt.fit(always, model="2pl")
    assert np.isfinite(found.difficulty).all()
    assert found.difficulty[0] == found.difficulty.min()
    assert found.difficulty_se[0] > 2 * np.median(found.difficulty_se[1:])


def test_marginal_likelihood_is_calibrated_on_answers_held_out() -> None:
    """Log loss near the truth's own, where estimating persons and items jointly runs away."""
    answers, ability, difficulty, slope = _simulated(400, 20, seed=6, two=True)
    held = np.random.default_rng(0).random(len(answers.correct)) < 0.2
    kept = answers.only(~held)
    found = irt.fit(kept, model="2pl")
    p = irt.predicted(irt.abilities(kept, found), found, answers.student[held], answers.item[held])
    truth = irt.sigmoid(slope[answers.item[held]] * (ability[answers.student[held]] - difficulty[answers.item[held]]))
    assert irt.log_loss(answers.correct[held], p) < irt.log_loss(answers.correct[held], truth) + 0.04


def test_repeated_and_missing_answers_are_fine() -> None:
    """A student may answer an item twice, and few items only."""
    rng = np.random.default_rng(0)
    student, item = rng.integers(0, 60, 900), rng.integers(0, 10, 900)
    correct = (rng.random(900) < 0.6).astype(float)
    found = irt.fit(Responses(student=student, item=item, correct=correct, students=60, items=10))
    assert found.converged
    assert np.isfinite(found.difficulty_se).all()
