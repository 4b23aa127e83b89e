"""Reinforcement: learned policies against the optimum, and the coverage of off-policy intervals.

    python -m benchmarks.reinforcement

Q-learning on gymnasium's FrozenLake, CliffWalking and Taxi: value of the learned policy, computed exactly, against
value iteration's optimum; the interval is a bootstrap over seeds. Fitted Q on 1,000 random episodes of a random process
of eight states, its policy valued on the true process. Coverage: 150 logs of 200 episodes of that process; a fixed
target policy is valued from each; share of the 95 % intervals that hold its exact value. Nothing is tuned on any of it.
"""

import argparse
import asyncio
from typing import Any

import numpy as np

from benchmarks.report import Figure, figure, save
from benchmarks.resampling import interval
from neuroedge.kit import fitted_q, mdp
from neuroedge.kit.q_learning import QLearner

_DISCOUNT = 0.95
ENVIRONMENTS = {"FrozenLake-v1": (300_000, 20), "CliffWalking-v1": (300_000, 10), "Taxi-v4": (1_000_000, 5)}
"""Steps and seeds of each."""


def main() -> int:
    """Score and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--logs", type=int, default=150)
    given = parser.parse_args()
    save(
        "reinforcement",
        [*learned(), *asyncio.run(from_logs(given.logs))],
        title="Reinforcement: policies and off-policy intervals",
        command="python -m benchmarks.reinforcement",
    )
    return 0


def learned() -> list[Figure]:
    """Share of the optimum that is missed, by environment."""
    from neuroedge.kit.gymnasium_tables import of_gymnasium

    figures = []
    for name, (steps, seeds) in ENVIRONMENTS.items():
        process, _, _ = of_gymnasium(name)
        q, _ = mdp.value_iteration(process, discount=0.99)
        optimum = float(process.start @ mdp.best(q))
        missed = []
        for seed in range(seeds):
            learner = QLearner(process, discount=0.99, total_steps=steps, seed=seed)
            learner.learn(steps)
            values = mdp.policy_values(process, mdp.greedy(learner.q), discount=0.99)
            # No policy is better than the optimum: what is below zero is rounding.
            missed.append(max(0.0, (optimum - float(process.start @ values)) / abs(optimum)))
        shares = np.array(missed)
        low, high = interval(seeds, lambda rows, shares=shares: np.median(shares[rows]))  # type: ignore[misc]
        figures.append(
            figure(
                f"{name}: share of the optimum missed by Q-learning",
                "",
                missed,
                at_most=0.01,
                note=f"95 % {low:.4f} to {high:.4f}, n = {seeds} seeds; optimum {optimum:.4f}; {steps} steps",
            )
        )
    return figures


def random_process(*, states: int = 8, actions: int = 3) -> mdp.Mdp:
    """Ends with a chance of 0.2 at every step."""
    rng = np.random.default_rng(5)
    rows = []
    for s in range(states):
        for a in range(actions):
            reward = float(rng.normal())
            for following, p in enumerate(rng.dirichlet(np.full(states, 0.5))):
                rows += [
                    (s, a, following, 0.8 * float(p), reward, False),
                    (s, a, following, 0.2 * float(p), reward, True),
                ]
    return mdp.Mdp.of(rows, start=np.full(states, 1 / states), actions=actions)


def logged(process: mdp.Mdp, policy: mdp.Numbers, *, episodes: int, seed: int) -> tuple[fitted_q.NamedMoves, list[Any]]:
    """Episodes of this policy; the places of each one's steps."""
    rng = np.random.default_rng(seed)
    cells = [
        [np.flatnonzero((process.state == s) & (process.action == a)) for a in range(process.actions)]
        for s in range(process.states)
    ]
    rows: list[tuple[int, int, float, int, bool, bool]] = []
    places = []
    for _ in range(episodes):
        state, ends, began = int(rng.choice(process.states, p=process.start)), False, len(rows)
        while not ends:
            action = int(rng.choice(process.actions, p=policy[state]))
            own = cells[state][action]
            move = own[rng.choice(len(own), p=process.p[own] / process.p[own].sum())]
            ends, following = bool(process.ends[move]), int(process.next_state[move])
            rows.append(
                (state, action, float(process.reward[move] + rng.normal()), following, ends, len(rows) == began)
            )
            state = following
        places.append(np.arange(began, len(rows)))
    state, action, reward, following, end, first = (np.array(c) for c in zip(*rows, strict=True))
    moves = fitted_q.NamedMoves(
        state=state,
        action=action,
        reward=reward,
        next_state=following,
        ends=end,
        first=first,
        states=process.states,
        actions=process.actions,
    )
    return moves, places


async def from_logs(logs: int) -> list[Figure]:
    """Fitted Q's policy, and coverage by the engine's own estimates."""
    process = random_process()
    uniform = np.full((process.states, process.actions), 1 / process.actions)
    q, _ = mdp.value_iteration(process, discount=_DISCOUNT)
    optimum = float(process.start @ mdp.best(q))
    plain = float(process.start @ mdp.policy_values(process, uniform, discount=_DISCOUNT))
    gained = []
    for seed in range(5):
        moves, _ = logged(process, uniform, episodes=1000, seed=seed)
        found, _ = mdp.value_iteration(fitted_q.empirical(moves), discount=_DISCOUNT)
        own = float(process.start @ mdp.policy_values(process, mdp.greedy(found), discount=_DISCOUNT))
        gained.append((own - plain) / (optimum - plain))
    target = 0.5 * uniform + 0.5 * mdp.greedy(q)
    truth = float(process.start @ mdp.policy_values(process, target, discount=_DISCOUNT))
    held: dict[str, list[float]] = {"dr": [], "wis": []}
    widths: dict[str, list[float]] = {"dr": [], "wis": []}
    for seed in range(logs):
        for value in await _estimates(process, uniform, target, seed):
            held[value.estimator].append(float(value.ci95[0] <= truth <= value.ci95[1]))
            widths[value.estimator].append(value.ci95[1] - value.ci95[0])
    note = f"{logs} logs of 200 episodes; target worth {truth:.3f}, logged {plain:.3f}, optimum {optimum:.3f}"
    return [
        figure(
            "Fitted Q: share of the way from chance to the optimum", "", gained, at_least=0.9, note="5 logs of 1,000"
        ),
        *(
            figure(
                f"95 % intervals that hold the truth: {name}",
                "",
                [float(np.mean(told))],
                at_least=0.93 if name == "dr" else None,
                note=f"{note}; median width {np.median(widths[name]):.2f}",
            )
            for name, told in held.items()
        ),
    ]


async def _estimates(process: mdp.Mdp, policy: mdp.Numbers, target: mdp.Numbers, seed: int) -> list[Any]:
    """What the engine says of the target from one log."""
    from tests.fakes import make_context

    from neuroedge.engines.decision.reinforcement import Input, LoggedMove, Reinforcement, TargetChoice

    moves, places = logged(process, policy, episodes=200, seed=1000 + seed)
    log = [
        LoggedMove(
            episode=str(e),
            state=f"s{moves.state[k]}",
            action=f"a{moves.action[k]}",
            reward=float(moves.reward[k]),
            next_state=f"s{moves.next_state[k]}",
            ends=bool(moves.ends[k]),
            propensity=float(policy[moves.state[k], moves.action[k]]),
        )
        for e, own in enumerate(places)
        for k in own
    ]
    choices = [
        TargetChoice(state=f"s{s}", action=f"a{a}", p=float(p))
        for s, row in enumerate(target)
        for a, p in enumerate(row)
    ]
    context = make_context()
    answer = await Reinforcement(probe=context).run(Input(log=log, target=choices, discount=_DISCOUNT), context)
    return [v for v in answer.off_policy if v.policy == "target"]


if __name__ == "__main__":
    raise SystemExit(main())
