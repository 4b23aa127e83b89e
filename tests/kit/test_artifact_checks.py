"""Artifacts reopened: what passes, what is told of what does not, and what odd input may cost."""

import json
from typing import Any

import pytest

from neuroedge.kit import artifact_mermaid
from neuroedge.kit.artifact_checks import (
    MAX_DIAGRAM,
    MAX_PARSED_BYTES,
    Check,
    Type,
    check,
    format_of,
    is_valid,
    rendered_table,
    require_together,
)
from neuroedge.kit.artifact_diff import MAX_CHANGES, Change, structural, unified
from neuroedge.kit.artifact_prompts import output_schema, repair, title_of, unwrapped
from neuroedge.kit.artifact_schema import TooMuchWork, parsed, require_schema, violations

SLIDES = {"title": "Pumps", "slides": [{"title": "Why", "bullets": ["a"], "notes": ""}]}
DOCUMENT = """# Report

See [the plan](https://example.org/a_(b)) and ![pump][pump] or `[no](link`.

| Pump | Hours |
|------|------:|
| 1    | 20    |
| 2 \\| 3 | 4 |

```python
#not a heading
```

[pump]: pump.png
"""
DIAGRAMS = {
    "flowchart": """flowchart TD
      A[Start] --> B{Is it ok?}
      B -->|yes| C(["Done (really)"])
      B -- no --> D[/fix/] & E:::hot
      D -.-> A
      D -. maybe .-> E
      subgraph one [Title]
        direction LR
        a1 --> a2 ==> a3
      end
      one ~~~ A
      classDef hot fill:#f00
      X>flag] --o Y-1.b
    """,
    "sequence": """sequenceDiagram
      autonumber
      participant A as Alice
      A->>Bob: Hello Bob, how are you?
      alt is sick
        Bob-->>-A: Not so good :(
      else is well
        Bob-)A: Fine
      end
      Note right of Bob: thinks
    """,
    "class": """classDiagram
      class Animal {
        +int age
        +isMammal() bool
      }
      Animal <|-- Duck
      Customer "1" --> "*" Ticket : has
      A ..|> B
      A--B
      Animal : +int age
      note for Duck "can fly"
    """,
    "state": """stateDiagram-v2
      [*] --> Still
      Still --> Moving : go
      state Moving {
        [*] --> Fast
      }
      note right of Still
        any thing
      end note
    """,
    "er": """erDiagram
      CUSTOMER ||--o{ ORDER : places
      CUSTOMER {
        string name PK "the name"
      }
      LINE-ITEM }|..|{ ORDER : in
    """,
    "gantt": """gantt
      title A plan
      dateFormat YYYY-MM-DD
      section One
      Dig :a1, 2024-01-01, 30d
      Build :done, crit, after a1, 20d
    """,
    "pie": """pie showData title Pets
      "Dogs" : 386
      "Cats" : 85.5
    """,
}


def _checks(type_: Type, content: str, **more: Any) -> dict[str, Check]:
    more["format_"] = format_of(type_, more.pop("format_", None))
    return {one.name: one for one in check(type_, content, **more)}


@pytest.mark.parametrize(
    ("type_", "content", "more"),
    [
        ("document", DOCUMENT, {}),
        ("document", "Just a sentence.", {}),
        ("code", "def f(x: int) -> int:\n    return x\n", {"format_": "python"}),
        ("code", "pattern = '\\d'\n", {"format_": "python"}),
        ("code", "a = 1\n", {"format_": "toml"}),
        ("table", 'a,b\n1,"x, y"\n2,\n', {}),
        ("table", '[{"a": 1, "b": null}, {"b": true, "a": 2.5}]', {"format_": "json"}),
        ("table", '{"columns": ["a"], "rows": [[1], ["x"]]}', {"format_": "json"}),
        ("json", '{"a": [1, 2]}', {"schema": {"type": "object", "required": ["a"]}}),
        ("slides", json.dumps(SLIDES), {"slides": 1}),
        *(("diagram", text, {}) for text in DIAGRAMS.values()),
        ("diagram", "---\ntitle: x\n---\n%% a comment\ngraph LR; A-->B; B-->C\n", {}),
    ],
)
def test_what_is_right_passes(type_: Type, content: str, more: dict[str, Any]) -> None:
    """Every check of it, and there is at least one."""
    checks = _checks(type_, content, **more)
    assert checks
    assert all(one.ok for one in checks.values()), checks


@pytest.mark.parametrize(
    ("type_", "content", "more", "name", "detail"),
    [
        ("document", " \n", {}, "content", "empty"),
        ("document", "##Title\n", {}, "headings", "line 1: a space"),
        ("document", "# \n", {}, "headings", "empty"),
        ("document", "####### deep\n", {}, "headings", "6 levels"),
        ("document", "a\n\n```python\nx = 1\n", {}, "fences", "line 3"),
        ("document", "[a](", {}, "links", "not closed"),
        ("document", "[a]()", {}, "links", "no target"),
        ("document", "[a](b c)", {}, "links", "space"),
        ("document", "[a](JavaScript:alert(1))", {}, "links", "script"),
        ("document", "[a][nowhere]", {}, "links", "defined nowhere"),
        ("document", "|a|b|\n|-|-|\n|1|\n", {}, "tables", "line 3: 1 cells in a table of 2"),
        ("document", "|a|b|c|\n|-|-|\n", {}, "tables", "head has 3"),
        ("document", "|a|b|\n|1|2|\n", {}, "tables", "dashes"),
        ("code", "def f(:\n", {"format_": "python"}, "parses", "line 1"),
        ("code", "(" * 300, {"format_": "python"}, "parses", "nested"),
        ("code", "x = " + "-" * 100_000 + "1", {"format_": "python"}, "parses", "nested"),
        ("code", "x\0", {"format_": "python"}, "parses", "null bytes"),
        ("code", "a = = 1", {"format_": "toml"}, "parses", "value"),
        ("code", '{"a": 1,}', {"format_": "json"}, "parses", "line 1"),
        ("table", "a,b\n1,2\n3\n", {}, "rectangular", "row 2 has 1 cells, not 2"),
        ("table", "a,a\n1,2\n", {}, "columns", "name of its own"),
        ("table", 'a,b\n"x,2\n', {}, "parses", "line"),
        ("table", '[{"a": 1}, {"b": 1}]', {"format_": "json"}, "parses", "row 2"),
        ("table", '[{"a": [1]}]', {"format_": "json"}, "scalars", "row 1"),
        ("table", '{"a": 1}', {"format_": "json"}, "parses", "list of objects"),
        ("table", "[1, 2]", {"format_": "json"}, "parses", "list of objects"),
        ("json", '{"a": 1, "a": 2}', {}, "parses", "twice"),
        ("json", "[NaN]", {}, "parses", "NaN"),
        ("json", "[" * 100_000, {}, "parses", "nested"),
        ("json", "1" * 5000, {}, "parses", "limit"),
        ("json", '{"a": "x"}', {"schema": {"properties": {"a": {"type": "integer"}}}}, "schema", "$.a"),
        ("slides", json.dumps(SLIDES), {"slides": 3}, "count", "1 slides, not 3"),
        ("slides", '{"title": "x", "slides": [{}]}', {}, "schema", "required"),
        ("slides", '{"title": "x", "slides": []}', {}, "count", "0 slides"),
        ("diagram", "A --> B", {}, "header", "names no kind"),
        ("diagram", "flowchart XX\nA-->B", {}, "header", "names no kind"),
        ("diagram", "flowchart TD\n", {}, "statements", "no statement"),
        ("diagram", "flowchart TD\nA[Start --> B", {}, "statements", "line 2"),
        ("diagram", "flowchart TD\nA[(x]) --> B", {}, "statements", "line 2"),
        ("diagram", "flowchart TD\nA -->", {}, "statements", "line 2"),
        ("diagram", "flowchart TD\nsubgraph x\nA-->B", {}, "blocks", "subgraph is not closed"),
        ("diagram", "flowchart TD\nend", {}, "blocks", "closes nothing"),
        ("diagram", "sequenceDiagram\nA->>: x", {}, "statements", "line 2"),
        ("diagram", "classDiagram\nA <|= B", {}, "statements", "line 2"),
        ("diagram", "stateDiagram\nA -> B", {}, "statements", "line 2"),
        ("diagram", "erDiagram\nA ||--o B : x", {}, "statements", "line 2"),
        ("diagram", "erDiagram\nA {\nname\n}", {}, "statements", "no attribute"),
        ("diagram", "gantt\nDig :", {}, "statements", "line 2"),
        ("diagram", "pie\nDogs : 3", {}, "statements", "line 2"),
        ("diagram", "pie\n" + "x" * MAX_DIAGRAM, {}, "size", "no more than"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(
    type_: Type, content: str, more: dict[str, Any], name: str, detail: str
) -> None:
    """One check fails and says why; the whole is invalid."""
    checks = _checks(type_, content, **more)
    assert not is_valid(list(checks.values()))
    assert checks[name].ok is False
    assert detail in checks[name].detail


@pytest.mark.parametrize(
    ("type_", "content", "more"),
    [
        ("code", "fn main( {", {"format_": "rust"}),
        ("code", "x = 1\n" * MAX_PARSED_BYTES, {"format_": "python"}),
        ("diagram", "mindmap\n  root", {}),
        ("json", "{}", {}),
    ],
)
def test_what_nothing_here_can_tell_is_unchecked(type_: Type, content: str, more: dict[str, Any]) -> None:
    """Neither right nor wrong, with the reason."""
    unchecked = [one for one in _checks(type_, content, **more).values() if one.ok is None]
    assert len(unchecked) == 1
    assert unchecked[0].detail.startswith("unchecked: ")


@pytest.mark.parametrize("kind", DIAGRAMS)
def test_each_kind_of_diagram_is_told_apart(kind: str) -> None:
    """By its header; what connects things is counted."""
    found = artifact_mermaid.read(DIAGRAMS[kind])
    assert (found.kind, found.wrong, found.unclosed) == (kind, [], [])
    assert found.edges >= 2


def test_a_format_is_one_of_the_types() -> None:
    """Code needs a language, a table may be CSV or JSON, the rest has one format."""
    assert [format_of("table", None), format_of("table", "JSON"), format_of("code", " Python ")] == [
        "csv",
        "json",
        "python",
    ]
    for type_, name in (("code", None), ("document", "html"), ("table", "xlsx")):
        with pytest.raises(ValueError, match="format"):
            format_of(type_, name)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="json"):
        require_together("code", schema={}, slides=None)
    with pytest.raises(ValueError, match="slides"):
        require_together("code", schema=None, slides=2)


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"type": "objekt"}, "objekt"),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, "2020-12"),
        ({"properties": {"a": {"$schema": "http://json-schema.org/draft-07/schema#"}}}, "whole schema"),
        ({"$schema": 3}, "JSON object"),
        ([], "JSON object"),
        ({"pattern": "("}, "pattern"),
        ({"pattern": "a" * 501}, "500"),
        ({"patternProperties": {"a": {}}}, "patternProperties"),
        ({"const": float("nan")}, "JSON"),
        ({"enum": ["x" * 70_000]}, "bytes"),
    ],
)
def test_a_schema_that_is_none_is_refused(schema: Any, reason: str) -> None:
    """With the reason."""
    with pytest.raises(ValueError, match=reason):
        require_schema(schema)


def test_references_do_not_leave_the_schema() -> None:
    """Nothing is fetched; what is not there is said."""
    for target in ("http://127.0.0.1:1/schema", "file:///etc/passwd", "#/$defs/none"):
        require_schema({"$ref": target})
        (told,) = violations({"$ref": target}, {})
        assert "not in it" in told
    assert violations({"$defs": {"a": {"type": "string"}}, "$ref": "#/$defs/a"}, "x") == []


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"pattern": "^(a|aa)+$"}, "a" * 100 + "b"),
        (
            {
                "$defs": {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(30)} | {"d30": {}},
                "$ref": "#/$defs/d0",
            },
            1,
        ),
        ({"$ref": "#"}, 1),
        ({"items": {"enum": list(range(1000))}}, [-1] * 1000),
    ],
)
def test_no_schema_makes_a_check_run_for_ever(schema: dict[str, Any], value: Any) -> None:
    """It is given up; the artifact counts as invalid then."""
    require_schema(schema)
    with pytest.raises(TooMuchWork):
        violations(schema, value, most=10**9)
    assert not is_valid(check("json", json.dumps(value), format_="json", schema=schema)) or value == [-1] * 1000


def test_equal_items_are_found() -> None:
    """Of things that cannot be sorted too; 1 and true differ."""
    assert violations({"uniqueItems": True}, [{"a": 1}, {"a": 1}])
    assert violations({"uniqueItems": True}, [1, True, {"a": 1}, {"a": 2}]) == []


def test_a_written_table_becomes_csv_or_rows() -> None:
    """Cells with commas and quotes survive; a row that does not fit is left for the check to find."""
    written = json.dumps({"columns": ["a", "b"], "rows": [["1, 2", 'say "x"'], ["3", ""]]})
    assert rendered_table(written, "csv") == 'a,b\n"1, 2","say ""x"""\n3,\n'
    assert parsed(rendered_table(written, "json")) == [{"a": "1, 2", "b": 'say "x"'}, {"a": "3", "b": ""}]
    uneven = json.dumps({"columns": ["a", "b"], "rows": [["1"]]})
    for format_ in ("csv", "json"):
        assert not is_valid(check("table", rendered_table(uneven, format_), format_=format_))
    with pytest.raises(ValueError, match="columns and rows"):
        rendered_table('[["a"]]', "csv")


def test_a_diff_applies() -> None:
    """Places are right though what is equal at both ends was left out; a missing last line break is told."""
    before = "".join(f"line {n}\n" for n in range(100))
    after = before.replace("line 50\n", "line fifty\n").replace("line 70\n", "") + "end"
    diff = unified(before, after, names=("version 1", "version 2"))
    assert diff.startswith("--- version 1\n+++ version 2\n@@ -48,7 +48,7 @@\n line 47\n")
    assert diff.endswith("+end\n\\ No newline at end of file\n")
    assert _patched(before, diff) == after
    assert unified(before, before, names=("a", "b")) == ""
    assert _patched("", unified("", "a\n", names=("a", "b"))) == "a\n"


def test_a_diff_of_very_different_texts_is_a_replacement() -> None:
    """Beyond the limit nothing is matched line by line."""
    before, after = ("same\n" + "".join(f"{word} {n}\n" for n in range(2000)) for word in ("a", "b"))
    diff = unified(before, after, names=("a", "b"))
    assert diff.splitlines()[2] == "@@ -2,2000 +2,2000 @@"
    assert _patched(before, diff) == after


def _patched(before: str, diff: str) -> str:
    """What `patch` would make of it."""
    source, result, at = before.splitlines(keepends=True), list[str](), 0
    for line in diff.splitlines(keepends=True)[2:]:
        if line.startswith("@@ "):
            start = int(line.split()[1].split(",")[0][1:])
            begin = max(0, start - 1)
            result, at = result + source[at:begin], begin
        elif line.startswith("\\"):
            result[-1] = result[-1].removesuffix("\n")
        elif line[0] == "+":
            result.append(line[1:])
        else:
            assert source[at] == line[1:]
            result += [line[1:]] if line[0] == " " else []
            at += 1
    return "".join(result + source[at:])


def test_json_is_compared_by_structure() -> None:
    """Each change with its pointer; true is not 1."""
    changes = structural('{"a": 1, "b": [1, 2], "c/d": 0}', '{"a": true, "b": [1, 3, 4], "e": null}')
    assert changes == [
        Change("replace", "/a", before=1, after=True),
        Change("replace", "/b/1", before=2, after=3),
        Change("add", "/b/2", after=4),
        Change("remove", "/c~1d", before=0),
        Change("add", "/e"),
    ]
    assert structural("{", "{}") is None
    many = structural("[]", json.dumps(list(range(5000))))
    assert many is not None
    assert len(many) == MAX_CHANGES + 1
    deep = structural("[" * 300 + "1" + "]" * 300, "[" * 300 + "2" + "]" * 300)
    assert deep is not None
    assert len(deep) == 1


def test_tables_are_compared_row_by_row() -> None:
    """A row put in between moves the others without changing them."""
    changes = structural("a,b\n1,2\n3,4\n5,6\n", "a,c\n0,0\n1,2\n9,4\n5,6\n", table=("csv", "csv"))
    assert changes == [
        Change("replace", "/columns", before=["a", "b"], after=["a", "c"]),
        Change("add", "/rows/0", after=["0", "0"]),
        Change("replace", "/rows/2", before=["3", "4"], after=["9", "4"]),
    ]
    assert structural("", "a\n", table=("csv", "csv")) is None


def test_an_artifact_is_cut_out_of_an_answer() -> None:
    """Fences and talk around it go; a document keeps the code it holds."""
    talk = "Here it is:\n```python\nx = 1\n```\nHave fun!"
    assert unwrapped("code", talk) == "x = 1\n"
    assert unwrapped("document", talk) == talk + "\n"
    assert unwrapped("document", "```markdown\n# A\n```") == "# A\n"
    assert unwrapped("json", '```json\n{"a": 1}\n```') == '{\n  "a": 1\n}'
    assert unwrapped("json", "{nothing") == "{nothing"
    assert unwrapped("code", "```\nnever closed") == "never closed\n"
    assert unwrapped("code", "  ") == ""


def test_an_artifact_nobody_named_has_a_name() -> None:
    """Its heading or title, else the first words of what was asked, in a line that is not too long."""
    assert title_of("document", "text\n\n## The plan\n", "x") == "The plan"
    assert title_of("slides", json.dumps(SLIDES), "x") == "Pumps"
    assert title_of("json", '{"title": 3}', "a\n b") == "a b"
    assert title_of("code", "x", "") == "code"
    assert len(title_of("code", "x", "word " * 100)) <= 200


def test_the_model_is_held_to_what_was_asked() -> None:
    """The number of slides stands in the schema; a repair names what failed and nothing else."""
    schema = output_schema("slides", None, 3)
    assert schema is not None
    assert (schema["properties"]["slides"]["minItems"], schema["properties"]["slides"]["maxItems"]) == (3, 3)
    assert output_schema("code", None, None) is None
    told = repair([Check("parses", False, "line 3"), Check("schema", True, "fine"), Check("x", None, "unchecked")])
    assert "parses: line 3" in told
    assert "fine" not in told
    assert "unchecked" not in told
