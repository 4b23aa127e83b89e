"""Combining clients' updates [n, d] into one step: mean, robust means, clipping with noise, the server's optimiser.

FedAvg (McMahan et al., 2017), coordinate-wise trimmed mean (Yin et al., 2018), multi-Krum (Blanchard et al., 2017),
DP-FedAvg (McMahan et al., 2018), FedAdam (Reddi et al., 2021).
"""

from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from neuroedge.kit.federated.weights import Vector

Doubles = npt.NDArray[np.float64]
Rule = Literal["mean", "trimmed_mean", "multi_krum"]
_COLUMNS_AT_ONCE: Final = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Adam:
    """What FedAdam keeps between rounds: both moments [d]."""

    m: Vector
    v: Vector


@dataclass(frozen=True, slots=True, kw_only=True)
class Combined:
    """One step for the model."""

    step: Vector
    rejected: list[int]
    """Positions of updates that had no part in it."""
    clipped: int
    """Updates that were longer than the bound."""


def least_clients(rule: Rule, *, attackers: int) -> int:
    """The fewest updates with which the rule withstands so many attackers; 1 for the mean, which withstands none."""
    return {"mean": 1, "trimmed_mean": 2 * attackers + 1, "multi_krum": 2 * attackers + 3}[rule]


def combine(
    updates: Vector,
    *,
    rule: Rule,
    counts: npt.ArrayLike | None = None,
    attackers: int = 0,
    clip_norm: float | None = None,
    noise_multiplier: float = 0.0,
    rng: np.random.Generator | None = None,
) -> Combined:
    """Combine updates [n, d]; `counts` [n] weigh them (the mean only; all alike when None).

    `clip_norm` bounds each update's L2 norm; with `noise_multiplier` z the sum gets N(0, (z·clip_norm)²) per coordinate
    before it is divided by n, and nothing is weighed. Raises ValueError where the parts do not go together.
    """
    if len(updates) < least_clients(rule, attackers=attackers):
        least = least_clients(rule, attackers=attackers)
        raise ValueError(f"{rule} against {attackers} attackers needs {least} updates; there are {len(updates)}")
    if noise_multiplier > 0 and (rule != "mean" or clip_norm is None or counts is not None):
        raise ValueError("noise is calibrated for the unweighted mean of clipped updates only")
    clipped = 0
    if clip_norm is not None:
        updates, clipped = clip(updates, clip_norm)
    if rule == "trimmed_mean":
        return Combined(step=trimmed_mean(updates, trim=attackers), rejected=[], clipped=clipped)
    if rule == "multi_krum":
        kept = krum_selection(updates, attackers=attackers)
        rejected = sorted(set(range(len(updates))) - set(kept))
        return Combined(step=mean(updates[kept]), rejected=rejected, clipped=clipped)
    step = mean(updates, counts)
    if noise_multiplier > 0 and clip_norm is not None:
        step = noisy(step, clip_norm=clip_norm, noise_multiplier=noise_multiplier, clients=len(updates), rng=rng)
    return Combined(step=step, rejected=[], clipped=clipped)


def mean(updates: Vector, counts: npt.ArrayLike | None = None) -> Vector:
    """The mean [d] of updates [n, d], weighed by `counts` [n]."""
    weights: Doubles = np.ones(len(updates)) if counts is None else np.asarray(counts, np.float64)
    return _narrow(np.tensordot(weights / weights.sum(), updates.astype(np.float64), axes=1))


def trimmed_mean(updates: Vector, *, trim: int) -> Vector:
    """Per coordinate: the mean without the `trim` smallest and the `trim` largest values."""
    n, d = updates.shape
    found = np.empty(d, np.float64)
    for start in range(0, d, _COLUMNS_AT_ONCE):
        part = np.sort(updates[:, start : start + _COLUMNS_AT_ONCE], axis=0)[trim : n - trim]
        found[start : start + _COLUMNS_AT_ONCE] = part.astype(np.float64).mean(axis=0)
    return _narrow(found)


def krum_selection(updates: Vector, *, attackers: int) -> list[int]:
    """The n - f - 2 updates with the smallest sums of squared distances to their n - f - 2 nearest others."""
    n = len(updates)
    near = n - attackers - 2
    points = updates.astype(np.float64)
    points -= np.median(points, axis=0)  # distances stay; squares lose less
    squares = np.einsum("ij,ij->i", points, points)
    distances = np.maximum(squares[:, None] + squares[None, :] - 2 * points @ points.T, 0.0)
    np.fill_diagonal(distances, np.inf)
    scores = np.sort(distances, axis=1)[:, :near].sum(axis=1)
    return sorted(np.argsort(scores, kind="stable")[:near].tolist())


def clip(updates: Vector, bound: float) -> tuple[Vector, int]:
    """Updates no longer than `bound` (L2), and how many were shortened."""
    norms = np.linalg.norm(updates.astype(np.float64), axis=1)
    factors = np.minimum(1.0, bound / np.maximum(norms, np.finfo(np.float64).tiny))
    return (updates * factors[:, None]).astype(np.float32), int((norms > bound).sum())


def noisy(
    step: Vector, *, clip_norm: float, noise_multiplier: float, clients: int, rng: np.random.Generator | None = None
) -> Vector:
    """The mean of `clients` updates with Gaussian noise for a sum of sensitivity `clip_norm`."""
    generator = rng or np.random.default_rng()
    deviation = noise_multiplier * clip_norm / clients
    return _narrow(step.astype(np.float64) + generator.normal(0.0, deviation, step.shape))


def adam_step(
    step: Vector, state: Adam | None, *, rate: float, beta1: float = 0.9, beta2: float = 0.99, tau: float = 1e-3
) -> tuple[Vector, Adam]:
    """FedAdam's step for an averaged update, and its moments for the next round (Reddi et al., 2021, algorithm 2)."""
    before = state or Adam(m=np.zeros_like(step), v=np.full_like(step, tau**2))
    m = beta1 * before.m.astype(np.float64) + (1 - beta1) * step
    v = beta2 * before.v.astype(np.float64) + (1 - beta2) * step.astype(np.float64) ** 2
    return _narrow(rate * m / (np.sqrt(v) + tau)), Adam(m=_narrow(m), v=_narrow(v))


def moved(base: Vector, step: Vector, *, rate: float = 1.0) -> Vector:
    """The base plus `rate` times the step. Raises ValueError for what is too large for float32."""
    return _narrow(base.astype(np.float64) + rate * step.astype(np.float64))


def _narrow(values: npt.NDArray[Any]) -> Vector:
    with np.errstate(over="ignore"):
        found = values.astype(np.float32)
    if not np.isfinite(found).all():
        raise ValueError("the combined weights are too large for float32")
    return found
