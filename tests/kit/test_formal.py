"""The language of formulas: what it reads, what it computes exactly, and what it refuses."""

from fractions import Fraction

import pytest

from neuroedge.kit import formal
from neuroedge.kit.formal import FormulaError, Node, NotExact


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2 + 3 * 4", 14),
        ("-2^2", -4),
        ("2^3^2", 512),
        ("(1 + 2)(3 + 4)", 21),
        ("0.1 + 0.2", Fraction(3, 10)),
        ("7 % 3 + 10 / 4", Fraction(7, 2)),
        ("sqrt(9/4)", Fraction(3, 2)),
        ("factorial(5) - binomial(5, 2)", 110),
        ("gcd(12, 18) * lcm(4, 6)", 72),
        ("max(1, 2, 3) - min(4, 5)", -1),
        ("floor(-1.5) + abs(-3)", 1),
        ("2 ** -2", Fraction(1, 4)),
        ("(-1)^99999999999", -1),
    ],
)
def test_numbers_are_exact(text: str, value: object) -> None:
    """Precedence, signs, powers to the right and functions, as on paper."""
    assert formal.evaluate(formal.parse(text), {}) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("x > 1 and y != x", True),
        ("1 < x < 3", True),
        ("not p or x = 3", False),
        ("p implies q implies x = 9", True),
        ("p iff not q", True),
        ("distinct(x, y, 7)", True),
        ("x in 3..5", False),
        ("p -> (y == 5 && x <= 2)", True),
    ],
)
def test_statements_are_true_or_false(text: str, value: bool) -> None:
    """With x = 2, y = 5, p true, q false."""
    values: dict[str, Fraction | bool] = {"x": Fraction(2), "y": Fraction(5), "p": True, "q": False}
    assert formal.evaluate(formal.parse(text), values) is value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "__import__('os').system('id')",
        "().__class__",
        "x.y",
        "a[0]",
        "lambda x: x",
        "open(1)",
        "eval(2)",
        "2 +",
        "(1",
        "1)",
        "x = = 2",
        "sqrt()",
        "sqrt(1, 2)",
        "'a'",
        "1; 2",
        "x in 5..1",
        "x in a..b",
        "_x + 1",
        "9" * 100,
        "x" * 100,
        "1 + " * 1000 + "1",
        "(" * 100 + "1" + ")" * 100,
        "-" * 100 + "1",
        "not " * 100 + "p",
        "2^" * 100 + "2",
        "+".join(f"x{i}" for i in range(100)),
    ],
)
def test_what_is_no_formula_is_refused(text: str) -> None:
    """Code, nesting, length: a FormulaError, never anything run."""
    with pytest.raises(FormulaError):
        formal.parse(text)


@pytest.mark.parametrize(
    "text",
    ["9**9**9", "(9^99)^999", "factorial(factorial(9))", "1/0", "0^-1", "5 % 0", "x", "factorial(1.5)", "1 + (2 = 2)"],
)
def test_values_beyond_the_limits_are_refused_before_they_are_computed(text: str) -> None:
    """Huge powers, division by zero, names without a value, a truth value as a number."""
    with pytest.raises(FormulaError):
        formal.evaluate(formal.parse(text), {})


@pytest.mark.parametrize("text", ["sqrt(2)", "pi", "2^0.5", "sin(1)", "sqrt(-1)"])
def test_irrational_values_are_not_guessed(text: str) -> None:
    """No float stands in for them."""
    with pytest.raises(NotExact):
        formal.evaluate(formal.parse(text), {})


def test_names_and_truth_names_are_told_apart() -> None:
    """p stands for a truth value, x for a number."""
    tree = formal.parse("p implies x + pi > 2x")
    assert formal.names(tree) == ["p", "x", "pi"]
    assert formal.truth_names(tree) == {"p"}
    assert formal.parse("x") == Node("name", name="x")
