"""Keywords of single texts."""

from neuroedge.kit.keywords import keywords

TEXT = "The payment service is late. We wait for the payment service, then the launch in Berlin can start."


def test_the_subject_of_a_text_is_among_its_keywords() -> None:
    """The repeated phrase is found, in lower case."""
    found = keywords(TEXT)
    assert "payment service" in found
    assert "berlin" in found
    assert all(word == word.lower() for word in found)


def test_keywords_come_once_and_no_more_than_asked() -> None:
    """Case variants fall together; the limit holds."""
    found = keywords("Berlin berlin BERLIN is big. Berlin is old. " + TEXT, limit=3)
    assert len(found) == len(set(found)) <= 3


def test_text_without_content_words_has_no_keywords() -> None:
    """Blank, punctuation and stop words."""
    assert keywords("") == []
    assert keywords("   ") == []
    assert keywords("... ?!") == []
    assert keywords("the the the") == []
