"""Whether Markdown (CommonMark with GitHub's tables) is well-formed: what every reader would show as it was meant.

Any text is Markdown; what is looked for is markup that was begun and does not come out: a fence nobody closes, a
heading without its space, a link without target, a table whose rows differ.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Final

_FENCE: Final = re.compile(r" {0,3}(`{3,}|~{3,})")
_HEADING: Final = re.compile(r" {0,3}(#+)(.*)")
# Possessive, so that no line however odd takes long.
_CODE: Final = re.compile(r"(?<!`)(`++)[^`]++\1(?!`)")
_DELIMITER: Final = re.compile(r"\|?\s*+:?-++:?\s*+(?:\|\s*+:?-++:?\s*+)*+\|?")
_DEFINITION: Final = re.compile(r" {0,3}\[([^\]]+)\]:\s*\S")
_REFERENCE: Final = re.compile(r"\]\[([^\]\[]*)\]")
_TITLED: Final = re.compile(r"""\S+\s+(?:"[^"]*"|'[^']*'|\([^()]*\))""")
_MAX_LEVEL: Final = 6
Line = tuple[int, str]


def problems(text: str) -> dict[str, list[str]]:
    """By what was looked at (fences, headings, links, tables): what is wrong, with its line."""
    prose, unclosed = _prose(text.splitlines())
    return {
        "fences": [f"line {unclosed}: the code fence is not closed"] if unclosed else [],
        "headings": list(_headings(prose)),
        "links": list(_links(prose)),
        "tables": list(_tables(prose)),
    }


def _prose(lines: Sequence[str]) -> tuple[list[Line], int | None]:
    """Lines outside of code, their code spans blanked; where a fence begins that nothing closes."""
    kept, fence, opened = list[Line](), "", 0
    for number, line in enumerate(lines, start=1):
        found = _FENCE.match(line)
        if fence:
            if found and found[1].startswith(fence) and not line[found.end() :].strip(" `~"):
                fence = ""
            continue
        if found and not (found[1][0] == "`" and "`" in line[found.end() :]):
            fence, opened = found[1], number
            continue
        kept.append((number, _CODE.sub("code", line)))
    return kept, opened if fence else None


def _headings(lines: Sequence[Line]) -> Iterator[str]:
    for number, line in lines:
        if not (found := _HEADING.fullmatch(line)):
            continue
        marks, rest = found[1], found[2]
        if len(marks) > _MAX_LEVEL:
            yield f"line {number}: a heading has at most {_MAX_LEVEL} levels"
        elif rest and not rest[0].isspace():
            yield f"line {number}: a space is missing after {marks}"
        elif not rest.strip(" #"):
            yield f"line {number}: the heading is empty"


def _links(lines: Sequence[Line]) -> Iterator[str]:
    defined = {found[1].casefold() for _, line in lines if (found := _DEFINITION.match(line))}
    for number, line in lines:
        place = 0
        while (place := line.find("](", place)) >= 0:
            place += 2
            target, end = _target(line, place)
            if target is None:
                yield f"line {number}: the link is not closed"
                break
            if wrong := _wrong_target(target):
                yield f"line {number}: {wrong}"
            place = end
        for name in _REFERENCE.findall(line):
            if name and name.casefold() not in defined:
                yield f"line {number}: [{name[:50]}] is defined nowhere"


def _target(line: str, start: int) -> tuple[str | None, int]:
    """What stands between the parentheses, and where they end; None when they do not."""
    depth = 1
    for place in range(start, len(line)):
        depth += {"(": 1, ")": -1}.get(line[place], 0)
        if not depth:
            return line[start:place].strip(), place + 1
    return None, len(line)


def _wrong_target(target: str) -> str | None:
    if not target or target == "<>":
        return "the link has no target"
    if target.casefold().lstrip("<").startswith(("javascript:", "vbscript:", "data:text/html")):
        return "the link's target is a script"
    if any(c.isspace() for c in target) and not target.startswith("<") and not _TITLED.fullmatch(target):
        return "the link's target holds a space"
    return None


def _tables(lines: Sequence[Line]) -> Iterator[str]:
    width, before = 0, ""
    for number, line in lines:
        if width:
            if "|" not in line:
                width = 0
            elif (cells := _cells(line)) != width:
                yield f"line {number}: {cells} cells in a table of {width} columns"
        elif "|" in before and "|" in line and _DELIMITER.fullmatch(line.strip()):
            width, heads = _cells(line), _cells(before)
            if heads != width:
                yield f"line {number}: the table's head has {heads} cells, the line below it {width}"
        elif line.lstrip().startswith("|") and before.lstrip().startswith("|"):
            yield f"line {number}: a table needs a line of dashes below its head"
        before = line


def _cells(line: str) -> int:
    bare = line.strip().replace("\\|", "")
    return bare.removeprefix("|").removesuffix("|").count("|") + 1
