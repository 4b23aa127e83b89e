"""Two collections with relevance judgements, of unlike kinds, to measure search on.

Cranfield: 1,400 abstracts on aerodynamics, 225 questions, graded judgements (Cleverdon 1967). Glosses: the definitions
of WordNet 3.0 (Debian package `wordnet-base`) asked for by how the Collaborative International Dictionary of English
(Debian package `dict-gcide`) defines the same word; the word itself stands neither in the question nor in the answer's
text as such. Questions are those entries that
  - are lower-case English words of at least four letters with one to three synsets in WordNet,
  - have a numbered sense from the Webster of 1913 (what GCIDE took from WordNet itself is left out); the first is
    taken,
  - keep at least five words when field labels, brackets, citations, quotations and examples ("as, …") are cut off,
  - do not contain the word's own stem or another word that begins with its first five letters,
and these in the order of the SHA-256 of their word: the first sample is the first 1,000, the second all others (5,310).
Relevant, with grade 1, are the glosses of the synsets that hold the word; glosses with the same text are one document,
examples in quotation marks are cut off.
"""

import gzip
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MAX_SYNSETS: Final = 3
LEAST_WORDS: Final = 5
FIRST_SAMPLE: Final = 1_000
_PREFIX_LETTERS: Final = 5
_HEADWORD = re.compile(r"(\S[^\\]*?) \\")
_SENSE = re.compile(r"^   1\. (.*?)\n\s*\[(.*?)\]", re.M | re.S)
_CUT = re.compile(
    r"\s--\s?[A-Z(].*|[;:,.]? *\b(?:as|e\. ?g\.|i\. ?e\.|esp\.), .*|\"[^\"]*\"|\[[^\]]*\]|\([A-Z][^)]*\.\)", re.S
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """Documents, questions, and for each question the grades (1 or more) of its relevant documents by position."""

    name: str
    documents: list[str]
    questions: list[str]
    grades: list[dict[int, int]]

    def half(self, question: int) -> str:
        """ "dev" or "test", by a hash of the question's text alone."""
        digest = hashlib.sha256(self.questions[question].encode()).digest()
        return "dev" if digest[0] % 2 == 0 else "test"


def cranfield(folder: Path) -> Collection:
    """cran.all.1400, cran.qry and cranqrel in `folder`; codes 1 … 4 (1 is best) become grades 4 … 1."""
    raw = (folder / "cran.all.1400").read_text(errors="replace")
    abstracts = [" ".join(p.partition("\n.W\n")[2].split()) for p in re.split(r"^\.I \d+\n", raw, flags=re.M)[1:]]
    parts = re.split(r"^\.I \d+\n", (folder / "cran.qry").read_text(), flags=re.M)[1:]
    questions = [" ".join(part.partition(".W\n")[2].split()) for part in parts]
    grades: list[dict[int, int]] = [{} for _ in questions]
    for line in (folder / "cranqrel").read_text().splitlines():
        question, document, code = (int(part) for part in line.split()[:3])
        if 1 <= code <= 4:
            grades[question - 1][document - 1] = 5 - code
    return Collection(name="Cranfield", documents=abstracts, questions=questions, grades=grades)


def glosses(*, gcide: Path, wordnet: Path) -> list[Collection]:
    """First and second sample.

    `gcide`: gcide.dict.dz; `wordnet`: the folder with data.noun, data.verb, data.adj and data.adv.
    """
    documents: dict[str, int] = {}
    synsets: dict[str, list[int]] = {}
    for words, gloss in _synsets(wordnet):
        document = documents.setdefault(gloss, len(documents))
        for word in words:
            synsets.setdefault(word, []).append(document)
    found: dict[str, str] = {}
    for word, sense in _senses(gzip.decompress(gcide.read_bytes()).decode("utf-8", "replace")):
        if word not in found and 1 <= len(synsets.get(word, ())) <= MAX_SYNSETS:
            found[word] = sense
    ordered = sorted(found, key=lambda word: hashlib.sha256(word.encode()).digest())
    samples = {"Glosses, first sample": ordered[:FIRST_SAMPLE], "Glosses, second sample": ordered[FIRST_SAMPLE:]}
    return [
        Collection(
            name=name,
            documents=list(documents),
            questions=[found[word] for word in chosen],
            grades=[dict.fromkeys(synsets[word], 1) for word in chosen],
        )
        for name, chosen in samples.items()
    ]


def _synsets(folder: Path) -> Iterator[tuple[set[str], str]]:
    """Lower-case words and gloss of each synset (format: wndb(5WN))."""
    for part in ("noun", "verb", "adj", "adv"):
        for line in (folder / f"data.{part}").read_text().splitlines():
            if line.startswith("  "):
                continue  # the licence
            data, _, gloss = line.partition(" | ")
            fields = data.split()
            words = {re.sub(r"\(.*\)$", "", fields[4 + 2 * i]).lower() for i in range(int(fields[3], 16))}
            definition = re.sub(r"\"[^\"]*\"?", "", gloss)
            yield words, re.sub(r"[\s;]+$", "", " ".join(definition.split()))


def _senses(dictionary: str) -> Iterator[tuple[str, str]]:
    """Word and first numbered sense of each usable entry."""
    for entry in re.split(r"\n(?=\S)", dictionary):
        head, sense = _HEADWORD.match(entry), _SENSE.search(entry)
        if head is None or sense is None or sense[2] != "1913 Webster":
            continue
        word = head[1].lower()
        text = " ".join(_CUT.sub(" ", " ".join(sense[1].split())).replace("{", "").replace("}", "").split())
        text = re.sub(r" ([,;.])", r"\1", text).strip(" ,;.")
        if re.fullmatch(r"[a-z]{4,}", word) and len(text.split()) >= LEAST_WORDS and not _names(text, word):
            yield word, text


def _names(text: str, word: str) -> bool:
    """Whether `text` holds the word or one that begins like it."""
    return any(other.startswith(word[:_PREFIX_LETTERS]) for other in re.findall(r"[a-z]+", text.lower()))
