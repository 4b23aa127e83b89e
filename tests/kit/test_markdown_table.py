"""Cells of Markdown tables."""

from neuroedge.infra.documents.structure import markdown_table
from neuroedge.kit.markdown_table import cells, without_tables


def test_what_is_written_is_read_again() -> None:
    """Pipes, empty cells and short rows, too."""
    rows = [["Part", "Count"], ["a | b", ""], ["---", "3"]]
    assert cells(markdown_table(rows)) == rows
    assert cells(markdown_table([["a", "b"], ["c"]])) == [["a", "b"], ["c", ""]]


def test_what_is_no_row_is_left_out() -> None:
    """A table without its last pipe is read; text around it is not."""
    assert cells("| a | b\n|---|---|\nnone\n| c | d |") == [["a", "b"], ["c", "d"]]
    assert cells("") == []


def test_tables_are_blanked_where_they_stand() -> None:
    """What is around them keeps its place; a pipe within a sentence is no table."""
    table = markdown_table([["Part", "Count"], ["Saw", "3"]])
    text = f"Before, a | b.\n{table}\nAfter."
    blank = without_tables(text)
    assert len(blank) == len(text)
    assert blank.split() == ["Before,", "a", "|", "b.", "After."]
    assert blank.index("After.") == text.index("After.")
    assert without_tables("") == ""
