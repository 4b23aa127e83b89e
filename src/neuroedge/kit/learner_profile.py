"""What a learner's answers say of each skill: an open learner model, made anew from all answers whenever it is asked
for, so that it does not matter in which order they came.

Mean and standard deviation are of the posterior share of right answers, uniform before any (Beta(1, 1)); mastery is
Bayesian knowledge tracing (kit/bkt.py) with its usual parameters over the answers in the order of time.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from math import sqrt

from neuroedge.kit import bkt

METHOD = "beta(1,1)+bkt-usual-parameters"


@dataclass(frozen=True, slots=True, kw_only=True)
class Practice:
    """An answer at a skill; `source` says which application sent it."""

    skill: str
    correct: bool
    at: datetime
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SkillState:
    """A skill as the answers show it."""

    skill: str
    mean: float
    sd: float
    n: int
    p_mastery: float
    first_at: datetime
    last_at: datetime
    sources: dict[str, int]
    """Answers by the application that sent them."""


def skills(practice: Sequence[Practice]) -> list[SkillState]:
    """By name; `practice` in the order of time."""
    by_skill: dict[str, list[Practice]] = {}
    for answer in practice:
        by_skill.setdefault(answer.skill, []).append(answer)
    return [_state(name, own) for name, own in sorted(by_skill.items())]


def _state(name: str, own: Sequence[Practice]) -> SkillState:
    n, right = len(own), sum(p.correct for p in own)
    a, b = 1 + right, 1 + n - right
    known, _ = bkt.mastery([p.correct for p in own], bkt.DEFAULT)
    return SkillState(
        skill=name,
        mean=a / (a + b),
        sd=sqrt(a * b / ((a + b) ** 2 * (a + b + 1))),
        n=n,
        p_mastery=known,
        first_at=own[0].at,
        last_at=own[-1].at,
        sources=dict(sorted(Counter(p.source for p in own).items())),
    )
