"""Does a text say what a sentence about it says? Words, numbers, names and negations, without any model.

A sentence is held by the few sentences of the source that together have most of its content words (after the
attribution of kit/grounding.py; Rashkin et al. 2023). Limits: a sentence made of the source's words in a wrong relation
passes; a true paraphrase in other words does not. Negations are known in English only.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from neuroedge.kit.grounding import content_stems, invented

MIN_COVERAGE: Final = 0.6
"""Share of a sentence's content words that its sources must hold."""
_MOST_SOURCES: Final = 3
_NEGATION: Final = re.compile(r"\b(?:no|not|never|none|nobody|nothing|neither|nor|cannot|without)\b|n[’']t\b", re.I)


@dataclass(frozen=True, slots=True, kw_only=True)
class Support:
    """What holds a sentence."""

    sources: list[int]
    """Positions of the source's sentences, the one that holds most first."""
    coverage: float
    """Share of the content words that they hold, 0 to 1."""
    faults: list[str]
    """Why the sentence is not faithful; none when it is."""


class Faithfulness:
    """Checks sentences against one source, whose sentences are read once."""

    def __init__(self, sentences: Sequence[str], *, min_coverage: float = MIN_COVERAGE) -> None:
        self._sentences = sentences
        self._stems = [frozenset(content_stems(sentence)) for sentence in sentences]
        self._whole = " ".join(sentences)
        self._min_coverage = min_coverage

    def check(self, sentence: str) -> Support:
        """What of the source holds `sentence`, and what does not."""
        wanted = set(content_stems(sentence))
        if not wanted:
            return Support(sources=[], coverage=0.0, faults=["it says nothing"])
        sources, missing = self._holding(wanted)
        coverage = 1 - len(missing) / len(wanted)
        faults = []
        if coverage < self._min_coverage:
            faults.append(f"{coverage:.0%} of its words are in the text, less than {self._min_coverage:.0%}")
        held = " ".join(self._sentences[i] for i in sources)
        names = self._beginning(sentence) + invented(sentence, question="", source=self._whole)
        if names:
            faults.append(f"the text does not hold: {', '.join(names[:3])}")
        faults += self._turned(sentence, sources, held)
        return Support(sources=sources, coverage=coverage, faults=faults)

    def _beginning(self, sentence: str) -> list[str]:
        """The first word, where the text does not hold it: whether it is a name its capital does not tell."""
        first = re.findall(r"\w+", sentence)[:1]
        known = frozenset().union(*self._stems)
        return [word for word in first if not set(content_stems(word)) <= known and not word[0].isdigit()]

    def _holding(self, wanted: set[str]) -> tuple[list[int], set[str]]:
        sources, missing = list[int](), set(wanted)
        while missing and len(sources) < _MOST_SOURCES:
            best = max(range(len(self._stems)), key=lambda i: len(missing & self._stems[i]), default=-1)
            if best < 0 or not missing & self._stems[best]:
                break
            sources.append(best)
            missing -= self._stems[best]
        return sources, missing

    def _turned(self, sentence: str, sources: Sequence[int], held: str) -> list[str]:
        if not sources:
            return []
        negated = bool(_NEGATION.search(sentence))
        if negated and not _NEGATION.search(held):
            return ["it denies what the text does not deny"]
        if not negated and all(_NEGATION.search(self._sentences[i]) for i in sources):
            return ["it drops a negation of the text"]
        return []
