"""Is a learner still trying? Response-time effort, and a logistic model over what events show.

Response-time effort (S. L. Wise & X. Kong 2005, Applied Measurement in Education 18): the share of answers that took
long enough to have been thought about. The threshold of an item is 10 % of its usual time, at most 10 s (NT10; Wise &
Ma 2012); without a usual time it is 3 s for every item.

The logistic head is fitted to SIMULATED learners (benchmarks/engagement.py states the simulator). Its probabilities are
calibrated there; on real learners they have not been validated.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, log
from statistics import median
from typing import Final

NORMATIVE_SHARE: Final = 0.10
MAX_THRESHOLD_S: Final = 10.0
COMMON_THRESHOLD_S: Final = 3.0
WINDOW: Final = 10
"""Answers the features look back on."""
MIN_ANSWERS: Final = 8
_LONG_PAUSE_S: Final = 60.0
_FASTEST_S: Final = 0.1

FEATURES: Final = (
    "rapid_share",
    "speed_up",
    "wrong_share",
    "skip_share",
    "hint_share",
    "away_share",
    "pause_share",
    "last_rapid",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Try:
    """An item as a learner left it, with what happened while it was open."""

    item: str
    time_s: float
    correct: bool | None
    """None: skipped."""
    hints: int = 0
    away_s: float = 0.0
    """Time in which the page was not in front."""
    pause_before_s: float = 0.0
    """Idle time since the item before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A fitted logistic model: standardised features times weights, plus bias."""

    bias: float
    weights: Mapping[str, float]
    mean: Mapping[str, float]
    sd: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """Response-time effort: the share of answers that were not rapid."""

    rte: float
    n: int
    rapid: int
    normed: int
    """Answers judged by their item's own usual time."""


def threshold_s(item: str, usual_s: Mapping[str, float]) -> float:
    """Below this an answer is rapid."""
    usual = usual_s.get(item)
    return COMMON_THRESHOLD_S if usual is None else min(NORMATIVE_SHARE * usual, MAX_THRESHOLD_S)


def effort(tries: Sequence[Try], usual_s: Mapping[str, float]) -> Effort:
    """Of all answered items. Raises ValueError without any."""
    answered = [t for t in tries if t.correct is not None]
    if not answered:
        raise ValueError("no answers")
    rapid = sum(t.time_s < threshold_s(t.item, usual_s) for t in answered)
    normed = sum(t.item in usual_s for t in answered)
    return Effort(rte=1 - rapid / len(answered), n=len(answered), rapid=rapid, normed=normed)


def features(tries: Sequence[Try], usual_s: Mapping[str, float]) -> dict[str, float]:
    """What the last WINDOW tries show, `speed_up` against the learner's own tries before them. Raises ValueError."""
    recent, before = tries[-WINDOW:], tries[:-WINDOW]
    if not recent:
        raise ValueError("no tries")
    n = len(recent)
    rapid = [t.time_s < threshold_s(t.item, usual_s) for t in recent]
    time_s = sum(t.time_s for t in recent)
    return {
        "rapid_share": sum(rapid) / n,
        "speed_up": _pace(before or recent[: n // 2], usual_s) - _pace(recent, usual_s),
        "wrong_share": sum(t.correct is False for t in recent) / n,
        "skip_share": sum(t.correct is None for t in recent) / n,
        "hint_share": sum(min(t.hints, 3) for t in recent) / (3 * n),
        "away_share": min(1.0, sum(t.away_s for t in recent) / max(time_s, _FASTEST_S)),
        "pause_share": sum(t.pause_before_s > _LONG_PAUSE_S for t in recent) / n,
        "last_rapid": sum(rapid[-3:]) / len(rapid[-3:]),
    }


def _pace(tries: Sequence[Try], usual_s: Mapping[str, float]) -> float:
    """Median log of time over the item's usual time; of time alone where that is not known."""
    if not tries:
        return 0.0
    return median(log(max(t.time_s, _FASTEST_S) / usual_s.get(t.item, 1.0)) for t in tries)


def contributions(found: Mapping[str, float], head: Head) -> dict[str, float]:
    """What each feature adds to the logit, against the average learner of the fit."""
    return {name: head.weights[name] * (found[name] - head.mean[name]) / head.sd[name] for name in FEATURES}


def probability(found: Mapping[str, float], head: Head) -> float:
    """Of being disengaged at the last try."""
    logit = head.bias + sum(contributions(found, head).values())
    return 1 / (1 + exp(-max(-30.0, min(30.0, logit))))
