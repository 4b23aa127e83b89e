"""The cells of a Markdown table, as `infra/documents` writes tables."""

import re

_CELL_END = re.compile(r"(?<!\\)\|")
_ROWS = re.compile(r"^[ \t]*\|.*\|[ \t]*$", re.MULTILINE)
_RULE = re.compile(r"\|(?:\s*:?-{3,}:?\s*\|)+\s*")


def without_tables(text: str) -> str:
    """The text with blanks in place of table rows: as long as before, so that places in it stay what they are."""
    return _ROWS.sub(lambda row: " " * len(row[0]), text)


def cells(text: str) -> list[list[str]]:
    """Rows of cells, the header row first; the rule below it is left out. A line that is no row is left out."""
    rows: list[list[str]] = []
    for number, line in enumerate(text.splitlines()):
        line = line.strip()
        if not line.startswith("|") or (number == 1 and _RULE.fullmatch(line)):
            continue
        inner = line[1:-1] if line.endswith("|") and not line.endswith("\\|") else line[1:]
        rows.append([cell.strip().replace("\\|", "|") for cell in _CELL_END.split(inner)])
    return rows
