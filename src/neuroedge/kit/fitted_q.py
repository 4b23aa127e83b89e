"""Learning a policy from logged moves: fitted Q iteration, on named states exactly and on numbers with trees.

D. Ernst, P. Geurts & L. Wehenkel 2005, "Tree-based batch mode reinforcement learning", JMLR 6: each round fits the
reward plus the discounted best next value by extremely randomised trees. On named states the regression is the mean of
each pair and the fixed point is the optimum of the process that the log shows; there only actions seen in a state are
ever taken. With trees values of unseen actions are extrapolated: that is the method's weak side.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from neuroedge.kit.mdp import Indices, Mdp, Numbers, Truths

TREES: Final = 40
MIN_LEAF: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedMoves:
    """Logged moves between states numbered from 0."""

    state: Indices
    action: Indices
    reward: Numbers
    next_state: Indices
    ends: Truths
    first: Truths
    """Whether it is the first of its episode."""
    states: int
    actions: int

    def only(self, rows: Indices) -> "NamedMoves":
        """These moves."""
        return NamedMoves(
            state=self.state[rows],
            action=self.action[rows],
            reward=self.reward[rows],
            next_state=self.next_state[rows],
            ends=self.ends[rows],
            first=self.first[rows],
            states=self.states,
            actions=self.actions,
        )


def empirical(moves: NamedMoves) -> Mdp:
    """The process the log shows: shares of what followed each pair, and mean rewards."""
    key = np.stack([moves.state, moves.action, moves.next_state, moves.ends.astype(np.int64)])
    rows, place = np.unique(key, axis=1, return_inverse=True)
    place = place.ravel()
    n = np.bincount(place).astype(float)
    cell = rows[0] * moves.actions + rows[1]
    of_pair = np.bincount(cell, n, moves.states * moves.actions)
    start = np.bincount(moves.state[moves.first], None, moves.states).astype(float)
    return Mdp(
        state=rows[0],
        action=rows[1],
        next_state=rows[2],
        p=n / of_pair[cell],
        reward=np.bincount(place, moves.reward) / n,
        ends=rows[3].astype(bool),
        start=start / start.sum(),
        states=moves.states,
        actions=moves.actions,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberMoves:
    """Logged moves between states described by numbers, [moves, features]."""

    state: Numbers
    action: Indices
    reward: Numbers
    next_state: Numbers
    ends: Truths
    actions: int

    def only(self, rows: Indices) -> "NumberMoves":
        """These moves."""
        return NumberMoves(
            state=self.state[rows],
            action=self.action[rows],
            reward=self.reward[rows],
            next_state=self.next_state[rows],
            ends=self.ends[rows],
            actions=self.actions,
        )


class TreeQ:
    """Fitted Q iteration with trees; call `iterate` once a round, with other work between."""

    def __init__(self, moves: NumberMoves, *, discount: float, seed: int) -> None:
        self._moves, self._discount, self._seed = moves, discount, seed
        self._rounds = 0
        self._trees: Any = None

    def iterate(self) -> float:
        """One round; the root mean square change of the logged pairs' values."""
        from sklearn.ensemble import ExtraTreesRegressor

        m = self._moves
        before = self._of_logged()
        ahead = np.zeros(len(m.reward)) if self._trees is None else self.q(m.next_state).max(axis=1)
        target = m.reward + self._discount * np.where(m.ends, 0.0, ahead)
        trees = ExtraTreesRegressor(
            n_estimators=TREES, min_samples_leaf=MIN_LEAF, random_state=self._seed + self._rounds, n_jobs=1
        )
        self._trees = trees.fit(self._design(m.state, m.action), target)
        self._rounds += 1
        return float(np.sqrt(np.mean((self._of_logged() - before) ** 2)))

    def q(self, states: Numbers) -> Numbers:
        """Values [states, actions]."""
        actions = self._moves.actions
        rows = self._design(np.repeat(states, actions, axis=0), np.tile(np.arange(actions), len(states)))
        values: Numbers = self._trees.predict(rows).reshape(len(states), actions)
        return values

    def _of_logged(self) -> Numbers:
        m = self._moves
        if self._trees is None:
            return np.zeros(len(m.reward))
        values: Numbers = self._trees.predict(self._design(m.state, m.action))
        return values

    def _design(self, states: Numbers, action: Indices) -> Numbers:
        return np.column_stack([states, np.eye(self._moves.actions)[action]])


def softened(best_of: Sequence[int], allowed: Truths, softness: float) -> Numbers:
    """The policy that takes the best action but, in a share of the choices, any allowed one at random."""
    count = np.maximum(allowed.sum(axis=1, keepdims=True), 1)
    policy: Numbers = softness * allowed / count
    policy[np.arange(len(best_of)), np.asarray(best_of)] += 1 - softness
    return np.where(allowed.any(axis=1, keepdims=True), policy, 0.0)
