"""Places of a text that read oddly, or wrongly, where it is to be read: units, dates, times, money, numbers, holidays.

Patterns over digits and English unit words; conversions by the international definitions of the units (1959, exact).
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, time
from decimal import Decimal
from functools import lru_cache
from typing import Final, Literal

from neuroedge.kit.culture import ADDRESS, FAHRENHEIT, Place, holidays_of

Kind = Literal["unit", "date", "time", "currency", "number", "holiday", "register"]
Certainty = Literal["certain", "likely", "possible"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """A place of the text, what is odd about it, and what could stand there."""

    kind: Kind
    start: int
    end: int
    message: str
    suggestion: str | None
    certainty: Certainty


_NUMBER: Final = (
    r"(?P<n>\d+(?:,\d{3})*(?:\.\d+)?|(?:one|two|three|four|five|six|seven|eight|nine|ten|twelve|twenty|hundred))"
)
_IMPERIAL: Final[dict[str, tuple[str, float, str]]] = {
    r"miles?|mi": ("mile", 1.609344, "km"),
    r"mph|miles? (?:per|an) hour": ("mile per hour", 1.609344, "km/h"),
    r"feet|foot|ft": ("foot", 0.3048, "m"),
    r"inch(?:es)?": ("inch", 2.54, "cm"),
    r"yards?|yd": ("yard", 0.9144, "m"),
    r"pounds?|lbs?": ("pound", 0.45359237, "kg"),
    r"ounces?|oz": ("ounce", 28.349523125, "g"),
    r"gallons?|gal": ("gallon", 3.785411784, "l"),
    r"acres?": ("acre", 0.40468564224, "ha"),
}
_METRIC: Final[dict[str, tuple[str, float, str]]] = {
    r"kilomet(?:er|re)s?|km": ("kilometre", 1 / 1.609344, "miles"),
    r"met(?:er|re)s?": ("metre", 1 / 0.3048, "feet"),
    r"centimet(?:er|re)s?|cm": ("centimetre", 1 / 2.54, "inches"),
    r"kilograms?|kilos?|kg": ("kilogram", 1 / 0.45359237, "pounds"),
    r"lit(?:er|re)s?": ("litre", 1 / 3.785411784, "gallons"),
}
_KEPT_IN_UK: Final = frozenset({"mile", "mile per hour", "foot", "inch", "yard", "pound", "ounce", "acre"})
_SYMBOLS: Final[dict[str, tuple[str, ...]]] = {
    "$": ("USD", "CAD", "AUD", "NZD", "SGD", "HKD", "MXN", "ARS", "CLP", "COP", "TWD"),
    "£": ("GBP", "EGP", "LBP", "SYP", "SSP", "SDG", "GIP", "FKP", "SHP"),
    "€": ("EUR",),
    "¥": ("JPY", "CNY"),
    "₹": ("INR",),
    "₩": ("KRW",),
    "₽": ("RUB",),
    "₺": ("TRY",),
    "₪": ("ILS",),
    "฿": ("THB",),
    "₦": ("NGN",),
    "₱": ("PHP",),
    "₫": ("VND",),
    "₴": ("UAH",),
}
_HOLIDAY_COUNTRIES: Final = ("US", "GB", "CA", "AU", "NZ", "IE", "IN")
_ALIASES: Final = {"Thanksgiving Day": "Thanksgiving", "Christmas Day": "Christmas"}
_AN_HOUR: Final = re.compile(r"\s*(?:per|an) hour")
_AMOUNT: Final = r"\d(?:[\d.,]{0,30}\d)?"
MAX_NUMBER_CHARS: Final = 30
"""Longer ones are codes."""
_WORD_BOUNDARY: Final = r"(?![\w])"


def flags(text: str, where: Place, *, source: Place | None, year: int) -> list[Flag]:
    """All flags in order; `source` is where the text was written, None when unknown."""
    found: list[Flag] = []
    finders: tuple[Callable[[], Iterator[Flag]], ...] = (
        lambda: _dates(text, where, source),
        lambda: _clock_times(text, where),
        lambda: _units(text, where),
        lambda: _temperatures(text, where),
    )
    for find in finders:
        found += find()
    taken = [(f.start, f.end) for f in found]
    numbers = _numbers(text, where, source)
    found += (f for f in numbers if not any(a < f.end and f.start < b for a, b in taken))
    found += _currencies(text, where)
    found += _holidays(text, where, year)
    found += _registers(text, where)
    return sorted(found, key=lambda f: (f.start, f.end, f.kind))


def _dates(text: str, where: Place, source: Place | None) -> Iterator[Flag]:
    for m in re.finditer(r"(?<![\w/.-])(\d{1,2})([/.-])(\d{1,2})\2(\d{4})(?![\w/-]|\.\d)", text):
        first, second, year = int(m[1]), int(m[3]), int(m[4])
        readings = [
            (order, day)
            for order, day in (("dmy", _day(year, second, first)), ("mdy", _day(year, first, second)))
            if day is not None
        ]
        if not readings:
            continue
        if source is not None:
            readings = [r for r in readings if r[0] == source.date_order] or readings
        days = {day for _, day in readings}
        if len(days) > 1:
            told = " or ".join(_long(day, where) for day in sorted(days))
            yield _flag("date", m, f"ambiguous: {told}", None, "certain")
        elif where.date_order not in {order for order, _ in readings}:
            message = f"dates are written in the order {where.date_order} there"
            yield _flag("date", m, message, _long(readings[0][1], where), "certain")


def _day(year: int, month: int, day: int) -> date | None:
    try:
        return date(year, month, day)
    except ValueError:
        return None


def _long(day: date, where: Place) -> str:
    from babel.dates import format_date

    return str(format_date(day, "long", locale=where.locale))


def _clock_times(text: str, where: Place) -> Iterator[Flag]:
    from babel.dates import format_time

    if where.twelve_hours:
        return
    for m in re.finditer(r"(?<![\w:.])(1[0-2]|0?[1-9])(?:[:.]([0-5]\d))?\s?([apAP])(?:[mM]\b|\.[mM]\.)", text):
        hour = int(m[1]) % 12 + (12 if m[3].lower() == "p" else 0)
        there = str(format_time(time(hour, int(m[2] or 0)), "short", locale=where.locale))
        yield _flag("time", m, "times are written with 24 hours there", there, "certain")


def _units(text: str, where: Place) -> Iterator[Flag]:
    table = _METRIC if where.measurement == "US" else _IMPERIAL
    for pattern, (name, factor, there) in table.items():
        if where.measurement == "UK" and name in _KEPT_IN_UK:
            continue
        for m in re.finditer(rf"(?<![\w.,]){_NUMBER}[\s-]?(?:{pattern}){_WORD_BOUNDARY}", text, re.IGNORECASE):
            if "hour" not in name and _AN_HOUR.match(text, m.end()):
                continue
            certainty: Certainty = "likely" if name == "pound" else "certain"
            message = f"the {name} is not of the {where.measurement} system used there"
            yield _flag("unit", m, message, _converted(m["n"], factor, there), certainty)


def _temperatures(text: str, where: Place) -> Iterator[Flag]:
    ours = where.country in FAHRENHEIT
    sign = "C|degrees? Celsius" if ours else "F|degrees? Fahrenheit"
    number = r"(?<![\w.,])(?P<n>[-\u2212]?\d{1,6}(?:\.\d{1,6})?)"
    for m in re.finditer(rf"{number}\s?(?:°\s?|(?=d))(?:{sign}){_WORD_BOUNDARY}", text):
        value = float(m["n"].replace("\u2212", "-"))
        there = f"{value * 9 / 5 + 32:.0f} °F" if ours else f"{(value - 32) * 5 / 9:.0f} °C"
        yield _flag("unit", m, "temperatures are given on the other scale there", there, "certain")


def _converted(number: str, factor: float, unit: str) -> str | None:
    """To three significant digits; None for a number in words."""
    if not number[0].isdigit():
        return None
    return f"{Decimal(format(float(number.replace(',', '')) * factor, '.3g')):f} {unit}"


def _numbers(text: str, where: Place, source: Place | None) -> Iterator[Flag]:
    """Numbers with signs that mean something else there; needs to know how the text writes them."""
    from babel.numbers import format_decimal, get_group_symbol, parse_decimal

    if source is None or source.decimal == where.decimal:
        return
    group = str(get_group_symbol(source.locale))
    signs = re.escape(source.decimal + group)
    for m in re.finditer(rf"(?<![\w{signs}])\d+(?:[{signs}]\d+)+(?![\w]|[{signs}]\d)", text):
        if len(m[0]) > MAX_NUMBER_CHARS:
            continue
        try:
            value = parse_decimal(m[0], locale=source.locale, strict=True)
        except ValueError:
            continue
        decimals = len(m[0].rsplit(source.decimal, 1)[1]) if source.decimal in m[0] else 0
        there = str(format_decimal(value, locale=where.locale, format="#,##0." + "0" * decimals if decimals else None))
        yield _flag("number", m, f"the decimal sign there is '{where.decimal}'", there, "certain")


def _currencies(text: str, where: Place) -> Iterator[Flag]:
    if where.currency is None:
        return
    signs = "".join(map(re.escape, _SYMBOLS))
    for m in re.finditer(rf"(?P<a>[{signs}])\s?{_AMOUNT}|(?<![\d.,]){_AMOUNT}\s?(?P<b>[{signs}])", text):
        codes = _SYMBOLS[m["a"] or m["b"]]
        if where.currency in codes:
            continue
        meant = codes[0] if len(codes) == 1 else f"one of {', '.join(codes[:4])}, …"
        message = f"{meant}; the currency there is {where.currency}"
        yield _flag("currency", m, message, None, "certain" if len(codes) == 1 else "likely")
    for m in re.finditer(rf"\b([A-Z]{{3}})\s?{_AMOUNT}|(?<![\w.,]){_AMOUNT}\s?([A-Z]{{3}})\b", text):
        code = m[1] or m[2]
        if code in _codes() and code != where.currency:
            yield _flag("currency", m, f"{code}; the currency there is {where.currency}", None, "certain")


@lru_cache(maxsize=1)
def _codes() -> frozenset[str]:
    from babel.numbers import list_currencies

    return frozenset(list_currencies())


def _holidays(text: str, where: Place, year: int) -> Iterator[Flag]:
    if where.country is None:
        return
    local = set(holidays_of(where.country, year).values())
    if not local:
        return
    for name, countries in _known_holidays(year).items():
        if any(name in own or own in name for own in local):
            continue
        for m in re.finditer(rf"\b{re.escape(name)}\b", text):
            message = f"a public holiday of {', '.join(countries)}, not of {where.country}"
            yield _flag("holiday", m, message, None, "likely")


@lru_cache(maxsize=16)
def _known_holidays(year: int) -> dict[str, tuple[str, ...]]:
    """Names of holidays in English with the countries that have them."""
    found: dict[str, list[str]] = {}
    for country in _HOLIDAY_COUNTRIES:
        for listed in set(holidays_of(country, year).values()):
            for part in listed.split("; "):
                bare = re.sub(r"\s*\(.*?\)", "", part).strip()
                name = _ALIASES.get(bare, bare)
                if len(name) >= 4 and country not in found.setdefault(name, []):
                    found[name].append(country)
    return {name: tuple(sorted(countries)) for name, countries in found.items()}


def _registers(text: str, where: Place) -> Iterator[Flag]:
    """The first change between familiar and polite address."""
    if where.language not in ADDRESS:
        return
    used = [
        sorted(
            (m for form in forms for m in re.finditer(rf"(?<!\w){re.escape(form)}(?!\w)", text) if _addresses(text, m)),
            key=lambda m: m.start(),
        )
        for forms in ADDRESS[where.language]
    ]
    if all(used):
        change = max((used[0][0], used[1][0]), key=lambda m: m.start())
        message = f"address changes: '{used[0][0][0]}' is familiar, '{used[1][0][0]}' polite"
        yield _flag("register", change, message, None, "possible")


def _addresses(text: str, m: re.Match[str]) -> bool:
    """A capital that is a politeness sign counts only inside a sentence, where it is not the sentence's own."""
    before = text[max(0, m.start() - 40) : m.start()].rstrip()
    return not m[0][0].isupper() or (bool(before) and before[-1] not in '.!?:\n„“"')


def _flag(kind: Kind, m: re.Match[str], message: str, suggestion: str | None, certainty: Certainty) -> Flag:
    return Flag(kind=kind, start=m.start(), end=m.end(), message=message, suggestion=suggestion, certainty=certainty)
