"""Rules of aggregation against closed forms, plain loops and attackers; the accountant against the exact formula."""

import math

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import brentq

from neuroedge.kit.federated import weights
from neuroedge.kit.federated.aggregation import adam_step, clip, combine, krum_selection, mean, trimmed_mean
from neuroedge.kit.federated.privacy import epsilon

RNG = np.random.default_rng(7)
HONEST = RNG.normal(1.0, 0.1, (9, 40)).astype(np.float32)


def test_the_mean_weighs_by_examples() -> None:
    """FedAvg by hand."""
    assert mean(np.array([[1, 2], [4, 8]], np.float32), [3, 1]) == pytest.approx([1.75, 3.5])


def test_the_trimmed_mean_is_scipys() -> None:
    """Per coordinate, with two of nine cut from each end."""
    assert trimmed_mean(HONEST, trim=2) == pytest.approx(stats.trim_mean(HONEST, 2 / 9, axis=0), rel=1e-5)


def test_krum_keeps_what_plain_loops_keep() -> None:
    """Scores as the paper writes them, without any matrix."""
    points = np.vstack([HONEST, RNG.normal(30, 1, (3, 40)).astype(np.float32)])
    n, f = len(points), 3
    scores = []
    for i in range(n):
        others = sorted(
            sum((a - b) ** 2 for a, b in zip(points[i], points[j], strict=True)) for j in range(n) if j != i
        )
        scores.append(sum(others[: n - f - 2]))
    assert krum_selection(points, attackers=f) == sorted(np.argsort(scores)[: n - f - 2].tolist())


@pytest.mark.parametrize("rule", ["trimmed_mean", "multi_krum"])
def test_robust_rules_withstand_what_ruins_the_mean(rule: str) -> None:
    """Three of twelve send something huge."""
    updates = np.vstack([HONEST, np.full((3, 40), -1000.0, np.float32)])
    found = combine(updates, rule=rule, attackers=3)  # type: ignore[arg-type]
    assert np.abs(found.step - 1.0).max() < 0.3
    assert np.abs(combine(updates, rule="mean").step - 1.0).max() > 100
    assert {9, 10, 11} <= set(found.rejected) or rule == "trimmed_mean"


def test_too_few_clients_for_so_many_attackers_are_refused() -> None:
    """Each rule names how many it needs."""
    with pytest.raises(ValueError, match="needs 5"):
        combine(HONEST[:4], rule="trimmed_mean", attackers=2)
    with pytest.raises(ValueError, match="needs 7"):
        combine(HONEST[:6], rule="multi_krum", attackers=2)


def test_clipping_shortens_only_what_is_too_long() -> None:
    """A huge one as well as one of zeros."""
    found, shortened = clip(np.array([[3e20, 4e20], [0.3, 0.4], [0, 0]], np.float32), 1.0)
    assert found == pytest.approx(np.array([[0.6, 0.8], [0.3, 0.4], [0, 0]]))
    assert shortened == 1


def test_noise_has_the_deviation_it_is_accounted_with() -> None:
    """z·C/n per coordinate; robust rules and weights are refused."""
    zeros = np.zeros((10, 20_000), np.float32)
    found = combine(zeros, rule="mean", clip_norm=2.0, noise_multiplier=1.5, rng=np.random.default_rng(0))
    assert found.step.std() == pytest.approx(1.5 * 2.0 / 10, rel=0.03)
    for wrong in ({"rule": "trimmed_mean", "attackers": 1}, {"rule": "mean", "counts": np.ones(10)}):
        with pytest.raises(ValueError, match="noise"):
            combine(zeros, clip_norm=2.0, noise_multiplier=1.0, **wrong)


def test_fedadam_is_the_papers_recursion() -> None:
    """Three rounds by hand in one dimension."""
    state, m, v = None, 0.0, 1e-6
    for delta in (0.5, -0.2, 0.1):
        step, state = adam_step(np.array([delta], np.float32), state, rate=0.1)
        m, v = 0.9 * m + 0.1 * delta, 0.99 * v + 0.01 * delta**2
        assert step[0] == pytest.approx(0.1 * m / (math.sqrt(v) + 1e-3), rel=1e-4)


@pytest.mark.parametrize("accountant", ["pld", "rdp"])
def test_epsilon_is_no_less_than_the_exact_one(accountant: str) -> None:
    """Balle and Wang (2018): k rounds of Gaussian noise z are one with z/sqrt(k)."""
    z, rounds, delta = 2.0, 10, 1e-5
    mu = math.sqrt(rounds) / z

    def excess(e: float) -> float:
        return float(stats.norm.cdf(mu / 2 - e / mu) - math.exp(e) * stats.norm.cdf(-mu / 2 - e / mu) - delta)

    exact = brentq(excess, 0, 50)
    found = epsilon(noise_multiplier=z, rounds=rounds, delta=delta, accountant=accountant)  # type: ignore[arg-type]
    assert exact - 1e-3 <= found <= exact * (1.01 if accountant == "pld" else 1.2)


def test_no_round_spends_nothing_and_sampling_spends_less() -> None:
    """What each accountant is asked for."""
    assert epsilon(noise_multiplier=1, rounds=0, delta=1e-5) == 0
    whole = epsilon(noise_multiplier=1, rounds=5, delta=1e-5)
    assert 0 < epsilon(noise_multiplier=1, rounds=5, delta=1e-5, sampling=0.1) < whole
    with pytest.raises(ValueError, match="rdp"):
        epsilon(noise_multiplier=0.3, rounds=1000, delta=1e-5, accountant="pld")


def test_weights_go_through_npz_and_one_vector_unchanged() -> None:
    """Also a scalar; equal weights give equal bytes."""
    given = weights.of_lists({"w": [[1, 2], [3, 4]], "b": 0.5})
    data = weights.to_npz(given)
    assert data == weights.to_npz(dict(reversed(given.items())))
    shapes = weights.shapes_of(given)
    again = weights.shaped(weights.flat(weights.of_npz(data), shapes), shapes)
    assert {name: array.tolist() for name, array in again.items()} == {"w": [[1, 2], [3, 4]], "b": 0.5}


@pytest.mark.parametrize(
    "wrong",
    [{}, {"w": []}, {"w": [[1, 2], [3]]}, {"w": ["a"]}, {"w": [float("nan")]}, {"w": [1e39]}, {"w": None}, {"w": [{}]}],
)
def test_what_is_no_weights_is_refused(wrong: object) -> None:
    """Empty, ragged, words, NaN, too large for float32."""
    with pytest.raises(ValueError, match="array"):
        weights.of_lists(wrong)  # type: ignore[arg-type]


def test_npz_bombs_and_pickles_are_refused() -> None:
    """Before they are unpacked."""
    import io

    bomb, pickled = io.BytesIO(), io.BytesIO()
    np.savez_compressed(bomb, w=np.zeros(5_000_000, np.float32))
    np.savez(pickled, w=np.array([{}], dtype=object))
    for data in (bomb.getvalue(), pickled.getvalue(), b"", b"PK\x03\x04 broken", bomb.getvalue()[:-40]):
        with pytest.raises(ValueError, match=r"\S"):
            weights.of_npz(data)
