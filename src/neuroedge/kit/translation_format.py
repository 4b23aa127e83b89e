"""What of a text is to be translated and what has to stay: Markdown, placeholders, URLs, code, terms, numbers.

A text is cut without loss into pieces that are kept and pieces that are translated. In those, what must stay is
replaced by marks, which a translator copies or loses; where it loses one, the pieces between them can be translated
alone, so that nothing is lost in the end.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from neuroedge.kit.passages import passages
from neuroedge.kit.sentence_spans import sentence_spans

_LONGEST_CHARS: Final = 600
_FENCE: Final = re.compile(r"^\s*(```|~~~)")
_LEAD: Final = re.compile(r"^\s*(?:(?:#{1,6}|>|[-*+•]|\d{1,3}[.)]|\[[ xX]\])\s+)*")
_KEPT: Final = re.compile(
    r"```.+?```|`[^`\n]+`|\$\$[^$\n]+\$\$|\$[^$\s][^$\n]*\$"  # code and formulas
    r"|\]\([^)\s]+\)|!?\[(?=[^\]\n]*\]\()"  # the parts of a link around its text
    r"|https?://[^\s<>\"')\]]*[^\s<>\"')\].,;:!?]|www\.[^\s<>\"')\]]*[^\s<>\"')\].,;:!?]"
    r"|[\w.+-]+@[\w-]+\.[\w.-]*\w"  # mail addresses
    r"|</?[A-Za-z][^<>\n]{0,200}>|&[a-z]{2,8};"
    r"|\{\{[^{}\n]{0,100}\}\}|\$\{[^{}\n]{1,100}\}|\{[^{}\n]{0,100}\}|%\([A-Za-z_]\w*\)[sdf]|%[sdif]\b"
    r"|\*\*\*|\*\*|(?<!\w)__(?=\w)|(?<=\w)__(?!\w)|~~|(?<!\w)\*(?=\w)|(?<=\w)\*(?!\w)|\|"
)
_NUMBER: Final = re.compile(r"\d+(?:[.,\u066b\u066c]\d+)*")


@dataclass(frozen=True, slots=True)
class TextPart:
    """A part of a text; all parts joined are the text."""

    text: str
    translate: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ForcedTerm:
    """A term and what it has to be in the translation."""

    source: str
    target: str


@dataclass(frozen=True, slots=True)
class Kept:
    """What stands for a mark: what is put in its place, and which term it is, if it is one."""

    text: str
    term: int | None = None


@dataclass(frozen=True, slots=True)
class Masked:
    """A part with marks: texts [n + 1] around the kept things [n]."""

    between: tuple[str, ...]
    kept: tuple[Kept, ...]

    def marked(self, mark: str) -> str:
        """The text to translate; `mark` holds {n}. A mark that touches a word gets a space, to be a word of its own."""
        pieces = [self.between[0]]
        for n, after in enumerate(self.between[1:]):
            left, right = self._touches(n)
            pieces += [" " * left, mark.format(n=n), " " * right, after]
        return "".join(pieces)

    def restored(self, translated: str, mark: str) -> str | None:
        """The translation with the kept things in the marks' places; None unless each mark is there once."""
        number = re.escape(mark).replace(re.escape("{n}"), r"(\d+)")
        found = Counter(int(n) for n in re.findall(number, translated))
        if found != Counter(range(len(self.kept))):
            return None

        def put(match: re.Match[str]) -> str:
            n = int(match.group(2))
            left, right = self._touches(n)
            return ("" if left else match.group(1)) + self.kept[n].text + ("" if right else match.group(3))

        # A space between two marks belongs to the second one, so that each may decide on its own.
        follows = number.replace("(", "(?:")
        return re.sub(rf"( ?){number}((?: (?!{follows}))?)", put, translated)

    def _touches(self, n: int) -> tuple[bool, bool]:
        """Whether the thing touches a word before it, and after it."""
        return self.between[n][-1:].isalnum(), self.between[n + 1][:1].isalnum()


def parts(text: str, *, sentences: bool) -> Iterator[TextPart]:
    """Lossless parts: fenced code, blank lines, list and heading marks and cells' bars are kept.

    `sentences`: what is translated is one sentence at a time, else a line; longer ones are cut.
    """
    fenced = False
    for line in text.splitlines(keepends=True):
        if _FENCE.match(line):
            fenced = not fenced
            yield TextPart(line, False)
        elif fenced or not any(c.isalpha() for c in line):
            yield TextPart(line, False)
        else:
            lead = _LEAD.match(line)
            begin = lead.end() if lead else 0
            yield from _kept(line[:begin])
            for cell in re.split(r"(\|)", line[begin:]) if line.lstrip().startswith("|") else [line[begin:]]:
                yield from _line(cell, sentences)


def _line(line: str, sentences: bool) -> Iterator[TextPart]:
    spans = sentence_spans(line) if sentences else passages(line, max_chars=_LONGEST_CHARS)
    at = 0
    for start, end in spans:
        yield from _kept(line[at:start])
        for first, last in passages(line[start:end], max_chars=_LONGEST_CHARS):
            yield from _trimmed(line[start + first : start + last])
        at = end
    yield from _kept(line[at:])


def _trimmed(text: str) -> Iterator[TextPart]:
    """The space around a text is kept."""
    inner = text.strip()
    if not any(c.isalpha() for c in inner):
        yield from _kept(text)
        return
    begin = text.index(inner)
    yield from _kept(text[:begin])
    yield TextPart(inner, True)
    yield from _kept(text[begin + len(inner) :])


def _kept(text: str) -> Iterator[TextPart]:
    if text:
        yield TextPart(text, False)


def masked(text: str, terms: Sequence[ForcedTerm]) -> Masked:
    """A text with what has to stay, or to become a term's target, taken out."""
    spans = [(m.start(), m.end(), Kept(m.group())) for m in _KEPT.finditer(text)]
    for start, end, number in _terms_in(text, terms):
        if all(end <= s or start >= e for s, e, _ in spans):
            spans.append((start, end, Kept(terms[number].target, number)))
    between, kept, at = list[str](), list[Kept](), 0
    for start, end, thing in sorted(spans, key=lambda span: span[0]):
        between.append(text[at:start])
        kept.append(thing)
        at = end
    return Masked((*between, text[at:]), tuple(kept))


def _terms_in(text: str, terms: Sequence[ForcedTerm]) -> Iterator[tuple[int, int, int]]:
    if not terms:
        return
    by_word = {term.source.casefold(): n for n, term in reversed(list(enumerate(terms)))}
    longest_first = sorted(by_word, key=len, reverse=True)
    pattern = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)", re.IGNORECASE)
    for match in pattern.finditer(text):
        number = by_word.get(match.group().casefold())
        if number is not None:
            yield match.start(), match.end(), number


def numbers(text: str) -> Counter[str]:
    """The numbers of a text as plain digits, whatever the script: ४२ is 42, and 1,000 is 1000."""
    plain = "".join(str(unicodedata.digit(c)) if c.isdigit() and not c.isascii() else c for c in text)
    return Counter(re.sub(r"\D", "", m.group()) for m in _NUMBER.finditer(plain))


def numbers_lost(source: str, target: str) -> list[str]:
    """Numbers of the source that the target does not hold as often."""
    missing: Mapping[str, int] = numbers(source) - numbers(target)
    return list(missing)
