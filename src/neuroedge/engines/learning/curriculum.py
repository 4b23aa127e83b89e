"""Checks a curriculum: circles, loose ends, order, coverage of standards, and the direction of its prerequisites.

Method: units and prerequisites as a directed graph (networkx): strongly connected components, missing references,
transitive reduction. Coverage and alignment: cosine of sentence vectors (role text_embedding) of standards and units.
Direction: reference distance, RefD (Liang et al. 2015), over who mentions whom. Licence of the code: Apache-2.0.
Limits: a cosine says that texts are about the same, not that a unit teaches the standard well; RefD needs units that
name each other. Findings are for a teacher to judge. Texts in a language the encoder does not know align badly.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from neuroedge.contract.engine import Engine, EngineContext, EngineInput, EngineOutput
from neuroedge.contract.errors import InvalidInput, NeuroEdgeError
from neuroedge.contract.models import TEXT_EMBEDDING, Floats
from neuroedge.kit.reference_distance import CLEAR, reference_distances
from neuroedge.kit.skill_graph import cycles, graph, redundant

MIN_DIRECTED: Final = 5
"""Units with texts below which mentions say nothing."""
SUGGESTED: Final = 0.3
"""Reference distance from which an undeclared prerequisite is suggested."""
DUPLICATE_COSINE: Final = 0.92
MAX_FINDINGS: Final = 500
_BATCH: Final = 64
GapKind = Literal["unknown_prerequisite", "order", "grade", "uncovered_standard", "undeclared_prerequisite"]


class Unit(BaseModel):
    """A lesson, chapter or skill."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    id: str = Field(min_length=1, max_length=200, description="The caller's name for it, unique in the request.")
    title: str = Field(min_length=1, max_length=300, description="Its title.")
    text: str = Field(default="", max_length=4000, description="What it teaches; the title stands alone if empty.")
    prerequisites: list[Annotated[str, Field(min_length=1, max_length=200)]] = Field(
        default_factory=list, max_length=100, description="Ids of units that come first."
    )
    grade: float | None = Field(default=None, ge=0, le=20, description="School grade it is for.")


class Standard(BaseModel):
    """An objective the curriculum must cover."""

    model_config = ConfigDict(extra="forbid")

    id: str = Field(min_length=1, max_length=200, description="Its id.")
    text: str = Field(min_length=1, max_length=2000, description="What is to be known or done.")


class Input(EngineInput):
    """A curriculum in the order it is taught."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    units: list[Unit] = Field(min_length=1, max_length=500, description="Units, first taught first.")
    standards: list[Standard] = Field(default_factory=list, max_length=500, description="Objectives to be covered.")
    min_cosine: float = Field(default=0.35, ge=0, le=1, description="Cosine from which a unit covers a standard.")


class Gap(BaseModel):
    """Something missing or out of place."""

    kind: GapKind = Field(description="Which kind.")
    unit: str | None = Field(description="The unit it concerns; null for a standard.")
    other: str = Field(description="The prerequisite, or the standard.")
    message: str = Field(description="What is wrong.")


class Alignment(BaseModel):
    """How a standard is covered."""

    standard: str = Field(description="Its id.")
    covered: bool = Field(description="Whether a unit's cosine reaches the limit.")
    units: list[str] = Field(description="Units that cover it, nearest first, at most 5.")
    best_unit: str = Field(description="The nearest unit, covering or not.")
    cosine: float = Field(description="Its cosine.")


class Direction(BaseModel):
    """What mentions say of a declared prerequisite."""

    prerequisite: str = Field(description="Unit that is to come first.")
    unit: str = Field(description="Unit that needs it.")
    refd: float = Field(description="Reference distance: positive supports the direction.")
    verdict: Literal["supported", "unclear", "contradicted"] = Field(description="Beyond ±0.05 it is clear.")


class Pair(BaseModel):
    """Two units."""

    first: str = Field(description="One unit.")
    second: str = Field(description="The other.")


class Output(EngineOutput):
    """Findings, each with the units it concerns."""

    cycles: list[list[str]] = Field(description="Units that need each other; [a, b] is a → b → a. At most 20.")
    orphans: list[str] = Field(
        description="Units without prerequisites that nothing needs, where others are connected."
    )
    gaps: list[Gap] = Field(description="What is missing or out of place, at most 500.")
    redundant: list[Pair] = Field(description="Prerequisite (first) of a unit (second) that others already imply.")
    duplicates: list[Pair] = Field(description="Units that teach nearly the same, by their texts.")
    alignment: list[Alignment] = Field(description="One for each standard.")
    coverage: float | None = Field(description="Share of the standards covered (0..1); null without standards.")
    directions: list[Direction] = Field(description="One for each declared prerequisite; empty with too few texts.")
    n_units: int = Field(description="Units.")
    n_prerequisites: int = Field(description="Declared prerequisites that name a unit.")
    reliable: bool = Field(description="Whether alignment and directions rest on enough text.")
    warnings: list[str] = Field(description="What is uncertain.")


@dataclass(slots=True)
class Found:
    """Findings of the graph and of the mentions."""

    cycles: list[list[str]]
    orphans: list[str]
    gaps: list[Gap]
    redundant: list[Pair]
    directions: list[Direction] = field(default_factory=list)


class Curriculum(Engine[Input, Output]):
    """Graph checks, embedding alignment, reference distance."""

    name = "curriculum"
    title = "Curriculum validation"
    method = "dag-checks+embedding-alignment+refd"
    example = Input(
        units=[
            Unit(id="count", title="Counting", text="Saying the numbers in order and counting objects."),
            Unit(id="add", title="Addition", text="Putting together by counting on.", prerequisites=["count"]),
            Unit(id="sub", title="Subtraction", text="Taking away; checking by addition.", prerequisites=["add"]),
            Unit(id="mul", title="Multiplication", text="Repeated addition of equal groups.", prerequisites=["div"]),
            Unit(id="div", title="Division", text="Sharing equally, undoing multiplication.", prerequisites=["mul"]),
            Unit(id="clock", title="Telling time", text="Reading the hours and minutes of a clock."),
        ],
        standards=[
            Standard(id="S1", text="Add whole numbers by counting on."),
            Standard(id="S2", text="Describe the water cycle with evaporation and rain."),
        ],
    )
    needs = (TEXT_EMBEDDING,)
    timeout_s = 120.0

    async def run(self, payload: Input, ctx: EngineContext) -> Output:
        """Check. Raises InvalidInput for ids given twice; other faults of the curriculum are findings."""
        _unique("units", [u.id for u in payload.units])
        _unique("standards", [s.id for s in payload.standards])
        found = await asyncio.to_thread(structure, payload)
        texts = [f"{u.title}. {u.text}".strip() for u in payload.units]
        async with ctx.models.lease(TEXT_EMBEDDING) as encoder:
            units = await _vectors(encoder, texts, "passage")
            standards = await _vectors(encoder, [s.text for s in payload.standards], "query")
            models = [encoder.model_id]
        alignment = aligned(payload, units, standards)
        found.gaps += [
            Gap(
                kind="uncovered_standard",
                unit=None,
                other=a.standard,
                message=f"nearest is {a.best_unit} at {a.cosine:.2f}",
            )
            for a in alignment
            if not a.covered
        ]
        warnings = _warnings(payload, found)
        return Output(
            method=self.method,
            models=models,
            cycles=found.cycles,
            orphans=found.orphans,
            gaps=found.gaps[:MAX_FINDINGS],
            redundant=found.redundant[:MAX_FINDINGS],
            duplicates=_duplicates(payload, units),
            alignment=alignment,
            coverage=round(sum(a.covered for a in alignment) / len(alignment), 4) if alignment else None,
            directions=found.directions,
            n_units=len(payload.units),
            n_prerequisites=sum(_edges(payload).values()),
            reliable=not warnings,
            warnings=warnings,
        )

    async def post_swap_test(self) -> None:
        """The example's circle, its lonely clock and its uncovered water cycle."""
        await super().post_swap_test()
        answer = await self.run(self.example, self.probe)
        uncovered = [g.other for g in answer.gaps if g.kind == "uncovered_standard"]
        if (answer.cycles, answer.orphans, uncovered) != ([["div", "mul"]], ["clock"], ["S2"]):
            raise NeuroEdgeError("the curriculum engine does not find what is planted in its example")


def _unique(field_name: str, ids: Sequence[str]) -> None:
    seen: set[str] = set()
    for i, id_ in enumerate(ids):
        if id_ in seen:
            message = f"'{id_}' is there twice"
            raise InvalidInput(
                f"{field_name}.{i}.id: {message}",
                hint="give each one its own id",
                errors=[{"loc": (field_name, i, "id"), "msg": message, "type": "value_error"}],
            )
        seen.add(id_)


def _edges(payload: Input) -> dict[str, int]:
    """By unit, its prerequisites that name a unit."""
    ids = {u.id for u in payload.units}
    return {u.id: len(set(u.prerequisites) & ids) for u in payload.units}


def structure(payload: Input) -> Found:
    """What the graph and the mentions tell, without vectors."""
    units = {u.id: u for u in payload.units}
    needs = {u.id: [p for p in dict.fromkeys(u.prerequisites) if p in units] for u in payload.units}
    built = graph(needs)
    circles = cycles(built)
    needed = {p for firsts in needs.values() for p in firsts}
    connected = bool(needed)
    orphans = [id_ for id_, firsts in needs.items() if connected and not firsts and id_ not in needed]
    pairs = [] if circles else [Pair(first=a, second=b) for a, b in redundant(built)]
    found = Found(cycles=circles, orphans=orphans, gaps=_gaps(payload, units), redundant=pairs)
    if len([u for u in payload.units if u.text]) >= MIN_DIRECTED:
        _direct(payload, needs, built, found)
    return found


def _gaps(payload: Input, units: dict[str, Unit]) -> list[Gap]:
    place = {u.id: i for i, u in enumerate(payload.units)}
    found = []
    for u in payload.units:
        for p in dict.fromkeys(u.prerequisites):
            if p not in units:
                found.append(Gap(kind="unknown_prerequisite", unit=u.id, other=p, message="no unit has this id"))
                continue
            if place[p] > place[u.id]:
                found.append(Gap(kind="order", unit=u.id, other=p, message="taught later than what needs it"))
            grade, first = u.grade, units[p].grade
            if grade is not None and first is not None and first > grade:
                message = f"for grade {first:g}, needed in grade {grade:g}"
                found.append(Gap(kind="grade", unit=u.id, other=p, message=message))
    return found


def _direct(payload: Input, needs: dict[str, list[str]], built: Any, found: Found) -> None:
    """What mentions say of the declared prerequisites, and of those that may be missing."""
    import networkx as nx

    ids = [u.id for u in payload.units]
    at = {id_: i for i, id_ in enumerate(ids)}
    refd = reference_distances([u.title for u in payload.units], [f"{u.title}. {u.text}" for u in payload.units])
    for id_, firsts in needs.items():
        for p in firsts:
            value = float(refd[at[id_], at[p]])
            verdict: Literal["supported", "unclear", "contradicted"] = "unclear"
            if abs(value) > CLEAR:
                verdict = "supported" if value > 0 else "contradicted"
            found.directions.append(Direction(prerequisite=p, unit=id_, refd=round(value, 4), verdict=verdict))
    reach = {id_: nx.descendants(built, id_) for id_ in ids}
    for a, b in np.argwhere(refd > SUGGESTED):
        unit, first = ids[int(a)], ids[int(b)]
        if unit not in reach[first] and first not in reach[unit]:
            message = f"its topics lean on this one (reference distance {refd[a, b]:.2f}), but no prerequisite says so"
            found.gaps.append(Gap(kind="undeclared_prerequisite", unit=unit, other=first, message=message))


async def _vectors(encoder: Any, texts: Sequence[str], kind: Literal["query", "passage"]) -> Floats:
    rows = [(await encoder.encode(texts[i : i + _BATCH], kind=kind)).vectors for i in range(0, len(texts), _BATCH)]
    return np.concatenate(rows) if rows else np.zeros((0, encoder.dim), np.float32)


def aligned(payload: Input, units: Floats, standards: Floats) -> list[Alignment]:
    """Each standard with the units nearest to it; vectors are [units, dim] and [standards, dim]."""
    found = []
    for standard, row in zip(payload.standards, standards @ units.T, strict=True):
        ranked = np.argsort(-row, kind="stable")
        covering = [payload.units[int(i)].id for i in ranked[:5] if row[i] >= payload.min_cosine]
        best = int(ranked[0])
        found.append(
            Alignment(
                standard=standard.id,
                covered=bool(covering),
                units=covering,
                best_unit=payload.units[best].id,
                cosine=round(float(row[best]), 4),
            )
        )
    return found


def _duplicates(payload: Input, units: Floats) -> list[Pair]:
    near = np.argwhere(np.triu(units @ units.T, k=1) >= DUPLICATE_COSINE)
    return [Pair(first=payload.units[int(a)].id, second=payload.units[int(b)].id) for a, b in near[:MAX_FINDINGS]]


def _warnings(payload: Input, found: Found) -> list[str]:
    warnings = []
    with_text = sum(bool(u.text) for u in payload.units)
    if with_text < len(payload.units):
        warnings.append(f"{len(payload.units) - with_text} units have a title only: they align roughly")
    if with_text < MIN_DIRECTED:
        warnings.append(f"{with_text} units with text, directions need {MIN_DIRECTED}")
    if found.cycles:
        warnings.append("redundant prerequisites are not looked for while units need each other in a circle")
    if len(found.gaps) > MAX_FINDINGS:
        warnings.append(f"{len(found.gaps)} gaps, the first {MAX_FINDINGS} are given")
    return warnings
