"""The decision processes behind gymnasium's small environments (Farama Foundation, MIT), as tables."""

import numpy as np

from neuroedge.kit.mdp import Mdp


def of_gymnasium(name: str) -> tuple[Mdp, list[str], list[str]]:
    """The process of an environment that has a table, with the names of its states and actions: their numbers."""
    import gymnasium

    made = gymnasium.make(name)
    try:
        inner = made.unwrapped
        table, start = inner.P, np.array(inner.initial_state_distrib, np.float64)  # type: ignore[attr-defined]
        rows = [
            (s, a, int(following), float(p), float(reward), bool(ends))
            for s, row in table.items()
            for a, moves in row.items()
            for p, following, reward, ends in moves
        ]
        count = int(made.action_space.n)  # type: ignore[attr-defined]
    finally:
        made.close()
    return Mdp.of(rows, start=start, actions=count), [str(s) for s in range(len(start))], [str(a) for a in range(count)]
