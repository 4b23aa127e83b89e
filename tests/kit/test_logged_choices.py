"""Policies valued on logged choices: what it may cost, how it is stopped, and a target that chooses nothing."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from neuroedge.kit import logged_choices
from neuroedge.kit.bandit import Policy
from neuroedge.kit.logged_choices import BanditRule, Shown
from neuroedge.kit.refusal import Refused
from neuroedge.services import policies


def _rule(items: int, *, policy: Policy = "thompson") -> BanditRule:
    return BanditRule(candidates=[f"i{k}" for k in range(items)], policy=policy, exploration=1.0, uniform=0.1)


def _shown(n: int, *, items: int, contexts: int, features: int = 1, target: float | None = None) -> list[Shown]:
    """Choices in so many different contexts."""
    return [
        Shown(
            item=f"i{k % items}",
            context=(float(k % contexts), *[0.0] * (features - 1)),
            reward=float(k % 3 == 0),
            propensity=1 / items,
            target_propensity=target,
        )
        for k in range(n)
    ]


@pytest.mark.parametrize(
    ("policy", "items", "contexts", "features"), [("thompson", 500, 6000, 1), ("linucb", 500, 6000, 32)]
)
def test_more_contexts_and_candidates_than_can_be_ranked_in_time_are_refused_at_once(
    monkeypatch: pytest.MonkeyPatch, policy: Policy, items: int, contexts: int, features: int
) -> None:
    """Before anything is ranked, with the way out."""

    def ranked(*_: object) -> None:
        raise AssertionError("it was ranked")

    monkeypatch.setattr(BanditRule, "choice", ranked)
    rows = _shown(2 * contexts, items=2, contexts=contexts, features=features)
    with pytest.raises(Refused, match=f"{contexts} different contexts of {items} candidates") as refused:
        logged_choices.worth(rows, _rule(items, policy=policy), features=features)
    assert "round the contexts" in refused.value.hint


def test_all_that_a_recommender_keeps_can_be_evaluated() -> None:
    """Half of its choices are judged, each in a context of its own."""
    most = _rule(policies.MAX_ITEMS).cost_s(features=16) * policies.KEPT_CHOICES / 2
    assert most <= logged_choices.MAX_S


def test_a_context_that_comes_again_costs_nothing() -> None:
    """Ten thousand choices in three contexts."""
    rows = _shown(10_000, items=20, contexts=3)
    told = logged_choices.worth(rows, _rule(20), features=1)
    assert {one.policy for one in told} == {"logged", "learned"}


def test_an_evaluation_that_is_stopped_ranks_no_further_context() -> None:
    """It is asked before each one."""
    asked: list[int] = []

    def go_on() -> bool:
        asked.append(len(asked))
        return len(asked) < 4

    with pytest.raises(Refused, match="stopped"):
        logged_choices.worth(_shown(400, items=2, contexts=400), _rule(2), features=1, go_on=go_on)
    assert len(asked) == 4


def test_a_target_that_would_have_shown_nothing_has_no_self_normalised_value() -> None:
    """Without any weight there is no weighted mean; the others are numbers."""

    def estimators(rows: Sequence[Shown]) -> list[str]:
        told = [one.estimate for one in logged_choices.worth(rows, _rule(2), features=1) if one.policy == "target"]
        assert all(np.isfinite([one.value, one.low, one.high]).all() for one in told)
        return [one.estimator for one in told]

    assert estimators(_shown(200, items=2, contexts=2, target=0.0)) == ["ips"]
    assert estimators(_shown(200, items=2, contexts=2, target=0.5)) == ["ips", "snips"]


@pytest.mark.parametrize("propensity", [5e-324, 1e-300, 1e-160])
def test_propensities_too_small_to_weigh_by_are_refused(propensity: float) -> None:
    """One choice that next to never happened: its weight, or the weight's square, is no number."""
    rows = _shown(200, items=2, contexts=2)
    rows[150] = replace(rows[150], propensity=propensity)
    with pytest.raises(Refused, match="too small to weigh by"):
        logged_choices.worth(rows, _rule(2), features=1)


def test_the_smallest_target_propensities_still_weigh() -> None:
    """Only the weights' ratios count for the weighted mean: all of it on one choice gives what that one earned."""
    rows = _shown(200, items=2, contexts=2, target=0.0)
    rows[3] = replace(rows[3], target_propensity=5e-324)
    found = logged_choices.worth(rows, _rule(2), features=1)[-1].estimate
    assert (found.estimator, found.value, found.effective_n) == ("snips", rows[3].reward, 1.0)
