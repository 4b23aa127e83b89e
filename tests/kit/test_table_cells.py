"""Rows for a trained model: cells of any JSON kind, and the place of what cannot be read."""

import math
from typing import Any

import pytest

from neuroedge.kit.table_cells import CellError, columns_of, unseen
from neuroedge.kit.tabular import Feature

FEATURES = [Feature(name="age", kind="number"), Feature(name="paid", kind="text", values=("True", "blue", "1"))]


def test_cells_become_what_the_model_reads() -> None:
    """Numbers as texts, missing in many words, booleans as the table wrote them, numbers where texts are read."""
    rows: list[dict[str, Any]] = [
        {"age": " 7.5 ", "paid": True, "left": "yes"},
        {"age": None, "paid": "N/A"},
        {"age": 3, "paid": 1.0},
    ]
    age, paid = columns_of(rows, FEATURES, target="left")
    assert age.values.tolist()[::2] == [7.5, 3.0]
    assert math.isnan(age.values[1])
    assert paid.values.tolist() == ["True", None, "1"]
    assert unseen([age, paid], FEATURES) == 0


@pytest.mark.parametrize(
    ("row", "column", "message"),
    [
        ({"paid": "blue"}, "age", "is missing"),
        ({"age": "old", "paid": "blue"}, "age", "no finite number"),
        ({"age": "inf", "paid": "blue"}, "age", "no finite number"),
        ({"age": True, "paid": "blue"}, "age", "number is wanted"),
        ({"age": 1, "paid": "x" * 20_001}, "paid", "20001 characters"),
        ({"age": 1, "paid": "blue", "moon": 1}, "moon", "no such column"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_place(row: dict[str, Any], column: str, message: str) -> None:
    """The row's number and the column's name."""
    with pytest.raises(CellError, match=message) as refused:
        columns_of([{"age": 1, "paid": "blue"}, row], FEATURES, target=None)
    assert (refused.value.row, refused.value.column) == (1, column)


def test_texts_the_model_does_not_know_are_counted() -> None:
    """Missing ones are not among them."""
    columns = columns_of([{"age": 1, "paid": cell} for cell in ("blue", "green", None)], FEATURES, target=None)
    assert unseen(columns, FEATURES) == 1
