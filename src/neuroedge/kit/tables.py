"""Tables from CSV and Parquet, with limits: columns of numbers or of texts, missing cells known.

A cell is data, whatever it says: a formula is a text like any other.
"""

import csv
import io
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

MAX_ROWS: Final = 200_000
MAX_COLUMNS: Final = 500
MAX_CELLS: Final = 5_000_000
MAX_CELL_CHARS: Final = 20_000
MAX_NAME_CHARS: Final = 200
MISSING: Final = frozenset({"", "na", "n/a", "nan", "null", "none", "#n/a"})
"""What a missing cell may say, in lower case."""
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_INFINITE = frozenset({"inf", "+inf", "-inf", "infinity", "+infinity", "-infinity"})
_BATCH_ROWS: Final = 1024
_MAX_BATCH_BYTES: Final = 64 << 20


class TableError(ValueError):
    """What is wrong with a table, for whoever sent it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column: float64 with NaN for missing, or texts with None for missing."""

    name: str
    kind: Literal["number", "text"]
    values: NDArray[Any]

    @property
    def missing(self) -> NDArray[np.bool_]:
        """Which cells are."""
        if self.kind == "number":
            return np.asarray(np.isnan(self.values), bool)
        return np.array([value is None for value in self.values], bool)

    def take(self, rows: NDArray[Any]) -> "Column":
        """The column of these rows."""
        return Column(name=self.name, kind=self.kind, values=self.values[rows])


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Columns of equal length by name, in their order."""

    columns: dict[str, Column]
    rows: int
    warnings: list[str]


def decoded(data: bytes) -> str:
    """A CSV file's text. Raises TableError unless it is UTF-8."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TableError(f"the table is not UTF-8: byte {error.start} is {data[error.start]:#04x}") from error


def read_csv(text: str, *, delimiter: str = ",") -> Table:
    """The table of a CSV text whose first line names the columns. Raises TableError."""
    if "\x00" in text:
        raise TableError("the table holds a zero character")
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    names: list[str] = []
    cells: list[list[str]] = []
    try:
        for row in rows:
            if not names:
                names = _names(row)
            elif row:
                _add(cells, row, width=len(names), line=rows.line_num)
    except csv.Error as error:
        raise TableError(f"line {rows.line_num}: {error}") from error
    if not cells:
        raise TableError("the table has no rows")
    warnings: list[str] = []
    columns = [_column(name, [row[i] for row in cells], warnings) for i, name in enumerate(names)]
    return Table(columns={c.name: c for c in columns}, rows=len(cells), warnings=warnings)


def read_parquet(data: bytes) -> Table:
    """The table of a Parquet file; numbers stay numbers, everything else becomes texts. Raises TableError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(io.BytesIO(data))
        names = _names(file.schema_arrow.names)
        _within(file.metadata.num_rows, len(names))
        for field in file.schema_arrow:
            if pa.types.is_nested(field.type) or pa.types.is_binary(field.type):
                raise TableError(f"the column {field.name!r} holds {field.type}: numbers and texts only")
        batches, count = [], 0
        for batch in file.iter_batches(batch_size=_BATCH_ROWS):
            count += batch.num_rows
            _within(count, len(names))  # what the file says of itself may be wrong
            if batch.nbytes > _MAX_BATCH_BYTES:
                raise TableError(f"{_BATCH_ROWS} rows take more than {_MAX_BATCH_BYTES} bytes")
            batches.append(batch)
        table = pa.Table.from_batches(batches, schema=file.schema_arrow)
    except (pa.ArrowException, OSError, OverflowError) as error:
        raise TableError(f"not a Parquet file that can be read: {str(error)[:200]}") from error
    if not table.num_rows:
        raise TableError("the table has no rows")
    columns = [_of_arrow(name, table.column(i)) for i, name in enumerate(names)]
    return Table(columns={c.name: c for c in columns}, rows=table.num_rows, warnings=[])


def number_of(cell: str) -> float | None:
    """The finite number a cell holds; None for a missing cell. Raises TableError for anything else."""
    stripped = cell.strip()
    if stripped.lower() in MISSING:
        return None
    if not _NUMBER.fullmatch(stripped) or not math.isfinite(value := float(stripped)):
        raise TableError(f"{stripped[:40]!r} is no finite number")
    return value


def text_of(cell: str) -> str | None:
    """The text a cell holds; None for a missing cell. Raises TableError for one that is too long."""
    stripped = cell.strip()
    if len(stripped) > MAX_CELL_CHARS:
        raise TableError(f"a cell has {len(stripped)} characters, at most {MAX_CELL_CHARS} are read")
    return None if stripped.lower() in MISSING else stripped


def _names(row: Sequence[str]) -> list[str]:
    if len(row) > MAX_COLUMNS:
        raise TableError(f"the table has {len(row)} columns, at most {MAX_COLUMNS} are read")
    names = [name.strip() for name in row]
    if not any(names):
        raise TableError("the first line names no columns")
    if "" in names:
        raise TableError(f"column {names.index('') + 1} has no name")
    if any(len(name) > MAX_NAME_CHARS for name in names):
        raise TableError(f"a column's name is longer than {MAX_NAME_CHARS} characters")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise TableError(f"the column {twice[0]!r} is there twice")
    return names


def _add(cells: list[list[str]], row: list[str], *, width: int, line: int) -> None:
    if len(row) != width:
        raise TableError(f"line {line} has {len(row)} cells, the first line has {width}")
    cells.append(row)
    _within(len(cells), width)


def _within(rows: int, columns: int) -> None:
    if rows > MAX_ROWS or rows * columns > MAX_CELLS:
        raise TableError(f"the table has more than {MAX_ROWS} rows or {MAX_CELLS} cells")


def _column(name: str, cells: Sequence[str], warnings: list[str]) -> Column:
    """Numbers where every cell that is not missing is one."""
    stripped = [cell.strip() for cell in cells]
    present = [cell for cell in stripped if cell.lower() not in MISSING]
    numbers = sum(_NUMBER.fullmatch(cell) is not None for cell in present)
    infinite = any(cell.lower() in _INFINITE for cell in present)
    if numbers and (infinite or numbers == len(present)):
        return Column(name=name, kind="number", values=np.array(_each(name, stripped, number_of), float))
    if 2 * numbers > len(present):
        warnings.append(
            f"{len(present) - numbers} of {len(present)} cells of {name!r} are no numbers: it is read as text"
        )
    return Column(name=name, kind="text", values=np.array(_each(name, stripped, text_of), object))


def _each(name: str, cells: Iterable[str], read: Callable[[str], Any]) -> list[Any]:
    values = []
    for i, cell in enumerate(cells):
        try:
            values.append(read(cell))
        except TableError as error:
            raise TableError(f"row {i + 1} of {name!r}: {error}") from error
    return values


def _of_arrow(name: str, column: Any) -> Column:
    import pyarrow as pa

    kind = column.type
    if pa.types.is_null(kind):
        return Column(name=name, kind="number", values=np.full(len(column), np.nan))
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        # Missing numbers and NaN are the same here.
        values = np.array([math.nan if v is None else float(v) for v in column.to_pylist()], float)
        if np.isinf(values).any():
            raise TableError(f"row {int(np.isinf(values).argmax()) + 1} of {name!r} is infinite")
        return Column(name=name, kind="number", values=values)
    texts = ["" if v is None else str(v) for v in column.to_pylist()]
    return Column(name=name, kind="text", values=np.array(_each(name, texts, text_of), object))
