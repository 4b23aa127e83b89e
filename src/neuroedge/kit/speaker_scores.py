"""How much two pieces of speech sound like one person: scores, their calibration, and decisions with known error rates.

1. A piece of speech is the mean of its windows' vectors; a voice is the mean of its samples', weighted by their speech.
2. The score is the cosine of the two after the mean of many speakers is taken from both (centring: vectors of GE2E are
   positive, so that without it all voices lie in one corner; Garcia-Romero & Espy-Wilson 2011).
3. Logistic regression makes a natural log-likelihood ratio of score and seconds of speech (Brümmer & du Preez 2006,
   "Application-independent evaluation of speaker detection"): positive when one person is likelier than two.
4. Decisions compare it with thresholds chosen for a false acceptance and a false rejection rate on other speakers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Numbers = NDArray[np.float64]
Decision = Literal["same", "different", "uncertain"]
MAX_SPEECH_S = 12.0
"""More speech than this makes a score no surer: calibrations are fitted on no longer pieces."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What turns the cosines of one encoder into log-likelihood ratios; fitted on speech that says `source`."""

    model_id: str
    """Catalogue id of the encoder; another one's vectors must not be judged by it."""
    centre: Floats
    """Mean vector of many speakers [dim]."""
    weights: tuple[float, float, float, float]
    """Of 1, the score, ln(seconds) and their product."""
    same_llr: float
    """At or above it: the same person."""
    different_llr: float
    """At or below it: another person."""
    far: float
    """False acceptance rate `same_llr` was chosen for."""
    frr: float
    """False rejection rate `different_llr` was chosen for."""
    source: str


def pooled(vectors: Floats, weights: Floats | None = None) -> Floats:
    """The direction [dim] of the weighted mean of `vectors` [n, dim], n >= 1."""
    mean = np.average(vectors.astype(np.float64), axis=0, weights=weights)
    unit: Floats = (mean / max(float(np.linalg.norm(mean)), 1e-9)).astype(np.float32)
    return unit


def centred(vectors: Floats, centre: Floats) -> Numbers:
    """`vectors` [..., dim] less the mean speaker, L2-normalised."""
    shifted = vectors.astype(np.float64) - centre
    normed: Numbers = shifted / np.maximum(np.linalg.norm(shifted, axis=-1, keepdims=True), 1e-9)
    return normed


def score(one: Floats, other: Floats, centre: Floats) -> float:
    """Cosine (-1..1) of two vectors [dim] after centring."""
    return float(centred(one, centre) @ centred(other, centre))


def features(scores: Numbers, speech_s: Numbers) -> Numbers:
    """What the log-likelihood ratio is linear in [n, 4]; `speech_s`: of the shorter side."""
    length = np.log(np.clip(speech_s, 0.5, MAX_SPEECH_S))
    return np.stack([np.ones_like(scores), scores, length, scores * length], axis=1)


def llr(value: float, speech_s: float, calibration: Calibration) -> float:
    """Natural log-likelihood ratio of a score of speech of so many seconds: one person over two."""
    row = features(np.array([value]), np.array([speech_s]))[0]
    return float(row @ np.array(calibration.weights))


def p_same(ratio: float, *, prior: float = 0.5) -> float:
    """Probability (0..1) that it is one person, when that was as likely as `prior` (0..1, exclusive) before."""
    return _sigmoid(ratio + math.log(prior / (1 - prior)))


def decide(ratio: float, calibration: Calibration) -> Decision:
    """What a log-likelihood ratio says at the calibration's error rates."""
    if ratio >= calibration.same_llr:
        return "same"
    return "different" if ratio <= calibration.different_llr else "uncertain"


def p_each(ratios: Sequence[float], *, prior: float = 0.5) -> list[float]:
    """Probability of each candidate to be the person, who is among them as likely as `prior` (open set).

    Candidates share the prior: the more there are, the surer one must be, and two that are alike weaken each other.
    """
    if not ratios:
        return []
    values = np.array(ratios) + math.log(prior / (1 - prior)) - math.log(len(ratios))
    top = max(0.0, float(values.max()))
    odds = np.exp(values - top)
    return [float(p) for p in odds / (odds.sum() + math.exp(-top))]


def fit(rows: Numbers, same: NDArray[np.bool_], *, ridge: float = 1e-3, steps: int = 100) -> Numbers:
    """Weights [k] of a logistic regression of `same` [n] on `rows` [n, k], both classes weighing the same.

    Its log odds are then log-likelihood ratios. Newton's method; a little ridge keeps separable data finite.
    """
    weight = np.where(same, 0.5 / max(1, int(same.sum())), 0.5 / max(1, int((~same).sum())))
    found = np.zeros(rows.shape[1])
    for _ in range(steps):
        p = 1 / (1 + np.exp(-np.clip(rows @ found, -50, 50)))
        slope = rows.T @ (weight * (same - p)) - ridge * found
        curve = (rows * (weight * p * (1 - p))[:, None]).T @ rows + ridge * np.eye(len(found))
        step = np.linalg.solve(curve, slope)
        found = found + step
        if float(np.abs(step).max()) < 1e-9:
            break
    return found


def equal_error_rate(same: Numbers, different: Numbers) -> tuple[float, float]:
    """The rate (0..1) at which as many different pairs are accepted as same ones rejected, and its threshold.

    Between the two steps around the crossing it is their mean. Raises ValueError without scores of either kind.
    """
    if not len(same) or not len(different):
        raise ValueError("scores of both kinds are needed")
    levels = np.unique(np.concatenate([same, different, [np.inf]]))
    rejected = np.searchsorted(np.sort(same), levels, "left") / len(same)
    accepted = 1 - np.searchsorted(np.sort(different), levels, "left") / len(different)
    at = int(np.argmin(np.abs(rejected - accepted)))
    return float((rejected[at] + accepted[at]) / 2), float(levels[at])


def cllr_bits(same: Numbers, different: Numbers) -> float:
    """Cost of the log-likelihood ratios in bits (Brümmer & du Preez 2006): 0 perfect, 1 no better than no answer."""
    cost = np.logaddexp(0, -same).mean() + np.logaddexp(0, different).mean()
    return float(cost / (2 * math.log(2)))


def threshold_accepting(different: Numbers, rate: float) -> float:
    """The least threshold at which at most `rate` (0..1) of these scores of different people are accepted."""
    ordered = np.sort(different)[::-1]
    allowed = math.floor(rate * len(ordered))
    return float(np.nextafter(ordered[allowed], np.inf)) if allowed < len(ordered) else float(ordered[-1])


def threshold_rejecting(same: Numbers, rate: float) -> float:
    """The highest threshold at or below which at most `rate` (0..1) of these scores of one person lie."""
    ordered = np.sort(same)
    allowed = math.floor(rate * len(ordered))
    return float(np.nextafter(ordered[allowed], -np.inf)) if allowed < len(ordered) else float(ordered[-1])


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value >= 0 else math.exp(value) / (1 + math.exp(value))
