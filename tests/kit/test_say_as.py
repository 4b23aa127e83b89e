"""say-as: spelling, numbers, dates by the language, telephone numbers."""

import pytest

from neuroedge.kit.say_as import said_as


@pytest.mark.parametrize(
    ("text", "how", "form", "language", "said"),
    [
        ("BBC 2", "characters", None, "en", "B, B, C, 2"),
        ("1,234", "cardinal", None, "en", "1234"),
        ("1", "ordinal", None, "en-GB", "1st"),
        ("112", "ordinal", None, "en", "112th"),
        ("3", "ordinal", None, "de", "3."),
        ("4.3.2025", "date", "dmy", "en", "March 4, 2025"),
        ("2025-03-04", "date", None, "de-DE", "4. März 2025"),
        ("3/4", "date", "md", "en", "March 4"),
        ("2025", "date", "y", "en", "2025"),
        ("2025-03-04", "date", "ymd", "xx-unknown", "March 4, 2025"),
        ("+49 (0)30 12", "telephone", None, "en", "plus 4 9, 0, 3 0, 1 2"),
        ("a1b2", "digits", None, "en", "1 2"),
    ],
)
def test_it_is_read_as_people_say_it(text: str, how: str, form: str | None, language: str, said: str) -> None:
    """In the language of the text."""
    assert said_as(text, how, form=form, language=language) == said


@pytest.mark.parametrize(
    ("text", "how", "form"),
    [
        ("one", "cardinal", None),
        ("", "ordinal", None),
        ("9" * 16, "cardinal", None),
        ("31.2.2025", "date", "dmy"),
        ("2025", "date", "dmy"),
        ("1.1.2025", "date", "xyz"),
        ("none", "telephone", None),
    ],
)
def test_what_is_no_such_thing_is_told(text: str, how: str, form: str | None) -> None:
    """ValueError, for the reader to tell with its line."""
    with pytest.raises(ValueError, match=r"is no|day is|must be|of the format"):
        said_as(text, how, form=form, language="en")
