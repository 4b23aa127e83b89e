"""The solvers in their own process: closed forms, contradictions, and what takes too long."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from neuroedge.kit import solver as solver_module
from neuroedge.kit.formal import FormulaError
from neuroedge.kit.solver import Solver

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """One loop for the module: the solver is shared."""
    return "asyncio"


@pytest.fixture(scope="module")
async def solver(anyio_backend: str) -> AsyncIterator[Solver]:
    """One process for all tests of this file."""
    async with Solver() as made:
        yield made


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("2 * (3 + 4)^2 / 7", "14"),
        ("0.1 + 0.2", "3/10"),
        ("sqrt(8)", "2*sqrt(2)"),
        ("ln(e^3)", "3"),
        ("sin(pi / 6)", "1/2"),
    ],
)
async def test_values_are_exact_and_checked(solver: Solver, text: str, answer: str) -> None:
    """Rational ones against exact arithmetic, others against their own digits."""
    found = await solver.solve([text])
    assert (found["status"], found["answer"], found["verified"]) == ("value", answer, True)


@pytest.mark.parametrize(
    ("statements", "solutions"),
    [
        (["x + y = 10", "x - y = 3"], [{"x": "13/2", "y": "7/2"}]),
        (["x^2 = 4"], [{"x": "-2"}, {"x": "2"}]),
        (["2^x = 8"], [{"x": "3"}]),
        (["x^2 + y^2 = 25", "x = y + 1"], [{"x": "-3", "y": "-4"}, {"x": "4", "y": "3"}]),
    ],
)
async def test_equations_are_solved_and_put_back(
    solver: Solver, statements: list[str], solutions: list[dict[str, str]]
) -> None:
    """Closed forms."""
    found = await solver.solve(statements)
    assert found["verified"]
    assert found["solutions"] == solutions


async def test_equations_without_one_solution_say_so(solver: Solver) -> None:
    """Contradicting, identical and too few."""
    assert (await solver.solve(["x + y = 1", "x + y = 2"]))["status"] == "no_solution"
    assert (await solver.solve(["x = x"]))["status"] == "many"
    assert (await solver.solve(["x + y = 2"]))["status"] == "many"
    assert (await solver.solve(["2 + 2 = 5"]))["status"] == "false"
    open_question = await solver.solve(["sin(x) = x^7 + 3^x"])
    assert (open_question["status"], open_question["verified"]) == ("unknown", False)


async def test_a_logic_grid_has_one_solution(solver: Solver) -> None:
    """Three children, three places; what follows from the clues and what does not."""
    grid = [f"{name} in 1..3" for name in ("ann", "bob", "cid")]
    grid += ["distinct(ann, bob, cid)", "ann < bob", "cid < ann"]
    found = await solver.solve(grid, conclusion="ann = 2")
    assert found["solutions"] == [{"ann": "2", "bob": "3", "cid": "1"}]
    assert (found["unique"], found["verified"], found["conclusion"]) == (True, True, "follows")
    assert (await solver.solve(grid, conclusion="bob = 1"))["conclusion"] == "contradicted"
    assert (await solver.solve(grid[:4], conclusion="bob = 1"))["conclusion"] == "open"


async def test_truth_values_are_reasoned_about(solver: Solver) -> None:
    """A chain of implications; names of contradicting statements."""
    found = await solver.solve(["p implies q", "q implies r", "p"], conclusion="r")
    assert found["conclusion"] == "follows"
    assert (await solver.solve(["p", "x > 0", "not p"]))["conflict"] == [0, 2]


async def test_integers_differ_from_real_numbers(solver: Solver) -> None:
    """2x = 3 has a real solution only."""
    assert (await solver.solve(["2x = 3"]))["solutions"] == [{"x": "3/2"}]
    assert (await solver.solve(["2x = 3"], integers=True))["status"] == "no_solution"


@pytest.mark.parametrize("text", ["9**9**9", "__import__('os')", "sqrt(-1)", "1/0", "x + 1", "x^1000 + factorial(x)"])
async def test_refused_formulas_leave_the_solver_alive(solver: Solver, text: str) -> None:
    """An error for each, and the next question is answered."""
    with pytest.raises(FormulaError):
        await solver.solve([text])
    assert (await solver.solve(["1 + 1"]))["answer"] == "2"


async def test_what_takes_too_long_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process is gone, and the next question gets a new one."""
    async with Solver() as own:
        await own.solve(["1 + 1"])
        assert own._process is not None
        pid = own._process.pid
        monkeypatch.setattr(solver_module, "SOLVE_S", 0.0)
        with pytest.raises(FormulaError, match="not solved within"):
            await own.solve(["x^5 + 3x^3 = y^7", "y^9 + x y = 11"])
        monkeypatch.undo()
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        assert (await own.solve(["2 + 2"]))["answer"] == "4"


async def test_the_process_has_nothing_of_our_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No secret of the server is where a solver's bug could reach it."""
    monkeypatch.setenv("NEUROEDGE_SECRET_FOR_TEST", "x")
    async with Solver() as own:
        await own.solve(["1 + 1"])
        assert own._process is not None
        environ = await asyncio.to_thread(Path(f"/proc/{own._process.pid}/environ").read_bytes)
        assert b"NEUROEDGE" not in environ
