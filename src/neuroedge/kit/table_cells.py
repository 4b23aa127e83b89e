"""Rows that a trained model is asked about: cells as JSON gives them become the columns that it reads."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from neuroedge.kit import tables
from neuroedge.kit.tables import Column, TableError
from neuroedge.kit.tabular import Feature

Cells = Mapping[str, Any]
"""By column: a finite number, a text, true, false, or None for missing."""


class CellError(TableError):
    """What is wrong with the cell of a `row`, from 0, and `column`."""

    def __init__(self, detail: str, *, row: int, column: str) -> None:
        super().__init__(detail)
        self.row = row
        self.column = column


def columns_of(rows: Sequence[Cells], features: Sequence[Feature], *, target: str | None) -> list[Column]:
    """A column for each feature. Raises CellError for one that is missing, cannot be read, or is not known.

    The `target` may be among the cells, and is not read.
    """
    columns = [_column(rows, feature) for feature in features]
    known = {target, *(f.name for f in features)}
    for i, row in enumerate(rows):
        for name in row:
            if name not in known:
                raise CellError("the model reads no such column", row=i, column=name)
    return columns


def unseen(columns: Sequence[Column], features: Sequence[Feature]) -> int:
    """Cells whose texts the model does not tell apart."""
    return sum(
        value is not None and value not in set(feature.values)
        for column, feature in zip(columns, features, strict=True)
        if feature.kind == "text"
        for value in column.values
    )


def _column(rows: Sequence[Cells], feature: Feature) -> Column:
    values: list[Any] = []
    for i, row in enumerate(rows):
        if feature.name not in row:
            raise CellError("the column is missing; null says that the cell is", row=i, column=feature.name)
        try:
            values.append(_cell(row[feature.name], feature))
        except TableError as error:
            raise CellError(str(error), row=i, column=feature.name) from error
    return Column(
        name=feature.name, kind=feature.kind, values=np.array(values, float if feature.kind == "number" else object)
    )


def _cell(value: Any, feature: Feature) -> float | str | None:
    if feature.kind == "number":
        if isinstance(value, bool):
            raise TableError("a number is wanted")
        found = tables.number_of(value) if isinstance(value, str) else value
        return float("nan") if found is None else float(found)
    if isinstance(value, bool):
        said = str(value).lower()
        return next((known for known in feature.values if known.lower() == said), said)
    return None if value is None else tables.text_of(value if isinstance(value, str) else f"{value:.10g}")
