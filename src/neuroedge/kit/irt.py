"""Item response models: how hard items are, how able students are, and how sure that is.

Rasch (p = σ(θ - b)) and two-parameter logistic (p = σ(a(θ - b))) models by marginal maximum likelihood (R. D. Bock &
M. Aitkin 1981, "Marginal maximum likelihood estimation of item parameters", Psychometrika 46): abilities are integrated
out over a normal distribution by quadrature, EM over the items. Estimating abilities and items jointly instead lets
discriminations run away: it ranks well and is badly calibrated. Items have weak priors, b ~ N(0, 3²) and, in the 2PL,
log a ~ N(0, 0.5²) (R. J. Mislevy 1986, Psychometrika 51), so that an item everybody solves has a finite
difficulty.
Standard errors come from the observed information (T. A. Louis 1982, JRSS B 44). Abilities are expected a posteriori
(EAP; Bock & Mislevy 1982). Students may answer any subset of the items, also repeatedly.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Indices = NDArray[np.intp]
Model = Literal["rasch", "2pl"]

NODES: Final = 41
_REACH: Final = 6.0
"""Quadrature reaches so many standard deviations."""
_DIFFICULTY_SD: Final = 3.0
_LOG_DISCRIMINATION_SD: Final = 0.5
_SPREAD_WEIGHT: Final = 10.0
"""Weight of a spread of 1 logit, in students: a dozen students cannot tell theirs."""
_STEPS: Final = 200
_TOLERANCE: Final = 1e-4
_FULL_INFORMATION: Final = 2e10
"""Multiplications that collecting the full information matrix may cost; beyond it, each item is taken for itself."""
_FULL_PARAMETERS: Final = 1500
"""Rows the full matrix may have; inverting one of 1,500 takes a second or two, one of 3,000 eight times that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Responses:
    """Who answered what: index of student and item, and 1.0 where it was right; equally long."""

    student: Indices
    item: Indices
    correct: Numbers
    students: int
    items: int

    @classmethod
    def of(cls, students: Sequence[str], items: Sequence[str], correct: Sequence[bool]) -> "Responses":
        """From names, which are numbered in their alphabetical order."""
        names, student = np.unique(np.asarray(students), return_inverse=True)
        labels, item = np.unique(np.asarray(items), return_inverse=True)
        return cls(
            student=student, item=item, correct=np.asarray(correct, float), students=len(names), items=len(labels)
        )

    def only(self, chosen: NDArray[np.bool_]) -> "Responses":
        """Some of the responses, numbered as before."""
        return Responses(
            student=self.student[chosen],
            item=self.item[chosen],
            correct=self.correct[chosen],
            students=self.students,
            items=self.items,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Items:
    """Item parameters in logits; standard errors are NaN where they are not known."""

    model: Model
    difficulty: Numbers
    discrimination: Numbers
    difficulty_se: Numbers
    discrimination_se: Numbers
    ability_sd: float
    """Of the students' normal distribution: estimated in the Rasch model, 1 in the 2PL."""
    log_likelihood: float
    """Marginal, natural logarithm."""
    steps: int
    converged: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Abilities:
    """Expected a posteriori abilities of students in logits, with the posterior's standard deviation."""

    mean: Numbers
    sd: Numbers
    posterior: Numbers
    """[students, nodes]."""
    nodes: Numbers


def fit(answers: Responses, *, model: Model = "rasch") -> Items:
    """Estimate the items by EM. Costs about `steps` × responses × nodes."""
    right, wrong = _tables(answers)
    standard = np.linspace(-_REACH, _REACH, NODES)
    prior = _normal_weights(standard)
    slope, intercept = np.ones(answers.items), _first_intercepts(answers)
    spread, steps, converged = 1.0, 0, False
    while not converged and steps < _STEPS:
        posterior, _ = _posterior(right, wrong, slope, intercept, spread * standard, prior)
        moved = intercept.copy(), slope.copy(), spread
        slope, intercept = _maximise(right, wrong, posterior, slope, intercept, spread * standard, model=model)
        if model == "rasch":
            squares = float((posterior.sum(axis=0) * (spread * standard) ** 2).sum())
            spread = float(np.sqrt((squares + _SPREAD_WEIGHT) / (answers.students + _SPREAD_WEIGHT)))
        change = max(
            float(np.abs(intercept - moved[0]).max()), float(np.abs(slope - moved[1]).max()), abs(spread - moved[2])
        )
        steps, converged = steps + 1, change < _TOLERANCE
    posterior, likelihood = _posterior(right, wrong, slope, intercept, spread * standard, prior)
    difficulty = -intercept / slope
    difficulty_se, slope_se = _errors(right, wrong, posterior, slope, intercept, spread * standard, model=model)
    return Items(
        model=model,
        difficulty=difficulty,
        discrimination=slope,
        difficulty_se=difficulty_se,
        discrimination_se=slope_se,
        ability_sd=spread,
        log_likelihood=float(likelihood),
        steps=steps,
        converged=converged,
    )


def abilities(answers: Responses, items: Items) -> Abilities:
    """Abilities of the students of `answers`, whose items are numbered as those of `items`."""
    nodes = items.ability_sd * np.linspace(-_REACH, _REACH, NODES)
    right, wrong = _tables(answers)
    intercept = -items.discrimination * items.difficulty
    prior = _normal_weights(nodes / items.ability_sd)
    posterior, _ = _posterior(right, wrong, items.discrimination, intercept, nodes, prior)
    mean = posterior @ nodes
    variance = np.maximum(posterior @ nodes**2 - mean**2, 0.0)
    return Abilities(mean=mean, sd=np.sqrt(variance), posterior=posterior, nodes=nodes)


def predicted(found: Abilities, items: Items, student: Indices, item: Indices) -> Numbers:
    """Probability of a right answer for each pair: averaged over what is not known of the ability."""
    p = np.empty(len(student))
    for start in range(0, len(student), 50_000):
        part = slice(start, start + 50_000)
        chosen = item[part]
        logits = items.discrimination[chosen][:, None] * (found.nodes - items.difficulty[chosen][:, None])
        p[part] = (found.posterior[student[part]] * sigmoid(logits)).sum(axis=1)
    return np.clip(p, 1e-6, 1 - 1e-6)


def sigmoid(x: Numbers) -> Numbers:
    """1 / (1 + exp(-x)), without overflow."""
    from scipy.special import expit

    return np.asarray(expit(x), float)


def log_loss(correct: Numbers, p: Numbers) -> float:
    """Mean negative log-likelihood, nats."""
    p = np.clip(p, 1e-6, 1 - 1e-6)
    return float(-(correct * np.log(p) + (1 - correct) * np.log(1 - p)).mean())


def _tables(answers: Responses) -> tuple[Any, Any]:
    """Right and wrong answers as sparse counts [students, items]."""
    from scipy.sparse import csr_matrix

    shape = (answers.students, answers.items)
    right = csr_matrix((answers.correct, (answers.student, answers.item)), shape=shape)
    wrong = csr_matrix((1.0 - answers.correct, (answers.student, answers.item)), shape=shape)
    return right, wrong


def _normal_weights(standard: Numbers) -> Numbers:
    weights = np.exp(-0.5 * standard**2)
    return np.asarray(weights / weights.sum(), float)


def _first_intercepts(answers: Responses) -> Numbers:
    n = np.bincount(answers.item, minlength=answers.items)
    solved = np.bincount(answers.item, weights=answers.correct, minlength=answers.items)
    share = (solved + 0.5) / (n + 1)
    return np.asarray(np.log(share / (1 - share)), float)


def _logits(slope: Numbers, intercept: Numbers, nodes: Numbers) -> Numbers:
    return np.asarray(slope[:, None] * nodes + intercept[:, None], float)


def _posterior(
    right: Any, wrong: Any, slope: Numbers, intercept: Numbers, nodes: Numbers, prior: Numbers
) -> tuple[Numbers, float]:
    """Of each student over the nodes, and the marginal log-likelihood."""
    logits = _logits(slope, intercept, nodes)
    joint = np.log(prior) + right @ -np.logaddexp(0, -logits) + wrong @ -np.logaddexp(0, logits)
    top = joint.max(axis=1, keepdims=True)
    weights = np.exp(joint - top)
    total = weights.sum(axis=1, keepdims=True)
    return weights / total, float((top + np.log(total)).sum())


def _maximise(
    right: Any, wrong: Any, posterior: Numbers, slope: Numbers, intercept: Numbers, nodes: Numbers, *, model: Model
) -> tuple[Numbers, Numbers]:
    """Newton steps on each item's expected log-likelihood with its priors."""
    solved = right.T @ posterior
    tried = solved + wrong.T @ posterior
    for _ in range(3):
        p = sigmoid(_logits(slope, intercept, nodes))
        rest, weight = solved - tried * p, tried * p * (1 - p)
        if model == "rasch":
            gradient = rest.sum(axis=1) - intercept / _DIFFICULTY_SD**2
            intercept = intercept + np.clip(gradient / (weight.sum(axis=1) + 1 / _DIFFICULTY_SD**2), -1, 1)
            continue
        # In (log a, d): the prior is on the logarithm, so that a stays positive.
        theta = slope[:, None] * nodes
        g_a = (rest * theta).sum(axis=1) - np.log(slope) / _LOG_DISCRIMINATION_SD**2
        g_d = rest.sum(axis=1) - intercept / _DIFFICULTY_SD**2
        h_aa = (weight * theta**2).sum(axis=1) + 1 / _LOG_DISCRIMINATION_SD**2
        h_ad = (weight * theta).sum(axis=1)
        h_dd = weight.sum(axis=1) + 1 / _DIFFICULTY_SD**2
        determinant = h_aa * h_dd - h_ad**2
        slope = slope * np.exp(np.clip((h_dd * g_a - h_ad * g_d) / determinant, -0.5, 0.5))
        intercept = intercept + np.clip((h_aa * g_d - h_ad * g_a) / determinant, -1, 1)
    return slope, intercept


def _errors(
    right: Any, wrong: Any, posterior: Numbers, slope: Numbers, intercept: Numbers, nodes: Numbers, *, model: Model
) -> tuple[Numbers, Numbers]:
    """Standard errors of difficulty and discrimination, from Louis' observed information in (d) or (a, d): what
    complete data would tell, less what not knowing the abilities costs."""
    p = sigmoid(_logits(slope, intercept, nodes))
    tried = (right + wrong).tocsr()
    weight = (tried.T @ posterior) * p * (1 - p)
    items, two = len(slope), model == "2pl"
    h_dd = weight.sum(axis=1) + 1 / _DIFFICULTY_SD**2
    h_ad = (weight * nodes).sum(axis=1)
    h_aa = (weight * nodes**2).sum(axis=1) + 1 / (_LOG_DISCRIMINATION_SD * slope) ** 2
    parameters = items * (1 + two)
    cost = tried.shape[0] * len(nodes) * parameters**2
    if parameters <= _FULL_PARAMETERS and cost <= _FULL_INFORMATION:
        missing = _missing(right, tried, posterior, p, nodes, two=two)
        complete = np.block([[np.diag(h_aa), np.diag(h_ad)], [np.diag(h_ad), np.diag(h_dd)]]) if two else np.diag(h_dd)
        values, vectors = np.linalg.eigh(complete - missing)
        covariance = (vectors / np.maximum(values, 1e-3)) @ vectors.T
        rows = np.arange(items)
        var_d = np.diag(covariance)[-items:]
        var_a = np.diag(covariance)[:items] if two else np.full(items, np.nan)
        cov = covariance[rows, items + rows] if two else np.zeros(items)
    else:
        m_aa, m_ad, m_dd = _missing_within(right, tried, posterior, p, nodes)
        h_aa, h_ad, h_dd = h_aa - m_aa, h_ad - m_ad, np.maximum(h_dd - m_dd, 1e-3)
        determinant = np.maximum(h_aa * h_dd - h_ad**2, 1e-6)
        var_a, var_d, cov = h_dd / determinant, h_aa / determinant, -h_ad / determinant
        if not two:
            var_a, var_d = np.full(items, np.nan), 1 / h_dd
    if not two:
        return np.sqrt(np.maximum(var_d, 0)), var_a
    # b = -d / a, by the delta method.
    variance = var_d / slope**2 + intercept**2 / slope**4 * var_a - 2 * intercept / slope**3 * cov
    return np.sqrt(np.maximum(variance, 0)), np.sqrt(np.maximum(var_a, 0))


def _missing(right: Any, tried: Any, posterior: Numbers, p: Numbers, nodes: Numbers, *, two: bool) -> Numbers:
    """Sum over students of the posterior covariance of their scores; [parameters, parameters]."""
    parameters = len(p) * (1 + two)
    total = np.zeros((parameters, parameters))
    for start in range(0, tried.shape[0], 64):
        part = slice(start, start + 64)
        n, y, w = tried[part].toarray(), right[part].toarray(), posterior[part]
        score = y[:, None, :] - n[:, None, :] * p.T[None]
        if two:
            score = np.concatenate([score * nodes[None, :, None], score], axis=2)
        mean = np.einsum("sq,sqk->sk", w, score)
        flat = ((score - mean[:, None, :]) * np.sqrt(w)[:, :, None]).reshape(-1, parameters)
        total += flat.T @ flat
    return total


def _missing_within(
    right: Any, tried: Any, posterior: Numbers, p: Numbers, nodes: Numbers
) -> tuple[Numbers, Numbers, Numbers]:
    """The same within each item alone, where the whole matrix would be too large: (a, a), (a, d), (d, d)."""
    answered = tried.tocoo()
    sums = np.zeros((3, len(p)))
    for start in range(0, len(answered.row), 20_000):
        part = slice(start, start + 20_000)
        student, item = answered.row[part], answered.col[part]
        solved = np.asarray(right[student, item]).reshape(-1, 1)
        w, score = posterior[student], solved - answered.data[part][:, None] * p[item]
        products = score * nodes, score
        means = [(w * x).sum(axis=1) for x in products]
        for row, (i, j) in enumerate(((0, 0), (0, 1), (1, 1))):
            value = (w * products[i] * products[j]).sum(axis=1) - means[i] * means[j]
            sums[row] += np.bincount(item, weights=value, minlength=len(p))
    return sums[0], sums[1], sums[2]
