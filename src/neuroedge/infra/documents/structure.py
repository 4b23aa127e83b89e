"""Blocks from what kreuzberg says of a document's structure."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from neuroedge.kit.chunking import Block

_NOT_SAID = re.compile(r"[\W_]+")
_PIPE = re.compile(r"(?<!\\)\|")
"""Some formats' cells come with their pipes escaped already."""
_LOOK_FOR = 48
_LOOK_AHEAD = 200_000


def blocks(
    nodes: Sequence[Mapping[str, Any]],
    page_texts: Sequence[tuple[int, str]],
    sizes: Mapping[int, tuple[float, float]] | None = None,
) -> Iterator[Block]:
    """A document's blocks in reading order. `page_texts`: (page from 1, its text), where the nodes name no page;
    `sizes`: width and height in points of the pages on which nodes name their place."""
    pages = _Pages(page_texts)
    items: list[str] = []
    items_page: int | None = None
    for node in nodes:
        content = node["content"]
        kind = content.get("node_type")
        text = _clean(content.get("text") or "")
        if kind in ("group", "page_break", "list", "slide") or node.get("content_layer") in ("header", "footer"):
            continue  # what they hold comes as nodes of its own
        page = node.get("page") or pages.of(text)
        if kind == "list_item":
            items_page = items_page if items else page
            items.append(_item(nodes, node, text))
            continue
        if items:
            yield Block(type="list", text="\n".join(items), page=items_page)
            items = []
        found = _block(kind, content, text, page)
        if found is not None:
            yield replace(found, bbox=_bbox(node.get("bbox"), (sizes or {}).get(page or 0)))
    if items:
        yield Block(type="list", text="\n".join(items), page=items_page)


def _bbox(
    told: Mapping[str, float] | None, size: tuple[float, float] | None
) -> tuple[float, float, float, float] | None:
    """In parts of the page from its upper left; PDF counts points from the lower left."""
    if not told or not size or min(size) <= 0:
        return None
    width, height = size
    corners = (told["x0"] / width, 1 - told["y1"] / height, told["x1"] / width, 1 - told["y0"] / height)
    left, top, right, bottom = (round(min(1.0, max(0.0, value)), 4) for value in corners)
    return (left, top, right, bottom) if left < right and top < bottom else None


def _block(kind: str | None, content: Mapping[str, Any], text: str, page: int | None) -> Block | None:
    if kind in ("heading", "title"):
        text = " ".join(text.split())
        return Block(type="heading", text=text, page=page, level=int(content.get("level") or 1)) if text else None
    if kind == "table":
        table = markdown_table(_cells(content.get("grid") or {}))
        return Block(type="table", text=table, page=page) if table else None
    if kind == "metadata_block":
        text = "\n".join(f"{name}: {value}" for name, value in content.get("entries") or [])
    elif kind == "image":
        text = _clean(content.get("description") or "")
    if not text.strip():
        return None
    if kind == "code":
        fence = "```" if "```" not in text else "~~~"
        return Block(type="code", text=f"{fence}{content.get('language') or ''}\n{text}\n{fence}", page=page)
    return Block(type="paragraph", text=text.strip(), page=page)


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as a Markdown table, the first row its header; empty without any text."""
    if not any(cell.strip() for row in rows for cell in row):
        return ""
    width = max(len(row) for row in rows)
    lines = [_row([*row, *[""] * (width - len(row))]) for row in rows]
    return "\n".join([lines[0], _row(["---"] * width), *lines[1:]])


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_PIPE.sub(r"\\|", " ".join(_clean(cell).split())) for cell in cells) + " |"


def _cells(grid: Mapping[str, Any]) -> list[list[str]]:
    rows = [[""] * int(grid.get("cols", 0)) for _ in range(int(grid.get("rows", 0)))]
    for cell in grid.get("cells", []):
        if cell["row"] < len(rows) and cell["col"] < len(rows[cell["row"]]):
            rows[cell["row"]][cell["col"]] = cell["content"]
    return rows


def _item(nodes: Sequence[Mapping[str, Any]], node: Mapping[str, Any], text: str) -> str:
    """A list item with its mark, indented by the lists around it."""
    depth, parent, ordered = 0, node.get("parent"), False
    while parent is not None and depth < 10:
        above = nodes[parent]["content"]
        if above.get("node_type") == "list":
            ordered = bool(above.get("ordered")) if depth == 0 else ordered
            depth += 1
        parent = nodes[parent].get("parent")
    return f"{'  ' * max(0, depth - 1)}{'1.' if ordered else '-'} {' '.join(text.split())}"


def _clean(text: str) -> str:
    """Without what no text column holds; line ends as \\n."""
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\x00", "")


class _Pages:
    """Finds the page of one text after the other, both in reading order."""

    def __init__(self, page_texts: Sequence[tuple[int, str]]) -> None:
        self._starts: list[tuple[int, int]] = []
        parts: list[str] = []
        length = 0
        for number, text in page_texts:
            said = _NOT_SAID.sub("", text)
            self._starts.append((length, number))
            parts.append(said)
            length += len(said)
        self._said = "".join(parts)
        self._at = 0
        self._page = 0

    def of(self, text: str) -> int | None:
        """The page `text` begins on; where it is not found, that of the text before it."""
        if not self._starts:
            return None
        said = _NOT_SAID.sub("", text[: 4 * _LOOK_FOR])[:_LOOK_FOR]
        found = self._said.find(said, self._at, self._at + _LOOK_AHEAD) if said else -1
        if found >= 0:
            self._at = found + len(said)
            while self._page + 1 < len(self._starts) and self._starts[self._page + 1][0] <= found:
                self._page += 1
        return self._starts[self._page][1]
