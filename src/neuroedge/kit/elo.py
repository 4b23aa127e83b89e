"""Elo ratings of students and items, one answer after the other.

R. Pelánek 2016, "Applications of the Elo rating system in adaptive educational systems", Computers & Education 98: the
chance of a right answer is σ(θ - b); after each answer both move by U(n) = a / (1 + b n) times the surprise, n being
how many answers the rating has seen. No standard errors fall out; the number of answers stands in for them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import exp
from typing import Final

GAIN: Final = 1.0
DECAY: Final = 0.05
"""Of U(n), as the paper uses for both sides."""


@dataclass(slots=True)
class Ratings:
    """Ratings in logits, and how many answers each has seen; `observe` changes them."""

    ability: dict[str, float] = field(default_factory=dict)
    difficulty: dict[str, float] = field(default_factory=dict)
    seen_by_student: dict[str, int] = field(default_factory=dict)
    seen_of_item: dict[str, int] = field(default_factory=dict)
    gain: float = GAIN
    decay: float = DECAY

    def p(self, student: str, item: str) -> float:
        """Chance that this student solves this item; unknown ones are average."""
        return 1 / (1 + exp(-(self.ability.get(student, 0.0) - self.difficulty.get(item, 0.0))))

    def observe(self, student: str, item: str, *, correct: bool, learn_item: bool = True) -> float:
        """Learn from an answer; the chance that was given to a right one before it."""
        p = self.p(student, item)
        surprise = float(correct) - p
        n_student, n_item = self.seen_by_student.get(student, 0), self.seen_of_item.get(item, 0)
        self.ability[student] = self.ability.get(student, 0.0) + self._step(n_student) * surprise
        self.seen_by_student[student] = n_student + 1
        if learn_item:
            self.difficulty[item] = self.difficulty.get(item, 0.0) - self._step(n_item) * surprise
            self.seen_of_item[item] = n_item + 1
        return p

    def _step(self, n: int) -> float:
        return self.gain / (1 + self.decay * n)


def rated(answers: Sequence[tuple[str, str, bool]], *, known: Mapping[str, float] | None = None) -> Ratings:
    """Ratings after (student, item, right) answers in the order of time; `known` difficulties stay as they are."""
    ratings = Ratings(difficulty=dict(known or {}))
    for student, item, correct in answers:
        ratings.observe(student, item, correct=correct, learn_item=item not in (known or {}))
    return ratings
