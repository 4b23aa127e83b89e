"""Regular series: frequencies, slots, seasons, filled gaps."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from neuroedge.kit.forecasting import grows_with_level, mase, seasonal_naive
from neuroedge.kit.series import SeriesError, filled, frequency_of, regular, repeats, season_of

START = datetime(2020, 1, 31, tzinfo=UTC)


@pytest.mark.parametrize(
    ("step", "name"), [(60, "minute"), (3600, "hour"), (86_400, "day"), (604_800, "week"), (2_629_746, "month")]
)
def test_the_frequency_is_that_of_the_usual_step(step: float, name: str) -> None:
    """A gap changes nothing."""
    times = [START + timedelta(seconds=step * i) for i in range(20) if i != 7]
    assert frequency_of(times) == name


def test_an_unusual_step_is_refused() -> None:
    """Nothing is guessed."""
    with pytest.raises(SeriesError, match="no known frequency"):
        frequency_of([START + timedelta(hours=5 * i) for i in range(20)])


def test_months_end_on_different_days() -> None:
    """Ends of months are one slot each, and so are those to come."""
    times = [datetime(2020, m, d, tzinfo=UTC) for m, d in ((1, 31), (2, 29), (3, 31), (5, 31))]
    found = regular([1.0, 2.0, 3.0, 5.0], times, "month")
    np.testing.assert_array_equal(found.values, [1, 2, 3, np.nan, 5])
    assert found.at(12) == datetime(2021, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("season", [4, 7, 12, 24])
def test_a_season_is_found_in_the_values(season: int) -> None:
    """Not a multiple of it; noise has none."""
    t, rng = np.arange(10 * season), np.random.default_rng(0)
    shape = rng.normal(size=season)
    assert season_of(shape[t % season] * 5 + rng.normal(size=len(t)) * 0.3 + 0.1 * t) == season
    assert season_of(rng.normal(size=200)) == 1
    assert repeats(shape[t % season], season)
    assert not repeats(np.arange(50.0), 12)


def test_gaps_are_filled_from_the_same_season() -> None:
    """A missing peak is a peak, not the line between its neighbours."""
    y = np.tile([0.0, 0.0, 9.0, 0.0], 5)
    y[10] = np.nan
    assert filled(y, 4)[10] == 9
    assert filled(y, 1)[10] == 0


def test_measures_are_as_defined() -> None:
    """Seasonal naive repeats the last season; its MASE within the history is 1; logarithms where spread grows."""
    y = np.array([1.0, 2, 3, 4, 2, 3, 4, 5])
    assert seasonal_naive(y, horizon=6, season=4).tolist() == [2, 3, 4, 5, 2, 3]
    assert mase(np.array([3.0]), np.array([2.0]), history=y, season=4) == 1
    t = np.arange(96)
    assert grows_with_level(np.exp(0.03 * t) * (2 + np.sin(2 * np.pi * t / 12)), 12)
    assert not grows_with_level(100 + t + 5 * np.sin(2 * np.pi * t / 12), 12)
