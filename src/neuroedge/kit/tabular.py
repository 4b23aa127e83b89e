"""Learning from a table: how rows become numbers, a multi-layer perceptron that stops early, k-means, ONNX.

Numbers: the median where missing, then standardised. Texts: one-hot over the values seen most; missing is a value of
its own; what was never seen is none of them. The same steps stand in the exported graph, so that it reads raw cells.
"""

import copy
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from neuroedge.kit.holdout import log_loss
from neuroedge.kit.tables import Column, Table, TableError

MAX_VALUES: Final = 50
"""Values of a text column that are told apart; rarer ones are like values never seen."""
MANY_VALUES: Final = 0.5
"""A text column with more different values than this share of its rows names the rows: it is left out."""
PATIENCE: Final = 12
_MIN_GAIN: Final = 1e-4
_OPSET: Final = 17
_MIN_BATCH: Final = 16
_MAX_BATCH: Final = 200
_STEPS: Final = 40
"""Steps a pass at least, where there are enough rows."""
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """A column a model reads; `values` of a text column, none of a number column."""

    name: str
    kind: Literal["number", "text"]
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Rows as a model's graph takes them: float32 [n, k], and texts [n, m] with "" for missing."""

    numbers: NDArray[np.float32]
    texts: NDArray[Any]

    def __len__(self) -> int:
        return len(self.numbers)

    def take(self, rows: NDArray[Any]) -> "Rows":
        """Some of them."""
        return Rows(numbers=self.numbers[rows], texts=self.texts[rows])

    def inputs(self) -> dict[str, NDArray[Any]]:
        """By the names the graph gives them; a kind of which there are no columns is none."""
        both = {"numbers": self.numbers, "texts": self.texts}
        return {name: value for name, value in both.items() if value.shape[1]}

    def mixed(self) -> NDArray[Any]:
        """Numbers, then texts, in one matrix."""
        return np.concatenate([self.numbers.astype(object), self.texts], axis=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """A pass over the training rows."""

    epoch: int
    train_loss: float
    validation_loss: float


@dataclass(slots=True)
class Fitted:
    """A trained pipeline with its learning curve."""

    pipeline: Any
    curve: list[Epoch] = field(default_factory=list)
    best_epoch: int = 0


def chosen_features(table: Table, names: Sequence[str], warnings: list[str]) -> list[Feature]:
    """Of these columns those that can tell something; why others are left out is added to `warnings`."""
    found: list[Feature] = []
    for name in names:
        column = table.columns[name]
        present = column.values[~column.missing]
        different = len(set(present.tolist()))
        if not len(present):
            warnings.append(f"{name!r} is left out: every cell is missing")
        elif different == 1 and len(present) == table.rows:
            warnings.append(f"{name!r} is left out: every cell is the same")
        elif column.kind == "number":
            found.append(Feature(name=name, kind="number"))
        elif different > max(MAX_VALUES, MANY_VALUES * len(present)):
            warnings.append(f"{name!r} is left out: {different} different texts in {table.rows} rows name the rows")
        else:
            common = [value for value, _ in Counter(present.tolist()).most_common(MAX_VALUES)]
            if different > MAX_VALUES:
                warnings.append(f"of the {different} texts of {name!r} the {MAX_VALUES} commonest are told apart")
            found.append(Feature(name=name, kind="text", values=tuple(sorted(common))))
    return found


def rows_of(columns: Sequence[Column], features: Sequence[Feature]) -> Rows:
    """Cells of the columns of `features`, in their order. Raises TableError for a number beyond float32."""
    count = len(columns[0].values)
    numbers = [c.values for c, f in zip(columns, features, strict=True) if f.kind == "number"]
    texts = [
        np.array(["" if v is None else v for v in c.values], object)
        for c, f in zip(columns, features, strict=True)
        if f.kind == "text"
    ]
    stacked = np.stack(numbers, axis=1) if numbers else np.zeros((count, 0))
    if (np.abs(stacked[~np.isnan(stacked)]) > np.finfo(np.float32).max).any():
        raise TableError("a number is too large for float32")
    return Rows(
        numbers=stacked.astype(np.float32), texts=np.stack(texts, axis=1) if texts else np.zeros((count, 0), object)
    )


def encoder(features: Sequence[Feature]) -> Any:
    """The unfitted steps from `Rows.mixed` to numbers."""
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numbers = sum(f.kind == "number" for f in features)
    values = [["", *f.values] for f in features if f.kind == "text"]
    steps = []
    if numbers:
        scale = Pipeline(
            [("missing", SimpleImputer(strategy="median", keep_empty_features=True)), ("scale", StandardScaler())]
        )
        steps.append(("numbers", scale, list(range(numbers))))
    if values:
        one_hot = OneHotEncoder(categories=values, handle_unknown="ignore", sparse_output=False, dtype=np.float32)
        steps.append(("texts", one_hot, list(range(numbers, numbers + len(values)))))
    return ColumnTransformer(steps)


def fit_mlp(
    rows: tuple[Rows, Rows],
    targets: tuple[NDArray[Any], NDArray[Any]],
    features: Sequence[Feature],
    *,
    hidden: Sequence[int],
    epochs: int,
    seed: int,
    classes: int | None,
    on_epoch: Callable[[Epoch], bool],
) -> Fitted:
    """A perceptron of the first rows that is as it was when the loss on the second was least.

    `targets`: class numbers below `classes`, or floats where that is None. `on_epoch` is told of every pass and says
    whether to go on. Adam, L2 penalty 1e-4, batches of 16 to 200 rows.
    """
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.pipeline import Pipeline

    encode = encoder(features)
    x = encode.fit_transform(rows[0].mixed()).astype(np.float32)
    held = encode.transform(rows[1].mixed()).astype(np.float32)
    kind: Any = MLPRegressor if classes is None else MLPClassifier
    batch = min(_MAX_BATCH, max(_MIN_BATCH, len(x) // _STEPS))
    model = kind(hidden_layer_sizes=tuple(hidden), batch_size=min(batch, len(x)), random_state=seed)
    fitted = Fitted(pipeline=None)
    best, least = model, np.inf
    for number in range(1, epochs + 1):
        if classes is None:
            model.partial_fit(x, targets[0].astype(np.float32))
        else:
            model.partial_fit(x, targets[0], classes=np.arange(classes))
        loss = _loss(model, held, targets[1], classes)
        epoch = Epoch(epoch=number, train_loss=float(model.loss_), validation_loss=loss)
        fitted.curve.append(epoch)
        if loss < least - _MIN_GAIN * abs(least if np.isfinite(least) else 0):
            best, least, fitted.best_epoch = copy.deepcopy(model), loss, number
        if not on_epoch(epoch) or number - fitted.best_epoch >= PATIENCE:
            break
    fitted.pipeline = Pipeline([("encode", encode), ("model", best)])
    return fitted


def fit_baseline(rows: Rows, targets: NDArray[Any], features: Sequence[Feature], *, classes: int | None) -> Any:
    """What a perceptron must beat: logistic regression over the same columns, or the mean."""
    from sklearn.dummy import DummyRegressor
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import Pipeline

    model = DummyRegressor() if classes is None else LogisticRegression(max_iter=2000)
    return Pipeline([("encode", encoder(features)), ("model", model)]).fit(rows.mixed(), targets)


def answers(pipeline: Any, rows: Rows, *, classes: int | None) -> NDArray[Any]:
    """What a fitted pipeline says: probabilities [n, classes], or values where that is None."""
    said = pipeline.predict(rows.mixed()) if classes is None else pipeline.predict_proba(rows.mixed())
    return np.asarray(said, float)


def fit_clusters(rows: Rows, features: Sequence[Feature], *, clusters: int, seed: int) -> Any:
    """k-means over the encoded rows."""
    from sklearn.cluster import KMeans
    from sklearn.pipeline import Pipeline

    model = KMeans(clusters, n_init=10, random_state=seed)
    return Pipeline([("encode", encoder(features)), ("model", model)]).fit(rows.mixed())


def separation(pipeline: Any, rows: Rows, *, seed: int) -> float:
    """Mean silhouette of at most 2,000 rows, -1 to 1 (Rousseeuw 1987); -1 where all are in one cluster."""
    from sklearn.metrics import silhouette_score

    few = rows.take(np.random.default_rng(seed).permutation(len(rows))[:2000])
    labels = pipeline.predict(few.mixed())
    if not 2 <= len(set(labels.tolist())) < len(few):
        return -1.0
    return float(silhouette_score(pipeline["encode"].transform(few.mixed()), labels))


def shuffled(rows: Rows, *, seed: int) -> Rows:
    """The same columns, each in an order of its own: nothing hangs together any more."""
    rng = np.random.default_rng(seed)
    return Rows(numbers=rng.permuted(rows.numbers, axis=0), texts=rng.permuted(rows.texts, axis=0))


def exported(pipeline: Any, rows: Rows) -> bytes:
    """The whole pipeline as an ONNX graph that takes `Rows.inputs`; what float32 cannot hold is infinite in it."""
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType

    kinds = {"numbers": FloatTensorType, "texts": StringTensorType}
    types = [(name, kinds[name]([None, value.shape[1]])) for name, value in rows.inputs().items()]
    model = pipeline["model"]
    options = {id(model): {"zipmap": False}} if hasattr(model, "predict_proba") else None
    with np.errstate(over="ignore"):
        graph = to_onnx(pipeline, initial_types=types, options=options, target_opset=_OPSET)
    return bytes(graph.SerializeToString())


def _loss(model: Any, x: NDArray[Any], y: NDArray[Any], classes: int | None) -> float:
    if classes is None:
        return float(np.mean((model.predict(x) - y) ** 2) / 2)
    return log_loss(y, model.predict_proba(x))
