"""Which model of answers predicts best: Rasch, two-parameter, Elo and Best-LR on answers held out of the fit.

Each student's last answers are held out, so that every model predicts forwards in time, and log loss decides: a model
can rank well and still be badly calibrated. An item's share of right answers is the baseline.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from neuroedge.kit import best_lr, elo, irt
from neuroedge.kit.irt import Numbers

Model = Literal["rasch", "2pl", "elo", "best_lr"]
MODELS: Final[tuple[Model, ...]] = ("rasch", "2pl", "elo", "best_lr")
HELD_OUT: Final = 0.2
MIN_PER_DISCRIMINATION: Final = 30
"""Answers per item on average under which the 2PL, which estimates a slope for each, is not tried."""
MIN_HELD_OUT: Final = 30
"""Fewer answers to score on say nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer of a student; a skill that is not known is ''."""

    student: str
    item: str
    skill: str
    correct: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How well a model predicted answers it had not seen; lower is better, nats."""

    model: Literal["rasch", "2pl", "elo", "best_lr", "item_mean"]
    log_loss: float
    n: int


class Predictor:
    """Predictions of one model fitted to answers in the order of time.

    A student or item that is not among the answers is average.
    """

    def __init__(self, answers: Sequence[Answer], model: Model) -> None:
        self.model = model
        self.irt: CalibratedItems | None = None
        self._elo: elo.Ratings | None = None
        self._lr: tuple[best_lr.BestLR, best_lr.History] | None = None
        if model in ("rasch", "2pl"):
            self.irt = calibrated(answers, model="rasch" if model == "rasch" else "2pl")
        elif model == "elo":
            self._elo = elo.rated([(a.student, a.item, a.correct) for a in answers])
        else:
            triples, right = [_triple(a) for a in answers], [a.correct for a in answers]
            self._lr = best_lr.fit(triples, right), best_lr.history_of(triples, right)

    def p(self, asked: Sequence[tuple[str, str, str]]) -> Numbers:
        """Probability of a right answer for each (student, item, skill)."""
        if self.irt is not None:
            return self.irt.p([(student, item) for student, item, _ in asked])
        if self._elo is not None:
            return np.array([self._elo.p(student, item) for student, item, _ in asked])
        assert self._lr is not None
        model, history = self._lr
        return np.array([model.p(triple, history) for triple in asked])


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibratedItems:
    """Items and students by name, with what was estimated of them."""

    item_names: list[str]
    student_names: list[str]
    items: irt.Items
    abilities: irt.Abilities
    item_n: NDArray[np.intp]
    item_right: Numbers
    student_n: NDArray[np.intp]

    def p(self, asked: Sequence[tuple[str, str]]) -> Numbers:
        """Probability of a right answer for each (student, item); a new student's or item's place is the average."""
        rows = {name: i for i, name in enumerate(self.student_names)}
        columns = {name: i for i, name in enumerate(self.item_names)}
        average = irt.Items(
            model=self.items.model,
            difficulty=np.append(self.items.difficulty, self.items.difficulty.mean()),
            discrimination=np.append(self.items.discrimination, 1.0),
            difficulty_se=np.append(self.items.difficulty_se, np.nan),
            discrimination_se=np.append(self.items.discrimination_se, np.nan),
            ability_sd=self.items.ability_sd,
            log_likelihood=self.items.log_likelihood,
            steps=self.items.steps,
            converged=self.items.converged,
        )
        prior = np.exp(-0.5 * (self.abilities.nodes / self.items.ability_sd) ** 2)
        known = irt.Abilities(
            mean=np.append(self.abilities.mean, 0.0),
            sd=np.append(self.abilities.sd, self.items.ability_sd),
            posterior=np.vstack([self.abilities.posterior, prior / prior.sum()]),
            nodes=self.abilities.nodes,
        )
        student = np.array([rows.get(s, len(rows)) for s, _ in asked], np.intp)
        item = np.array([columns.get(i, len(columns)) for _, i in asked], np.intp)
        return irt.predicted(known, average, student, item)


def calibrated(answers: Sequence[Answer], *, model: irt.Model) -> CalibratedItems:
    """Items and students of these answers under an item response model."""
    students, items, right = [a.student for a in answers], [a.item for a in answers], [a.correct for a in answers]
    responses = irt.Responses.of(students, items, right)
    return _located(sorted(set(students)), sorted(set(items)), responses, irt.fit(responses, model=model))


def placed(answers: Sequence[Answer], known: Mapping[str, tuple[float, float]]) -> CalibratedItems:
    """Students of these answers on the scale of items whose difficulty (logits) and discrimination are known."""
    names, students = sorted(known), sorted({a.student for a in answers})
    place, row = {name: i for i, name in enumerate(names)}, {name: i for i, name in enumerate(students)}
    responses = irt.Responses(
        student=np.array([row[a.student] for a in answers], np.intp),
        item=np.array([place[a.item] for a in answers], np.intp),
        correct=np.array([a.correct for a in answers], float),
        students=len(students),
        items=len(names),
    )
    unknown = np.full(len(names), np.nan)
    items = irt.Items(
        model="2pl",
        difficulty=np.array([known[name][0] for name in names]),
        discrimination=np.array([known[name][1] for name in names]),
        difficulty_se=unknown,
        discrimination_se=unknown,
        ability_sd=1.0,
        log_likelihood=float("nan"),
        steps=0,
        converged=True,
    )
    return _located(students, names, responses, items)


def _located(students: list[str], names: list[str], responses: irt.Responses, items: irt.Items) -> CalibratedItems:
    return CalibratedItems(
        item_names=names,
        student_names=students,
        items=items,
        abilities=irt.abilities(responses, items),
        item_n=np.bincount(responses.item, minlength=responses.items),
        item_right=np.asarray(np.bincount(responses.item, responses.correct, responses.items), float),
        student_n=np.bincount(responses.student, minlength=responses.students),
    )


def compared(answers: Sequence[Answer], *, wanted: Model | None = None) -> list[Score]:
    """Scores of the models and of the baseline, best first; none where too few answers can be held out.

    The 2PL is among them where items have enough answers for it, or it is `wanted`.
    """
    thin = len(answers) < MIN_PER_DISCRIMINATION * len({a.item for a in answers})
    models = [m for m in MODELS if m == wanted or not (m == "2pl" and thin)]
    kept, held = _split(answers)
    outcomes = {a.correct for a in kept}
    if len(held) < MIN_HELD_OUT or len(outcomes) < 2:
        return []
    truth = np.array([a.correct for a in held], float)
    asked = [_triple(a) for a in held]
    scores = [
        Score(model=model, log_loss=irt.log_loss(truth, Predictor(kept, model).p(asked)), n=len(held))
        for model in models
    ]
    scores.append(Score(model="item_mean", log_loss=irt.log_loss(truth, _item_means(kept, held)), n=len(held)))
    return sorted(scores, key=lambda score: score.log_loss)


def _split(answers: Sequence[Answer]) -> tuple[list[Answer], list[Answer]]:
    """The last fifth of each student's answers held out, at least one of a student with three."""
    total: dict[str, int] = {}
    for answer in answers:
        total[answer.student] = total.get(answer.student, 0) + 1
    kept: list[Answer] = []
    held: list[Answer] = []
    seen: dict[str, int] = {}
    for answer in answers:
        seen[answer.student] = seen.get(answer.student, 0) + 1
        n = total[answer.student]
        late = max(1, round(HELD_OUT * n)) if n > 2 else 0
        (held if seen[answer.student] > n - late else kept).append(answer)
    return kept, held


def _item_means(kept: Sequence[Answer], asked: Sequence[Answer]) -> Numbers:
    """Shares of right answers, drawn to the overall share by one answer's weight."""
    overall = sum(a.correct for a in kept) / len(kept)
    n: dict[str, int] = {}
    right: dict[str, int] = {}
    for answer in kept:
        n[answer.item] = n.get(answer.item, 0) + 1
        right[answer.item] = right.get(answer.item, 0) + int(answer.correct)
    return np.array([(right.get(a.item, 0) + overall) / (n.get(a.item, 0) + 1) for a in asked])


def _triple(answer: Answer) -> tuple[str, str, str]:
    return answer.student, answer.item, answer.skill
