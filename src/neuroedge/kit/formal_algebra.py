"""Values and equations of formulas by sympy, each checked a second way. Slow to import; run it in a process of its own.

A number is checked against exact rational arithmetic (kit/formal.py), or, where it is irrational, against its own
digits at twice the precision. A solution is put back into every equation.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Final

from neuroedge.kit import formal
from neuroedge.kit.formal import FormulaError, Node, NotExact

MAX_SOLUTIONS: Final = 20
_MAX_EXPONENT: Final = 100
_MAX_WRITTEN: Final = 4000
_DIGITS: Final = 15


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came out of a computation, and whether a second way agrees."""

    status: str
    """value, true, false, solved, no_solution, many, unknown."""
    answer: str
    verified: bool
    check: str
    """How it was checked, or why not."""
    decimal: str | None = None
    solutions: list[dict[str, str]] = field(default_factory=list)
    unique: bool | None = None
    conflict: list[int] = field(default_factory=list)
    """Positions of statements that cannot all hold."""


def calculated(tree: Node) -> Outcome:
    """Value of a formula without unknowns. Raises FormulaError where it has none, or one too large."""
    value = _finite(built(tree, {}))
    try:
        exact = formal.evaluate(tree, {})
    except NotExact:
        near, nearer = value.evalf(_DIGITS * 2), value.evalf(_DIGITS * 4)
        agree = bool(abs(near - nearer) <= abs(nearer) * 10 ** (-_DIGITS))
        return Outcome(
            status="value",
            answer=_text(value),
            decimal=str(value.evalf(_DIGITS)),
            verified=agree,
            check=f"{2 * _DIGITS} and {4 * _DIGITS} digits agree" if agree else "its digits are not stable",
        )
    if isinstance(exact, bool):
        raise FormulaError("a statement has no value")
    return Outcome(
        status="value",
        answer=formal.written(exact),
        decimal=str(value.evalf(_DIGITS)),
        verified=bool(value == _rational(exact)),
        check="equals exact rational arithmetic",
    )


def solved(trees: Sequence[Node], unknowns: Sequence[str]) -> Outcome:
    """Real solutions of equations for `unknowns`, each put back into every one of them. Raises FormulaError."""
    import sympy

    symbols = {name: sympy.Symbol(name, real=True) for name in unknowns}
    sides = [_difference(tree, symbols) for tree in trees]
    if any(side.has(sympy.zoo, sympy.nan) for side in sides):
        raise FormulaError("division by zero")
    if all(side == 0 for side in sides):
        return Outcome(status="many", answer="any values", verified=True, check="both sides are the same", unique=False)
    wanted = [symbols[name] for name in unknowns]
    try:
        found = sympy.solve(sides, wanted, dict=True)
    except NotImplementedError:
        return Outcome(status="unknown", answer="", verified=False, check="no method known for these equations")
    if not found:
        # An equation that is no polynomial may have solutions sympy does not find: only linear ones are proven.
        linear = all(side.is_polynomial(*wanted) and sympy.Poly(side, *wanted).total_degree() <= 1 for side in sides)
        return Outcome(
            status="no_solution",
            answer="no real solution",
            verified=linear,
            check="the linear equations contradict each other" if linear else "none found; that there is none is open",
        )
    free = any(set(s.free_symbols) for solution in found for s in solution.values()) or any(
        len(solution) < len(wanted) for solution in found
    )
    good = [all(_vanishes(side.subs(solution)) for side in sides) for solution in found]
    kept = [{str(k): _text(v) for k, v in solution.items()} for solution in found[:MAX_SOLUTIONS]]
    return Outcome(
        status="many" if free else "solved",
        answer=" or ".join(", ".join(f"{k} = {v}" for k, v in s.items()) for s in kept),
        decimal=None if free or len(found) > 1 or len(wanted) > 1 else str(found[0][wanted[0]].evalf(_DIGITS)),
        solutions=kept,
        unique=len(found) == 1 and not free,
        verified=all(good),
        check="put back into every equation" if all(good) else "does not satisfy every equation exactly",
    )


def built(node: Node, symbols: dict[str, Any]) -> Any:
    """The sympy object of a numeric formula, made node by node. Raises FormulaError."""
    import sympy

    if node.op == "number":
        return _rational(node.number)
    if node.op == "name":
        constants = {"pi": sympy.pi, "e": sympy.E}
        found = symbols.get(node.name, constants.get(node.name))
        if found is None:
            raise FormulaError(f"'{node.name}' has no value")
        return found
    if formal.is_statement(node):
        raise FormulaError("a statement stands where a number must")
    args = [built(arg, symbols) for arg in node.args]
    if node.op == "^":
        return _power(args[0], args[1])
    if all(arg.is_Rational for arg in args):
        try:
            return _rational(_numeric(node.op, [Fraction(int(a.p), int(a.q)) for a in args]))
        except NotExact:
            pass
    return _applied(node.op, args)


def _numeric(op: str, args: list[Fraction]) -> Fraction:
    made = formal.evaluate(Node(op, tuple(Node("number", number=a) for a in args)), {})
    assert isinstance(made, Fraction)
    return made


def _applied(op: str, args: list[Any]) -> Any:
    import sympy

    made = {
        **{"neg": lambda a: -a, "+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b},
        **{"/": lambda a, b: a / b, "mod": sympy.Mod, "sqrt": sympy.sqrt, "abs": sympy.Abs, "exp": sympy.exp},
        **{"ln": sympy.log, "log": lambda a: sympy.log(a, 10), "sin": sympy.sin, "cos": sympy.cos, "tan": sympy.tan},
        **{"floor": sympy.floor, "ceil": sympy.ceiling, "min": sympy.Min, "max": sympy.Max},
    }
    if op not in made:
        raise FormulaError(f"{op} takes integers only")
    if op in ("exp", "factorial") and args[0].is_number and abs(args[0].evalf(5)) > formal.MAX_BITS:
        raise FormulaError("the power is too large")
    return made[op](*args)


def _power(base: Any, exponent: Any) -> Any:
    if base.is_Rational and exponent.is_Rational:
        try:
            return _rational(formal.power(_fraction(base), _fraction(exponent)))
        except NotExact:
            pass
    if exponent.is_number and abs(exponent.evalf(5)) > _MAX_EXPONENT:
        raise FormulaError(f"an exponent over {_MAX_EXPONENT}")
    return base**exponent


def _difference(tree: Node, symbols: dict[str, Any]) -> Any:
    if tree.op != "=":
        raise FormulaError("not an equation")
    left, right = (built(side, symbols) for side in tree.args)
    return left - right


def _finite(value: Any) -> Any:
    import sympy

    if value.has(sympy.zoo, sympy.nan, sympy.oo):
        raise FormulaError("division by zero, or no finite value")
    if value.is_real is False:
        raise FormulaError("the value is no real number")
    return value


def _vanishes(value: Any) -> bool:
    """Whether a difference is zero: exactly, or to 20 digits where it does not simplify."""
    import sympy

    if value == 0 or sympy.simplify(value) == 0:
        return True
    return bool(value.is_number and abs(value.evalf(30)) < 1e-20)


def _rational(value: Fraction) -> Any:
    import sympy

    return sympy.Rational(value.numerator, value.denominator)


def _fraction(value: Any) -> Fraction:
    return Fraction(int(value.p), int(value.q))


def _text(value: Any) -> str:
    text = str(value)
    if len(text) > _MAX_WRITTEN:
        raise FormulaError(f"the answer is longer than {_MAX_WRITTEN} characters")
    return text
