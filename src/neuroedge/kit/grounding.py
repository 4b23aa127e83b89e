"""Is an answer told by the excerpts it was made from? Word, number and name checks without any model.

Attributing each sentence of an answer to a source and dropping what no source supports follows the "attributable to
identified sources" frame (Rashkin et al. 2023); the expected kind of answer is taken from the question's wording
(Li & Roth 2002). Semantic nearness comes in as vectors the caller made.

Limits: the word lists are English; other languages get the number, name and vector checks only. A sentence built from
the excerpt's words in a wrong relation passes here: that needs a reader (see engines/language/chat.py).
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def _words(text: str) -> list[str]:
    return text.split()


_UNITS: Final = _words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
    " eighteen nineteen"
)
_ORDINAL_UNITS: Final = _words(
    "- - - - fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth"
    " fifteenth sixteenth seventeenth eighteenth nineteenth"
)
_TENS: Final = _words("twenty thirty forty fifty sixty seventy eighty ninety")
# Dates are said as ordinals and written as digits; first, second and third are more often a rank than a date, and
# "the second floor" must not be supported by "two bedrooms".
_SMALL: Final = {
    **{word: i for words in (_UNITS, _ORDINAL_UNITS) for i, word in enumerate(words) if word != "-"},
    **{word: 20 + 10 * i for i, word in enumerate(_TENS)},
    **{word[:-1] + "ieth": 20 + 10 * i for i, word in enumerate(_TENS)},
}
_SCALES: Final = {"hundred": 100, "thousand": 1000, "million": 1_000_000}
_MULTIPLES: Final = frozenset({"once", "twice", "half", "dozen", "never", "free", "no"})
_FUNCTION_WORDS: Final = frozenset(
    _words(
        "a an the of in on at by for from with without about into over under to is are was were be been being am do"
        " does did done have has had having will would can could shall should may might must i you he she it we they me"
        " him her us them my your his its our their this that these those there here what which who whom whose when"
        " where why how and or but if then so as than not yes no okay oh well also just now very too because s t re ve"
        " ll d m"
    )
)
_TOKEN: Final = re.compile(r"(\d+(?:[.,]\d+)*)(?:st|nd|rd|th)?(?![^\W_])|([^\W_]+)")
_WORD: Final = re.compile(r"\w+")
_SENTENCE_END: Final = re.compile(r"(?<=[.!?])\s+(?=[^\s])")
_QUANTITY: Final = re.compile(r"\bhow (?:many|much|old|long|often|far|tall|big|heavy)\b", re.IGNORECASE)
_NAME: Final = re.compile(r"\bwh(?:at|ich)\b.*\bnames?\b|^\s*who\b|\bwhose\b", re.IGNORECASE)
Kind = Literal["number", "name"]
MIN_RELEVANCE: Final = 0.3
"""Cosine of question and sentence, unless they share a word: below it the sentence answers something else."""


def sentences(text: str) -> list[str]:
    """The sentences of `text`, without surrounding space; none for blank text."""
    return [s.strip() for s in _SENTENCE_END.split(text.strip()) if s.strip()]


def tokens(text: str) -> list[str]:
    """Lower-case words and numbers; spelled-out numbers as digits ("forty thousand" → "40000", "14th" → "14")."""
    found: list[str] = []
    number: int | None = None
    for digits, letters in _TOKEN.findall(text.lower()):
        word = digits or letters
        if word in _SCALES and number is not None:
            number *= _SCALES[word]
        elif word in _SMALL and number is not None and _joins(number, _SMALL[word]):
            number += _SMALL[word]
        else:
            if number is not None:
                found.append(str(number))
            number = _SMALL.get(word)
            if number is None:
                found.append(word.replace(",", "") if word[0].isdigit() else word)
    return found if number is None else [*found, str(number)]


def stem(word: str) -> str:
    """`word` without its inflection, roughly: "lives" and "living" meet, "number" stays itself."""
    for suffix in ("ings", "ing", "edly", "ied", "ed", "ies", "es", "ly", "s", "e", "y"):
        if word.endswith(suffix) and len(word) - len(suffix) >= 3:
            root = word[: -len(suffix)]
            return root[:-1] if len(root) > 3 and root[-1] == root[-2] else root
    return word


def content_stems(text: str) -> list[str]:
    """Stems of the words that carry meaning, numbers included, in order."""
    return [stem(word) for word in tokens(text) if word not in _FUNCTION_WORDS]


def coverage(of: str, by: str) -> float:
    """Share of the content words of `of` that `by` holds, 0..1; 1 when there is none to hold."""
    wanted = content_stems(of)
    held = {stem(word) for word in tokens(by)}
    return sum(word in held for word in wanted) / len(wanted) if wanted else 1.0


def shares_words(a: str, b: str) -> bool:
    """Whether the two texts have a content word in common."""
    return not set(content_stems(a)).isdisjoint(content_stems(b))


def new_words(sentence: str, *, question: str) -> list[str]:
    """Stems a `sentence` adds to the `question`: what has to come from the excerpts."""
    asked = set(content_stems(question))
    return [word for word in content_stems(sentence) if word not in asked]


def invented(sentence: str, *, question: str, source: str) -> list[str]:
    """Numbers and capitalised names of `sentence` that neither the `question` nor the `source` holds."""
    known = tokens(f"{question} {source}")
    names = [match.lower() for match in re.findall(r"(?<!^)\b[A-Z][^\W\d_]+", sentence)]
    stems = {stem(word) for word in known}
    missing = [name for name in names if name not in _SMALL and name not in known and stem(name) not in stems]
    numbers = [token for token in tokens(sentence) if token[0].isdigit()]
    return missing + [number for number in numbers if not _holds_number(known, number)]


def expected_kind(question: str) -> Kind | None:
    """What the answer to `question` has to hold: a number, a name, or anything."""
    if _QUANTITY.search(question):
        return "number"
    return "name" if _NAME.search(question) else None


def holds(kind: Kind | None, sentence: str, *, question: str) -> bool:
    """Whether `sentence` holds something of the `kind` asked for that is not in the `question` already."""
    if kind == "number":
        return any(token[0].isdigit() or token in _MULTIPLES for token in tokens(sentence))
    if kind == "name":
        asked = set(tokens(question))
        return any(word.lower() not in asked for word in re.findall(r"\b[A-Z]\w*", _uncapitalised(sentence)))
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """An excerpt: the words said, who said them (a name, a label or nothing), and the words said right before."""

    said: str
    who: str = ""
    before: str = ""

    @property
    def line(self) -> str:
        """The excerpt as one reads it, with its speaker."""
        return f"{self.who}: {self.said}" if self.who else self.said


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A sentence of an answer with the excerpt that supports it best."""

    sentence: str
    excerpt: int
    """Index of that excerpt."""
    coverage: float
    """Share of the sentence's new content words that were said there or right before."""
    invented: list[str]
    """Numbers and names that neither the question nor those words hold."""
    asked: float
    """Share of the question's content words in that line or right before."""
    nearness: float
    """Cosine of question and excerpt."""


def attribute(
    sentence: str, vector: Floats, *, question: str, asked: Floats, sources: Sequence[Source], vectors: Floats
) -> Claim:
    """Find the source that supports `sentence` best: its new words, the question's words, nearness of meaning.

    `vector` [dim] belongs to `sentence`, `asked` [dim] to `question`, `vectors` [n, dim] to the lines of `sources`
    [n], all L2-normalised. New words must have been said: that somebody speaks proves nothing about them, so their
    name counts only where it was said too.
    """
    added, wanted = new_words(sentence, question=question), content_stems(question)
    scores = [
        _share(added, source.said)
        + 0.5 * float(near)
        + 0.25 * _share(wanted, source.line)
        + 0.25 * _share(wanted, f"{source.before} {source.line}")
        for source, near in zip(sources, vectors @ vector, strict=True)
    ]
    best = int(np.argmax(scores))
    source = sources[best]
    return Claim(
        sentence=sentence,
        excerpt=best,
        coverage=_share(_without_speaker(added, source), f"{source.before} {source.said}"),
        invented=invented(sentence, question=question, source=f"{source.before} {source.line}"),
        asked=_share(wanted, f"{source.before} {source.line}"),
        nearness=float(vectors[best] @ asked),
    )


def _without_speaker(added: Sequence[str], source: Source) -> list[str]:
    unsaid = {stem(word) for word in tokens(source.who)} - {stem(w) for w in tokens(f"{source.before} {source.said}")}
    return [word for word in added if word not in unsaid]


def about_another(sentence: str, *, question: str, source: Source, people: Collection[str]) -> bool:
    """Whether `sentence` speaks of other `people` than its source or than the question asks about."""
    told, asked, there = (set(people) & set(_WORD.findall(text)) for text in (sentence, question, source.line))
    return bool(told) and (not told & there or bool(asked and not asked & told))


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """Sources with their vectors [n, dim] and the question with its own [dim], to attribute sentences as they come."""

    question: str
    asked: Floats
    sources: Sequence[Source]
    vectors: Floats
    people: Collection[str]
    """Names of those who speak in the sources."""

    def claims(self, told: Sequence[str], vectors: Floats) -> list[Claim]:
        """Those of the sentences, with their vectors [m, dim], that are about the question, each with its source."""
        claims = [
            attribute(
                each, vector, question=self.question, asked=self.asked, sources=self.sources, vectors=self.vectors
            )
            for each, vector in zip(told, vectors, strict=True)
            if float(vector @ self.asked) >= MIN_RELEVANCE or shares_words(each, self.question)
        ]
        return [c for c in claims if not self._of_another(c)]

    def _of_another(self, claim: Claim) -> bool:
        source = self.sources[claim.excerpt]
        return about_another(claim.sentence, question=self.question, source=source, people=self.people)


def _share(stems: Sequence[str], text: str) -> float:
    if not stems:
        return 0.0
    words = tokens(text)
    held = {stem(word) for word in words}
    return sum(s in held or (s[0].isdigit() and _holds_number(words, s)) for s in stems) / len(stems)


def _joins(number: int, small: int) -> bool:
    """Whether `small` continues a spelled number: twenty + eight, hundred + fourteen, but not seven + one."""
    if number >= 100 and number % 100 == 0:
        return 0 < small < 100
    return number % 100 >= 20 and number % 10 == 0 and 0 < small < 10


def _holds_number(words: Sequence[str], number: str) -> bool:
    """Whether consecutive numbers among `words` spell `number`: "4 7 1 9 2" holds 47192, "20 19" holds 2019."""
    for start, word in enumerate(words):
        spelled = ""
        for part in words[start:] if word[0].isdigit() else ():
            if not part[0].isdigit() or len(spelled) >= len(number):
                break
            spelled += part
            if spelled == number:
                return True
    return False


def _uncapitalised(sentence: str) -> str:
    """The sentence with its first word in lower case when that is a function word."""
    first, _, rest = sentence.partition(" ")
    return f"{first.lower()} {rest}" if first.lower() in _FUNCTION_WORDS else sentence
