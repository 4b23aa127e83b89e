"""The order of lines on a page, by their places alone."""

import itertools
import math
import random
from typing import Any

import numpy as np
import pytest

from neuroedge.kit.reading_order import reading_order


def _box(x: float, y: float, width: float, height: float = 20) -> Any:
    return np.array([[x, y], [x + width, y], [x + width, y + height], [x, y + height]], np.float64)


def _column(x: float, y: float, lines: int, *, width: float = 300, step: float = 26) -> list[Any]:
    return [_box(x, y + step * n, width) for n in range(lines)]


def _flat(order: list[list[list[int]]]) -> list[int]:
    return [index for rows in order for row in rows for index in row]


def _turned(box: Any, degrees: float) -> Any:
    angle = math.radians(degrees)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return box @ turn.T


def test_nothing_has_no_order() -> None:
    """And one line is one paragraph."""
    assert reading_order([]) == []
    assert reading_order([_box(0, 0, 10)]) == [[[0]]]


def test_rows_go_down_and_to_the_right() -> None:
    """Pieces of one row stand together although their heights differ a little."""
    boxes = [_box(0, 52, 200), _box(250, 3, 40), _box(0, 0, 200), _box(0, 26, 200)]
    assert reading_order(boxes) == [[[2, 1], [3], [0]]]


def test_white_space_begins_a_paragraph() -> None:
    """More than between two lines of text."""
    assert reading_order([_box(0, 0, 200), _box(0, 26, 200), _box(0, 80, 200)]) == [[[0], [1]], [[2]]]


@pytest.mark.parametrize("shift", [0, 5, 13])
def test_columns_are_read_one_by_one(shift: float) -> None:
    """Three of them, their lines level with each other or not, under a heading and over a last line across."""
    columns = [_column(330.0 * n, 60 + shift * n, 6) for n in range(3)]
    boxes = [_box(0, 0, 900, 30), *itertools.chain(*columns), _box(0, 260, 900)]
    assert _flat(reading_order(boxes)) == list(range(20))


def test_a_heading_between_columns_divides_them() -> None:
    """What stands above it is read first, all columns of it."""
    above = _column(0, 0, 3) + _column(400, 0, 3)
    below = _column(0, 160, 3) + _column(400, 160, 3)
    assert _flat(reading_order([*above, _box(0, 110, 700, 30), *below])) == list(range(13))


def test_a_table_is_read_row_by_row() -> None:
    """Its cells are short."""
    cells = [_box(200 * column, 26 * row, 80) for row in range(5) for column in range(3)]
    assert reading_order(cells) == [[[3 * row, 3 * row + 1, 3 * row + 2] for row in range(5)]]


@pytest.mark.parametrize("degrees", [4, -9, 90, 180, 271])
def test_a_turned_page_keeps_its_order(degrees: float) -> None:
    """By the direction of its lines."""
    boxes = [_box(0, 0, 700, 30), *_column(0, 60, 8), *_column(400, 60, 8)]
    assert reading_order([_turned(box, degrees) for box in boxes]) == reading_order(boxes)


def test_every_line_is_given_once() -> None:
    """Whatever the page looks like: places at random, all in one place, without any height."""
    drawn = random.Random(4)
    pages = [
        [_box(drawn.uniform(0, 900), drawn.uniform(0, 900), drawn.uniform(1, 400)) for _ in range(drawn.randrange(60))]
        for _ in range(100)
    ]
    for boxes in [*pages, [_box(0, 0, 50)] * 9, [_box(5, 5, 0, 0)] * 3]:
        assert sorted(_flat(reading_order(boxes))) == list(range(len(boxes)))
