"""The reinforcement engine: optima, learned policies, values from logs, and bad input."""

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from neuroedge.contract.errors import InvalidInput
from neuroedge.engines.decision.reinforcement import Input, LoggedMove, Output, Reinforcement, TargetChoice
from tests.fakes import make_context

pytestmark = pytest.mark.anyio
MOVE = {"state": "a", "action": "go", "next_state": "b", "p": 1.0, "reward": 1.0, "ends": True}


def _episodes(n: int, *, seed: int = 0, propensity: float | None = 0.5, numbers: bool = False) -> list[LoggedMove]:
    """Two steps; `right` earns 1 in state s1 with 0.9, `left` with 0.1; in s0 it does not matter."""
    rng = np.random.default_rng(seed)
    rows = []
    for e in range(n):
        for step in range(2):
            action = ("left", "right")[rng.integers(2)]
            p = 0.5 if step == 0 else 0.9 if action == "right" else 0.1
            rows.append(
                LoggedMove(
                    episode=str(e),
                    state=[float(step)] if numbers else f"s{step}",
                    action=action,
                    reward=float(rng.random() < p),
                    next_state=[step + 1.0] if numbers else f"s{step + 1}",
                    ends=step == 1,
                    propensity=propensity,
                )
            )
    return rows


async def _run(**fields: Any) -> Output:
    ctx = make_context()
    return await Reinforcement(probe=ctx).run(Input(**fields), ctx)


async def test_q_learning_reaches_the_optimum_of_a_slippery_lake() -> None:
    """Beside value iteration, which computes it; the published optimum at this discount is 0.542."""
    planned = await _run(environment="FrozenLake-v1", discount=0.99)
    learned = await _run(environment="FrozenLake-v1", discount=0.99, method="q_learning", steps=200_000)
    assert planned.value == pytest.approx(0.542, abs=1e-3)
    assert learned.value == pytest.approx(planned.value, rel=0.01)
    assert learned.method == "q-learning"
    assert learned.n_moves == 200_000


async def test_a_policy_that_falls_short_is_marked() -> None:
    """A thousand steps do not find the way through Taxi."""
    output = await _run(environment="Taxi-v4", method="q_learning", steps=1000)
    assert not output.reliable
    assert output.optimum is not None
    assert output.value < output.optimum
    assert any("try more `steps`" in w for w in output.warnings)


async def test_a_log_gives_the_better_action_and_an_interval_around_the_truth() -> None:
    """The soft best policy earns 0.5 + 0.95 · 0.9 + 0.05 · 0.1."""
    output = await _run(log=_episodes(1500), discount=0.999)
    best = {row.state: row.action for row in output.policy}
    assert best["s1"] == "right"
    assert best["s2"] is None
    assert output.ci95 is not None
    assert output.ci95[0] < 0.5 + 0.999 * 0.86 < output.ci95[1]
    assert output.reliable
    assert {(v.policy, v.estimator) for v in output.off_policy} == {
        ("logged", "mean"),
        ("learned", "wis"),
        ("learned", "dr"),
    }


async def test_the_callers_policy_is_valued_where_it_was_never_followed() -> None:
    """Always left earns 0.5 + 0.1."""
    target = [TargetChoice(state=f"s{s}", action="left", p=1.0) for s in range(2)]
    output = await _run(log=_episodes(1500), discount=0.999, target=target)
    assert output.ci95 is not None
    assert output.ci95[0] < 0.5 + 0.999 * 0.1 < output.ci95[1]


async def test_states_of_numbers_are_learned_by_trees() -> None:
    """The same answer without names."""
    output = await _run(log=_episodes(150, numbers=True), discount=0.9)
    assert output.method == "fitted-q-trees"
    assert {row.action for row in output.policy[1::2]} == {"right"}
    assert output.ci95 is not None


async def test_a_log_without_propensities_says_that_they_are_guessed() -> None:
    """An estimate, but marked."""
    output = await _run(log=_episodes(200, propensity=None))
    assert output.off_policy
    assert not output.reliable


async def test_without_a_future_the_best_action_is_that_of_the_next_reward() -> None:
    """A discount of 0, of processes, of trial and of logs of both kinds."""
    for method in ("value_iteration", "q_learning"):
        told = await _run(process={"moves": [MOVE], "start": "a"}, discount=0, method=method, steps=1000)
        assert (told.value, told.policy[0].action) == (1.0, "go")
    named = await _run(log=_episodes(200), discount=0)
    assert {row.state: row.action for row in named.policy}["s1"] == "right"
    assert np.isfinite([named.value, *(named.ci95 or ())]).all()
    assert np.isfinite((await _run(log=_episodes(60, numbers=True), discount=0)).value)


async def test_propensities_too_small_to_weigh_by_are_refused() -> None:
    """What next to never happened would weigh more than a number can say."""
    log = [move.model_copy(update={"propensity": 1e-320}) for move in _episodes(40)]
    with pytest.raises(InvalidInput, match="too small to weigh by"):
        await _run(log=log)


async def test_few_episodes_give_no_interval() -> None:
    """The value is the model's own, and marked."""
    output = await _run(log=_episodes(10))
    assert output.ci95 is None
    assert output.off_policy == []
    assert any("needs 20" in w for w in output.warnings)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"process": {"moves": [{**MOVE, "p": 0.5}]}}, "sum to 0.5"),
        ({"process": {"moves": [MOVE], "start": "nowhere"}}, "no state of the process"),
        ({"log": [_episodes(1)[0]]}, "only one action"),
        ({"log": [*_episodes(2), *_episodes(1, numbers=True)]}, "not all names"),
        ({"log": [*_episodes(2), *_episodes(1, propensity=None)]}, "no `propensity`"),
        ({"log": _episodes(30), "target": [{"state": "s9", "action": "left", "p": 1}]}, "does not know"),
        ({"log": _episodes(30), "target": [{"state": "s0", "action": "left", "p": 0.3}]}, "sum to 0.3"),
        ({"log": _episodes(30, numbers=True), "target": [{"state": "s0", "action": "left", "p": 1}]}, "by numbers"),
    ],
)
async def test_what_does_not_fit_together_is_refused(fields: dict[str, Any], message: str) -> None:
    """With what is wrong."""
    with pytest.raises(InvalidInput, match=message):
        await _run(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "exactly one"),
        ({"environment": "FrozenLake-v1", "process": {"moves": [MOVE]}}, "exactly one"),
        ({"environment": "Atari"}, "environment"),
        ({"environment": "FrozenLake-v1", "method": "fitted_q"}, "does not fit"),
        ({"process": {"moves": [{**MOVE, "reward": float("inf")}]}}, "finite"),
        ({"process": {"moves": [{**MOVE, "p": -1}]}}, "greater than 0"),
        ({"process": {"moves": []}}, "at least 1"),
        ({"environment": "FrozenLake-v1", "discount": 1.0}, "less than or equal"),
        ({"environment": "FrozenLake-v1", "steps": 10**9}, "less than or equal"),
        ({"log": [{"episode": "e", "state": [float("nan")], "action": "a", "reward": 0, "next_state": "b"}]}, "finite"),
    ],
)
async def test_bad_input_is_refused_by_field(fields: dict[str, Any], message: str) -> None:
    """Before anything is computed."""
    with pytest.raises(ValidationError, match=message):
        Input.model_validate(fields)


async def test_it_proves_itself() -> None:
    """The self-test passes."""
    await Reinforcement(probe=make_context()).post_swap_test()
