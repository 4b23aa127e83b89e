"""What policies would have earned on logged choices of items: a bandit learned from the first half, judged on the rest.

The bandit's expected rewards serve the doubly robust estimate as its model: it has not seen what it judges.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from neuroedge.kit import off_policy
from neuroedge.kit.bandit import Choice, LinearBandit, Policy
from neuroedge.kit.off_policy import Numbers, PolicyWorth
from neuroedge.kit.refusal import Refused

MIN_LOGGED: Final = 100
"""Logged choices an evaluation needs; half of them teach, half of them judge."""
MAX_S: Final = 90.0
"""What an evaluation may take: enough for all that a kept recommender holds."""
_CHOICE_S: Final = 4e-4
_RANKED_S: Final = 3e-5
_SOLVED_S: Final = 3e-8
"""Of a core, measured: a choice, each candidate that Thompson sampling ranks, each cell of a candidate's matrix."""


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

    def cost_s(self, *, features: int) -> float:
        """About what a choice takes of a core, seconds."""
        ranked = _RANKED_S if self.policy == "thompson" and self.exploration > 0 else 0.0
        return _CHOICE_S + len(self.candidates) * (ranked + _SOLVED_S * (features + 1) ** 2)

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


def worth(
    rows: Sequence[Shown], rule: BanditRule, *, features: int, go_on: Callable[[], bool] = lambda: True
) -> list[PolicyWorth]:
    """Of the logged policy and the learned one on the second half, and of the target on all where it is told.

    `go_on` is asked before each context. Raises Refused for too few choices, for more contexts and candidates than
    MAX_S is enough for, for propensities too small to weigh by, and when it is not to go on.
    """
    if len(rows) < MIN_LOGGED:
        raise Refused(f"{len(rows)} logged choices, needs {MIN_LOGGED} to evaluate", hint="log more")
    half = len(rows) // 2
    _affordable(len({row.context for row in rows[half:]}), rule, features=features)
    late = np.array([r.reward for r in rows[half:]])
    logged = off_policy.mean(late, estimator="mean", weight=np.ones(len(late)))
    followed = _followed(learned(rows[:half], features=features), rule, rows[half:], go_on)
    with np.errstate(all="ignore"):
        weighed = [*_of_learned(rows[half:], late, *followed), *_of_target(rows)]
    return off_policy.finite([PolicyWorth(policy="logged", estimate=logged), *weighed])


def _of_learned(
    after: Sequence[Shown], reward: Numbers, chosen: Numbers, q: Numbers, v: Numbers
) -> Iterator[PolicyWorth]:
    weight = chosen / np.array([r.propensity for r in after])
    yield PolicyWorth(policy="learned", estimate=off_policy.ips(reward, weight))
    if weight.max() > 0:
        yield PolicyWorth(policy="learned", estimate=off_policy.snips(reward, weight))
    yield PolicyWorth(policy="learned", estimate=off_policy.doubly_robust(reward, weight, model_q=q, model_v=v))


def _of_target(rows: Sequence[Shown]) -> Iterator[PolicyWorth]:
    """Where each row tells it; without any weight there is no weighted mean."""
    told = [r.target_propensity for r in rows]
    if any(p is None for p in told):
        return
    reward = np.array([r.reward for r in rows])
    weight = np.array(told, float) / np.array([r.propensity for r in rows])
    yield PolicyWorth(policy="target", estimate=off_policy.ips(reward, weight))
    if weight.max() > 0:
        yield PolicyWorth(policy="target", estimate=off_policy.snips(reward, weight))


def _affordable(contexts: int, rule: BanditRule, *, features: int) -> None:
    seconds = contexts * rule.cost_s(features=features)
    if seconds > MAX_S:
        raise Refused(
            f"{contexts} different contexts of {len(rule.candidates)} candidates take about {seconds:.0f} s to"
            f" evaluate; at most {MAX_S:.0f}",
            hint="round the contexts, so that they come again, narrow `candidates`, or send fewer interactions",
        )


def _followed(
    bandit: LinearBandit, rule: BanditRule, after: Sequence[Shown], go_on: Callable[[], bool]
) -> tuple[Numbers, Numbers, Numbers]:
    """Propensity of each later choice under the rule; its expected reward; that of the rule."""
    place = {item: i for i, item in enumerate(rule.candidates)}
    known: dict[tuple[float, ...], Choice] = {}
    chosen, q, v = np.zeros(len(after)), np.zeros(len(after)), np.zeros(len(after))
    for k, row in enumerate(after):
        if row.context not in known:
            if not go_on():
                raise Refused("the evaluation was stopped", hint="ask for it again")
            known[row.context] = rule.choice(bandit, row.context)
        told = known[row.context]
        v[k] = float(told.propensity @ told.mean)
        if row.item in place:
            chosen[k], q[k] = told.propensity[place[row.item]], told.mean[place[row.item]]
    return chosen, q, v
