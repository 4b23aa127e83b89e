"""Generated puzzles: formal ones against known solutions, questions by the default model with and without tools.

    python -m benchmarks.reasoning --models DIR [--puzzles N] [--questions N]

*Formal*: N (default 20) each of arithmetic with brackets, linear systems of two to four unknowns, and logic grids of
four to six places with one solution, made with a fixed seed from their solutions; right when verified and equal to the
known one.
*Questions*: N (default 10) each of two-step arithmetic and two-unknown word problems in templates, by the default local
model (0.5 billion parameters) alone and with tools; right when the last number of the answer is the solution. Nothing
was tuned on these; the prompt's two examples use other templates. Intervals: 95 %, Wilson (1927).
"""

import argparse
import asyncio
import re
import time
from fractions import Fraction
from itertools import permutations
from pathlib import Path

import numpy as np
from tests.fakes import make_context

from benchmarks.report import Figure, save
from neuroedge.engines.language.reasoning import Input, Output, Reasoning
from neuroedge.runtimes import llama

SEED = 20230317
MODEL = "qwen2.5-coder-0.5b-instruct"
NAMES = ("ann", "bob", "cid", "dan", "eve", "fay")
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:/\d+)?")


def main() -> int:
    """Make the puzzles, solve them, and ask the model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True, help=f"holds the folder {MODEL}")
    parser.add_argument("--puzzles", type=int, default=20)
    parser.add_argument("--questions", type=int, default=10)
    given = parser.parse_args()
    drawn = np.random.default_rng(SEED)
    figures = asyncio.run(formal_figures(drawn, given.puzzles))
    figures += asyncio.run(question_figures(drawn, given.models, given.questions))
    command = f"python -m benchmarks.reasoning --models DIR --puzzles {given.puzzles} --questions {given.questions}"
    save("reasoning", figures, title="Reasoning: generated puzzles", command=command)
    return 0


async def formal_figures(drawn: np.random.Generator, n: int) -> list[Figure]:
    """The solvers against what the puzzles were made from."""
    engine = Reasoning(probe=make_context(models={}))
    kinds = {"arithmetic": arithmetic, "linear systems": system, "logic grids": grid}
    found, seconds = [], []
    for name, make in kinds.items():
        right = 0
        for _ in range(n):
            task, solution = make(drawn)
            started = time.perf_counter()
            answer = await engine.run(task, engine.probe)
            seconds.append(time.perf_counter() - started)
            values = answer.solutions[0] if answer.solutions else {"": str(answer.answer)}
            right += answer.verified and {k: Fraction(v) for k, v in values.items()} == solution
        found.append(share(f"formal {name}: verified and right", right, n, at_least=1.0))
    low, mid, high = np.percentile(seconds, [5, 50, 95])
    found.append(
        Figure(
            name="formal: time, with the solvers' start",
            unit="s",
            median=round(float(mid), 3),
            low=round(float(low), 3),
            high=round(float(high), 3),
            runs=len(seconds),
            note="range: 5th to 95th percentile",
        )
    )
    return found


def arithmetic(drawn: np.random.Generator) -> tuple[Input, dict[str, Fraction]]:
    """(a + b) * c - d / e, by Python's fractions."""
    a, b, c, d, e = (int(n) for n in drawn.integers(1, 100, 5))
    return Input(expression=f"({a} + {b}) * {c} - {d} / {e}"), {"": (a + b) * Fraction(c) - Fraction(d, e)}


def system(drawn: np.random.Generator) -> tuple[Input, dict[str, Fraction]]:
    """A linear system with a unique integer solution."""
    n = int(drawn.integers(2, 5))
    names, solution = NAMES[:n], drawn.integers(-9, 10, n)
    while True:
        matrix = drawn.integers(-5, 6, (n, n))
        if abs(np.linalg.det(matrix)) > 0.5:
            break
    lines = [
        " + ".join(f"({c}) * {name}" for c, name in zip(row, names, strict=True)) + f" = {row @ solution}"
        for row in matrix
    ]
    return Input(constraints=lines), {name: Fraction(int(v)) for name, v in zip(names, solution, strict=True)}


def grid(drawn: np.random.Generator) -> tuple[Input, dict[str, Fraction]]:
    """Who stands where: clues drawn until one order is left."""
    n = int(drawn.integers(4, 7))
    names, order = NAMES[:n], [int(p) for p in drawn.permutation(n) + 1]
    left, clues = list(permutations(range(1, n + 1))), list[str]()
    while len(left) > 1:
        i, j = (int(k) for k in drawn.choice(n, 2, replace=False))
        kind = int(drawn.integers(3))
        if kind == 0 and order[i] < order[j]:
            clue, kept = f"{names[i]} < {names[j]}", [p for p in left if p[i] < p[j]]
        elif kind == 1 and abs(order[i] - order[j]) != 1:
            clue, kept = f"abs({names[i]} - {names[j]}) != 1", [p for p in left if abs(p[i] - p[j]) != 1]
        elif kind == 2 and order[i] != order[j] + 1:
            clue, kept = f"{names[i]} != {names[j]} + 1", [p for p in left if p[i] != p[j] + 1]
        else:
            continue
        if len(kept) < len(left):
            left, clues = kept, [*clues, clue]
    statements = [f"{name} in 1..{n}" for name in names] + [f"distinct({', '.join(names)})", *clues]
    return Input(constraints=statements), {name: Fraction(p) for name, p in zip(names, order, strict=True)}


async def question_figures(drawn: np.random.Generator, models: Path, n: int) -> list[Figure]:
    """The default model with and without tools on the same questions."""
    asked = [make(drawn) for _ in range(n) for make in (shopping, ages)]
    model = llama.load(MODEL, models / MODEL, threads=2, options={})
    ctx = make_context(models={"chat": model})
    engine = Reasoning(probe=ctx)
    try:
        alone = [await engine.run(Input(question=q, tools=False), ctx) for q, _ in asked]
        tools = [await engine.run(Input(question=q), ctx) for q, _ in asked]
    finally:
        model.close()
    right = {
        name: [is_right(a, s) for a, (_, s) in zip(answers, asked, strict=True)]
        for name, answers in (("alone", alone), ("tools", tools))
    }
    verified = [a.verified for a in tools]
    sure = sum(r and v for r, v in zip(right["tools"], verified, strict=True))
    return [
        share("questions, model alone: right", sum(right["alone"]), len(asked)),
        share("questions, with tools: right", sum(right["tools"]), len(asked)),
        share("questions, with tools: verified and right", sure, len(asked)),
        share("questions, with tools: right where verified", sure, sum(verified)),
    ]


def shopping(drawn: np.random.Generator) -> tuple[str, Fraction]:
    """Two steps: a sum of products less a payment."""
    boxes, each, loose, sold = (int(v) for v in drawn.integers((12, 13, 21, 5), (40, 60, 90, 20)))
    question = (
        f"A shop has {boxes} crates with {each} apples each and {loose} loose apples. "
        f"It sells {sold} apples. How many apples are left?"
    )
    return question, Fraction(boxes * each + loose - sold)


def ages(drawn: np.random.Generator) -> tuple[str, Fraction]:
    """Two unknowns: sum and multiple."""
    young, times = int(drawn.integers(4, 30)), int(drawn.integers(2, 5))
    question = (
        f"Maria is {times} times as old as Paul. Together they are {young * (times + 1)} years old. How old is Maria?"
    )
    return question, Fraction(young * times)


def is_right(answer: Output, solution: Fraction) -> bool:
    """Whether the last number said is the solution."""
    found = _NUMBER.findall(answer.answer or "")
    return bool(found) and Fraction(found[-1].replace(",", "")) == solution


def share(name: str, k: int, n: int, *, at_least: float | None = None) -> Figure:
    """k of n with Wilson's interval."""
    z, p = 1.96, k / n if n else 0.0
    middle, half = 0.5, 0.5
    if n:
        middle = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z * float(np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))) / (1 + z * z / n)
    return Figure(
        name=name,
        unit="",
        median=round(p, 3),
        low=round(max(0.0, middle - half), 3),
        high=round(min(1.0, middle + half), 3),
        runs=n,
        target="" if at_least is None else f"≥ {at_least:g}",
        met=None if at_least is None else p >= at_least,
        note="range: 95 % interval",
    )


if __name__ == "__main__":
    raise SystemExit(main())
