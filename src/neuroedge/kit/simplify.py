"""Making an English text easier by rule: plainer words, and long sentences taken apart.

Lexical: pairs of kit/plain_words.py, each only where the plain word is the more frequent one. Syntactic (after
Siddharthan 2006, "Syntactic simplification and text cohesion"): clauses joined by "and", "but", "so" or a semicolon,
each with its own subject, and relative clauses after a comma, become sentences. Quotations, names and numbers are
never touched.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from neuroedge.kit.parse import ParsedText, Token, TokenSpan
from neuroedge.kit.plain_words import PHRASES, article, known_more, plain
from neuroedge.kit.readability import readability

Kind = Literal["phrase", "word", "split"]
_QUOTED: Final = re.compile(r"“[^”]{0,5000}”|\"[^\"]{0,5000}\"|«[^»]{0,5000}»")
_NUMBERS: Final = re.compile(
    r"\d+(?:[.,:/]\d+)*|\b(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|dozen|hundred|thousand|million"
    r"|first|second|third|half|twice)\b",
    re.IGNORECASE,
)
_NEGATIONS: Final = re.compile(
    r"\b(?:no|not|never|none|nothing|nobody|nowhere|neither|nor|cannot|without|hardly|scarcely)\b|n['’]t\b",
    re.IGNORECASE,
)
_SUBJECTS: Final = frozenset({"nsubj", "nsubjpass", "expl", "csubj"})
_JOINERS: Final = {"and": "", "but": "But ", "so": "So "}
MIN_CLAUSE: Final = 3
"""Shorter clauses stay together: taken apart they read worse."""
STEPS: Final = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """Characters `start` to `end` of the original, and what stands there now."""

    kind: Kind
    start: int
    end: int
    after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What must survive, of a text: numbers, negations, quotations, names."""

    numbers: Counter[str]
    negations: Counter[str]
    quotes: tuple[str, ...]
    names: frozenset[str]


def simplified(text: str, parse: ParsedText, *, target: float | None, keep: frozenset[str] = frozenset()) -> list[Edit]:
    """Edits in the order of the text: as few as reach the `target` grade, all where it is None or out of reach.

    `keep`: words, in lower case, that stay. Words are changed before sentences are split, the longest of these first.
    """
    found = _apart([*splits(text, parse), *phrases(text), *words(text, parse, keep)])
    length = {e: e.end - e.start for e in found}
    ranked = sorted(found, key=lambda e: (e.kind == "split", -length[e], e.start))
    if target is None or not ranked:
        return sorted(found, key=lambda e: e.start)
    now = readability(text)
    if now is None or now.grade <= target:
        return []
    for step in range(1, STEPS + 1):
        some = ranked[: -(-len(ranked) * step // STEPS)]
        measured = readability(applied(text, some))
        if measured is not None and measured.grade <= target:
            return sorted(some, key=lambda e: e.start)
    return sorted(ranked, key=lambda e: e.start)


def applied(text: str, edits: Sequence[Edit]) -> str:
    """The text with edits that do not overlap."""
    pieces, at = [], 0
    for edit in sorted(edits, key=lambda e: e.start):
        pieces += [text[at : edit.start], edit.after]
        at = edit.end
    return "".join([*pieces, text[at:]])


def kept(text: str, names: Sequence[str] = ()) -> Kept:
    """What of a text must survive; `names` as they are written in it."""
    return Kept(
        numbers=Counter(m.lower() for m in _NUMBERS.findall(text)),
        negations=Counter(m.lower() for m in _NEGATIONS.findall(text)),
        quotes=tuple(_QUOTED.findall(text)),
        names=frozenset(names),
    )


def lost(before: Kept, after: str) -> list[str]:
    """What did not survive in another text, in words; none when all did."""
    now = kept(after)
    found = []
    if before.numbers != now.numbers:
        found.append(f"numbers changed: {', '.join(_differing(before.numbers, now.numbers))}")
    if before.negations != now.negations:
        found.append(f"negations changed: {', '.join(_differing(before.negations, now.negations))}")
    missing = [quote for quote in before.quotes if quote not in after]
    found += [f"a quotation changed: {quote[:60]}" for quote in missing[:3]]
    gone = sorted(name for name in before.names if name not in after)
    if gone:
        found.append(f"names lost: {', '.join(gone[:5])}")
    return found


def _differing(a: Counter[str], b: Counter[str]) -> list[str]:
    return sorted(((a - b) + (b - a)).keys())[:5]


def name_texts(text: str, parse: ParsedText) -> list[str]:
    """Names of people, places and the like, as written: what the parser found, and proper nouns inside sentences."""
    spans = [text[parse.tokens[n.first].start : parse.tokens[n.stop - 1].end] for n in parse.names if n.label in _NAMES]
    starts = {s.first for s in parse.sentences}
    proper = [
        t.text for i, t in enumerate(parse.tokens) if t.pos == "PROPN" and i not in starts and t.text[0].isupper()
    ]
    return [name for name in dict.fromkeys([*spans, *proper]) if "\n" not in name]


_NAMES: Final = frozenset({"PERSON", "GPE", "LOC", "ORG", "FAC", "NORP", "PRODUCT", "EVENT", "WORK_OF_ART"})


def phrases(text: str) -> Iterator[Edit]:
    """Wordy phrases."""
    quoted = _quoted(text)
    for pattern, short in PHRASES:
        for m in pattern.finditer(text):
            if not _inside(m.start(), m.end(), quoted):
                after = short.capitalize() if m[0][0].isupper() else short
                yield Edit(kind="phrase", start=m.start(), end=m.end(), after=after)


def words(text: str, parse: ParsedText, keep: frozenset[str] = frozenset()) -> Iterator[Edit]:
    """Plain words for rarer ones, with the article before them."""
    quoted = _quoted(text)
    named = {i for n in parse.names if n.label in _NAMES for i in range(n.first, n.stop)}
    starts = {s.first for s in parse.sentences}
    for i, token in enumerate(parse.tokens):
        word = plain(token.lemma, token.pos, token.tag)
        if word is None or i in named or {token.text.lower(), token.lemma.lower()} & keep:
            continue
        if (token.text[0].isupper() and i not in starts) or _inside(token.start, token.end, quoted):
            continue
        if not known_more(token.lemma.lower(), word):
            continue
        before = parse.tokens[i - 1] if i else None
        start = token.start
        after = word.capitalize() if token.text[0].isupper() else word
        if before is not None and before.text.lower() in ("a", "an") and before.text.lower() != article(word):
            start = before.start
            sign = article(word).capitalize() if before.text[0].isupper() else article(word)
            after = f"{sign} {after}"
        yield Edit(kind="word", start=start, end=token.end, after=after)


def splits(text: str, parse: ParsedText) -> Iterator[Edit]:
    """Places where a sentence can be taken apart."""
    quoted = _quoted(text)
    children: dict[int, list[int]] = {}
    for i, token in enumerate(parse.tokens):
        if token.head != i:
            children.setdefault(token.head, []).append(i)
    for sentence in parse.sentences:
        if parse.tokens[sentence.stop - 1].text == "?":
            continue
        for edit in _sentence_splits(parse.tokens, sentence, children):
            if not _inside(edit.start, edit.end, quoted):
                yield edit


def _sentence_splits(tokens: Sequence[Token], sentence: TokenSpan, children: dict[int, list[int]]) -> Iterator[Edit]:
    inside = range(sentence.first, sentence.stop)
    for i in inside:
        token = tokens[i]
        edit = None
        if token.dep == "conj" and token.pos in ("VERB", "AUX"):
            edit = _coordinate(tokens, sentence, children, i)
        elif token.text == ";":
            edit = _semicolon(tokens, sentence, i)
        elif token.dep == "relcl":
            edit = _relative(tokens, sentence, children, i)
        if edit is not None:
            yield edit


def _coordinate(tokens: Sequence[Token], sentence: TokenSpan, children: dict[int, list[int]], i: int) -> Edit | None:
    """…, and she went. → …. She went."""
    top = tokens[i].head
    if not _main(tokens, top) or not any(tokens[c].dep in _SUBJECTS for c in children.get(top, ())):
        return None
    joiners = [c for c in children.get(top, ()) if tokens[c].dep == "cc" and top < c < i]
    subjects = [c for c in children.get(i, ()) if tokens[c].dep in _SUBJECTS and c < i]
    if not joiners or not subjects:
        return None
    cc = joiners[-1]
    joiner = tokens[cc].text.lower()
    first = cc + 1
    if joiner not in _JOINERS or min(_subtree(children, subjects[0])) != first:
        return None
    if first - sentence.first <= MIN_CLAUSE or sentence.stop - first <= MIN_CLAUSE:
        return None
    comma = tokens[cc - 1].text == ","
    start = tokens[cc - 1].start if comma else tokens[cc - 1].end
    return Edit(kind="split", start=start, end=tokens[first].end, after=". " + _begin(tokens[first], _JOINERS[joiner]))


def _semicolon(tokens: Sequence[Token], sentence: TokenSpan, i: int) -> Edit | None:
    """…; it was late. → …. It was late."""
    left, right = range(sentence.first, i), range(i + 1, sentence.stop)
    if len(left) < MIN_CLAUSE or len(right) < MIN_CLAUSE or not (_clause(tokens, left) and _clause(tokens, right)):
        return None
    first = tokens[i + 1]
    if first.tag in ("WDT", "WP", "WP$") or first.dep == "mark" or not first.text[0].isalpha():
        return None
    return Edit(kind="split", start=tokens[i].start, end=first.end, after=". " + _begin(first, ""))


def _relative(tokens: Sequence[Token], sentence: TokenSpan, children: dict[int, list[int]], i: int) -> Edit | None:
    """…the dog, which was old. → …the dog. The dog was old."""
    pronouns = [c for c in children.get(i, ()) if tokens[c].dep in _SUBJECTS and tokens[c].text in ("which", "who")]
    if not pronouns or pronouns[0] < sentence.first + 2:
        return None
    pronoun, noun = pronouns[0], tokens[i].head
    last = max(_subtree(children, i))
    ends = last >= sentence.stop - 2
    if tokens[pronoun - 1].text != "," or noun != pronoun - 2 or not ends or i - pronoun > 6:
        return None
    if tokens[noun].pos not in ("NOUN", "PROPN") or sentence.stop - pronoun <= MIN_CLAUSE:
        return None
    named = tokens[noun].pos == "PROPN"
    subject = tokens[noun].text if named else f"The {tokens[noun].text}"
    return Edit(kind="split", start=tokens[pronoun - 1].start, end=tokens[pronoun].end, after=f". {subject}")


def _main(tokens: Sequence[Token], i: int) -> bool:
    """Whether a verb is the sentence's, or one joined to it."""
    for _ in range(50):
        if tokens[i].dep == "ROOT":
            return True
        if tokens[i].dep != "conj" or tokens[i].head == i:
            return False
        i = tokens[i].head
    return False


def _clause(tokens: Sequence[Token], span: range) -> bool:
    """Whether a verb with its subject stands in the span."""
    return any(
        tokens[i].dep in _SUBJECTS and tokens[i].head in span and tokens[tokens[i].head].pos in ("VERB", "AUX")
        for i in span
    )


def _subtree(children: dict[int, list[int]], i: int) -> list[int]:
    found, todo = [], [i]
    while todo:
        at = todo.pop()
        found.append(at)
        todo += children.get(at, ())
    return found


def _begin(token: Token, joiner: str) -> str:
    return f"{joiner}{token.text}" if joiner else token.text[0].upper() + token.text[1:]


def _quoted(text: str) -> list[tuple[int, int]]:
    return [m.span() for m in _QUOTED.finditer(text)]


def _inside(start: int, end: int, spans: Sequence[tuple[int, int]]) -> bool:
    return any(a < end and start < b for a, b in spans)


def _apart(edits: Sequence[Edit]) -> list[Edit]:
    """Edits that do not overlap; earlier given ones win."""
    taken: list[Edit] = []
    for edit in edits:
        if all(edit.end <= other.start or other.end <= edit.start for other in taken):
            taken.append(edit)
    return taken
