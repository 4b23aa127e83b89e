"""The beta-binomial of modalities: its level, its posterior by hand, its prior, its permutation test."""

import numpy as np
import pytest

from neuroedge.kit import modality_effects
from neuroedge.kit.modality_effects import Cell, Outcome


def _outcomes(learner: str, right: dict[str, tuple[int, int]], *, hard: float = 0.0) -> list[Outcome]:
    """(right, n) by modality."""
    return [
        Outcome(learner=learner, modality=name, difficulty_logit=hard, correct=i < k)
        for name, (k, n) in right.items()
        for i in range(n)
    ]


def test_level_makes_expected_and_seen_agree() -> None:
    """For items of one difficulty it is the logit of the share; for several, the sum fits."""
    assert modality_effects.level(np.zeros(10), 7.0) == pytest.approx(np.log(7 / 3))
    hard = np.array([-2.0, 0.0, 1.0, 3.0])
    found = modality_effects.level(hard, 2.5)
    assert (1 / (1 + np.exp(hard - found))).sum() == pytest.approx(2.5)


def test_difficulty_explains_what_it_explains() -> None:
    """A modality that only had the harder items has no effect."""
    easy = _outcomes("a", {"video": (73, 100)}, hard=-0.5)
    hard = _outcomes("a", {"text": (50, 100)}, hard=0.5)
    cells = {c.modality: c for c in modality_effects.cells([*easy, *hard])["a"]}
    effects = {e.cell.modality: e for e in modality_effects.effects(list(cells.values()), kappa=20)}
    assert abs(effects["video"].logit) < 0.1
    assert effects["text"].low < 0 < effects["text"].high


def test_the_posterior_by_hand() -> None:
    """Beta(κμ + k, κ(1 - μ) + n - k) by sampling."""
    cell = Cell(modality="m", n=40, right=30, expected=0.6)
    effect = modality_effects.effects([cell], kappa=20)[0]
    draws = np.random.default_rng(0).beta(42, 18, 400_000)
    logits = np.log(draws / (1 - draws)) - np.log(0.6 / 0.4)
    assert effect.logit == pytest.approx(logits.mean(), abs=0.005)
    assert (effect.low, effect.high) == pytest.approx(tuple(np.quantile(logits, [0.025, 0.975])), abs=0.01)


def test_all_right_or_all_wrong_says_nothing() -> None:
    """No cells, no p."""
    own = _outcomes("a", {"x": (10, 10), "y": (10, 10)})
    assert modality_effects.cells(own) == {}
    assert modality_effects.permutation_p(own) == 1.0


def test_the_prior_is_strong_where_modalities_never_mattered_and_weak_where_they_did() -> None:
    """κ over sixty learners; with few learners it is not fitted."""
    rng = np.random.default_rng(0)
    null, real = [], []
    for i in range(60):
        p = rng.uniform(0.3, 0.7)
        shift = rng.choice([-0.2, 0.2])
        null += _outcomes(f"l{i}", {m: (int(rng.binomial(40, p)), 40) for m in "ab"})
        real += _outcomes(f"l{i}", {m: (int(rng.binomial(40, p + s)), 40) for m, s in (("a", shift), ("b", -shift))})
    strong, fitted = modality_effects.concentration(modality_effects.cells(null))
    weak, _ = modality_effects.concentration(modality_effects.cells(real))
    assert fitted
    assert strong > 200
    assert weak < 20
    few = modality_effects.cells(null[:240])
    assert modality_effects.concentration(few) == (modality_effects.WEAK, False)


def test_shuffled_labels_give_uniform_p() -> None:
    """At most about 5 % below 0.05; a planted difference is far below."""
    rng = np.random.default_rng(1)
    below = 0
    for seed in range(200):
        own = [
            Outcome(learner="", modality="ab"[i % 2], difficulty_logit=float(d), correct=bool(rng.random() < 0.6))
            for i, d in enumerate(rng.standard_normal(60))
        ]
        below += modality_effects.permutation_p(own, draws=200, seed=seed) <= 0.05
    assert below <= 20
    assert modality_effects.permutation_p(_outcomes("", {"a": (45, 50), "b": (15, 50)})) < 0.01


def test_item_difficulties_need_enough_answers() -> None:
    """Rare items are left out; the overall difficulty stands under ''."""
    found = modality_effects.item_difficulties(["x"] * 8 + ["y"], [True] * 4 + [False] * 5, at_least=5)
    assert set(found) == {"x", ""}
    assert found["x"] == pytest.approx(-np.log((4 + 8 / 9) / (10 - 4 - 8 / 9)))
    assert modality_effects.item_difficulties([], [], at_least=5) == {"": 0.0}
