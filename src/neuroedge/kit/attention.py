"""How attentive someone is against their own usual: a score, its interval, and stretches of like attention.

Slowing, irregularity and lapses of reaction are what sleep loss and time on task do to attention (Dinges & Powell 1985;
Basner & Dinges 2011). Every measure is compared with the same person's earlier sessions, never with other people.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]

WINDOW: Final = 20
"""Responses over which attention is measured."""
MIN_BASELINE: Final = 40
"""Responses of earlier sessions below which there is no usual to compare with."""
LAPSE_RATIO: Final = 2.0
"""A reaction this many times one's usual median is a lapse: 500 ms at the 250 ms of a rested vigilance test."""
MEASURES: Final = ("log_reaction", "variation", "lapses", "idle")
SMALLEST_SPREAD: Final = np.array([0.04, 0.05, 0.05, 0.05])
"""Differences below these are noise, however even the baseline is."""
Z_LIMITS: Final = (-1.0, 4.0)
"""Quicker and steadier than usual does not make up for much: hasty guessing is quick too."""
RESAMPLES: Final = 400
_BLOCK: Final = 4
MIN_SEGMENTED: Final = 60
_SMALLEST_SIGNAL: Final = 0.02
_STATES: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Reactions in the order they came, milliseconds, and the share of the time spent idle."""

    reactions_ms: Doubles
    idle_share: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Usual:
    """Mean and spread of the measures over a person's earlier windows; `median_ms` decides what a lapse is."""

    mean: Doubles
    spread: Doubles
    median_ms: float
    windows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """`value` 0 to 100, 50 is usual for this person; `z` is positive where attention is worse than usual."""

    value: float
    low: float
    high: float
    measures: Doubles
    z: Doubles


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Responses `first` up to, not including, `stop`; `slow` of the two states, None where there is only one."""

    first: int
    stop: int
    slow: bool | None


def counts(session: Stretch) -> bool:
    """Whether an earlier session tells of the usual: a single response has no variation."""
    return len(session.reactions_ms) > 1


def usual(sessions: Sequence[Stretch]) -> Usual:
    """A person's usual, from windows of their earlier sessions; ValueError below MIN_BASELINE responses that count."""
    alone = sum(len(s.reactions_ms) for s in sessions if not counts(s))
    sessions = [s for s in sessions if counts(s)]
    everything = np.concatenate([s.reactions_ms for s in sessions]) if sessions else np.empty(0)
    if len(everything) < MIN_BASELINE:
        more = f"; {alone} more stand alone in their sessions" if alone else ""
        raise ValueError(f"{len(everything)} earlier responses, needs {MIN_BASELINE}{more}")
    median_ms = float(np.median(everything))
    windows = [
        measures(s.reactions_ms[start : start + WINDOW], idle_share=s.idle_share, median_ms=median_ms)
        for s in sessions
        for start in range(0, max(1, len(s.reactions_ms) - WINDOW // 2), WINDOW)
    ]
    values = np.array(windows)
    spread = values.std(axis=0, ddof=1) if len(values) > 1 else np.zeros(len(MEASURES))
    return Usual(
        mean=values.mean(axis=0),
        spread=np.maximum(spread, SMALLEST_SPREAD),
        median_ms=median_ms,
        windows=len(values),
    )


def measures(reactions_ms: Doubles, *, idle_share: float, median_ms: float) -> Doubles:
    """Of [..., n] reactions, [..., 4]: exponentially weighted mean log reaction (the newest count most), variation
    (sd/mean), lapses, idle share."""
    logs = np.log(reactions_ms)
    weights = (1 - 2 / (WINDOW + 1)) ** np.arange(logs.shape[-1])[::-1]
    mean = np.average(logs, axis=-1, weights=weights)
    variation = reactions_ms.std(axis=-1) / reactions_ms.mean(axis=-1)
    lapses = (reactions_ms > LAPSE_RATIO * median_ms).mean(axis=-1)
    return np.stack([mean, variation, lapses, np.full(np.shape(mean), idle_share)], axis=-1)


def score(now: Stretch, own: Usual, *, seed: int = 0) -> Score:
    """Attention in the last WINDOW reactions of `now`; the interval is of 95 % (moving-block bootstrap)."""
    recent = now.reactions_ms[-WINDOW:]
    value = measures(recent, idle_share=now.idle_share, median_ms=own.median_ms)
    z = against(value, own)
    rng = np.random.default_rng(seed)
    block = min(_BLOCK, len(recent))
    starts = rng.integers(0, len(recent) - block + 1, (RESAMPLES, -(-len(recent) // block)))
    drawn = recent[(starts[..., None] + np.arange(block)).reshape(RESAMPLES, -1)[:, : len(recent)]]
    again = measures(drawn, idle_share=now.idle_share, median_ms=own.median_ms)
    scores = [points(row) for row in against(again, own)]
    low, high = np.percentile(scores, [2.5, 97.5])
    return Score(value=points(z), low=float(low), high=float(high), measures=value, z=z)


def against(value: Doubles, own: Usual) -> Doubles:
    """How many spreads each measure is worse than usual, within Z_LIMITS."""
    return np.clip((value - own.mean) / own.spread, *Z_LIMITS)


def points(z: Doubles) -> float:
    """0 to 100: the share of one's own usual that the mean z is better than, were it normal."""
    return 100 * NormalDist().cdf(-float(z.mean()))


def segments(reactions_ms: Doubles) -> list[Segment]:
    """Stretches of two states of attention (hidden Markov model, Gaussian log reactions; Rabiner 1989).

    One stretch where one state explains the reactions as well (BIC), or there are fewer than MIN_SEGMENTED.
    """
    logs = np.log(reactions_ms)
    whole = [Segment(first=0, stop=len(logs), slow=None)]
    if len(logs) < MIN_SEGMENTED or logs.std() < _SMALLEST_SIGNAL:
        return whole
    states, means, better = _two_states(logs)
    if not better:
        return whole
    edges = [0, *(np.flatnonzero(np.diff(states)) + 1).tolist(), len(states)]
    slow = int(np.argmax(means))
    return [Segment(first=a, stop=b, slow=bool(states[a] == slow)) for a, b in pairwise(edges)]


def _two_states(logs: Doubles) -> tuple[NDArray[np.int64], Doubles, bool]:
    """State of each response, the states' means, and whether two states beat one by BIC."""
    from hmmlearn.hmm import GaussianHMM

    x = ((logs - logs.mean()) / logs.std())[:, None]
    # States last: about 20 responses, unless the data say otherwise.
    model = GaussianHMM(_STATES, covariance_type="diag", min_covar=1e-2, n_iter=50, init_params="c", random_state=0)
    model.startprob_ = np.array([0.5, 0.5])
    model.transmat_ = np.array([[0.95, 0.05], [0.05, 0.95]])
    model.means_ = np.percentile(x, [25, 75])[:, None]
    model.fit(x)
    one = -0.5 * len(x) * (np.log(2 * np.pi) + 1)
    two = float(model.score(x))
    better = 7 * np.log(len(x)) - 2 * two < 2 * np.log(len(x)) - 2 * one
    return np.asarray(model.predict(x), np.int64), np.asarray(model.means_[:, 0], np.float64), bool(better)
