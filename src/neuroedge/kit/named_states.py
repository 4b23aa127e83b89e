"""Decision processes and policies between states and actions that have names."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from neuroedge.kit.mdp import Mdp, Numbers
from neuroedge.kit.refusal import Refused

MAX_STATES: Final = 5000
MAX_ACTIONS: Final = 100
_NEARLY: Final = 1e-6

Move = tuple[str, str, str, float, float, bool]
"""State, action, next state, probability, reward, whether the episode ends with it."""
Choice = tuple[str, str, float]
"""State, action, probability."""


def states_of(names: Sequence[str]) -> dict[str, int]:
    """Numbers from 0, in the order of appearance. Raises Refused for too many."""
    return _numbered(names, MAX_STATES, "states")


def actions_of(names: Sequence[str]) -> dict[str, int]:
    """Likewise, of actions."""
    return _numbered(names, MAX_ACTIONS, "actions")


def process_of(moves: Sequence[Move], *, start: str | None) -> tuple[Mdp, list[str], list[str]]:
    """The process, with the names of its states and actions; without a `start` each state is as likely to be the first.

    Raises Refused where the probabilities of a state and action do not sum to 1, and for a start that is no state.
    """
    states = states_of([name for move in moves for name in (move[0], move[2])])
    actions = actions_of([move[1] for move in moves])
    first = np.full(len(states), 1 / len(states))
    if start is not None:
        if start not in states:
            raise Refused(f"the start {start!r} is no state of the process", hint="name a state")
        first = np.eye(len(states))[states[start]]
    rows = [(states[s], actions[a], states[following], *rest) for s, a, following, *rest in moves]
    process = Mdp.of(rows, start=first, actions=len(actions))  # type: ignore[arg-type]
    total = np.bincount(process.state * len(actions) + process.action, process.p, len(states) * len(actions))
    wrong = np.flatnonzero((total > 0) & (np.abs(total - 1) > _NEARLY))
    if len(wrong):
        state, action = divmod(int(wrong[0]), len(actions))
        raise Refused(
            f"the probabilities of {list(actions)[action]!r} in {list(states)[state]!r} sum to {total[wrong[0]]:.4f}",
            hint="those of a state and action sum to 1",
        )
    return process, list(states), list(actions)


def policy_of(choices: Sequence[Choice], states: Mapping[str, int], actions: Mapping[str, int]) -> Numbers:
    """[states, actions]: the probabilities of a policy; a state of which nothing is said has none.

    Raises Refused for an action in a state that is not known, and where a state's probabilities do not sum to 1.
    """
    policy = np.zeros((len(states), len(actions)))
    for state, action, p in choices:
        if p and (state not in states or action not in actions):
            raise Refused(
                f"the target takes {action!r} in {state!r}, which the log does not know",
                hint="a policy can be valued only where the log has been",
            )
        if p:
            policy[states[state], actions[action]] += p
    total = policy.sum(axis=1)
    wrong = np.flatnonzero((total > 0) & (np.abs(total - 1) > _NEARLY))
    if len(wrong):
        name = list(states)[wrong[0]]
        raise Refused(f"the target's probabilities in {name!r} sum to {total[wrong[0]]:.4f}", hint="make it 1")
    return policy


def _numbered(names: Sequence[str], most: int, what: str) -> dict[str, int]:
    numbers = {name: i for i, name in enumerate(dict.fromkeys(names))}
    if len(numbers) > most:
        raise Refused(f"{len(numbers)} {what}; at most {most}", hint="make fewer of them, or describe by numbers")
    return numbers
