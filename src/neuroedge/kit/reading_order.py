"""The order in which lines of text on a page are read: columns, paragraphs, rows.

Recursive cuts along white space (Nagy & Seth 1984, "Hierarchical representation of optically scanned documents") with
two rules of our own: a run of rows with a common gap is read as columns only where the pieces beside the gap are as
long as those of running text, so that a table stays a table; a heading across the columns ends a run.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

import numpy as np
from numpy.typing import NDArray

_GAP: Final = 0.8
"""Least white space between columns, in heights of a line."""
_COLUMN: Final = 8.0
"""Least median length of a column's lines, in heights of a line: shorter pieces are a table's cells."""
_PARAGRAPH: Final = 0.8
"""White space between two rows that begins a new paragraph, in heights of a line."""
_LOOK_AHEAD: Final = 8
"""Rows within which two columns must show; bounds the time a long table takes."""
_SAME_ROW: Final = 0.5
"""Two pieces are in one row when they share so much of the lower one's height."""


@dataclass(frozen=True, slots=True)
class _Piece:
    """A line's upright rectangle."""

    index: int
    left: float
    top: float
    right: float
    bottom: float

    @property
    def height(self) -> float:
        return self.bottom - self.top


Rows = list[list[_Piece]]


def reading_order(corners: Sequence[NDArray[np.float64]]) -> list[list[list[int]]]:
    """Paragraphs of rows of indices of lines, in the order they are read, from left to right and from top to bottom.

    `corners` are those of each line [4, 2] (x, y), clockwise from the one where it begins, above: their direction tells
    how the page is turned or skewed.
    """
    if not corners:
        return []
    points = _upright(np.stack(corners))
    pieces = [_Piece(i, *(float(v) for v in (*quad.min(axis=0), *quad.max(axis=0)))) for i, quad in enumerate(points)]
    height = float(np.median([piece.height for piece in pieces])) or 1.0
    return [
        [[piece.index for piece in row] for row in paragraph] for paragraph in _ordered(_rows(pieces), height=height)
    ]


def _upright(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """The lines [n, 4, 2] with the page turned so that they run to the right."""
    along = (points[:, 1] - points[:, 0] + points[:, 2] - points[:, 3]) / 2
    lengths = np.linalg.norm(along, axis=1)
    x, y = (along * lengths[:, None]).sum(axis=0)  # long lines tell their direction best
    angle = -math.atan2(y, x)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    turned: NDArray[np.float64] = points @ turn.T
    return turned


def _rows(pieces: Sequence[_Piece]) -> Rows:
    """Pieces that stand side by side, from top to bottom, each row from left to right."""
    rows: Rows = []
    for piece in sorted(pieces, key=lambda p: (p.top + p.bottom) / 2):
        if rows and _shares_row(piece, rows[-1][-1]):
            rows[-1].append(piece)
        else:
            rows.append([piece])
    return [sorted(row, key=lambda p: p.left) for row in rows]


def _shares_row(piece: _Piece, other: _Piece) -> bool:
    shared = min(piece.bottom, other.bottom) - max(piece.top, other.top)
    return shared > _SAME_ROW * min(piece.height, other.height)


def _ordered(rows: Rows, *, height: float) -> list[Rows]:
    """Paragraphs of rows: runs of rows with a gap in common column by column, others as they stand."""
    paragraphs: list[Rows] = []
    plain: Rows = []
    start = 0
    while start < len(rows):
        stop, gap = _run(rows, start, height=height)
        if gap is None:
            plain.append(rows[start])
            start += 1
            continue
        paragraphs += _paragraphs(plain, height=height)
        plain = []
        pieces = [piece for row in rows[start:stop] for piece in row]
        for side in ([p for p in pieces if p.right <= gap], [p for p in pieces if p.right > gap]):
            paragraphs += _ordered(_rows(side), height=height)
        start = stop
    return paragraphs + _paragraphs(plain, height=height)


def _run(rows: Rows, start: int, *, height: float) -> tuple[int, float | None]:
    """The longest run of rows from `start` that a gap divides into two columns: its end and the gap's left edge."""
    stop, found = start, None
    gaps = [(-math.inf, math.inf)]
    pieces: list[_Piece] = []
    for index in range(start, len(rows)):
        gaps = _common(gaps, _white(rows[index]), least=_GAP * height)
        pieces += rows[index]
        gap = _dividing(gaps, pieces, height=height)
        if gap is not None:
            stop, found = index + 1, gap
        elif found is not None or index - start >= _LOOK_AHEAD:
            break
    return stop, found


def _white(row: Sequence[_Piece]) -> list[tuple[float, float]]:
    """Where a row is white: before, between and after its pieces."""
    spans, right = [], -math.inf
    for piece in row:
        if piece.left > right:
            spans.append((right, piece.left))
        right = max(right, piece.right)
    return [*spans, (right, math.inf)]


def _common(
    one: Sequence[tuple[float, float]], other: Sequence[tuple[float, float]], *, least: float
) -> list[tuple[float, float]]:
    shared = [(max(a, c), min(b, d)) for a, b in one for c, d in other]
    return [(left, right) for left, right in shared if right - left >= least]


def _dividing(gaps: Sequence[tuple[float, float]], pieces: Sequence[_Piece], *, height: float) -> float | None:
    """Left edge of the first gap with a column of running text, of two lines or more, on both sides."""
    for left, _ in sorted(gap for gap in gaps if math.isfinite(gap[0]) and math.isfinite(gap[1])):
        lengths = [[p.right - p.left for p in pieces if (p.right <= left) == before] for before in (True, False)]
        if all(len(side) >= 2 and float(np.median(side)) >= _COLUMN * height for side in lengths):
            return left
    return None


def _paragraphs(rows: Rows, *, height: float) -> list[Rows]:
    """Rows divided where the white space between two of them is wide."""
    number, numbered = 0, []
    for index, row in enumerate(rows):
        if index and min(p.top for p in row) - max(p.bottom for p in rows[index - 1]) > _PARAGRAPH * height:
            number += 1
        numbered.append((number, row))
    return [[row for _, row in group] for _, group in groupby(numbered, key=lambda item: item[0])]
