"""Taste as factors of users and items, from ratings or from what was merely used.

Ratings: r = mean + user's bias + item's bias + p·q by alternating ridge regressions whose weight grows with the number
of ratings (ALS-WR: Y. Zhou et al. 2008, "Large-scale parallel collaborative filtering for the Netflix prize", AAIM;
biases: Y. Koren, R. Bell & C. Volinsky 2009, IEEE Computer 42). Use: confidence 1 + alpha · strength in a preference of
one (Y. Hu, Y. Koren & C. Volinsky 2008, "Collaborative filtering for implicit feedback datasets", ICDM), whose section
5 also tells which past items a recommendation rests on.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Indices = NDArray[np.int64]

BIAS_SHRINK_USER: Final = 10.0
BIAS_SHRINK_ITEM: Final = 25.0
"""Koren's shrinkage of the plain biases, the baseline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Who did what, how much; users and items numbered from 0."""

    user: Indices
    item: Indices
    value: Numbers
    users: int
    items: int

    def only(self, keep: NDArray[np.bool_]) -> "Table":
        """The rows of `keep`, in the same numbers."""
        return Table(
            user=self.user[keep], item=self.item[keep], value=self.value[keep], users=self.users, items=self.items
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratings:
    """A fitted model of ratings."""

    mean: float
    user_bias: Numbers
    item_bias: Numbers
    user_factors: Numbers
    item_factors: Numbers
    penalty: float

    def predicted(self, user: Indices, item: Indices) -> Numbers:
        """Ratings of these pairs."""
        taste: Numbers = np.einsum("nk,nk->n", self.user_factors[user], self.item_factors[item])
        return self.mean + self.user_bias[user] + self.item_bias[item] + taste


@dataclass(frozen=True, slots=True, kw_only=True)
class Uses:
    """A fitted model of use."""

    user_factors: Numbers
    item_factors: Numbers
    penalty: float
    alpha: float

    def scores(self, user: int) -> Numbers:
        """Preference of a user for every item; about 0 to 1."""
        scores: Numbers = self.item_factors @ self.user_factors[user]
        return scores

    def shares(self, table: Table, user: int, item: int) -> tuple[Indices, Numbers]:
        """The user's past items, and what each adds to the score of `item`; they sum to it (section 5)."""
        mine = table.user == user
        past, strength = table.item[mine], table.value[mine]
        left = _weighted(self.item_factors, past, strength, self.alpha, self.penalty)
        near = self.item_factors[past] @ np.linalg.solve(left, self.item_factors[item])
        shares: Numbers = near * (1 + self.alpha * strength)
        return past, shares

    @property
    def rank(self) -> int:
        """Number of factors."""
        return int(self.item_factors.shape[1])


def biases(table: Table) -> Ratings:
    """Mean and shrunken biases alone: the baseline to beat."""
    mean = float(table.value.mean())
    rest = table.value - mean
    item_bias = _shrunken(table.item, rest, table.items, BIAS_SHRINK_ITEM)
    rest = rest - item_bias[table.item]
    user_bias = _shrunken(table.user, rest, table.users, BIAS_SHRINK_USER)
    return Ratings(
        mean=mean,
        user_bias=user_bias,
        item_bias=item_bias,
        user_factors=np.zeros((table.users, 1)),
        item_factors=np.zeros((table.items, 1)),
        penalty=0.0,
    )


def _shrunken(index: Indices, rest: Numbers, size: int, shrink: float) -> Numbers:
    bias: Numbers = np.bincount(index, rest, size) / (shrink + np.bincount(index, None, size))
    return bias


def fit_ratings(table: Table, *, rank: int, penalty: float, rounds: int, seed: int) -> Ratings:
    """Alternate `rounds` times. Costs rounds × (ratings × rank² + (users + items) × rank³)."""
    rng = np.random.default_rng(seed)
    start = biases(table)
    users = np.column_stack([start.user_bias, np.zeros((table.users, rank))])
    items = np.column_stack([start.item_bias, 0.1 * rng.standard_normal((table.items, rank))])
    of_user, of_item = list(_rows(table.user, table.users)), list(_rows(table.item, table.items))
    for _ in range(rounds):
        _solve_side(users, items, of_user, table.item, table.value - start.mean, penalty)
        _solve_side(items, users, of_item, table.user, table.value - start.mean, penalty)
    return Ratings(
        mean=start.mean,
        user_bias=users[:, 0],
        item_bias=items[:, 0],
        user_factors=users[:, 1:],
        item_factors=items[:, 1:],
        penalty=penalty,
    )


def fit_uses(table: Table, *, rank: int, penalty: float, alpha: float, rounds: int, seed: int) -> Uses:
    """Alternate `rounds` times; `value` is the strength of use, above 0."""
    rng = np.random.default_rng(seed)
    users, items = np.zeros((table.users, rank)), 0.1 * rng.standard_normal((table.items, rank))
    of_user, of_item = list(_rows(table.user, table.users)), list(_rows(table.item, table.items))
    for _ in range(rounds):
        for own, other, rows, far in ((users, items, of_user, table.item), (items, users, of_item, table.user)):
            square = other.T @ other
            for k, index in enumerate(rows):
                left = _weighted(other, far[index], table.value[index], alpha, penalty, square=square)
                own[k] = np.linalg.solve(left, other[far[index]].T @ (1 + alpha * table.value[index]))
    return Uses(user_factors=users, item_factors=items, penalty=penalty, alpha=alpha)


def _weighted(
    factors: Numbers, past: Indices, strength: Numbers, alpha: float, penalty: float, *, square: Numbers | None = None
) -> Numbers:
    """Y'CY + penalty, with C = 1 + alpha · strength on the past items and 1 on all others."""
    own = factors[past]
    square = factors.T @ factors if square is None else square
    left: Numbers = square + (own * (alpha * strength)[:, None]).T @ own + penalty * np.eye(factors.shape[1])
    return left


def _solve_side(own: Numbers, other: Numbers, rows: list[Indices], far: Indices, rest: Numbers, penalty: float) -> None:
    """Bias and factors of one side given the other's, in place; who has no ratings gets none."""
    design = other.copy()
    design[:, 0] = 1.0
    eye = np.eye(own.shape[1])
    for k, index in enumerate(rows):
        if not len(index):
            own[k] = 0.0
            continue
        x = design[far[index]]
        own[k] = np.linalg.solve(x.T @ x + penalty * len(index) * eye, x.T @ (rest[index] - other[far[index], 0]))


def _rows(index: Indices, size: int) -> Iterator[Indices]:
    """For each number below `size`, the places where `index` has it."""
    order = np.argsort(index, kind="stable")
    yield from np.split(order, np.cumsum(np.bincount(index, minlength=size))[:-1])
