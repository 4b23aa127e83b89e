"""Factors of taste as the recommender uses them: how strong, and how good on interactions held out.

Penalties and alpha were chosen on a development part of MovieLens-100k (benchmarks/recommendation.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from neuroedge.kit import matrix_factorisation as factors
from neuroedge.kit.matrix_factorisation import Ratings, Table, Uses
from neuroedge.kit.refusal import Refused

MIN_INTERACTIONS: Final = 50
MIN_USERS: Final = 5
MIN_ITEMS: Final = 3
"""Fewer, and no taste is estimated."""
MAX_NAMES: Final = 20_000
"""Users and items together."""
PENALTY: Final = {"ratings": 0.15, "uses": 10.0}
ALPHA: Final = 2.0
ROUNDS: Final = 15
HELD_OUT: Final = 0.1
MIN_HELD_OUT: Final = 10
TOP: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """How well factors predicted `n` interactions they had not seen, and the baseline."""

    measure: Literal["rmse", "hit_rate_10"]
    model: float
    baseline: float
    n: int


def table_of(rows: Sequence[tuple[str, str, float]], *, add: bool) -> tuple[Table, list[str], list[str]]:
    """Users, items and values as a table, with the users' and items' names.

    Of repeated pairs the last value counts, or with `add` their sum. Raises Refused for too few or too many.
    """
    cells: dict[tuple[str, str], float] = {}
    for user, item, value in rows:
        cells[user, item] = value + (cells.get((user, item), 0.0) if add else 0.0)
    users = {name: i for i, name in enumerate(dict.fromkeys(user for user, _ in cells))}
    items = {name: i for i, name in enumerate(dict.fromkeys(item for _, item in cells))}
    if len(cells) < MIN_INTERACTIONS or len(users) < MIN_USERS or len(items) < MIN_ITEMS:
        raise Refused(
            f"{len(cells)} pairs of {len(users)} users and {len(items)} items are too few to estimate taste",
            hint=f"give at least {MIN_INTERACTIONS} of {MIN_USERS} users and {MIN_ITEMS} items, or use thompson",
        )
    if len(users) + len(items) > MAX_NAMES:
        raise Refused(f"{len(users)} users and {len(items)} items; at most {MAX_NAMES} together", hint="send fewer")
    table = Table(
        user=np.array([users[user] for user, _ in cells]),
        item=np.array([items[item] for _, item in cells]),
        value=np.array(list(cells.values())),
        users=len(users),
        items=len(items),
    )
    return table, list(users), list(items)


def ratings(table: Table, *, rank: int) -> Ratings:
    """Fitted ratings."""
    return factors.fit_ratings(table, rank=rank, penalty=PENALTY["ratings"], rounds=ROUNDS, seed=0)


def uses(table: Table, *, rank: int) -> Uses:
    """Fitted uses."""
    return factors.fit_uses(table, rank=rank, penalty=PENALTY["uses"], alpha=ALPHA, rounds=ROUNDS, seed=0)


def held_out(table: Table, method: Literal["ratings", "uses"], *, rank: int) -> HeldOut | None:
    """A random tenth: error of ratings against biases alone, or hits among the first ten against popularity.

    None where that is too few.
    """
    held = np.random.default_rng(0).random(len(table.value)) < HELD_OUT
    n = int(held.sum())
    if n < MIN_HELD_OUT:
        return None
    kept, rest = table.only(~held), table.only(held)
    if method == "ratings":
        models = (ratings(kept, rank=rank), factors.biases(kept))
        model, plain = (np.sqrt(np.mean((m.predicted(rest.user, rest.item) - rest.value) ** 2)) for m in models)
        return HeldOut(measure="rmse", model=float(model), baseline=float(plain), n=n)
    model, plain = _hits(uses(kept, rank=rank), kept, rest) / n
    return HeldOut(measure="hit_rate_10", model=float(model), baseline=float(plain), n=n)


def _hits(model: Uses, kept: Table, rest: Table) -> factors.Numbers:
    """How many of the rest stand among the first ten unseen ones, by the factors and by popularity."""
    popular = np.bincount(kept.item, None, kept.items).astype(float)
    hits = np.zeros(2)
    for user, item in zip(rest.user, rest.item, strict=True):
        seen = kept.item[kept.user == user]
        for k, scores in enumerate((model.scores(user), popular.copy())):
            scores[seen] = -np.inf
            hits[k] += (scores > scores[item]).sum() < TOP
    return hits
