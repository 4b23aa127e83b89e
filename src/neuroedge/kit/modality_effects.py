"""Does a learner do better with one form of presentation than with another, beyond what difficulty and chance explain?

Hierarchical beta-binomial: of a learner's n answers with a modality, the right ones are beta-binomial around the share
expected from the learner's level and the items' difficulties, with κ answers' worth of weight on that expectation. κ is
fitted over all learners by marginal likelihood (empirical Bayes) where there are enough, and is WEAK otherwise: the
less modalities have mattered to others, the more evidence one learner must bring. The level is the one at which
expected and seen right answers agree in sum, so that effects are differences between the learner's own modalities.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from neuroedge.kit.irt import sigmoid

Numbers = NDArray[np.float64]

WEAK: Final = 20.0
"""κ where it cannot be fitted: at even chances, one standard deviation of an effect is 0.45 logits."""
LARGEST: Final = 2000.0
MIN_LEARNERS: Final = 20
"""With at least two modalities each; fewer cannot tell how much modalities matter to learners in general."""
_GRID: Final = 40
_CELLS: Final = 1_000_000
"""Numbers of a batch of shuffles in memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """An answer: with which modality, how hard the item is for an average learner (logits), right or not."""

    learner: str
    modality: str
    difficulty_logit: float
    correct: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A learner's answers with one modality."""

    modality: str
    n: int
    right: int
    expected: float
    """Share of right answers that level and difficulty lead to expect."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """How much better (positive) a modality went than expected, logits, with an interval."""

    cell: Cell
    logit: float
    low: float
    high: float


def cells(outcomes: Sequence[Outcome]) -> dict[str, list[Cell]]:
    """Of each learner, the modalities by name. Learners with all answers right, or all wrong, have none."""
    by_learner: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        by_learner.setdefault(outcome.learner, []).append(outcome)
    told = {}
    for learner, own in sorted(by_learner.items()):
        right = np.array([o.correct for o in own], float)
        if 0 < right.sum() < len(right):
            told[learner] = _cells(own, right)
    return told


def _cells(own: Sequence[Outcome], right: Numbers) -> list[Cell]:
    hard = np.array([o.difficulty_logit for o in own])
    expected = sigmoid(level(hard, float(right.sum())) - hard)
    modality = np.array([o.modality for o in own])
    return [
        Cell(
            modality=str(name),
            n=int((chosen := modality == name).sum()),
            right=int(right[chosen].sum()),
            expected=float(np.clip(expected[chosen].mean(), 1e-3, 1 - 1e-3)),
        )
        for name in np.unique(modality)
    ]


def level(difficulty_logit: Numbers, right: float) -> float:
    """Ability at which as many answers are expected right as were, by bisection; 0 < right < n."""
    low, high = float(difficulty_logit.min()) - 30, float(difficulty_logit.max()) + 30
    for _ in range(60):
        middle = (low + high) / 2
        if sigmoid(middle - difficulty_logit).sum() < right:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def item_difficulties(items: Sequence[str], correct: Sequence[bool], *, at_least: int) -> dict[str, float]:
    """Logits of items with so many answers, from shares drawn to the overall share by two answers' weight; the
    overall difficulty stands under the name ''."""
    n: dict[str, int] = {}
    right: dict[str, int] = {}
    for item, good in zip(items, correct, strict=True):
        n[item] = n.get(item, 0) + 1
        right[item] = right.get(item, 0) + int(good)
    overall = min(max(sum(correct) / len(correct), 0.01), 0.99) if correct else 0.5
    share = {item: (right[item] + 2 * overall) / (n[item] + 2) for item in n if n[item] >= at_least}
    return {item: -_logit(p) for item, p in {**share, "": overall}.items()}


def concentration(found: Mapping[str, Sequence[Cell]]) -> tuple[float, bool]:
    """κ, and whether it was fitted."""
    usable = [cell for own in found.values() if len(own) > 1 for cell in own]
    if sum(len(own) > 1 for own in found.values()) < MIN_LEARNERS:
        return WEAK, False
    from scipy.special import betaln

    n = np.array([c.n for c in usable], float)
    k = np.array([c.right for c in usable], float)
    mean = np.array([c.expected for c in usable])
    grid = np.geomspace(2.0, LARGEST, _GRID)
    likelihood = [
        (betaln(kappa * mean + k, kappa * (1 - mean) + n - k) - betaln(kappa * mean, kappa * (1 - mean))).sum()
        for kappa in grid
    ]
    return float(grid[int(np.argmax(likelihood))]), True


def effects(own: Sequence[Cell], *, kappa: float, level: float = 0.95) -> list[Effect]:
    """Posterior effects of one learner's modalities, with intervals of this probability each."""
    from scipy.special import digamma
    from scipy.stats import beta

    tail = (1 - level) / 2
    told = []
    for cell in own:
        a = kappa * cell.expected + cell.right
        b = kappa * (1 - cell.expected) + cell.n - cell.right
        usual = float(np.log(cell.expected / (1 - cell.expected)))
        low, high = (float(beta.ppf(share, a, b)) for share in (tail, 1 - tail))
        told.append(
            Effect(
                cell=cell,
                logit=float(digamma(a) - digamma(b)) - usual,
                low=_logit(low) - usual,
                high=_logit(high) - usual,
            )
        )
    return told


def _logit(p: float) -> float:
    p = min(max(p, 1e-9), 1 - 1e-9)
    return float(np.log(p / (1 - p)))


def permutation_p(own: Sequence[Outcome], *, draws: int = 1000, seed: int = 0) -> float:
    """Chance of modalities differing at least this much if their labels meant nothing: labels shuffled among one
    learner's answers. The statistic is the sum over modalities of (right - expected)² / variance."""
    right = np.array([o.correct for o in own], float)
    if not 0 < right.sum() < len(right):
        return 1.0
    hard = np.array([o.difficulty_logit for o in own])
    expected = sigmoid(level(hard, float(right.sum())) - hard)
    rest, weight = right - expected, expected * (1 - expected)
    _, label = np.unique([o.modality for o in own], return_inverse=True)
    rng = np.random.default_rng(seed)
    seen = _spread(rest[None], weight[None], label)[0]
    beyond, at_once = 0, max(1, _CELLS // len(own))
    for start in range(0, draws, at_once):
        order = rng.permuted(np.tile(np.arange(len(own)), (min(at_once, draws - start), 1)), axis=1)
        beyond += int((_spread(rest[order], weight[order], label) >= seen - 1e-12).sum())
    return (beyond + 1) / (draws + 1)


def _spread(rest: Numbers, weight: Numbers, label: NDArray[np.intp]) -> Numbers:
    """Of each row: answers in some order, labels as they are."""
    member = (label[:, None] == np.arange(label.max() + 1)).astype(float)
    return np.asarray(((rest @ member) ** 2 / np.maximum(weight @ member, 1e-9)).sum(axis=1), float)
