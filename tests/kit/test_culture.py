"""Customs of writing, against values CLDR publishes, and what of a text does not fit."""

from datetime import date

import pytest

from neuroedge.kit.culture import cldr_version, facts, holidays_of, place
from neuroedge.kit.culture_flags import Flag, flags

TODAY = date(2026, 1, 1)


def _facts(tag: str, country: str | None = None) -> dict[str, str]:
    return {f.name: f.value for f in facts(place(tag, country), today=TODAY)}


def _flags(text: str, reader: str, source: str | None = None) -> list[Flag]:
    return flags(text, place(reader), source=None if source is None else place(source), year=2026)


@pytest.mark.parametrize(
    ("tag", "truth"),
    [
        ("hi-IN", {"number_example": "12,34,567.891", "currency": "INR", "date_order": "dmy", "weekend": "Sunday"}),
        ("de-DE", {"decimal_sign": ",", "group_sign": ".", "date_pattern": "dd.MM.yy", "hour_cycle": "24"}),
        (
            "en-US",
            {
                "date_order": "mdy",
                "measurement_system": "US",
                "temperature_unit": "fahrenheit",
                "paper_size": "US-Letter",
            },
        ),
        ("en-GB", {"date_order": "dmy", "measurement_system": "UK", "temperature_unit": "celsius", "currency": "GBP"}),
        ("ar-EG", {"text_direction": "rtl", "weekend": "Friday, Saturday", "first_day_of_week": "Saturday"}),
        ("ja-JP", {"usual_order": "surname first", "currency": "JPY", "date_order": "ymd"}),
        ("fr-CA", {"paper_size": "US-Letter", "currency": "CAD", "percent_example": "26\xa0%"}),
    ],
)
def test_facts_are_what_cldr_publishes(tag: str, truth: dict[str, str]) -> None:
    """Values of CLDR 47, read from its JSON release."""
    found = _facts(tag)
    assert {name: found[name] for name in truth} == truth


def test_every_fact_names_its_source() -> None:
    """With the release."""
    assert all(f.source for f in facts(place("hi-IN"), today=TODAY))
    assert cldr_version() in next(f.source for f in facts(place("hi-IN"), today=TODAY))


def test_a_missing_country_is_assumed_and_said() -> None:
    """A language alone gets the likeliest, one given is kept, a world language has none."""
    assert place("hi").country == "IN"
    assert "likeliest" in place("hi").assumed[0]
    assert place("de", "IN").currency == "INR"
    assert "CLDR has no 'de_IN'" in place("de", "IN").assumed[0]
    assert (place("en-001").country, place("en-001").assumed) == (None, ())
    assert _facts("eo")["decimal_sign"] == ","


@pytest.mark.parametrize(("tag", "country"), [("xx", None), ("en", "QQ"), ("de-1901-bogus", "ZZZ")])
def test_what_cldr_does_not_know_is_refused(tag: str, country: str | None) -> None:
    """Language or country."""
    with pytest.raises(ValueError, match="CLDR has no"):
        place(tag, country)


def test_holidays_are_those_of_the_country() -> None:
    """And none where nobody lists any."""
    assert holidays_of("IN", 2026)[date(2026, 8, 15)] == "Independence Day"
    assert holidays_of("ZZ", 2026) == {}
    assert _facts("hi-IN")["Republic Day"] == "2026-01-26"


@pytest.mark.parametrize(
    ("text", "reader", "source", "kind", "quote", "suggestion"),
    [
        ("It is 5 miles away.", "fr-FR", None, "unit", "5 miles", "8.05 km"),
        ("It is 5 km away.", "en-US", None, "unit", "5 km", "3.11 miles"),
        ("about ten miles", "fr-FR", None, "unit", "ten miles", None),
        ("It was 90 °F.", "de-DE", None, "unit", "90 °F", "32 °C"),
        ("It was 20°C.", "en-US", None, "unit", "20°C", "68 °F"),
        ("on 03/04/2026", "en-IN", None, "date", "03/04/2026", None),
        ("on 03/25/2026", "en-IN", None, "date", "03/25/2026", "25 March 2026"),
        ("on 03/04/2026", "en-IN", "en-US", "date", "03/04/2026", "4 March 2026"),
        ("It costs $20.", "hi-IN", None, "currency", "$20", None),
        ("It costs 20 EUR.", "hi-IN", None, "currency", "20 EUR", None),
        ("at 3:30 pm", "de-DE", None, "time", "3:30 pm", "15:30"),
        ("at 12 am", "de-DE", None, "time", "12 am", "00:00"),
        ("1,234.50 in all", "de-DE", "en-US", "number", "1,234.50", "1.234,50"),
        ("before Thanksgiving", "hi-IN", None, "holiday", "Thanksgiving", None),
        ("Hast du Zeit? Können Sie kommen?", "de-DE", None, "register", "Sie", None),
    ],
)
def test_what_does_not_fit_is_found(
    text: str, reader: str, source: str | None, kind: str, quote: str, suggestion: str | None
) -> None:
    """One flag, at its place, with what could stand there."""
    (found,) = _flags(text, reader, source)
    assert (found.kind, text[found.start : found.end], found.suggestion) == (kind, quote, suggestion)


@pytest.mark.parametrize(
    ("text", "reader"),
    [
        ("It is 5 km away and 20 °C.", "fr-FR"),
        ("It is 5 miles away and 20 °C.", "en-GB"),
        ("It is 5 miles away and 68 °F.", "en-US"),
        ("on 2026-04-03", "en-IN"),
        ("on 05/05/2026 and on 25/03/2026", "en-IN"),
        ("It costs $20.", "en-CA"),
        ("It costs ₹20, at 3 pm, before Diwali and Christmas.", "hi-IN"),
        ("version 10.2.3 of 192.168.10.1 and 99/99/2026", "de-DE"),
        ("Sie kommen. Du auch?", "de-DE"),
        ("", "de-DE"),
    ],
)
def test_what_fits_is_left_alone(text: str, reader: str) -> None:
    """Units, dates, money, times and holidays of the readers' own."""
    assert _flags(text, reader) == []


@pytest.mark.parametrize("piece", ["1", "1,", "9 ", "$", "1 Sie du ", "12/", "5 miles ", "-1 °F "])
def test_a_hundred_thousand_characters_do_not_take_long(piece: str) -> None:
    """No pattern goes over the text again and again."""
    text = (piece * 100_000)[:100_000]
    assert isinstance(_flags(text, "de-DE", "en-US"), list)
