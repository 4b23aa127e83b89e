"""Statements about integers, real numbers and truth values by z3 (de Moura & Bjørner 2008, "Z3", TACAS).

A solution is checked by evaluating every statement with it in exact rational arithmetic (kit/formal.py), which shares
no code with z3. That there is no solution, or only one, is z3's own proof.
"""

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, Final, Literal

from neuroedge.kit import formal
from neuroedge.kit.formal import FormulaError, Node, NotExact
from neuroedge.kit.formal_algebra import Outcome

Verdict = Literal["follows", "contradicted", "open", "unknown"]
_MAX_DISTINCT: Final = 60


def satisfied(trees: Sequence[Node], *, integers: bool, timeout_ms: int) -> Outcome:
    """Values under which all statements hold, or which of them contradict each other. Raises FormulaError."""
    import z3

    unknowns, made = _translated(trees, integers=integers)
    solver = z3.Solver()
    solver.set("timeout", timeout_ms)
    marks = [z3.Bool(f"statement {i}") for i in range(len(made))]
    for mark, statement in zip(marks, made, strict=True):
        solver.assert_and_track(statement, mark)
    verdict = solver.check()
    if verdict == z3.unsat:
        core = {str(mark) for mark in solver.unsat_core()}
        conflict = [i for i, mark in enumerate(marks) if str(mark) in core]
        return Outcome(status="no_solution", answer="no solution", verified=True, check="z3's proof", conflict=conflict)
    if verdict != z3.sat:
        return Outcome(status="unknown", answer="", verified=False, check=f"z3 gave up: {solver.reason_unknown()}")
    model = solver.model()
    values = {name: model.eval(unknown, model_completion=True) for name, unknown in unknowns.items()}
    exact = {name: _value(value) for name, value in values.items()}
    shown = {name: str(values[name]) if v is None else formal.written(v) for name, v in exact.items()}
    good, check = _checked(trees, exact)
    others = z3.Or([unknowns[name] != value for name, value in values.items()]) if values else z3.BoolVal(False)
    solver.add(others)
    again = solver.check()
    unique = None if again == z3.unknown else bool(again == z3.unsat)
    return Outcome(
        status="many" if unique is False else "solved",
        answer=", ".join(f"{name} = {value}" for name, value in shown.items()) or "true",
        verified=good,
        check=check,
        solutions=[shown],
        unique=unique,
    )


def concluded(trees: Sequence[Node], conclusion: Node, *, integers: bool, timeout_ms: int) -> Verdict:
    """Whether the conclusion holds in all cases the statements allow, in none, or in some. Raises FormulaError."""
    import z3

    _, (*premises, last) = _translated([*trees, conclusion], integers=integers)
    answers = []
    for added in (z3.Not(last), last):
        solver = z3.Solver()
        solver.set("timeout", timeout_ms)
        solver.add(*premises, added)
        answers.append(solver.check())
    if z3.unsat in answers:
        return "follows" if answers[0] == z3.unsat else "contradicted"
    return "open" if answers == [z3.sat, z3.sat] else "unknown"


def _translated(trees: Sequence[Node], *, integers: bool) -> tuple[dict[str, Any], list[Any]]:
    import z3

    truths = set().union(*(formal.truth_names(tree) for tree in trees))
    whole = set().union(*(_ranged(tree) for tree in trees))
    order = dict.fromkeys(name for tree in trees for name in formal.names(tree))
    if len(order) > formal.MAX_NAMES:
        raise FormulaError(f"more than {formal.MAX_NAMES} names")
    unknowns = {
        name: z3.Bool(name) if name in truths else z3.Int(name) if integers or name in whole else z3.Real(name)
        for name in order
    }
    return unknowns, [_statement(tree, unknowns) for tree in trees]


def _ranged(node: Node) -> set[str]:
    own = {node.args[0].name} if node.op == "in" else set()
    return own.union(*(_ranged(arg) for arg in node.args))


def _statement(node: Node, unknowns: dict[str, Any]) -> Any:
    import z3

    if node.op in ("true", "false"):
        return z3.BoolVal(node.op == "true")
    if node.op == "name":
        found = unknowns[node.name]
        if not z3.is_bool(found):
            raise FormulaError(f"'{node.name}' stands for a number and for a truth value")
        return found
    if node.op in ("and", "or", "not", "implies", "iff"):
        args = [_statement(arg, unknowns) for arg in node.args]
        joined: dict[str, Any] = {
            "and": z3.And,
            "or": z3.Or,
            "not": z3.Not,
            "implies": z3.Implies,
            "iff": lambda a, b: a == b,
        }
        return joined[node.op](*args)
    if not formal.is_statement(node):
        raise FormulaError("a number stands where true or false must")
    numbers = [_number(arg, unknowns) for arg in node.args]
    if node.op == "distinct":
        return z3.Distinct(*numbers)
    if node.op == "in":
        return z3.And(numbers[1] <= numbers[0], numbers[0] <= numbers[2])
    a, b = numbers
    compared: dict[str, Callable[[], Any]] = {
        **{"=": lambda: a == b, "!=": lambda: a != b, "<": lambda: a < b, "<=": lambda: a <= b},
        **{">": lambda: a > b, ">=": lambda: a >= b},
    }
    return compared[node.op]()


def _number(node: Node, unknowns: dict[str, Any]) -> Any:
    import z3

    if not formal.names(node):
        try:
            value = formal.evaluate(node, {})
        except NotExact:
            raise FormulaError("statements take rational numbers only") from None
        if isinstance(value, bool):
            raise FormulaError("true or false stands where a number must")
        return z3.IntVal(int(value)) if value.denominator == 1 else z3.Q(value.numerator, value.denominator)
    if node.op == "name":
        found = unknowns[node.name]
        if z3.is_bool(found):
            raise FormulaError(f"'{node.name}' stands for a number and for a truth value")
        return found
    args = [_number(arg, unknowns) for arg in node.args]
    return _operated(node, args)


def _operated(node: Node, args: list[Any]) -> Any:
    import z3

    first, second = args[0], args[-1]
    match node.op:
        case "neg":
            return -first
        case "+":
            return first + second
        case "-":
            return first - second
        case "*":
            return first * second
        case "/":
            return z3.ToReal(first) / second if z3.is_int(first) else first / second
        case "mod" if z3.is_int(first) and z3.is_int(second):
            return first % second
        case "abs":
            return z3.If(first >= 0, first, -first)
        case "^" if z3.is_int_value(second) and 0 <= second.as_long() <= 4:
            product = z3.IntVal(1)
            for _ in range(second.as_long()):
                product = product * first
            return product
        case "min" | "max":
            best = first
            for other in args[1:]:
                best = z3.If(other < best if node.op == "min" else other > best, other, best)
            return best
    raise FormulaError(f"'{node.op}' of unknowns has no place among statements (powers: 0 to 4, mod: of integers)")


def _value(value: Any) -> Fraction | bool | None:
    """Exactly; None for an algebraic number that is no fraction."""
    import z3

    if z3.is_true(value) or z3.is_false(value):
        return bool(z3.is_true(value))
    if z3.is_int_value(value):
        return Fraction(value.as_long())
    if z3.is_rational_value(value):
        return Fraction(value.numerator_as_long(), value.denominator_as_long())
    return None


def _checked(trees: Sequence[Node], values: dict[str, Fraction | bool | None]) -> tuple[bool, str]:
    known = {name: value for name, value in values.items() if value is not None}
    if len(known) < len(values):
        return False, "an irrational value cannot be put back exactly"
    good = all(formal.evaluate(tree, known) is True for tree in trees)
    return good, "put back into every statement" if good else "a statement does not hold with these values"
