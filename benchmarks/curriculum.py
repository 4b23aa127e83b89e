"""Planted defects of a curriculum: how many the engine finds, and how many it sees where none is.

    python -m benchmarks.curriculum --models DIR

DIR is the model store. The base (benchmarks/data/curriculum.json, made for this) is 24 units of school mathematics with
prerequisites, a standard for each that paraphrases it, and 12 standards of other subjects. *Graph*: 200 curricula with
one to four defects each of six kinds, seed 35; a finding is right when kind and units are; the interval is Wilson's of
the share of planted defects that is found. *Coverage*: the limit of the cosine is the engine's default, chosen on the
even standards, scored on the odd ones. *Direction*: declared prerequisites the reference distance is clear about; the
units were written to name what they build on, so this shows the method at its best. Made defects are cleaner than real
ones.
"""

import argparse
import asyncio
import json
import random
from pathlib import Path
from typing import Any

from benchmarks.report import Figure, figure, save
from neuroedge.engines.learning.curriculum import Input, Standard, Unit, aligned, structure
from neuroedge.kit.plain_words import known_more
from neuroedge.runtimes import text_encoder

BASE = Path(__file__).parent / "data" / "curriculum.json"
KINDS = ("cycle", "orphan", "unknown_prerequisite", "order", "grade", "redundant")
Finding = tuple[str, str, str]


def load() -> tuple[list[Unit], list[Standard], list[Standard], dict[str, str]]:
    """Units, standards they cover, standards of other subjects, and the unit each standard paraphrases."""
    body = json.loads(BASE.read_text(encoding="utf-8"))
    units = [Unit(**{k: v for k, v in u.items() if k != "standard"}) for u in body["units"]]
    covered = [Standard(id=f"S-{u['id']}", text=u["standard"]) for u in body["units"]]
    others = [Standard(id=f"X-{i}", text=text) for i, text in enumerate(body["other_standards"])]
    return units, covered, others, {f"S-{u['id']}": u["id"] for u in body["units"]}


def plant(units: list[Unit], rng: random.Random) -> tuple[list[Unit], set[Finding]]:
    """A curriculum with defects on units that no other defect touches, and what must be found."""
    changed = [u.model_copy(deep=True) for u in units]
    true: set[Finding] = set()
    touched: set[str] = set()
    for kind in rng.sample(KINDS, rng.randint(1, 4)):
        free = [u for u in changed if u.prerequisites and not touched & {u.id, *u.prerequisites}]
        if free:
            _defect(kind, rng.choice(free), changed, true, touched)
    return changed, true


def _defect(kind: str, unit: Unit, units: list[Unit], true: set[Finding], touched: set[str]) -> None:
    by_id = {u.id: u for u in units}
    first = by_id[unit.prerequisites[0]]
    touched |= {unit.id, *unit.prerequisites}
    if kind == "cycle":
        first.prerequisites.append(unit.id)
        true |= {("cycle", *sorted((unit.id, first.id))), ("order", first.id, unit.id)}  # type: ignore[arg-type]
        if (first.grade or 0) < (unit.grade or 0):
            true.add(("grade", first.id, unit.id))
    elif kind == "orphan":
        units.append(Unit(id=f"lone-{unit.id}", title=f"Project week {unit.id}", text="Free work.", grade=unit.grade))
        true.add(("orphan", f"lone-{unit.id}", ""))
    elif kind == "unknown_prerequisite":
        unit.prerequisites.append(f"gone-{unit.id}")
        true.add(("unknown_prerequisite", unit.id, f"gone-{unit.id}"))
    elif kind == "order":
        units.remove(first)
        units.insert(units.index(unit) + 1, first)
        for other in units:
            if first.id in other.prerequisites and units.index(other) < units.index(first):
                true.add(("order", other.id, first.id))
        for p in first.prerequisites:
            if p in by_id and units.index(by_id[p]) > units.index(first):
                true.add(("order", first.id, p))
    elif kind == "grade":
        first.grade = 12
        for other in units:
            if first.id in other.prerequisites:
                true.add(("grade", other.id, first.id))
    else:
        further = [p for p in first.prerequisites if p in by_id and p not in unit.prerequisites]
        if further:
            unit.prerequisites.append(further[0])
            true.add(("redundant", further[0], unit.id))


def findings(units: list[Unit]) -> set[Finding]:
    """What the engine finds of these kinds."""
    found = structure(Input(units=units))
    answers: set[Finding] = {(g.kind, str(g.unit), g.other) for g in found.gaps if g.kind in KINDS}
    answers |= {("orphan", id_, "") for id_ in found.orphans}
    answers |= {("redundant", p.first, p.second) for p in found.redundant}
    answers |= {("cycle", *sorted(c)) for c in found.cycles if len(c) == 2}  # type: ignore[misc]
    return answers


def graph_defects(units: list[Unit]) -> list[Figure]:
    """Precision, recall and F1 over 200 curricula."""
    rng = random.Random(35)
    right = given = planted = 0
    clean = findings(units)
    for _ in range(200):
        changed, true = plant(units, rng)
        # Redundant edges are not looked for in a curriculum with a circle: the engine says so.
        if any(kind == "cycle" for kind, *_ in true):
            true = {t for t in true if t[0] != "redundant"}
        answers = findings(changed)
        right, given, planted = right + len(answers & true), given + len(answers), planted + len(true)
    precision, recall = right / given, right / planted
    f1 = 2 * precision * recall / (precision + recall)
    note = f"{right} of {planted} planted in 200 curricula found; precision {precision:.3f}, recall {recall:.3f}"
    return [
        figure("planted defects of the graph, F1", "", [f1], at_least=0.95, note=note),
        figure("findings in the sound curriculum", "", [float(len(clean))], at_most=0, note=", ".join(map(str, clean))),
    ]


async def coverage(units: list[Unit], models: Path) -> list[Figure]:
    """F1 of covered against uncovered, on the even and the odd standards."""
    _, covered, others, taught = load()
    encoder = text_encoder.load("all-minilm-l6-v2-int8", models / "all-minilm-l6-v2-int8", threads=1, options={})
    try:
        vectors = (await encoder.encode([f"{u.title}. {u.text}" for u in units])).vectors
        asked = (await encoder.encode([s.text for s in [*covered, *others]], kind="query")).vectors
    finally:
        encoder.close()
    payload = Input(units=units, standards=[*covered, *others])
    alignment = {a.standard: a for a in aligned(payload, vectors, asked)}
    figures = []
    for name, rest in (("even (limit chosen)", 0), ("odd (scored once)", 1)):
        true = {s.id for i, s in enumerate(covered) if i % 2 == rest}
        false = {s.id for i, s in enumerate(others) if i % 2 == rest}
        said = {id_ for id_ in true | false if alignment[id_].covered}
        hit = len(said & true)
        f1 = 2 * hit / (len(said) + len(true))
        best = sum(alignment[id_].best_unit == taught[id_] for id_ in true) / len(true)
        note = f"{hit} of {len(true)} covered, {len(said - true)} of {len(false)} others taken for covered"
        figures.append(figure(f"coverage of standards, F1 on {name}", "", [f1], note=note))
        figures.append(figure(f"nearest unit is the one that teaches it, {name}", "", [best], note=f"n={len(true)}"))
    return figures


def direction(units: list[Unit]) -> list[Figure]:
    """How often RefD points the right way, among the declared prerequisites it is clear about."""
    found = structure(Input(units=units)).directions
    clear = [d for d in found if d.verdict != "unclear"]
    titles = {u.id: u.title.lower() for u in units}
    peer = [known_more(titles[d.unit].split()[0], titles[d.prerequisite].split()[0]) for d in found]
    right = sum(d.verdict == "supported" for d in clear) / max(1, len(clear))
    note = (
        f"clear about {len(clear)} of {len(found)}; the commoner title comes first for {1 - sum(peer) / len(peer):.2f}"
    )
    return [figure("direction of prerequisites right (RefD)", "", [right], note=note)]


def main() -> int:
    """Measure, print, and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True)
    given = parser.parse_args()
    units = load()[0]
    figures: list[Any] = [*graph_defects(units), *asyncio.run(coverage(units, given.models)), *direction(units)]
    command = "python -m benchmarks.curriculum --models DIR"
    save("curriculum", figures, title="Curriculum: planted defects", command=command)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
