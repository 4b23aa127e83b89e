"""Cuts a text into short passages whose places in it are known, and a stream of text where a sentence has ended."""

import re
from collections.abc import Iterator
from typing import Final

_END: Final = re.compile(r"[.!?…]+[\"'”’)\]]*(?=\s)|[。！？]+|\n")
"""Where a sentence ends; an abbreviation's full stop is taken for one too."""
_LONGEST_CHARS: Final = 240


def passages(text: str, *, max_chars: int = _LONGEST_CHARS) -> Iterator[tuple[int, int]]:
    """(start, end) of passages that together cover the text: whole sentences up to `max_chars`, longer ones cut at a
    space where there is one."""
    start = at = 0
    for end in _ends(text):
        if end - start > max_chars and at > start:
            yield start, at
            start = at
        while end - start > max_chars:
            cut = text.rfind(" ", start + max_chars // 2, start + max_chars) + 1 or start + max_chars
            yield start, cut
            start = cut
        at = end
    if start < len(text):
        yield start, len(text)


def ended(text: str, *, max_chars: int) -> int:
    """How much of the beginning of a text that still grows are whole sentences; from `max_chars` on, up to the last
    space between two letters, or all of it when there is none."""
    last = 0
    for match in _END.finditer(text):
        last = match.end()
    if last == 0 and len(text) > max_chars:
        spaces = [m.end() for m in re.finditer(r"(?<=[^\W\d_])[,;:]?\s(?=[^\W\d_])", text)]
        return spaces[-1] if spaces else len(text)
    return last


def _ends(text: str) -> Iterator[int]:
    for match in _END.finditer(text):
        yield match.end()
    yield len(text)
