"""How hard items are, how able students are, how likely an answer is right, and which skills are mastered.

Task: answers of students to items in; out come item difficulties and abilities in logits with standard errors,
probabilities of right answers, and mastery of skills.
Method: Rasch and two-parameter logistic models by marginal maximum likelihood (Bock & Aitkin 1981), Elo ratings
(Pelánek 2016) and Best-LR (Gervet et al. 2020); `auto` takes the one with the lowest log loss on each student's last
answers, held out of the fit. Mastery by Bayesian knowledge tracing (Corbett & Anderson 1995), guess and slip bounded,
fitted to each student's first 1,000 answers at a skill.
Model: none is shipped; everything is estimated from the answers of the call. Licence: own code.
Limits: answers to one item by a student are taken as independent given ability; difficulties hold for the students who
answered, on a scale whose zero is these students' mean. Below the stated minimum nothing is predicted. An estimate says
how well somebody did on these items, nothing about the person; no grade should rest on it alone.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Literal

import numpy as np
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StrictBool, StringConstraints

from neuroedge.contract.engine import Engine, EngineContext, EngineInput, EngineOutput
from neuroedge.contract.errors import InvalidInput, ModelUnavailable
from neuroedge.kit import bkt
from neuroedge.kit.response_models import Answer, CalibratedItems, Model, Predictor, Score, calibrated, compared, placed

MIN_ANSWERS: Final = 50
MIN_STUDENTS: Final = 5
"""Fewer, and no difficulty is estimated."""
MIN_STUDENT_ANSWERS: Final = 3
MIN_ITEM_ANSWERS: Final = 5
"""Fewer of the student, or of the item, and no probability is given."""
MIN_SKILL_ANSWERS: Final = 100
"""Fewer of a skill, and its learning, guess and slip are not fitted but the usual ones."""
LARGE_SE: Final = 0.75
"""Logits; an estimate less sure is marked."""
KNOWN_METHOD: Final = "eap-known-items"

Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Response(_Part):
    """An answer of a student to an item."""

    student: Name = Field(description="Who answered, in the caller's words.")
    item: Name = Field(description="What was answered.")
    skill: Name | None = Field(default=None, description="The one skill the item needs; null: not known.")
    correct: StrictBool = Field(description="Whether it was right.")
    at: AwareDatetime | None = Field(
        default=None, description="When; with time zone. Of all answers or of none: without, the order given is time's."
    )


class Question(_Part):
    """A pair to predict."""

    student: Name = Field(description="Who would answer.")
    item: Name = Field(description="What would be answered.")
    skill: Name | None = Field(default=None, description="The one skill the item needs.")


class KnownItem(_Part):
    """An item calibrated before."""

    item: Name = Field(description="The item.")
    difficulty_logit: float = Field(ge=-15, le=15, description="Its difficulty, logits.")
    discrimination: float = Field(default=1.0, ge=0.05, le=10, description="Its discrimination; 1 in the Rasch model.")


class Input(EngineInput):
    """Answers, and what to predict from them."""

    responses: list[Response] = Field(min_length=1, max_length=20_000, description="Answers, in any order with `at`.")
    predict: list[Question] = Field(
        default_factory=list, max_length=5_000, description="Pairs of student and item to predict."
    )
    model: Literal["auto", "rasch", "2pl", "elo", "best_lr"] = Field(
        default="auto", description="What predicts; auto: the lowest log loss on held-out answers."
    )
    known_items: list[KnownItem] = Field(
        default_factory=list,
        max_length=5_000,
        description="Items calibrated before. Given these, only abilities are estimated, for as few as one student.",
    )


class Prediction(BaseModel):
    """The chance of a right answer, or why none is given."""

    student: str = Field(description="Who would answer.")
    item: str = Field(description="What would be answered.")
    p_correct: float | None = Field(description="Probability of a right answer, 0 to 1; null: too little is known.")
    n_student: int = Field(description="Answers of the student it rests on.")
    n_item: int = Field(description="Answers to the item it rests on.")
    reason: str | None = Field(default=None, description="Why there is none.")


class ItemEstimate(BaseModel):
    """An item's place on the scale."""

    item: str = Field(description="The item.")
    difficulty_logit: float = Field(description="Ability at which half the answers are right, logits.")
    se: float | None = Field(description="Standard error of it, logits; null: given by the caller.")
    discrimination: float = Field(description="Slope; 1 in the Rasch model.")
    p_observed: float | None = Field(description="Share of right answers.")
    n: int = Field(description="Answers it rests on.")
    reliable: bool = Field(description="Whether enough answers stand behind it.")


class StudentEstimate(BaseModel):
    """A student's place on the scale."""

    student: str = Field(description="The student.")
    ability_logit: float = Field(description="Expected a posteriori ability, logits; 0 is these students' mean.")
    se: float = Field(description="Posterior standard deviation, logits.")
    n: int = Field(description="Answers it rests on.")
    reliable: bool = Field(description="Whether enough answers stand behind it.")


class Mastery(BaseModel):
    """How far a student has a skill."""

    student: str = Field(description="The student.")
    skill: str = Field(description="The skill.")
    p_mastery: float | None = Field(description="Probability that it is mastered, 0 to 1; null: too few answers.")
    p_next_correct: float | None = Field(description="Probability that the next answer is right; null: too few.")
    n: int = Field(description="Answers of the student at this skill.")
    reliable: bool = Field(description="Whether the skill's learning, guess and slip were fitted on enough answers.")


class ModelScore(BaseModel):
    """How well a model predicted answers it had not seen."""

    model: str = Field(description="rasch, 2pl, elo, best_lr, or item_mean (the baseline).")
    log_loss: float = Field(description="Mean negative log-likelihood, nats; lower is better.")
    n: int = Field(description="Answers it was scored on.")


class Output(EngineOutput):
    """Estimates with their uncertainty."""

    predictions: list[Prediction] = Field(description="One for each pair of `predict`, in its order.")
    items: list[ItemEstimate] = Field(description="Every item, easiest first.")
    students: list[StudentEstimate] = Field(description="Every student, by name.")
    mastery: list[Mastery] = Field(description="Every student and skill that occur together.")
    comparison: list[ModelScore] = Field(description="Models on held-out answers, best first; empty: too few.")
    n_responses: int = Field(description="Answers all of it rests on.")
    reliable: bool = Field(
        description="Whether the predictions beat the items' shares of right answers, and no warning is serious."
    )
    warnings: list[str] = Field(description="What to mind.")


def _example() -> Input:
    """Twelve students and six items of rising difficulty."""
    solved = (6, 5, 4, 6, 3, 2, 5, 4, 3, 1, 4, 2)
    responses = [
        Response(student=f"s{s}", item=f"i{i}", skill="fractions", correct=(i < k) != ((s + i) % 7 == 0))
        for s, k in enumerate(solved)
        for i in range(6)
    ]
    return Input(responses=responses, predict=[Question(student="s5", item="i0"), Question(student="s5", item="i5")])


class Difficulty(Engine[Input, Output]):
    """Difficulty, ability, chance of success and mastery, with standard errors."""

    name = "difficulty"
    title = "Item difficulty, ability and mastery from answers"
    method = "marginal-ml-irt"
    example = _example()
    timeout_s = 120.0

    async def run(self, payload: Input, ctx: EngineContext) -> Output:
        """Estimate. Raises InvalidInput below the minimum, and for times of some answers only."""
        answers = _in_time(payload.responses)
        await ctx.progress("difficulty", 0.0)
        if payload.known_items:
            return await asyncio.to_thread(_with_known, payload, answers)
        _enough(answers)
        wanted = None if payload.model == "auto" else payload.model
        scores = await asyncio.to_thread(compared, answers, wanted=wanted)
        await ctx.progress("difficulty", 0.5)
        return await asyncio.to_thread(_estimated, payload, answers, scores)

    async def post_swap_test(self) -> None:
        """The example, whose first item is easier than its last."""
        await super().post_swap_test()
        first, last = (await self.run(self.example, self.probe)).predictions
        if first.p_correct is None or last.p_correct is None or first.p_correct <= last.p_correct:
            raise ModelUnavailable("the difficulty engine finds its example's last item no harder than the first")


def _in_time(responses: Sequence[Response]) -> list[Answer]:
    timed = [r.at for r in responses if r.at is not None]
    if timed and len(timed) < len(responses):
        raise InvalidInput(
            f"{len(responses) - len(timed)} of {len(responses)} answers have no `at`",
            hint="give it for all or for none",
        )
    ordered = sorted(responses, key=lambda r: r.at) if timed else responses  # type: ignore[arg-type,return-value]
    return [Answer(student=r.student, item=r.item, skill=r.skill or "", correct=r.correct) for r in ordered]


def _enough(answers: Sequence[Answer]) -> None:
    students = len({a.student for a in answers})
    if len(answers) < MIN_ANSWERS or students < MIN_STUDENTS:
        raise InvalidInput(
            f"{len(answers)} answers of {students} students are too few to estimate difficulties",
            hint=f"give at least {MIN_ANSWERS} answers of {MIN_STUDENTS} students, or `known_items`",
        )
    if len({a.correct for a in answers}) < 2:
        raise InvalidInput("all answers are right, or all are wrong: nothing can be told apart", hint="give more")


def _estimated(payload: Input, answers: Sequence[Answer], scores: Sequence[Score]) -> Output:
    """Everything from the answers themselves."""
    chosen = _chosen(payload.model, scores)
    scale = "2pl" if chosen == "2pl" or (chosen != "rasch" and _better_2pl(scores)) else "rasch"
    predictor = Predictor(answers, chosen)
    found = predictor.irt or calibrated(answers, model="2pl" if scale == "2pl" else "rasch")
    warnings = _warnings(found, chosen, scores)
    return Output(
        method=f"{chosen}+bkt" if any(a.skill for a in answers) else chosen,
        predictions=_predictions(payload.predict, answers, predictor),
        items=_items(found),
        students=_students(found),
        mastery=_mastery(answers),
        comparison=[ModelScore(model=s.model, log_loss=round(s.log_loss, 4), n=s.n) for s in scores],
        n_responses=len(answers),
        reliable=not warnings,
        warnings=warnings,
    )


def _chosen(wanted: str, scores: Sequence[Score]) -> Model:
    if wanted in ("rasch", "2pl", "elo", "best_lr"):
        return wanted  # type: ignore[return-value]
    return next((s.model for s in scores if s.model != "item_mean"), "rasch")


def _better_2pl(scores: Sequence[Score]) -> bool:
    order = [s.model for s in scores if s.model in ("rasch", "2pl")]
    return order[:1] == ["2pl"]


def _warnings(found: CalibratedItems, chosen: Model, scores: Sequence[Score]) -> list[str]:
    warnings = []
    if not scores:
        warnings.append("too few answers to hold some out: how well this predicts is not known")
    loss = {s.model: s.log_loss for s in scores}
    if scores and loss[chosen] >= loss["item_mean"]:
        warnings.append(
            f"{chosen} does not predict better than each item's share of right answers"
            f" (log loss {loss[chosen]:.3f} against {loss['item_mean']:.3f})"
        )
    if not found.items.converged:
        warnings.append(f"the item parameters had not settled after {found.items.steps} steps")
    return warnings


def _predictions(asked: Sequence[Question], answers: Sequence[Answer], predictor: Predictor) -> list[Prediction]:
    by_student, by_item = _counts(answers)
    p = predictor.p([(q.student, q.item, q.skill or "") for q in asked]) if asked else np.empty(0)
    return [_prediction(q, float(x), by_student, by_item, known=False) for q, x in zip(asked, p, strict=True)]


def _counts(answers: Sequence[Answer]) -> tuple[Counter[str], Counter[str]]:
    return Counter(a.student for a in answers), Counter(a.item for a in answers)


def _prediction(
    asked: Question, p: float, by_student: Mapping[str, int], by_item: Mapping[str, int], *, known: bool
) -> Prediction:
    n_student, n_item = by_student.get(asked.student, 0), by_item.get(asked.item, 0)
    reason = None
    if n_student < MIN_STUDENT_ANSWERS:
        reason = f"{n_student} answers of this student, needs {MIN_STUDENT_ANSWERS}"
    elif n_item < MIN_ITEM_ANSWERS and not known:
        reason = f"{n_item} answers to this item, needs {MIN_ITEM_ANSWERS}"
    return Prediction(
        student=asked.student,
        item=asked.item,
        p_correct=None if reason else round(p, 4),
        n_student=n_student,
        n_item=n_item,
        reason=reason,
    )


def _items(found: CalibratedItems) -> list[ItemEstimate]:
    rows = [
        ItemEstimate(
            item=name,
            difficulty_logit=round(float(found.items.difficulty[i]), 3),
            se=round(float(found.items.difficulty_se[i]), 3),
            discrimination=round(float(found.items.discrimination[i]), 3),
            p_observed=round(float(found.item_right[i] / found.item_n[i]), 4),
            n=int(found.item_n[i]),
            reliable=bool(found.item_n[i] >= 2 * MIN_ITEM_ANSWERS and found.items.difficulty_se[i] <= LARGE_SE),
        )
        for i, name in enumerate(found.item_names)
    ]
    return sorted(rows, key=lambda row: row.difficulty_logit)


def _students(found: CalibratedItems) -> list[StudentEstimate]:
    return [
        StudentEstimate(
            student=name,
            ability_logit=round(float(found.abilities.mean[i]), 3),
            se=round(float(found.abilities.sd[i]), 3),
            n=int(found.student_n[i]),
            reliable=bool(found.student_n[i] >= MIN_STUDENT_ANSWERS and found.abilities.sd[i] <= LARGE_SE),
        )
        for i, name in enumerate(found.student_names)
    ]


def _mastery(answers: Sequence[Answer]) -> list[Mastery]:
    """Of each student and skill; the skill's parameters from all of its answers where these are enough."""
    by_skill: dict[str, dict[str, list[bool]]] = {}
    for answer in answers:
        if answer.skill:
            by_skill.setdefault(answer.skill, {}).setdefault(answer.student, []).append(answer.correct)
    told = []
    for skill, students in sorted(by_skill.items()):
        sequences = list(students.values())
        fitted = sum(map(len, sequences)) >= MIN_SKILL_ANSWERS
        parameters = bkt.fit(sequences).skill if fitted else bkt.DEFAULT
        for student, sequence in sorted(students.items()):
            known, following = bkt.mastery(sequence, parameters)
            enough = len(sequence) >= MIN_STUDENT_ANSWERS
            told.append(
                Mastery(
                    student=student,
                    skill=skill,
                    p_mastery=round(known, 4) if enough else None,
                    p_next_correct=round(following, 4) if enough else None,
                    n=len(sequence),
                    reliable=fitted and enough,
                )
            )
    return told


def _with_known(payload: Input, answers: Sequence[Answer]) -> Output:
    """Abilities on the scale of items calibrated before; answers to other items count for mastery only."""
    known = {k.item: k for k in payload.known_items}
    if len(known) < len(payload.known_items):
        raise InvalidInput("`known_items` names an item twice", hint="give each item once")
    usable = [a for a in answers if a.item in known]
    if not usable:
        raise InvalidInput("no answer is to an item of `known_items`", hint="give answers to calibrated items")
    names = sorted(known)
    found = placed(usable, {name: (known[name].difficulty_logit, known[name].discrimination) for name in names})
    by_student, by_item = _counts(usable)
    p = found.p([(q.student, q.item) for q in payload.predict]) if payload.predict else np.empty(0)
    predictions = []
    for question, x in zip(payload.predict, p, strict=True):
        if question.item in known:
            predictions.append(_prediction(question, float(x), by_student, by_item, known=True))
        else:
            row = _prediction(question, float(x), by_student, by_item, known=True)
            predictions.append(row.model_copy(update={"p_correct": None, "reason": "not one of `known_items`"}))
    warnings = ["abilities assume a standard normal distribution on the scale of `known_items`"]
    if len(usable) < len(answers):
        warnings.append(f"{len(answers) - len(usable)} answers are to items that are not known")
    return Output(
        method=KNOWN_METHOD,
        predictions=predictions,
        items=[
            ItemEstimate(
                item=name,
                difficulty_logit=known[name].difficulty_logit,
                se=None,
                discrimination=known[name].discrimination,
                p_observed=round(float(found.item_right[i] / n), 4) if (n := int(found.item_n[i])) else None,
                n=n,
                reliable=True,
            )
            for i, name in enumerate(names)
        ],
        students=_students(found),
        mastery=_mastery(answers),
        comparison=[],
        n_responses=len(usable),
        reliable=any(n >= MIN_STUDENT_ANSWERS for n in by_student.values()),
        warnings=warnings,
    )
