"""The solvers' own process: one JSON request a line in, one JSON answer a line out; killed by whoever waits too long.

Started by kit/solver.py with nothing of the parent's environment, a limit on memory and one on processor time.
"""

import json
import sys
from dataclasses import asdict
from typing import Any, Final

from neuroedge.kit import formal
from neuroedge.kit.formal import FormulaError

MAX_MEMORY_BYTES: Final = 3 << 30
MAX_PROCESSOR_S: Final = 120


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """What a request comes to: an Outcome's fields, with `conclusion` where one was given. Raises FormulaError."""
    from neuroedge.kit.formal_algebra import calculated, solved
    from neuroedge.kit.formal_logic import concluded, satisfied

    statements = request["statements"]
    trees = [formal.parse(text) for text in statements]
    integers, timeout_ms = bool(request.get("integers")), int(request["timeout_ms"])
    unknowns = list(dict.fromkeys(n for t in trees for n in formal.names(t) if n not in formal.CONSTANTS))
    if len(trees) == 1 and not formal.is_statement(trees[0]):
        if unknowns:
            raise FormulaError(f"'{unknowns[0]}' has no value; write an equation to solve for it")
        return asdict(calculated(trees[0]))
    if not all(formal.is_statement(tree) or tree.op == "name" for tree in trees):
        raise FormulaError("statements are true or false: x + y = 10, p implies q")
    if not unknowns:
        outcome = _true_or_false(trees) or satisfied(trees, integers=integers, timeout_ms=timeout_ms)
    elif not integers and all(tree.op == "=" for tree in trees) and not request.get("conclusion"):
        outcome = solved(trees, unknowns)
    else:
        outcome = satisfied(trees, integers=integers, timeout_ms=timeout_ms)
    told = asdict(outcome)
    if request.get("conclusion"):
        last = formal.parse(request["conclusion"])
        consistent = outcome.status in ("solved", "many", "true")
        told["conclusion"] = (
            concluded(trees, last, integers=integers, timeout_ms=timeout_ms) if consistent else "unknown"
        )
    return told


def _true_or_false(trees: list[formal.Node]) -> Any:
    from neuroedge.kit.formal_algebra import Outcome

    try:
        holds = all(formal.evaluate(tree, {}) is True for tree in trees)
    except formal.NotExact:
        raise FormulaError("only rational numbers can be compared exactly") from None
    word = "true" if holds else "false"
    return Outcome(status=word, answer=word, verified=True, check="exact rational arithmetic")


def main() -> None:
    """Answer until the input ends."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (MAX_PROCESSOR_S, MAX_PROCESSOR_S))
    for line in sys.stdin:
        try:
            told = answer(json.loads(line))
        except FormulaError as error:
            told = {"error": str(error)}
        except (RecursionError, MemoryError, OverflowError):
            told = {"error": "too large to be computed"}
        except Exception as error:  # sympy and z3 raise errors of many unrelated classes
            told = {"error": f"cannot be computed ({type(error).__name__})"}
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
