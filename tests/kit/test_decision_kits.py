"""Bandits, factors, off-policy estimates, decision processes and queues against closed-form truth."""

from dataclasses import replace

import numpy as np
import pytest

from neuroedge.kit import bandit, mdp, off_policy, queueing
from neuroedge.kit import matrix_factorisation as factors
from neuroedge.kit.bandit import LinearBandit, p_highest
from neuroedge.kit.queueing import Duration, Station


def test_the_chance_to_be_highest_is_that_of_two_normals() -> None:
    """P(a > b) of N(0.5, 1) and N(0, 2) has a closed form; a near-certain and a vague one agree too."""
    from scipy.stats import norm

    for mean, sd in (([0.5, 0.0], [1.0, 2.0]), ([0.5, 0.4], [1e-4, 1.0])):
        expected = norm.cdf((mean[0] - mean[1]) / np.hypot(*sd))
        assert p_highest(np.array(mean), np.array(sd))[0] == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("n", [2, 3, 10, 30])
def test_the_chance_to_be_highest_is_that_of_a_fine_integral(n: int) -> None:
    """Of variables whose spreads are alike, and of such that differ by up to four orders of magnitude."""
    from scipy.stats import norm

    rng = np.random.default_rng(n)
    for spread in (0.0, 1.0, 4.0):
        mean, sd = rng.normal(size=n), 10.0 ** -rng.uniform(0, spread, n)
        points = np.sort(np.append(np.linspace(-8, 8, 20_001), (mean[:, None] + sd[:, None] * np.linspace(-8, 8, 801))))
        below = norm.cdf((points - mean[:, None]) / sd[:, None])
        middle = np.log(np.maximum((below[:, 1:] + below[:, :-1]) / 2, 1e-300))
        expected = (np.diff(below, axis=1) * np.exp(middle.sum(axis=0) - middle)).sum(axis=1)
        assert p_highest(mean, sd) == pytest.approx(expected, abs=0.003)


def test_the_chance_of_hundreds_of_items_is_integrated_over_hundreds_of_points() -> None:
    """Not over the quantiles of each: cost and memory would grow with the square of the items."""
    rng = np.random.default_rng(0)
    for sd in (np.full(500, 0.1), rng.uniform(0.01, 0.5, 500), 10.0 ** -rng.uniform(0, 9, 500)):
        assert 40 < len(bandit._grid(rng.random(500), sd)) < 2000


@pytest.mark.parametrize(
    ("mean", "sd", "expected"),
    [
        ([0.5, 0.4, 0.3], [1e-19, 1e-19, 1e-19], [1, 0, 0]),
        ([0.5, 0.4, 0.3], [0, 0, 0], [1, 0, 0]),
        ([0.5, 0.5, 0.3], [5e-324, 1e-18, 0], [0.5, 0.5, 0]),
        ([0, 0], [0, 0], [0.5, 0.5]),
        ([0, 0], [5e-324, 5e-324], [0.5, 0.5]),
        ([1e6, 1e6 - 1, 0], [0, 1e-12, 1], [1, 0, 0]),
        ([0.5, 0.5], [0, 1], [0.5, 0.5]),
    ],
)
def test_what_hardly_varies_is_highest_or_not(mean: list[float], sd: list[float], expected: list[float]) -> None:
    """No spread at all, or less than floating point tells apart: the greatest, equals in equal shares."""
    assert p_highest(np.array(mean), np.array(sd)).tolist() == pytest.approx(expected, abs=0.01)


def test_a_bandit_is_ridge_regression_and_survives_being_stored() -> None:
    """Expected rewards equal the normal equations'; the state comes back as it was."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(50, 3)), rng.random(50)
    learner = LinearBandit(features=3)
    for row, reward in zip(x, y, strict=True):
        learner.learn("a", row.tolist(), float(reward))
    design = np.column_stack([np.ones(50), x])
    weights = np.linalg.solve(design.T @ design + np.eye(4), design.T @ y)
    again = LinearBandit.of(learner.state())
    told = again.choice(["a", "b"], [0.1, 0.2, 0.3], policy="linucb", exploration=0.0, uniform=0.2)
    assert told.mean[0] == pytest.approx(weights @ [1, 0.1, 0.2, 0.3])
    assert told.propensity.tolist() == pytest.approx([0.9, 0.1])


def test_the_shares_of_past_items_sum_to_the_score() -> None:
    """Hu et al. 2008, section 5, holds exactly for a user whose factors are the solution."""
    rng = np.random.default_rng(0)
    cells = [(u, i) for u in range(20) for i in rng.choice(12, 5, replace=False)]
    table = factors.Table(
        user=np.array([u for u, _ in cells]),
        item=np.array([i for _, i in cells]),
        value=np.ones(len(cells)),
        users=20,
        items=12,
    )
    model = factors.fit_uses(table, rank=3, penalty=1.0, alpha=5.0, rounds=200, seed=0)
    _, shares = model.shares(table, 4, 7)
    assert shares.sum() == pytest.approx(model.scores(4)[7], abs=1e-3)


def test_off_policy_values_equal_their_definitions() -> None:
    """On four choices by hand; doubly robust with a perfect model has no spread."""
    reward, weight = np.array([1.0, 0.0, 1.0, 1.0]), np.array([2.0, 1.0, 0.0, 1.0])
    assert off_policy.ips(reward, weight).value == pytest.approx(0.75)
    assert off_policy.snips(reward, weight).value == pytest.approx(0.75)
    assert off_policy.effective(weight) == pytest.approx(16 / 6)
    same = off_policy.doubly_robust(reward, weight, model_q=reward, model_v=np.full(4, 0.6))
    assert (same.value, same.low, same.high) == pytest.approx((0.6, 0.6, 0.6))
    assert np.isnan(off_policy.snips(reward, np.zeros(4)).value)


def test_an_episode_valued_under_its_own_policy_is_its_return() -> None:
    """All ratios one and no model: both estimators give the mean discounted return."""
    ones, zeros = np.ones(3), np.zeros(3)
    episodes = [
        off_policy.Episode(reward=np.array(r), ratio=ones, model_q=zeros, model_v=zeros)
        for r in ([1.0, 2.0, 4.0], [0.0, 0.0, 8.0])
    ]
    expected = (1 + 1 + 1 + 2) / 2
    assert off_policy.weighted_importance(episodes, discount=0.5, seed=0).value == pytest.approx(expected)
    assert off_policy.doubly_robust_episodes(episodes, discount=0.5).value == pytest.approx(expected)


def test_episodes_of_thousands_of_steps_weigh_by_how_they_relate() -> None:
    """Products of so many ratios are beyond floating point; that of one is twice the other's."""
    one = off_policy.Episode(
        reward=np.append(np.zeros(2999), 1.0), ratio=np.full(3000, 2.0), model_q=np.zeros(3000), model_v=np.zeros(3000)
    )
    other = replace(one, reward=np.zeros(3000), ratio=np.append(np.full(2999, 2.0), 1.0))
    found = off_policy.weighted_importance([one, other], discount=1.0, seed=0)
    assert found.value == pytest.approx(2 / 3)
    assert found.effective_n == pytest.approx(1.8)


def test_value_iteration_solves_a_chain_exactly() -> None:
    """Staying earns 1 / (1 - discount); leaving for a better place earns more."""
    rows = [(0, 0, 0, 1.0, 1.0, False), (0, 1, 1, 1.0, 0.0, False), (1, 0, 1, 1.0, 3.0, False)]
    process = mdp.Mdp.of(rows, start=np.array([1.0, 0.0]), actions=2)
    q, settled = mdp.value_iteration(process, discount=0.5)
    assert settled
    assert q[0].tolist() == pytest.approx([1 + 0.5 * 3, 3.0], abs=1e-5)
    assert mdp.policy_values(process, mdp.greedy(q), discount=0.5).tolist() == pytest.approx([3.0, 6.0])
    assert not np.isfinite(q[1, 1])


@pytest.mark.parametrize("discount", [0.0, 5e-324])
def test_a_process_whose_future_is_worth_nothing_settles_on_the_rewards(discount: float) -> None:
    """The value of an action is what it earns at once."""
    rows = [(0, 0, 0, 1.0, 1.0, False), (0, 1, 0, 1.0, -2.0, False)]
    process = mdp.Mdp.of(rows, start=np.array([1.0]), actions=2)
    q, settled = mdp.value_iteration(process, discount=discount)
    assert settled
    assert q.tolist() == [[1.0, -2.0]]


def test_erlangs_formula_is_the_textbooks() -> None:
    """M/M/2 at load 0.5: the wait is a third of a service (Kleinrock 1975); M/M/1: load / (1 - load)."""
    for servers, wait in ((1, 1.0), (2, 1 / 3)):
        desk = Station(
            name="desk",
            servers=servers,
            service=Duration(law="exponential", mean_s=1),
            arrivals=Duration(law="exponential", mean_s=2 / servers),
            route={},
        )
        told = queueing.closed_form([desk])
        assert told is not None
        assert told[""].wait_s == pytest.approx(wait)
        assert told["desk"].utilisation == pytest.approx(0.5)


@pytest.mark.parametrize("law", ["exponential", "constant", "uniform", "gamma", "lognormal"])
def test_durations_have_their_mean_and_variation(law: queueing.Law) -> None:
    """Over many draws."""
    draw = Duration(law=law, mean_s=10, variation=0.4).sampler(np.random.default_rng(0))
    seen = np.array([draw() for _ in range(20_000)])
    expected = {"exponential": 10, "constant": 0}.get(law, 4)
    assert seen.mean() == pytest.approx(10, rel=0.03)
    assert seen.std() == pytest.approx(expected, rel=0.05, abs=1e-9)
    assert seen.min() >= 0


def test_long_stays_that_end_late_are_counted() -> None:
    """Nine arrive in time, each waits 5 s longer than the last: the longest are still there at the end."""
    desk = Station(
        name="desk",
        servers=1,
        service=Duration(law="constant", mean_s=15),
        arrivals=Duration(law="constant", mean_s=10),
        route={},
    )
    told, _ = queueing.run([desk], duration_s=99, warmup_s=0, seed=0)
    for name in ("", "desk"):
        assert told[name].sojourn_s == pytest.approx(15 + 5 * 8 / 2)
        assert told[name].wait_s == pytest.approx(5 * 8 / 2)
        assert told[name].throughput_per_s == pytest.approx(5 / 99)


def test_a_run_of_an_overloaded_queue_ends() -> None:
    """Who cannot leave within as long again is not waited for."""
    desk = Station(
        name="desk",
        servers=1,
        service=Duration(law="constant", mean_s=10),
        arrivals=Duration(law="constant", mean_s=1),
        route={},
    )
    told, _ = queueing.run([desk], duration_s=100, warmup_s=0, seed=0)
    assert told[""].throughput_per_s == pytest.approx(0.1, abs=0.02)
    assert told[""].present == pytest.approx(45, abs=5)
