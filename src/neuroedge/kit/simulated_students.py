"""Students who answer by a known model, so that what is estimated from answers can be compared with the truth.

Item response: p = 1 / (1 + exp(-a (θ - b))), a = 1 in the Rasch model (G. Rasch 1960; A. Birnbaum 1968). Knowledge
tracing: known at first, learnt at each practice, guess and slip (A. T. Corbett & J. R. Anderson 1995).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuroedge.kit import bkt, irt

Numbers = NDArray[np.float64]
Booleans = NDArray[np.bool_]
Told = dict[tuple[str, str], float]
"""Measures by name and by what they are of: an item, an opportunity, or "" for the whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemRecovery:
    """How well difficulties were found again from the answers; logits."""

    correlation: float
    rmse: float
    covered: float
    """Share of the true difficulties within 1.96 standard errors."""
    slope_correlation: float | None
    items: int


def abilities(students: int, *, mean: float, sd: float, rng: np.random.Generator) -> Numbers:
    """Normally distributed abilities, logits."""
    return rng.normal(mean, sd, students)


def answers(ability: Numbers, difficulty: Numbers, slope: Numbers, *, rng: np.random.Generator) -> Booleans:
    """[students, items]: whether each answer is right."""
    chance = irt.sigmoid(slope * (ability[:, None] - difficulty))
    return np.asarray(rng.random(chance.shape) < chance)


def recovered(solved: Booleans, difficulty: Numbers, slope: Numbers, *, shift: float) -> ItemRecovery | None:
    """Fit the items again by marginal maximum likelihood (kit/irt.py) and compare; None under three usable items.

    Items solved by all or none tell no difficulty and are left out. `shift`: mean ability, the fitted scale's zero.
    """
    usable = np.flatnonzero(solved.any(axis=0) & ~solved.all(axis=0))
    if len(usable) < 3:
        return None
    two = bool(np.ptp(slope) > 0)
    students, kept = len(solved), solved[:, usable]
    who, what = (index.ravel() for index in np.indices(kept.shape))
    table = irt.Responses(
        student=who, item=what, correct=kept.ravel().astype(float), students=students, items=len(usable)
    )
    found = irt.fit(table, model="2pl" if two else "rasch")
    true = difficulty[usable] - shift
    error = found.difficulty - true
    return ItemRecovery(
        correlation=_correlation(found.difficulty, true),
        rmse=float(np.sqrt(np.mean(error**2))),
        covered=float(np.mean(np.abs(error) <= 1.96 * found.difficulty_se)),
        slope_correlation=_correlation(found.discrimination, slope[usable]) if two else None,
        items=len(usable),
    )


def practice(
    students: int, opportunities: int, skill: bkt.Skill, *, rng: np.random.Generator
) -> tuple[Booleans, Booleans]:
    """[students, opportunities]: whether each answer is right, and whether the skill was mastered when it was given."""
    known = np.empty((students, opportunities), bool)
    known[:, 0] = rng.random(students) < skill.known_at_first
    for t in range(1, opportunities):
        known[:, t] = known[:, t - 1] | (rng.random(students) < skill.learn)
    right = rng.random(known.shape) < np.where(known, 1 - skill.slip, skill.guess)
    return right, known


def played_exam(
    students: int, *, mean: float, sd: float, difficulty: Numbers, slope: Numbers, seed: int
) -> tuple[Told, Booleans]:
    """A test taken once: its scores, how well its difficulties are found again, and who was right."""
    rng = np.random.default_rng(seed)
    right = answers(abilities(students, mean=mean, sd=sd, rng=rng), difficulty, slope, rng=rng)
    scores, items = right.sum(axis=1), len(difficulty)
    told = {("score_items", ""): float(scores.mean()), ("score_sd_items", ""): float(scores.std(ddof=1))}
    if items > 1 and scores.var(ddof=1) > 0:
        noise = right.var(axis=0, ddof=1).sum() / scores.var(ddof=1)
        told["cronbach_alpha", ""] = float(items / (items - 1) * (1 - noise))
    found = recovered(right, difficulty, slope, shift=mean)
    if found is not None:
        told["difficulty_correlation", ""] = found.correlation
        told["difficulty_rmse_logit", ""] = found.rmse
        told["difficulty_covered_by_ci95", ""] = found.covered
        if found.slope_correlation is not None:
            told["discrimination_correlation", ""] = found.slope_correlation
    told |= {("p_correct", str(i)): float(p) for i, p in enumerate(right.mean(axis=0))}
    return told, right


def played_practice(students: int, opportunities: int, skill: bkt.Skill, *, seed: int) -> tuple[Told, Booleans]:
    """A skill practised: its parameters estimated again, shares of right answers and of mastery, and who was right."""
    right, known = practice(students, opportunities, skill, rng=np.random.default_rng(seed))
    found = bkt.fit(right.tolist()).skill
    told = {
        ("estimated_known_at_first", ""): found.known_at_first,
        ("estimated_learn", ""): found.learn,
        ("estimated_guess", ""): found.guess,
        ("estimated_slip", ""): found.slip,
    }
    told |= {("p_correct", str(t)): float(p) for t, p in enumerate(right.mean(axis=0))}
    told |= {("p_mastered", str(t)): float(p) for t, p in enumerate(known.mean(axis=0))}
    return told, right


def _correlation(a: Numbers, b: Numbers) -> float:
    """Pearson's; NaN where either does not vary."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])
