"""What policies would have earned on logged choices of items: a bandit learned from the first half, judged on the rest.

The bandit's expected rewards serve the doubly robust estimate as its model: it has not seen what it judges.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from neuroedge.kit import off_policy
from neuroedge.kit.bandit import Choice, LinearBandit, Policy
from neuroedge.kit.off_policy import Numbers, PolicyWorth
from neuroedge.kit.refusal import Refused

MIN_LOGGED: Final = 100
"""Logged choices an evaluation needs; half of them teach, half of them judge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """An item that was shown: in which context, with which probability, and what it earned."""

    item: str
    context: tuple[float, ...]
    reward: float
    propensity: float
    target_propensity: float | None
    """With which another policy would have shown it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BanditRule:
    """How a bandit chooses among the candidates."""

    candidates: Sequence[str]
    policy: Policy
    exploration: float
    uniform: float

    def choice(self, bandit: LinearBandit, context: Sequence[float]) -> Choice:
        """Its choice now."""
        return bandit.choice(
            self.candidates, context, policy=self.policy, exploration=self.exploration, uniform=self.uniform
        )


def learned(rows: Sequence[Shown], *, features: int) -> LinearBandit:
    """A bandit of what these items earned."""
    bandit = LinearBandit(features=features)
    for row in rows:
        bandit.learn(row.item, row.context, row.reward)
    return bandit


def worth(rows: Sequence[Shown], rule: BanditRule, *, features: int) -> list[PolicyWorth]:
    """Of the logged policy and the learned one on the second half, and of the target on all where it is told.

    Raises Refused for too few choices.
    """
    if len(rows) < MIN_LOGGED:
        raise Refused(f"{len(rows)} logged choices, needs {MIN_LOGGED} to evaluate", hint="log more")
    half = len(rows) // 2
    reward, propensity = np.array([r.reward for r in rows]), np.array([r.propensity for r in rows])
    late = reward[half:]
    logged = off_policy.mean(late, estimator="mean", weight=np.ones(len(late)))
    chosen, q, v = _followed(learned(rows[:half], features=features), rule, rows[half:])
    weight = chosen / propensity[half:]
    found = [PolicyWorth(policy="logged", estimate=logged)]
    found.append(PolicyWorth(policy="learned", estimate=off_policy.ips(late, weight)))
    if weight.sum() > 0:
        found.append(PolicyWorth(policy="learned", estimate=off_policy.snips(late, weight)))
    robust = off_policy.doubly_robust(late, weight, model_q=q, model_v=v)
    found.append(PolicyWorth(policy="learned", estimate=robust))
    told = [r.target_propensity for r in rows]
    if all(p is not None for p in told):
        target = np.array(told, float) / propensity
        estimates = (off_policy.ips(reward, target), off_policy.snips(reward, target))
        found += [PolicyWorth(policy="target", estimate=one) for one in estimates]
    return found


def _followed(bandit: LinearBandit, rule: BanditRule, after: Sequence[Shown]) -> tuple[Numbers, Numbers, Numbers]:
    """Propensity of each later choice under the rule; its expected reward; that of the rule."""
    place = {item: i for i, item in enumerate(rule.candidates)}
    known: dict[tuple[float, ...], Choice] = {}
    chosen, q, v = np.zeros(len(after)), np.zeros(len(after)), np.zeros(len(after))
    for k, row in enumerate(after):
        if row.context not in known:
            known[row.context] = rule.choice(bandit, row.context)
        told = known[row.context]
        v[k] = float(told.propensity @ told.mean)
        if row.item in place:
            chosen[k], q[k] = told.propensity[place[row.item]], told.mean[place[row.item]]
    return chosen, q, v
