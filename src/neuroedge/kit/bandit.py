"""Choosing among items by what was earned with them before, with the probability of every choice.

Each item has its own linear model of the reward given the context (disjoint LinUCB: L. Li et al. 2010, "A
contextual-bandit approach to personalized news article recommendation", WWW, algorithm 1), by ridge regression. LinUCB
takes the highest upper confidence bound and, for a known propensity, a random item in a share of the calls; linear
Thompson sampling (S. Agrawal & N. Goyal 2013, "Thompson sampling for contextual bandits with linear payoffs", ICML)
draws each item's value from its posterior, so that an item's propensity is the probability of being the highest.
Rewards lie within 0 and 1: then noise is sub-Gaussian with the parameter one half, which is the scale taken here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Policy = Literal["linucb", "thompson"]

NOISE: Final = 0.5
"""Sub-Gaussian parameter of anything between 0 and 1."""
_STEPS: Final = 41
_REACH: Final = 6.0
_STEP: Final = 0.075
"""Of a grid, in standard deviations of what varies least there."""
_STILL: Final = 1e-9
_SMALLEST: Final = 1e-200
"""Of a scale: what is computed from it stays a normal number."""


@dataclass(slots=True, kw_only=True)
class ItemModel:
    """What is known of an item: X'X + ridge, X'y and how often it was tried."""

    precision: Numbers
    moment: Numbers
    n: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Items with their expected reward, its standard error, the score they are ranked by, and their propensity."""

    items: list[str]
    mean: Numbers
    se: Numbers
    score: Numbers
    propensity: Numbers


@dataclass(slots=True, kw_only=True)
class LinearBandit:
    """The state of a recommender; `features` counts the context's numbers, an intercept is added."""

    features: int
    ridge: float = 1.0
    models: dict[str, ItemModel] = field(default_factory=dict)

    def learn(self, item: str, context: Sequence[float], reward: float) -> None:
        """Add what was earned with an item. Costs features²."""
        x = self._row(context)
        model = self.models.setdefault(item, self._new())
        model.precision += np.outer(x, x)
        model.moment += reward * x
        model.n += 1

    def choice(
        self, items: Sequence[str], context: Sequence[float], *, policy: Policy, exploration: float, uniform: float
    ) -> Choice:
        """What the policy thinks of `items`.

        `exploration`: how many standard errors count (0: none). `uniform`: share of choices that are any item at
        random; the rest is the policy's own.
        """
        x = self._row(context)
        new = self._new()
        known = [self.models.get(item, new) for item in items]
        solved = np.linalg.solve(
            np.stack([m.precision for m in known]),
            np.stack([np.stack([m.moment for m in known]), np.tile(x, (len(known), 1))], axis=-1),
        )
        mean = solved[..., 0] @ x
        se = NOISE * np.sqrt(np.maximum(solved[..., 1] @ x, 0.0))
        score = mean + exploration * se
        if policy == "thompson" and exploration > 0:
            own = p_highest(mean, exploration * se)
        else:
            own = (score == score.max()).astype(float)
            own /= own.sum()
        propensity = (1 - uniform) * own + uniform / len(known)
        return Choice(items=list(items), mean=mean, se=se, score=score, propensity=propensity)

    def state(self) -> dict[str, Any]:
        """All of it as JSON."""
        return {
            "features": self.features,
            "ridge": self.ridge,
            "models": {
                name: {"precision": m.precision.tolist(), "moment": m.moment.tolist(), "n": m.n}
                for name, m in self.models.items()
            },
        }

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> "LinearBandit":
        """From `state`."""
        models = {
            name: ItemModel(precision=np.array(m["precision"], float), moment=np.array(m["moment"], float), n=m["n"])
            for name, m in state["models"].items()
        }
        return cls(features=state["features"], ridge=state["ridge"], models=models)

    def _row(self, context: Sequence[float]) -> Numbers:
        if len(context) != self.features:
            raise ValueError(f"{len(context)} numbers of context instead of {self.features}")
        return np.array([1.0, *context])

    def _new(self) -> ItemModel:
        size = self.features + 1
        return ItemModel(precision=self.ridge * np.eye(size), moment=np.zeros(size))


def p_highest(mean: Numbers, sd: Numbers) -> Numbers:
    """Probability of each of independent normal variables to be the highest, by integration; the error is below 0.01.

    Costs n times the grid, which has some hundreds of points. Variables that vary by less than 1e-9 of the numbers'
    size are taken to vary by that: floating point tells no smaller steps from none. The greatest of such is the
    highest, equals in equal shares.
    """
    from scipy.special import ndtr

    if len(mean) == 1:
        return np.ones(1)
    scale = max(float(np.abs(mean).max()), float(sd.max()), _SMALLEST)
    sd = np.maximum(sd, _STILL * scale)
    below = ndtr((_grid(mean, sd)[None, :] - mean[:, None]) / sd[:, None])
    mass = np.diff(below, axis=1)
    log_below = np.log(np.maximum((below[:, 1:] + below[:, :-1]) / 2, 1e-300))
    others = np.exp(log_below.sum(axis=0)[None, :] - log_below)
    p: Numbers = (mass * others).sum(axis=1)
    p /= p.sum()
    return p


def _grid(mean: Numbers, sd: Numbers) -> Numbers:
    """Where the highest may lie, ascending: of all variables' quantiles so many as the narrowest one around needs."""
    quantiles = mean[:, None] + sd[:, None] * np.linspace(-_REACH, _REACH, _STEPS)
    points = np.unique(quantiles)
    points = points[points >= quantiles[:, 0].max()]
    first, stop = np.searchsorted(points, quantiles[:, 0]), np.searchsorted(points, quantiles[:, -1], side="right")
    narrowest = np.full(len(points), np.inf)
    for i in np.argsort(-sd):
        narrowest[first[i] : stop[i]] = sd[i]
    steps = np.diff(points) / np.minimum(narrowest[1:], narrowest[:-1])
    place = np.floor(np.cumsum(steps, dtype=float) / _STEP)
    kept: Numbers = points[np.append(True, np.diff(place, prepend=0.0) > 0)]
    return kept
