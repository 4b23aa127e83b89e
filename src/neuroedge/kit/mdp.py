"""Markov decision processes as tables: the optimum by value iteration, and the exact value of a policy.

Value iteration: R. Bellman 1957; it is stopped when the greedy policy is within `tolerance` of the optimum (M. Puterman
1994, theorem 6.3.1). A terminal move ends the episode: nothing follows it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Indices = NDArray[np.int64]
Truths = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mdp:
    """Moves: from `state` by `action` to `next_state` with probability `p` and `reward`, ending if `ends`.

    `allowed` [states, actions] says which actions a state has; a state with none is an end.
    """

    state: Indices
    action: Indices
    next_state: Indices
    p: Numbers
    reward: Numbers
    ends: Truths
    start: Numbers
    """Probability of each state to be the first."""
    states: int
    actions: int

    @property
    def allowed(self) -> Truths:
        """Which actions have moves."""
        known = np.zeros((self.states, self.actions), bool)
        known[self.state, self.action] = True
        return known

    @classmethod
    def of(cls, moves: Sequence[tuple[int, int, int, float, float, bool]], *, start: Numbers, actions: int) -> "Mdp":
        """From rows of state, action, next state, p, reward, ends."""
        state, action, following, p, reward, ends = (np.array(column) for column in zip(*moves, strict=True))
        return cls(
            state=state.astype(np.int64),
            action=action.astype(np.int64),
            next_state=following.astype(np.int64),
            p=p.astype(float),
            reward=reward.astype(float),
            ends=ends.astype(bool),
            start=start,
            states=len(start),
            actions=actions,
        )

    def backup(self, value: Numbers, discount: float) -> Numbers:
        """Value of each action of each state when `value` is that of the states; -inf where not allowed."""
        gain = self.p * (self.reward + discount * np.where(self.ends, 0.0, value[self.next_state]))
        cells = self.state * self.actions + self.action
        q = np.bincount(cells, gain, self.states * self.actions).reshape(self.states, self.actions)
        return np.where(self.allowed, q, -np.inf)


def best(q: Numbers) -> Numbers:
    """The highest value of each state; 0 where nothing can be done."""
    highest = q.max(axis=1)
    return np.where(np.isfinite(highest), highest, 0.0)


def value_iteration(
    mdp: Mdp, *, discount: float, tolerance: float = 1e-6, rounds: int = 20_000
) -> tuple[Numbers, bool]:
    """Optimal Q [states, actions], and whether it has settled within `rounds`."""
    value = np.zeros(mdp.states)
    enough = tolerance * (1 - discount) / (2 * discount) if 0 < discount < 1 else tolerance
    for _ in range(rounds):
        q = mdp.backup(value, discount)
        moved = best(q)
        change = float(np.abs(moved - value).max())
        value = moved
        if change < enough:
            return mdp.backup(value, discount), True
    return mdp.backup(value, discount), False


def policy_values(mdp: Mdp, policy: Numbers, *, discount: float) -> Numbers:
    """Exact value of each state under the probabilities `policy` [states, actions], by a linear solve; discount < 1."""
    from scipy.sparse import coo_matrix, identity
    from scipy.sparse.linalg import spsolve

    taken = policy[mdp.state, mdp.action] * mdp.p
    reward = np.bincount(mdp.state, taken * mdp.reward, mdp.states)
    on = ~mdp.ends
    follow = coo_matrix((taken[on], (mdp.state[on], mdp.next_state[on])), shape=(mdp.states, mdp.states))
    values: Numbers = np.asarray(spsolve((identity(mdp.states) - discount * follow).tocsc(), reward), float)
    return values


def greedy(q: Numbers) -> Numbers:
    """All probability on the best action of each state (the first of equals); none where nothing can be done."""
    policy = np.zeros(q.shape)
    acting = np.isfinite(q).any(axis=1)
    policy[acting, q[acting].argmax(axis=1)] = 1.0
    return policy
