"""Who does what to whom: relations between named things, read off the dependency tree of a sentence.

Method: open information extraction by clauses (Del Corro & Gemulla 2013, "ClausIE"; Angeli et al. 2015): for each verb
its subjects with its objects, complements and prepositional phrases, the predicate keeping the words in between (Fader
et al. 2011, "ReVerb"); passives are turned round, relative clauses, participles and shared subjects resolved. Nouns add
appositions, possessives and names joined by a preposition. Negation, modality and hearsay are kept as flags.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from neuroedge.kit.clauses import Limits, Tree
from neuroedge.kit.parse import ParsedText, TokenSpan

_CERTAIN = Limits(negated=False, modal=None, reported=False)
_NOMINAL = frozenset({"NOUN", "PROPN", "PRON"})
_JOINING = frozenset({"of", "in", "at", "near", "from", "on"})
"""Prepositions that relate two names directly: "Rittenhouse Square in Philadelphia"."""
_DEEPEST = 2
"""Nouns between a verb and a name: "king of the island of Crete"."""
_MOST_LEADING = 3
"""Verbs kept in front of the one that relates: "want to begin to write"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """`subject` and `object` are numbers of things; `sentence` is the number of the sentence that says it."""

    subject: int
    predicate: str
    object: int
    sentence: int
    limits: Limits


@dataclass(frozen=True, slots=True, kw_only=True)
class _Argument:
    """A thing with the words that lead to it from where it depends."""

    thing: int
    words: tuple[str, ...]


def relations(parse: ParsedText, things: Mapping[int, int]) -> list[Relation]:
    """Relations of one text, each once a sentence. `things` tells by name (index in `parse.names`) what it names."""
    named = {
        token: things[index]
        for index, name in enumerate(parse.names)
        if index in things
        for token in range(name.first, name.stop)
    }
    tree = Tree(parse, named)
    found: dict[Relation, None] = {}
    for number, sentence in enumerate(parse.sentences):
        if len({named[i] for i in range(sentence.first, sentence.stop) if i in named}) < 2:
            continue
        for subject, words, object_, limits in _statements(tree, sentence):
            if subject != object_ and words:
                found[
                    Relation(subject=subject, predicate=" ".join(words), object=object_, sentence=number, limits=limits)
                ] = None
    return list(found)


_Statement = tuple[int, tuple[str, ...], int, Limits]


def _statements(tree: Tree, sentence: TokenSpan) -> Iterator[_Statement]:
    for index in range(sentence.first, sentence.stop):
        if tree.tokens[index].pos in ("VERB", "AUX"):
            yield from _of_verb(tree, index)
        elif index in tree.named:
            yield from _of_name(tree, index)


def _of_verb(tree: Tree, verb: int) -> Iterator[_Statement]:
    limits = tree.limits(verb)
    passive = tree.passive(verb)
    subjects = [thing for noun in tree.subjects(verb) for thing in tree.things(noun)]
    words = _predicate(tree, verb, passive=passive)
    if passive:
        acted = (*_leading(tree, verb), _lemma(tree, verb))
        for agent in _objects(tree, tree.children(verb, "agent")):
            for subject in subjects:
                yield agent.thing, (*acted, *agent.words[1:]), subject, limits
    for argument in _complements(tree, verb):
        for subject in subjects:
            yield subject, (*words, *argument.words), argument.thing, limits


def _predicate(tree: Tree, verb: int, *, passive: bool) -> tuple[str, ...]:
    return (*_leading(tree, verb), *_own(tree, verb, passive=passive))


def _own(tree: Tree, verb: int, *, passive: bool) -> tuple[str, ...]:
    particles = tuple(_lemma(tree, child) for child in tree.children(verb, "prt"))
    return (*(("be", tree.tokens[verb].text.lower()) if passive else (_lemma(tree, verb),)), *particles)


def _leading(tree: Tree, verb: int) -> tuple[str, ...]:
    """Verbs that govern this one: "offer to" of "offered to take"."""
    leading: tuple[str, ...] = ()
    for _ in range(_MOST_LEADING):
        token = tree.tokens[verb]
        if token.dep == "conj" and tree.tokens[token.head].dep == "xcomp" and not tree.children(verb, "nsubj"):
            token = tree.tokens[token.head]
        if token.dep != "xcomp" or tree.tokens[token.head].pos != "VERB":
            break
        verb = token.head
        leading = (*_own(tree, verb, passive=tree.passive(verb)), "to", *leading)
    return leading


def _complements(tree: Tree, verb: int) -> Iterator[_Argument]:
    """What stands in a clause beside its subject, with the words that lead there."""
    direct: tuple[str, ...] = ()
    for child in tree.children(verb, "dobj", "attr", "oprd", "dative"):
        if tree.tokens[child].pos == "ADP":
            continue
        noun = tree.noun(child, verb)
        arguments = list(_nouns(tree, noun))
        yield from arguments
        if tree.tokens[child].dep != "dative" and not tree.things(noun) and tree.tokens[noun].pos == "NOUN":
            direct = (_lemma(tree, noun),)
    for argument in _objects(tree, _prepositions(tree, verb), verb=verb):
        yield _Argument(thing=argument.thing, words=(*direct, *argument.words))
    for adjective in tree.children(verb, "acomp"):
        for argument in _objects(tree, tree.children(adjective, "prep")):
            yield _Argument(thing=argument.thing, words=(_lemma(tree, adjective), *argument.words))


def _prepositions(tree: Tree, verb: int) -> list[int]:
    return [c for c in tree.children(verb, "prep", "dative") if tree.tokens[c].pos in ("ADP", "SCONJ")]


def _objects(tree: Tree, prepositions: list[int], *, verb: int | None = None, depth: int = 0) -> Iterator[_Argument]:
    """What prepositions lead to, also joined ones ("to Homer and to Plato") and chains ("from among")."""
    for first in prepositions:
        for preposition in tree.coordinated(first):
            word = tree.tokens[preposition].text.lower()
            for child in tree.children(preposition, "pobj"):
                noun = child if verb is None else tree.noun(child, verb)
                for argument in _nouns(tree, noun, depth):
                    yield _Argument(thing=argument.thing, words=(word, *argument.words))
            chained = tree.children(preposition, "prep") if depth < _DEEPEST else []
            for argument in _objects(tree, chained, verb=verb, depth=depth + 1):
                yield _Argument(thing=argument.thing, words=(word, *argument.words))


def _nouns(tree: Tree, index: int, depth: int = 0) -> Iterator[_Argument]:
    """Things a noun and those joined to it stand for, else the things it is said to belong to."""
    for noun in tree.coordinated(index):
        things = tree.things(noun)
        for thing in things:
            yield _Argument(thing=thing, words=())
        if not things and depth < _DEEPEST and tree.tokens[noun].pos in _NOMINAL:
            yield from _belonging(tree, noun, depth + 1)


def _belonging(tree: Tree, noun: int, depth: int) -> Iterator[_Argument]:
    """The names a common noun depends on: "king of France", "Microsoft's founder"."""
    word = _lemma(tree, noun)
    for owner in tree.children(noun, "poss"):
        for thing in tree.things(owner):
            yield _Argument(thing=thing, words=(word, "of"))
    for argument in _objects(tree, tree.children(noun, "prep"), depth=depth):
        yield _Argument(thing=argument.thing, words=(word, *argument.words))


def _of_name(tree: Tree, index: int) -> Iterator[_Statement]:
    """Relations a name carries without a verb."""
    subject = tree.named[index]
    roles = [c for c in tree.children(index, "appos", "compound", "nmod") if c not in tree.named]
    token = tree.tokens[index]
    if token.dep == "appos" and token.head not in tree.named:
        roles.append(token.head)
    for role in roles:
        if tree.tokens[role].pos in _NOMINAL:
            for argument in _belonging(tree, role, 1):
                yield subject, ("be", *argument.words), argument.thing, _CERTAIN
            for owner in tree.children(index, "poss"):  # "Ries's son Ferdinand": the parser hangs all on the name
                for thing in tree.things(owner):
                    yield subject, ("be", _lemma(tree, role), "of"), thing, _CERTAIN
    for preposition in tree.children(index, "prep"):
        if tree.tokens[preposition].text.lower() in _JOINING:
            for argument in _objects(tree, [preposition], depth=_DEEPEST):
                yield subject, argument.words, argument.thing, _CERTAIN


def _lemma(tree: Tree, index: int) -> str:
    return tree.tokens[index].lemma.lower()
