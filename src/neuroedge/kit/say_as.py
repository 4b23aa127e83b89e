"""How SSML's say-as reads its content: spelt, as a number, a date or a telephone number."""

import re
from collections.abc import Callable, Mapping
from datetime import date
from typing import Final

_DATE_PARTS: Final = {"mdy", "dmy", "ymd", "md", "dm", "ym", "my", "y"}
_DIGITS: Final = re.compile(r"[+-]?\d{1,15}")


def said_as(text: str, how: str, *, form: str | None, language: str | None) -> str:
    """The words a voice reads instead of `text`. Raises ValueError where the text is no such thing."""
    return INTERPRETATIONS[how](text, form, language or "en")


def _characters(text: str, form: str | None, language: str) -> str:
    return ", ".join(letter.upper() for letter in text if not letter.isspace())


def _cardinal(text: str, form: str | None, language: str) -> str:
    return _number(text)


def _ordinal(text: str, form: str | None, language: str) -> str:
    number = _number(text)
    if not language.lower().startswith("en"):
        return f"{number}."
    last_two, last = int(number) % 100, int(number) % 10
    return number + ("th" if last_two in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(last, "th"))


def _number(text: str) -> str:
    number = re.sub(r"(?<=\d)[,\u00a0\u202f' ](?=\d{3})", "", text.strip())
    if not _DIGITS.fullmatch(number):
        raise ValueError(f"{text[:40]!r} is no whole number")
    return number


def _date(text: str, form: str | None, language: str) -> str:
    order = form or "ymd"
    numbers = [int(number) for number in re.findall(r"\d{1,4}", text)]
    if order not in _DATE_PARTS or len(numbers) != len(order):
        raise ValueError(f"{text[:40]!r} is no date of the format {order[:10]!r} ({', '.join(sorted(_DATE_PARTS))})")
    given = dict(zip(order, numbers, strict=True))
    day = date(given.get("y", 2000), given.get("m", 1), given.get("d", 1))
    from babel import negotiate_locale
    from babel.dates import format_date, format_skeleton
    from babel.localedata import locale_identifiers

    locale = negotiate_locale([language.replace("-", "_")], locale_identifiers(), sep="_") or "en"
    if {"y", "m", "d"} <= given.keys():
        return format_date(day, format="long", locale=locale)
    skeleton = {"y": "y", "m": "MMMM", "d": "d"}
    return format_skeleton("".join(skeleton[one] for one in "ymd" if one in given), day, locale=locale)


def _telephone(text: str, form: str | None, language: str) -> str:
    groups = re.findall(r"\d+", text)
    if not groups:
        raise ValueError(f"{text[:40]!r} is no telephone number")
    plus = "plus " if text.strip().startswith("+") else ""
    return plus + ", ".join(" ".join(group) for group in groups)


INTERPRETATIONS: Final[Mapping[str, Callable[[str, str | None, str], str]]] = {
    "characters": _characters,
    "spell-out": _characters,
    "digits": lambda text, form, language: " ".join(re.findall(r"\d", text)) or text,
    "cardinal": _cardinal,
    "number": _cardinal,
    "ordinal": _ordinal,
    "date": _date,
    "telephone": _telephone,
}
