"""The recommendation engine: what it learns, explores, evaluates, refuses."""

import asyncio
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from neuroedge.contract.errors import InvalidInput
from neuroedge.engines.decision.recommendation import Input, Interaction, Output, Recommendation
from neuroedge.kit.bandit import Choice, LinearBandit
from neuroedge.kit.logged_choices import BanditRule
from tests.fakes import make_context

pytestmark = pytest.mark.anyio


def _logs(n: int, *, seed: int = 0) -> list[Interaction]:
    """Two items shown at random; `b` earns more where the context is positive."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(n):
        item, x = "ab"[rng.integers(2)], float(rng.choice([-1.0, 1.0]))
        p = 0.8 if (item == "b") == (x > 0) else 0.2
        rows.append(Interaction(item=item, context=[x], value=float(rng.random() < p), propensity=0.5))
    return rows


def _tastes(*, users: int = 60, items: int = 30, rated: int = 12, seed: int = 0) -> list[Interaction]:
    """Two camps, each of which rates its half of the items high."""
    rng = np.random.default_rng(seed)
    return [
        Interaction(
            user=f"u{u}", item=f"i{i}", value=float(np.clip(2.5 + 2 * (u % 2 == i % 2) + rng.normal(0, 0.3), 1, 5))
        )
        for u in range(users)
        for i in rng.choice(items, rated, replace=False)
    ]


async def _run(**fields: Any) -> Output:
    ctx = make_context()
    return await Recommendation(probe=ctx).run(Input(**fields), ctx)


@pytest.mark.parametrize("method", ["thompson", "linucb"])
async def test_a_bandit_prefers_what_earned_more_in_this_context(method: str) -> None:
    """The same items in the other order for the other context, with propensities that sum to one."""
    for x, best in ((1.0, "b"), (-1.0, "a")):
        output = await _run(interactions=_logs(400), context=[x], method=method, seed=3)
        assert max(output.items, key=lambda i: i.score).id == best
        assert max(output.items, key=lambda i: i.propensity).id == best
        assert sum(i.propensity for i in output.items) == pytest.approx(1)
        assert min(i.propensity for i in output.items) >= 0.05 / 2 - 1e-12
        assert output.reliable


async def test_the_first_item_is_drawn_by_its_propensity() -> None:
    """Over many seeds, as often as it says."""
    logs = [Interaction(item="a", value=1.0), Interaction(item="b", value=0.0)] * 3
    drawn = [(await _run(interactions=logs, seed=s)).items[0] for s in range(300)]
    told = {i.id: i.propensity for i in drawn}
    share = sum(i.id == "b" for i in drawn) / len(drawn)
    assert share == pytest.approx(told["b"], abs=0.09)


@pytest.mark.parametrize("exploration", [5e-324, 1e-18, 1e-9])
async def test_hardly_any_exploration_is_none(exploration: float) -> None:
    """The best item but for the share of random ones; equals share, as without exploration."""
    for earned in ([1.0, 0.0, 0.0], [1.0, 1.0, 0.0]):
        logs = [Interaction(item="abc"[k % 3], value=earned[k % 3]) for k in range(60)]
        told = [
            {i.id: i.propensity for i in (await _run(interactions=logs, seed=1, exploration=size)).items}
            for size in (exploration, 0.0)
        ]
        assert told[0] == pytest.approx(told[1], abs=1e-6)


async def test_an_evaluation_whose_caller_has_left_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread ranks the context it is at, and no further one."""
    ranked: list[float] = []
    begun, choice = threading.Event(), BanditRule.choice

    def slow(rule: BanditRule, bandit: LinearBandit, context: Sequence[float]) -> Choice:
        ranked.append(context[0])
        if len(ranked) == 3:
            begun.set()
        time.sleep(0.01)
        return choice(rule, bandit, context)

    monkeypatch.setattr(BanditRule, "choice", slow)
    logs = [row.model_copy(update={"context": [k / 1000]}) for k, row in enumerate(_logs(1000))]
    call = asyncio.create_task(_run(interactions=logs, context=[1.0], evaluate=True))
    assert await asyncio.to_thread(begun.wait, 60)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    left = len(ranked)
    await asyncio.sleep(0.3)
    assert len(ranked) <= left + 1


async def test_a_target_that_shows_nothing_is_valued_without_a_weighted_mean() -> None:
    """The answer says that the evaluation rests on nothing."""
    logs = [row.model_copy(update={"target_propensity": 0.0}) for row in _logs(200)]
    output = await _run(interactions=logs, context=[1.0], evaluate=True)
    assert [v.estimator for v in output.evaluation if v.policy == "target"] == ["ips"]
    assert "effective choices" in output.warnings[-1]
    assert not output.reliable


async def test_an_item_nobody_tried_is_explored_and_marked() -> None:
    """It may come first, and the answer says that its score is a guess."""
    output = await _run(interactions=_logs(40), context=[1.0], candidates=["a", "b", "new"], seed=0)
    new = next(i for i in output.items if i.id == "new")
    assert new.propensity > 0
    assert new.why == "never tried yet"
    assert not output.reliable


async def test_the_learned_policy_is_valued_above_the_logged_one() -> None:
    """Uniform logging earns 0.5, knowing the context 0.8 at most; every interval holds its own value."""
    output = await _run(interactions=_logs(3000), context=[1.0], evaluate=True, explore_share=0.0, exploration=0.1)
    told = {(v.policy, v.estimator): v for v in output.evaluation}
    assert told["logged", "mean"].value == pytest.approx(0.5, abs=0.05)
    for estimator in ("ips", "snips", "dr"):
        value = told["learned", estimator]
        assert value.ci95[0] < value.value < value.ci95[1]
        assert value.ci95[0] < 0.8 < value.ci95[1] + 0.02
    assert told["learned", "dr"].ci95[1] - told["learned", "dr"].ci95[0] < (
        told["learned", "ips"].ci95[1] - told["learned", "ips"].ci95[0]
    )


async def test_the_callers_own_policy_is_valued() -> None:
    """Always `a` earns what `a` earned."""
    logs = [row.model_copy(update={"target_propensity": float(row.item == "a")}) for row in _logs(2000)]
    output = await _run(interactions=logs, context=[1.0], evaluate=True)
    own = next(v for v in output.evaluation if (v.policy, v.estimator) == ("target", "snips"))
    assert own.value == pytest.approx(np.mean([r.value for r in logs if r.item == "a"]))


@pytest.mark.parametrize("method", ["ratings", "uses"])
async def test_factors_find_the_camp_and_beat_the_baseline(method: str) -> None:
    """What is recommended to somebody of the first camp belongs to it, is unseen, and is explained."""
    rows = _tastes()
    liked = rows if method == "ratings" else [r for r in rows if r.value > 3.5]
    output = await _run(interactions=liked, method=method, user="u0", limit=4, explore_share=0.0, rank=4)
    assert {int(i.id[1:]) % 2 for i in output.items} == {0}
    assert not {i.id for i in output.items} & {r.item for r in liked if r.user == "u0"}
    assert output.held_out is not None
    assert output.reliable
    assert ("taste" in output.items[0].why) == (method == "ratings")


async def test_a_user_nobody_knows_gets_what_all_like() -> None:
    """And is told so."""
    output = await _run(interactions=_tastes(), method="uses", user="stranger")
    assert any("nothing is known of this user" in w for w in output.warnings)
    assert not output.reliable


async def test_too_little_is_refused_with_what_is_missing() -> None:
    """No taste of three people, no evaluation of ten choices, nothing to choose from."""
    with pytest.raises(InvalidInput, match="too few to estimate taste"):
        await _run(interactions=_tastes(users=3), method="uses", user="u0")
    with pytest.raises(InvalidInput, match="needs 100"):
        await _run(interactions=_logs(10), context=[1.0], evaluate=True)
    with pytest.raises(InvalidInput, match="nothing to recommend"):
        await _run(interactions=[])
    with pytest.raises(InvalidInput, match="no candidate is left"):
        await _run(interactions=_tastes(), method="uses", user="u0", candidates=["unheard-of"])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"interactions": [{"item": "a", "value": 2}]}, "interactions.0.value"),
        ({"interactions": [{"item": "a", "value": float("nan")}]}, "finite"),
        ({"interactions": [{"item": "", "value": 1}]}, "at least 1"),
        ({"interactions": [{"item": "a", "context": [1.0]}]}, "context"),
        ({"interactions": [{"item": "a"}], "method": "uses"}, "'user'"),
        ({"interactions": [{"item": "a"}], "method": "uses", "user": "u"}, "interactions.0.user"),
        ({"interactions": [{"item": "a", "user": "u", "value": -1}], "method": "uses", "user": "u"}, "strength"),
        ({"interactions": [{"item": "a", "propensity": 0}]}, "greater than 0"),
        ({"interactions": [{"item": "a"}], "evaluate": True}, "propensity is missing"),
        ({"interactions": [{"item": "a"}], "candidates": []}, "at least 1"),
        ({"interactions": "a"}, "valid list"),
    ],
)
async def test_bad_input_is_refused_by_field(fields: dict[str, Any], message: str) -> None:
    """Before anything is computed."""
    with pytest.raises(ValidationError, match=message):
        Input.model_validate(fields)


async def test_it_proves_itself() -> None:
    """The self-test passes."""
    await Recommendation(probe=make_context()).post_swap_test()
