"""Scores of a multi-label head: F1, calibration error, what abstention buys. Training and benchmark share them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroedge.engines.speech.emotion import GROUP_PREFIX
from neuroedge.runtimes.text_classifier import HeadClassifier

Array = NDArray[Any]


def thresholds_of(p: Array, truth: Array) -> NDArray[np.float32]:
    """Per label, the threshold with the largest F1 on these texts: p, truth [n, labels] -> [labels]."""
    order = np.argsort(-p, axis=0, kind="stable")
    hits = np.cumsum(np.take_along_axis(truth, order, axis=0), axis=0)
    f1 = 2 * hits / (np.arange(1, len(p) + 1)[:, None] + truth.sum(axis=0))
    best = f1.argmax(axis=0)
    ranked = np.take_along_axis(p, order, axis=0)
    columns = np.arange(p.shape[1])
    # Half way to the next text: the least dependent on the very example that set it.
    return np.asarray((ranked[best, columns] + ranked[np.minimum(best + 1, len(p) - 1), columns]) / 2, np.float32)


def crossed_macro_f1(p: Array, truth: Array) -> float:
    """Macro-F1 where each half of the texts is judged with the thresholds of the other half."""
    said = np.zeros_like(truth)
    even = np.arange(len(p)) % 2 == 0
    for half in (even, ~even):
        said[half] = p[half] >= thresholds_of(p[~half], truth[~half])
    return float(f1_per_label(said, truth).mean())


def f1_per_label(said: Array, truth: Array) -> NDArray[np.float64]:
    """F1 of each column; 0 where a label was neither said nor true."""
    hits = (said & truth).sum(axis=0)
    return np.asarray(2 * hits / np.maximum(said.sum(axis=0) + truth.sum(axis=0), 1))


def micro_f1(said: Array, truth: Array) -> float:
    """F1 over all decisions together."""
    return float(2 * (said & truth).sum() / max(1, int(said.sum() + truth.sum())))


def calibration_error(p: Array, truth: Array, *, bins: int = 15) -> float:
    """Expected calibration error (Guo 2017) over all (text, label) pairs, bins of equal width."""
    p, truth = p.ravel(), truth.ravel()
    where = np.minimum((p * bins).astype(int), bins - 1)
    gaps = [abs(p[where == b].mean() - truth[where == b].mean()) * (where == b).mean() for b in np.unique(where)]
    return float(sum(gaps))


def score(head: HeadClassifier, p: Array, truth: Array, *, uncalibrated: Array, vectors_alone: Array) -> dict[str, Any]:
    """All figures of a head on one split; p, truth [n, labels]."""
    groups = np.array([label.startswith(GROUP_PREFIX) for label in head.labels])
    said = p >= head.thresholds
    per_label = f1_per_label(said, truth)
    fine_only = p[:, ~groups], truth[:, ~groups]
    covered = p.max(axis=1) >= head.abstain_below
    alone = vectors_alone[:, ~groups] >= head.thresholds[~groups]
    figures = {
        "macro_f1": per_label[~groups].mean(),
        "micro_f1": micro_f1(said[:, ~groups], truth[:, ~groups]),
        "ekman_macro_f1": per_label[groups].mean(),
        "ece_before_calibration": calibration_error(uncalibrated[:, ~groups], truth[:, ~groups]),
        "ece": calibration_error(*fine_only),
        "ekman_ece_before_calibration": calibration_error(uncalibrated[:, groups], truth[:, groups]),
        "ekman_ece": calibration_error(p[:, groups], truth[:, groups]),
        "abstain_below": head.abstain_below,
        "coverage": covered.mean(),
        "best_label_accuracy_all": _best_is_right(*fine_only),
        "best_label_accuracy_covered": _best_is_right(fine_only[0][covered], fine_only[1][covered]),
        "best_group_accuracy_all": _best_is_right(p[:, groups], truth[:, groups]),
        "best_group_accuracy_covered": _best_is_right(p[covered][:, groups], truth[covered][:, groups]),
        "macro_f1_from_vectors_alone": f1_per_label(alone, truth[:, ~groups]).mean(),
    }
    rounded = {name: round(float(value), 4) for name, value in figures.items()}
    by_label = {label: round(float(f1), 3) for label, f1 in zip(head.labels, per_label, strict=True)}
    return {**rounded, "f1_by_label": by_label}


def _best_is_right(p: Array, truth: Array) -> float:
    """Share of texts whose most probable label is one of the true ones."""
    return float(truth[np.arange(len(p)), p.argmax(axis=1)].mean()) if len(p) else 0.0
