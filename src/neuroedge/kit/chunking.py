"""Blocks of a document cut into chunks by structure and tokens, with overlap.

Promise: no chunk exceeds the capacity, heading path included; every word of every block is in some chunk (of headings
nested so deep that they exceed a third of the capacity, only the inner ones); a table that fits is never cut, one that
does not is cut between rows with its header row repeated. Small neighbouring sections share a chunk. Long text is cut
by semantic-text-splitter (CommonMark structure, then sentences, words, graphemes).

Who calls counts the tokens: this is pure code and knows no vocabulary.
"""

import functools
import itertools
import math
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

BlockType = Literal["heading", "paragraph", "table", "list", "code"]
CountTokens = Callable[[str], int]

PATH_SEPARATOR = " > "
_PATH_SHARE = 3
"""A heading path may take one part in so many of the capacity; its outermost headings are left out first."""
_WORD = re.compile(r"[A-Za-z]+|\d+|[^\W\d_]|[^\w\s]|_")
_RULE = re.compile(r"\|?[\s:|-]*-[\s:|-]*\|?")
_LETTERS_PER_TOKEN = 5
_DIGITS_PER_TOKEN = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A piece of a document; tables are Markdown, their header row first.

    `page` counts from 1, None where the format has no pages. `level` is a heading's, 1 the highest.
    """

    type: BlockType
    text: str
    page: int | None = None
    level: int | None = None
    bbox: tuple[float, float, float, float] | None = field(default=None, compare=False)
    """Left, top, right, bottom on the page, in parts of its width and height from the upper left, where it is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A passage to embed: its text, the headings above it, the pages it lies on, its place in the document."""

    position: int
    text: str
    heading_path: tuple[str, ...]
    first_page: int | None
    last_page: int | None

    @property
    def embedded(self) -> str:
        """What is embedded and searched: the heading path, then the text."""
        return f"{PATH_SEPARATOR.join(self.heading_path)}\n\n{self.text}" if self.heading_path else self.text


@dataclass(frozen=True, slots=True)
class _Piece:
    path: tuple[str, ...]
    text: str
    first_page: int | None
    last_page: int | None
    whole: bool
    """Of a whole section, so that it may share a chunk with its neighbours."""


def chunks(
    blocks: Iterable[Block], *, capacity_tokens: int, overlap_tokens: int, count_tokens: CountTokens
) -> Iterator[Chunk]:
    """The chunks in order, made while `blocks` is read: one section at a time is in memory.

    Raises ValueError unless 0 <= overlap_tokens < capacity_tokens / 2 and capacity_tokens >= 16.
    """
    if capacity_tokens < 16 or not 0 <= overlap_tokens < capacity_tokens / 2:
        raise ValueError("expected a capacity of 16 tokens or more and an overlap below half of it")
    pieces = (
        piece
        for path, section in _sections(blocks)
        for piece in _Cutter(path, capacity_tokens, overlap_tokens, count_tokens).cut(section)
    )
    for position, piece in enumerate(_merged(pieces, capacity_tokens, count_tokens)):
        yield Chunk(
            position=position,
            text=piece.text,
            heading_path=piece.path,
            first_page=piece.first_page,
            last_page=piece.last_page,
        )


def estimated_tokens(text: str) -> int:
    """About the tokens of a subword vocabulary, rather too many than too few, where no tokenizer is at hand."""
    total = 0
    for match in _WORD.finditer(text):
        word = match.group()
        per_token = _DIGITS_PER_TOKEN if word[0].isdigit() else _LETTERS_PER_TOKEN
        total += math.ceil(len(word) / per_token)
    return total


def _sections(blocks: Iterable[Block]) -> Iterator[tuple[tuple[str, ...], list[Block]]]:
    """Each heading's own blocks with the path of headings down to it.

    A heading without blocks is in the paths of those below it; where none is below, it is a text of its own.
    """
    stack: list[tuple[int, str, int | None]] = []
    body: list[Block] = []
    for block in blocks:
        if block.type != "heading":
            body.append(block)
            continue
        level = block.level or 1
        if body:
            yield _path(stack), body
        elif stack and stack[-1][0] >= level:
            yield _alone(stack)
        body = []
        while stack and stack[-1][0] >= level:
            stack.pop()
        stack.append((level, " ".join(block.text.split()), block.page))
    if body:
        yield _path(stack), body
    elif stack:
        yield _alone(stack)


def _path(stack: Sequence[tuple[int, str, int | None]]) -> tuple[str, ...]:
    return tuple(title for _, title, _ in stack if title)


def _alone(stack: Sequence[tuple[int, str, int | None]]) -> tuple[tuple[str, ...], list[Block]]:
    _, title, page = stack[-1]
    return _path(stack[:-1]), [Block(type="paragraph", text=title, page=page)] if title else []


class _Cutter:
    """Cuts one section."""

    def __init__(self, path: tuple[str, ...], capacity: int, overlap: int, count: CountTokens) -> None:
        self._count = count
        while path and count(PATH_SEPARATOR.join(path)) > capacity // _PATH_SHARE:
            path = path[1:]
        self._path = path
        # Counted with a margin of 2: words on both sides of the seam may join or part.
        taken = count(PATH_SEPARATOR.join(path)) + 2 if path else 0
        self._capacity = capacity - taken
        self._overlap = min(overlap, self._capacity // 2 - 1)

    def cut(self, section: Sequence[Block]) -> Iterator[_Piece]:
        """The section as one piece when it fits, else run of text by run of text and table by table."""
        filled = [block for block in section if block.text.strip()]
        if not filled:
            return
        text = "\n\n".join(block.text.strip() for block in filled)
        # Counting all of a long section only to learn that it is long would be half of the work.
        if len(text) <= self._capacity * 20 and self._count(text) <= self._capacity:
            pages = [block.page for block in filled if block.page is not None]
            yield _Piece(self._path, text, min(pages, default=None), max(pages, default=None), True)
            return
        for is_table, run in itertools.groupby(filled, key=lambda block: block.type == "table"):
            if not is_table:
                yield from self._text(list(run))
                continue
            for table in run:
                for rows in self._rows(table.text.strip()):
                    yield _Piece(self._path, rows, table.page, table.page, False)

    def _text(self, run: Sequence[Block]) -> Iterator[_Piece]:
        from semantic_text_splitter import MarkdownSplitter

        starts: list[int] = []
        end = 0
        for block in run:
            starts.append(end)
            end += len(block.text.strip()) + 2
        text = "\n\n".join(block.text.strip() for block in run)
        splitter = MarkdownSplitter.from_callback(self._count, self._capacity, overlap=self._overlap)
        for offset, part in splitter.chunk_indices(text):
            first, last = bisect_right(starts, offset) - 1, bisect_right(starts, offset + len(part) - 1) - 1
            yield _Piece(self._path, part, run[first].page, run[last].page, False)

    def _rows(self, table: str) -> Iterator[str]:
        """Parts of a table that fit, each under the header row."""
        lines = table.split("\n")
        header = "\n".join(lines[:2]) + "\n" if len(lines) > 2 and _RULE.fullmatch(lines[1].strip()) else ""
        room = self._capacity - (self._count(header) if header else 0)
        if room < self._capacity // 2:  # so wide that repeating it would leave no room for rows
            header, room = "", self._capacity
        part: list[str] = []
        used = 0
        for line in lines[2:] if header else lines:
            for row in self._row(line, room):
                tokens = self._count(row) + 1
                if part and used + tokens > room:
                    yield header + "\n".join(part)
                    part, used = [], 0
                part.append(row)
                used += tokens
        if part:
            yield header + "\n".join(part)

    def _row(self, line: str, room: int) -> list[str]:
        if self._count(line) < room:
            return [line]
        from semantic_text_splitter import TextSplitter

        return TextSplitter.from_callback(self._count, room - 1).chunks(line)


def _merged(pieces: Iterable[_Piece], capacity: int, count: CountTokens) -> Iterator[_Piece]:
    """Neighbouring whole sections in one piece, while it is less than half full and the next one fits."""
    group: list[_Piece] = []
    joined: _Piece | None = None
    for piece in pieces:
        if joined is not None and piece.whole and joined.whole and _tokens(joined, count) < capacity // 2:
            larger = _join([*group, piece])
            if _tokens(larger, count) <= capacity:
                group.append(piece)
                joined = larger
                continue
        if joined is not None:
            yield joined
        group, joined = [piece], piece
    if joined is not None:
        yield joined


def _tokens(piece: _Piece, count: CountTokens) -> int:
    return count(PATH_SEPARATOR.join(piece.path)) + 2 + count(piece.text) if piece.path else count(piece.text)


def _shared(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, ...]:
    """The beginning that two paths share."""
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    return tuple(title for title, _ in same)


def _join(group: Sequence[_Piece]) -> _Piece:
    """Sections under the headings they share; their own stand as Markdown headings in the text."""
    shared = functools.reduce(_shared, [piece.path for piece in group])
    texts: list[str] = []
    above: tuple[str, ...] = ()
    for piece in group:
        own = piece.path[len(shared) :]
        known = len(_shared(own, above))
        headings = [f"{'#' * min(6, len(shared) + n + 1)} {own[n]}" for n in range(known, len(own))]
        texts.append("\n\n".join([*headings, piece.text]))
        above = own
    pages = [page for piece in group for page in (piece.first_page, piece.last_page) if page is not None]
    return _Piece(shared, "\n\n".join(texts), min(pages, default=None), max(pages, default=None), True)
