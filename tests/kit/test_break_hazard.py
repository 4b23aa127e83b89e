"""The hazard of a break: learnt from earlier sessions, refused on too few."""

import numpy as np
import pytest

from neuroedge.kit.break_hazard import PERIOD_S, WorkedSession, fit, person_periods


def _sessions(n: int, *, seed: int = 0) -> list[WorkedSession]:
    """Breaks whose true hazard grows with time and slowness."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        slow = rng.standard_normal(40)
        period = 0
        while period < 39:
            before = slow[period - 1] if period else 0.0
            if rng.random() < 1 / (1 + np.exp(3 - np.log1p(period) - before)):
                break
            period += 1
        found.append(
            WorkedSession(duration_s=(period + 0.5) * PERIOD_S, took_break=period < 39, slowness=slow.tolist())
        )
    return found


def test_a_constant_hazard_is_learnt() -> None:
    """The geometric law: the mean of the predicted hazard is the share of periods that ended in a break."""
    rng = np.random.default_rng(1)
    sessions = [
        WorkedSession(duration_s=float(rng.geometric(0.2)) * PERIOD_S - 1, took_break=True, slowness=[])
        for _ in range(300)
    ]
    hazard = fit(sessions)
    assert hazard.next_period(elapsed_s=900, slowness=0) == pytest.approx(0.2, abs=0.04)


def test_time_and_slowness_raise_it() -> None:
    """As in the sessions it was fitted to."""
    hazard = fit(_sessions(200))
    assert hazard.next_period(elapsed_s=3600, slowness=0) > hazard.next_period(elapsed_s=0, slowness=0)
    assert hazard.next_period(elapsed_s=1200, slowness=2) > hazard.next_period(elapsed_s=1200, slowness=-2) + 0.2
    soon, late = (hazard.median_s(elapsed_s=1200, slowness=z) for z in (2.0, -2.0))
    assert soon is not None
    assert late is None or soon < late


def test_a_session_that_ended_otherwise_is_censored_in_its_last_period() -> None:
    """Three whole periods were survived; the fourth is nobody's."""
    rows, events = person_periods([WorkedSession(duration_s=1000, took_break=False, slowness=[])])
    assert (len(rows), events.sum()) == (3, 0)
    rows, events = person_periods([WorkedSession(duration_s=1000, took_break=True, slowness=[])])
    assert (len(rows), events.tolist()) == (4, [False, False, False, True])


def test_too_few_sessions_or_breaks_are_refused() -> None:
    """And sessions that all end at once teach nothing."""
    with pytest.raises(ValueError, match="needs 8 with 5"):
        fit(_sessions(7))
    with pytest.raises(ValueError, match="20 earlier sessions with 0 breaks"):
        fit([WorkedSession(duration_s=600, took_break=False, slowness=[])] * 20)
    with pytest.raises(ValueError, match="first five minutes"):
        fit([WorkedSession(duration_s=10, took_break=True, slowness=[])] * 20)
