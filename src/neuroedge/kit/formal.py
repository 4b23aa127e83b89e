"""A small language of formulas: read into a tree without evaluating anything, and evaluated exactly under limits.

Numbers (decimals are exact), names, + - * / % ^ (or **), comparisons (= != < <= > >=, in chains), `x in 1..5`,
and / or / not / implies / iff, and the functions of FUNCTIONS; `2x` is 2 times x. Nothing else parses: no attribute,
no index, no string, no call of anything else. Length, nesting and the size of numbers are limited, so that text from
a caller or a language model can be read safely.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

MAX_CHARS: Final = 2000
MAX_TOKENS: Final = 600
MAX_DEPTH: Final = 30
MAX_BITS: Final = 10_000
"""Of a number that is computed: about 3,000 digits."""
MAX_NAMES: Final = 60
_MAX_DIGITS: Final = 60
_MAX_RANGE: Final = 1_000_000_000
FUNCTIONS: Final = {
    **dict.fromkeys(("sqrt", "abs", "exp", "ln", "log", "sin", "cos", "tan"), (1, 1)),
    **dict.fromkeys(("floor", "ceil", "factorial"), (1, 1)),
    **dict.fromkeys(("mod", "binomial"), (2, 2)),
    **dict.fromkeys(("min", "max", "gcd", "lcm"), (2, 20)),
    "distinct": (2, 60),
}
"""Names with their least and most arguments; `log` is to base 10, `ln` natural, angles are in radians."""
CONSTANTS: Final = ("pi", "e")
COMPARISONS: Final = ("=", "!=", "<", "<=", ">", ">=")
LOGIC: Final = ("and", "or", "not", "implies", "iff", "distinct")
_WORDS: Final = {"and": "and", "or": "or", "not": "not", "implies": "implies", "iff": "iff", "in": "in"}
_SAME: Final = {
    **{"==": "=", "**": "^", "&&": "and", "&": "and", "||": "or", "|": "or", "!": "not", "->": "implies"},
    **{"=>": "implies", "<->": "iff", "<=>": "iff", "×": "*", "·": "*", "÷": "/", "−": "-", "≠": "!=", "≤": "<="},
    **{"≥": ">=", "∧": "and", "∨": "or", "¬": "not", "→": "implies"},
}
_TOKEN: Final = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d+)?)|(?P<name>[^\W\d]\w*)"
    r"|(?P<op><->|<=>|\.\.|\*\*|==|!=|<=|>=|->|=>|&&|\|\||[-+*/%^=<>&|!(),×·÷−≠≤≥∧∨¬→]))"
)


class FormulaError(ValueError):
    """A text that is no formula, or one beyond the limits; the message is safe to show."""


class NotExact(Exception):
    """The value is no rational number."""


@dataclass(frozen=True, slots=True)
class Node:
    """A number ("number"), a name ("name"), a truth value ("true", "false"), or an operation on `args`."""

    op: str
    args: tuple["Node", ...] = ()
    number: Fraction = Fraction(0)
    name: str = ""


def parse(text: str) -> Node:
    """The tree of a formula. Raises FormulaError."""
    if len(text) > MAX_CHARS:
        raise FormulaError(f"longer than {MAX_CHARS} characters")
    reader = _Reader(_tokens(text))
    tree = reader.logic(0, 0)
    if reader.kind:
        raise FormulaError(f"'{reader.text}' is not expected here")
    if len(names(tree)) > MAX_NAMES:
        raise FormulaError(f"more than {MAX_NAMES} names")
    return tree


def names(node: Node) -> list[str]:
    """The unknowns of a formula, in the order they appear."""
    found = dict.fromkeys([node.name] if node.op == "name" else [])
    for arg in node.args:
        found |= dict.fromkeys(names(arg))
    return list(found)


def is_statement(node: Node) -> bool:
    """Whether it is true or false, rather than a number (a lone name may be either)."""
    return node.op in (*COMPARISONS, *LOGIC, "in", "true", "false")


def truth_names(node: Node, *, truth: bool = True) -> set[str]:
    """The names that stand where a truth value must: `p` in "p implies x > 1". `truth`: whether `node` itself does."""
    if node.op == "name":
        return {node.name} if truth else set()
    inside = node.op in ("and", "or", "not", "implies", "iff")
    return set().union(*(truth_names(arg, truth=inside) for arg in node.args))


def evaluate(node: Node, values: Mapping[str, Fraction | bool]) -> Fraction | bool:
    """Its exact value with every name given. Raises NotExact, FormulaError for a value beyond the limits or none."""
    match node.op:
        case "number":
            return node.number
        case "true" | "false":
            return node.op == "true"
        case "name":
            if node.name in values:
                return values[node.name]
            if node.name in CONSTANTS:
                raise NotExact
            raise FormulaError(f"'{node.name}' has no value")
    args = [evaluate(arg, values) for arg in node.args]
    if node.op in ("and", "or", "not", "implies", "iff"):
        return _truth(node.op, [_bool(a) for a in args])
    numbers = [_number(a) for a in args]
    if node.op in (*COMPARISONS, "in", "distinct"):
        return _compared(node.op, numbers)
    return limited(_computed(node.op, numbers))


def power(base: Fraction, exponent: Fraction) -> Fraction:
    """base ^ exponent, refused before it is computed where it would be huge. Raises NotExact, FormulaError."""
    if exponent.denominator != 1:
        raise NotExact
    n = int(exponent)
    if base == 0 and n < 0:
        raise FormulaError("division by zero")
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    if abs(n) * bits > MAX_BITS and base not in (0, 1, -1):
        raise FormulaError(f"the power has more than {MAX_BITS} bits")
    return base ** (n % 2 if base == -1 else min(n, 1) if base in (0, 1) else n)


def limited(value: Fraction) -> Fraction:
    """The value itself. Raises FormulaError where it takes more than MAX_BITS."""
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
        raise FormulaError(f"a number has more than {MAX_BITS} bits")
    return value


def written(value: Fraction | bool) -> str:
    """As people write it: 3, 7/2, true."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _tokens(text: str) -> list[tuple[str, str]]:
    found, at = [], 0
    text = text.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise FormulaError(f"{text[at:].strip()[:1]!r} has no place in a formula")
        kind = str(match.lastgroup)
        token = match.group(kind)
        at = match.end()
        if len(token) > _MAX_DIGITS:
            raise FormulaError(f"a number or name longer than {_MAX_DIGITS} characters")
        if kind == "name" and token.startswith("_"):
            raise FormulaError("names begin with a letter")
        if kind == "name" and token.lower() in _WORDS:
            kind, token = "op", _WORDS[token.lower()]
        found.append((kind, _SAME.get(token, token) if kind == "op" else token))
        if len(found) > MAX_TOKENS:
            raise FormulaError(f"more than {MAX_TOKENS} words and signs")
    if not found:
        raise FormulaError("empty")
    return found


_LOGIC_LEVELS: Final = ("iff", "implies", "or", "and")


class _Reader:
    """Recursive descent over tokens."""

    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self._tokens = tokens
        self._at = 0

    @property
    def kind(self) -> str:
        return self._tokens[self._at][0] if self._at < len(self._tokens) else ""

    @property
    def text(self) -> str:
        return self._tokens[self._at][1] if self._at < len(self._tokens) else "the end"

    def _take(self, *ops: str) -> str | None:
        if self.kind == "op" and self.text in ops:
            self._at += 1
            return self._tokens[self._at - 1][1]
        return None

    def _need(self, op: str) -> None:
        if self._take(op) is None:
            raise FormulaError(f"'{op}' is expected instead of '{self.text}'")

    def logic(self, level: int, depth: int) -> Node:
        """iff, implies (to the right), or, and; below them not."""
        if depth > MAX_DEPTH:
            raise FormulaError(f"nested deeper than {MAX_DEPTH}")
        if level == len(_LOGIC_LEVELS):
            return self._negation(depth)
        op = _LOGIC_LEVELS[level]
        left = self.logic(level + 1, depth)
        if op == "implies":
            return Node(op, (left, self.logic(level, depth + 1))) if self._take(op) else left
        parts = [left]
        while self._take(op):
            parts.append(self.logic(level + 1, depth))
        if op == "iff":
            while len(parts) > 1:
                parts[:2] = [Node(op, (parts[0], parts[1]))]
        return parts[0] if len(parts) == 1 else Node(op, tuple(parts))

    def _negation(self, depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise FormulaError(f"nested deeper than {MAX_DEPTH}")
        return Node("not", (self._negation(depth + 1),)) if self._take("not") else self._comparison(depth)

    def _comparison(self, depth: int) -> Node:
        first = self._sum(depth)
        if self._take("in"):
            low = self._sum(depth)
            self._need("..")
            return _range(first, low, self._sum(depth))
        links = []
        while op := self._take(*COMPARISONS):
            second = self._sum(depth)
            links.append(Node(op, (first, second)))
            first = second
        return first if not links else links[0] if len(links) == 1 else Node("and", tuple(links))

    def _sum(self, depth: int) -> Node:
        tree = self._product(depth)
        while op := self._take("+", "-"):
            tree = Node(op, (tree, self._product(depth)))
        return tree

    def _product(self, depth: int) -> Node:
        tree = self._signed(depth)
        while True:
            if op := self._take("*", "/", "%"):
                tree = Node("mod" if op == "%" else op, (tree, self._signed(depth)))
            elif self._juxtaposed():
                tree = Node("*", (tree, self._power(depth)))
            else:
                return tree

    def _juxtaposed(self) -> bool:
        """2x, 2(x + 1), (x + 1)(x - 1)."""
        before = self._tokens[self._at - 1]
        after_number = before[0] == "number" and (self.kind == "name" or (self.kind == "op" and self.text == "("))
        return after_number or (before == ("op", ")") and self.kind == "op" and self.text == "(")

    def _signed(self, depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise FormulaError(f"nested deeper than {MAX_DEPTH}")
        if self._take("+"):
            return self._signed(depth + 1)
        return Node("neg", (self._signed(depth + 1),)) if self._take("-") else self._power(depth)

    def _power(self, depth: int) -> Node:
        base = self._atom(depth)
        return Node("^", (base, self._signed(depth + 1))) if self._take("^") else base

    def _atom(self, depth: int) -> Node:
        if self._take("("):
            inside = self.logic(0, depth + 1)
            self._need(")")
            return inside
        kind, text = self.kind, self.text
        if kind not in ("number", "name"):
            raise FormulaError(f"'{text}' is not expected here")
        self._at += 1
        if kind == "number":
            return Node("number", number=Fraction(text))
        if self.kind == "op" and self.text == "(" and text.lower() in FUNCTIONS:
            return self._call(text.lower(), depth)
        if self.kind == "op" and self.text == "(":
            raise FormulaError(f"no function '{text}'; known: {', '.join(FUNCTIONS)}")
        return Node(text.lower()) if text.lower() in ("true", "false") else Node("name", name=text)

    def _call(self, name: str, depth: int) -> Node:
        self._need("(")
        args = [self.logic(0, depth + 1)]
        while self._take(","):
            args.append(self.logic(0, depth + 1))
        self._need(")")
        least, most = FUNCTIONS[name]
        if not least <= len(args) <= most:
            raise FormulaError(f"{name} takes {least if least == most else f'{least} to {most}'} arguments")
        return Node(name, tuple(args))


def _range(what: Node, low: Node, high: Node) -> Node:
    a, b = _number(evaluate(low, {})), _number(evaluate(high, {}))
    if what.op != "name" or a.denominator != 1 or b.denominator != 1:
        raise FormulaError("'in' takes a name and two integers: x in 1..5")
    if not -_MAX_RANGE <= a <= b <= _MAX_RANGE:
        raise FormulaError("the range is empty or too wide")
    return Node("in", (what, Node("number", number=a), Node("number", number=b)))


def _bool(value: Fraction | bool) -> bool:
    if not isinstance(value, bool):
        raise FormulaError("a number stands where true or false must")
    return value


def _number(value: Fraction | bool) -> Fraction:
    if isinstance(value, bool):
        raise FormulaError("true or false stands where a number must")
    return value


def _truth(op: str, args: list[bool]) -> bool:
    if op == "not":
        return not args[0]
    if op == "implies":
        return not args[0] or args[1]
    return all(args) if op == "and" else any(args) if op == "or" else args[0] == args[1]


def _compared(op: str, args: list[Fraction]) -> bool:
    if op == "distinct":
        return len(set(args)) == len(args)
    if op == "in":
        return args[0].denominator == 1 and args[1] <= args[0] <= args[2]
    a, b = args
    return {"=": a == b, "!=": a != b, "<": a < b, "<=": a <= b, ">": a > b, ">=": a >= b}[op]


def _computed(op: str, args: list[Fraction]) -> Fraction:
    first = args[0]
    match op:
        case "neg":
            return -first
        case "+":
            return first + args[1]
        case "-":
            return first - args[1]
        case "*":
            return first * args[1]
        case "/" | "mod" if args[1] == 0:
            raise FormulaError("division by zero")
        case "/":
            return first / args[1]
        case "mod":
            return first % args[1]
        case "^":
            return power(first, args[1])
        case "abs" | "floor" | "ceil":
            return abs(first) if op == "abs" else Fraction(math.floor(first) if op == "floor" else math.ceil(first))
        case "min" | "max":
            return min(args) if op == "min" else max(args)
        case "sqrt":
            return _root(first)
    return Fraction(_of_integers(op, args))


def _root(value: Fraction) -> Fraction:
    if value < 0:
        raise NotExact
    top, bottom = math.isqrt(value.numerator), math.isqrt(value.denominator)
    if top * top != value.numerator or bottom * bottom != value.denominator:
        raise NotExact
    return Fraction(top, bottom)


def _of_integers(op: str, args: list[Fraction]) -> int:
    if op not in ("factorial", "binomial", "gcd", "lcm"):
        raise NotExact
    if any(a.denominator != 1 for a in args):
        raise FormulaError(f"{op} takes integers")
    whole = [int(a) for a in args]
    if op in ("factorial", "binomial") and not all(0 <= n <= 1000 for n in whole):
        raise FormulaError(f"{op} takes integers from 0 to 1000")
    if op == "factorial":
        return math.factorial(whole[0])
    return math.comb(whole[0], whole[1]) if op == "binomial" else (math.gcd if op == "gcd" else math.lcm)(*whole)
