"""Artifacts reopened: whether what was written is what its type says, check by check.

document Markdown (artifact_markdown), code by its language, table as CSV or JSON rows, diagram as Mermaid
(artifact_mermaid), json by its schema (artifact_schema), slides as an outline. What nothing here can tell is said to
be unchecked, never taken for right.
"""

import ast
import csv
import io
import json
import tomllib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from neuroedge.kit import artifact_markdown, artifact_mermaid
from neuroedge.kit.artifact_schema import TooMuchWork, parsed, violations

Type = Literal["document", "code", "table", "diagram", "json", "slides"]
TYPES: Final[tuple[Type, ...]] = get_args(Type)
FORMATS: Final[Mapping[str, str]] = {
    "document": "markdown",
    "table": "csv",
    "diagram": "mermaid",
    "json": "json",
    "slides": "json",
}
"""The format of each type where none is chosen; code has none."""
TABLE_FORMATS: Final = ("csv", "json")
MAX_PARSED_BYTES: Final = 512 * 1024
"""Longer code is not parsed: a syntax tree takes some hundred times the memory of its text."""
MAX_DIAGRAM: Final = 50_000
"""Characters; the most Mermaid draws by its default settings."""
MAX_SLIDES: Final = 100
_TOLD: Final = 5
_SCALAR: Final = str | int | float | bool | None

SLIDES_SCHEMA: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {
        "title": {"type": "string"},
        "slides": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "title": {"type": "string"},
                    "bullets": {"type": "array", "items": {"type": "string"}},
                    "notes": {"type": "string"},
                },
                "required": ["title", "bullets", "notes"],
                "additionalProperties": False,
            },
        },
    },
    "required": ["title", "slides"],
    "additionalProperties": False,
}
"""An outline of slides; every field is required, as strict JSON modes of language models ask."""
TABLE_SCHEMA: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {
        "columns": {"type": "array", "items": {"type": "string"}},
        "rows": {"type": "array", "items": {"type": "array", "items": {"type": "string"}}},
    },
    "required": ["columns", "rows"],
    "additionalProperties": False,
}
"""How a language model writes a table; `rendered_table` makes CSV or JSON rows of it."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at; `ok` None: unchecked, `detail` tells why."""

    name: str
    ok: bool | None
    detail: str


@dataclass(frozen=True, slots=True)
class Table:
    """Columns and rows; a cell is what JSON calls a scalar, in CSV a string."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


def is_valid(checks: Sequence[Check]) -> bool:
    """Whether nothing that was looked at is wrong."""
    return all(check.ok is not False for check in checks)


def format_of(type_: Type, wanted: str | None) -> str:
    """The format in lower case. Raises ValueError for one the type has not, and for code without a language."""
    name = (wanted or FORMATS.get(type_, "")).strip().lower()
    if type_ == "code":
        if not name:
            raise ValueError("name the language of the code as its format, for example python")
        return name
    allowed = TABLE_FORMATS if type_ == "table" else (FORMATS[type_],)
    if name not in allowed:
        raise ValueError(f"the format of a {type_} is {' or '.join(allowed)}")
    return name


def check(
    type_: Type, content: str, *, format_: str, schema: Mapping[str, Any] | None = None, slides: int | None = None
) -> list[Check]:
    """Look at everything that can be looked at. `slides`: how many were asked for.

    May take seconds of computing: run it in a thread.
    """
    if not content.strip():
        return [Check("content", False, "it is empty")]
    match type_:
        case "document":
            return _document(content)
        case "code":
            return [_code(content, format_)]
        case "table":
            return _table(content, format_)
        case "diagram":
            return _diagram(content)
        case "json":
            return _json(content, schema)
        case "slides":
            return _slides(content, slides)


def _document(content: str) -> list[Check]:
    found = artifact_markdown.problems(content)
    return [Check(name, not wrong, _told(wrong) or "well-formed") for name, wrong in found.items()]


def _code(content: str, language: str) -> Check:
    parse = _PARSERS.get(language)
    if parse is None:
        return Check("parses", None, f"unchecked: no parser of {language} here")
    if len(content.encode("utf-8", "replace")) > MAX_PARSED_BYTES:
        return Check("parses", None, f"unchecked: longer than {MAX_PARSED_BYTES} bytes")
    try:
        parse(content)
    except SyntaxError as error:
        return Check("parses", False, f"line {error.lineno or 1}: {error.msg}")
    except (ValueError, RecursionError, MemoryError) as error:
        return Check("parses", False, str(error)[:300] or "it is nested too deeply")
    return Check("parses", True, f"as {language}")


def _python(content: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is unwise still parses
        ast.parse(content)


_PARSERS: Final = {"python": _python, "py": _python, "json": parsed, "toml": tomllib.loads}


def read_table(content: str, format_: str) -> Table:
    """Open a table. Raises ValueError, with the place, for what is none; rows may still differ in length."""
    return _csv_table(content) if format_ == "csv" else _json_table(parsed(content))


def _csv_table(content: str) -> Table:
    reader = csv.reader(io.StringIO(content, newline=""), strict=True)
    try:
        rows = [row for row in reader if row]
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: {error}") from error
    if not rows:
        raise ValueError("it has no head")
    return Table(rows[0], rows[1:])


def _json_table(value: Any) -> Table:
    if isinstance(value, dict) and set(value) == {"columns", "rows"}:
        columns, rows = value["columns"], value["rows"]
        if not _all_of(columns, str) or not _all_of(rows, list):
            raise ValueError("columns are a list of names, rows a list of lists")
        return Table(columns, rows)
    if not _all_of(value, dict) or not value:
        raise ValueError("give a list of objects, or an object of columns and rows")
    columns = list(value[0])
    for number, row in enumerate(value, start=1):
        if set(row) != set(columns):
            raise ValueError(f"row {number} has other columns than the first: {', '.join(row)[:100]}")
    return Table(columns, [[row[name] for name in columns] for row in value])


def _all_of(value: Any, kind: type) -> bool:
    return isinstance(value, list) and all(isinstance(item, kind) for item in value)


def _table(content: str, format_: str) -> list[Check]:
    try:
        table = read_table(content, format_)
    except ValueError as error:
        return [Check("parses", False, str(error)[:300])]
    width = len(table.columns)
    uneven = [
        f"row {number} has {len(row)} cells, not {width}"
        for number, row in enumerate(table.rows, start=1)
        if len(row) != width
    ]
    nested = [
        f"row {number} has a cell that is no scalar"
        for number, row in enumerate(table.rows, start=1)
        if not all(isinstance(cell, _SCALAR) for cell in row)
    ]
    named = bool(width) and all(name.strip() for name in table.columns) and len(set(table.columns)) == width
    return [
        Check("parses", True, f"as {format_}"),
        Check("columns", named, f"{width} columns" if named else "each column needs a name of its own"),
        Check("rectangular", not uneven, _told(uneven) or f"{len(table.rows)} rows of {width} cells"),
        Check("scalars", not nested, _told(nested) or "every cell is one value"),
    ]


def rendered_table(written: str, format_: str) -> str:
    """What a language model wrote by TABLE_SCHEMA, as CSV or as JSON rows. Raises ValueError for what is no table.

    Rows that do not fit stay as they are in CSV, so that the check tells of them.
    """
    value = parsed(written)
    if violations(TABLE_SCHEMA, value):
        raise ValueError("it is no object of columns and rows of texts")
    table = _json_table(value)
    if format_ == "json":
        if any(len(row) != len(table.columns) for row in table.rows) or len(set(table.columns)) != len(table.columns):
            return json.dumps(value, ensure_ascii=False, indent=2)
        rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
        return json.dumps(rows, ensure_ascii=False, indent=2)
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([table.columns, *table.rows])
    return text.getvalue()


def _diagram(content: str) -> list[Check]:
    if len(content) > MAX_DIAGRAM:
        return [Check("size", False, f"Mermaid draws no more than {MAX_DIAGRAM} characters")]
    found = artifact_mermaid.read(content)
    if found.kind is None:
        return [Check("header", False, "its first line names no kind of Mermaid diagram")]
    if not found.known:
        return [
            Check("header", True, found.kind),
            Check("statements", None, f"unchecked: the structure of {found.kind} is not known here"),
        ]
    said = f"structural: {found.statements} statements, {found.edges} {artifact_mermaid.PARTS[found.kind]}"
    statements = found.wrong or ([] if found.statements else ["it has no statement"])
    return [
        Check("header", True, found.kind),
        Check("blocks", not found.unclosed, _told(found.unclosed) or "structural: every block is closed"),
        Check("statements", not statements, _told(statements) or said),
    ]


def _json(content: str, schema: Mapping[str, Any] | None) -> list[Check]:
    try:
        value = parsed(content)
    except ValueError as error:
        return [Check("parses", False, str(error)[:300])]
    parses = Check("parses", True, "as json")
    if schema is None:
        return [parses, Check("schema", None, "unchecked: no schema was given")]
    return [parses, _by_schema(schema, value)]


def _by_schema(schema: Mapping[str, Any], value: Any) -> Check:
    try:
        wrong = violations(schema, value)
    except TooMuchWork as error:
        return Check("schema", False, f"not found to fit: {error}")
    return Check("schema", not wrong, _told(wrong) or "as the schema says")


def _slides(content: str, wanted: int | None) -> list[Check]:
    checks = _json(content, SLIDES_SCHEMA)
    if not is_valid(checks):
        return checks
    outline = json.loads(content)
    titles = [slide["title"].strip() for slide in outline["slides"]]
    count = len(titles)
    fits = 1 <= count <= MAX_SLIDES and wanted in (None, count)
    untitled = [f"slide {number} has no title" for number, title in enumerate(titles, start=1) if not title]
    told = f"{count} slides" if fits else f"{count} slides, not {wanted or f'1 to {MAX_SLIDES}'}"
    return [
        *checks,
        Check("count", fits, told),
        Check("titles", not untitled, _told(untitled) or "every slide has one"),
    ]


def require_together(type_: Type, *, schema: Mapping[str, Any] | None, slides: int | None) -> None:
    """Raise ValueError for what does not go together."""
    if schema is not None and type_ != "json":
        raise ValueError("a schema is for the type json")
    if slides is not None and type_ != "slides":
        raise ValueError("a number of slides is for the type slides")


def _told(wrong: Sequence[str]) -> str:
    more = f"; and {len(wrong) - _TOLD} more" if len(wrong) > _TOLD else ""
    return "; ".join(wrong[:_TOLD]) + more
