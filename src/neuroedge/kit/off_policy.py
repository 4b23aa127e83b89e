"""What another policy would have earned, from choices whose probabilities were logged, with 95 % intervals.

One choice at a time: inverse propensity scoring (D. Horvitz & D. Thompson 1952), its self-normalised form (A.
Swaminathan & T. Joachims 2015) and doubly robust estimation (M. Dudík, J. Langford & L. Li 2011, ICML). Episodes:
weighted importance sampling (D. Precup, R. Sutton & S. Singh 2000, ICML) and the doubly robust form for sequences (N.
Jiang & L. Li 2016, ICML). Intervals: normal approximation (t) for means, linearised for ratios, and percentile
bootstrap over episodes for weighted importance sampling. They hold for many observations with moderate weights:
`effective_n` (Kish 1965) says how many that is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from neuroedge.kit.intervals import linearised, t_interval
from neuroedge.kit.refusal import Refused

Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A value with its 95 % interval; n counts the choices or episodes."""

    estimator: str
    value: float
    low: float
    high: float
    n: int
    effective_n: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyWorth:
    """An estimate, and of which policy: logged, learned (from other choices than it is judged on), or target."""

    policy: Literal["logged", "learned", "target"]
    estimate: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """Rewards of an episode, target and logged probability of each of its choices, and a model's values of them.

    `model_q` is the estimated value of the choice made, `model_v` of the state under the target policy.
    """

    reward: Numbers
    ratio: Numbers
    model_q: Numbers
    model_v: Numbers


def finite(found: list[PolicyWorth]) -> list[PolicyWorth]:
    """The same. Raises Refused where what is weighed by propensities is no number."""
    told = [one.estimate for one in found]
    if not np.isfinite([(e.value, e.low, e.high, e.effective_n) for e in told]).all():
        raise Refused(
            "propensities are too small to weigh by, or episodes too long",
            hint="log the true ones; a thousandth is small",
        )
    return found


def effective(weight: Numbers) -> float:
    """How many equal weights would be as informative."""
    top = float(weight.max())
    if not top > 0:
        return 0.0
    share = weight / top  # squares of the greatest and the smallest numbers would be none
    return float(share.sum()) ** 2 / float((share**2).sum())


def mean(values: Numbers, *, estimator: str, weight: Numbers) -> Estimate:
    """The mean with a t interval."""
    low, high = t_interval(values)
    return Estimate(
        estimator=estimator,
        value=float(values.mean()),
        low=low,
        high=high,
        n=len(values),
        effective_n=effective(weight),
    )


def ips(reward: Numbers, weight: Numbers) -> Estimate:
    """Unbiased where the logging policy could choose all that the target policy chooses."""
    return mean(weight * reward, estimator="ips", weight=weight)


def snips(reward: Numbers, weight: Numbers) -> Estimate:
    """Slightly biased, far less variable; within the range of rewards. NaN without any weight."""
    if weight.max() <= 0:
        return Estimate(estimator="snips", value=np.nan, low=np.nan, high=np.nan, n=len(weight), effective_n=0.0)
    weight = weight / weight.max()  # only their ratios count; sums of the smallest numbers would be none
    return mean(linearised(reward, weight), estimator="snips", weight=weight)


def doubly_robust(reward: Numbers, weight: Numbers, *, model_q: Numbers, model_v: Numbers) -> Estimate:
    """Right if either the propensities or the model of rewards is; the model must not have seen these choices."""
    return mean(model_v + weight * (reward - model_q), estimator="dr", weight=weight)


def weighted_importance(episodes: Sequence[Episode], *, discount: float, seed: int, draws: int = 1000) -> Estimate:
    """Returns weighted by the whole episode's ratio, over the weights' sum. NaN without any weight."""
    returns = np.array([_return(e.reward, discount) for e in episodes])
    weight = _weights(episodes)
    if not weight.max() > 0:
        return Estimate(estimator="wis", value=np.nan, low=np.nan, high=np.nan, n=len(weight), effective_n=0.0)
    rng = np.random.default_rng(seed)
    count = rng.multinomial(len(weight), np.full(len(weight), 1 / len(weight)), size=draws)
    total = count @ weight
    again = (count @ (weight * returns))[total > 0] / total[total > 0]
    low, high = np.percentile(again, [2.5, 97.5])
    return Estimate(
        estimator="wis",
        value=float((weight * returns).sum() / weight.sum()),
        low=float(low),
        high=float(high),
        n=len(weight),
        effective_n=effective(weight),
    )


def doubly_robust_episodes(episodes: Sequence[Episode], *, discount: float) -> Estimate:
    """Per-step corrections of a model of values, which must not have seen these episodes."""
    values = []
    for e in episodes:
        value = 0.0
        for reward, ratio, q, v in zip(e.reward[::-1], e.ratio[::-1], e.model_q[::-1], e.model_v[::-1], strict=True):
            value = v + ratio * (reward + discount * value - q)
        values.append(value)
    weight = _weights(episodes)
    return mean(np.array(values), estimator="dr", weight=weight)


def _weights(episodes: Sequence[Episode]) -> Numbers:
    """Each episode's ratio, the greatest of all as 1: only how they relate to each other counts."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.array([float(np.log(e.ratio).sum()) for e in episodes])
        return np.exp(logs - logs.max()) if logs.max() > -np.inf else np.zeros(len(logs))


def _return(reward: Numbers, discount: float) -> float:
    return float((reward * discount ** np.arange(len(reward))).sum())
