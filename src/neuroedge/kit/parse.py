"""A text as a parser of language sees it: tokens with their heads, sentences, names. Plain values, no library."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A word or sign; `pos` is a universal part of speech, `tag` a Penn Treebank tag, `dep` a ClearNLP dependency.

    `head` is the index of the token it depends on (its own at the root of a sentence); `start` and `end` are
    characters of the text.
    """

    text: str
    lemma: str
    pos: str
    tag: str
    dep: str
    head: int
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSpan:
    """Tokens from `first` up to, not including, `stop`."""

    first: int
    stop: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NameSpan:
    """A name a recogniser found, with the recogniser's own label."""

    label: str
    first: int
    stop: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedText:
    """The parse of one text."""

    tokens: tuple[Token, ...]
    sentences: tuple[TokenSpan, ...]
    names: tuple[NameSpan, ...]
