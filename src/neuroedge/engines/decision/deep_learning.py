"""Training on an organisation's own table, and answers of what was trained; the model is kept as ONNX.

`train` reads a table (CSV or Parquet) and learns, as a call or as a task with its learning curve for progress:

- classification, regression: a multi-layer perceptron (Adam, Kingma & Ba 2015; ReLU) that stops early by a validation
  part, measured once on rows held out, beside logistic regression or the mean on the same rows;
- clusters: k-means (Lloyd 1982), the number of clusters by silhouette (Rousseeuw 1987) unless given;
- topics: non-negative matrix factorisation (Lee & Seung 1999) over TF-IDF; answered, not kept.

The whole pipeline is exported to ONNX, must give what was trained to within 1e-5 on the held-out rows, and is stored
sealed. `predict` runs a stored model over rows. scikit-learn and skl2onnx; no pretrained weights.

Limits: tables of numbers and short texts; no images, no time order (see forecasting), no dates as such. Rows are taken
for independent unless `group` names what they share. Figures hold for rows like those of the table. Not for decisions
about people without a review of what the columns stand for.
"""

import asyncio
import base64
import binascii
import hashlib
import threading
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any, ClassVar, Final, get_args
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from neuroedge.contract.engine import Engine, EngineContext, EngineInput, EngineOutput
from neuroedge.contract.errors import InvalidInput, ModelFailed, TooLarge
from neuroedge.contract.trained import (
    MAX_TABLE_BYTES,
    CurvePoint,
    FeatureOut,
    Holdout,
    HoldoutFigure,
    TableSource,
    TableTask,
    TopicOut,
    TrainedModel,
    TrainedOut,
)
from neuroedge.kit import table_cells, table_training, tables, tabular, topics
from neuroedge.kit.refusal import Refused
from neuroedge.kit.table_cells import CellError
from neuroedge.kit.table_training import Learned, Plan
from neuroedge.kit.tables import Table, TableError
from neuroedge.kit.tabular import Epoch, Feature

MAX_PARITY: Final = 1e-5
MAX_PREDICTED_ROWS: Final = 1000
_FEW_TEST_ROWS: Final = 30
_CURVE_POINTS: Final = 100
_TOLD_EVERY_S: Final = 0.5

Name = Annotated[str, StringConstraints(min_length=1, max_length=tables.MAX_NAME_CHARS)]
Cell = Annotated[float, Field(allow_inf_nan=False)] | bool | Annotated[str, Field(max_length=20_000)] | None


class TrainOrder(BaseModel):
    """What to learn from which table."""

    model_config = ConfigDict(extra="forbid")

    name: Name = Field(description="What the model shall be called.")
    task: TableTask = Field(description="classification, regression, clusters or topics.")
    table: TableSource = Field(description="The table.")
    target: Name | None = Field(
        default=None, description="Column to predict (classification, regression), or the texts' column (topics)."
    )
    features: list[Name] | None = Field(
        default=None, min_length=1, max_length=tables.MAX_COLUMNS, description="Columns to learn from; all others else."
    )
    group: Name | None = Field(
        default=None, description="Column of what rows share, such as a person: no group is in two parts of the split."
    )
    groups: int | None = Field(
        default=None, ge=2, le=50, description="How many clusters or topics; clusters: by silhouette when not given."
    )
    hidden: list[Annotated[int, Field(ge=1, le=512)]] = Field(
        default=[128, 64], min_length=1, max_length=4, description="Units of each hidden layer."
    )
    epochs: int = Field(default=150, ge=1, le=500, description="Most passes over the training rows.")
    holdout: float = Field(default=0.2, ge=0.1, le=0.5, description="Share of the rows to measure on, 0.1 to 0.5.")
    seed: int = Field(default=0, ge=0, le=2**31 - 10, description="Of the split and of the first weights.")
    keep: bool = Field(default=True, description="Whether to store the model; false: train and measure only.")

    @model_validator(mode="after")
    def _has_target(self) -> "TrainOrder":
        if (self.target is None) != (self.task == "clusters"):
            raise ValueError("'target' goes with classification, regression and topics, and not with clusters")
        return self


class PredictOrder(BaseModel):
    """Rows for a model that was trained."""

    model_config = ConfigDict(extra="forbid")

    model: UUID = Field(description="Id of the trained model.")
    rows: list[dict[Name, Cell]] = Field(
        min_length=1,
        max_length=MAX_PREDICTED_ROWS,
        description="Cells by column; null is missing. Each row has every column the model reads.",
    )


class Input(EngineInput):
    """Exactly one of both."""

    train: TrainOrder | None = Field(default=None, description="Train a model.")
    predict: PredictOrder | None = Field(default=None, description="Run a trained model.")

    @model_validator(mode="after")
    def _exactly_one(self) -> "Input":
        if (self.train is None) == (self.predict is None):
            raise ValueError("give exactly one of 'train' and 'predict'")
        return self


class PredictionOut(BaseModel):
    """What the model says of a row."""

    label: str | None = Field(default=None, description="Of a classification: the likeliest class.")
    p: float | None = Field(default=None, description="Its probability, as the network gives it, not calibrated.")
    probabilities: dict[str, float] | None = Field(default=None, description="Of all classes.")
    value: float | None = Field(default=None, description="Of a regression, in the target's unit.")
    cluster: int | None = Field(default=None, description="Of clusters, from 0.")


class Output(EngineOutput):
    """What was trained, or predicted."""

    model_id: UUID | None = Field(description="Of the stored model; null when nothing is stored.")
    onnx_sha256: str | None = Field(description="Of the model's ONNX graph.")
    holdout: Holdout | None = Field(default=None, description="Figures on held-out rows.")
    trained: TrainedOut | None = Field(default=None, description="What was trained.")
    predictions: list[PredictionOut] = Field(default_factory=list, description="A row each, in order.")
    reliable: bool = Field(description="Whether the figures are better than the baseline's, beyond chance.")
    warnings: list[str] = Field(description="What to know before relying on it.")


def _example() -> Input:
    rng = np.random.default_rng(7)
    lines = ["length_mm,width_mm,soil,kind"]
    for i in range(160):
        big = i % 2
        length, width = rng.normal(52 + 9 * big, 3), rng.normal(20 + 5 * big, 2)
        lines.append(f"{length:.1f},{width:.1f},{'clay' if rng.random() < 0.5 else 'sand'},{('small', 'large')[big]}")
    table = TableSource(csv="\n".join(lines))
    order = TrainOrder(name="leaves", task="classification", table=table, target="kind", hidden=[16], keep=False)
    return Input(train=order)


class DeepLearning(Engine[Input, Output]):
    """Train a perceptron, clusters or topics on your own table; run what was trained."""

    name = "deep_learning"
    title = "Train a model on a table, and use it"
    method = "mlp-early-stopping"
    example = _example()
    timeout_s: ClassVar[float] = 900.0

    async def run(self, payload: Input, ctx: EngineContext) -> Output:
        """Train or predict. Raises InvalidInput for a table or rows it cannot read, NotFound, Conflict, ModelFailed."""
        if payload.predict is not None:
            return await _predict(payload.predict, ctx)
        assert payload.train is not None
        order = payload.train
        await ctx.progress("reading", 0.0)
        try:
            table = await _table(order.table, ctx)
            if order.task == "topics":
                return await asyncio.to_thread(_topics, order, table)
            return await _told(order, table, await _learned(order, table, ctx), ctx)
        except TableError as error:
            raise _refused(str(error)) from error
        except Refused as error:
            raise InvalidInput(str(error), hint=error.hint) from error


async def _table(source: TableSource, ctx: EngineContext) -> Table:
    if source.csv is not None:
        return await asyncio.to_thread(tables.read_csv, source.csv, delimiter=source.delimiter)
    if source.base64 is not None:
        try:
            data = await asyncio.to_thread(base64.b64decode, source.base64, validate=True)
        except (binascii.Error, ValueError) as error:
            raise _refused("the table is not base64") from error
    else:
        data = await ctx.blobs.get(source.blob or "")
    if len(data) > MAX_TABLE_BYTES:
        raise TooLarge(f"the table has {len(data)} bytes", hint=f"at most {MAX_TABLE_BYTES}")
    if source.format == "parquet":
        return await asyncio.to_thread(tables.read_parquet, data)
    return await asyncio.to_thread(lambda: tables.read_csv(tables.decoded(data), delimiter=source.delimiter))


def _refused(detail: str) -> InvalidInput:
    return InvalidInput(detail[:500], hint="UTF-8 CSV whose first line names the columns, or Parquet of plain columns")


def _topics(order: TrainOrder, table: Table) -> Output:
    assert order.target is not None
    texts = table_training.texts_of(table, order.target, others=order.features or ())
    try:
        found, _ = topics.topics(texts, count=order.groups or 10, seed=order.seed)
    except ValueError as error:
        raise InvalidInput(str(error), hint="send more or longer texts, or ask for fewer topics") from error
    agree = float(np.mean([t.npmi for t in found]))
    weak = [f"the topics' words seldom stand together (NPMI {agree:.2f})"] if agree < 0.05 else []
    return Output(
        method="nmf-tfidf",
        model_id=None,
        onnx_sha256=None,
        trained=TrainedOut(
            task="topics",
            rows=table.rows,
            used_rows=len(texts),
            features=[FeatureOut(name=order.target, kind="text", values=[])],
            topics=[TopicOut(words=t.words, share=round(t.share, 4), npmi=round(t.npmi, 4)) for t in found],
        ),
        reliable=not weak,
        warnings=[*table.warnings, *weak, "topics are not kept as a model"],
    )


async def _learned(order: TrainOrder, table: Table, ctx: EngineContext) -> Learned:
    """Train in a thread, telling how far it is; a call that is cancelled ends the training."""
    stop, steps = threading.Event(), list[tuple[str, float]]()

    def on_step(stage: str, fraction: float) -> bool:
        steps.append((stage, fraction))
        return not stop.is_set()

    plan = Plan(**order.model_dump(exclude={"name", "table", "keep"}))
    work = asyncio.create_task(asyncio.to_thread(table_training.learned, table, plan, on_step=on_step))
    try:
        while not work.done():
            await asyncio.wait({work}, timeout=_TOLD_EVERY_S)
            if steps:
                await ctx.progress(*steps[-1])
    finally:
        stop.set()
    return await work


async def _told(order: TrainOrder, table: Table, found: Learned, ctx: EngineContext) -> Output:
    """Prove the graph, store what was trained if it may be, and say how far it can be relied on."""
    parity = await _parity(order.task, found, ctx)
    held, warnings = found.held, list(found.warnings)
    if held.rows < _FEW_TEST_ROWS:
        warnings.append(f"only {held.rows} rows were held out: the figures are rough")
    if held.better_low <= 0:
        warnings.append(f"not better than {held.baseline} on the held-out rows beyond chance")
    method = "k-means" if order.task == "clusters" else DeepLearning.method
    output = Output(
        method=method,
        model_id=None,
        onnx_sha256=hashlib.sha256(found.graph).hexdigest(),
        holdout=Holdout(
            rows=held.rows,
            baseline=held.baseline,
            figures=[HoldoutFigure(**asdict(figure)) for figure in held.figures],
            better_low=held.better_low,
            better_high=held.better_high,
        ),
        trained=_trained(order.task, table, found, parity=parity),
        reliable=held.rows >= _FEW_TEST_ROWS and held.better_low > 0,
        warnings=warnings,
    )
    if order.keep:
        output.model_id = (await _kept(order, found, output, ctx)).id
    return output


async def _parity(task: TableTask, found: Learned, ctx: EngineContext) -> float:
    """How far the graph's answers are from the trained model's. Raises ModelFailed for too far, and for no numbers."""
    told = await ctx.trained.try_out(found.graph, found.test.inputs())
    # Clusters have a number even where the distances, which are answered too, are none.
    if not all(np.isfinite(part).all() for part in map(np.asarray, told.values()) if part.dtype.kind == "f"):
        raise ModelFailed(
            "the exported model answers what are no numbers",
            hint="columns of very small numbers are too even for float32: multiply them, or leave them out",
        )
    if task == "clusters":
        parity = float((np.ravel(told["label"]) != found.said).mean())
    else:
        answer = told["probabilities"] if task == "classification" else np.ravel(told["variable"])
        parity = float(np.abs(answer - found.said).max())
    if not parity <= MAX_PARITY:
        raise ModelFailed(
            f"the exported model differs by {parity:.2g} from the trained one",
            hint="columns of very large numbers lose digits in float32: subtract their mean, or use fewer of them",
        )
    return parity


def _trained(task: TableTask, table: Table, found: Learned, *, parity: float) -> TrainedOut:
    return TrainedOut(
        task=task,
        rows=table.rows,
        used_rows=found.used_rows,
        features=[FeatureOut(name=f.name, kind=f.kind, values=list(f.values)) for f in found.features],
        classes=found.classes,
        curve=_curve(found.curve),
        best_epoch=found.best_epoch,
        clusters=found.clusters,
        onnx_parity=parity,
    )


def _curve(curve: Sequence[Epoch]) -> list[CurvePoint]:
    step = max(1, -(-len(curve) // _CURVE_POINTS))
    return [
        CurvePoint(epoch=e.epoch, train_loss=round(e.train_loss, 6), validation_loss=round(e.validation_loss, 6))
        for e in curve[::step]
    ]


async def _kept(order: TrainOrder, found: Learned, told: Output, ctx: EngineContext) -> TrainedModel:
    assert told.trained is not None
    assert told.holdout is not None
    card = {
        **told.trained.model_dump(mode="json"),
        "target": order.target,
        "method": told.method,
        "scale": found.scale,
        "holdout": told.holdout.model_dump(mode="json"),
        "reliable": told.reliable,
        "warnings": told.warnings,
    }
    return await ctx.trained.keep(name=order.name, kind=order.task, card=card, graph=found.graph)


async def _predict(order: PredictOrder, ctx: EngineContext) -> Output:
    model = await ctx.trained.get(order.model)
    if model.kind not in get_args(TableTask):
        raise InvalidInput(
            f"{order.model} is a model of kind {model.kind!r}, which predicts nothing for rows of a table",
            hint="the engine that trained it uses it: classification for a text-head",
        )
    features = [Feature(name=f["name"], kind=f["kind"], values=tuple(f["values"])) for f in model.card["features"]]
    try:
        columns = table_cells.columns_of(order.rows, features, target=model.card["target"])
        rows = tabular.rows_of(columns, features)
    except CellError as error:
        raise _wrong(error) from error
    except TableError as error:
        raise InvalidInput(str(error), hint="numbers up to 3.4e38") from error
    warnings = []
    if unseen := table_cells.unseen(columns, features):
        warnings.append(f"{unseen} cells hold texts that the model has not seen or does not tell apart")
    if not model.card["reliable"]:
        warnings += [f"when trained: {text}" for text in model.card["warnings"]]
    told = await ctx.trained.run(model, rows.inputs())
    return Output(
        method=model.card["method"],
        models=[str(model.id)],
        model_id=model.id,
        onnx_sha256=model.sha256,
        predictions=_predictions(model, told),
        reliable=model.card["reliable"] and not unseen,
        warnings=warnings,
    )


def _wrong(error: CellError) -> InvalidInput:
    return InvalidInput(
        f"row {error.row + 1}, column {error.column!r}: {error}",
        hint="GET /v1/trained-models/{model_id} shows the columns the model reads",
        errors=[{"loc": ("predict", "rows", error.row, error.column), "msg": str(error), "type": "value_error"}],
    )


def _predictions(model: TrainedModel, told: dict[str, NDArray[Any]]) -> list[PredictionOut]:
    if model.kind == "classification":
        classes = model.card["classes"]
        return [
            PredictionOut(
                label=classes[int(row.argmax())],
                p=round(float(row.max()), 6),
                probabilities={name: round(float(p), 6) for name, p in zip(classes, row, strict=True)},
            )
            for row in told["probabilities"]
        ]
    if model.kind == "regression":
        mean, sd = model.card["scale"]
        return [PredictionOut(value=float(v) * sd + mean) for v in np.ravel(told["variable"])]
    return [PredictionOut(cluster=int(v)) for v in np.ravel(told["label"])]
