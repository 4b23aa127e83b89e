"""Forecasts of a series with intervals, and what stands out in a series or among rows.

Forecast: the mean of exponential smoothing (ETS, Hyndman et al. 2002), Optimised Theta (Fiorucci et al. 2016) and
ARIMA (Hyndman & Khandakar 2008), through statsforecast (Apache-2.0), with 80 and 95 % intervals; of months and
quarters the last ten years count. It is checked on the end of the series itself against seasonal naive. Anomalies:
values off a robust STL decomposition (Cleveland et al. 1990); stretches whose shape comes nowhere else (matrix profile,
Yeh et al. 2016); rows that are easily set apart (isolation forest, Liu et al. 2008).

Limits: one series at a time, no other variables; the future is taken to go on as the past did. Intervals say what the
models' errors make of that, not what a change of the world does. Demand that is mostly zero needs other methods.
Anomalies are what is unusual in these data, not what is wrong.
"""

import asyncio
from datetime import datetime
from typing import Annotated, ClassVar, Final, Literal

import numpy as np
from pydantic import BaseModel, Field, model_validator

from neuroedge.contract.engine import Engine, EngineContext, EngineInput, EngineOutput
from neuroedge.contract.errors import InvalidInput, ModelUnavailable
from neuroedge.kit import anomalies, series
from neuroedge.kit.forecasting import MEMBERS, Floats, Forecast, Member, forecast, mase, seasonal_naive
from neuroedge.kit.series import Frequency, Regular, SeriesError

MAX_VALUES: Final = 5000
MAX_HORIZON: Final = 500
MIN_VALUES: Final = 12
MIN_ROWS: Final = 30
MOST_MISSING: Final = 0.4
MANY_MISSING: Final = 0.1
MAX_ROWS: Final = 20_000
MAX_COLUMNS: Final = 50
_MAX_SEASON: Final = 366
_INTERMITTENT: Final = 0.3

Number = Annotated[float, Field(ge=-1e15, le=1e15, allow_inf_nan=False)]


class Input(EngineInput):
    """A series, or rows, or both."""

    values: list[Number | None] | None = Field(
        default=None, min_length=1, max_length=MAX_VALUES, description="The series in order of time; null is missing."
    )
    times: list[datetime] | None = Field(
        default=None,
        max_length=MAX_VALUES,
        description="When each value was (ISO 8601; UTC without offset), ascending; without times they are even.",
    )
    frequency: Frequency | None = Field(
        default=None,
        description="minute to year; found from the times when not given. Given, irregular times are put"
        " into its slots.",
    )
    season: int | None = Field(
        default=None,
        ge=1,
        le=_MAX_SEASON,
        description="Steps after which it repeats, 1 for none; found when not given.",
    )
    horizon: int = Field(default=0, ge=0, le=MAX_HORIZON, description="Steps to forecast; 0 for anomalies only.")
    members: list[Member] = Field(
        default=list(MEMBERS), min_length=1, max_length=3, description="Methods whose mean is the forecast."
    )
    check: bool = Field(default=True, description="Try the method on the end of the series: twice the time.")
    threshold: float = Field(
        default=4.0, ge=2, le=20, allow_inf_nan=False, description="Robust standard deviations that make an anomaly."
    )
    window: int | None = Field(
        default=None, ge=4, le=1000, description="Steps of a stretch to look for unusual shapes; none when not given."
    )
    rows: list[Annotated[list[Number | None], Field(min_length=1, max_length=MAX_COLUMNS)]] | None = Field(
        default=None, min_length=1, max_length=MAX_ROWS, description="Rows of numbers to find unusual ones among."
    )
    row_share: float = Field(
        default=0.02, gt=0, le=0.5, allow_inf_nan=False, description="Largest share of rows that may be named unusual."
    )

    @model_validator(mode="after")
    def _something(self) -> "Input":
        if self.values is None and self.rows is None:
            raise ValueError("give 'values', 'rows' or both")
        if self.values is None and (self.horizon or self.times or self.window):
            raise ValueError("'horizon', 'times' and 'window' go with 'values'")
        return self


class Anomaly(BaseModel):
    """A value or a stretch that stands out."""

    kind: Literal["value", "stretch"] = Field(description="A single value, or a stretch of an unusual shape.")
    index: int = Field(description="Step from 0, of a stretch its first.")
    length: int = Field(description="Steps.")
    at: datetime | None = Field(default=None, description="Its time, where the series has times.")
    value: float | None = Field(default=None, description="The value.")
    expected: float | None = Field(default=None, description="What trend and season let expect.")
    score: float = Field(description="Robust standard deviations from what is usual.")


class RowAnomaly(BaseModel):
    """A row that is easily set apart."""

    index: int = Field(description="Row from 0.")
    score: float = Field(description="0 to 1; about 0.5 where nothing stands out.")


class Check(BaseModel):
    """How the method did on the end of the series, from what came before."""

    steps: int = Field(description="Values it was tried on.")
    mase: float = Field(description="Mean absolute error over that of seasonal naive steps in the history.")
    mase_seasonal_naive: float = Field(description="The same of repeating the last season.")


class Output(EngineOutput):
    """The forecast, and what stands out."""

    n: int = Field(description="Values of the series that are not missing.")
    n_missing: int = Field(description="Steps without a value.")
    frequency: Frequency | None = Field(description="Of the times, or as given.")
    season: int = Field(description="Steps after which it repeats; 1: it does not.")
    season_from: Literal["given", "frequency", "data", "none"] = Field(description="Where the season comes from.")
    times: list[datetime] = Field(default_factory=list, description="Of the steps to come.")
    mean: list[float] = Field(default_factory=list, description="The forecast.")
    lo80: list[float] = Field(default_factory=list, description="Lower bound of the 80 % interval.")
    hi80: list[float] = Field(default_factory=list, description="Upper bound of the 80 % interval.")
    lo95: list[float] = Field(default_factory=list, description="Lower bound of the 95 % interval.")
    hi95: list[float] = Field(default_factory=list, description="Upper bound of the 95 % interval.")
    n_used: int = Field(default=0, description="Latest steps the forecast rests on: of months and quarters ten years.")
    members: list[Member] = Field(default_factory=list, description="Methods that are in the mean.")
    logarithm: bool = Field(default=False, description="Whether ARIMA saw logarithms: the spread grows with the level.")
    check: Check | None = Field(default=None, description="How the method did on the end of the series.")
    anomalies: list[Anomaly] = Field(default_factory=list, description="In the series, the strongest first.")
    rows: list[RowAnomaly] = Field(default_factory=list, description="Unusual rows, the strongest first.")
    reliable: bool = Field(description="Whether the check was won and the series is long and whole enough.")
    warnings: list[str] = Field(description="What to know before relying on it.")


def _example() -> Input:
    months = np.arange(60)
    noise = np.random.default_rng(4).normal(0, 2, 60)
    values = 100 + 0.8 * months + 15 * np.sin(2 * np.pi * months / 12) + noise
    values[37] += 40
    times = [datetime.fromisoformat(f"{2020 + m // 12}-{m % 12 + 1:02}-01T00:00:00+00:00") for m in months.tolist()]
    return Input(values=values.round(1).tolist(), times=times, horizon=6, members=["ets", "theta"])


class Forecasting(Engine[Input, Output]):
    """Forecast a series with intervals; find what stands out in it, or among rows."""

    name = "forecasting"
    title = "Forecasts with intervals, and anomalies"
    method = "ets-theta-arima-mean"
    example = _example()
    timeout_s: ClassVar[float] = 180.0

    async def run(self, payload: Input, ctx: EngineContext) -> Output:
        """Forecast and look. Raises InvalidInput for a series that is too short, too empty or irregular."""
        out = Output(
            method=self.method if payload.horizon else "stl-matrix-profile-isolation-forest",
            n=0,
            n_missing=0,
            frequency=None,
            season=1,
            season_from="none",
            reliable=True,
            warnings=[],
        )
        if payload.values is not None:
            await _series(payload, out, ctx)
        if payload.rows is not None:
            out.rows = await asyncio.to_thread(_unusual, payload.rows, payload.row_share)
        return out

    async def post_swap_test(self) -> None:
        """The example, whose season and planted value must be found."""
        answer = await self.run(self.example, self.probe)
        if answer.season != 12 or 37 not in [a.index for a in answer.anomalies]:
            raise ModelUnavailable("forecasting does not see its example's season and anomaly")


async def _series(payload: Input, out: Output, ctx: EngineContext) -> None:
    assert payload.values is not None
    try:
        found = series.regular(payload.values, payload.times, payload.frequency)
    except SeriesError as error:
        raise InvalidInput(str(error), hint="ascending times, one value each; or no times for even steps") from error
    _ahead(found, payload.horizon)
    known = ~np.isnan(found.values)
    out.n, out.n_missing, out.frequency = int(known.sum()), int((~known).sum()), found.frequency
    out.warnings += found.warnings
    _refuse(found, payload)
    out.season, out.season_from = await asyncio.to_thread(_season, found, payload, out.warnings)
    y = series.filled(found.values, out.season)
    _doubts(y, out)
    if payload.horizon:
        await ctx.progress("forecasting", 0.1)
        await _forecast(y, found, payload, out)
    await ctx.progress("anomalies", 0.9)
    out.anomalies = await asyncio.to_thread(_anomalies, y, known, found, payload, out.season)


def _ahead(found: Regular, horizon: int) -> None:
    """Raise InvalidInput where the steps to come leave the calendar."""
    try:
        found.at(len(found.values) + horizon - 1)
    except SeriesError as error:
        raise InvalidInput(
            f"`horizon` reaches too far: {error}", hint="ask for fewer steps, or check `times`"
        ) from error


def _refuse(found: Regular, payload: Input) -> None:
    """What nothing can be said of."""
    known = int((~np.isnan(found.values)).sum())
    if known < MIN_VALUES:
        raise InvalidInput(f"{known} values are too few", hint=f"send at least {MIN_VALUES} that are not missing")
    if known < (1 - MOST_MISSING) * len(found.values):
        raise InvalidInput(
            f"{len(found.values) - known} of {len(found.values)} steps have no value",
            hint="at most 40 % may be missing; a lower frequency has fewer gaps",
        )
    if payload.season and payload.season > 1 and len(found.values) < 2 * payload.season:
        raise InvalidInput(
            f"{len(found.values)} steps are fewer than two seasons of {payload.season}", hint="send more, or season 1"
        )
    if payload.window and len(found.values) < 4 * payload.window:
        raise InvalidInput("the window is longer than a quarter of the series", hint="send a shorter `window`")


def _season(
    found: Regular, payload: Input, warnings: list[str]
) -> tuple[int, Literal["given", "frequency", "data", "none"]]:
    """Given, or that of the frequency where the values show it, or the one the values show."""
    if payload.season is not None:
        return payload.season, "given"
    y = series.filled(found.values, 1)
    if found.frequency is not None:
        usual = series.SEASON[found.frequency]
        if series.repeats(y, usual):
            return usual, "frequency"
        return 1, "none"
    season = series.season_of(y)
    if season == 1:
        return 1, "none"
    warnings.append(f"a season of {season} steps was found in the values: give `season` if it is another")
    return season, "data"


def _doubts(y: Floats, out: Output) -> None:
    """Mark what makes a forecast or an anomaly doubtful."""
    steps = out.n + out.n_missing
    if out.n_missing > MANY_MISSING * steps:
        out.reliable = False
        out.warnings.append(f"{out.n_missing} of {steps} values are missing: filled from their neighbours")
    if (y == 0).mean() > _INTERMITTENT and (y >= 0).all():
        out.reliable = False
        out.warnings.append("mostly zero: methods for intermittent demand would suit better")
    if out.season > 1 and len(y) < 3 * out.season:
        out.reliable = False
        out.warnings.append(f"{len(y)} values are fewer than three seasons of {out.season}")


async def _forecast(y: Floats, found: Regular, payload: Input, out: Output) -> None:
    members = tuple(m for m in MEMBERS if m in payload.members)
    season, horizon = out.season, payload.horizon
    if not np.ptp(y):
        _constant(float(y[0]), horizon, out)
    else:
        try:
            told = await asyncio.to_thread(forecast, y, horizon=horizon, season=season, members=members)
        except ValueError as error:
            raise InvalidInput(f"no method fits this series: {error}", hint="check its values and season") from error
        _fill(told, out)
        if payload.check:
            await _checked(y, horizon, season, members, out)
        else:
            out.reliable = False
            out.warnings.append("not checked on the end of the series")
    out.times = [at for i in range(horizon) if (at := found.at(len(y) + i)) is not None]
    if horizon > max(len(y) // 2, 2 * season):
        out.reliable = False
        out.warnings.append(f"{horizon} steps ahead is far for {len(y)} values")


def _constant(value: float, horizon: int, out: Output) -> None:
    out.method, out.reliable = "constant", False
    out.mean = out.lo80 = out.hi80 = out.lo95 = out.hi95 = [value] * horizon
    out.warnings.append("the series never changes: nothing is known of how far off this may be")


def _fill(told: Forecast, out: Output) -> None:
    out.mean, out.members, out.logarithm = told.mean.tolist(), told.members, told.logarithm
    out.n_used = told.used
    out.lo80, out.hi80 = told.low[80].tolist(), told.high[80].tolist()
    out.lo95, out.hi95 = told.low[95].tolist(), told.high[95].tolist()
    out.warnings += told.failed
    out.method = "-".join([*told.members, "mean"]) if len(told.members) > 1 else told.members[0]


async def _checked(y: Floats, horizon: int, season: int, members: tuple[Member, ...], out: Output) -> None:
    """Forecast the end from what is before it, at most a third of the series."""
    steps = min(horizon, len(y) // 3)
    past, truth = y[:-steps], y[-steps:]
    if len(past) < max(MIN_VALUES, 2 * season) or not np.ptp(past):
        out.reliable = False
        out.warnings.append("too short to be checked on its own end")
        return
    try:
        told = await asyncio.to_thread(forecast, past, horizon=steps, season=season, members=members)
    except ValueError:
        out.reliable = False
        out.warnings.append("no method fits the beginning of the series: not checked")
        return
    naive = seasonal_naive(past, horizon=steps, season=season)
    ours = mase(truth, told.mean, history=past, season=season)
    theirs = mase(truth, naive, history=past, season=season)
    if not np.isfinite(ours):
        out.reliable = False
        out.warnings.append("the series repeats itself exactly: not checked")
        return
    out.check = Check(steps=steps, mase=round(ours, 4), mase_seasonal_naive=round(theirs, 4))
    if ours >= theirs:
        out.reliable = False
        out.warnings.append("on the end of the series, repeating the last season was no worse")


def _anomalies(y: Floats, known: np.ndarray, found: Regular, payload: Input, season: int) -> list[Anomaly]:
    marked = [
        Anomaly(
            kind="value",
            index=o.index,
            length=1,
            at=found.at(o.index),
            value=float(y[o.index]),
            expected=round(o.expected, 6),
            score=round(o.score, 3),
        )
        for o in anomalies.outliers(y, season=season, threshold=payload.threshold)
        if known[o.index]
    ]
    if payload.window:
        marked += [
            Anomaly(kind="stretch", index=d.index, length=d.length, at=found.at(d.index), score=round(d.score, 3))
            for d in anomalies.discords(y, window=payload.window, threshold=payload.threshold)
        ]
    return sorted(marked, key=lambda a: -a.score)


def _unusual(rows: list[list[float | None]], share: float) -> list[RowAnomaly]:
    width = len(rows[0])
    for i, row in enumerate(rows):
        if len(row) != width:
            raise InvalidInput(f"row {i + 1} has {len(row)} numbers, the first has {width}", hint="rows of one length")
    if len(rows) < MIN_ROWS:
        raise InvalidInput(f"{len(rows)} rows are too few", hint=f"send at least {MIN_ROWS}")
    table = np.array([[np.nan if v is None else v for v in row] for row in rows], float)
    table = table[:, ~np.isnan(table).all(axis=0)]
    if not table.shape[1]:
        raise InvalidInput("every number of the rows is missing", hint="send numbers")
    scores = anomalies.row_scores(table)
    most = max(1, int(share * len(rows)))
    named = [int(i) for i in np.argsort(-scores)[:most] if scores[i] > 0.6]
    return [RowAnomaly(index=i, score=round(float(scores[i]), 4)) for i in named]
