"""Facts of the cultural_context engine against CLDR's own JSON, and its flags on planted places.

    python -m benchmarks.cultural_context --cldr DIR

DIR is a folder in which `npm install cldr-core@47 cldr-numbers-full@47 cldr-dates-full@47` was run: the release babel
carries. *Exact match*: every locale of CLDR's fully covered languages for decimal and group sign, short date and short
time; every country for currency, first day of the week, weekend, measurement system, temperature, paper. *Flags*: 400
sentences made from templates (four places that do not fit for each of four readers, and as many that do); they prove
the patterns, not the variety of real text.
"""

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.report import Figure, figure, save
from neuroedge.kit.culture import FAHRENHEIT, LETTER, SURNAME_FIRST, place
from neuroedge.kit.culture import facts as facts_of
from neuroedge.kit.culture_flags import flags

DAYS = {
    "mon": "Monday",
    "tue": "Tuesday",
    "wed": "Wednesday",
    "thu": "Thursday",
    "fri": "Friday",
    "sat": "Saturday",
    "sun": "Sunday",
}
READERS = ("de-DE", "fr-FR", "hi-IN", "pl-PL")
PLANTED = (
    ("unit", "They walked {n} miles to the river.", "They walked {n} km to the river."),
    ("unit", "It was {n} °F in the shade.", "It was {n} °C in the shade."),
    ("date", "The trip is on 0{d}/0{e}/2026.", "The trip is on 2026-0{d}-0{e}."),
    ("currency", "A ticket is ${n}.", "A ticket is {n}."),
)


def supplemental(folder: Path, name: str, key: str) -> Any:
    """A table of cldr-core."""
    path = folder / "node_modules" / "cldr-core" / "supplemental" / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8"))["supplemental"][key]


def locales(folder: Path) -> list[Figure]:
    """Signs and patterns of every locale that both have."""
    from datetime import date

    names = ("decimal_sign", "group_sign", "date_pattern", "time_pattern")
    right: dict[str, list[bool]] = {name: [] for name in names}
    modern = _modern(folder)
    wrong: list[str] = []
    for path in sorted((folder / "node_modules" / "cldr-numbers-full" / "main").iterdir()):
        truth = _truth(folder, path.name)
        try:
            where = place(path.name)
        except ValueError:
            continue
        if path.name.split("-")[0] not in modern:
            continue
        if str(where.locale).replace("_", "-") != path.name and "-" in path.name:
            continue
        told = {f.name: f.value for f in facts_of(where, today=date(2026, 1, 1))}
        for name in right:
            right[name].append(told[name] == truth[name])
            if told[name] != truth[name]:
                wrong.append(f"{path.name} {name}: {told[name]!r}, CLDR {truth[name]!r}")
    print("\n".join(wrong[:20]))
    return [_exact(name, answers, "locales") for name, answers in right.items()]


def _modern(folder: Path) -> set[str]:
    """Languages CLDR covers fully: of the others babel has drafts that the JSON release leaves out."""
    path = folder / "node_modules" / "cldr-core" / "coverageLevels.json"
    levels = json.loads(path.read_text(encoding="utf-8"))["coverageLevels"]
    return {tag.split("-")[0] for tag, level in levels.items() if level == "modern"}


def _truth(folder: Path, tag: str) -> dict[str, str]:
    modules = folder / "node_modules"
    numbers = json.loads((modules / "cldr-numbers-full" / "main" / tag / "numbers.json").read_text(encoding="utf-8"))
    dates = json.loads((modules / "cldr-dates-full" / "main" / tag / "ca-gregorian.json").read_text(encoding="utf-8"))
    signs = numbers["main"][tag]["numbers"]["symbols-numberSystem-latn"]
    calendar = dates["main"][tag]["dates"]["calendars"]["gregorian"]
    return {
        "decimal_sign": signs["decimal"],
        "group_sign": signs["group"],
        "date_pattern": _plain(calendar["dateFormats"]["short"]),
        "time_pattern": _plain(calendar["timeFormats"]["short"]),
    }


def _plain(pattern: Any) -> str:
    return str(pattern["_value"] if isinstance(pattern, dict) else pattern)


def countries(folder: Path) -> list[Figure]:
    """Money, weeks and measures of every country."""
    from datetime import date

    regions = supplemental(folder, "currencyData", "currencyData")["region"]
    week = supplemental(folder, "weekData", "weekData")
    measures = supplemental(folder, "measurementData", "measurementData")
    right: dict[str, list[bool]] = {}
    wrong: list[str] = []
    for country in sorted(c for c in regions if len(c) == 2 and c.isalpha()):
        try:
            where = place("en", country)
        except ValueError:
            continue
        told = {f.name: f.value for f in facts_of(where, today=date(2026, 1, 1))}
        truth = {
            "currency": _tender(regions[country]),
            "first_day_of_week": DAYS[_of(week["firstDay"], country)],
            "weekend": _weekend(_of(week["weekendStart"], country), _of(week["weekendEnd"], country)),
            "measurement_system": _of(measures["measurementSystem"], country),
            "temperature_unit": _temperature(measures, country),
            "paper_size": _of(measures["paperSize"], country),
        }
        for name, value in truth.items():
            if value is not None:
                right.setdefault(name, []).append(told.get(name) == value)
                if told.get(name) != value:
                    wrong.append(f"{country} {name}: {told.get(name)!r}, CLDR {value!r}")
    print("\n".join(wrong[:20]))
    return [_exact(name, answers, "countries") for name, answers in right.items()]


def _of(table: Mapping[str, str], country: str) -> str:
    return table.get(country, table["001"])


def _tender(entries: list[dict[str, dict[str, str]]]) -> str | None:
    """The only currency in use; None where there are several or none, as no table says which comes first."""
    now = [code for e in entries for code, at in e.items() if "_to" not in at and at.get("_tender") != "false"]
    return now[0] if len(now) == 1 else None


def _weekend(first: str, last: str) -> str:
    days = list(DAYS)
    count = (days.index(last) - days.index(first)) % 7 + 1
    return ", ".join(DAYS[days[(days.index(first) + i) % 7]] for i in range(count))


def _temperature(measures: Mapping[str, Mapping[str, str]], country: str) -> str:
    table = measures["measurementSystem-category-temperature"]
    system = table.get(country, measures["measurementSystem"].get(country, "metric"))
    return "fahrenheit" if system == "US" else "celsius"


def _exact(name: str, answers: list[bool], of: str) -> Figure:
    share = sum(answers) / len(answers)
    note = f"{sum(answers)} of {len(answers)} {of}"
    return figure(f"{name} exactly as CLDR 47", "", [share], at_least=0.99, note=note)


def copied(folder: Path) -> list[Figure]:
    """The tables copied into the code beside the release."""
    measures = supplemental(folder, "measurementData", "measurementData")
    letter = {c for c, size in measures["paperSize"].items() if size == "US-Letter"}
    hot = {c for c, s in measures["measurementSystem-category-temperature"].items() if s == "US"} | {"US"}
    checks: dict[str, Callable[[], bool]] = {
        "paper": lambda: letter == LETTER,
        "temperature": lambda: hot == FAHRENHEIT,
    }
    path = folder / "node_modules" / "cldr-core" / "supplemental" / "personNamesDefaults.json"
    if path.exists():
        names = supplemental(folder, "personNamesDefaults", "personNamesDefaults")["surnameFirst"].split()
        checks["order of names"] = lambda: set(names) == SURNAME_FIRST
    return [
        figure(f"table of {name} equals CLDR's", "", [float(check())], at_least=1) for name, check in checks.items()
    ]


def planted() -> list[Figure]:
    """Recall and false alarms of the flags."""
    found = false = total = 0
    for reader in READERS:
        where = place(reader)
        for kind, odd, fitting in PLANTED:
            for n in range(25):
                numbers = {"n": 20 + n, "d": 1 + n % 4, "e": 5 + n % 5}
                total += 1
                found += kind in {f.kind for f in flags(odd.format(**numbers), where, source=None, year=2026)}
                false += bool(flags(fitting.format(**numbers), where, source=None, year=2026))
    return [
        figure("planted places found", "", [found / total], at_least=0.99, note=f"{found} of {total}, templates"),
        figure("flags where nothing is odd", "", [false / total], at_most=0.01, note=f"{false} of {total}, templates"),
    ]


def main() -> int:
    """Compare, print, and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cldr", type=Path, required=True, help="folder with the npm packages of CLDR")
    given = parser.parse_args()
    figures = [*locales(given.cldr), *countries(given.cldr), *copied(given.cldr), *planted()]
    command = "python -m benchmarks.cultural_context --cldr DIR"
    save("cultural_context", figures, title="Customs of writing against CLDR", command=command)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
