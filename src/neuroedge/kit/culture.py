"""What is customary in writing for a language and a country, from published tables: CLDR, and lists of holidays.

CLDR (Unicode licence) through `babel` (BSD), but for what babel leaves out or gets wrong: measurement systems, paper,
order of names, days weeks begin on, copied here from CLDR 48 (measurementData, personNamesDefaults, weekData).
Holidays through `holidays` (MIT). Pronouns of address: the grammar of each language, as in WALS 45A (Helmbrecht 2013).
Nothing is said of a nation's character.
"""

from dataclasses import dataclass
from datetime import date, datetime
from functools import lru_cache
from typing import Any, Final

SURNAME_FIRST: Final = frozenset(["hu", "ja", "km", "ko", "mn", "si", "ta", "te", "vi", "yue", "zh"])
"""CLDR 48, personNamesDefaults."""
MEASUREMENT: Final = {"GB": "UK", "LR": "US", "MM": "UK", "US": "US"}
"""CLDR 48, measurementSystem; metric elsewhere."""
FAHRENHEIT: Final = frozenset({"BS", "BZ", "KY", "PR", "PW", "US"})
"""CLDR 48, measurementSystem-category-temperature, with the US system's own default."""
LETTER: Final = frozenset(["BZ", "CA", "CL", "CO", "CR", "GT", "MX", "NI", "PA", "PH", "PR", "SV", "US", "VE"])
"""CLDR 48, paperSize US-Letter; A4 elsewhere."""
_FIRST_DAYS: Final = {
    4: "MV",
    5: "AF BH DJ DZ EG IQ IR JO KW LY OM QA SD SY",
    6: "AG AS BD BR BS BT BW BZ CA CO DM DO ET GT GU HK HN ID IL IN JM JP KE KH KR LA MH MM MO MT MX MZ NI NP PA PE PH "
    "PK PR PT PY SA SG SV TH TT TW UM US VE VI WS YE ZA ZW",
}
"""CLDR 47, weekData: weeks begin on Friday, Saturday, Sunday; elsewhere on Monday (0). babel lends some another's."""
ADDRESS: Final[dict[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "bn": (("তুই", "তুমি"), ("আপনি",)),
    "cs": (("ty",), ("vy",)),
    "de": (("du", "dich", "dir", "dein", "deine"), ("Sie", "Ihnen", "Ihr", "Ihre")),
    "es": (("tú", "ti", "contigo"), ("usted", "ustedes")),
    "fr": (("tu", "toi"), ("vous",)),
    "gu": (("તું", "તમે"), ("આપ",)),
    "hi": (("तू", "तुम"), ("आप",)),
    "it": (("tu", "te"), ("Lei",)),
    "kn": (("ನೀನು",), ("ನೀವು",)),
    "ml": (("നീ",), ("നിങ്ങൾ", "താങ്കൾ")),
    "mr": (("तू", "तुम्ही"), ("आपण",)),
    "nl": (("jij", "jou", "jouw"), ("u", "uw")),
    "or": (("ତୁ", "ତୁମେ"), ("ଆପଣ",)),
    "pa": (("ਤੂੰ",), ("ਤੁਸੀਂ",)),
    "pl": (("ty", "ciebie"), ("Pan", "Pani", "Państwo")),
    "pt": (("tu", "você"), ("o senhor", "a senhora")),
    "ru": (("ты", "тебя", "тебе"), ("вы", "вас", "вам")),
    "ta": (("நீ",), ("நீங்கள்",)),
    "te": (("నువ్వు",), ("మీరు",)),
    "tr": (("sen",), ("siz",)),
}
"""Pronouns for someone near, and for someone to be polite to, by language."""
_WEEKDAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_SAMPLE: Final = datetime(2026, 11, 5, 15, 7)
MAX_HOLIDAYS: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One custom with where it is written down."""

    topic: str
    name: str
    value: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A language as written somewhere: the CLDR locale, the country, and what had to be assumed."""

    locale: Any
    country: str | None
    assumed: tuple[str, ...]

    @property
    def language(self) -> str:
        """The language's code."""
        return str(self.locale.language)

    @property
    def decimal(self) -> str:
        """The decimal sign."""
        from babel.numbers import get_decimal_symbol

        return str(get_decimal_symbol(self.locale))

    @property
    def currency(self) -> str | None:
        """The currency used now."""
        from babel.numbers import get_territory_currencies

        found = get_territory_currencies(self.country) if self.country else []
        return str(found[0]) if found else None

    @property
    def date_order(self) -> str:
        """Order of day, month and year in short dates: dmy, mdy or ymd."""
        pattern = str(self.locale.date_formats["short"].pattern).lower()
        return "".join(sorted("dmy", key=pattern.find))

    @property
    def twelve_hours(self) -> bool:
        """Whether times are written with am and pm, or their like."""
        return "h" in str(self.locale.time_formats["short"].pattern)

    @property
    def measurement(self) -> str:
        """metric, US or UK."""
        return MEASUREMENT.get(self.country or "", "metric")


def place(tag: str, country: str | None = None) -> Place:
    """The place of a BCP 47 tag; ValueError for a language or country CLDR does not know."""
    from babel import Locale, UnknownLocaleError

    try:
        locale = Locale.parse(tag, sep="-", resolve_likely_subtags=True)
    except (UnknownLocaleError, ValueError, TypeError) as e:
        raise ValueError(f"CLDR has no locale '{tag}'") from e
    assumed: list[str] = []
    if country is not None and country not in Locale("en").territories:
        raise ValueError(f"CLDR has no country '{country}'")
    named = locale.territory if locale.territory and locale.territory in tag.upper().split("-") else None
    if country is None and named is not None:
        country = named if named.isalpha() else None
    elif country is None:
        country = _likeliest(locale)
        if country is not None:
            assumed.append(f"country {country} is the likeliest for '{tag}' (CLDR likely subtags), not given")
    if country is not None and locale.territory != country:
        wanted = "_".join(filter(None, (locale.language, locale.script, country)))
        try:
            locale = Locale.parse(wanted)
        except (UnknownLocaleError, ValueError):
            assumed.append(f"CLDR has no '{wanted}': formats are those of '{locale}'")
    return Place(locale=locale, country=country, assumed=tuple(assumed))


def _likeliest(locale: Any) -> str | None:
    """The country most of the language's readers live in, as CLDR has it; None for a made or world language."""
    from babel.core import get_global

    table = get_global("likely_subtags")
    for known in (str(locale), "_".join(filter(None, (locale.language, locale.script))), locale.language):
        likely = str(table.get(known, "")).rsplit("_", 1)[-1]
        if len(likely) == 2 and likely.isupper():
            return likely
    return None


def cldr_version() -> str:
    """Of the data babel carries."""
    from babel.core import get_global

    return str(get_global("cldr")["version"])


def facts(where: Place, *, today: date) -> list[Fact]:
    """Writing, numbers, money, dates, measures, names, address and the next holidays."""
    cldr = f"CLDR {cldr_version()} (babel), {where.locale}"
    return [
        *_writing(where, cldr),
        *_money(where, cldr),
        *_times(where, cldr),
        *_people(where),
        *_holidays(where, today),
    ]


def _writing(where: Place, cldr: str) -> list[Fact]:
    from babel.numbers import format_decimal, format_percent, get_group_symbol

    found = {
        "text_direction": where.locale.text_direction,
        "decimal_sign": where.decimal,
        "group_sign": get_group_symbol(where.locale),
        "number_example": format_decimal(1234567.891, locale=where.locale),
        "percent_example": format_percent(0.256, locale=where.locale),
    }
    measures = {
        "measurement_system": where.measurement,
        "temperature_unit": "fahrenheit" if where.country in FAHRENHEIT else "celsius",
        "paper_size": "US-Letter" if where.country in LETTER else "A4",
    }
    return [
        *(Fact(topic="writing", name=n, value=str(v), source=cldr) for n, v in found.items()),
        *(Fact(topic="measures", name=n, value=v, source="CLDR 48 measurementData") for n, v in measures.items()),
    ]


def _money(where: Place, cldr: str) -> list[Fact]:
    from babel.numbers import format_currency, get_currency_symbol

    code = where.currency
    if code is None:
        return []
    found = {
        "currency": code,
        "currency_symbol": get_currency_symbol(code, locale=where.locale),
        "currency_example": format_currency(1234.5, code, locale=where.locale),
    }
    return [Fact(topic="money", name=n, value=str(v), source=cldr) for n, v in found.items()]


def _times(where: Place, cldr: str) -> list[Fact]:
    from babel.dates import format_date, format_time

    week = _week(where)
    found = {
        "date_pattern": where.locale.date_formats["short"].pattern,
        "date_order": where.date_order,
        "date_example": format_date(_SAMPLE.date(), "short", locale=where.locale),
        "date_example_long": format_date(_SAMPLE.date(), "long", locale=where.locale),
        "time_pattern": where.locale.time_formats["short"].pattern,
        "time_example": format_time(_SAMPLE.time(), "short", locale=where.locale),
        "hour_cycle": "12" if where.twelve_hours else "24",
        "first_day_of_week": _WEEKDAYS[_first_day(where.country)],
        "weekend": ", ".join(_weekend(week)),
    }
    return [Fact(topic="dates", name=n, value=str(v), source=cldr) for n, v in found.items()]


def _first_day(country: str | None) -> int:
    return next((day for day, countries in _FIRST_DAYS.items() if country in countries.split()), 0)


def _weekend(week: Any) -> list[str]:
    """The days from its first to its last."""
    first, last = int(week.weekend_start), int(week.weekend_end)
    return [_WEEKDAYS[(first + i) % 7] for i in range((last - first) % 7 + 1)]


def _week(where: Place) -> Any:
    """A locale of the country: weeks go by country, whatever the language."""
    from babel import Locale, UnknownLocaleError

    if where.country is None or where.locale.territory == where.country:
        return where.locale
    try:
        return Locale.parse(f"und_{where.country}")
    except (UnknownLocaleError, ValueError):
        return where.locale


def _people(where: Place) -> list[Fact]:
    first = where.language in SURNAME_FIRST
    found = [
        Fact(
            topic="names",
            name="usual_order",
            value="surname first" if first else "given name first",
            source="CLDR 48 personNamesDefaults",
        )
    ]
    if where.language in ADDRESS:
        near, polite = ADDRESS[where.language]
        value = f"familiar: {', '.join(near)}; polite: {', '.join(polite)}"
        found.append(Fact(topic="address", name="pronouns", value=value, source="grammar of the language (WALS 45A)"))
    return found


def _holidays(where: Place, today: date) -> list[Fact]:
    from importlib.metadata import version

    if where.country is None:
        return []
    days = {**holidays_of(where.country, today.year), **holidays_of(where.country, today.year + 1)}
    source = f"holidays {version('holidays')}, public holidays of {where.country}"
    coming = [
        Fact(topic="holidays", name=days[d], value=d.isoformat(), source=source) for d in sorted(days) if d >= today
    ]
    return coming[:MAX_HOLIDAYS]


@lru_cache(maxsize=512)
def holidays_of(country: str, year: int) -> dict[date, str]:
    """Public holidays of the whole country by their English names where there are; none for one nobody lists."""
    import holidays

    try:
        found = holidays.country_holidays(country, years=year, language="en_US")
    except (NotImplementedError, KeyError):
        return {}
    return {day: str(name) for day, name in found.items()}
