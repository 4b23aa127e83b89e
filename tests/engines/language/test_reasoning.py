"""The reasoning engine: formal tasks without a model, questions with a scripted one, and hostile input."""

import json
from collections.abc import AsyncGenerator, Sequence
from decimal import Decimal

import pytest
from pydantic import ValidationError

from neuroedge.contract.chat import ChatDelta, ChatModel, ChatRequest, Policy
from neuroedge.contract.errors import InvalidInput
from neuroedge.engines.language.reasoning import Input, Output, Reasoning
from tests.fakes import make_context

pytestmark = pytest.mark.anyio


class _Scripted:
    """A language model that says what it was told to, and keeps what it was asked."""

    def __init__(self, *said: str) -> None:
        self._said = list(said)
        self.asked: list[Sequence[str]] = []

    async def stream(self, request: ChatRequest, *, policy: Policy = Policy()) -> AsyncGenerator[ChatDelta, None]:
        """The next line, in one piece."""
        self.asked.append([m.content for m in request.messages])
        text = self._said.pop(0) if self._said else "{}"
        yield ChatDelta(text=text, model="test/scripted", finish_reason="stop", prompt_tokens=7, cost_usd=Decimal(0))

    async def chosen(self, policy: Policy = Policy()) -> ChatModel:
        """Not asked for."""
        raise AssertionError


def _step(action: str, text: str, thought: str = "so") -> str:
    return json.dumps({"thought": thought, "action": action, "input": text})


async def _run(llm: _Scripted | None = None, /, **fields: object) -> Output:
    ctx = make_context(models={}, llm=llm or _Scripted())
    return await Reasoning(probe=ctx).run(Input.model_validate(fields), ctx)


async def test_an_expression_is_computed_without_a_language_model() -> None:
    """Exactly, with its check named."""
    llm = _Scripted()
    answer = await _run(llm, expression="2 * (3 + 4)^2 / 7")
    assert (answer.answer, answer.status, answer.verified, answer.reliable) == ("14", "value", True, True)
    assert answer.steps[0].check
    assert answer.method == "sympy+z3"
    assert not llm.asked


async def test_the_example_passes_its_own_self_test() -> None:
    """What is run when the engine is swapped."""
    await Reasoning(probe=make_context(models={})).post_swap_test()


async def test_constraints_that_contradict_are_named() -> None:
    """The two that cannot hold together, not the third."""
    answer = await _run(constraints=["x > 1", "y = 2", "x < 0"])
    assert (answer.status, answer.conflict, answer.verified) == ("no_solution", [0, 2], True)


async def test_a_conclusion_is_judged() -> None:
    """It follows from the premises."""
    answer = await _run(constraints=["man implies mortal", "man"], conclusion="mortal")
    assert answer.conclusion == "follows"


@pytest.mark.parametrize(
    "expression",
    [
        "__import__('os').system('touch /tmp/owned')",
        "9**9**9",
        "(" * 200 + "1" + ")" * 200,
        "open('x')",
        "1/0",
        "x + 1",
        "sqrt(-1)",
        "9" * 2000,
        "\x00",
        "१ + 𝟚; import os",
    ],
)
async def test_hostile_expressions_are_invalid_input(expression: str) -> None:
    """422 with the field; nothing is run."""
    with pytest.raises(InvalidInput) as refused:
        await _run(expression=expression)
    assert refused.value.errors[0]["loc"][1] == "expression"


async def test_a_bad_constraint_is_named_by_its_place() -> None:
    """The second of three."""
    with pytest.raises(InvalidInput) as refused:
        await _run(constraints=["x = 1", "y ==", "z = 2"])
    assert refused.value.errors[0]["loc"] == ["body", "constraints", 1]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"question": "?", "expression": "1"},
        {"question": ""},
        {"expression": "1" * 3000},
        {"constraints": []},
        {"constraints": ["x = 1"] * 100},
        {"constraints": ["x" * 501]},
        {"expression": "1", "conclusion": "x = 1"},
        {"question": "q", "max_steps": 0},
        {"question": "q", "max_steps": float("nan")},
        {"expression": 7},
    ],
)
async def test_requests_that_make_no_sense_are_refused(fields: dict[str, object]) -> None:
    """None, two, empty, too long, too many, wrong type."""
    with pytest.raises(ValidationError):
        Input.model_validate(fields)


async def test_a_question_is_answered_by_computing() -> None:
    """Think, calculate, observe, answer; the answer is what was computed."""
    llm = _Scripted(_step("calculate", "3 * 12 + 8"), _step("answer", "44 pens"))
    answer = await _run(llm, question="3 boxes of 12 pens and 8 more. How many?")
    assert (answer.answer, answer.verified, answer.reliable) == ("44 pens", True, False)
    assert [s.action for s in answer.steps] == ["calculate", "answer"]
    assert llm.asked[1][-1] == "Observation: 44"
    assert answer.usage.prompt_tokens == 14
    assert answer.models == ["test/scripted"]


async def test_an_answer_nobody_computed_is_not_verified() -> None:
    """The model says 45 after 44 was computed."""
    llm = _Scripted(_step("calculate", "3 * 12 + 8"), _step("answer", "45"))
    answer = await _run(llm, question="How many?")
    assert not answer.verified
    assert any("no" in w or "not" in w for w in answer.warnings)


async def test_numbers_out_of_thin_air_are_not_verified() -> None:
    """Computed rightly, from numbers that the question does not name; words for numbers count as named."""
    steps = (_step("calculate", "3 * 12 + 8"), _step("answer", "44"))
    answer = await _run(_Scripted(*steps), question="Three boxes of 12 pens. How many?")
    assert not answer.verified
    assert any("8" in w for w in answer.warnings)
    answer = await _run(_Scripted(*steps), question="Three boxes of twelve pens, and eight. How many?")
    assert answer.verified


async def test_the_models_mistakes_are_told_to_it() -> None:
    """No JSON, code instead of a formula, a huge power; then the right way."""
    llm = _Scripted(
        "I think it is 7",
        _step("calculate", "__import__('os')"),
        _step("calculate", "9**9**9"),
        _step("solve", "x + 2 = 9"),
        _step("answer", "x = 7"),
    )
    answer = await _run(llm, question="What plus 2 is 9?")
    assert [s.action for s in answer.steps] == ["unreadable", "calculate", "calculate", "solve", "answer"]
    assert [s.observation.startswith("error") for s in answer.steps[1:3]] == [True, True]
    assert answer.verified


async def test_a_model_that_never_answers_is_stopped() -> None:
    """After max_steps, without an answer."""
    answer = await _run(_Scripted(*[_step("calculate", "1 + 1")] * 9), question="?", max_steps=3)
    assert (len(answer.steps), answer.answer, answer.status) == (3, None, "unanswered")


async def test_without_tools_nothing_is_verified() -> None:
    """One answer, as the model gives it."""
    answer = await _run(_Scripted(" 31 "), question="How many?", tools=False)
    assert (answer.answer, answer.method, answer.verified) == ("31", "llm-alone", False)
