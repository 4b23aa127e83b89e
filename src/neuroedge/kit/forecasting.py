"""Forecasts of one series: the mean of exponential smoothing, Theta and ARIMA, with intervals.

ETS (Hyndman et al. 2002), Optimised Theta (Fiorucci et al. 2016) and ARIMA (Hyndman & Khandakar 2008), each chosen by
AICc or least squares through `statsforecast`; means and interval bounds are averaged, which is hard to beat (M4:
Makridakis et al. 2020; Petropoulos & Svetunkov 2020). Where the spread grows with the level, ARIMA sees logarithms; ETS
has multiplicative forms of its own, and so has Theta's season. Of months and quarters only the last ten years are
looked at: where growth has changed, what was decades ago misleads (Pesaran & Timmermann 2007).
"""

import warnings
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Member = Literal["ets", "theta", "arima"]
MEMBERS: Final[tuple[Member, ...]] = ("ets", "theta", "arima")
LEVELS: Final = (80, 95)
_LONG_SEASON: Final = 24
"""Beyond it, ETS and ARIMA cannot hold the season: it is taken out first, and put back on."""
_MAX_ARIMA_CHANGES: Final = 30
WINDOW_SEASONS: Final = 10
"""Seasons a forecast rests on, at most; chosen on 17 other series than those of benchmarks/forecasting.py."""
_WINDOWED: Final = (4, 12)
"""Seasons that was measured for: quarters and months. Series of others are taken whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Means and bounds of the steps to come; `members` are those that answered, `failed` says why others did not."""

    mean: Floats
    low: dict[int, Floats]
    high: dict[int, Floats]
    members: list[Member]
    failed: list[str]
    logarithm: bool
    used: int
    """Steps it rests on, the latest."""


def forecast(y: Floats, *, horizon: int, season: int, members: tuple[Member, ...] = MEMBERS) -> Forecast:
    """Of a series without gaps. Raises ValueError when no member answers, or the series never changes."""
    if not np.ptp(y):
        raise ValueError("the series never changes")
    y = recent(y, season)
    logarithm = grows_with_level(y, season) and "arima" in members
    told, failed = dict[Member, dict[str, Floats]](), list[str]()
    for member in members:
        try:
            told[member] = _answer(member, y, horizon, season, logarithm=logarithm and member == "arima")
        except Exception as error:  # a library's numerics may fail in any way on somebody's data
            failed.append(f"{member} did not fit: {str(error)[:120]}")
    if not told:
        raise ValueError("; ".join(failed))
    least = 0.0 if (y >= 0).all() else -np.inf

    def joined(key: str) -> Floats:
        return np.asarray(np.maximum(np.mean([answer[key] for answer in told.values()], axis=0), least), float)

    return Forecast(
        mean=joined("mean"),
        low={level: joined(f"lo-{level}") for level in LEVELS},
        high={level: joined(f"hi-{level}") for level in LEVELS},
        members=list(told),
        failed=failed,
        logarithm=logarithm and "arima" in told,
        used=len(y),
    )


def recent(y: Floats, season: int) -> Floats:
    """The last seasons of months or quarters, unless nothing changes in them; else the series."""
    last = y[-WINDOW_SEASONS * season :] if season in _WINDOWED else y
    return last if np.ptp(last) else y


def seasonal_naive(y: Floats, *, horizon: int, season: int) -> Floats:
    """The last season again."""
    return np.resize(y[-season:], horizon)


def mase(truth: Floats, said: Floats, *, history: Floats, season: int) -> float:
    """Mean absolute error over that of seasonal naive steps within the history (Hyndman & Koehler 2006)."""
    steps = float(np.abs(history[season:] - history[:-season]).mean())
    return float(np.abs(truth - said).mean()) / steps if steps else float("inf")


def grows_with_level(y: Floats, season: int) -> bool:
    """Whether the spread within seasons (or blocks of 8) grows about as the level does: then logarithms are even."""
    if (y <= 0).any():
        return False
    length = season if season > 1 else 8
    blocks = y[len(y) % length :].reshape(-1, length)
    if len(blocks) < 4:
        return False
    level, spread = blocks.mean(axis=1), blocks.std(axis=1)
    if (spread <= 0).any() or np.ptp(np.log(level)) < 0.2:
        return False
    slope = np.polyfit(np.log(level), np.log(spread), 1)[0]
    return bool(slope > 0.5)


def _answer(member: Member, y: Floats, horizon: int, season: int, *, logarithm: bool) -> dict[str, Floats]:
    """Mean, lo-80 … hi-95 of one member. Raises ValueError for numbers that are not finite."""
    lasting = np.zeros(horizon)
    y = np.log(y) if logarithm else y
    if season > _LONG_SEASON and member != "theta":
        y, lasting = _without_season(y, season, horizon)
        season = 1
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        told: dict[str, Any] = _model(member, season).forecast(y=y, h=horizon, level=list(LEVELS))
    keys = ["mean", *(f"{end}-{level}" for level in LEVELS for end in ("lo", "hi"))]
    found = {key: np.asarray(told[key], float) + lasting for key in keys}
    if logarithm:
        found = {key: np.exp(values) for key, values in found.items()}
    if not all(np.isfinite(values).all() for values in found.values()):
        raise ValueError("its forecast is not finite")
    return found


def _model(member: Member, season: int) -> Any:
    from statsforecast.models import AutoARIMA, AutoETS, DynamicOptimizedTheta

    if member == "ets":
        return AutoETS(season_length=season)
    if member == "theta":
        return DynamicOptimizedTheta(season_length=season)
    return AutoARIMA(season_length=season, approximation=True, nmodels=_MAX_ARIMA_CHANGES)


def _without_season(y: Floats, season: int, horizon: int) -> tuple[Floats, Floats]:
    """The series less its mean season, and that season for the steps to come."""
    trend = np.convolve(
        np.pad(y, (season // 2, season - 1 - season // 2), mode="edge"), np.ones(season) / season, "valid"
    )
    off = y - trend
    profile = np.array([off[i::season].mean() for i in range(season)])
    profile -= profile.mean()
    ahead = np.arange(len(y), len(y) + horizon) % season
    return y - profile[np.arange(len(y)) % season], profile[ahead]
