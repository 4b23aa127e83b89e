"""Simplification by rule: forms of words, what must survive, and edits over parses written by hand."""

import pytest

from neuroedge.kit.plain_words import NOUNS, OTHERS, VERBS, article, plain, verb_form
from neuroedge.kit.simplify import Edit, applied, kept, lost, simplified
from tests.kit.parses import parsed

WE_AND_THEY = (
    "We/we/PRON/PRP/nsubj/2 quickly/quickly/ADV/RB/advmod/2 utilized/utilize/VERB/VBD/ROOT/2 it/it/PRON/PRP/dobj/2 "
    ",/,/PUNCT/,/punct/2 and/and/CCONJ/CC/cc/2 the/the/DET/DT/det/7 men/man/NOUN/NNS/nsubj/8 "
    "left/leave/VERB/VBD/conj/2 the/the/DET/DT/det/10 house/house/NOUN/NN/dobj/8 ././PUNCT/./punct/8"
)


@pytest.mark.parametrize(
    ("lemma", "pos", "tag", "word"),
    [
        ("utilize", "VERB", "VBG", "using"),
        ("commence", "VERB", "VBD", "started"),
        ("purchase", "VERB", "VBN", "bought"),
        ("attempt", "VERB", "VBZ", "tries"),
        ("cease", "VERB", "VBG", "stopping"),
        ("possess", "VERB", "VBZ", "has"),
        ("perish", "VERB", "VBG", "dying"),
        ("proceed", "VERB", "VBZ", "goes"),
        ("individual", "NOUN", "NNS", "people"),
        ("residence", "NOUN", "NN", "home"),
        ("numerous", "ADJ", "JJ", "many"),
        ("purchase", "NOUN", "NN", None),
        ("obtain", "VERB", "VBN", None),
        ("house", "NOUN", "NN", None),
    ],
)
def test_a_plain_word_takes_the_form_of_the_one_it_replaces(lemma: str, pos: str, tag: str, word: str | None) -> None:
    """None for what is plain, or would read worse."""
    assert plain(lemma, pos, tag) == word


def test_no_plain_word_has_a_plainer_one() -> None:
    """The tables lead nowhere in circles."""
    for table in (VERBS, NOUNS, OTHERS):
        assert not set(table) & set(table.values())
    assert (article("huge"), article("extra"), article("use")) == ("a", "an", "a")
    assert verb_form("try", "VBD") == "tried"


def test_joined_clauses_become_sentences_and_words_plain() -> None:
    """Each clause with its own subject; the rest of the text is untouched."""
    text, parse = parsed(WE_AND_THEY)
    edits = simplified(text, parse, target=None)
    assert [(e.kind, text[e.start : e.end], e.after) for e in edits] == [
        ("word", "utilized", "used"),
        ("split", ", and the", ". The"),
    ]
    assert applied(text, edits) == "We quickly used it . The men left the house ."


def test_words_to_keep_stay() -> None:
    """By form or lemma."""
    text, parse = parsed(WE_AND_THEY)
    assert [e.kind for e in simplified(text, parse, target=None, keep=frozenset({"utilize"}))] == ["split"]


def test_a_target_that_is_met_needs_no_edits() -> None:
    """An easy text is left alone."""
    text, parse = parsed(WE_AND_THEY)
    assert simplified(text, parse, target=16) == []


def test_a_clause_without_its_own_subject_is_not_split_off() -> None:
    """We used it and left."""
    text, parse = parsed(
        "We/we/PRON/PRP/nsubj/1 used/use/VERB/VBD/ROOT/1 it/it/PRON/PRP/dobj/1 and/and/CCONJ/CC/cc/1 "
        "left/leave/VERB/VBD/conj/1 the/the/DET/DT/det/6 house/house/NOUN/NN/dobj/4 ././PUNCT/./punct/1"
    )
    assert simplified(text, parse, target=None) == []


def test_what_is_quoted_or_named_is_not_touched() -> None:
    """A name that looks like a rare word, a quotation that holds one."""
    text, parse = parsed(
        'He/he/PRON/PRP/nsubj/1 met/meet/VERB/VBD/ROOT/1 Felicity/felicity/NOUN/NN/dobj/1 "/"/PUNCT/``/punct/4 '
        "commence/commence/VERB/VB/dep/1 \"/\"/PUNCT/''/punct/4 ././PUNCT/./punct/1",
        (2, 3, "PERSON"),
    )
    assert simplified(text, parse, target=None) == []


@pytest.mark.parametrize(
    ("after", "loss"),
    [
        ('Ann did not pay 30 dollars. She said "No, thanks".', []),
        ('Ann did pay 30 dollars. She said "No, thanks".', ["negations changed: not"]),
        ('Ann did not pay 40 dollars. She said "No, thanks".', ["numbers changed: 30, 40"]),
        ('She did not pay 30 dollars. She said "No, thanks".', ["names lost: Ann"]),
        ('Ann did not pay 30 dollars. She said "No, thank you".', ['a quotation changed: "No, thanks"']),
    ],
)
def test_what_must_survive_is_checked(after: str, loss: list[str]) -> None:
    """Names, numbers, negations and quotations."""
    before = kept('Ann did not pay 30 dollars, and she said "No, thanks".', ["Ann"])
    assert lost(before, after) == loss


def test_edits_are_applied_at_their_places() -> None:
    """In any order."""
    edits = [Edit(kind="word", start=4, end=7, after="dog"), Edit(kind="word", start=0, end=3, after="My")]
    assert applied("The cat sat", edits) == "My dog sat"
