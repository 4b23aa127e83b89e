"""Where a text holds the words of a query, whatever their form, and the passage that holds most of them."""

import re
from dataclasses import dataclass
from typing import Final

from neuroedge.kit.words import DEFAULT_LANGUAGE, words

DEFAULT_WINDOW_CHARS: Final = 240
_RUN: Final = re.compile(r"[^\W_]+")
Offsets = tuple[int, int]
"""[start, end) in characters of the text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A part of a text worth showing; `spans` lie inside it and count from the start of the whole text."""

    start: int
    end: int
    spans: list[Offsets]


def highlights(query: str, text: str, *, language: str = DEFAULT_LANGUAGE) -> list[Offsets]:
    """Words of `text` with the stem of a word of `query`, in order; stop words are no words. Empty without any."""
    return [span for span, _ in _matches(query, text, language)]


def best_window(
    query: str, text: str, *, max_chars: int = DEFAULT_WINDOW_CHARS, language: str = DEFAULT_LANGUAGE
) -> Window:
    """The stretch of at most `max_chars` characters with the most different query words, then the most words.

    The first of equal ones; the beginning of the text when none of the words is there. It begins and ends with whole
    words, unless one word alone is longer. Raises ValueError for less than one character.
    """
    if max_chars < 1:
        raise ValueError(f"a window needs at least one character, not {max_chars}")
    found = _matches(query, text, language)
    best: tuple[int, int] = (0, 0)
    first, last = 0, 0
    end = 0
    for i, ((start, _), _) in enumerate(found):
        end = max(end, i)
        while end < len(found) and found[end][0][1] - start <= max_chars:
            end += 1
        inside = found[i:end]
        worth = (len({stem for _, stem in inside}), len(inside))
        if worth > best:
            best, first, last = worth, i, end
    spans = [span for span, _ in found[first:last]]
    core = (spans[0][0], spans[-1][1]) if spans else (0, 0)
    start, stop = _widened(text, core, max_chars)
    return Window(start=start, end=stop, spans=[s for s, _ in found if start <= s[0] and s[1] <= stop])


def _matches(query: str, text: str, language: str) -> list[tuple[Offsets, str]]:
    wanted = set(words(query, language=language))
    found = []
    for run in _RUN.finditer(text):
        for stem in words(run[0], language=language)[:1]:
            if stem in wanted:
                found.append((run.span(), stem))
    return found


def _widened(text: str, core: Offsets, max_chars: int) -> Offsets:
    """`core` with equal context on both sides as far as the text and `max_chars` go, cut back to whole words."""
    spare = max(0, max_chars - (core[1] - core[0]))
    start = max(0, min(core[0] - spare // 2, len(text) - max_chars))
    stop = min(len(text), start + max_chars)
    if start > 0 and not text[start - 1].isspace():
        start = text.find(" ", start, core[0]) + 1 or start
    if stop < len(text) and not text[stop].isspace() and (space := text.rfind(" ", max(core[1], start), stop)) > start:
        stop = space
    return start, stop
