"""What a voice is given to say at a time: pronunciations from a lexicon, pieces of whole sentences, times of words."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from neuroedge.kit.passages import passages
from neuroedge.kit.ssml import Part

_WORD: Final = re.compile(r"[^\W_]+(?:['’.\-][^\W_]+)*")
_SPOKEN: Final = re.compile(r"\S*[^\W_]\S*")
_SILENT: Final = frozenset(" \t\n.,;:!?…-–—'\"()[]{}")
_SCRIPTS: Final[Mapping[str, str]] = {
    "ARABIC": "ar",
    "ARMENIAN": "hy",
    "BENGALI": "bn",
    "CJK": "zh",
    "CYRILLIC": "ru",
    "DEVANAGARI": "hi",
    "GEORGIAN": "ka",
    "GREEK": "el",
    "GUJARATI": "gu",
    "GURMUKHI": "pa",
    "HANGUL": "ko",
    "HEBREW": "he",
    "HIRAGANA": "ja",
    "KANNADA": "kn",
    "KATAKANA": "ja",
    "MALAYALAM": "ml",
    "ORIYA": "or",
    "SINHALA": "si",
    "TAMIL": "ta",
    "TELUGU": "te",
    "THAI": "th",
}
"""The most spoken language of a script, by the first word of its characters' Unicode names."""
_LOOKED_AT_CHARS: Final = 2_000


def pronounced(parts: Sequence[Part], lexicon: Mapping[str, str]) -> list[Part]:
    """`parts` with the lexicon's words said as it tells: IPA between slashes, or another spelling.

    Whole words, whatever their case; a pronunciation that stands in the text itself is kept.
    """
    told = {word.casefold(): way for word, way in lexicon.items()}
    if not told:
        return list(parts)
    # The longest first, so that "New York" is found before "New".
    names = "|".join(re.escape(word) for word in sorted(told, key=len, reverse=True))
    pattern = re.compile(rf"(?<![^\W_])(?:{names})(?![^\W_])", re.IGNORECASE)
    said: list[Part] = []
    for part in parts:
        said += [part] if part.ipa is not None else _respelt(part.text, pattern, told)
    return said


def _respelt(text: str, pattern: re.Pattern[str], told: Mapping[str, str]) -> Iterator[Part]:
    at = 0
    for match in pattern.finditer(text):
        if match.start() > at:
            yield Part(text=text[at : match.start()])
        # A letter may fold into two (ß): what the pattern finds is then not a key.
        way = told.get(match[0].casefold(), match[0])
        ipa = way[1:-1].strip() if len(way) > 2 and way[0] == way[-1] == "/" else None
        yield Part(text=match[0], ipa=ipa) if ipa else Part(text=way)
        at = match.end()
    if at < len(text):
        yield Part(text=text[at:])


def utterances(parts: Sequence[Part], *, max_chars: int) -> list[tuple[Part, ...]]:
    """`parts` in pieces of whole sentences of at most `max_chars` where there are such, that hold something to say."""
    text = "".join(part.text for part in parts)
    pieces: list[tuple[Part, ...]] = []
    starts = _starts(parts)
    at = 0
    for _, end in passages(text, max_chars=max_chars):
        # A word with a pronunciation of its own is not cut.
        inside = next(
            (s + len(p.text) for s, p in zip(starts, parts, strict=True) if p.ipa and s < end < s + len(p.text)), end
        )
        if inside > at:
            piece = tuple(_between(parts, starts, at, inside))
            if any(is_spoken(part) for part in piece):
                pieces.append(piece)
            at = inside
    return pieces


def is_spoken(part: Part) -> bool:
    """Whether it holds anything that can be said."""
    return bool(part.ipa) or any(char not in _SILENT and not char.isspace() for char in part.text)


def _starts(parts: Sequence[Part]) -> list[int]:
    starts, at = [], 0
    for part in parts:
        starts.append(at)
        at += len(part.text)
    return starts


def _between(parts: Sequence[Part], starts: Sequence[int], start: int, end: int) -> Iterator[Part]:
    for begins, part in zip(starts, parts, strict=True):
        if begins < end and begins + len(part.text) > start:
            yield Part(text=part.text[max(0, start - begins) : end - begins], ipa=part.ipa)


def spoken_words(parts: Sequence[Part]) -> list[str]:
    """The words of an utterance, with the punctuation that clings to them."""
    return _SPOKEN.findall("".join(part.text for part in parts))


def estimated_times(words: Sequence[str], *, start_s: float, end_s: float) -> list[tuple[float, float]]:
    """When each word is said, if each takes as long as its letters are many, and a stop as long as two more.

    An estimate only: off by tenths of a second within a long sentence.
    """
    weights = [len(word) + 1.0 + 2.0 * (word[-1] in ".,;:!?…") for word in words]
    total, at, times = sum(weights), start_s, []
    for word, weight in zip(words, weights, strict=True):
        took = (end_s - start_s) * weight / total
        times.append((at, at + took * (len(word) + 1.0) / weight))
        at += took
    return times


def language_of_script(text: str) -> str | None:
    """The language most often written in the letters of a text; None for Latin ones, which many share."""
    scripts = Counter(
        unicodedata.name(char, "").partition(" ")[0] for char in text[:_LOOKED_AT_CHARS] if char.isalpha()
    )
    if not scripts:
        return None
    if scripts["HIRAGANA"] + scripts["KATAKANA"] > 0 and not scripts["LATIN"]:
        return "ja"
    return _SCRIPTS.get(scripts.most_common(1)[0][0])


def speaks(languages: Sequence[str], wanted: str | None) -> int:
    """How well a voice of these languages suits the wanted one: 3 exactly, 2 another region of it, 1 any, 0 not."""
    if wanted is None or not languages:
        return 1
    have = [language.lower() for language in languages]
    if wanted.lower() in have:
        return 3
    return 2 if _base(wanted) in {_base(language) for language in have} else 0


def _base(language: str) -> str:
    base = language.lower().partition("-")[0]
    return {"cmn": "zh", "nb": "no"}.get(base, base)


def first_words(text: str, *, first_chars: int, later_chars: int) -> list[str]:
    """A text in pieces of whole sentences, the first one short so that it is soon said."""
    pieces: list[str] = []
    at = 0
    while at < len(text):
        rest = text[at:]
        size = later_chars if pieces else first_chars
        _, end = next(passages(rest, max_chars=size))
        pieces.append(rest[:end])
        at += end
    return pieces
