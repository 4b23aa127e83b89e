"""Training on a table, from its columns to an ONNX graph and its figures on rows held out.

A perceptron is measured beside logistic regression or the mean, clusters beside those of shuffled columns, on the same
rows. All of it is synchronous: `on_step` is told how far it is and says whether to go on.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from neuroedge.kit import holdout, tabular
from neuroedge.kit.holdout import Figure, Held
from neuroedge.kit.refusal import Refused
from neuroedge.kit.tables import Column, Table
from neuroedge.kit.tabular import Epoch, Feature, Rows

MIN_ROWS: Final = 50
MIN_OF_CLASS: Final = 8
"""Rows of a class: some for each part of the split."""
MAX_CLASSES: Final = 100
MIN_GROUPS: Final = 5
_MAX_SILHOUETTE_K: Final = 8
_HALVES: Final = 20

OnStep = Callable[[str, float], bool]
Scale = tuple[float, float]
"""Mean and standard deviation of a regression's target; it is learned in standard deviations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to learn; no `features` means all columns but the target and the group."""

    task: Literal["classification", "regression", "clusters"]
    target: str | None
    features: Sequence[str] | None
    group: str | None
    groups: int | None
    """Clusters; by silhouette where None."""
    hidden: Sequence[int]
    epochs: int
    holdout: float
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """A graph, what it reads and gives, and how good it is."""

    features: list[Feature]
    used_rows: int
    graph: bytes
    test: Rows
    """The rows held out."""
    said: NDArray[Any]
    """What was trained says of them: probabilities [n, classes], values in units of the scale, or cluster numbers."""
    held: Held
    warnings: list[str]
    classes: list[str] = field(default_factory=list)
    scale: Scale | None = None
    curve: list[Epoch] = field(default_factory=list)
    best_epoch: int | None = None
    clusters: list[int] = field(default_factory=list)
    """Training rows of each."""


def learned(table: Table, plan: Plan, *, on_step: OnStep) -> Learned:
    """Train and measure. Raises Refused, TableError."""
    return _clusters(table, plan, on_step) if plan.task == "clusters" else _perceptron(table, plan, on_step)


def texts_of(table: Table, target: str, *, others: Sequence[str]) -> list[str]:
    """The cells of a column that are not missing. Raises Refused for too few, and for unknown `others`."""
    _known(table, [target, *others])
    column = table.columns[target]
    texts = [str(value) for value in column.values[~column.missing]]
    if len(texts) < MIN_ROWS:
        raise Refused(f"{len(texts)} texts are too few", hint=f"send at least {MIN_ROWS}")
    return texts


def _known(table: Table, names: Sequence[str]) -> None:
    if unknown := [name for name in names if name not in table.columns]:
        known = ", ".join(list(table.columns)[:20])
        raise Refused(f"the table has no column {unknown[0]!r}", hint=f"its columns: {known}")


def _features(table: Table, plan: Plan, warnings: list[str]) -> list[Feature]:
    asked = list(plan.features or ())
    _known(table, [name for name in (plan.target, plan.group, *asked) if name is not None])
    if plan.target in asked or len(set(asked)) < len(asked):
        raise Refused("a feature is named twice, or is the target", hint="name each column once")
    names = asked or [name for name in table.columns if name not in (plan.target, plan.group)]
    found = tabular.chosen_features(table, names, warnings)
    if not found:
        raise Refused("no column is left to learn from", hint="; ".join(warnings)[:500] or "add columns")
    return found


# Clusters


def _clusters(table: Table, plan: Plan, on_step: OnStep) -> Learned:
    if table.rows < MIN_ROWS:
        raise Refused(f"{table.rows} rows are too few", hint=f"send at least {MIN_ROWS}")
    warnings = list(table.warnings)
    features = _features(table, plan, warnings)
    rows = tabular.rows_of([table.columns[f.name] for f in features], features)
    parts = holdout.split(len(rows), share=plan.holdout, seed=plan.seed, classes=None, groups=None)
    fit, test = rows.take(np.concatenate([parts.train, parts.validation])), rows.take(parts.test)
    best = _best_clusters(fit, features, plan, on_step)
    return Learned(
        features=features,
        used_rows=table.rows,
        graph=tabular.exported(best, fit),
        test=test,
        said=best.predict(test.mixed()),
        held=_separated(best, fit, test, features, seed=plan.seed),
        warnings=warnings,
        clusters=np.bincount(best["model"].labels_, minlength=best["model"].n_clusters).tolist(),
    )


def _best_clusters(fit: Rows, features: Sequence[Feature], plan: Plan, on_step: OnStep) -> Any:
    """As many as asked for, or as separate best."""
    tried = [plan.groups] if plan.groups else list(range(2, _MAX_SILHOUETTE_K + 1))
    best, best_score = None, -2.0
    for i, clusters in enumerate(tried):
        pipeline = tabular.fit_clusters(fit, features, clusters=clusters, seed=plan.seed)
        score = tabular.separation(pipeline, fit, seed=plan.seed)
        if score > best_score:
            best, best_score = pipeline, score
        if not on_step("training", (i + 1) / len(tried)):
            break
    return best


def _separated(best: Any, fit: Rows, test: Rows, features: Sequence[Feature], *, seed: int) -> Held:
    """The silhouette on rows held out, beside that of as many clusters of columns that do not hang together."""
    mixed_up = tabular.shuffled(fit, seed=seed)
    null = tabular.fit_clusters(mixed_up, features, clusters=best["model"].n_clusters, seed=seed)
    by_chance = tabular.separation(null, mixed_up, seed=seed)
    halves = [np.random.default_rng(i).permutation(len(test))[: len(test) // 2 + 1] for i in range(_HALVES)]
    spread = [tabular.separation(best, test.take(half), seed=i) for i, half in enumerate(halves)]
    low, high = (float(v) for v in np.percentile(spread, [2.5, 97.5]))
    seen = tabular.separation(best, test, seed=seed)
    return Held(
        rows=len(test),
        baseline="k-means over shuffled columns",
        figures=[Figure(name="silhouette", value=seen, low=low, high=high, baseline=by_chance)],
        better_low=low - by_chance,
        better_high=high - by_chance,
    )


# Classification and regression


def _perceptron(table: Table, plan: Plan, on_step: OnStep) -> Learned:
    warnings = list(table.warnings)
    features = _features(table, plan, warnings)
    column = table.columns[plan.target or ""]
    usable = np.flatnonzero(~column.missing)
    if len(usable) < MIN_ROWS:
        raise Refused(f"{len(usable)} rows have a target, too few", hint=f"send at least {MIN_ROWS}")
    if len(usable) < table.rows:
        warnings.append(f"{table.rows - len(usable)} rows without a target are not used")
    target = column.take(usable)
    rows = tabular.rows_of([table.columns[f.name].take(usable) for f in features], features)
    classes = _classes(target) if plan.task == "classification" else []
    y = _class_numbers(target, classes) if classes else _numbers(target)
    parts = _split(table, plan, usable, y if classes else None)
    scale = None if classes else _scale(y[parts.train])
    t = y if scale is None else (y - scale[0]) / scale[1]
    count = len(classes) or None

    def on_epoch(epoch: Epoch) -> bool:
        told = f"epoch {epoch.epoch}: loss {epoch.train_loss:.4g}, validation {epoch.validation_loss:.4g}"
        return on_step(told, 0.9 * epoch.epoch / plan.epochs)

    fitted = tabular.fit_mlp(
        (rows.take(parts.train), rows.take(parts.validation)),
        (t[parts.train], t[parts.validation]),
        features,
        hidden=plan.hidden,
        epochs=plan.epochs,
        seed=plan.seed,
        classes=count,
        on_epoch=on_epoch,
    )
    on_step("measuring", 0.95)
    fit, test = np.concatenate([parts.train, parts.validation]), rows.take(parts.test)
    base = tabular.fit_baseline(rows.take(fit), t[fit], features, classes=count)
    said = tabular.answers(fitted.pipeline, test, classes=count)
    return Learned(
        features=features,
        used_rows=len(usable),
        graph=tabular.exported(fitted.pipeline, test),
        test=test,
        said=said,
        held=holdout.beside(
            t[parts.test], said, tabular.answers(base, test, classes=count), scale=scale, seed=plan.seed
        ),
        warnings=warnings,
        classes=classes,
        scale=scale,
        curve=fitted.curve,
        best_epoch=fitted.best_epoch,
    )


def _classes(target: Column) -> list[str]:
    counts = Counter(_label(value) for value in target.values)
    if not 2 <= len(counts) <= MAX_CLASSES:
        raise Refused(
            f"the target has {len(counts)} different values",
            hint=f"a classification has 2 to {MAX_CLASSES} classes; a regression predicts numbers",
        )
    rarest, count = min(counts.items(), key=lambda item: item[1])
    if count < MIN_OF_CLASS:
        raise Refused(
            f"the class {rarest[:50]!r} has {count} rows, too few", hint=f"each class needs at least {MIN_OF_CLASS}"
        )
    return sorted(counts)


def _label(value: Any) -> str:
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _class_numbers(target: Column, classes: Sequence[str]) -> NDArray[Any]:
    number = {label: i for i, label in enumerate(classes)}
    return np.array([number[_label(value)] for value in target.values], np.int64)


def _numbers(target: Column) -> NDArray[Any]:
    if target.kind != "number":
        raise Refused("the target holds texts", hint="a regression predicts numbers; a classification texts")
    if len(set(target.values.tolist())) < 2:
        raise Refused("the target is the same in every row", hint="there is nothing to predict")
    return target.values


def _scale(values: NDArray[Any]) -> Scale:
    return float(values.mean()), float(values.std()) or 1.0


def _split(table: Table, plan: Plan, usable: NDArray[Any], y: NDArray[Any] | None) -> holdout.Split:
    groups = None
    if plan.group is not None:
        cells = table.columns[plan.group].take(usable)
        groups = np.unique([str(v) for v in cells.values], return_inverse=True)[1]
        if len(set(groups.tolist())) < MIN_GROUPS:
            raise Refused(f"there are fewer than {MIN_GROUPS} groups", hint="they cannot be split into three parts")
    try:
        parts = holdout.split(len(usable), share=plan.holdout, seed=plan.seed, classes=y, groups=groups)
    except ValueError as error:
        raise Refused(f"the rows cannot be split: {error}", hint="send more rows of each class") from error
    if y is not None and set(y[parts.train]) != set(y):
        raise Refused("a class is in none of the groups to train on", hint="send more groups, or no 'group'")
    return parts
