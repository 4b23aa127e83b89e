"""Learning values by trial: tabular Q-learning on a simulated process.

C. Watkins & P. Dayan 1992, "Q-learning", Machine Learning 8. Episodes begin in random states (exploring starts),
actions are taken at random in a share of the steps that falls from 1 to `EXPLORE_LAST`, and a pair's step size is
n^-0.6 of its visits n, which meets the conditions of convergence.
"""

from typing import Final

import numpy as np

from neuroedge.kit.mdp import Mdp, Numbers

EXPLORE_LAST: Final = 0.1
EPISODE_STEPS: Final = 200
"""Then a new episode begins, so that no loop is trodden for ever."""
_POWER: Final = 0.6


class QLearner:
    """Learns step by step; call `learn` as often as wanted, with other work between."""

    def __init__(self, process: Mdp, *, discount: float, total_steps: int, seed: int) -> None:
        self._mdp, self._discount, self._total_steps = process, discount, total_steps
        self._rng = np.random.default_rng(seed)
        self._actions = [np.flatnonzero(row).tolist() for row in self._mdp.allowed]
        self._acting = [s for s, own in enumerate(self._actions) if own]
        self._q = [[0.0] * self._mdp.actions for _ in range(self._mdp.states)]
        self._visits = [[0] * self._mdp.actions for _ in range(self._mdp.states)]
        self._moves = self._tables()
        self._done = 0
        self._state, self._age = self._acting[0], EPISODE_STEPS

    @property
    def q(self) -> Numbers:
        """Values so far; -inf where not allowed."""
        return np.where(self._mdp.allowed, np.array(self._q), -np.inf)

    @property
    def visits(self) -> Numbers:
        """How often each pair was tried."""
        return np.array(self._visits, float)

    def learn(self, steps: int) -> None:
        """So many further steps; about 2 µs each."""
        draws = self._rng.random((steps, 4)).tolist()
        for explore, choice, fate, origin in draws:
            if self._age >= EPISODE_STEPS:
                self._state, self._age = self._acting[int(origin * len(self._acting))], 0
            share = max(EXPLORE_LAST, 1.0 - self._done / (0.8 * self._total_steps))
            self._step(explore < share, choice, fate)
            self._done += 1

    def _step(self, explore: bool, choice: float, fate: float) -> None:
        state = self._state
        own, values = self._actions[state], self._q[state]
        action = own[int(choice * len(own))] if explore else max(own, key=values.__getitem__)
        _, following, reward, ends = next(move for move in self._moves[state][action] if fate < move[0])
        further = self._actions[following]
        ahead = 0.0 if ends or not further else max(self._q[following][a] for a in further)
        seen = self._visits[state][action] = self._visits[state][action] + 1
        values[action] += seen**-_POWER * (reward + self._discount * ahead - values[action])
        self._state, self._age = following, EPISODE_STEPS if ends or not further else self._age + 1

    def _tables(self) -> list[dict[int, list[tuple[float, int, float, bool]]]]:
        """For each state and action the moves with their cumulative probability; the last one's is above 1."""
        m = self._mdp
        table: list[dict[int, list[tuple[float, int, float, bool]]]] = [{} for _ in range(m.states)]
        for s, a, following, p, reward, ends in zip(
            *(x.tolist() for x in (m.state, m.action, m.next_state, m.p, m.reward, m.ends)), strict=True
        ):
            row = table[s].setdefault(a, [])
            row.append(((row[-1][0] if row else 0.0) + p, following, reward, ends))
        for actions in table:
            for row in actions.values():
                row[-1] = (2.0, *row[-1][1:])
        return table
