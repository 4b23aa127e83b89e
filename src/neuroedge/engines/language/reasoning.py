"""Answers that are computed and checked: formulas, equations, logic, and word problems by a language model with tools.

Formal input (`expression`, `constraints`) needs no language model: numbers and equations by sympy (Meurer et al.
2017), integers and logic by z3 (de Moura & Bjørner 2008), each result checked a second way (kit/formal_algebra.py,
kit/formal_logic.py). Formulas are read by a grammar of our own (kit/formal.py), never by `eval`, and solved in a
process without environment that is killed after ten seconds (kit/solver.py).
A `question` goes to a language model that thinks and acts in turn (ReAct, Yao et al. 2023): it may calculate or solve,
and sees what came out. Licences: sympy BSD-3-Clause, z3 MIT.
Limits of use: for a question, `verified` says that the answer is what checked computations gave over numbers that the
question names, not that the model understood it: whether its formulas say what the words say is checked by nothing. The
default model has half a billion parameters and often does not understand (docs/engines/reasoning.md). No proof beyond
z3's, no integrals, no units.
"""

import asyncio
import json
import re
from collections.abc import Sequence
from contextlib import aclosing
from fractions import Fraction
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from neuroedge.contract.chat import ChatMessage, ChatRequest, Policy
from neuroedge.contract.engine import Engine, EngineContext, EngineInput, EngineOutput, Usage
from neuroedge.contract.errors import InvalidInput, NeuroEdgeError
from neuroedge.kit import formal
from neuroedge.kit.formal import FormulaError
from neuroedge.kit.solver import Solver

POLICY: Final = Policy(query_type="reasoning")
FORMAL_METHOD: Final = "sympy+z3"
REACT_METHOD: Final = "react+sympy+z3"
DIRECT_METHOD: Final = "llm-alone"
MAX_SOLVERS: Final = 2
"""Solver processes at once: each may take a core."""
_STEP_TOKENS: Final = 200
_UNSIGNED: Final = re.compile(r"\d+(?:\.\d+)?")
_NUMBER_WORDS: Final = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
)
_MAX_SEEN: Final = 600
_NUMBER: Final = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:/\d+)?")
SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "thought": {"type": "string", "maxLength": 300},
        "action": {"enum": ["calculate", "solve", "answer"]},
        "input": {"type": "string", "maxLength": 300},
    },
    "required": ["thought", "action", "input"],
    "additionalProperties": False,
}
PROMPT: Final = """Solve the problem in steps. Each step is one JSON object with thought, action and input. Actions:
calculate - input is one formula with numbers only, such as 3 * (4 + 5)
solve - input is equations with unknowns separated by ; such as x + y = 10; x - y = 4
answer - input is the final answer, only the number or word
Never calculate in your head: use calculate or solve first, then answer with what was observed."""
SHOWN: Final = (
    ("Tom has 3 boxes of 12 pens and loses 5 pens. How many are left?", "calculate", "3 * 12 - 5", "31", "31"),
    (
        "Two numbers add up to 20. One is 6 more than the other. What is the larger number?",
        *("solve", "x + y = 20; x = y + 6", "x = 13, y = 7", "13"),
    ),
)
Formula = Annotated[str, Field(min_length=1, max_length=500)]


class Input(EngineInput):
    """One of: a question in words, an expression or equation, constraints."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    question: str | None = Field(
        default=None, min_length=1, max_length=4000, description="A problem in words, for a language model with tools."
    )
    expression: str | None = Field(
        default=None,
        min_length=1,
        max_length=formal.MAX_CHARS,
        description="A formula to compute, 2 * (3 + 4)^2 / 7, or an equation to solve, x^2 = 4. No language model.",
    )
    constraints: list[Formula] | None = Field(
        default=None,
        min_length=1,
        max_length=60,
        description="Statements that shall all hold: x + y = 10, a in 1..5, distinct(a, b), p implies not q. "
        "No language model.",
    )
    integers: bool = Field(default=False, description="Whether unknown numbers are integers; else they are real.")
    conclusion: Formula | None = Field(
        default=None, description="With constraints: a statement of which to tell whether it follows from them."
    )
    tools: bool = Field(default=True, description="Whether the language model may compute; false: it answers alone.")
    max_steps: int = Field(default=6, ge=1, le=12, description="Most steps of the language model.")

    @model_validator(mode="after")
    def _one_task(self) -> "Input":
        if sum(given is not None for given in (self.question, self.expression, self.constraints)) != 1:
            raise ValueError("give exactly one of 'question', 'expression' and 'constraints'")
        if self.conclusion is not None and self.constraints is None:
            raise ValueError("'conclusion' needs 'constraints'")
        return self


class ReasoningStep(BaseModel):
    """A thought, what was done, and what came of it."""

    thought: str = Field(description="The language model's words; empty for formal input.")
    action: Literal["calculate", "solve", "answer", "unreadable"] = Field(
        description="unreadable: the language model's answer was no step."
    )
    input: str = Field(description="The formula, the equations or the answer.")
    observation: str = Field(description="What the solver found, or why it did not.")
    verified: bool = Field(description="Whether a second way confirmed the observation.")
    check: str = Field(default="", description="How it was confirmed, or why not.")


class Output(EngineOutput):
    """The answer with the steps that led to it."""

    answer: str | None = Field(description="The answer; null when none was found.")
    decimal: str | None = Field(default=None, description="A single number's value to 15 digits.")
    status: Literal["value", "true", "false", "solved", "no_solution", "many", "unknown", "answered", "unanswered"] = (
        Field(description="value, solved, many solutions, …; for a question answered or unanswered.")
    )
    verified: bool = Field(
        description="Formal input: a second way confirms the answer. Question: the answer is what a confirmed "
        "computation gave; that its formulas say what the question says is not checked."
    )
    steps: list[ReasoningStep] = Field(description="What was done, in order.")
    solutions: list[dict[str, str]] = Field(default_factory=list, description="Values of the unknowns, at most 20.")
    unique: bool | None = Field(default=None, description="Whether it is the only solution; null where not known.")
    conflict: list[int] = Field(
        default_factory=list, description="Positions of constraints (from 0) that cannot all hold."
    )
    conclusion: Literal["follows", "contradicted", "open", "unknown"] | None = Field(
        default=None, description="Whether the conclusion holds in all cases, in none, or in some."
    )
    usage: Usage = Field(default_factory=Usage, description="Tokens of the language model.")
    reliable: bool = Field(description="As `verified`, and the question was formal.")
    warnings: list[str] = Field(default_factory=list, description="What is uncertain.")


class Reasoning(Engine[Input, Output]):
    """Formal tasks by solvers; questions by a language model that uses them."""

    name = "reasoning"
    title = "Reasoning with checked steps"
    method = FORMAL_METHOD
    example = Input(constraints=["adults + children = 30", "12 adults + 7 children = 280"])
    timeout_s = 600.0

    def __init__(self, *, probe: EngineContext) -> None:
        super().__init__(probe=probe)
        self._free = asyncio.Semaphore(MAX_SOLVERS)

    async def run(self, payload: Input, ctx: EngineContext) -> Output:
        """Compute or reason. Raises InvalidInput for what is no formula; for a question what the model raises."""
        if payload.question is not None and not payload.tools:
            return await _alone(payload.question, ctx)
        async with self._free, Solver() as solver:
            if payload.question is not None:
                return await _reasoned(payload.question, payload.max_steps, solver, ctx)
            return await _formal(payload, solver)

    async def post_swap_test(self) -> None:
        """The example has one solution: 14 adults and 16 children."""
        await super().post_swap_test()
        answer = await self.run(self.example, self.probe)
        if not answer.verified or answer.solutions != [{"adults": "14", "children": "16"}]:
            raise NeuroEdgeError("the reasoning engine does not solve its own example")


async def _formal(payload: Input, solver: Solver) -> Output:
    statements = payload.constraints if payload.constraints is not None else [payload.expression or ""]
    where = "constraints" if payload.constraints is not None else "expression"
    _check(statements, payload.conclusion, where)
    try:
        found = await solver.solve(statements, integers=payload.integers, conclusion=payload.conclusion)
    except FormulaError as error:
        raise InvalidInput(f"{where}: {error}", errors=[_problem([where], str(error))]) from error
    warnings = [] if found["verified"] else [found["check"]]
    action: Literal["calculate", "solve"] = "calculate" if found["status"] == "value" else "solve"
    step = ReasoningStep(
        thought="",
        action=action,
        input="; ".join(statements),
        observation=found["answer"],
        verified=found["verified"],
        check=found["check"],
    )
    return Output(
        method=FORMAL_METHOD,
        answer=found["answer"] or None,
        decimal=found["decimal"],
        status=found["status"],
        verified=found["verified"],
        steps=[step],
        solutions=found["solutions"],
        unique=found["unique"],
        conflict=found["conflict"],
        conclusion=found.get("conclusion"),
        reliable=found["verified"],
        warnings=warnings,
    )


def _check(statements: Sequence[str], conclusion: str | None, where: str) -> None:
    """Parse everything here, so that a mistake is told with its place and no process is started for it."""
    problems = []
    for i, text in enumerate(statements):
        if problem := _not_a_formula(text):
            problems.append(_problem([where, i] if where == "constraints" else [where], problem))
    if conclusion is not None and (problem := _not_a_formula(conclusion)):
        problems.append(_problem(["conclusion"], problem))
    if problems:
        raise InvalidInput("no formula: " + "; ".join(p["msg"] for p in problems[:3]), errors=problems)


def _not_a_formula(text: str) -> str | None:
    try:
        formal.parse(text)
    except FormulaError as error:
        return str(error)
    return None


def _problem(loc: list[str | int], message: str) -> dict[str, Any]:
    return {"loc": ["body", *loc], "msg": message, "type": "formula"}


async def _reasoned(question: str, max_steps: int, solver: Solver, ctx: EngineContext) -> Output:
    """Think, act and observe until the model answers."""
    messages = [ChatMessage(role="system", content=PROMPT), *_examples(), ChatMessage(role="user", content=question)]
    usage, who, steps = Usage(), list[str](), list[ReasoningStep]()
    values: set[Fraction] = set()
    for n in range(max_steps):
        said = await _said(ctx, messages, usage, who, schema=SCHEMA)
        step = await _acted(said, solver, values)
        steps.append(step)
        if step.action == "answer":
            break
        messages += [
            ChatMessage(role="assistant", content=said[:_MAX_SEEN]),
            ChatMessage(role="user", content=f"Observation: {step.observation[:_MAX_SEEN]}"),
        ]
        await ctx.progress("reasoning", (n + 1) / max_steps)
    answered = bool(steps) and steps[-1].action == "answer"
    computed = answered and steps[-1].verified
    foreign = _foreign_numbers(question, [step.input for step in steps if step.verified and step.action != "answer"])
    verified = computed and not foreign
    warnings = ["whether the formulas say what the question says is not checked"]
    if answered and not computed:
        warnings.append("the answer is not what any checked computation gave")
    if foreign:
        warnings.append(f"the formulas hold numbers that the question does not: {', '.join(foreign)}")
    if not answered:
        warnings.append(f"no answer within {max_steps} steps")
    return Output(
        method=REACT_METHOD,
        models=list(dict.fromkeys(who)),
        answer=steps[-1].input if answered else None,
        status="answered" if answered else "unanswered",
        verified=verified,
        steps=steps,
        usage=usage,
        reliable=False,
        warnings=warnings,
    )


def _foreign_numbers(question: str, formulas: Sequence[str]) -> list[str]:
    """Numbers of the formulas that the question names neither in digits nor in words, in the order they occur."""
    named = set(_UNSIGNED.findall(question.replace(",", "")))
    named |= {
        str(_NUMBER_WORDS.index(word)) for word in re.findall(r"[a-z]+", question.lower()) if word in _NUMBER_WORDS
    }
    known = {Fraction(name) for name in named}
    used = dict.fromkeys(number for formula in formulas for number in _UNSIGNED.findall(formula))
    return [number for number in used if Fraction(number) not in known]


def _examples() -> list[ChatMessage]:
    """Two solved problems, step by step, as the model is to write them."""
    shown = []
    for question, action, formula, seen, answer in SHOWN:
        first = {"thought": "I write the problem as a formula.", "action": action, "input": formula}
        last = {"thought": "The observation answers it.", "action": "answer", "input": answer}
        shown += [
            ChatMessage(role="user", content=question),
            ChatMessage(role="assistant", content=json.dumps(first)),
            ChatMessage(role="user", content=f"Observation: {seen}"),
            ChatMessage(role="assistant", content=json.dumps(last)),
        ]
    return shown


async def _acted(said: str, solver: Solver, values: set[Fraction]) -> ReasoningStep:
    """Do what the model says; `values` collects the numbers that checked computations gave."""
    step = _step(said)
    if step is None:
        hint = "not understood: write one JSON object with thought, action and input"
        return ReasoningStep(thought="", action="unreadable", input=said[:_MAX_SEEN], observation=hint, verified=False)
    if step.action == "answer":
        number = _last_number(step.input)
        step.verified = number is not None and number in values
        step.check = "given by a checked computation" if step.verified else "given by no checked computation"
        return step
    statements = [part for part in re.split(r"[;\n]", step.input) if part.strip()] or [""]
    try:
        found = await solver.solve(statements)
    except FormulaError as error:
        step.observation = f"error: {error}"
        return step
    step.observation, step.verified, step.check = found["answer"], found["verified"], found["check"]
    if step.verified:
        texts = [found["answer"]] if found["status"] == "value" else [v for s in found["solutions"] for v in s.values()]
        values.update(number for text in texts if (number := _last_number(text)) is not None)
    return step


def _step(said: str) -> ReasoningStep | None:
    """The first JSON object in what the model said, if it is a step."""
    begin, end = said.find("{"), said.rfind("}")
    try:
        made = json.loads(said[begin : end + 1]) if 0 <= begin < end else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(made, dict) or made.get("action") not in ("calculate", "solve", "answer"):
        return None
    thought, text = str(made.get("thought", ""))[:_MAX_SEEN], str(made.get("input", ""))[:_MAX_SEEN]
    return ReasoningStep(thought=thought, action=made["action"], input=text, observation="", verified=False)


def _last_number(text: str) -> Fraction | None:
    """The last number in a text: 1,234.5 or 7/2."""
    found = _NUMBER.findall(text[:_MAX_SEEN])
    try:
        return Fraction(found[-1].replace(",", "")) if found else None
    except ZeroDivisionError:
        return None


async def _alone(question: str, ctx: EngineContext) -> Output:
    """The model's answer without any computation."""
    system = "Solve the problem. Answer with the final answer only: a number or a word."
    messages = [ChatMessage(role="system", content=system), ChatMessage(role="user", content=question)]
    usage, who = Usage(), list[str]()
    said = (await _said(ctx, messages, usage, who, schema=None)).strip()
    return Output(
        method=DIRECT_METHOD,
        models=list(dict.fromkeys(who)),
        answer=said or None,
        status="answered" if said else "unanswered",
        verified=False,
        steps=[ReasoningStep(thought="", action="answer", input=said, observation="", verified=False)],
        usage=usage,
        reliable=False,
        warnings=["nothing was computed or checked"],
    )


async def _said(
    ctx: EngineContext, messages: Sequence[ChatMessage], usage: Usage, who: list[str], *, schema: dict[str, Any] | None
) -> str:
    request = ChatRequest(list(messages), max_tokens=_STEP_TOKENS, json_schema=schema)
    pieces: list[str] = []
    async with aclosing(ctx.llm.stream(request, policy=POLICY)) as stream:
        async for delta in stream:
            pieces.append(delta.text)
            usage.count(delta)
            who += [delta.model] if delta.model else []
    return "".join(pieces)
