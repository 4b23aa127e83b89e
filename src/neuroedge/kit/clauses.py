"""The dependency tree of a text: who is the subject of a verb, what a noun stands for, what limits a statement.

Dependencies are those of ClearNLP (Choi & Palmer 2012), as English spaCy pipelines give them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from neuroedge.kit.parse import ParsedText, Token

_SUBJECT = frozenset({"nsubj", "nsubjpass"})
_RELATIVE = frozenset({"WDT", "WP", "WP$"})
_NEVER = frozenset({"never", "hardly", "scarcely", "neither", "nor"})
_SAYING = frozenset(
    [
        "say",
        "state",
        "claim",
        "believe",
        "think",
        "suppose",
        "report",
        "tell",
        "suggest",
        "allege",
        "assert",
        "argue",
        "write",
        "announce",
        "declare",
        "deny",
        "hope",
        "expect",
        "fear",
        "doubt",
        "imagine",
        "assume",
        "maintain",
        "insist",
        "rumour",
        "rumor",
    ]
)
MOST_JOINED = 16
"""A list of subjects with a list of objects is a product of relations; beyond this it is an index, no sentence."""
_LONGEST_CHAIN = 12
"""Clauses an attribute is sought through: enough for any sentence somebody understands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What keeps a statement from being simply true."""

    negated: bool
    modal: str | None
    reported: bool


class Tree:
    """A parse with its children at hand. `named` tells by token index which thing is named there."""

    def __init__(self, parse: ParsedText, named: Mapping[int, int]) -> None:
        self.tokens = parse.tokens
        self.named = named
        self._children: list[list[int]] = [[] for _ in parse.tokens]
        for index, token in enumerate(parse.tokens):
            if token.head != index:
                self._children[token.head].append(index)

    def children(self, index: int, *deps: str) -> list[int]:
        """Dependents of a token, in order; of the given kinds, if any are given."""
        return [child for child in self._children[index] if not deps or self.tokens[child].dep in deps]

    def coordinated(self, index: int) -> Iterator[int]:
        """A token and those joined to it by "and", "or" or a comma, the first MOST_JOINED of a long list."""
        waiting, count = [index], 0
        while waiting and count < MOST_JOINED:
            index = waiting.pop(0)
            yield index
            count += 1
            waiting += self.children(index, "conj")

    def things(self, index: int) -> list[int]:
        """The named things a noun stands for: by itself, else by its apposition ("his friend, Joseph Hooker")."""
        if index in self.named:
            return [self.named[index]]
        return [self.named[child] for child in self.children(index, "appos") if child in self.named]

    def passive(self, verb: int) -> bool:
        """Whether the grammatical subject is what is acted upon."""
        for _ in range(_LONGEST_CHAIN):
            token = self.tokens[verb]
            if self.children(verb, "nsubjpass", "auxpass"):
                return True
            if token.dep == "acl":
                return token.tag == "VBN"
            if token.dep != "conj" or token.tag != "VBN" or self.children(verb, "aux", "nsubj"):
                return False
            verb = token.head
        return False

    def subjects(self, verb: int, depth: int = 0) -> list[int]:
        """Nouns that are the subject of a verb, also where it is shared with or understood from another clause."""
        token = self.tokens[verb]
        own = self.children(verb, *_SUBJECT)
        if own:
            return [noun for subject in own for noun in self._resolved(subject, verb)]
        if depth >= _LONGEST_CHAIN or token.head == verb:
            return []
        if token.dep in ("acl", "relcl") and self.tokens[token.head].pos in ("NOUN", "PROPN"):
            return list(self.coordinated(token.head))
        if token.dep in ("xcomp", "ccomp"):
            objects = self.children(token.head, "dobj")
            if objects and not self.passive(token.head):
                return list(self.coordinated(objects[0]))
        if token.dep in ("conj", "xcomp", "advcl"):
            return self.subjects(token.head, depth + 1)
        if token.dep == "pcomp":  # "after leaving Leipzig"
            above = self._verb_above(token.head)
            return [] if above is None else self.subjects(above, depth + 1)
        return []

    def noun(self, index: int, clause: int) -> int:
        """The noun a relative pronoun of a clause stands for; any other token is itself."""
        if self.tokens[index].tag not in _RELATIVE and self.tokens[index].text.lower() != "that":
            return index
        for _ in range(_LONGEST_CHAIN):
            if self.tokens[clause].dep == "relcl":
                return self.tokens[clause].head
            if self.tokens[clause].dep not in ("conj", "xcomp", "ccomp"):
                break
            clause = self.tokens[clause].head
        return index

    def _resolved(self, subject: int, verb: int) -> list[int]:
        return list(self.coordinated(self.noun(subject, verb)))

    def _verb_above(self, index: int) -> int | None:
        for _ in range(_LONGEST_CHAIN):
            if self.tokens[index].pos in ("VERB", "AUX"):
                return index
            if self.tokens[index].head == index:
                return None
            index = self.tokens[index].head
        return None

    def limits(self, verb: int) -> Limits:
        """Negation, modality ("may", "if" …) and whether somebody only says so, through the clauses above."""
        negated, modal, reported = False, None, False
        for _ in range(_LONGEST_CHAIN):
            token = self.tokens[verb]
            negated ^= self._negated(verb)
            modal = modal or self._modal(verb)
            above = self.tokens[token.head]
            reported = reported or (token.dep == "ccomp" and above.lemma.lower() in _SAYING)
            if token.dep not in ("xcomp", "ccomp", "conj") or token.head == verb:
                break
            if token.dep == "conj" and self.children(verb, *_SUBJECT, "aux", "neg"):
                break  # a clause of its own: "did not go to Rome but went to Paris"
            if token.dep == "conj" and self._after_but(verb):
                break
            verb = token.head
        return Limits(negated=negated, modal=modal, reported=reported)

    def _negated(self, verb: int) -> bool:
        if self.children(verb, "neg"):
            return True
        adverbs = (self.tokens[child].lemma.lower() for child in self.children(verb, "advmod", "preconj", "cc"))
        if any(adverb in _NEVER for adverb in adverbs):
            return True
        nouns = self.children(verb, *_SUBJECT, "dobj", "attr")
        return any(self.tokens[d].lemma.lower() in ("no", "neither") for n in nouns for d in self.children(n, "det"))

    def _modal(self, verb: int) -> str | None:
        for child in self.children(verb, "aux"):
            if self.tokens[child].tag == "MD":
                return _lemma(self.tokens[child])
        marks = [_lemma(self.tokens[child]) for child in self.children(verb, "mark")]
        return next((mark for mark in marks if mark in ("if", "unless", "whether")), None)

    def _after_but(self, verb: int) -> bool:
        return any(_lemma(self.tokens[child]) == "but" for child in self.children(self.tokens[verb].head, "cc"))


def _lemma(token: Token) -> str:
    return {"'ll": "will", "ca": "can", "wo": "will", "'d": "would"}.get(token.text.lower(), token.lemma.lower())
