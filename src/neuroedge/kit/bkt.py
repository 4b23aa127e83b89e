"""Bayesian knowledge tracing: has a student mastered a skill yet?

A. T. Corbett & J. R. Anderson 1995, "Knowledge tracing", User Modeling and User-Adapted Interaction 4: a skill is
mastered or not; it is known at first with p(L0), learnt at each practice with p(T), never forgotten; who knows it slips
with p(S), who does not guesses right with p(G). Fitted by EM (Baum-Welch over all students of a skill). Without bounds
the model is not identifiable (J. E. Beck & K. Chang 2007): guess and slip are held to the paper's 0.30 and 0.10, which
keeps "mastered" the state of more right answers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Final

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

MAX_GUESS: Final = 0.30
MAX_SLIP: Final = 0.10
FIT_ANSWERS: Final = 1_000
"""Of each student the first so many answers are fitted to: who learns a skill has learnt it by then, and each more
takes time in every step of EM."""
_LOW: Final = 0.01
_LEAST: Final = 1e-290
"""Odds and probabilities stay above: what has come to 0 is moved by no answer."""
_STEPS: Final = 200
_TOLERANCE: Final = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Skill:
    """Probabilities of one skill."""

    known_at_first: float
    learn: float
    guess: float
    slip: float


DEFAULT: Final = Skill(known_at_first=0.4, learn=0.15, guess=0.2, slip=0.08)
"""Where the fit starts, and what is used where there is too little to fit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """A fitted skill; at which bounds it stands tells what the data could not."""

    skill: Skill
    log_likelihood: float
    steps: int
    converged: bool
    at_bounds: tuple[str, ...]


def fit(sequences: Sequence[Sequence[bool]], *, start: Skill = DEFAULT) -> Fit:
    """By EM from the first FIT_ANSWERS answers of each student in the order of time. Raises ValueError without any."""
    groups = _groups([sequence[:FIT_ANSWERS] for sequence in sequences])
    if not groups:
        raise ValueError("no answers")
    skill, steps, converged, likelihood = start, 0, False, -np.inf
    while not converged and steps < _STEPS:
        moved, likelihood = _step(groups, skill)
        change = max(abs(a - b) for a, b in zip(_values(moved), _values(skill), strict=True))
        skill, steps, converged = moved, steps + 1, change < _TOLERANCE
    bounds = {"guess": (skill.guess, MAX_GUESS), "slip": (skill.slip, MAX_SLIP), "learn": (skill.learn, 1 - _LOW)}
    at = tuple(name for name, (value, top) in bounds.items() if value >= top - 1e-6 or value <= _LOW + 1e-6)
    return Fit(skill=skill, log_likelihood=float(likelihood), steps=steps, converged=converged, at_bounds=at)


def mastery(answers: Sequence[bool], skill: Skill) -> tuple[float, float]:
    """Probability that the skill is mastered after these answers, and that the next one is right."""
    against = _against(skill.known_at_first)
    for correct in answers:
        against = _update(against, correct, skill)
    return 1 / (1 + against), _right(against, skill)


def predictions(answers: Sequence[bool], skill: Skill) -> list[float]:
    """Before each answer, the probability that it is right."""
    against, told = _against(skill.known_at_first), []
    for correct in answers:
        told.append(_right(against, skill))
        against = _update(against, correct, skill)
    return told


def _against(known: float) -> float:
    """The odds that a skill is not mastered. A probability would come to 1 after some hundred right answers, from where
    no wrong one moves it."""
    return (1 - known) / max(known, _LEAST)


def _right(against: float, skill: Skill) -> float:
    known = 1 / (1 + against)
    return known * (1 - skill.slip) + (1 - known) * skill.guess


def _update(against: float, correct: bool, skill: Skill) -> float:
    """Bayes' rule on one answer, then the chance to have learnt."""
    if_known = 1 - skill.slip if correct else skill.slip
    if_not = skill.guess if correct else 1 - skill.guess
    posterior = against * if_not / max(if_known, _LEAST)
    return max(posterior * (1 - skill.learn) / (1 + posterior * skill.learn), _LEAST)


def _values(skill: Skill) -> tuple[float, float, float, float]:
    return skill.known_at_first, skill.learn, skill.guess, skill.slip


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """Sequences [rows, longest] of about the same length; `mask` is false where a shorter one has ended."""

    answers: NDArray[np.bool_]
    mask: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sums:
    """What one step of EM counts: expected students, moves and answers."""

    students: float
    known_at_first: float
    moves_unknown: float
    """Moves to a next answer from not mastered; `learnt` are those to mastered."""
    learnt: float
    unknown: float
    """Answers while not mastered; `guessed` are those that were right."""
    guessed: float
    known: float
    """Answers while mastered; `slipped` are those that were wrong."""
    slipped: float
    log_likelihood: float


def _groups(sequences: Sequence[Sequence[bool]]) -> list[_Group]:
    """Groups whose longest is less than twice as long as the shortest: together under two cells for each answer."""
    alike: dict[int, list[Sequence[bool]]] = {}
    for sequence in sequences:
        if len(sequence):
            alike.setdefault(len(sequence).bit_length(), []).append(sequence)
    return [_padded(rows) for _, rows in sorted(alike.items())]


def _padded(sequences: Sequence[Sequence[bool]]) -> _Group:
    longest = max(len(s) for s in sequences)
    answers = np.zeros((len(sequences), longest), bool)
    mask = np.zeros_like(answers)
    for row, sequence in enumerate(sequences):
        answers[row, : len(sequence)] = sequence
        mask[row, : len(sequence)] = True
    return _Group(answers=answers, mask=mask)


def _step(groups: Sequence[_Group], skill: Skill) -> tuple[Skill, float]:
    """One EM step over all sequences, and the log-likelihood before it."""
    parts = [_expected(group, skill) for group in groups]
    sums = _Sums(**{f.name: sum(getattr(part, f.name) for part in parts) for f in fields(_Sums)})
    return Skill(
        known_at_first=_within(sums.known_at_first / sums.students, 1 - _LOW),
        learn=_within(sums.learnt / max(sums.moves_unknown, 1e-12), 1 - _LOW),
        guess=_within(sums.guessed / max(sums.unknown, 1e-12), MAX_GUESS),
        slip=_within(sums.slipped / max(sums.known, 1e-12), MAX_SLIP),
    ), sums.log_likelihood


def _within(value: float, top: float) -> float:
    return min(max(value, _LOW), top)


def _expected(group: _Group, skill: Skill) -> _Sums:
    """Forwards and backwards over a group; padding says nothing. States: 0 not mastered, 1 mastered."""
    answers, mask = group.answers, group.mask
    seen = np.where(answers[..., None], [skill.guess, 1 - skill.slip], [1 - skill.guess, skill.slip])
    seen = np.where(mask[..., None], seen, 1.0)
    move = np.array([[1 - skill.learn, skill.learn], [0.0, 1.0]])
    rows, length = answers.shape
    forward, scale = np.empty((rows, length, 2)), np.empty((rows, length))
    state = np.tile([1 - skill.known_at_first, skill.known_at_first], (rows, 1))
    for t in range(length):
        joint = (state @ move if t else state) * seen[:, t]
        scale[:, t] = joint.sum(axis=1)
        state = forward[:, t] = np.maximum(joint / scale[:, t, None], _LEAST)
    backward = np.ones((rows, length, 2))
    for t in range(length - 2, -1, -1):
        backward[:, t] = (seen[:, t + 1] * backward[:, t + 1]) @ move.T / scale[:, t + 1, None]
    state_p = forward * backward
    unknown, known, followed = state_p[..., 0], state_p[..., 1], mask[:, 1:]
    learnt = forward[:, :-1, 0] * skill.learn * seen[:, 1:, 1] * backward[:, 1:, 1] / scale[:, 1:]
    return _Sums(
        students=float(rows),
        known_at_first=float(known[:, 0].sum()),
        moves_unknown=float((unknown[:, :-1] * followed).sum()),
        learnt=float((learnt * followed).sum()),
        unknown=float((unknown * mask).sum()),
        guessed=float((unknown * (mask & answers)).sum()),
        known=float((known * mask).sum()),
        slipped=float((known * (mask & ~answers)).sum()),
        log_likelihood=float(np.log(scale).sum()),
    )
