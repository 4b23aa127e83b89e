"""Names speakers give themselves: "this is Diane", "my name is Peter", "Anna speaking".

Diarization knows speakers as S1, S2 …, listeners know them by name; a reader who has the names resolves "I". Only what
a speaker says about themself counts, so a name that others call out is never taken for the speaker's.

Limits: English wording and a recogniser that writes capitals. "I'm" also introduces origins and beliefs ("I'm
German"), so it counts only where nothing more certain was said.
"""

import re
from collections import Counter
from collections.abc import Iterable
from typing import Final

_NAME: Final = r"([A-Z][a-z]+)\b"
_CERTAIN: Final = re.compile(rf"\b(?:[Tt]his is|[Mm]y name is|[Mm]y name's) {_NAME}|\b{_NAME} (?:speaking|here)[.,!]")
_LIKELY: Final = re.compile(rf"\bI(?:'m|’m| am) {_NAME}")
_CERTAIN_WEIGHT: Final = 10


def introductions(turns: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Name of each speaker who introduces themself, from (speaker, text) turns.

    A speaker who says two names equally often, and a name that two speakers claim, stay unnamed.
    """
    votes: dict[str, Counter[str]] = {}
    for speaker, text in turns:
        mine = votes.setdefault(speaker, Counter())
        for first, second in _CERTAIN.findall(text):
            mine[first or second] += _CERTAIN_WEIGHT
        mine.update(_LIKELY.findall(text))
    named = {speaker: name for speaker, mine in votes.items() if (name := _winner(mine))}
    claims = Counter(named.values())
    return {speaker: name for speaker, name in named.items() if claims[name] == 1}


def _winner(votes: Counter[str]) -> str | None:
    best = votes.most_common(2)
    if not best or (len(best) == 2 and best[0][1] == best[1][1]):
        return None
    return best[0][0]
