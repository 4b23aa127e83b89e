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
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Final, Literal, get_args
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from neuroedge.contract.engine import Engine, EngineContext, EngineInput, EngineOutput
from neuroedge.contract.errors import InvalidInput, ModelFailed, TooLarge
from neuroedge.contract.ports import TrainedModel
from neuroedge.kit import holdout, tables, tabular, topics
from neuroedge.kit.tables import Column, Table, TableError
from neuroedge.kit.tabular import Epoch, Feature, Fitted, Rows

MAX_TABLE_BYTES: Final = 16 << 20
MAX_CLASSES: Final = 100
MIN_ROWS: Final = 50
MIN_OF_CLASS: Final = 8
"""Rows of a class: some for each part of the split."""
MAX_PARITY: Final = 1e-5
MAX_PREDICTED_ROWS: Final = 1000
_FEW_TEST_ROWS: Final = 30
_MAX_SILHOUETTE_K: Final = 8
_CURVE_POINTS: Final = 100

Name = Annotated[str, StringConstraints(min_length=1, max_length=tables.MAX_NAME_CHARS)]
Cell = Annotated[float, Field(allow_inf_nan=False)] | bool | Annotated[str, Field(max_length=20_000)] | None
Task = Literal["classification", "regression", "clusters", "topics"]


class TableSource(BaseModel):
    """Where the table lies: exactly one of csv, base64 and blob."""

    model_config = ConfigDict(extra="forbid")

    csv: str | None = Field(
        default=None, max_length=MAX_TABLE_BYTES, description="A CSV text; its first line names the columns."
    )
    base64: str | None = Field(
        default=None, max_length=MAX_TABLE_BYTES * 4 // 3 + 4, description="The file's bytes in base64."
    )
    blob: str | None = Field(
        default=None, max_length=512, description="Key of an object in the caller's blob storage, files/<id>/content."
    )
    format: Literal["csv", "parquet"] = Field(default="csv", description="Of base64 and blob. CSV is UTF-8.")
    delimiter: Literal[",", ";", "\t", "|"] = Field(default=",", description="Between the cells of CSV.")

    @model_validator(mode="after")
    def _exactly_one(self) -> "TableSource":
        if sum(given is not None for given in (self.csv, self.base64, self.blob)) != 1:
            raise ValueError("give exactly one of 'csv', 'base64' and 'blob'")
        return self


class TrainOrder(BaseModel):
    """What to learn from which table."""

    model_config = ConfigDict(extra="forbid")

    name: Name = Field(description="What the model shall be called.")
    task: Task = Field(description="classification, regression, clusters or topics.")
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


class HoldoutFigure(BaseModel):
    """A figure on held-out rows with its 95 % bootstrap interval, beside the baseline's on the same rows."""

    name: str = Field(description="accuracy, macro_f1, log_loss (nats); r2, mae (the target's unit); silhouette.")
    value: float = Field(description="On all held-out rows.")
    low: float = Field(description="Lower end of the interval.")
    high: float = Field(description="Upper end of the interval.")
    baseline: float = Field(description="The baseline's value.")


class Holdout(BaseModel):
    """How good the model is on rows it never saw."""

    rows: int = Field(description="Rows held out.")
    baseline: str = Field(description="What the figures are compared with.")
    figures: list[HoldoutFigure] = Field(description="The first one decides.")
    better_low: float = Field(description="How much better than the baseline by the first figure: lower 95 % bound.")
    better_high: float = Field(description="Likewise, upper bound.")


class CurvePoint(BaseModel):
    """A pass over the training rows."""

    epoch: int = Field(description="From 1.")
    train_loss: float = Field(description="Mean loss over the training rows during the pass.")
    validation_loss: float = Field(description="Loss on the validation part after it.")


class FeatureOut(BaseModel):
    """A column the model reads."""

    name: str = Field(description="The column.")
    kind: Literal["number", "text"] = Field(description="How it is read.")
    values: list[str] = Field(description="Of a text column: the values that are told apart.")


class TopicOut(BaseModel):
    """A topic of the texts."""

    words: list[str] = Field(description="Its strongest words.")
    share: float = Field(description="Share of the texts of which it is the strongest topic.")
    npmi: float = Field(description="How often its words stand in the same texts, -1 to 1.")


class TrainedOut(BaseModel):
    """What was trained."""

    task: Task = Field(description="As ordered.")
    rows: int = Field(description="Rows of the table.")
    used_rows: int = Field(description="Rows with a target.")
    features: list[FeatureOut] = Field(description="Columns the model reads.")
    classes: list[str] = Field(default_factory=list, description="Of a classification.")
    curve: list[CurvePoint] = Field(default_factory=list, description="The learning curve, at most 100 points.")
    best_epoch: int | None = Field(default=None, description="The pass whose weights the model has.")
    clusters: list[int] = Field(default_factory=list, description="Training rows of each cluster.")
    topics: list[TopicOut] = Field(default_factory=list, description="By share.")
    onnx_parity: float | None = Field(default=None, description="Largest difference of the ONNX graph's answers.")


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
                return await _topics(order, table)
            if order.task == "clusters":
                return await _clusters(order, table, ctx)
            return await _perceptron(order, table, ctx)
        except TableError as error:
            raise _refused(str(error)) from error


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


def _columns(order: TrainOrder, table: Table) -> list[str]:
    """Names of the columns to learn from."""
    named = [n for n in (order.target, order.group, *(order.features or ())) if n is not None]
    unknown = [n for n in named if n not in table.columns]
    if unknown:
        known = ", ".join(list(table.columns)[:20])
        raise InvalidInput(f"the table has no column {unknown[0]!r}", hint=f"its columns: {known}")
    if order.features and (order.target in order.features or len(set(order.features)) < len(order.features)):
        raise InvalidInput("a feature is named twice, or is the target", hint="name each column once")
    return order.features or [n for n in table.columns if n not in (order.target, order.group)]


def _features(order: TrainOrder, table: Table, warnings: list[str]) -> list[Feature]:
    found = tabular.chosen_features(table, _columns(order, table), warnings)
    if not found:
        raise InvalidInput("no column is left to learn from", hint="; ".join(warnings)[:500] or "add columns")
    return found


def _refused(detail: str) -> InvalidInput:
    return InvalidInput(detail[:500], hint="UTF-8 CSV whose first line names the columns, or Parquet of plain columns")


# Topics and clusters


async def _topics(order: TrainOrder, table: Table) -> Output:
    assert order.target is not None
    _columns(order, table)
    texts = [str(v) for v in table.columns[order.target].values[~table.columns[order.target].missing]]
    if len(texts) < MIN_ROWS:
        raise InvalidInput(f"{len(texts)} texts are too few", hint=f"send at least {MIN_ROWS}")
    try:
        found, _ = await asyncio.to_thread(topics.topics, texts, count=order.groups or 10, seed=order.seed)
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


async def _clusters(order: TrainOrder, table: Table, ctx: EngineContext) -> Output:
    if table.rows < MIN_ROWS:
        raise InvalidInput(f"{table.rows} rows are too few", hint=f"send at least {MIN_ROWS}")
    warnings = list(table.warnings)
    features = await asyncio.to_thread(_features, order, table, warnings)
    rows = await asyncio.to_thread(tabular.rows_of, [table.columns[f.name] for f in features], features)
    parts = await asyncio.to_thread(
        holdout.split, len(rows), share=order.holdout, seed=order.seed, classes=None, groups=None
    )
    fit_rows, test = rows.take(np.concatenate([parts.train, parts.validation])), rows.take(parts.test)
    tried = [order.groups] if order.groups else list(range(2, _MAX_SILHOUETTE_K + 1))
    best, best_score = None, -2.0
    for i, clusters in enumerate(tried):
        pipeline = await asyncio.to_thread(tabular.fit_clusters, fit_rows, features, clusters=clusters, seed=order.seed)
        score = await asyncio.to_thread(tabular.separation, pipeline, fit_rows, seed=order.seed)
        if score > best_score:
            best, best_score = pipeline, score
        await ctx.progress("training", (i + 1) / len(tried))
    assert best is not None
    count = len(best["model"].cluster_centers_)
    mixed_up = tabular.shuffled(fit_rows, seed=order.seed)
    null = await asyncio.to_thread(tabular.fit_clusters, mixed_up, features, clusters=count, seed=order.seed)
    by_chance = await asyncio.to_thread(tabular.separation, null, mixed_up, seed=order.seed)
    seen = await asyncio.to_thread(tabular.separation, best, test, seed=order.seed)
    spread = await asyncio.to_thread(_spread, best, test)
    low, high = float(np.percentile(spread, 2.5)), float(np.percentile(spread, 97.5))
    graph = await asyncio.to_thread(tabular.exported, best, fit_rows)
    labels = await asyncio.to_thread(lambda: best.predict(test.mixed()))
    told = await ctx.trained.try_out(graph, test.inputs())
    parity = float((np.ravel(next(iter(told.values()))) != labels).mean())
    measured = Holdout(
        rows=len(test),
        baseline="k-means over shuffled columns",
        figures=[HoldoutFigure(name="silhouette", value=seen, low=low, high=high, baseline=by_chance)],
        better_low=low - by_chance,
        better_high=high - by_chance,
    )
    trained = TrainedOut(
        task="clusters",
        rows=table.rows,
        used_rows=table.rows,
        features=_told(features),
        clusters=np.bincount(best["model"].labels_, minlength=count).tolist(),
        onnx_parity=parity,
    )
    return await _kept(order, trained, measured, graph, warnings, ctx, method="k-means", scale=None)


def _spread(pipeline: Any, rows: Rows) -> list[float]:
    """The separation of twenty random halves of the rows."""
    halves = [np.random.default_rng(i).permutation(len(rows))[: len(rows) // 2 + 1] for i in range(20)]
    return [tabular.separation(pipeline, rows.take(half), seed=i) for i, half in enumerate(halves)]


# Classification and regression


async def _perceptron(order: TrainOrder, table: Table, ctx: EngineContext) -> Output:
    warnings = list(table.warnings)
    assert order.target is not None
    features = await asyncio.to_thread(_features, order, table, warnings)
    usable = np.flatnonzero(~table.columns[order.target].missing)
    if len(usable) < MIN_ROWS:
        raise InvalidInput(f"{len(usable)} rows have a target, too few", hint=f"send at least {MIN_ROWS}")
    if len(usable) < table.rows:
        warnings.append(f"{table.rows - len(usable)} rows without a target are not used")
    columns = [table.columns[f.name].take(usable) for f in features]
    target = table.columns[order.target].take(usable)
    classes = _classes(target) if order.task == "classification" else None
    y = _class_numbers(target, classes) if classes is not None else _numbers(target)
    rows = await asyncio.to_thread(tabular.rows_of, columns, features)
    parts = await asyncio.to_thread(_split, order, table, usable, y if classes is not None else None)
    # A regression learns the target in standard deviations of the training rows.
    scale = None if classes is not None else _scale(y[parts.train])
    t = y if scale is None else (y - scale[0]) / scale[1]
    fitted = await _fitted(order, rows, t, parts, features, None if classes is None else len(classes), ctx)
    await ctx.progress("measuring", 0.95)
    test, truth = rows.take(parts.test), t[parts.test]
    said = await asyncio.to_thread(_answers, fitted.pipeline, test, classes)
    fit_rows = np.concatenate([parts.train, parts.validation])
    base = await asyncio.to_thread(
        tabular.fit_baseline,
        rows.take(fit_rows),
        t[fit_rows],
        features,
        classes=None if classes is None else len(classes),
    )
    base_said = await asyncio.to_thread(_answers, base, test, classes)
    measured = await asyncio.to_thread(_measured, truth, said, base_said, scale, order.seed)
    graph = await asyncio.to_thread(tabular.exported, fitted.pipeline, test)
    parity = await _parity(graph, test, said, classes, ctx)
    trained = TrainedOut(
        task=order.task,
        rows=table.rows,
        used_rows=len(usable),
        features=_told(features),
        classes=classes or [],
        curve=_curve(fitted.curve),
        best_epoch=fitted.best_epoch,
        onnx_parity=parity,
    )
    return await _kept(order, trained, measured, graph, warnings, ctx, method=DeepLearning.method, scale=scale)


def _classes(target: Column) -> list[str]:
    counts = Counter(_label(value) for value in target.values)
    if not 2 <= len(counts) <= MAX_CLASSES:
        raise InvalidInput(
            f"the target has {len(counts)} different values",
            hint=f"a classification has 2 to {MAX_CLASSES} classes; a regression predicts numbers",
        )
    rarest, count = min(counts.items(), key=lambda item: item[1])
    if count < MIN_OF_CLASS:
        raise InvalidInput(
            f"the class {rarest[:50]!r} has {count} rows, too few", hint=f"each class needs at least {MIN_OF_CLASS}"
        )
    return sorted(counts)


def _label(value: Any) -> str:
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _class_numbers(target: Column, classes: Sequence[str]) -> NDArray[np.int64]:
    number = {label: i for i, label in enumerate(classes)}
    return np.array([number[_label(value)] for value in target.values], np.int64)


def _numbers(target: Column) -> NDArray[np.float64]:
    if target.kind != "number":
        raise InvalidInput("the target holds texts", hint="a regression predicts numbers; a classification texts")
    values: NDArray[np.float64] = target.values
    if len(set(values.tolist())) < 2:
        raise InvalidInput("the target is the same in every row", hint="there is nothing to predict")
    return values


def _scale(values: NDArray[np.float64]) -> tuple[float, float]:
    return float(values.mean()), float(values.std()) or 1.0


def _split(order: TrainOrder, table: Table, usable: NDArray[Any], y: NDArray[Any] | None) -> holdout.Split:
    groups = None
    if order.group is not None:
        cells = table.columns[order.group].take(usable)
        groups = np.unique([str(v) for v in cells.values], return_inverse=True)[1]
        if len(set(groups.tolist())) < 5:
            raise InvalidInput("there are fewer than 5 groups", hint="they cannot be split into three parts")
    try:
        parts = holdout.split(len(usable), share=order.holdout, seed=order.seed, classes=y, groups=groups)
    except ValueError as error:
        raise InvalidInput(f"the rows cannot be split: {error}", hint="send more rows of each class") from error
    if y is not None and set(y[parts.train]) != set(y):
        raise InvalidInput("a class is in none of the groups to train on", hint="send more groups, or no 'group'")
    return parts


async def _fitted(
    order: TrainOrder,
    rows: Rows,
    y: NDArray[Any],
    parts: holdout.Split,
    features: Sequence[Feature],
    classes: int | None,
    ctx: EngineContext,
) -> Fitted:
    """Train in a thread, tell the curve as it grows; a call that is cancelled ends the training."""
    stop, passed = threading.Event(), list[Epoch]()

    def on_epoch(epoch: Epoch) -> bool:
        passed.append(epoch)
        return not stop.is_set()

    training = asyncio.create_task(
        asyncio.to_thread(
            tabular.fit_mlp,
            (rows.take(parts.train), rows.take(parts.validation)),
            (y[parts.train], y[parts.validation]),
            features,
            hidden=order.hidden,
            epochs=order.epochs,
            seed=order.seed,
            classes=classes,
            on_epoch=on_epoch,
        )
    )
    try:
        while not training.done():
            await asyncio.wait({training}, timeout=0.5)
            if passed:
                last = passed[-1]
                stage = f"epoch {last.epoch}: loss {last.train_loss:.4g}, validation {last.validation_loss:.4g}"
                await ctx.progress(stage, 0.9 * last.epoch / order.epochs)
    finally:
        stop.set()
    return await training


def _answers(pipeline: Any, rows: Rows, classes: Sequence[str] | None) -> NDArray[Any]:
    said = pipeline.predict(rows.mixed()) if classes is None else pipeline.predict_proba(rows.mixed())
    return np.asarray(said, float)


def _measured(
    truth: NDArray[Any],
    said: NDArray[Any],
    base: NDArray[Any],
    scale: tuple[float, float] | None,
    seed: int,
) -> Holdout:
    """Figures with their intervals; the gain over the baseline is measured on the same samples of rows."""
    scores: dict[str, Any] = {"log_loss": holdout.log_loss, "accuracy": holdout.accuracy, "macro_f1": holdout.macro_f1}
    if scale is not None:
        truth, said, base = (v * scale[1] + scale[0] for v in (truth, said, base))
        scores = {"mae": holdout.mae, "r2": holdout.r2}
    figures = []
    for name, score in scores.items():
        found = holdout.measured(lambda i, s=score: s(truth[i], said[i]), len(truth), seed=seed)  # type: ignore[misc]
        figures.append(
            HoldoutFigure(name=name, value=found.value, low=found.low, high=found.high, baseline=score(truth, base))
        )
    # The first figure of both is a loss: less is better.
    first = next(iter(scores.values()))
    gain = holdout.measured(lambda i: first(truth[i], base[i]) - first(truth[i], said[i]), len(truth), seed=seed)
    return Holdout(
        rows=len(truth),
        baseline="mean" if scale is not None else "logistic regression",
        figures=figures,
        better_low=gain.low,
        better_high=gain.high,
    )


async def _parity(
    graph: bytes, rows: Rows, said: NDArray[Any], classes: Sequence[str] | None, ctx: EngineContext
) -> float:
    told = await ctx.trained.try_out(graph, rows.inputs())
    answer = np.ravel(told["variable"]) if classes is None else told["probabilities"]
    return float(np.abs(answer - said).max())


async def _kept(
    order: TrainOrder,
    trained: TrainedOut,
    measured: Holdout,
    graph: bytes,
    warnings: list[str],
    ctx: EngineContext,
    *,
    method: str,
    scale: tuple[float, float] | None,
) -> Output:
    """Store what was trained if it may be, and say how far it can be relied on."""
    if (trained.onnx_parity or 0.0) > MAX_PARITY:
        raise ModelFailed(
            f"the exported model differs by {trained.onnx_parity:.2g} from the trained one",
            hint="columns of very large numbers lose digits in float32: subtract their mean, or use fewer of them",
        )
    if measured.rows < _FEW_TEST_ROWS:
        warnings.append(f"only {measured.rows} rows were held out: the figures are rough")
    if measured.better_low <= 0:
        warnings.append(f"not better than {measured.baseline} on the held-out rows beyond chance")
    reliable = measured.rows >= _FEW_TEST_ROWS and measured.better_low > 0
    kept: TrainedModel | None = None
    if order.keep:
        card = {
            **trained.model_dump(mode="json"),
            "target": order.target,
            "method": method,
            "scale": scale,
            "holdout": measured.model_dump(mode="json"),
            "reliable": reliable,
            "warnings": warnings,
        }
        kept = await ctx.trained.keep(name=order.name, kind=order.task, card=card, graph=graph)
    return Output(
        method=method,
        model_id=kept.id if kept else None,
        onnx_sha256=hashlib.sha256(graph).hexdigest(),
        holdout=measured,
        trained=trained,
        reliable=reliable,
        warnings=warnings,
    )


def _told(features: Sequence[Feature]) -> list[FeatureOut]:
    return [FeatureOut(name=f.name, kind=f.kind, values=list(f.values)) for f in features]


def _curve(curve: Sequence[Epoch]) -> list[CurvePoint]:
    step = max(1, -(-len(curve) // _CURVE_POINTS))
    return [
        CurvePoint(epoch=e.epoch, train_loss=round(e.train_loss, 6), validation_loss=round(e.validation_loss, 6))
        for e in curve[::step]
    ]


# Prediction


async def _predict(order: PredictOrder, ctx: EngineContext) -> Output:
    model = await ctx.trained.get(order.model)
    if model.kind not in get_args(Task):
        raise InvalidInput(
            f"{order.model} is a model of kind {model.kind!r}, which predicts nothing for rows of a table",
            hint="the engine that trained it uses it: classification for a text-head",
        )
    features = [Feature(name=f["name"], kind=f["kind"], values=tuple(f["values"])) for f in model.card["features"]]
    columns = [_asked(order.rows, feature) for feature in features]
    _no_other_columns(order.rows, {*(f.name for f in features), model.card["target"]})
    warnings = []
    unseen = sum(
        value is not None and value not in set(feature.values)
        for column, feature in zip(columns, features, strict=True)
        if feature.kind == "text"
        for value in column.values
    )
    if unseen:
        warnings.append(f"{unseen} cells hold texts that the model has not seen or does not tell apart")
    if not model.card["reliable"]:
        warnings += [f"when trained: {text}" for text in model.card["warnings"]]
    try:
        rows = tabular.rows_of(columns, features)
    except TableError as error:
        raise InvalidInput(str(error), hint="numbers up to 3.4e38") from error
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


def _asked(rows: Sequence[dict[str, Any]], feature: Feature) -> Column:
    """A column of the rows. Raises InvalidInput naming the row and the column."""
    values: list[Any] = []
    for i, row in enumerate(rows):
        where = ("predict", "rows", i, feature.name)
        if feature.name not in row:
            raise _wrong(where, "the column is missing; null says that the cell is")
        try:
            values.append(_cell(row[feature.name], feature))
        except TableError as error:
            raise _wrong(where, str(error)) from error
    if feature.kind == "number":
        return Column(name=feature.name, kind="number", values=np.array(values, float))
    return Column(name=feature.name, kind="text", values=np.array(values, object))


def _cell(value: Any, feature: Feature) -> float | str | None:
    if feature.kind == "number":
        if isinstance(value, bool):
            raise TableError("a number is wanted")
        found = tables.number_of(value) if isinstance(value, str) else value
        return float("nan") if found is None else float(found)
    if isinstance(value, bool):
        said = str(value).lower()
        return next((known for known in feature.values if known.lower() == said), said)
    return None if value is None else tables.text_of(value if isinstance(value, str) else f"{value:.10g}")


def _no_other_columns(rows: Sequence[dict[str, Any]], known: set[str | None]) -> None:
    for i, row in enumerate(rows):
        for name in row:
            if name not in known:
                raise _wrong(("predict", "rows", i, name), "the model reads no such column")


def _wrong(where: tuple[Any, ...], message: str) -> InvalidInput:
    return InvalidInput(
        f"row {where[2] + 1}, column {where[3]!r}: {message}",
        hint="GET /v1/trained-models/{model_id} shows the columns the model reads",
        errors=[{"loc": where, "msg": message, "type": "value_error"}],
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
