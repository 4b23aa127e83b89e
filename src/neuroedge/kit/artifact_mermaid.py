"""Whether a Mermaid diagram is built as its kind is: a structural check, no renderer.

Read are header, blocks, brackets and each statement's form for flowchart, sequence, class, state, er, gantt and pie.
What passes may still be refused by Mermaid itself for a reason no structure shows. Syntax: https://mermaid.js.org.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

MAX_LINE: Final = 2000
_HEADERS: Final = {
    "flowchart": re.compile(r"(?:graph|flowchart)(?:-elk)?(?:\s+(?:TB|TD|BT|RL|LR))?"),
    "sequence": re.compile(r"sequenceDiagram"),
    "class": re.compile(r"classDiagram(?:-v2)?"),
    "state": re.compile(r"stateDiagram(?:-v2)?"),
    "er": re.compile(r"erDiagram"),
    "gantt": re.compile(r"gantt"),
    "pie": re.compile(r"pie(?:\s+showData)?(?:\s+title\s.*)?"),
}
_OTHER: Final = re.compile(
    r"(?:journey|gitGraph|mindmap|timeline|quadrantChart|requirementDiagram|C4\w+|sankey(?:-beta)?|xychart(?:-beta)?"
    r"|block(?:-beta)?|packet(?:-beta)?|kanban|architecture(?:-beta)?|radar(?:-beta)?|treemap(?:-beta)?)\b"
)
_PAIRS: Final = {"[": "]", "(": ")", "{": "}"}
_NAME: Final = r"[\w~][\w.~-]*"
_QUOTED: Final = r'"[^"]*"'


@dataclass(slots=True)
class Found:
    """What a diagram is and what is wrong with it."""

    kind: str | None = None
    """None: no header that is known."""
    known: bool = True
    """False: a kind of Mermaid's that is not read here."""
    statements: int = 0
    edges: int = 0
    wrong: list[str] = field(default_factory=list)
    unclosed: list[str] = field(default_factory=list)


def read(text: str) -> Found:
    """Read a diagram."""
    found, lines = Found(), list(_lines(text))
    if not lines:
        return found
    header = lines[0][1]
    found.kind = next((kind for kind, form in _HEADERS.items() if form.fullmatch(header)), None)
    if found.kind is None:
        if other := _OTHER.match(header):
            found.kind, found.known = other[0], False
        return found
    reader = _Reader(found, _STATEMENTS[found.kind])
    for number, line in lines[1:]:
        reader.take(number, line)
    reader.end()
    return found


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Statements with the line they stand in, without comments and the settings in front."""
    lines = text.splitlines()
    settings = bool(lines) and lines[0].strip() == "---"
    for number, line in enumerate(lines, start=1):
        if settings:
            settings = not (number > 1 and line.strip() == "---")
            continue
        bare = line.strip()
        if bare.startswith("%%"):
            continue
        # In quotes and in entities such as #quot; a semicolon ends nothing.
        parts = [bare.rstrip(";")] if '"' in bare or "#" in bare or ":" in bare else bare.split(";")
        yield from ((number, part.strip()) for part in parts if part.strip())


class _Reader:
    """Takes statement after statement; keeps which blocks are open."""

    def __init__(self, found: Found, statement: Callable[[str], str | None]) -> None:
        self._found = found
        self._statement = statement
        self._blocks: list[tuple[str, int]] = []
        self._note = False

    def take(self, number: int, line: str) -> None:
        """One statement."""
        self._found.statements += 1
        if len(line) > MAX_LINE:
            self._found.wrong.append(f"line {number} is longer than {MAX_LINE} characters")
            return
        if self._note:
            self._note = line != "end note"
            return
        if self._block(number, line):
            return
        kind = self._statement(line)
        if kind == "edge":
            self._found.edges += 1
        elif kind == "note":
            self._note = True
        elif kind is None:
            self._found.wrong.append(f"line {number}: {line[:80]!r} is no statement of a {self._found.kind} diagram")

    def end(self) -> None:
        """Tell what was left open."""
        self._found.unclosed += [f"line {number}: {what} is not closed" for what, number in self._blocks]
        if self._note:
            self._found.unclosed.append("a note is not closed")

    def _block(self, number: int, line: str) -> bool:
        """Whether the line opens, closes or stands in a block that has other rules."""
        kind, inner = self._found.kind, self._blocks[-1][0] if self._blocks else ""
        closing = "end" if kind in ("flowchart", "sequence") else "}"
        if line == closing and kind in ("flowchart", "sequence", "class", "state", "er"):
            if self._blocks:
                self._blocks.pop()
            else:
                self._found.unclosed.append(f"line {number}: {closing!r} closes nothing")
            return True
        if inner == "entity":
            if not _ATTRIBUTE.fullmatch(line):
                self._found.wrong.append(f"line {number}: {line[:80]!r} is no attribute of an entity")
            return True
        if inner == "class":
            return True  # members may be written in any language
        if kind in _OPENINGS:
            for what, form in _OPENINGS[kind].items():
                if form.fullmatch(line):
                    self._blocks.append((what, number))
                    return True
        return False


_OPENINGS: Final = {
    "flowchart": {"subgraph": re.compile(r"subgraph(?:\s.*)?")},
    "sequence": {"block": re.compile(r"(?:alt|opt|loop|par|par_over|rect|critical|break|box)(?:\s.*)?")},
    "class": {
        "namespace": re.compile(rf"namespace\s+{_NAME}\s*\{{"),
        "class": re.compile(rf"class\s+(?:{_NAME}|`[^`]+`)(?:\[{_QUOTED}\])?(?:\s*:::\w+)?\s*\{{"),
    },
    "state": {"state": re.compile(rf"state\s+(?:{_QUOTED}\s+as\s+)?{_NAME}\s*\{{")},
    "er": {"entity": re.compile(rf"(?:{_NAME}|{_QUOTED})(?:\[[^\]]*\])?\s*\{{")},
}
_ATTRIBUTE: Final = re.compile(
    rf"[\w\[\]().,-]+\s+\*?[\w\[\]().-]+(?:\s+(?:PK|FK|UK)(?:\s*,\s*(?:PK|FK|UK))*)?(?:\s+{_QUOTED})?"
)
_ANYWHERE: Final = re.compile(r"(?:title|accTitle|accDescr)\b\s*:?\s*\S.*|direction\s+(?:TB|TD|BT|RL|LR)")
_STYLED: Final = re.compile(r"(?:style|classDef|class|linkStyle|click|cssClass|link|callback)\s+\S.*")


def _flowchart(line: str) -> str | None:
    if _ANYWHERE.fullmatch(line) or _STYLED.fullmatch(line):
        return "other"
    place = _nodes(line, 0)
    if place is None:
        return None
    edges = 0
    while place < len(line):
        after = _edge(line, place)
        if after is None or (end := _nodes(line, after)) is None:
            return None
        place, edges = end, edges + 1
    return "edge" if edges else "other"


_NODE: Final = re.compile(r"\s*\w+(?:[.-]\w+)*")
_CLASSES: Final = re.compile(r":::\w+")
_FULL_EDGE: Final = re.compile(r"\s*[<ox]?(?:-{2,}[>ox]|-{3,}|={2,}[>ox]|={3,}|-\.+-[>ox]?|~{3,})")
_OPEN_EDGE: Final = re.compile(r"\s*[<ox]?(?:--|==|-\.)(?![->=.])")
_EDGE_END: Final = re.compile(r"-{2,}[>ox]|-{3,}|={2,}[>ox]|={3,}|\.+-[>ox]?")
_LABEL: Final = re.compile(r"\s*\|[^|]*\|")


def _nodes(line: str, place: int) -> int | None:
    """Where `A[text] & B` that begins here ends, without the blanks behind it."""
    while True:
        if not (name := _NODE.match(line, place)):
            return None
        place = name.end()
        if line[place : place + 2] == "@{":
            place += 1
        if line[place : place + 1] in ("[", "(", "{"):
            closed = _closed(line, place)
            if closed is None:
                return None
            place = closed
        elif line[place : place + 1] == ">":
            place = line.find("]", place) + 1
            if not place:
                return None
        if styled := _CLASSES.match(line, place):
            place = styled.end()
        rest = line[place:].lstrip()
        if not rest.startswith("&"):
            return place if rest else len(line)
        place = line.index("&", place) + 1


def _closed(line: str, place: int) -> int | None:
    """Behind the bracket that closes the one here; None when brackets or quotes do not match."""
    stack, quoted = list[str](), False
    for at in range(place, len(line)):
        c = line[at]
        if c == '"':
            quoted = not quoted
        elif not quoted and c in _PAIRS:
            stack.append(_PAIRS[c])
        elif not quoted and c in "])}":
            if not stack or stack.pop() != c:
                return None
            if not stack:
                return at + 1
    return None


def _edge(line: str, place: int) -> int | None:
    """Behind the edge that begins here, its label included."""
    if full := _FULL_EDGE.match(line, place):
        label = _LABEL.match(line, full.end())
        return label.end() if label else full.end()
    if begun := _OPEN_EDGE.match(line, place):
        end = _EDGE_END.search(line, begun.end())
        return end.end() if end and line[begun.end() : end.start()].strip() else None
    return None


_ARROW: Final = re.compile(r"<<-->>|<<->>|-->>|->>|-->|->|--x|-x|--\)|-\)")
_SEQUENCE: Final = re.compile(
    r"(?:create\s+)?(?:participant|actor)\s+\S.*|destroy\s+\S.*|(?:de)?activate\s+\S.*|autonumber(?:\s+[\d\s]+|\s+off)?"
    r"|(?:else|and|option)(?:\s.*)?|links?\s+\S.*|note\s+(?:left of|right of|over)\s+[^:]+:.*",
    re.IGNORECASE,
)


def _sequence(line: str) -> str | None:
    if _ANYWHERE.fullmatch(line) or _SEQUENCE.fullmatch(line):
        return "other"
    head, colon, _ = line.partition(":")
    arrow = _ARROW.search(head)
    if not colon or not arrow:
        return None
    return "edge" if head[: arrow.start()].strip() and head[arrow.end() :].strip(" +-") else None


_CLASS_NAME: Final = rf"(?:{_NAME}|`[^`]+`)"
_CLASS: Final = re.compile(
    rf"class\s+{_CLASS_NAME}(?:\[{_QUOTED}\])?(?:\s*:::\w+)?|<<\w+>>\s+{_CLASS_NAME}|{_CLASS_NAME}\s*:\s*\S.*"
    rf"|note\s+(?:for\s+{_NAME}\s+)?{_QUOTED}|{_CLASS_NAME}"
)
_RELATION: Final = re.compile(
    rf"{_CLASS_NAME}\s*(?:{_QUOTED}\s*)?(?:<\||[*o<]|\(\))?(?:--|\.\.)(?:\|>|[*o>]|\(\))?\s*(?:{_QUOTED}\s*)?{_CLASS_NAME}"
    r"(?:\s*:\s*\S.*)?"
)


def _class(line: str) -> str | None:
    # Names may hold hyphens, and two of them are a relation.
    if _RELATION.fullmatch(
        re.sub(r"(<\||[*o<]|\(\))?(--|\.\.)(\|>|[*o>](?=[\s\"])|\(\))?", r" \1\2\3 ", line, count=1)
    ):
        return "edge"
    if _ANYWHERE.fullmatch(line) or _CLASS.fullmatch(line):
        return "other"
    return "other" if _STYLED.fullmatch(line) and not line.startswith("class ") else None


_STATE_NAME: Final = r"(?:\[\*\]|\w+)"
_TRANSITION: Final = re.compile(rf"{_STATE_NAME}(?::::\w+)?\s*-->\s*{_STATE_NAME}(?::::\w+)?(?:\s*:\s*.*)?")
_STATE: Final = re.compile(
    rf"state\s+(?:{_QUOTED}\s+as\s+)?\w+(?:\s+<<\w+>>)?|\w+(?::::\w+)?|\w+\s*:\s*\S.*|--"
    r"|note\s+(?:left|right) of\s+\w+\s*:.*"
)
_NOTE: Final = re.compile(r"note\s+(?:left|right) of\s+\w+")


def _state(line: str) -> str | None:
    if _TRANSITION.fullmatch(line):
        return "edge"
    if _NOTE.fullmatch(line):
        return "note"
    if _ANYWHERE.fullmatch(line) or _STATE.fullmatch(line):
        return "other"
    return "other" if _STYLED.fullmatch(line) else None


_ENTITY: Final = rf"(?:{_QUOTED}|[\w][\w.-]*)"
_RELATIONSHIP: Final = re.compile(
    rf"{_ENTITY}\s+(?:\|o|\|\||\}}o|\}}\|)(?:--|\.\.)(?:o\||\|\||o\{{|\|\{{)\s+{_ENTITY}\s*:\s*\S.*"
)
_ALONE: Final = re.compile(rf"{_ENTITY}(?:\[[^\]]*\])?")


def _er(line: str) -> str | None:
    if _RELATIONSHIP.fullmatch(line):
        return "edge"
    return "other" if _ANYWHERE.fullmatch(line) or _ALONE.fullmatch(line) else None


_GANTT: Final = re.compile(
    r"(?:dateFormat|axisFormat|tickInterval|section|excludes|includes|todayMarker|weekday|weekend)\s+\S.*"
    r"|inclusiveEndDates|topAxis"
)


def _gantt(line: str) -> str | None:
    if _ANYWHERE.fullmatch(line) or _GANTT.fullmatch(line) or line.startswith("click "):
        return "other"
    name, colon, plan = line.partition(":")
    parts = [part.strip() for part in plan.split(",")]
    return "edge" if colon and name.strip() and all(parts) and len(parts) <= 7 else None


_SLICE: Final = re.compile(rf"{_QUOTED}\s*:\s*\d+(?:\.\d+)?")


def _pie(line: str) -> str | None:
    if _SLICE.fullmatch(line):
        return "edge"
    return "other" if _ANYWHERE.fullmatch(line) or line == "showData" else None


_STATEMENTS: Final = {
    "flowchart": _flowchart,
    "sequence": _sequence,
    "class": _class,
    "state": _state,
    "er": _er,
    "gantt": _gantt,
    "pie": _pie,
}
PARTS: Final = {
    "flowchart": "edges",
    "sequence": "messages",
    "class": "relations",
    "state": "transitions",
    "er": "relationships",
    "gantt": "tasks",
    "pie": "slices",
}
"""What `Found.edges` counts."""
