"""Relations read off dependency trees written down by hand; what a real parser makes of sentences is tested there."""

from neuroedge.kit.clauses import MOST_JOINED
from neuroedge.kit.relations import Relation, relations
from tests.kit.parses import parsed

A, B = 0, 1
ACTIVE = "Ada/Ada/PROPN/NNP/nsubj/1 met/meet/VERB/VBD/ROOT/1 Bob/Bob/PROPN/NNP/dobj/1"


def _read(words: str, *names: tuple[int, int, str]) -> list[Relation]:
    _, parse = parsed(words, *names)
    return relations(parse, {index: index for index in range(len(names))})


def _said(found: list[Relation]) -> list[tuple[int, str, int]]:
    return [(relation.subject, relation.predicate, relation.object) for relation in found]


def test_subject_verb_object() -> None:
    """The plainest statement, true without limits."""
    [relation] = _read(ACTIVE, (0, 1, "PERSON"), (2, 3, "PERSON"))
    assert (relation.subject, relation.predicate, relation.object, relation.sentence) == (A, "meet", B, 0)
    assert (relation.limits.negated, relation.limits.modal, relation.limits.reported) == (False, None, False)


def test_a_passive_is_turned_round() -> None:
    """Who acts is the subject."""
    words = (
        "Bob/Bob/PROPN/NNP/nsubjpass/2 was/be/AUX/VBD/auxpass/2 seen/see/VERB/VBN/ROOT/2"
        " by/by/ADP/IN/agent/2 Ada/Ada/PROPN/NNP/pobj/3"
    )
    assert _said(_read(words, (0, 1, "PERSON"), (4, 5, "PERSON"))) == [(1, "see", 0)]


def test_denied_and_possible_statements_are_marked() -> None:
    """ "Ada might not meet Bob" is said, but not that she did."""
    words = (
        "Ada/Ada/PROPN/NNP/nsubj/3 might/might/AUX/MD/aux/3 not/not/PART/RB/neg/3 meet/meet/VERB/VB/ROOT/3"
        " Bob/Bob/PROPN/NNP/dobj/3"
    )
    [relation] = _read(words, (0, 1, "PERSON"), (4, 5, "PERSON"))
    assert (relation.limits.negated, relation.limits.modal) == (True, "might")


def test_a_pronoun_or_an_unnamed_thing_states_nothing() -> None:
    """Nothing is guessed about who "he" is."""
    words = "He/he/PRON/PRP/nsubj/1 met/meet/VERB/VBD/ROOT/1 Bob/Bob/PROPN/NNP/dobj/1"
    assert _read(words, (2, 3, "PERSON")) == []
    _, parse = parsed(ACTIVE, (0, 1, "PERSON"), (2, 3, "PERSON"))
    assert relations(parse, {}) == []


def test_a_thing_is_not_related_to_itself() -> None:
    """Two mentions of one thing."""
    _, parse = parsed(ACTIVE, (0, 1, "PERSON"), (2, 3, "PERSON"))
    assert relations(parse, {0: 7, 1: 7}) == []


def test_no_text_has_no_relations() -> None:
    """An empty parse is fine."""
    assert _read("") == []


def test_a_list_of_thousands_ends_soon() -> None:
    """Each hangs on the one before: no recursion as deep as the list, no product of all with all."""
    words = ["Ada/Ada/PROPN/NNP/nsubj/1", "met/meet/VERB/VBD/ROOT/1", "N0/N/PROPN/NNP/dobj/1"]
    words += [f"N{n}/N/PROPN/NNP/conj/{n + 1}" for n in range(1, 3000)]
    words += ["saw/see/VERB/VBN/conj/1"]
    words += [f"saw/see/VERB/VBN/conj/{n}" for n in range(len(words) - 1, len(words) + 2000)]
    names = [(0, 1, "PERSON"), *((n, n + 1, "PERSON") for n in range(2, 3002))]
    assert len(_read(" ".join(words), *names)) == MOST_JOINED
