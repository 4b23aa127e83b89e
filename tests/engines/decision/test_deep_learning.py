"""The deep learning engine: what it learns, what it says of itself, hostile tables, rows it cannot read."""

import base64
import io
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from neuroedge.contract.engine import EngineContext
from neuroedge.contract.errors import InvalidInput, ModelFailed, NotFound, TooLarge
from neuroedge.contract.trained import TrainedModel
from neuroedge.engines.decision.deep_learning import DeepLearning, Input, Output
from neuroedge.runtimes.tabular import TabularSessions
from tests.fakes import FakeBlobs, RecordedProgress, make_context

pytestmark = pytest.mark.anyio


class _Kept:
    """The TrainedModels port in memory, over real sessions."""

    def __init__(self) -> None:
        self.sessions = TabularSessions()
        self.graphs: dict[UUID, bytes] = {}
        self.models: dict[UUID, TrainedModel] = {}

    async def keep(self, *, name: str, kind: str, card: Mapping[str, Any], graph: bytes) -> TrainedModel:
        stored = json.loads(json.dumps(card))
        model = TrainedModel(
            id=uuid4(), name=name, kind=kind, card=stored, bytes=len(graph), sha256="s", created_at=datetime.now(UTC)
        )
        self.models[model.id], self.graphs[model.id] = model, graph
        return model

    async def get(self, model_id: UUID) -> TrainedModel:
        if model_id not in self.models:
            raise NotFound("no such model")
        return self.models[model_id]

    async def run(self, model: TrainedModel, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return await self.sessions.run(self.graphs[model.id], inputs)

    async def try_out(self, graph: bytes, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return await self.sessions.run(graph, inputs)


@pytest.fixture
async def context() -> AsyncIterator[EngineContext]:
    """With a place for models."""
    kept = _Kept()
    yield replace(make_context(), trained=kept)
    await kept.sessions.aclose()


def _csv(n: int = 200, *, seed: int = 0) -> str:
    """y is a crossing of x and colour, which no straight line separates; z is a number of them; a hole in ten rows."""
    rng = np.random.default_rng(seed)
    lines = ["x,colour,y,z"]
    for i in range(n):
        x, colour = rng.uniform(-1, 1), rng.choice(["red", "blue"])
        y = "in" if (x > 0) == (colour == "red") else "out"
        lines.append(f"{'' if i % 20 == 3 else f'{x:.3f}'},{colour},{y},{3 * x + (colour == 'red') * 5 + 1000:.3f}")
    return "\n".join(lines)


async def _train(context: EngineContext, csv: str | None = None, **order: Any) -> Output:
    table = order.pop("table", {"csv": csv if csv is not None else _csv()})
    given = {"name": "m", "task": "classification", "target": "y", "table": table, "hidden": [16], "epochs": 60}
    return await DeepLearning(probe=context).run(Input.model_validate({"train": {**given, **order}}), context)


async def _predict(context: EngineContext, model: UUID | None, *rows: dict[str, Any]) -> Output:
    payload = Input.model_validate({"predict": {"model": str(model), "rows": list(rows)}})
    return await DeepLearning(probe=context).run(payload, context)


async def test_a_crossing_is_learned_that_logistic_regression_cannot(context: EngineContext) -> None:
    """Better than the baseline beyond chance; parity; the stored graph says the same again."""
    told = await _train(context, _csv(600), features=["x", "colour"])
    assert told.holdout is not None
    assert told.trained is not None
    figures = {f.name: f for f in told.holdout.figures}
    assert figures["accuracy"].value > 0.85 > 0.7 > figures["accuracy"].baseline
    assert figures["accuracy"].low <= figures["accuracy"].value <= figures["accuracy"].high
    assert told.holdout.better_low > 0
    assert told.reliable
    assert (told.trained.onnx_parity or 0) <= 1e-5
    assert told.trained.curve[0].validation_loss > told.trained.curve[-1].validation_loss
    answer = await _predict(
        context, told.model_id, {"x": 0.9, "colour": "red"}, {"x": 0.9, "colour": "blue"}, {"x": "-0.9", "colour": None}
    )
    assert [p.label for p in answer.predictions[:2]] == ["in", "out"]
    assert sum((answer.predictions[2].probabilities or {}).values()) == pytest.approx(1, abs=1e-4)


async def test_a_regression_answers_in_the_targets_unit(context: EngineContext) -> None:
    """A target far from zero comes back there."""
    told = await _train(context, task="regression", target="z", features=["x", "colour"])
    assert told.holdout is not None
    assert told.holdout.figures[0].value < told.holdout.figures[0].baseline
    answer = await _predict(context, told.model_id, {"x": 0, "colour": "red"})
    assert answer.predictions[0].value == pytest.approx(1005, abs=1.5)


async def test_clusters_are_found_and_named_by_number(context: EngineContext) -> None:
    """Three heaps: three clusters without being told, better than shuffled columns."""
    rng = np.random.default_rng(1)
    heaps = [(0, 0), (10, 0), (0, 10)]
    lines = [f"{a + rng.normal():.3f},{b + rng.normal():.3f}" for a, b in heaps for _ in range(60)]
    told = await _train(context, "\n".join(["a,b", *lines]), task="clusters", target=None)
    assert told.trained is not None
    assert sorted(told.trained.clusters) == pytest.approx([48, 48, 48], abs=8)
    answer = await _predict(context, told.model_id, {"a": 0, "b": 0}, {"a": 10, "b": 0}, {"a": 0, "b": 10})
    assert len({p.cluster for p in answer.predictions}) == 3


@pytest.mark.parametrize("task", ["classification", "regression", "clusters"])
async def test_a_graph_that_answers_no_numbers_is_not_kept(context: EngineContext, task: str) -> None:
    """Of a column so small that float32 cannot divide by its spread; clusters are numbered all the same."""
    rng = np.random.default_rng(0)
    y = "uv" if task == "classification" else "01"
    rows = [f"{(rng.random() + i % 2) * 1e-42:.6e},{rng.random():.3f},{y[i % 2]}" for i in range(120)]
    target = None if task == "clusters" else "y"
    with pytest.raises(ModelFailed, match="no numbers") as refused:
        await _train(context, "\n".join(["a,b,y", *rows]), task=task, target=target, epochs=5)
    assert "very small numbers" in (refused.value.hint or "")


async def test_topics_part_two_vocabularies(context: EngineContext) -> None:
    """Each topic's words are of one of them; nothing is stored."""
    rng = np.random.default_rng(1)
    words = [["cat", "dog", "fur", "paw", "tail", "vet"], ["loan", "bank", "rate", "debt", "bond", "fund"]]
    lines = [" ".join(rng.choice(words[i % 2], 4, replace=False)) for i in range(120)]
    told = await _train(context, "\n".join(["text", *lines]), task="topics", target="text", groups=2)
    assert told.trained is not None
    found = sorted(set(t.words) for t in told.trained.topics)
    assert found in ([set(words[0]), set(words[1])], [set(words[1]), set(words[0])])
    assert told.model_id is None


async def test_noise_is_not_called_reliable(context: EngineContext) -> None:
    """A target that hangs on nothing."""
    rng = np.random.default_rng(5)
    lines = [f"{rng.normal():.3f},{rng.choice(['a', 'b'])}" for _ in range(150)]
    told = await _train(context, "\n".join(["x,y", *lines]))
    assert not told.reliable
    assert any("not better" in w for w in told.warnings)
    answer = await _predict(context, told.model_id, {"x": 1})
    assert not answer.reliable
    assert any("when trained" in w for w in answer.warnings)


async def test_rows_of_one_group_are_in_one_part(context: EngineContext) -> None:
    """A column that only names the person gives no better figure; four persons cannot be split."""
    rng = np.random.default_rng(6)
    rows = [(p, v, "ab"[v > 0]) for p in range(40) for v in [rng.normal()] for _ in range(5)]
    csv = "\n".join(["person,v,y", *(f"p{p},{v:.3f},{y}" for p, v, y in rows)])
    assert (await _train(context, csv, group="person")).model_id
    with pytest.raises(InvalidInput, match="5 groups"):
        await _train(
            context,
            "\n".join(csv.splitlines()[:1] + [f"p{i % 4},1.{i},{'ab'[i % 2]}" for i in range(90)]),
            group="person",
        )


async def test_parquet_and_base64_are_read_as_csv_is(context: EngineContext) -> None:
    """The same table, the same columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(7)
    x = rng.normal(size=120)
    target = io.BytesIO()
    pq.write_table(pa.table({"x": x, "ok": x > 0, "y": np.where(x > 0, "a", "b")}), target)
    encoded = base64.b64encode(target.getvalue()).decode()
    told = await _train(context, table={"base64": encoded, "format": "parquet"})
    assert told.trained is not None
    assert [(f.name, f.kind) for f in told.trained.features] == [("x", "number"), ("ok", "text")]
    answer = await _predict(context, told.model_id, {"x": 2.5, "ok": True})
    assert answer.predictions[0].label == "a"
    assert not any("cells hold" in w for w in answer.warnings)
    with pytest.raises(InvalidInput, match="Parquet"):
        await _train(context, table={"base64": base64.b64encode(b"PAR1 nonsense PAR1").decode(), "format": "parquet"})


async def test_the_learning_curve_is_told_as_it_grows(context: EngineContext) -> None:
    """Progress names the pass and its losses."""
    progress = RecordedProgress()
    await _train(replace(context, progress=progress), _csv(3000), hidden=[64, 64], epochs=30)
    assert any(stage.startswith("epoch ") and "validation" in stage for stage, _ in progress.reports)


@pytest.mark.parametrize(
    ("csv", "said"),
    [
        ("", "rows"),
        ("a,y", "no rows"),
        ("a,a,y\n" + "1,2,x\n" * 60, "twice"),
        ("a,,y\n" + "1,2,x\n" * 60, "no name"),
        ("a,y\n1,x,3\n", "line 2"),
        (",".join(f"c{i}" for i in range(1_000_000)) + "\n", "1000000 columns"),
        ("a,y\n" + "".join(f"{i},x\n" for i in range(60)), "different values"),
        ("a,y\n" + "".join(f"{i},{'xy'[i % 2]}\n" for i in range(20)), "too few"),
        ("a,y\n" + "".join(f"{i},{'x' if i else 'y'}\n" for i in range(60)), "has 1 rows"),
        ("a,y\n" + "".join(f",{'xy'[i % 2]}\n" for i in range(60)), "every cell is missing"),
        ("a,y\n" + "".join(f"{i},\n" for i in range(60)), "0 rows have a target"),
        ("a,y\n" + "".join(f"{'inf' if i == 5 else i},{'xy'[i % 2]}\n" for i in range(60)), "row 6 of 'a'"),
        ("a,y\n" + "".join(f"{'1e999' if i == 5 else i},{'xy'[i % 2]}\n" for i in range(60)), "row 6 of 'a'"),
        ('a,y\n"' + "x" * 200_000 + '",y\n', "line 2"),
        ('a,y\n"open quote,x\n', "line"),
        ("a,y\n1,\x00\n", "zero character"),
    ],
)
async def test_a_table_that_cannot_be_used_is_refused_with_the_reason(
    context: EngineContext, csv: str, said: str
) -> None:
    """Never a crash, never a model of it."""
    with pytest.raises(InvalidInput) as refused:
        await _train(context, csv)
    assert said in f"{refused.value.detail} {refused.value.hint}"


async def test_a_file_in_another_encoding_or_beyond_the_limit_is_refused(context: EngineContext) -> None:
    """Named by its byte, and by its size."""
    latin = base64.b64encode("a,y\né,x\n".encode("latin-1")).decode()
    with pytest.raises(InvalidInput, match="byte 4 is 0xe9"):
        await _train(context, table={"base64": latin})
    with pytest.raises(InvalidInput, match="base64"):
        await _train(context, table={"base64": "%%%"})
    blobs = FakeBlobs()
    await blobs.put("files/1/content", b"a,y\n" + b"1,x\n" * (4 << 20))
    with pytest.raises(TooLarge):
        await _train(replace(context, blobs=blobs), table={"blob": "files/1/content"})


async def test_formulas_are_texts_and_half_numbers_are_told(context: EngineContext) -> None:
    """No cell is ever run; a number column spoilt by a few cells says so; one text a row is left out."""
    rng = np.random.default_rng(9)
    lines = ["f,n,id,x,y"]
    for i in range(150):
        x = rng.normal()
        formula = ["=1+1", '"=HYPERLINK(""http://h"",1)"'][i % 2]
        lines.append(f"{formula},{'n/k' if i == 3 else i % 7},row{i},{x:.2f},{'ab'[x > 0]}")
    told = await _train(context, "\n".join(lines))
    assert told.trained is not None
    kinds = {f.name: (f.kind, f.values) for f in told.trained.features}
    assert kinds["f"] == ("text", ["=1+1", '=HYPERLINK("http://h",1)'])
    assert "id" not in kinds
    assert any("'id' is left out" in w for w in told.warnings)
    assert any("1 of 150 cells of 'n'" in w for w in told.warnings)


async def test_what_was_not_in_the_table_is_marked(context: EngineContext) -> None:
    """A colour never seen is answered, but not as reliable."""
    told = await _train(context, _csv(600), features=["x", "colour"])
    answer = await _predict(context, told.model_id, {"x": 0.5, "colour": "mauve"})
    assert not answer.reliable
    assert "1 cells" in answer.warnings[0]
    with pytest.raises(NotFound):
        await _predict(context, uuid4(), {"x": 1})
    with pytest.raises(InvalidInput, match="no column 'nope'"):
        await _train(context, features=["nope"])
    with pytest.raises(InvalidInput, match="texts"):
        await _train(context, task="regression")


TRAIN = {"name": "m", "task": "classification", "target": "y", "table": {"csv": "a"}}


async def test_another_engines_model_predicts_no_rows(context: EngineContext) -> None:
    """A kept head of the classification engine is told apart, with the engine that uses it."""
    head = await context.trained.keep(name="h", kind="text-head", card={"labels": ["a"]}, graph=b"")
    with pytest.raises(InvalidInput, match="text-head"):
        await _predict(context, head.id, {"x": 1.0})


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"train": TRAIN, "predict": {"model": str(uuid4()), "rows": [{}]}},
        {"train": {**TRAIN, "target": None}},
        {"train": {**TRAIN, "task": "clusters"}},
        {"train": {**TRAIN, "table": {}}},
        {"train": {**TRAIN, "table": {"csv": "a", "base64": "YQ=="}}},
        {"train": {**TRAIN, "hidden": []}},
        {"train": {**TRAIN, "hidden": [100_000]}},
        {"train": {**TRAIN, "epochs": 0}},
        {"train": {**TRAIN, "holdout": float("nan")}},
        {"train": {**TRAIN, "seed": -1}},
        {"predict": {"model": "not an id", "rows": [{"a": 1}]}},
        {"predict": {"model": str(uuid4()), "rows": []}},
        {"predict": {"model": str(uuid4()), "rows": [{"a": float("inf")}]}},
        {"predict": {"model": str(uuid4()), "rows": [{"a": {"b": 1}}]}},
        {"predict": {"model": str(uuid4()), "rows": [{}] * 1001}},
    ],
)
def test_bad_input_is_refused(payload: dict[str, Any]) -> None:
    """By the schema, with the field."""
    with pytest.raises(ValidationError):
        Input.model_validate(payload)
