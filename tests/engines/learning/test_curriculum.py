"""The curriculum engine: planted defects are found, sound curricula are left alone, bad input is refused."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from pydantic import ValidationError

from neuroedge.contract.errors import InvalidInput
from neuroedge.contract.models import Embeddings
from neuroedge.engines.learning.curriculum import Curriculum, Input, Output, Standard, Unit
from neuroedge.runtimes import text_encoder
from tests.fakes import make_context

UNITS = [
    Unit(id="count", title="Counting", text="Saying the numbers in order.", grade=1),
    Unit(id="add", title="Addition", text="Addition by counting on.", prerequisites=["count"], grade=1),
    Unit(
        id="mul", title="Multiplication", text="Repeated addition, counting in steps.", prerequisites=["add"], grade=2
    ),
    Unit(id="area", title="Area", text="Length times width by multiplication.", prerequisites=["mul"], grade=3),
    Unit(id="volume", title="Volume", text="Area times height by multiplication.", prerequisites=["area"], grade=4),
]


class _Encoder:
    """A vector by the text's first letter: texts that begin alike are the same."""

    model_id = "letters"
    dim = 26
    max_tokens = 256

    async def encode(self, texts: Sequence[str], *, kind: Literal["query", "passage"] = "passage") -> Embeddings:
        """One-hot."""
        vectors = np.zeros((len(texts), 26), np.float32)
        for row, text in zip(vectors, texts, strict=True):
            row[(ord(text[0].lower()) - 97) % 26] = 1
        return Embeddings(vectors=vectors, tokens=[1] * len(texts))


async def _run(units: list[Unit] | None = None, **fields: Any) -> Output:
    ctx = make_context(models={"text_embedding": _Encoder()})
    return await Curriculum(probe=ctx).run(Input(units=UNITS if units is None else units, **fields), ctx)


def _with(i: int, **changes: Any) -> list[Unit]:
    return [u.model_copy(update=changes) if n == i else u for n, u in enumerate(UNITS)]


@pytest.mark.anyio
async def test_a_sound_curriculum_has_no_findings() -> None:
    """And its directions are supported by who mentions whom."""
    output = await _run(standards=[Standard(id="S", text="Volume of boxes")])
    assert output.cycles == output.orphans == output.gaps == output.redundant == []
    assert output.coverage == 1
    assert output.alignment[0].units == ["volume"]
    assert {d.verdict for d in output.directions} <= {"supported", "unclear"}
    assert output.n_prerequisites == 4
    assert output.reliable


@pytest.mark.anyio
async def test_planted_defects_are_found_each_as_its_kind() -> None:
    """One at a time."""
    circle = await _run(_with(0, prerequisites=["volume"]))
    assert circle.cycles == [["add", "mul", "area", "volume", "count"]]
    lonely = await _run([*UNITS, Unit(id="clock", title="Telling time", text="Hours and minutes.")])
    assert lonely.orphans == ["clock"]
    unknown = await _run(_with(3, prerequisites=["mul", "geometry"]))
    assert [(g.kind, g.unit, g.other) for g in unknown.gaps] == [("unknown_prerequisite", "area", "geometry")]
    late = await _run([UNITS[1], UNITS[0], *UNITS[2:]])
    assert [(g.kind, g.unit, g.other) for g in late.gaps] == [("order", "add", "count")]
    grades = await _run(_with(3, grade=1))
    assert [(g.kind, g.unit, g.other) for g in grades.gaps] == [("grade", "area", "mul")]
    twice = await _run(_with(2, prerequisites=["add", "count"]))
    assert [(p.first, p.second) for p in twice.redundant] == [("count", "mul")]
    same = await _run([*UNITS, Unit(id="vol2", title="Volumes", text="Again.", prerequisites=["area"])])
    assert ("volume", "vol2") in [(p.first, p.second) for p in same.duplicates]


@pytest.mark.anyio
async def test_an_uncovered_standard_is_a_gap_with_its_nearest_unit() -> None:
    """Nothing begins with z."""
    output = await _run(standards=[Standard(id="Z", text="zebras")])
    assert [(g.kind, g.unit, g.other) for g in output.gaps] == [("uncovered_standard", None, "Z")]
    assert output.coverage == 0
    assert not output.alignment[0].covered


@pytest.mark.anyio
async def test_a_prerequisite_that_points_the_wrong_way_is_contradicted() -> None:
    """Addition that needs multiplication."""
    units = [*_with(1, prerequisites=["mul"])[:2], UNITS[2].model_copy(update={"prerequisites": []}), *UNITS[3:]]
    output = await _run(units)
    assert ("mul", "add", "contradicted") in [(d.prerequisite, d.unit, d.verdict) for d in output.directions]


@pytest.mark.anyio
async def test_titles_alone_are_checked_but_not_reliable() -> None:
    """A single unit, too."""
    output = await _run([Unit(id="a", title="A")])
    assert output.directions == output.orphans == []
    assert not output.reliable
    assert any("title only" in w for w in output.warnings)


@pytest.mark.anyio
async def test_hundreds_of_units_in_one_circle() -> None:
    """As many as may be sent, with long texts."""
    units = [
        Unit(id=str(i), title=f"Topic{i}x", text=f"Topic{i - 1}x " * 300, prerequisites=[str((i - 1) % 500)])
        for i in range(500)
    ]
    output = await _run(units)
    assert [len(c) for c in output.cycles] == [500]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"units": [UNITS[0], UNITS[0]]}, ("units", 1, "id")),
        ({"standards": [Standard(id="S", text="a")] * 2}, ("standards", 1, "id")),
    ],
)
async def test_ids_given_twice_are_refused(fields: dict[str, Any], path: tuple[Any, ...]) -> None:
    """With the place of the second."""
    with pytest.raises(InvalidInput) as refused:
        await _run(**fields)
    assert refused.value.errors[0]["loc"] == path


@pytest.mark.parametrize(
    ("payload", "path"),
    [
        ({}, ("units",)),
        ({"units": []}, ("units",)),
        ({"units": [{"id": "a"}]}, ("units", 0, "title")),
        ({"units": [{"id": "a", "title": "A", "prerequisites": ["\ud800"]}]}, ("units", 0, "prerequisites", 0)),
        ({"units": [{"id": "a", "title": "A", "grade": float("nan")}]}, ("units", 0, "grade")),
        ({"units": [{"id": "a", "title": "A", "grade": -1}]}, ("units", 0, "grade")),
        ({"units": [{"id": "a", "title": "A", "text": "x" * 4001}]}, ("units", 0, "text")),
        ({"units": [{"id": "a", "title": "A"}] * 501}, ("units",)),
        ({"units": [{"id": "a", "title": "A"}], "min_cosine": float("inf")}, ("min_cosine",)),
        ({"units": [{"id": "a", "title": "A"}], "standards": [{"id": "s", "text": ""}]}, ("standards", 0, "text")),
    ],
)
def test_bad_input_names_its_field(payload: dict[str, Any], path: tuple[Any, ...]) -> None:
    """Refused with the path of the field."""
    with pytest.raises(ValidationError) as refused:
        Input.model_validate(payload)
    assert path in [error["loc"] for error in refused.value.errors()]


@pytest.fixture(scope="module")
def encoder(models_dir: Path) -> Iterator[Any]:
    """As it is shipped."""
    loaded = text_encoder.load("all-minilm-l6-v2-int8", models_dir / "all-minilm-l6-v2-int8", threads=1, options={})
    yield loaded
    loaded.close()


@pytest.mark.models
@pytest.mark.anyio
async def test_it_proves_itself_on_its_example(encoder: Any) -> None:
    """Its circle, its lonely unit and its uncovered standard."""
    await Curriculum(probe=make_context(models={"text_embedding": encoder})).post_swap_test()
