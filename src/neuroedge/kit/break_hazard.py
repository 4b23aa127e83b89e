"""When someone will want a break: a discrete-time hazard model over a person's earlier sessions.

Each session is cut into periods of five minutes; a logistic model with a ridge penalty gives the probability that the
break comes in a period, given that it has not come before (Singer & Willett 1993), from the time already worked and
from how slow the period before was.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]

PERIOD_S: Final = 300.0
MIN_SESSIONS: Final = 8
MIN_BREAKS: Final = 5
MAX_PERIODS: Final = 288
"""A day."""
_PENALTY: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkedSession:
    """How long a session lasted, whether a break ended it, and how slow (z) each of its periods was."""

    duration_s: float
    took_break: bool
    slowness: Sequence[float]
    """Of each period from the start; missing ones count as usual (0)."""


@dataclass(frozen=True, slots=True)
class Hazard:
    """A fitted model."""

    _fitted: Any
    _mean: Doubles
    _scale: Doubles

    def next_period(self, *, elapsed_s: float, slowness: float) -> float:
        """Probability of a break in the next five minutes; `slowness` is that of the five minutes before."""
        row = (_features(int(elapsed_s // PERIOD_S), slowness) - self._mean) / self._scale
        return float(self._fitted.predict_proba(row[None, :])[0, 1])

    def median_s(self, *, elapsed_s: float, slowness: float, ahead: int = 24) -> float | None:
        """When, from the session's start, the probability of a break first reaches one half; None within `ahead`."""
        going_on = 1.0
        for period in range(ahead):
            at_s = elapsed_s + period * PERIOD_S
            going_on *= 1 - self.next_period(elapsed_s=at_s, slowness=slowness)
            if going_on <= 0.5:
                return at_s
        return None


def fit(sessions: Sequence[WorkedSession]) -> Hazard:
    """The hazard of these sessions; ValueError below MIN_SESSIONS or MIN_BREAKS."""
    from sklearn.linear_model import LogisticRegression

    breaks = sum(s.took_break for s in sessions)
    if len(sessions) < MIN_SESSIONS or breaks < MIN_BREAKS:
        raise ValueError(
            f"{len(sessions)} earlier sessions with {breaks} breaks, needs {MIN_SESSIONS} with {MIN_BREAKS}"
        )
    rows, events = person_periods(sessions)
    mean, scale = rows.mean(axis=0), np.maximum(rows.std(axis=0), 1e-6)
    if events.all():
        raise ValueError("every session ends in its first five minutes: nothing to learn from")
    fitted = LogisticRegression(C=1 / _PENALTY, max_iter=500).fit((rows - mean) / scale, events)
    return Hazard(fitted, mean, scale)


def person_periods(sessions: Sequence[WorkedSession]) -> tuple[Doubles, NDArray[np.bool_]]:
    """Features [n, 2] and events [n], a row for each period of each session that was worked in.

    A period that was left for another reason than a break is not counted: nobody knows how it would have ended.
    """
    rows: list[Doubles] = []
    events: list[bool] = []
    for session in sessions:
        last = min(int(session.duration_s // PERIOD_S), MAX_PERIODS)
        for period in range(last + 1 if session.took_break else last):
            before = session.slowness[period - 1] if 1 <= period <= len(session.slowness) else 0.0
            rows.append(_features(period, before))
            events.append(session.took_break and period == last)
    return np.array(rows).reshape(-1, 2), np.array(events, bool)


def _features(period: int, slowness: float) -> Doubles:
    return np.array([np.log1p(period), slowness])
