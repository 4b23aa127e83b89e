"""Time series made regular: slots of equal length, missing values known and filled, the season found or checked."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import MAXYEAR, UTC, datetime, timedelta
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

Frequency = Literal["minute", "hour", "day", "week", "month", "quarter", "year"]
Floats = NDArray[np.float64]

SEASON: Final[dict[Frequency, int]] = {
    "minute": 60,
    "hour": 24,
    "day": 7,
    "week": 52,
    "month": 12,
    "quarter": 4,
    "year": 1,
}
"""Slots after which a series of a frequency usually repeats."""
_SECONDS: Final[dict[Frequency, float]] = {"minute": 60, "hour": 3600, "day": 86_400, "week": 604_800}
_MONTHS: Final[dict[Frequency, int]] = {"month": 1, "quarter": 3, "year": 12}
_USUAL_S: Final[dict[Frequency, float]] = {**_SECONDS, "month": 2_629_746, "quarter": 7_889_238, "year": 31_556_952}
_TOLERANCE: Final = 0.15
"""A step may differ from the frequency's usual one by this share."""
MAX_SLOTS: Final = 20_000
_Z90: Final = 1.645
_LEAST: Final = 0.3
"""A weaker autocorrelation is no season, however long the series."""


class SeriesError(ValueError):
    """What is wrong with a series, for whoever sent it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Regular:
    """Values of slots of equal length, NaN where there is none."""

    values: Floats
    start: datetime | None
    frequency: Frequency | None
    warnings: list[str]

    def at(self, slot: int) -> datetime | None:
        """The beginning of a slot, also of one to come; None for a series without times. Raises SeriesError after the
        year 9999."""
        if self.start is None or self.frequency is None:
            return None
        months = _MONTHS.get(self.frequency)
        try:
            if months is None:
                return self.start + timedelta(seconds=_SECONDS[self.frequency] * slot)
            year, month = divmod(self.start.year * 12 + self.start.month - 1 + months * slot, 12)
            return self.start.replace(year=year, month=month + 1, day=min(self.start.day, 28))
        except (OverflowError, ValueError) as error:
            raise SeriesError(f"slot {slot} lies beyond the year {MAXYEAR}, where the calendar ends") from error


def frequency_of(times: Sequence[datetime]) -> Frequency:
    """That of the usual step. Raises SeriesError where the times have none."""
    steps = np.diff([t.timestamp() for t in times])
    usual = float(np.median(steps))
    for name, seconds in _USUAL_S.items():
        if abs(usual - seconds) <= _TOLERANCE * seconds:
            if (np.abs(steps / seconds - np.round(steps / seconds)) > _TOLERANCE).mean() > 0.1:
                raise SeriesError("the times are irregular: give `frequency`, and they are put into slots of it")
            return name
    raise SeriesError(f"a usual step of {usual:.6g} s is no known frequency: give `frequency`, or no times")


def regular(values: Sequence[float | None], times: Sequence[datetime] | None, frequency: Frequency | None) -> Regular:
    """Values by slot. Several in a slot are averaged only where the frequency is given. Raises SeriesError."""
    numbers = np.array([np.nan if v is None else v for v in values], float)
    if times is None:
        return Regular(values=numbers, start=None, frequency=frequency, warnings=[])
    if len(times) != len(values):
        raise SeriesError(f"{len(values)} values but {len(times)} times")
    times = [_utc(t, i) for i, t in enumerate(times)]
    for i in range(1, len(times)):
        if times[i] <= times[i - 1]:
            raise SeriesError(f"time {i + 1} is not later than the one before: sort them, each once")
    found = frequency or frequency_of(times)
    start = _slot_start(times[0], found)
    slots = np.array([_slot(t, start, found) for t in times])
    if slots[-1] >= MAX_SLOTS:
        raise SeriesError(f"the times span {slots[-1] + 1} slots of a {found}, at most {MAX_SLOTS} are read")
    doubled = len(slots) - len(set(slots.tolist()))
    if doubled and frequency is None:
        raise SeriesError(f"{doubled} values share a {found} with another: give `frequency` to average them")
    kept = np.full(int(slots[-1]) + 1, np.nan)
    for slot in np.unique(slots):
        here = numbers[slots == slot]
        if not np.isnan(here).all():
            kept[slot] = np.nanmean(here)
    warnings = [f"{doubled} values share a {found} with another: averaged"] if doubled else []
    empty = len(kept) - len(set(slots.tolist()))
    if empty:
        warnings.append(f"{empty} of {len(kept)} slots have no value: filled from their neighbours")
    return Regular(values=kept, start=start, frequency=found, warnings=warnings)


def _utc(at: datetime, place: int) -> datetime:
    try:
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except OverflowError as error:
        raise SeriesError(
            f"`times.{place}` is outside the calendar, which goes from year 1 to {MAXYEAR} in UTC"
        ) from error


def _slot_start(at: datetime, frequency: Frequency) -> datetime:
    """Slots begin with the first time; those of months at its month's first day."""
    if frequency in _MONTHS:
        return at.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return at


def _slot(at: datetime, start: datetime, frequency: Frequency) -> int:
    months = _MONTHS.get(frequency)
    if months is not None:
        return ((at.year - start.year) * 12 + at.month - start.month) // months
    return round((at - start).total_seconds() / _SECONDS[frequency] - 1e-9)


def filled(values: Floats, season: int) -> Floats:
    """Missing values from the same season's neighbours where there are any, else on the line between neighbours."""
    known = ~np.isnan(values)
    result = np.interp(np.arange(len(values)), np.flatnonzero(known), values[known])
    if season > 1:
        for i in np.flatnonzero(~known):
            near = [values[j] for j in (i - season, i + season) if 0 <= j < len(values) and known[j]]
            if near:
                result[i] = float(np.mean(near))
    return result


def season_of(values: Floats, *, longest: int = 60) -> int:
    """The lag of the highest significant autocorrelation of the differences; 1 where none is."""
    x = _steps(values)
    longest = min(longest, len(values) // 3)
    if longest < 2 or not np.ptp(x):
        return 1
    r = autocorrelation(x, longest)
    # A peak, and not the side of another one.
    peaks = [lag for lag in range(2, longest + 1) if r[lag] > r[lag - 1] and (lag == longest or r[lag] >= r[lag + 1])]
    best = max(peaks, key=lambda lag: r[lag], default=1)
    if best == 1:
        return 1
    # Multiples of a season are as high: the shortest that comes close is it.
    best = min(lag for lag in peaks if r[lag] >= 0.9 * r[best])
    return best if r[best] > _bound(len(x)) else 1


def repeats(values: Floats, season: int) -> bool:
    """Whether the autocorrelation of the differences at the season is significant (90 %)."""
    x = _steps(values)
    if season < 2 or len(values) < 2 * season + 2 or not np.ptp(x):
        return False
    return bool(autocorrelation(x, season)[season] > _bound(len(x)))


def _steps(values: Floats) -> Floats:
    """Ranks of the differences: one false value hides no season."""
    from scipy.stats import rankdata

    return np.asarray(rankdata(np.diff(values)), float)


def _bound(n: int) -> float:
    return max(_LEAST, _Z90 / float(np.sqrt(n)))


def autocorrelation(x: Floats, longest: int) -> Floats:
    """At the lags 0 to `longest`."""
    c = x - x.mean()
    total = float(c @ c)
    return np.array([float(c[: len(c) - lag] @ c[lag:]) / total for lag in range(longest + 1)])
