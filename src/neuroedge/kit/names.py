"""Names in a text made one thing each: one spelling to compare by, one type, all places where it is mentioned.

Method: rules on the surface. A name's type is the one most of its mentions have (a recogniser of single sentences takes
the same name for a person here and a place there). Within one text a surname alone belongs to the only full name that
ends in it. No pronoun and no description ("the composer") is resolved.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from neuroedge.kit.parse import NameSpan, ParsedText

TYPES = {
    "PERSON": "person",
    "ORG": "organisation",
    "GPE": "place",
    "LOC": "place",
    "FAC": "place",
    "NORP": "group",
    "PRODUCT": "product",
    "EVENT": "event",
    "WORK_OF_ART": "work",
    "LAW": "work",
    "LANGUAGE": "language",
}
"""OntoNotes labels of named things and our types; its labels of dates, numbers and amounts name nothing."""
MAX_NAME_CHARS = 200
_BEFORE = frozenset(
    ["the", "a", "an", "this", "that", "these", "those", "his", "her", "its", "their", "our", "my", "your"]
)
_TITLES = frozenset(
    [
        "mr",
        "mrs",
        "ms",
        "miss",
        "dr",
        "prof",
        "professor",
        "sir",
        "lady",
        "lord",
        "dame",
        "madame",
        "mme",
        "monsieur",
        "count",
        "countess",
        "king",
        "queen",
        "prince",
        "princess",
        "emperor",
        "empress",
        "president",
        "saint",
        "captain",
        "general",
        "colonel",
        "judge",
        "pope",
        "bishop",
        "chancellor",
        "senator",
        "herr",
        "frau",
    ]
)
_WHERE = frozenset(["in", "at", "from", "near", "to", "into"])
_WORD = re.compile(r"[^\W_]+(?:['’\-&][^\W_]+)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a name stands: characters `start` up to `end` of text number `text`."""

    text: int
    start: int
    end: int


@dataclass(slots=True, kw_only=True)
class Named:
    """One thing with all its mentions."""

    key: str
    name: str
    type: str
    places: list[Place] = field(default_factory=list)
    surfaces: list[str] = field(default_factory=list)


def key_of(name: str) -> str:
    """The spelling names are compared by: case folded, without article, title, possessive and punctuation.

    Empty for what has no letter or digit. A title stays when nothing else is left.
    """
    words = _words(name)
    while len(words) > 1 and words[0] in _TITLES:
        words = words[1:]
    return " ".join(words)


def _words(name: str) -> list[str]:
    plain = unicodedata.normalize("NFKC", name).replace("’", "'").casefold()
    plain = re.sub(r"\b(\w)\.(?=\w\b)", r"\1", plain)  # initials: u.s. and us are one spelling
    words = [word.removesuffix("'s") for word in _WORD.findall(plain)]
    while words and words[0] in _BEFORE:
        words = words[1:]
    return words


def display_of(surface: str) -> str:
    """A surface form fit to show: one line, without leading article and possessive ending."""
    plain = " ".join(surface.split())
    plain = re.sub(r"(?i)^(the|a|an)\s+(?=\S)", "", plain)
    return re.sub(r"['’]s?$", "", plain).strip(' ,;:"“”()[]')[:MAX_NAME_CHARS]


def gather(texts: Sequence[str], parses: Sequence[ParsedText]) -> tuple[list[Named], list[list[int | None]]]:
    """All named things of some texts, and for each text which of them each of its names stands for (None: none)."""
    keys = [[_key(text, parse, name) for name in parse.names] for text, parse in zip(texts, parses, strict=True)]
    keys = [_with_full_names(of_text, parse) for of_text, parse in zip(keys, parses, strict=True)]
    found: dict[str, Named] = {}
    labels: dict[str, Counter[str]] = {}
    surfaces: dict[str, Counter[str]] = {}
    for number, (text, parse) in enumerate(zip(texts, parses, strict=True)):
        for name, key in zip(parse.names, keys[number], strict=True):
            if not key:
                continue
            start, end = _characters(parse, name)
            named = found.setdefault(key, Named(key=key, name="", type=""))
            named.places.append(Place(text=number, start=start, end=end))
            labels.setdefault(key, Counter())[TYPES[name.label]] += 1
            surfaces.setdefault(key, Counter())[display_of(text[start:end])] += 1
    for key, named in found.items():
        named.type = labels[key].most_common(1)[0][0]
        named.surfaces = [surface for surface, _ in surfaces[key].most_common()]
        # The spelling nearest to the key: "Marie Curie" before "Curie", and before "Madame Marie Curie".
        words = len(key.split())
        named.name = min(named.surfaces, key=lambda surface: abs(len(surface.split()) - words))
    order = {key: index for index, key in enumerate(found)}
    return list(found.values()), [[order.get(key) if key else None for key in of_text] for of_text in keys]


def with_proper_nouns(parse: ParsedText) -> ParsedText:
    """The parse with its names grown to whole compounds ("Eeden" to "Van den Eeden") and proper nouns left out added.

    One that has an article is rather an office than a name: "the Elector".
    """
    taken = {index for name in parse.names for index in range(name.first, name.stop)}
    names = [_grown(parse, name, taken) if name.label in TYPES else name for name in parse.names]
    taken |= {index for name in names for index in range(name.first, name.stop)}
    articled = {token.head for token in parse.tokens if token.dep in ("det", "poss") and token.tag != "NNP"}
    for run in _proper_runs(parse, taken):
        words = set(_words(" ".join(parse.tokens[index].text for index in run)))
        if words - _TITLES and max(map(len, words)) > 1 and not articled & set(run):
            names.append(NameSpan(label=_guess(parse, run[-1]), first=run[0], stop=run[-1] + 1))
    return replace(parse, names=tuple(sorted(names, key=lambda name: name.first)))


def _grown(parse: ParsedText, name: NameSpan, taken: set[int]) -> NameSpan:
    first, stop = name.first, name.stop
    while first and first - 1 not in taken and _compound(parse, first - 1, first):
        first -= 1
    while stop < len(parse.tokens) and stop not in taken and _compound(parse, stop - 1, stop):
        stop += 1
    taken.update(range(first, stop))  # or the next name would grow over the same tokens
    return replace(name, first=first, stop=stop)


def _proper_runs(parse: ParsedText, taken: set[int]) -> Iterator[list[int]]:
    """Proper nouns that are in no name yet, the parts of one together."""
    run: list[int] = []
    for index in range(len(parse.tokens)):
        proper = _proper(parse, index, taken)
        if run and not (proper and _compound(parse, index - 1, index)):
            yield run
            run = []
        if proper:
            run.append(index)
    if run:
        yield run


def _proper(parse: ParsedText, index: int, taken: set[int]) -> bool:
    token = parse.tokens[index]
    return index not in taken and token.pos == "PROPN" and any(character.isupper() for character in token.text)


def _compound(parse: ParsedText, left: int, right: int) -> bool:
    """Whether two neighbours are parts of one proper noun."""
    a, b = parse.tokens[left], parse.tokens[right]
    return a.pos == b.pos == "PROPN" and a.dep == "compound" and (a.head == right or a.head == b.head)


def _guess(parse: ParsedText, index: int) -> str:
    token = parse.tokens[index]
    return "GPE" if token.dep == "pobj" and parse.tokens[token.head].text.lower() in _WHERE else "PERSON"


def _characters(parse: ParsedText, name: NameSpan) -> tuple[int, int]:
    return parse.tokens[name.first].start, parse.tokens[name.stop - 1].end


def _key(text: str, parse: ParsedText, name: NameSpan) -> str:
    """The key of a name; empty when it is none of ours."""
    start, end = _characters(parse, name)
    if name.label not in TYPES or end - start > MAX_NAME_CHARS:
        return ""
    key = key_of(text[start:end])
    return key if any(character.isalpha() for character in key) else ""


def _with_full_names(keys: list[str], parse: ParsedText) -> list[str]:
    """Surnames alone replaced by the full name of a person that ends in them, if it can be but one.

    Full names before the surname count; those after it only when there is none before.
    """
    whole = {
        key: key.rsplit(" ", 1)[1]
        for key, name in zip(keys, parse.names, strict=True)
        if name.label == "PERSON" and " " in key
    }
    resolved: list[str] = []
    for position, (key, name) in enumerate(zip(keys, parse.names, strict=True)):
        before = {other for other in keys[:position] if whole.get(other) == key}
        full = before or {other for other in keys if whole.get(other) == key}
        alone = len(full) == 1 and name.label in ("PERSON", "ORG", "GPE")
        resolved.append(next(iter(full)) if alone else key)
    return resolved


def names_in(query: str, *, longest: int = 5, limit: int = 64) -> list[str]:
    """Every run of up to `longest` words of a query as a key that may name something, longer ones first.

    Queries are short and often without capitals, where recognisers of names fail; what is a name in them is told by
    looking the runs up among the names that are known.
    """
    words = _words(query)[:64]
    runs = [
        " ".join(words[start : start + length])
        for length in range(min(longest, len(words)), 0, -1)
        for start in range(len(words) - length + 1)
    ]
    return list(dict.fromkeys(key for run in runs if (key := key_of(run))))[:limit]
