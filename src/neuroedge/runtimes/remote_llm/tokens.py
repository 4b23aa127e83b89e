"""How many tokens a text takes at most, where the vocabulary is not known.

Vendors' vocabularies are fetched over the network or not published, so this counts what byte-pair encodings make of
text at their worst in practice: three letters of a Latin word, a digit and the space before it, a sign, half a Chinese
character, a byte of other scripts and of emoji each a token. English prose comes out half as large again as it is,
other scripts up to three times; text that is no language at all (random letters) can still take more.
"""

import re
from typing import Final, TypedDict

LETTERS_PER_TOKEN: Final = 3
_LETTERS: Final = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
_SIGNS: Final = re.compile(r"[\x21-\x40\x5b-\x60\x7b-\x7e]|[\t\n\r]+| {2,}| (?=[0-9])")
_OTHERS: Final = re.compile(r"[^\x00-\x7f]+")
_IDEOGRAMS: Final = re.compile("[\u3000-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef]")


class Counts(TypedDict, total=False):
    """What a provider tells of a call so far, as ChatDelta has it."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int


def tokens_at_most(text: str) -> int:
    """An upper estimate."""
    words = sum(-(-len(word) // LETTERS_PER_TOKEN) for word in _LETTERS.findall(text))
    signs = len(_SIGNS.findall(text))
    return words + signs + sum(_of_others(part) for part in _OTHERS.findall(text))


def _of_others(part: str) -> int:
    """Accented Latin, Greek and Cyrillic letters take two bytes and one token, at most."""
    ideograms = len(_IDEOGRAMS.findall(part))
    two_bytes = sum("\x80" <= c <= "\u07ff" for c in part)
    return len(part.encode("utf-8", "replace")) - ideograms - two_bytes
