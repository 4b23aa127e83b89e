"""What changed between two versions of an artifact: as text, and for JSON and tables by structure."""

import difflib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any, Final, Literal

from neuroedge.kit.artifact_checks import read_table
from neuroedge.kit.artifact_schema import parsed

MAX_PAIRS: Final = 2_000_000
"""Lines that changed on one side times the other: beyond it they are shown as replaced as a whole."""
MAX_CHANGES: Final = 1000
_DEPTH: Final = 100
_CONTEXT: Final = 3


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a JSON value or a table; `path` is a JSON pointer (RFC 6901), of a table /rows/n from 0."""

    op: Literal["add", "remove", "replace"]
    path: str
    before: Any = None
    after: Any = None


def unified(before: str, after: str, *, names: tuple[str, str]) -> str:
    """A unified diff, empty for equal texts. May take a second of computing."""
    old, new = before.splitlines(keepends=True), after.splitlines(keepends=True)
    head = _equal(zip(old, new, strict=False))
    tail = _equal(islice(zip(reversed(old), reversed(new), strict=False), min(len(old), len(new)) - head))
    if (len(old) - head - tail) * (len(new) - head - tail) > MAX_PAIRS:
        lines = _replaced(old, new, head, tail, names)
    else:
        # What is equal at both ends is left out but for the context; the numbers of the lines are put right.
        cut = max(0, head - _CONTEXT)
        ends = [len(side) - max(0, tail - _CONTEXT) for side in (old, new)]
        found = difflib.unified_diff(old[cut : ends[0]], new[cut : ends[1]], *names, n=_CONTEXT)
        lines = [_moved(line, cut) if line.startswith("@@ ") else line for line in found]
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


def _equal(pairs: Iterator[tuple[str, str]]) -> int:
    count = 0
    for one, other in pairs:
        if one != other:
            break
        count += 1
    return count


def _moved(header: str, lines: int) -> str:
    """`@@ -a,b +c,d @@` with both places moved down."""
    places = []
    for part in header.split()[1:3]:
        start, comma, length = part[1:].partition(",")
        places.append(f"{part[0]}{int(start) + lines}{comma}{length}")
    return f"@@ {' '.join(places)} @@\n"


def _replaced(old: Sequence[str], new: Sequence[str], head: int, tail: int, names: tuple[str, str]) -> list[str]:
    gone, come = old[head : len(old) - tail], new[head : len(new) - tail]
    ranges = f"@@ -{head + 1},{len(gone)} +{head + 1},{len(come)} @@\n"
    return [
        f"--- {names[0]}\n",
        f"+++ {names[1]}\n",
        ranges,
        *(f"-{line}" for line in gone),
        *(f"+{line}" for line in come),
    ]


def structural(before: str, after: str, *, table: tuple[str, str] | None = None) -> list[Change] | None:
    """The changes, at most MAX_CHANGES + 1 of them, so that one sees that there are more; None when either is no
    JSON, or no table: `table` names both formats."""
    try:
        changes = _tables(before, after, table) if table else _values("", parsed(before), parsed(after), _DEPTH)
        return list(islice(changes, MAX_CHANGES + 1))
    except ValueError:
        return None


def _values(path: str, before: Any, after: Any, depth: int) -> Iterator[Change]:
    if depth and isinstance(before, dict) and isinstance(after, dict):
        for name in [*before, *(name for name in after if name not in before)]:
            place = f"{path}/{name.replace('~', '~0').replace('/', '~1')}"
            if name not in after:
                yield Change("remove", place, before=before[name])
            elif name not in before:
                yield Change("add", place, after=after[name])
            else:
                yield from _values(place, before[name], after[name], depth - 1)
    elif depth and isinstance(before, list) and isinstance(after, list):
        for at, (one, other) in enumerate(zip(before, after, strict=False)):
            yield from _values(f"{path}/{at}", one, other, depth - 1)
        for at in range(len(after), len(before)):
            yield Change("remove", f"{path}/{at}", before=before[at])
        for at in range(len(before), len(after)):
            yield Change("add", f"{path}/{at}", after=after[at])
    elif _written(before) != _written(after):
        yield Change("replace", path, before=before, after=after)


def _written(value: Any) -> str:
    """Of values that Python takes for equal and JSON does not: 1 and true."""
    return json.dumps(value, sort_keys=True)


def _tables(before: str, after: str, formats: tuple[str, str]) -> Iterator[Change]:
    """Columns, then rows: equal ones are found wherever they moved to."""
    old, new = (read_table(text, format_) for text, format_ in zip((before, after), formats, strict=True))
    if list(old.columns) != list(new.columns):
        yield Change("replace", "/columns", before=list(old.columns), after=list(new.columns))
    gone, come = ([_written(row) for row in side.rows] for side in (old, new))
    if len(gone) * len(come) > MAX_PAIRS:
        yield from _values("/rows", list(old.rows), list(new.rows), 1)
        return
    matcher = difflib.SequenceMatcher(None, gone, come, autojunk=False)
    ends = [(0, 0, 0), *matcher.get_matching_blocks()]
    for (a, b, size), (a_next, b_next, _) in pairwise(ends):
        yield from _rows(old.rows, new.rows, (a + size, a_next), (b + size, b_next))


def _rows(old: Sequence[Any], new: Sequence[Any], gone: tuple[int, int], come: tuple[int, int]) -> Iterator[Change]:
    """Rows between two that are equal: changed one by one, then what is left over."""
    both = min(gone[1] - gone[0], come[1] - come[0])
    for at in range(both):
        yield Change("replace", f"/rows/{come[0] + at}", before=old[gone[0] + at], after=new[come[0] + at])
    for at in range(gone[0] + both, gone[1]):
        yield Change("remove", f"/rows/{at}", before=old[at])
    for at in range(come[0] + both, come[1]):
        yield Change("add", f"/rows/{at}", after=new[at])
