"""The difficulty engine: recovery, refusals, order of time, calibrated items, bad input."""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from neuroedge.contract.errors import InvalidInput
from neuroedge.engines.learning.difficulty import Difficulty, Input, KnownItem, Output, Question, Response
from tests.fakes import RecordedProgress, make_context

pytestmark = pytest.mark.anyio
ANSWER = {"student": "s", "item": "i", "correct": True}


def _responses(students: int = 60, items: int = 10, *, seed: int = 0, skill: str | None = "k") -> list[Response]:
    rng = np.random.default_rng(seed)
    ability, hard = rng.standard_normal(students), np.linspace(-2, 2, items)
    return [
        Response(
            student=f"s{s}",
            item=f"i{i}",
            skill=skill,
            correct=bool(rng.random() < 1 / (1 + np.exp(hard[i] - ability[s]))),
        )
        for s in range(students)
        for i in range(items)
    ]


async def _run(payload: Input) -> Output:
    context = make_context()
    return await Difficulty(probe=context).run(payload, context)


async def test_items_come_out_in_their_order_with_errors_and_counts() -> None:
    """Difficulties of simulated answers; every estimate says on how many answers it rests."""
    told = await _run(Input(responses=_responses(), predict=[Question(student="s1", item=f"i{i}") for i in (0, 9)]))
    place = {row.item: row for row in told.items}
    found = [place[f"i{i}"].difficulty_logit for i in range(10)]
    assert np.corrcoef(found, np.linspace(-2, 2, 10))[0, 1] > 0.95
    assert all(row.n == 60 and row.se and row.se < 0.75 and row.reliable for row in told.items)
    assert {row.n for row in told.students} == {10}
    assert told.n_responses == 600
    easy, hard = (row.p_correct for row in told.predictions)
    assert easy is not None
    assert hard is not None
    assert easy > hard
    assert told.reliable, told.warnings
    loss = {s.model: s.log_loss for s in told.comparison}
    assert told.method.removesuffix("+bkt") == min((s for s in loss if s != "item_mean"), key=lambda s: loss[s])


@pytest.mark.parametrize("model", ["rasch", "2pl", "elo", "best_lr"])
async def test_the_model_asked_for_answers(model: Any) -> None:
    """And the method names it."""
    asked = [Question(student="s0", item="i0"), Question(student="s0", item="i9")]
    told = await _run(Input(responses=_responses(skill=None), model=model, predict=asked))
    assert told.method == model
    easy, hard = (row.p_correct for row in told.predictions)
    assert easy
    assert hard
    assert easy > hard
    assert told.mastery == []


async def test_too_little_is_refused_or_left_open() -> None:
    """Under the minimum 422; a stranger gets no probability but the reason."""
    with pytest.raises(InvalidInput, match="too few") as caught:
        await _run(Input(responses=_responses(4, 10)))
    assert "known_items" in str(caught.value.hint)
    with pytest.raises(InvalidInput, match="all answers are right"):
        await _run(Input(responses=[r.model_copy(update={"correct": True}) for r in _responses()]))
    asked = [Question(student="nobody", item="i0"), Question(student="s0", item="nothing")]
    told = (await _run(Input(responses=_responses(), predict=asked))).predictions
    assert [row.p_correct for row in told] == [None, None]
    assert "0 answers of this student" in str(told[0].reason)
    assert "0 answers to this item" in str(told[1].reason)


async def test_predictions_worth_nothing_are_marked() -> None:
    """Ability unrelated to the last answers: worse than the items' shares, not reliable, and the warning says so."""
    turned = [
        r.model_copy(update={"correct": r.correct if k % 10 < 8 else not r.correct})
        for k, r in enumerate(_responses(60, 10))
    ]
    told = await _run(Input(responses=turned, model="2pl"))
    loss = {s.model: s.log_loss for s in told.comparison}
    assert loss["2pl"] > loss["item_mean"]
    assert not told.reliable
    assert "does not predict better" in told.warnings[0]
    few = await _run(Input(responses=_responses(10, 6)))
    assert few.comparison == []
    assert not few.reliable


async def test_the_order_sent_does_not_matter_when_times_are_given() -> None:
    """Mastery follows `at`; some times only are refused."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    timed = [r.model_copy(update={"at": start + timedelta(minutes=i)}) for i, r in enumerate(_responses(30, 8))]
    forwards = await _run(Input(responses=timed))
    backwards = await _run(Input(responses=timed[::-1]))
    assert forwards == backwards
    with pytest.raises(InvalidInput, match="have no `at`"):
        await _run(Input(responses=[*timed, Response(**ANSWER)]))


async def test_one_student_is_placed_on_calibrated_items() -> None:
    """EAP by known items: more right answers, more ability; unknown items are said to be unknown."""
    known = [KnownItem(item=f"i{i}", difficulty_logit=d) for i, d in enumerate((-1.0, 0.0, 1.0))]

    async def ability(right: int) -> Output:
        responses = [Response(student="a", item=f"i{i}", correct=i < right) for i in range(3)]
        asked = [Question(student="a", item="i2"), Question(student="a", item="new")]
        return await _run(Input(responses=responses, known_items=known, predict=asked))

    low, high = await ability(1), await ability(3)
    assert low.students[0].ability_logit < high.students[0].ability_logit
    assert low.method == "eap-known-items"
    assert high.predictions[0].p_correct
    assert high.predictions[1].p_correct is None
    assert high.predictions[1].reason == "not one of `known_items`"
    with pytest.raises(InvalidInput, match="twice"):
        await _run(Input(responses=[Response(**ANSWER)], known_items=[known[0], known[0]]))
    with pytest.raises(InvalidInput, match="no answer is to an item"):
        await _run(Input(responses=[Response(**ANSWER)], known_items=[KnownItem(item="x", difficulty_logit=0)]))


async def test_mastery_rises_with_right_answers_and_needs_three() -> None:
    """With its n; too few answers give none."""
    extra = [Response(student="new", item="i0", skill="other", correct=True)] * 2
    told = await _run(Input(responses=[*_responses(), *extra]))
    by_student = {(row.student, row.skill): row for row in told.mastery}
    assert by_student["new", "other"].p_mastery is None
    assert by_student["new", "other"].n == 2
    assert by_student["s0", "k"].reliable
    assert by_student["s0", "k"].p_mastery is not None


async def test_thousands_of_answers_to_thousands_of_items_end() -> None:
    """The largest input, each item answered once or twice: an answer that says how little it knows."""
    responses = [
        Response(student=f"s{i % 500}", item=f"i{i % 3000}", correct=(i * 7919) % 3 > 0) for i in range(20_000)
    ]
    told = await _run(Input(responses=responses, model="rasch"))
    assert len(told.items) == 3000
    assert not any(row.reliable for row in told.items)


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"responses": []},
        {"responses": [{**ANSWER, "correct": "yes"}]},
        {"responses": [{**ANSWER, "correct": 1}]},
        {"responses": [{**ANSWER, "item": ""}]},
        {"responses": [{**ANSWER, "item": "x" * 201}]},
        {"responses": [{**ANSWER, "at": "2026-01-01T00:00:00"}]},
        {"responses": [{**ANSWER, "at": "yesterday"}]},
        {"responses": [{**ANSWER, "colour": "red"}]},
        {"responses": [ANSWER] * 20_001},
        {"responses": [ANSWER], "model": "dkt"},
        {"responses": [ANSWER], "predict": [{"student": "s"}]},
        {"responses": [ANSWER], "known_items": [{"item": "i", "difficulty_logit": float("nan")}]},
        {"responses": [ANSWER], "known_items": [{"item": "i", "difficulty_logit": 1e9}]},
        {"responses": [ANSWER], "known_items": [{"item": "i", "difficulty_logit": 0, "discrimination": -1}]},
    ],
)
def test_bad_input_is_refused(payload: dict[str, Any]) -> None:
    """By the schema, with the field."""
    with pytest.raises(ValidationError):
        Input.model_validate(payload)


async def test_it_proves_itself_and_reports_progress() -> None:
    """post_swap_test on the example; two stages."""
    progress = RecordedProgress()
    context = make_context(progress=progress)
    await Difficulty(probe=context).post_swap_test()
    assert progress.reports
