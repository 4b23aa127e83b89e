"""Wrong inputs for any engine, made from its JSON schema and its example; the same ones each time.

Each case is the example with one thing changed. `refused` says that the schema alone forbids it: the answer must be a
422 that names the field. The others are unusual but allowed; what they get is a result, or an error of the caller's.
"""

import copy
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from neuroedge.contract.engine import Engine

HUGE_CHARS: Final = 300_000
"""Length of a text where the schema names no limit."""
MANY_ITEMS: Final = 3000
"""Items of a list where its limit allows as many."""
_DEEPEST: Final = 4
_TYPES: Final = ("null", "boolean", "integer", "number", "string", "array", "object")
_STRANGERS: Final[tuple[tuple[str, Any], ...]] = (
    ("object", {"unexpected": True}),
    ("array", ["unexpected"]),
    ("string", "unexpected"),
    ("number", 12.5),
    ("boolean", True),
)
Path = tuple[str | int, ...]
Schema = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class BadInput:
    """One wrong input: what is wrong, where, and whether the schema forbids it."""

    kind: str
    path: Path
    payload: Any
    refused: bool

    @property
    def name(self) -> str:
        """For a test's message."""
        return f"{self.kind} at {'.'.join(map(str, self.path)) or 'the top'}"

    def body(self) -> str:
        """As JSON text; infinity as the number no float holds, which JSON can write."""
        return json.dumps(self.payload).replace("-Infinity", "-1e999").replace("Infinity", "1e999")


def bad_inputs(engine: type[Engine[Any, Any]]) -> list[BadInput]:
    """Every case for an engine, in a fixed order."""
    schema = engine.Input.model_json_schema()
    example = engine.example.model_dump(mode="json", exclude_none=True)
    no_objects: tuple[Any, ...] = ([], "x", 1, None)
    cases = [BadInput(kind="no object", path=(), payload=whole, refused=True) for whole in no_objects]
    for kind, path, payload, refused in _object(schema, schema, example, example, ()):
        cases.append(BadInput(kind=kind, path=path, payload=payload, refused=refused))
    return cases


_Case = tuple[str, Path, Any, bool]


def _object(root: Schema, schema: Schema, value: Mapping[str, Any], whole: Any, path: Path) -> Iterator[_Case]:
    """Cases of an object's fields."""
    if schema.get("additionalProperties") is False:
        yield "an unknown field", (*path, "no_such_field"), _with(whole, (*path, "no_such_field"), 1), True
    for name in schema.get("required", ()):
        if name in value:
            yield "missing", (*path, name), _without(whole, (*path, name)), True
    for name, field in schema.get("properties", {}).items():
        yield from _field(root, field, value.get(name), whole, (*path, name))


def _field(root: Schema, schema: Schema, value: Any, whole: Any, path: Path) -> Iterator[_Case]:
    """Cases of one field, then of what is in it."""
    branches = list(_branches(root, schema))
    types = {kind for branch in branches for kind in _types(branch)}
    for kind, wrong, refused in _wrong(types, branches, path):
        yield kind, path, _with(whole, path, wrong), refused
    if len(path) > _DEEPEST:
        return
    if isinstance(value, dict):
        for branch in branches:
            if "properties" in branch and value.keys() <= branch["properties"].keys() and _tagged(branch, value):
                yield from _object(root, branch, value, whole, path)
                break
    if isinstance(value, list):
        yield from _list(root, branches, value, whole, path)


def _wrong(types: set[str], branches: list[Schema], path: Path) -> Iterator[tuple[str, Any, bool]]:
    """(kind, value, refused) for a field of these types; an empty set takes anything."""
    if types:
        if "null" not in types:
            yield "null", None, True
        stranger = next((value for kind, value in _STRANGERS if kind not in types), None)
        if stranger is not None:
            yield "the wrong type", stranger, True
    if "string" in types:
        yield from _texts([branch for branch in branches if "string" in _types(branch)], path)
    if types & {"number", "integer"}:
        numbers = [branch for branch in branches if _types(branch) & {"number", "integer"}]
        yield from _numbers(numbers)


def _texts(branches: list[Schema], path: Path) -> Iterator[tuple[str, Any, bool]]:
    chosen = all("enum" in branch or "const" in branch for branch in branches)
    formed = all("format" in branch or "pattern" in branch for branch in branches)
    shortest = min(branch.get("minLength", 0) for branch in branches)
    yield "an empty text", "", chosen or (shortest > 0)
    longest = max(branch.get("maxLength", math.inf) for branch in branches)
    limited = longest < math.inf
    size = int(longest) + 1 if limited else HUGE_CHARS
    if size <= 5_000_000:
        yield "a huge text", "word " * (size // 5) + "w" * (size % 5), chosen or limited
    yield "half a surrogate pair", "a\ud800b", False
    if not chosen and not formed:
        yield "control characters", "\x00\x07\u202e\ufeff\U0001f980", False
    if "language" in str(path[-1]):
        yield "a wrong language", "tlh-KLINGON", chosen


def _numbers(branches: list[Schema]) -> Iterator[tuple[str, Any, bool]]:
    lows = [branch.get("minimum", branch.get("exclusiveMinimum", -math.inf)) for branch in branches]
    highs = [branch.get("maximum", branch.get("exclusiveMaximum", math.inf)) for branch in branches]
    low, high = min(lows), max(highs)
    yield from _allowed(branches)
    yield "infinity", math.inf, True
    yield "minus infinity", -math.inf, True
    yield "a negative number", -1, low > -1
    yield "a huge number", 10**15, high < 10**15
    yield "a huge negative number", -(10**15), low > -(10**15)


def _allowed(branches: list[Schema]) -> Iterator[tuple[str, Any, bool]]:
    """Both ends of what a number may be, where they are allowed themselves."""
    for kind, key in (("the least allowed number", "minimum"), ("the greatest allowed number", "maximum")):
        for end in sorted({branch[key] for branch in branches if key in branch}):
            yield kind, end, False


def _list(root: Schema, branches: list[Schema], value: list[Any], whole: Any, path: Path) -> Iterator[_Case]:
    branch = next((branch for branch in branches if "array" in _types(branch)), None)
    if branch is None:
        return
    yield "an empty list", path, _with(whole, path, []), branch.get("minItems", 0) > 0
    if not value:
        return
    most = branch.get("maxItems", math.inf)
    if most < math.inf and (most + 1) * len(json.dumps(value[0])) < 5_000_000:
        yield "too many items", path, _with(whole, path, _repeated(value, int(most) + 1)), True
    many = int(min(most, MANY_ITEMS))
    yield f"{many} items", path, _with(whole, path, _repeated(value, many)), False
    items = branch.get("items") or next(iter(branch.get("prefixItems", ())), None)
    if items:
        yield from _field(root, items, value[0], whole, (*path, 0))


def _repeated(value: list[Any], count: int) -> list[Any]:
    return [value[i % len(value)] for i in range(count)]


def _branches(root: Schema, schema: Schema) -> Iterator[Schema]:
    """What a value may be, references followed; a discriminated union counts as its members."""
    if "$ref" in schema:
        place: Any = root
        for name in schema["$ref"].removeprefix("#/").split("/"):
            place = place[name]
        yield from _branches(root, place)
        return
    alternatives = schema.get("anyOf") or schema.get("oneOf")
    if alternatives:
        for one in alternatives:
            yield from _branches(root, one)
        return
    if "allOf" in schema:
        merged: dict[str, Any] = {key: value for key, value in schema.items() if key != "allOf"}
        for part in schema["allOf"]:
            for branch in _branches(root, part):
                merged = {**branch, **merged}
        yield merged
        return
    yield schema


def _types(branch: Schema) -> set[str]:
    """JSON types of a schema without alternatives; all of them where it names none."""
    kind = branch.get("type")
    if isinstance(kind, list):
        return set(kind)
    if kind is not None:
        return {kind, "integer"} if kind == "number" else {kind}
    values = branch.get("enum", [branch["const"]] if "const" in branch else None)
    if values is None:
        return set(_TYPES)
    return {_type_of(value) for value in values}


def _type_of(value: Any) -> str:
    names = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return names.get(type(value), "null")


def _tagged(branch: Schema, value: Mapping[str, Any]) -> bool:
    """Whether every constant of an object's schema is what the value has: it is the right member of a union."""
    return all(
        "const" not in field or name not in value or value[name] == field["const"]
        for name, field in branch["properties"].items()
    )


def _with(whole: Any, path: Path, value: Any) -> Any:
    changed = copy.deepcopy(whole)
    _holder(changed, path)[path[-1]] = value
    return changed


def _without(whole: Any, path: Path) -> Any:
    changed = copy.deepcopy(whole)
    del _holder(changed, path)[path[-1]]
    return changed


def _holder(whole: Any, path: Path) -> Any:
    for step in path[:-1]:
        whole = whole[step]
    return whole
