"""Where sentences stand: after full stops but those of abbreviations, dandas, ideographic stops, blank lines."""

import re
from typing import Final

_END: Final = re.compile(r"[.!?…]+[\"'”’»)\]]*(?=\s|$)|[।॥。！？]+[”’」』)]*|\n\s*\n|\n(?=\s*(?:[-*•]|\d+[.)])\s)")
_ABBREVIATION: Final = re.compile(
    r"(?:\b(?:Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|vs|etc|al|Fig|Figs|Eq|Sec|No|Nos|vol|pp|cf|approx|ca|bzw|Nr|z|d|Co|Inc|Ltd|Jan|"
    r"Feb|Mar|Apr|Jun|Jul|Aug|Sep|Sept|Oct|Nov|Dec)|(?:^|[\s(.])[^\W\d_]|\be\.g|\bi\.e)\.$"
)
_LOOK_BACK: Final = 12


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """(start, end) of each sentence without the space around it, in order; none for blank text.

    A full stop after a known abbreviation or a single letter ends no sentence, unless a blank line follows.
    """
    found, start = list[tuple[int, int]](), 0
    for match in _END.finditer(text):
        end = match.end()
        if match.group() == "." and _ABBREVIATION.search(text[max(start, end - _LOOK_BACK) : end]):
            continue
        _add(found, text, start, end)
        start = end
    _add(found, text, start, len(text))
    return found


def _add(found: list[tuple[int, int]], text: str, start: int, end: int) -> None:
    inside = text[start:end]
    if any(c.isalnum() for c in inside):
        left = len(inside) - len(inside.lstrip())
        found.append((start + left, start + len(inside.rstrip())))
