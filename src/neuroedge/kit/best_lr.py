"""Best-LR: logistic regression over what a student has got right and wrong so far.

T. Gervet, K. Koedinger, J. Schneider & T. Mitchell 2020, "When is deep learning the best approach to knowledge
tracing?", JEDM 12(3): one-hot item and skill, and log(1 + x) of the numbers of right answers and of attempts so far, of
the student in all, at this skill (with a slope of each skill's own besides) and at this item. Students themselves are
no feature, so it answers for new ones.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import log1p
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Answer = tuple[str, str, str]
"""Student, item, skill."""
COUNTS: Final = 6
"""Columns of counts, before those of items and skills."""
_AT_SKILL: Final = 2
"""Place of the right answers at the skill among the counts; attempts follow."""
_STRENGTH: Final = 1.0
"""Inverse of the ridge penalty, as in the paper's code."""
_STEPS: Final = 100
"""Of Newton's method, which needs about ten: counts and one-hot columns are of unlike scale, on which L-BFGS creeps."""


@dataclass(slots=True)
class History:
    """Attempts and right answers so far, by student, (student, skill) and (student, item)."""

    attempts: dict[tuple[str, ...], int] = field(default_factory=lambda: defaultdict(int))
    right: dict[tuple[str, ...], int] = field(default_factory=lambda: defaultdict(int))

    def counts(self, answer: Answer) -> list[float]:
        """log(1 + x) of right answers and attempts in all, at the skill, at the item."""
        return [log1p(table.get(key, 0)) for key in _keys(answer) for table in (self.right, self.attempts)]

    def add(self, answer: Answer, *, correct: bool) -> None:
        """Take an answer in."""
        for key in _keys(answer):
            self.attempts[key] += 1
            self.right[key] += int(correct)


def _keys(answer: Answer) -> Iterable[tuple[str, ...]]:
    student, item, skill = answer
    return (student,), (student, "skill", skill), (student, "item", item)


@dataclass(frozen=True, slots=True, kw_only=True)
class BestLR:
    """A fitted model; items and skills it has not seen count as average."""

    counts: Numbers
    bias: float
    item: Mapping[str, float]
    skill: Mapping[str, float]
    skill_right: Mapping[str, float]
    """What a skill adds to the slope of right answers at it."""
    skill_attempts: Mapping[str, float]

    def p(self, answer: Answer, history: History) -> float:
        """Probability of a right answer, after `history`."""
        from scipy.special import expit

        _, item, skill = answer
        counts = history.counts(answer)
        logit = self.bias + float(np.dot(self.counts, counts))
        logit += self.item.get(item, 0.0) + self.skill.get(skill, 0.0)
        logit += self.skill_right.get(skill, 0.0) * counts[_AT_SKILL]
        logit += self.skill_attempts.get(skill, 0.0) * counts[_AT_SKILL + 1]
        return float(expit(logit))


def fit(answers: Sequence[Answer], correct: Sequence[bool], *, strength: float = _STRENGTH) -> BestLR:
    """From answers in the order of time (each student's own). Raises ValueError unless both outcomes occur."""
    from sklearn.linear_model import LogisticRegression

    if len(set(correct)) < 2:
        raise ValueError("all answers are right, or all are wrong")
    items = {name: i for i, name in enumerate(dict.fromkeys(a[1] for a in answers))}
    skills = {name: i for i, name in enumerate(dict.fromkeys(a[2] for a in answers))}
    features = _matrix(answers, correct, items, skills)
    model = LogisticRegression(C=strength, max_iter=_STEPS, solver="newton-cg").fit(features, np.asarray(correct))
    weights = model.coef_[0]
    parts = np.split(weights[COUNTS:], np.cumsum([len(items), len(skills), len(skills)]))
    return BestLR(
        counts=weights[:COUNTS],
        bias=float(model.intercept_[0]),
        item=dict(zip(items, parts[0].tolist(), strict=True)),
        skill=dict(zip(skills, parts[1].tolist(), strict=True)),
        skill_right=dict(zip(skills, parts[2].tolist(), strict=True)),
        skill_attempts=dict(zip(skills, parts[3].tolist(), strict=True)),
    )


def followed(model: BestLR, answers: Sequence[Answer], correct: Sequence[bool]) -> list[float]:
    """For each answer in the order of time, its probability of being right, from those before it."""
    history, told = History(), []
    for answer, right in zip(answers, correct, strict=True):
        told.append(model.p(answer, history))
        history.add(answer, correct=right)
    return told


def history_of(answers: Sequence[Answer], correct: Sequence[bool]) -> History:
    """What these answers leave behind."""
    history = History()
    for answer, right in zip(answers, correct, strict=True):
        history.add(answer, correct=right)
    return history


def _matrix(
    answers: Sequence[Answer], correct: Sequence[bool], items: Mapping[str, int], skills: Mapping[str, int]
) -> Any:
    from scipy.sparse import csr_matrix

    history, n = History(), len(answers)
    width = COUNTS + 4
    split = COUNTS + len(items)
    values, columns = np.ones((n, width)), np.empty((n, width), np.int64)
    columns[:, :COUNTS] = np.arange(COUNTS)
    for row, (answer, right) in enumerate(zip(answers, correct, strict=True)):
        values[row, :COUNTS] = history.counts(answer)
        columns[row, COUNTS] = COUNTS + items[answer[1]]
        columns[row, COUNTS + 1 :] = split + skills[answer[2]] + len(skills) * np.arange(3)
        values[row, COUNTS + 2 :] = values[row, _AT_SKILL : _AT_SKILL + 2]
        history.add(answer, correct=right)
    starts = np.arange(0, n * width + 1, width)
    return csr_matrix((values.ravel(), columns.ravel(), starts), shape=(n, split + 3 * len(skills)))
