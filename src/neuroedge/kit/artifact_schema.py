"""JSON by a schema somebody else wrote: neither the schema nor the JSON may cost more than a bounded amount of work.

JSON Schema 2020-12 through `jsonschema`, with what could be made to run for ever counted or left out: references
outside the schema are not followed, patterns run in `regex` with a deadline, each step of each keyword is counted.
"""

import functools
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any, Final, NoReturn

MAX_SCHEMA_BYTES: Final = 64 * 1024
MAX_STEPS: Final = 100_000
"""Looks at a value, about two seconds of them."""
MAX_PATTERN: Final = 500
PATTERNS_S: Final = 2.0
"""All patterns of one check together."""
_DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"
_SHOWN: Final = 300


class TooMuchWork(Exception):
    """A schema and a value that take more steps than allowed."""


class _Budget:
    def __init__(self) -> None:
        self.steps = MAX_STEPS
        self.until = time.monotonic() + PATTERNS_S

    def spend(self, steps: int) -> None:
        self.steps -= steps
        if self.steps < 0:
            raise TooMuchWork(f"checking takes more than {MAX_STEPS} steps")

    def matches(self, pattern: str, text: str) -> bool:
        import regex  # type: ignore[import-untyped]

        left_s = self.until - time.monotonic()
        try:
            if left_s > 0:
                # Without the interpreter's lock: other threads go on meanwhile.
                return regex.search(pattern, text, timeout=left_s, concurrent=True) is not None
        except TimeoutError:
            pass
        raise TooMuchWork("the schema's patterns take too long")


_budget: ContextVar[_Budget] = ContextVar("artifact_schema_budget")


def parsed(text: str) -> Any:
    """The JSON value. Raises ValueError, with line and column, for what is none: NaN, Infinity and names that stand
    twice in an object too."""
    try:
        return json.loads(text, object_pairs_hook=_unique_names, parse_constant=_no_number)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {error.lineno}, column {error.colno}: {error.msg}") from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def require_schema(schema: Mapping[str, Any]) -> None:
    """Raise ValueError, with the reason, for what cannot serve as a schema."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError

    try:
        size = len(json.dumps(schema, allow_nan=False).encode())
        if size > MAX_SCHEMA_BYTES:
            raise ValueError(f"a schema has at most {MAX_SCHEMA_BYTES} bytes")
        if schema.get("$schema", _DRAFT).rstrip("#") != _DRAFT:
            raise ValueError(f"$schema must be {_DRAFT}")
        _require_parts(_bare(schema))
        Draft202012Validator.check_schema(_bare(schema))
    except SchemaError as error:
        raise ValueError(f"{error.json_path}: {error.message}"[:_SHOWN]) from error
    except (TypeError, AttributeError) as error:
        raise ValueError("a schema is a JSON object") from error
    except RecursionError as error:
        raise ValueError("the schema is nested too deeply") from error


def violations(schema: Mapping[str, Any], value: Any, *, most: int = 5) -> list[str]:
    """What of the value the schema does not allow, the first few, each with its place. Raises TooMuchWork."""
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    token = _budget.set(_Budget())
    found = list[str]()
    try:
        # An empty registry: no reference leads out of the schema.
        for error in _validator()(_bare(schema), registry=Registry()).iter_errors(value):
            found.append(f"{error.json_path}: {error.message}"[:_SHOWN])
            if len(found) == most:
                break
    except Unresolvable as error:
        return [f"the schema refers to what is not in it: {error}"[:_SHOWN]]
    except RecursionError as error:
        raise TooMuchWork("schema or value are nested too deeply") from error
    finally:
        _budget.reset(token)
    return found


def _bare(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key != "$schema"}


def _require_parts(part: Any) -> None:
    """Raise ValueError for keywords that could not be checked within bounds."""
    if isinstance(part, list):
        for item in part:
            _require_parts(item)
    if not isinstance(part, Mapping):
        return
    # A part that names a dialect of its own would be checked by that one's rules, uncounted.
    if isinstance(part.get("$schema"), str):
        raise ValueError("only the whole schema may have a $schema")
    if "patternProperties" in part:
        raise ValueError("patternProperties is not supported; name the properties")
    if isinstance(pattern := part.get("pattern"), str):
        _require_pattern(pattern)
    for value in part.values():
        _require_parts(value)


def _require_pattern(pattern: str) -> None:
    import regex

    if len(pattern) > MAX_PATTERN:
        raise ValueError(f"a pattern has at most {MAX_PATTERN} characters")
    try:
        regex.compile(pattern)
    except regex.error as error:
        raise ValueError(f"the pattern {pattern[:50]!r} is none: {error}") from error


@functools.cache
def _validator() -> Any:
    from jsonschema import Draft202012Validator, validators

    checks = {name: _counted(check) for name, check in Draft202012Validator.VALIDATORS.items()}
    own = {"pattern": _counted(_pattern), "uniqueItems": _counted(_unique_items)}
    return validators.extend(Draft202012Validator, checks | own)  # type: ignore[no-untyped-call]


def _counted(check: Callable[..., Any]) -> Callable[..., Iterator[Any]]:
    def counting(validator: Any, wanted: Any, value: Any, schema: Any) -> Iterator[Any]:
        _budget.get().spend(1 + (len(wanted) if isinstance(wanted, list | dict) else 0))
        yield from check(validator, wanted, value, schema) or ()

    return counting


def _pattern(validator: Any, wanted: str, value: Any, schema: Any) -> Iterator[Any]:
    from jsonschema import ValidationError

    if isinstance(value, str) and not _budget.get().matches(wanted, value):
        yield ValidationError(f"{value[:100]!r} does not match {wanted!r}")


def _unique_items(validator: Any, wanted: Any, value: Any, schema: Any) -> Iterator[Any]:
    # The library compares each item with each other when they cannot be sorted.
    from jsonschema import ValidationError

    if wanted and isinstance(value, list):
        _budget.get().spend(len(value))
        if len({json.dumps(item, sort_keys=True) for item in value}) < len(value):
            yield ValidationError("has items that are equal")


def _unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the name {twice[:100]!r} stands twice in one object")
    return found


def _no_number(literal: str) -> NoReturn:
    raise ValueError(f"{literal} is no number of JSON")
