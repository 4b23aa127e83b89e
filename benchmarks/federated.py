"""Federated learning on scikit-learn's digits: 20 clients with few digits each, without and with attackers.

    python -m benchmarks.federated [--rounds 150] [--seeds 3] [--alpha 1.0]

The model is softmax regression on 64 pixels. Clients are non-IID by Dirichlet(alpha) shares of each digit. A quarter
of the digits is the test set, which is scored once after the last round; nothing is tuned on it. Attackers send the
opposite of their update, ten times as long. The central model is the same regression on all clients' data. The rules
are checked against plain numpy written from the papers in the same run. Writes results/federated.json.
"""

import argparse
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from benchmarks import resampling
from benchmarks.report import figure, save
from neuroedge.kit.federated import aggregation, secure
from neuroedge.kit.federated.aggregation import Rule
from neuroedge.kit.federated.privacy import epsilon
from neuroedge.kit.federated.weights import Vector

Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
CLIENTS = 20
ATTACKERS = 4
_EPOCHS = 4
_BATCH = 32
_RATE = 1.0
_CENTRAL_EPOCHS = 100
"""Chosen, with the rounds, on a quarter of seed 0's training digits."""


class Data:
    """Digits split among clients, and a test set."""

    def __init__(self, seed: int, *, alpha: float, dev: bool = False) -> None:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        x, y = load_digits(return_X_y=True)
        self.x, self.test_x, self.y, self.test_y = train_test_split(
            x / 16.0, y, test_size=0.25, random_state=seed, stratify=y
        )
        if dev:
            self.x, self.test_x, self.y, self.test_y = train_test_split(
                self.x, self.y, test_size=0.25, random_state=seed, stratify=self.y
            )
        rng = np.random.default_rng(seed)
        parts: list[list[int]] = [[] for _ in range(CLIENTS)]
        for digit in range(10):
            rows = rng.permutation(np.flatnonzero(self.y == digit))
            cuts = (np.cumsum(rng.dirichlet(np.full(CLIENTS, alpha))) * len(rows)).astype(int)[:-1]
            for part, some in zip(parts, np.split(rows, cuts), strict=True):
                part.extend(some.tolist())
        self.parts = [np.array(part if part else [int(rng.integers(len(self.y)))]) for part in parts]

    def correct(self, weights: Vector) -> npt.NDArray[np.bool_]:
        """Whether each test digit is recognised."""
        w, b = weights[:640].reshape(64, 10), weights[640:]
        found: npt.NDArray[np.bool_] = (self.test_x @ w + b).argmax(axis=1) == self.test_y
        return found


def trained(x: Doubles, y: Ints, weights: Vector, *, epochs: int, rng: np.random.Generator) -> Vector:
    """Weights after some epochs of stochastic gradient descent on the cross entropy."""
    w, b = weights[:640].reshape(64, 10).astype(np.float64), weights[640:].astype(np.float64)
    for _ in range(epochs):
        order = rng.permutation(len(y))
        for start in range(0, len(y), _BATCH):
            rows = order[start : start + _BATCH]
            scores = x[rows] @ w + b
            scores -= scores.max(axis=1, keepdims=True)
            p = np.exp(scores)
            p /= p.sum(axis=1, keepdims=True)
            p[np.arange(len(rows)), y[rows]] -= 1
            w -= _RATE * x[rows].T @ p / len(rows)
            b -= _RATE * p.mean(axis=0)
    return np.concatenate([w.ravel(), b]).astype(np.float32)


Step = Callable[[Vector, list[int]], Vector]


def federated(data: Data, step: Step, *, rounds: int, attackers: int, seed: int) -> Vector:
    """The model after so many rounds with all clients; the first ones attack."""
    rng, model = np.random.default_rng(seed), np.zeros(650, np.float32)
    counts = [len(part) for part in data.parts]
    for _ in range(rounds):
        updates = np.stack(
            [trained(data.x[part], data.y[part], model, epochs=_EPOCHS, rng=rng) - model for part in data.parts]
        )
        updates[:attackers] *= -10
        model = aggregation.moved(model, step(updates, counts))
    return model


def rule(name: Rule, *, attackers: int = 0) -> Step:
    """A step by one of the engine's rules."""

    def step(updates: Vector, counts: list[int]) -> Vector:
        weighed = counts if name == "mean" else None
        return aggregation.combine(updates, rule=name, counts=weighed, attackers=attackers).step

    return step


class FedAdam:
    """The mean, stepped by FedAdam."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._state: aggregation.Adam | None = None

    def __call__(self, updates: Vector, counts: list[int]) -> Vector:
        """The step, from the moments of the rounds before."""
        step, self._state = aggregation.adam_step(aggregation.mean(updates, counts), self._state, rate=self._rate)
        return step


def private(multiplier: float, clip_norm: float, rng: np.random.Generator) -> Step:
    """DP-FedAvg."""

    def step(updates: Vector, counts: list[int]) -> Vector:
        return aggregation.combine(updates, rule="mean", clip_norm=clip_norm, noise_multiplier=multiplier, rng=rng).step

    return step


def masked(updates: Vector, counts: list[int]) -> Vector:
    """The unweighted mean through double masks; the last client drops out after its shares were sent."""
    names = [f"{i:02d}" for i in range(len(updates))]
    everybody = {name: secure.Participant(me=name, round_id="r") for name in names}
    keys = {name: one.public for name, one in everybody.items()}
    sent = {name: one.shares(keys) for name, one in everybody.items()}
    stay = names[:-1]
    vectors = {
        name: everybody[name].masked(updates[i], sent, bound=100.0, clients=len(names)) for i, name in enumerate(stay)
    }
    shares = {
        name: everybody[name].unmask({other: sent[other][name] for other in names if other != name}, stay)
        for name in stay
    }
    known = secure.Revealed(round_id="r", keys=keys, senders=frozenset(names), masked=vectors, shares=shares)
    total = secure.dequantised(secure.unmasked_sum(known), bound=100.0, clients=len(names))
    return (total / len(stay)).astype(np.float32)


def reference(name: str, updates: Vector, counts: Sequence[int], f: int) -> Doubles:
    """The rule in plain numpy, from its paper, without any code of the engine."""
    points = updates.astype(np.float64)
    n = len(points)
    if name == "mean":
        found: Doubles = np.average(points, axis=0, weights=counts)
        return found
    if name == "trimmed_mean":
        return np.array([np.sort(column)[f : n - f].mean() for column in points.T])
    scores = [
        np.sort([((a - b) ** 2).sum() for j, b in enumerate(points) if j != i])[: n - f - 2].sum()
        for i, a in enumerate(points)
    ]
    kept: Doubles = points[np.argsort(scores, kind="stable")[: n - f - 2]].mean(axis=0)
    return kept


def largest_difference() -> float:
    """Between the rules and their reference, over 20 random sets of updates."""
    worst = 0.0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        updates = rng.normal(0, 1, (CLIENTS, 650)).astype(np.float32)
        counts = rng.integers(1, 100, CLIENTS).tolist()
        for name in ("mean", "trimmed_mean", "multi_krum"):
            f = 0 if name == "mean" else ATTACKERS
            step = rule(name, attackers=f)(updates, counts)
            worst = max(worst, float(np.abs(step - reference(name, updates, counts, f)).max()))
    return worst


def interval(hits: npt.NDArray[np.bool_]) -> str:
    """95 % bootstrap interval of the accuracy over test digits."""
    low, high = resampling.interval(len(hits), lambda rows: hits[rows].mean())
    return f"95 % {low:.3f} to {high:.3f}"


def main() -> int:
    """Run and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=150)
    parser.add_argument("--alpha", type=float, default=1.0, help="of the Dirichlet shares; smaller: less alike")
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    hits: dict[str, list[npt.NDArray[np.bool_]]] = {}
    for seed in range(asked.seeds):
        data = Data(seed, alpha=asked.alpha)
        rng = np.random.default_rng(seed)
        central = trained(data.x, data.y, np.zeros(650, np.float32), epochs=_CENTRAL_EPOCHS, rng=rng)
        hits.setdefault("central", []).append(data.correct(central))
        plans: dict[str, tuple[Step, int]] = {
            "FedAvg": (rule("mean"), 0),
            "FedAdam": (FedAdam(0.03), 0),
            "DP-FedAvg (z 1, clip 1)": (private(1.0, 1.0, np.random.default_rng(seed)), 0),
            "secure aggregation, 1 of 20 drops out each round": (masked, 0),
            "4 attackers: mean": (rule("mean"), ATTACKERS),
            "4 attackers: trimmed mean": (rule("trimmed_mean", attackers=ATTACKERS), ATTACKERS),
            "4 attackers: multi-Krum": (rule("multi_krum", attackers=ATTACKERS), ATTACKERS),
        }
        for name, (step, attackers) in plans.items():
            rounds = min(asked.rounds, 20) if name.startswith("secure") else asked.rounds
            model = federated(data, step, rounds=rounds, attackers=attackers, seed=seed)
            hits.setdefault(name, []).append(data.correct(model))
    least = {"FedAvg": 0.958, "4 attackers: trimmed mean": 0.929, "4 attackers: multi-Krum": 0.956}
    figures = []
    for name, found in hits.items():
        note = f"n = {sum(map(len, found))} test digits over {asked.seeds} seeds; {interval(np.concatenate(found))}"
        if name.startswith("DP"):
            spent = epsilon(noise_multiplier=1.0, rounds=asked.rounds, delta=1e-5)
            note += f"; epsilon {spent:.1f} at delta 1e-5 after {asked.rounds} rounds"
        if name.startswith("secure"):
            note += f"; {min(asked.rounds, 20)} rounds"
        figures.append(
            figure(f"accuracy, {name}", "share", [float(h.mean()) for h in found], at_least=least.get(name), note=note)
        )
    worst = largest_difference()
    figures.append(
        figure(
            "largest difference from plain numpy, mean, trimmed mean, multi-Krum",
            "weight",
            [worst],
            at_most=1e-5,
            note="20 sets of 20 updates",
        )
    )
    command = f"python -m benchmarks.federated --rounds {asked.rounds} --seeds {asked.seeds} --alpha {asked.alpha:g}"
    save("federated", figures, title="Federated learning", command=command)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
