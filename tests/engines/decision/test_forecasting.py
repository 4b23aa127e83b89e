"""The forecasting engine: a known season, gaps, irregular times, short series, planted anomalies, bad input."""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from neuroedge.contract.errors import InvalidInput
from neuroedge.engines.decision.forecasting import Forecasting, Input, Output
from neuroedge.kit.forecasting import recent
from tests.fakes import make_context

pytestmark = pytest.mark.anyio


def _values(n: int = 60, *, season: int = 12, noise: float = 1.0) -> list[float]:
    t = np.arange(n)
    drawn = np.random.default_rng(2).normal(0, noise, n)
    return list((50 + 0.5 * t + 10 * np.sin(2 * np.pi * t / season) + drawn).tolist())


async def _run(**payload: Any) -> Output:
    context = make_context()
    fast = {"members": ["ets", "theta"], **payload}
    return await Forecasting(probe=context).run(Input.model_validate(fast), context)


async def test_a_trend_with_a_season_goes_on() -> None:
    """The truth lies in the intervals, these lie in each other, and the check is won."""
    values = _values(72)
    told = await _run(values=values[:60], season=12, horizon=12)
    inside = [lo <= v <= hi for lo, v, hi in zip(told.lo95, values[60:], told.hi95, strict=True)]
    assert sum(inside) >= 9
    for lo95, lo80, mean, hi80, hi95 in zip(told.lo95, told.lo80, told.mean, told.hi80, told.hi95, strict=True):
        assert lo95 < lo80 < mean < hi80 < hi95
    assert told.check is not None
    assert told.check.mase < told.check.mase_seasonal_naive
    assert told.reliable
    assert told.method == "ets-theta-mean"
    assert told.times == []


async def test_growth_that_ended_long_ago_does_not_go_on() -> None:
    """Twenty years of growth, then eleven without: the forecast stays level, and says on how many steps it rests."""
    months = np.arange(31 * 12)
    level = 100 + np.minimum(months, 20 * 12) * 1.0
    values = level + 10 * np.sin(2 * np.pi * months / 12) + np.random.default_rng(5).normal(0, 2, len(months))
    told = await _run(values=values.tolist(), season=12, horizon=24, check=False)
    assert told.n_used == 120
    assert np.mean(told.mean) == pytest.approx(340, abs=6)


async def test_a_series_that_stands_still_at_its_end_is_taken_whole() -> None:
    """Ten seasons without any change tell nothing."""
    told = await _run(values=[*_values(48), *[80.0] * 120], season=12, horizon=2, check=False)
    assert told.n_used == 168


def test_only_months_and_quarters_are_shortened() -> None:
    """Ten years of both; weeks of days are taken whole."""
    values = np.arange(400.0)
    assert {season: len(recent(values, season)) for season in (1, 4, 7, 12)} == {1: 400, 4: 40, 7: 400, 12: 120}


async def test_times_give_frequency_season_and_the_times_to_come() -> None:
    """Months of different length are one step each; a missing month is told."""
    times = [datetime(2019 + m // 12, m % 12 + 1, 1, tzinfo=UTC) for m in range(60)]
    values: list[float | None] = [*_values(60)]
    del times[20], values[20]
    told = await _run(values=values, times=times, horizon=2, check=False)
    assert (told.frequency, told.season, told.season_from) == ("month", 12, "frequency")
    assert (told.n, told.n_missing) == (59, 1)
    assert told.times == [datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 2, 1, tzinfo=UTC)]
    assert any("1 of 60 slots" in w for w in told.warnings)
    assert not told.reliable


async def test_irregular_times_are_refused_or_put_into_slots() -> None:
    """Only where the caller names the frequency are several values of a day averaged, and said to be."""
    rng = np.random.default_rng(1)
    start = datetime(2024, 1, 1, tzinfo=UTC)
    hours = np.cumsum(rng.uniform(1, 23, 90))
    times = [start + timedelta(hours=float(h)) for h in hours]
    values = rng.normal(10, 1, 90).tolist()
    with pytest.raises(InvalidInput, match="frequency"):
        await _run(values=values, times=times)
    told = await _run(values=values, times=times, frequency="day")
    assert any("averaged" in w for w in told.warnings)


async def test_a_planted_value_and_a_planted_shape_are_found() -> None:
    """The value in robust deviations, the stretch by the matrix profile; nothing else."""
    values = _values(240, noise=0.5)
    values[100] += 30
    told = await _run(values=values, season=12)
    assert [a.index for a in told.anomalies] == [100]
    wave = [float(np.sin(i / 5)) for i in range(400)]
    wave[200:220] = [float(np.cos(i * 1.7)) for i in range(20)]
    stretches = [
        a for a in (await _run(values=wave, season=1, window=20, threshold=6)).anomalies if a.kind == "stretch"
    ]
    assert stretches
    assert 180 <= stretches[0].index <= 220


async def test_unusual_rows_are_named() -> None:
    """Two rows far from all; a missing number is no error."""
    table: list[list[float | None]] = np.random.default_rng(0).normal(size=(200, 3)).tolist()
    table[10], table[50] = [9.0, -9.0, 9.0], [None, 8.0, -8.0]
    told = await _run(rows=table)
    assert {r.index for r in told.rows[:2]} == {10, 50}
    assert len(told.rows) <= 4


async def test_a_constant_series_says_that_nothing_is_known() -> None:
    """No made-up interval counts as knowledge."""
    told = await _run(values=[5.0] * 30, horizon=3)
    assert (told.mean, told.method, told.reliable) == ([5.0] * 3, "constant", False)


async def test_a_random_walk_is_marked() -> None:
    """Nothing beats repeating the last value by much: either the check is lost or the intervals are wide."""
    walk = np.cumsum(np.random.default_rng(8).normal(size=80)).tolist()
    told = await _run(values=walk, horizon=20, season=1)
    assert told.hi95[-1] - told.lo95[-1] > 3 * (told.hi95[0] - told.lo95[0]) or not told.reliable


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        ({"values": [1.0, 2.0] * 5, "horizon": 1}, "too few"),
        ({"values": [1.0, None] * 30, "horizon": 1}, "no value"),
        ({"values": [None] * 30, "horizon": 1}, "too few"),
        ({"values": [1.0, 2.0] * 10, "season": 12, "horizon": 1}, "two seasons"),
        ({"values": [1.0, 2.0] * 10, "window": 10}, "window"),
        ({"values": [1.0, 2.0] * 10, "times": ["2024-01-01T00:00:00Z"] * 20}, "not later"),
        ({"values": [1.0, 2.0] * 10, "times": ["2024-01-01T00:00:00Z"]}, "20 values but 1"),
        (
            {"values": [1.0, 2.0] * 6, "times": [f"0001-{m:02}-01T00:00:00+05:00" for m in range(1, 13)]},
            "`times.0` is outside the calendar",
        ),
        ({"values": [1.0, 2.0], "times": ["2024-01-01T00:00:00Z", "9999-12-31T23:00:00-05:00"]}, "`times.1`"),
        *(
            (
                {"values": [1.0, 2.0] * 10, "horizon": 120, "frequency": frequency, "times": times},
                "`horizon` reaches too far",
            )
            for frequency, times in (
                ("year", [f"{y}-01-01T00:00:00Z" for y in range(9970, 9990)]),
                ("month", [f"{y}-{m:02}-01T00:00:00Z" for y in (9997, 9998) for m in range(1, 11)]),
                ("day", [f"9999-11-{d:02}T00:00:00Z" for d in range(1, 21)]),
            )
        ),
        ({"rows": [[1.0, 2.0]] * 40 + [[1.0]]}, "row 41"),
        ({"rows": [[1.0]] * 5}, "too few"),
        ({"rows": [[None, None]] * 50}, "missing"),
    ],
)
async def test_what_cannot_be_answered_is_refused_with_the_reason(payload: dict[str, Any], said: str) -> None:
    """422 in words."""
    with pytest.raises(InvalidInput, match=said):
        await _run(**payload)


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"horizon": 3},
        {"values": []},
        {"values": [float("nan")] * 20},
        {"values": [float("inf")] * 20},
        {"values": ["many"] * 20},
        {"values": [1.0] * 5001},
        {"values": [1.0] * 20, "horizon": -1},
        {"values": [1.0] * 20, "horizon": 501},
        {"values": [1.0] * 20, "season": 0},
        {"values": [1.0] * 20, "members": []},
        {"values": [1.0] * 20, "members": ["oracle"]},
        {"values": [1.0] * 20, "threshold": float("inf")},
        {"values": [1e300] * 20},
        {"rows": [[]]},
        {"rows": [[1.0] * 51]},
    ],
)
def test_bad_input_is_refused(payload: dict[str, Any]) -> None:
    """By the schema, with the field."""
    with pytest.raises(ValidationError):
        Input.model_validate(payload)


async def test_it_proves_itself() -> None:
    """post_swap_test passes on the example."""
    await Forecasting(probe=make_context()).post_swap_test()
