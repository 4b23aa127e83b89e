"""US school grade of an English text by four formulas that look at different things.

Flesch-Kincaid (Kincaid et al. 1975): words a sentence, syllables a word. Dale-Chall (1948): words not on a list of 3000
that fourth-graders know. Spache (revised 1974): the same for the first grades. SMOG (McLaughlin 1969): words of three
and more syllables. The list is that of the package `textstat` (MIT); Spache is counted with it too, its own list being
unfree. Inflections of a listed word, names and numbers count as known, as Dale and Chall's instructions have it.
Syllables: vowel groups with English exceptions (docs/engines/grade_adaptation.md: how often that is right).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Final

FORMULAS: Final = ("flesch_kincaid", "dale_chall", "spache", "smog")
MIN_WORDS: Final = 30
"""Below it a formula's grade says little."""
USUAL_WORDS: Final = 100
"""The formulas were made for passages of at least this length."""
GRADES: Final = (0.0, 18.0)
_WORD: Final = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*|\d+(?:[.,:]\d+)*")
_END: Final = re.compile(r"([.!?…]+[\"'”’)\]]*)(?=\s|$)|\n\s*\n")
_ABBREVIATIONS: Final = frozenset(
    [
        "mr",
        "mrs",
        "ms",
        "dr",
        "prof",
        "sr",
        "jr",
        "st",
        "gen",
        "col",
        "capt",
        "lt",
        "rev",
        "hon",
        "vs",
        "etc",
        "e.g",
        "i.e",
        "cf",
        "no",
        "fig",
        "vol",
        "p",
        "pp",
        "ed",
        "a.m",
        "p.m",
        "u.s",
    ]
)
_DALE_CHALL_GRADES: Final = (
    (0.0, 1.0),
    (4.9, 4.0),
    (5.5, 5.5),
    (6.5, 7.5),
    (7.5, 9.5),
    (8.5, 11.5),
    (9.5, 14.0),
    (10.0, 16.0),
)
"""Raw score and grade: the middle of each published band (1948), joined by lines."""
_VOWELS: Final = re.compile(r"[aeiouy]+")
_ONE_MORE: Final = re.compile(
    r"(?:[^aeioucstg]ia(?!n?g|ge)|[^aeiouqgcst]ua|(?<![cgstxln])io(?!u)|ying$|creat|[aeiou]ing|(?<![cgstx])ious"
    r"|[^cst]ien(?=[ct])|iety|eo(?=l|m|n(?!s?$)|s)|[bcdfgkpstz]le[sd]?$|isms?$|[^aeiou]iu|ier$|iest$|uou|oet|rea(?=l|t[eio])"
    r"|[a-z]{3}sm$|[aeiou]ist|[^aeiou]ieness)"
)
"""Vowels that meet without being one syllable: di-al, cre-ate, go-ing; and l or m that carries one: ta-ble."""
_ONE_LESS: Final = re.compile(
    r"(?:[^aeioulrdti]e(?:ly|ness)|ately|ically|[^aeiou]e$|(?<![tdi])ed$|(?<![cgsxzi])(?<!sh)(?<!ch)es$|[a-z]eful|eless"
    r"|(?<!l)ement|(?:ever|some|more|there|fore|side|safe|life|like|home|house|care|note|stake)(?=[bcdfghklmnpqrstvwz])"
    r"|gue$|que$)"
)
"""Silent e, at the end and inside compounds."""


_COMMONEST: Final = frozenset(
    [
        "the",
        "of",
        "and",
        "to",
        "a",
        "in",
        "is",
        "it",
        "you",
        "that",
        "he",
        "was",
        "for",
        "on",
        "are",
        "with",
        "as",
        "i",
        "his",
        "they",
        "be",
        "at",
        "one",
        "have",
        "this",
        "from",
        "or",
        "had",
        "by",
        "but",
        "not",
        "what",
        "all",
        "were",
        "we",
        "when",
        "your",
        "can",
        "said",
        "there",
        "an",
        "which",
        "she",
        "do",
        "how",
        "their",
        "if",
        "will",
        "so",
        "would",
        "her",
        "him",
        "has",
        "my",
        "no",
    ]
)
_COMMONEST_SHARE: Final = 0.15


@dataclass(frozen=True, slots=True, kw_only=True)
class Readability:
    """Grades by formula, their median, and what they were counted from."""

    grades: dict[str, float]
    grade: float
    words: int
    sentences: int

    @property
    def spread(self) -> float:
        """Highest less lowest grade."""
        return max(self.grades.values()) - min(self.grades.values())


def readability(text: str) -> Readability | None:
    """The grades of a text; None for one without words."""
    found = [words_of(s) for s in split_sentences(text)]
    found = [s for s in found if s]
    every = [word for sentence in found for word in sentence]
    if not every:
        return None
    counts = [syllables(word) for word in every]
    per_sentence = len(every) / len(found)
    unknown = 100 * sum(unfamiliar(s) for s in found) / len(every)
    raw = 0.1579 * unknown + 0.0496 * per_sentence + (3.6365 if unknown > 5 else 0.0)
    hard = sum(n >= 3 for n in counts)
    grades = {
        "flesch_kincaid": 0.39 * per_sentence + 11.8 * sum(counts) / len(every) - 15.59,
        "dale_chall": _interpolated(raw),
        "spache": 0.141 * per_sentence + 0.086 * unknown + 0.839,
        "smog": 1.043 * (30 * hard / len(found)) ** 0.5 + 3.1291,
    }
    kept = {name: min(max(g, GRADES[0]), GRADES[1]) for name, g in grades.items()}
    return Readability(grades=kept, grade=median(kept.values()), words=len(every), sentences=len(found))


def looks_english(text: str) -> bool:
    """Whether the commonest English words make up as much of a text as they do of English; True below ten words."""
    found = [word.lower() for word in _WORD.findall(text[:20_000])]
    return len(found) < 10 or sum(word in _COMMONEST for word in found) >= _COMMONEST_SHARE * len(found)


def split_sentences(text: str) -> list[str]:
    """Sentences with their signs; titles and common abbreviations do not end one."""
    found, start = [], 0
    for m in _END.finditer(text):
        before = text[max(start, m.start() - 12) : m.start()].rsplit(None, 1)
        last = before[-1].lower().lstrip("(\"'“") if before else ""
        if m[0] == "." and (last in _ABBREVIATIONS or (len(last) == 1 and last.isalpha() and last != "i")):
            continue
        found.append(text[start : m.end()].strip())
        start = m.end()
    return [s for s in (*found, text[start:].strip()) if s]


def words_of(sentence: str) -> list[str]:
    """Words and numbers of a sentence, as written."""
    return _WORD.findall(sentence)


def unfamiliar(sentence: Sequence[str]) -> int:
    """How many words of a sentence are not on the list; names inside it and numbers are known."""
    known = familiar_words()
    return sum(
        not (word[0].isdigit() or (i > 0 and word[0].isupper()) or any(base in known for base in _bases(word.lower())))
        for i, word in enumerate(sentence)
    )


@lru_cache(maxsize=1)
def familiar_words() -> frozenset[str]:
    """The list of familiar words, read from the package that carries it without loading the package's code."""
    from importlib.util import find_spec

    spec = find_spec("textstat")
    if spec is None or spec.origin is None:
        raise ImportError("the package textstat, which carries the list of familiar words, is not installed")
    path = Path(spec.origin).parent / "resources" / "en" / "easy_words.txt"
    return frozenset(path.read_text(encoding="utf-8").lower().split())


def _bases(word: str) -> list[str]:
    """A word and what it may be an inflection of: plural, possessive, past, -ing, comparison, -ly, -n't."""
    word = word.replace("’", "'")
    found = [word]
    for ending in ("'s", "s'", "n't", "'ll", "'re", "'ve", "'d", "'m"):
        if word.endswith(ending):
            found.append(word.removesuffix(ending))
    for ending, others in _ENDINGS:
        if len(word) > len(ending) + 2 and word.endswith(ending):
            stem = word.removesuffix(ending)
            found += [stem + other for other in others]
            if len(stem) > 2 and stem[-1] == stem[-2]:
                found.append(stem[:-1])
    if "-" in word and all(any(b in familiar_words() for b in _bases(part)) for part in word.split("-") if part):
        found.append(next(part for part in word.split("-") if part))
    return found


_ENDINGS: Final = (
    ("ies", ("y",)),
    ("ied", ("y",)),
    ("ier", ("y",)),
    ("iest", ("y",)),
    ("ily", ("y",)),
    ("es", ("",)),
    ("s", ("",)),
    ("ed", ("", "e")),
    ("ing", ("", "e")),
    ("er", ("", "e")),
    ("est", ("", "e")),
    ("ly", ("",)),
)


@lru_cache(maxsize=65_536)
def syllables(word: str) -> int:
    """Syllables of an English word, at least one; a number's digits one each."""
    if word[0].isdigit():
        return sum(c.isdigit() for c in word)
    return sum(_in_part(part) for part in re.split(r"['’-]", word.lower()) if part) or 1


def _in_part(part: str) -> int:
    if part in ("s", "t", "d", "m", "ll", "re", "ve"):
        return 0
    groups = len(_VOWELS.findall(part))
    return max(1, groups + len(_ONE_MORE.findall(part)) - len(_ONE_LESS.findall(part)))


def _interpolated(raw: float) -> float:
    points = _DALE_CHALL_GRADES
    for (x0, y0), (x1, y1) in pairwise(points):
        if raw <= x1:
            return y0 + (raw - x0) / (x1 - x0) * (y1 - y0)
    return points[-1][1]
