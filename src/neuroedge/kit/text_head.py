"""A classifier of texts trained from examples: multinomial logistic regression over TF-IDF words or sentence vectors.

Every fifth example of each label is held out, and the figures are measured on it once. The probabilities' temperature
(Guo et al. 2017) is fitted on predictions by cross-validation within the rest; the TF-IDF weights, which know no label,
are those of all of the rest. The same examples in the same order and the same seed give the same head.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from neuroedge.kit.calibration import Doubles, log_loss, softmax, temperature_of, top_label_error

Features = Literal["tfidf", "embedding"]
MIN_PER_LABEL: Final = 5
HOLDOUT_SHARE: Final = 0.2
_FOLDS: Final = 5
_OPSET: Final = {"": 18, "ai.onnx.ml": 3}
_MAX_WORDS: Final = 50_000
_WORD: Final = r"(?u)\w+|[^\w\s]+"
"""Punctuation and single characters count: "!!!" and "$" tell much."""
_STRENGTH: Final = {"tfidf": 30.0, "embedding": 10.0}
"""Inverse regularisation; chosen on the dev part of SpamAssassin and on the routing requests' dev part."""


class TooFewExamples(ValueError):
    """A label has fewer examples than MIN_PER_LABEL, or there is only one label."""


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Figures on the examples that were held out."""

    n: int
    accuracy: float
    macro_f1: float
    log_loss: float
    """Nats."""
    ece: float
    """Expected calibration error of the most probable label, 15 bins."""
    auc: float
    """Area under the receiver operating characteristic; of several labels the mean over them, each against the rest."""
    majority_accuracy: float
    """What always saying the commonest label would reach."""


@dataclass(frozen=True, kw_only=True)
class TextHead:
    """A trained classifier."""

    labels: tuple[str, ...]
    features: Features
    temperature: float
    heldout: HeldOut
    n_train: int
    cv_log_loss: float
    """By cross-validation within the training examples, after temperature scaling: to choose between features."""
    model: Any
    words: Any = None
    """The fitted TF-IDF vectoriser; None for sentence vectors."""

    def predict(self, texts: Sequence[str], vectors: NDArray[Any] | None = None) -> Doubles:
        """Calibrated probabilities [n, labels] of `texts`, or of their sentence vectors [n, dim]."""
        read = vectors if self.words is None else self.words.transform(texts)
        return softmax(_logits(self.model, read), temperature=self.temperature)


def train(
    texts: Sequence[str],
    labels: Sequence[str],
    *,
    vectors: NDArray[Any] | None = None,
    seed: int = 0,
    holdout_share: float = HOLDOUT_SHARE,
) -> TextHead:
    """A head over the words of `texts`, or over their sentence `vectors` [n, dim] where given.

    Raises TooFewExamples.
    """
    names, truth = _known(labels)
    features: Features = "tfidf" if vectors is None else "embedding"
    kept, out = _split(truth, share=holdout_share, seed=seed)
    words = None
    if vectors is None:
        # Fitted on the training examples only: a held-out text's words must not shape the weights.
        words = _vectoriser().fit([texts[i] for i in kept])
        read = words.transform(texts)
    else:
        read = np.asarray(vectors, np.float64)
    temperature, cv_loss = _temperature(read[kept], truth[kept], features=features, seed=seed)
    model = _fit(read[kept], truth[kept], features=features, seed=seed)
    p = softmax(_logits(model, read[out]), temperature=temperature)
    return TextHead(
        labels=names,
        features=features,
        temperature=temperature,
        heldout=_figures(p, truth[out], majority=int(np.bincount(truth[kept]).argmax())),
        n_train=len(kept),
        cv_log_loss=cv_loss,
        model=model,
        words=words,
    )


def exported(head: TextHead) -> bytes:
    """A head over sentence vectors as ONNX: `vectors` f[n, dim] in, calibrated `probabilities` f[n, labels] out.

    Raises ValueError for a head over words.
    """
    from copy import copy

    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType

    if head.words is not None:
        raise ValueError("a head over words cannot be exported")
    scaled = copy(head.model)
    scaled.coef_ = head.model.coef_ / head.temperature
    scaled.intercept_ = head.model.intercept_ / head.temperature
    types = [("vectors", FloatTensorType([None, scaled.coef_.shape[1]]))]
    graph = to_onnx(scaled, initial_types=types, options={id(scaled): {"zipmap": False}}, target_opset=_OPSET)
    made: bytes = graph.SerializeToString()
    return made


def roc_auc(p: Doubles, truth: NDArray[np.int64]) -> float:
    """Area under the curve: p [n, labels], truth [n]; one against the rest, averaged, for more than two labels."""
    from sklearn.metrics import roc_auc_score

    if p.shape[1] == 2:
        return float(roc_auc_score(truth == 1, p[:, 1]))
    present = sorted(set(truth.tolist()))
    return float(np.mean([roc_auc_score(truth == k, p[:, k]) for k in present]))


def check_counts(labels: Sequence[str]) -> None:
    """Raise TooFewExamples where a label has fewer than MIN_PER_LABEL, or there is only one."""
    counts = Counter(labels)
    few = sorted(name for name, n in counts.items() if n < MIN_PER_LABEL)
    if few or len(counts) < 2:
        what = f"{few[0]!r} has {counts[few[0]]}" if few else "there is only one label"
        raise TooFewExamples(f"two labels with {MIN_PER_LABEL} examples each are needed; {what}")


def _known(labels: Sequence[str]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    check_counts(labels)
    names = tuple(sorted(set(labels)))
    place = {name: i for i, name in enumerate(names)}
    return names, np.array([place[name] for name in labels])


def _split(truth: NDArray[np.int64], *, share: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions to train on and to hold out, `share` of each label and at least one."""
    drawn = np.random.default_rng(seed)
    out = []
    for label in range(int(truth.max()) + 1):
        mine = drawn.permutation(np.flatnonzero(truth == label))
        out.append(mine[: max(1, round(share * len(mine)))])
    held = np.sort(np.concatenate(out))
    return np.setdiff1d(np.arange(len(truth)), held), held


def _temperature(read: Any, truth: NDArray[np.int64], *, features: Features, seed: int) -> tuple[float, float]:
    """Temperature by predictions of folds whose model did not see the text, and the log loss that is left."""
    from sklearn.model_selection import StratifiedKFold

    folds = StratifiedKFold(min(_FOLDS, int(np.bincount(truth).min())), shuffle=True, random_state=seed)
    logits = np.zeros((len(truth), int(truth.max()) + 1))
    for inside, left in folds.split(np.zeros(len(truth)), truth):
        logits[left] = _logits(_fit(read[inside], truth[inside], features=features, seed=seed), read[left])
    temperature = temperature_of(logits, truth)
    return temperature, log_loss(softmax(logits, temperature=temperature), truth)


def _vectoriser() -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(sublinear_tf=True, max_features=_MAX_WORDS, token_pattern=_WORD)


def _fit(read: Any, truth: NDArray[np.int64], *, features: Features, seed: int) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=_STRENGTH[features], max_iter=300, tol=1e-3, random_state=seed).fit(read, truth)


def _logits(model: Any, read: Any) -> Doubles:
    """[n, labels]; the two of a binary model are 0 and its one."""
    scores = np.asarray(model.decision_function(read), np.float64)
    return np.column_stack([np.zeros(len(scores)), scores]) if scores.ndim == 1 else scores


def _figures(p: Doubles, truth: NDArray[np.int64], *, majority: int) -> HeldOut:
    from sklearn.metrics import f1_score

    said = p.argmax(axis=1)
    return HeldOut(
        n=len(truth),
        accuracy=float((said == truth).mean()),
        macro_f1=float(f1_score(truth, said, average="macro", zero_division=0)),
        log_loss=log_loss(p, truth),
        ece=top_label_error(p, truth),
        auc=roc_auc(p, truth),
        majority_accuracy=float((truth == majority).mean()),
    )
