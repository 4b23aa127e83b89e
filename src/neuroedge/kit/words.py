"""What keyword search takes for a word: the same analysis for what is remembered and for what is asked.

Method: Unicode NFKC and case folding, runs of letters and digits, Lucene's English stop words, Snowball stems (Porter
2001). Other languages are stemmed as they are asked for; a language without a stemmer keeps its words whole.
"""

import re
import threading
import unicodedata
from functools import lru_cache
from typing import Any, Final

import snowballstemmer

DEFAULT_LANGUAGE: Final = "english"
MAX_WORD_CHARS: Final = 64
"""A longer run of letters is data (base64, a hash); its beginning stands for it."""
STOP_WORDS: Final = frozenset(
    [
        "a",
        "an",
        "and",
        "are",
        "as",
        "at",
        "be",
        "but",
        "by",
        "for",
        "if",
        "in",
        "into",
        "is",
        "it",
        "no",
        "not",
        "of",
        "on",
        "or",
        "such",
        "that",
        "the",
        "their",
        "then",
        "there",
        "these",
        "they",
        "this",
        "to",
        "was",
        "will",
        "with",
    ]
)
"""Of Lucene's EnglishAnalyzer."""
_of_thread: Final = threading.local()
"""Stemmers: one is not to be used by two threads at once."""
_RUN: Final = re.compile(r"[^\W_]+")


def words(text: str, *, language: str = DEFAULT_LANGUAGE) -> list[str]:
    """The stems of `text` in order, repeated ones repeated; none for a text without letters and digits."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    found = (run[:MAX_WORD_CHARS] for run in _RUN.findall(folded))
    return [_stem(word, language) for word in found if language != DEFAULT_LANGUAGE or word not in STOP_WORDS]


def languages() -> list[str]:
    """Languages that have a stemmer."""
    return list(snowballstemmer.algorithms())


@lru_cache(maxsize=65_536)
def _stem(word: str, language: str) -> str:
    stemmer = _stemmer(language)
    return word if stemmer is None else str(stemmer.stemWord(word))


def _stemmer(language: str) -> Any:
    kept: dict[str, Any] = _of_thread.__dict__
    if language not in kept:
        kept[language] = snowballstemmer.stemmer(language) if language in languages() else None
    return kept[language]
