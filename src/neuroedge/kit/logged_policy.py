"""What policies are worth by a log of episodes: learned on one half of them, judged on the other.

Estimates are those of `off_policy`; a model of values never judges the episodes it was fitted to.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from neuroedge.kit import fitted_q, mdp, off_policy
from neuroedge.kit.fitted_q import NamedMoves, NumberMoves
from neuroedge.kit.mdp import Indices, Mdp, Numbers, Truths
from neuroedge.kit.named_states import Choice, actions_of, policy_of, states_of
from neuroedge.kit.off_policy import Episode, PolicyWorth
from neuroedge.kit.refusal import Refused

MIN_EPISODES: Final = 20
"""Fewer, and nothing is held out and no value is estimated."""
MAX_CELLS: Final = 100_000
"""States times actions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """Logged steps; `rows` gives the places of each episode's."""

    action: Indices
    actions: list[str]
    reward: Numbers
    ends: Truths
    propensity: Numbers | None
    rows: list[Indices]

    @classmethod
    def given(
        cls,
        episodes: Sequence[str],
        actions: Sequence[str],
        *,
        reward: Sequence[float],
        ends: Sequence[bool],
        propensity: Sequence[float | None],
    ) -> "Log":
        """Of steps in the order they were done. Raises Refused for one action only, and for some propensities only."""
        numbers = actions_of(actions)
        if len(numbers) < 2:
            raise Refused("only one action was ever done: there is nothing to choose", hint="log other actions too")
        told = [p for p in propensity if p is not None]
        if told and len(told) < len(propensity):
            missing = len(propensity) - len(told)
            raise Refused(f"{missing} steps have no `propensity`", hint="give it for all or for none")
        rows: dict[str, list[int]] = {}
        for k, name in enumerate(episodes):
            rows.setdefault(name, []).append(k)
        return cls(
            action=np.array([numbers[name] for name in actions]),
            actions=list(numbers),
            reward=np.array(reward),
            ends=np.array(ends),
            propensity=np.array(told) if told else None,
            rows=[np.array(places) for places in rows.values()],
        )

    def of(self, episodes: Sequence[int]) -> Indices:
        """Places of all steps of these episodes, in the log's order."""
        return np.sort(np.concatenate([self.rows[e] for e in episodes]))

    @property
    def first(self) -> Indices:
        """Places of the episodes' first steps."""
        return np.array([rows[0] for rows in self.rows])


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A policy at steps of a log: its probabilities and a model's values of the actions, [steps, actions].

    Where it knows nothing (no probability at all) it acts as was logged.
    """

    p: Numbers
    q: Numbers

    @property
    def value(self) -> Numbers:
        """Of each step's state under the policy."""
        return np.asarray((self.p * self.q).sum(axis=1), float)


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedPolicy:
    """A policy over named states, with what it rests on."""

    states: list[str]
    q: Numbers
    """Values of the learned policy's actions, or probabilities of the target's; -inf where not allowed."""
    values: Numbers
    n: Numbers
    """Moves of each state and action."""
    start_value: float
    worth: list[PolicyWorth]


def halves(episodes: int, *, seed: int) -> tuple[list[int], list[int]]:
    """Numbers of the episodes to learn from, and of those to judge on."""
    order = np.random.default_rng(seed).permutation(episodes).tolist()
    return order[: episodes // 2], order[episodes // 2 :]


def of_named(
    log: Log,
    before: Sequence[str],
    after: Sequence[str],
    *,
    target: Sequence[Choice],
    discount: float,
    softness: float,
    seed: int,
) -> NamedPolicy:
    """The optimum of the process that the log shows, or the `target` policy where there is one, and its worth.

    `before` and `after` name each step's states. Propensities that were not logged are estimated by shares. Raises
    Refused for too many states and actions, and for a target that the log does not know.
    """
    states = states_of([name for pair in zip(before, after, strict=True) for name in pair])
    if len(states) * len(log.actions) > MAX_CELLS:
        raise Refused(f"{len(states)} states and {len(log.actions)} actions are too many", hint="merge some")
    moves = _moves(log, np.array([states[s] for s in before]), np.array([states[s] for s in after]), len(states))
    given = policy_of(target, states, {name: i for i, name in enumerate(log.actions)}) if target else None
    full = fitted_q.empirical(moves)
    q, _ = mdp.value_iteration(full, discount=discount)
    values = mdp.policy_values(full, mdp.greedy(q) if given is None else given, discount=discount)
    n = np.zeros(q.shape)
    np.add.at(n, (moves.state, moves.action), 1.0)
    propensity = log.propensity
    if propensity is None:
        propensity = (n / np.maximum(n.sum(axis=1, keepdims=True), 1))[moves.state, moves.action]

    def rule(seen: Indices) -> Rule:
        shown = fitted_q.empirical(moves.only(seen))
        own = _own(shown, discount=discount, softness=softness) if given is None else given
        value = mdp.policy_values(shown, own, discount=discount)
        model = np.where(shown.allowed, shown.backup(value, discount), 0.0)
        return Rule(p=own[moves.state], q=model[moves.state])

    return NamedPolicy(
        states=list(states),
        q=q if given is None else np.where(full.allowed, given, -np.inf),
        values=values,
        n=n,
        start_value=float(full.start @ values),
        worth=_judged(log, propensity, rule, crossed=given is not None, discount=discount, seed=seed),
    )


def _moves(log: Log, state: Indices, following: Indices, states: int) -> NamedMoves:
    first = np.zeros(len(state), bool)
    first[log.first] = True
    return NamedMoves(
        state=state,
        action=log.action,
        reward=log.reward,
        next_state=following,
        ends=log.ends,
        first=first,
        states=states,
        actions=len(log.actions),
    )


def number_moves(log: Log, before: Sequence[Any], after: Sequence[Any]) -> NumberMoves:
    """The log's steps between states described by numbers, as many of each state."""
    return NumberMoves(
        state=np.array(before, float),
        action=log.action,
        reward=log.reward,
        next_state=np.array(after, float),
        ends=log.ends,
        actions=len(log.actions),
    )


def _own(shown: Mdp, *, discount: float, softness: float) -> Numbers:
    known, _ = mdp.value_iteration(shown, discount=discount)
    return fitted_q.softened(known.argmax(axis=1).tolist(), shown.allowed, softness)


def _judged(
    log: Log, propensity: Numbers, rule: Callable[[Indices], Rule], *, crossed: bool, discount: float, seed: int
) -> list[PolicyWorth]:
    """The learned policy from one half on the other; or the caller's on all, its model always from the other half."""
    if len(log.rows) < MIN_EPISODES:
        return []
    taught, judged = halves(len(log.rows), seed=seed)
    own = rule(log.of(taught))
    if not crossed:
        return worth(log, propensity, judged, own, policy="learned", discount=discount, seed=seed)
    back, q = log.of(taught), own.q.copy()
    q[back] = rule(log.of(judged)).q[back]
    every = range(len(log.rows))
    return worth(log, propensity, every, Rule(p=own.p, q=q), policy="target", discount=discount, seed=seed)


def worth(
    log: Log,
    propensity: Numbers,
    judged: Sequence[int],
    rule: Rule,
    *,
    policy: Literal["learned", "target"],
    discount: float,
    seed: int,
) -> list[PolicyWorth]:
    """Logged mean, doubly robust and weighted importance sampling, on these episodes.

    Raises Refused for propensities too small to weigh by.
    """
    every = np.arange(len(log.action))
    knows = rule.p.any(axis=1)
    with np.errstate(over="ignore"):
        ratio = np.where(knows, rule.p[every, log.action] / propensity, 1.0)
    made = rule.q[every, log.action]
    # Where the policy knows nothing it acts as logged, and the model's value of that is the choice's own.
    state = np.where(knows, rule.value, made)
    own = [log.rows[e] for e in judged]
    episodes = [Episode(reward=log.reward[r], ratio=ratio[r], model_q=made[r], model_v=state[r]) for r in own]
    none, ones = np.zeros(len(every)), np.ones(len(every))
    logged = [Episode(reward=log.reward[r], ratio=ones[r], model_q=none[r], model_v=none[r]) for r in own]
    with np.errstate(all="ignore"):
        found = [
            PolicyWorth(policy="logged", estimate=off_policy.doubly_robust_episodes(logged, discount=discount)),
            PolicyWorth(policy=policy, estimate=off_policy.doubly_robust_episodes(episodes, discount=discount)),
        ]
        weighted = off_policy.weighted_importance(episodes, discount=discount, seed=seed)
    if np.isfinite(weighted.value):
        found.append(PolicyWorth(policy=policy, estimate=weighted))
    return off_policy.finite(found)
