"""Names made one thing each."""

import pytest

from neuroedge.kit.names import MAX_NAME_CHARS, display_of, gather, key_of, names_in, with_proper_nouns
from tests.kit.parses import parsed


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("the United States", "united states"),
        ("Marie Curie's", "marie curie"),
        ("Marie Curie’s", "marie curie"),
        ("Dr. Watson", "watson"),
        ("U.S.", "us"),
        ("AT&T", "at&t"),
        ("  São\nPaulo ", "são paulo"),
        ("\uff21\uff22\uff23", "abc"),
        ("Queen", "queen"),
        ("...", ""),
        ("", ""),
        ("\x00\ud800", ""),
    ],
)
def test_spellings_of_one_name_have_one_key(name: str, key: str) -> None:
    """Case, article, title, possessive, initials, width and line breaks do not count; nothing odd raises."""
    assert key_of(name) == key


def test_what_is_shown_is_short_and_without_article() -> None:
    """One line, bounded."""
    assert display_of("the Royal\n Society’s") == "Royal Society"
    assert len(display_of("x" * 5000)) == MAX_NAME_CHARS


def test_mentions_of_one_name_are_one_thing_with_the_commonest_type() -> None:
    """Across texts, with the places of each; dates name nothing."""
    one = parsed("Paris/Paris/PROPN/NNP/ROOT/0", (0, 1, "PERSON"))
    two = parsed(
        "in/in/ADP/IN/ROOT/0 Paris/Paris/PROPN/NNP/pobj/0 1900/1900/NUM/CD/npadvmod/0", (1, 2, "GPE"), (2, 3, "DATE")
    )
    texts, parses = zip(one, two, two, strict=True)
    [thing], of_texts = gather(texts, parses)
    assert (thing.key, thing.name, thing.type) == ("paris", "Paris", "place")
    assert [(place.text, place.start, place.end) for place in thing.places] == [(0, 0, 5), (1, 3, 8), (2, 3, 8)]
    assert of_texts == [[0], [0, None], [0, None]]


def _people(*names: str) -> tuple[list[str], list[str]]:
    """The names and keys that persons mentioned in this order have."""
    words, spans, first = [], [], 0
    for name in names:
        parts = name.split()
        words += [f"{part}/{part}/PROPN/NNP/dep/0" for part in parts]
        spans.append((first, first + len(parts), "PERSON"))
        first += len(parts)
    text, parse = parsed(" ".join(words), *spans)
    things, [numbers] = gather([text], [parse])
    return [thing.name for thing in things], [things[n].key for n in numbers if n is not None]


def test_a_surname_belongs_to_the_full_name_before_it() -> None:
    """The one before, if there is but one; else the only one after; else to nobody."""
    assert _people("Marie Curie", "Curie", "Pierre Curie")[1] == ["marie curie", "marie curie", "pierre curie"]
    assert _people("Darwin", "Charles Darwin")[1] == ["charles darwin", "charles darwin"]
    assert _people("Ann Lee", "Bob Lee", "Lee")[1] == ["ann lee", "bob lee", "lee"]
    assert _people("Curie", "Madame Marie Curie", "Marie Curie")[0] == ["Marie Curie"]


def test_a_surname_of_another_text_is_not_resolved() -> None:
    """Two documents may speak of two Smiths."""
    one = parsed("Ann/Ann/PROPN/NNP/compound/1 Smith/Smith/PROPN/NNP/ROOT/1", (0, 2, "PERSON"))
    two = parsed("Smith/Smith/PROPN/NNP/ROOT/0", (0, 1, "PERSON"))
    things, _ = gather([one[0], two[0]], [one[1], two[1]])
    assert [thing.key for thing in things] == ["ann smith", "smith"]


def test_names_grow_to_whole_compounds_and_missed_ones_are_added() -> None:
    """But an office with an article is no name."""
    text, parse = parsed(
        "Van/Van/PROPN/NNP/compound/1 Eeden/Eeden/PROPN/NNP/nsubj/2 met/meet/VERB/VBD/ROOT/2"
        " the/the/DET/DT/det/4 Elector/Elector/PROPN/NNP/dobj/2 in/in/ADP/IN/prep/2 Bonn/Bonn/PROPN/NNP/pobj/5",
        (1, 2, "PERSON"),
    )
    things, _ = gather([text], [with_proper_nouns(parse)])
    assert [(thing.name, thing.type) for thing in things] == [("Van Eeden", "person"), ("Bonn", "place")]


def test_every_run_of_words_of_a_query_may_be_a_name() -> None:
    """Longer ones first, bounded for any query."""
    assert names_in("Where did Marie Curie live?")[:2] == ["where did marie curie live", "where did marie curie"]
    assert "marie curie" in names_in("where did marie curie live")
    assert names_in("") == names_in("?!") == []
    assert len(names_in("word " * 10_000 + "x")) <= 64
    assert len(names_in(" ".join(map(str, range(1000))))) == 64
