"""Engagement of simulated learners: ranking, calibration, and rapid guesses found. Simulated truth, not validity.

    python -m benchmarks.engagement [--fit]

The simulator (every number stated here; seeds 1 to fit, 2 to choose nothing, 3 to score once):
- A session has 30 to 60 items. An item's usual time is lognormal, median 25 s (sd of the logarithm 0.5), difficulty
  N(0, 1). A learner's ability is N(0, 1), pace N(0, 0.25) on the logarithm, own habits of hints, skips and leaving the
  page are drawn from Beta distributions, so that learners differ when engaged too.
- A two-state Markov chain: engaged → disengaged with chance 0.03 (a third of learners: 0.08), back with 0.10; all begin
  engaged.
- Engaged: time is lognormal around usual time × pace (sd 0.45), slower on hard items; right with the Rasch chance.
- Disengaged: 60 % rapid guesses (lognormal, median 1.8 s, sd 0.5), right one in four; else time × lognormal (sd 0.9)
  and ability one logit lower; skips, hints, leaving the page and long pauses three times as likely.
- 4 % of the engaged answers are quick ones too (known by heart): rapid is not the same as disengaged.
Truth is the state at the last try shown. Usual times are the medians of 40 other simulated learners' answers.

OULAD's published 0.91 is another task (dropping out of a course, from weeks of clicks): no number to beat here.
"""

import argparse
from dataclasses import dataclass

import numpy as np

from benchmarks import resampling
from benchmarks.report import figure, save
from neuroedge.engines.learning.engagement import HEAD
from neuroedge.kit.engagement import FEATURES, MIN_ANSWERS, Head, Try, effort, features, probability, threshold_s

LEARNERS = 3000
SEED_FIT, SEED_TEST = 1, 3


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A session up to some try: what is seen, and the truth."""

    tries: list[Try]
    disengaged: bool
    states: list[bool]


def simulate(learners: int, seed: int) -> tuple[list[Shown], dict[str, float]]:
    """One session a learner, cut at a random try; and the usual time of each item."""
    rng = np.random.default_rng(seed)
    items = 200
    centre_s = 25 * np.exp(0.5 * rng.standard_normal(items))
    hard = rng.standard_normal(items)
    pool = [_session(rng, centre_s, hard, away_from_work=False) for _ in range(40)]
    times: dict[str, list[float]] = {}
    for shown in pool:
        for one in shown.tries:
            times.setdefault(one.item, []).append(one.time_s)
    usual_s = {item: float(np.median(seen)) for item, seen in times.items() if len(seen) >= 5}
    return [_session(rng, centre_s, hard, away_from_work=True) for _ in range(learners)], usual_s


def _session(rng: np.random.Generator, centre_s: np.ndarray, hard: np.ndarray, *, away_from_work: bool) -> Shown:
    ability, pace = rng.standard_normal(), 0.25 * rng.standard_normal()
    skips, hints, leaves = rng.beta(1, 40), rng.beta(1, 12), rng.beta(1, 20)
    falls = (0.08 if rng.random() < 1 / 3 else 0.03) if away_from_work else 0.0
    chosen = rng.choice(len(hard), size=rng.integers(30, 61), replace=False)
    state, tries, states = False, [], []
    for item in chosen:
        state = rng.random() >= 0.10 if state else rng.random() < falls
        states.append(state)
        more = 3.0 if state else 1.0
        guess = state and rng.random() < 0.6
        by_heart = not state and rng.random() < 0.04
        spread = 0.9 if state else 0.45
        time_s = centre_s[item] * np.exp(pace + 0.15 * hard[item] + spread * rng.standard_normal())
        if guess or by_heart:
            time_s = 1.8 * np.exp(0.5 * rng.standard_normal())
        chance = 1 / (1 + np.exp(-(ability - hard[item] - (1.0 if state else 0.0))))
        right = rng.random() < (0.25 if guess else 0.95 if by_heart else chance)
        skipped = rng.random() < min(1, more * skips)
        left = rng.random() < min(1, more * leaves)
        tries.append(
            Try(
                item=str(item),
                time_s=float(max(0.2, time_s)),
                correct=None if skipped else bool(right),
                hints=int(rng.random() < min(1, more * hints)) * int(rng.integers(1, 4)),
                away_s=float(time_s * rng.uniform(0.2, 0.9)) if left else 0.0,
                pause_before_s=float(rng.exponential(90)) if rng.random() < 0.05 * more else 2.0,
            )
        )
    cut = int(rng.integers(max(MIN_ANSWERS, 12), len(tries) + 1))
    return Shown(tries=tries[:cut], disengaged=states[cut - 1], states=states[:cut])


def fit(seed: int = SEED_FIT) -> Head:
    """The head that ships: ridge logistic regression on standardised features."""
    from sklearn.linear_model import LogisticRegression

    shown, usual_s = simulate(2 * LEARNERS, seed)
    x = np.array([[features(s.tries, usual_s)[name] for name in FEATURES] for s in shown])
    mean, sd = x.mean(axis=0), x.std(axis=0)
    model = LogisticRegression(C=1.0).fit((x - mean) / sd, [s.disengaged for s in shown])
    return Head(
        bias=round(float(model.intercept_[0]), 4),
        weights=dict(zip(FEATURES, model.coef_[0].round(4).tolist(), strict=True)),
        mean=dict(zip(FEATURES, mean.round(4).tolist(), strict=True)),
        sd=dict(zip(FEATURES, sd.round(4).tolist(), strict=True)),
    )


def ece(truth: np.ndarray, p: np.ndarray, *, bins: int = 10) -> float:
    """Expected calibration error over bins of equal size."""
    order = np.argsort(p)
    parts = np.array_split(order, bins)
    return float(sum(len(part) * abs(truth[part].mean() - p[part].mean()) for part in parts) / len(p))


def interval(score: object, truth: np.ndarray, p: np.ndarray) -> list[float]:
    """Value and 95 % bounds by 500 bootstrap samples of learners."""
    assert callable(score)
    low, high = resampling.interval(len(p), lambda rows: score(truth[rows], p[rows]), samples=500)
    return [low, float(score(truth, p)), high]


def main() -> int:
    """Fit and print the constants, or score the shipped head once on new learners."""
    from sklearn.metrics import log_loss, roc_auc_score

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fit", action="store_true", help="print the constants of the head instead")
    if parser.parse_args().fit:
        print(fit())
        return 0
    shown, usual_s = simulate(LEARNERS, SEED_TEST)
    truth = np.array([s.disengaged for s in shown], float)
    p = np.array([probability(features(s.tries, usual_s), HEAD) for s in shown])
    rte_alone = np.array([1 - effort(s.tries[-10:], usual_s).rte if _answered(s) else 0.0 for s in shown])
    base = np.full(len(truth), truth.mean())
    rapid = [
        (t.time_s < threshold_s(t.item, usual_s), state)
        for s in shown
        for t, state in zip(s.tries, s.states, strict=True)
    ]
    of_disengaged = np.mean([is_rapid for is_rapid, state in rapid if state])
    of_engaged = np.mean([is_rapid for is_rapid, state in rapid if not state])
    note = f"simulated truth; {len(shown)} new learners, {truth.mean():.1%} disengaged; range: 95 % bootstrap interval"
    ours, peer = interval(roc_auc_score, truth, p), interval(roc_auc_score, truth, rte_alone)
    figures = [
        figure("AUC of p_disengage", "", ours, at_least=peer[1], note=f"{note}; target: rapid answers alone"),
        figure("AUC of rapid answers alone", "", peer, note="the last ten tries"),
        figure(
            "log loss",
            "nats",
            interval(log_loss, truth, p),
            at_most=float(log_loss(truth, base)),
            note="target: base rate",
        ),
        figure("expected calibration error", "", interval(ece, truth, p), at_most=0.05, note="10 bins of equal size"),
        figure(
            "rapid answers among disengaged tries",
            "",
            [float(of_disengaged)],
            note="60 % are guesses in the simulation",
        ),
        figure("rapid answers among engaged tries", "", [float(of_engaged)], note="4 % are by heart in the simulation"),
    ]
    save("engagement", figures, title="Engagement of simulated learners", command="python -m benchmarks.engagement")
    return 0


def _answered(shown: Shown) -> bool:
    return any(t.correct is not None for t in shown.tries[-10:])


if __name__ == "__main__":
    raise SystemExit(main())
