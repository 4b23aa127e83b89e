"""Trains the text emotion head: GoEmotions labels from a sentence vector and the text's words.

    python -m training.emotion_text --data DIR --models DIR --out DIR [--scratch DIR]

--data holds goemotions/{train,dev,test}.tsv and labels.txt (Demszky et al. 2020, "GoEmotions", ACL; Apache-2.0);
--models holds the embedding model's folder; --out gets head.npz and card.json. Candidates (logistic or MLP over the
vector, words with or without class weights, the share of the words) are chosen on dev, by macro-F1 with thresholds of
the other half of dev; calibration, thresholds and the level of abstention are set on dev too. Test is scored once, with
the file as written. The seven groups of the paper (Ekman's six and neutral) are labels of their own.
"""

import argparse
import asyncio
import hashlib
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from training.scores import crossed_macro_f1, score, thresholds_of

from neuroedge.engines.speech.emotion import GROUP_PREFIX
from neuroedge.runtimes import text_classifier, text_encoder

Array = NDArray[Any]

SEED = 20200705
EMBEDDING_MODEL = "all-minilm-l6-v2-int8"
WORD_SHARES = (0.0, 0.5, 0.6, 0.7, 0.8, 1.0)
TARGET_ACCURACY = 0.75
"""Accuracy of the best group that the level of abstention must reach on dev."""
GROUPS: dict[str, tuple[str, ...]] = {
    "anger": ("anger", "annoyance", "disapproval"),
    "disgust": ("disgust",),
    "fear": ("fear", "nervousness"),
    "joy": (
        *("joy", "amusement", "approval", "excitement", "gratitude", "love"),
        *("optimism", "relief", "pride", "admiration", "desire", "caring"),
    ),
    "sadness": ("sadness", "disappointment", "embarrassment", "grief", "remorse"),
    "surprise": ("surprise", "realization", "confusion", "curiosity"),
    "neutral": ("neutral",),
}


@dataclass(frozen=True, kw_only=True)
class Split:
    """Texts with sentence vectors float32 [n, dim] and labels bool [n, labels + groups]."""

    texts: list[str]
    vectors: Array
    truth: Array


@dataclass(frozen=True, kw_only=True)
class VectorPart:
    """An MLP over the vector: relu(x @ w0 + b0) @ w1 + b1."""

    name: str
    w0: Array
    b0: Array
    w1: Array
    b1: Array

    def scores(self, vectors: Array) -> Array:
        """Logits [n, labels]."""
        scores: Array = np.maximum(vectors @ self.w0 + self.b0, 0) @ self.w1 + self.b1
        return scores


@dataclass(frozen=True, kw_only=True)
class WordPart:
    """A linear model over TF-IDF words."""

    name: str
    vectorizer: TfidfVectorizer
    weights: Array
    bias: Array

    def scores(self, texts: Sequence[str]) -> Array:
        """Logits [n, labels]."""
        return np.asarray(self.vectorizer.transform(texts) @ self.weights + self.bias)


def main() -> None:
    """Train, choose, calibrate, write, score once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--data", "--models", "--out"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--scratch", type=Path, help="keeps the sentence vectors for the next run")
    given = parser.parse_args()
    folder = given.data / "goemotions"
    labels = read_labels(folder)
    splits = {
        name: read_split(folder / f"{name}.tsv", labels, models=given.models, scratch=given.scratch)
        for name in ("train", "dev", "test")
    }
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / text_classifier.HEAD_FILE
    chosen = train(splits["train"], splits["dev"], all_labels(labels), path)
    figures = {name: asyncio.run(evaluate(given.out, splits[name])) for name in ("dev", "test")}
    card = model_card(path, chosen=chosen, figures=figures, rows={name: len(s.texts) for name, s in splits.items()})
    (given.out / "card.json").write_text(json.dumps(card, indent=1) + "\n")
    print(json.dumps(card, indent=1))


def read_labels(folder: Path) -> list[str]:
    """The data's labels, in the order of their ids."""
    return (folder / "labels.txt").read_text().split()


def all_labels(labels: Sequence[str]) -> list[str]:
    """The head's outputs: the labels, then the groups with their prefix."""
    return [*labels, *(GROUP_PREFIX + group for group in GROUPS)]


def read_split(path: Path, labels: Sequence[str], *, models: Path, scratch: Path | None = None) -> Split:
    """Read one file of the data (text, label ids, id; tab-separated) and embed its texts."""
    rows = [line.split("\t") for line in path.read_text(encoding="utf-8").split("\n") if line]
    fine = np.zeros((len(rows), len(labels)), bool)
    for i, (_, ids, _) in enumerate(rows):
        fine[i, [int(k) for k in ids.split(",")]] = True
    groups = [fine[:, [labels.index(name) for name in members]].any(axis=1) for members in GROUPS.values()]
    texts = [text for text, _, _ in rows]
    return Split(
        texts=texts, vectors=embedded(texts, models=models, scratch=scratch), truth=np.column_stack([fine, *groups])
    )


def embedded(texts: list[str], *, models: Path, scratch: Path | None) -> Array:
    """Sentence vectors of `texts` by the product's own runtime; kept in `scratch` under the hash of the texts."""
    key = hashlib.sha256("\n".join([EMBEDDING_MODEL, *texts]).encode()).hexdigest()[:16]
    kept = scratch / f"vectors-{key}.npy" if scratch else None
    if kept is not None and kept.exists():
        return np.asarray(np.load(kept, allow_pickle=False))
    encoder = text_encoder.load(EMBEDDING_MODEL, models / EMBEDDING_MODEL, threads=2, options={})
    try:
        vectors = asyncio.run(encoder.encode(texts)).vectors
    finally:
        encoder.close()
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.save(kept, vectors)
    return vectors


def train(train: Split, dev: Split, labels: Sequence[str], path: Path) -> dict[str, Any]:
    """Fit the candidates, choose on `dev`, write the head to `path`; what was chosen, with every candidate's score."""
    fine = sum(not label.startswith(GROUP_PREFIX) for label in labels)
    vector_parts = [fit_mlp(train), fit_logistic(train)]
    word_parts = [fit_words(train, class_weight=None), fit_words(train, class_weight="balanced")]
    candidates = []
    for vector in vector_parts:
        for word in word_parts:
            for share in WORD_SHARES:
                logits = (1 - share) * vector.scores(dev.vectors) + share * word.scores(dev.texts)
                macro = crossed_macro_f1(logits[:, :fine], dev.truth[:, :fine])
                candidates.append((macro, vector, word, share))
                print(f"dev macro-F1 {macro:.4f}: {vector.name}, {word.name}, share of the words {share}")
    macro, vector, word, share = max(candidates, key=lambda c: c[0])
    arrays = head_arrays(vector, word, share=share, dev=dev, labels=labels)
    np.savez_compressed(path, allow_pickle=False, **arrays)
    return {
        "vector_part": vector.name,
        "word_part": word.name,
        "share_of_words": share,
        "dev_crossed_macro_f1": round(macro, 4),
        "dev_crossed_macro_f1_vectors_only": round(max(c[0] for c in candidates if c[3] == 0.0), 4),
        "dev_crossed_macro_f1_words_only": round(max(c[0] for c in candidates if c[3] == 1.0), 4),
    }


def fit_mlp(split: Split, *, hidden: int = 256, epochs: int = 6) -> VectorPart:
    """One hidden layer; few epochs stand in for early stopping (more over-fit on dev)."""
    mean, spread = _moments(split.vectors)
    model = MLPClassifier(
        (hidden,), alpha=1e-3, batch_size=min(256, len(split.texts)), max_iter=epochs, random_state=SEED
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit((split.vectors - mean) / spread, split.truth.astype(int))
    (w0, w1), (b0, b1) = model.coefs_, model.intercepts_
    w0 = w0 / spread[:, None]
    return VectorPart(name=f"mlp-{hidden}", w0=w0, b0=b0 - mean @ w0, w1=w1, b1=b1)


def fit_logistic(split: Split) -> VectorPart:
    """One-vs-rest logistic regression, written as an MLP: x = relu(x) - relu(-x)."""
    mean, spread = _moments(split.vectors)
    weights, bias = _one_vs_rest((split.vectors - mean) / spread, split.truth, C=0.1, class_weight=None)
    weights = weights / spread[:, None]
    eye = np.eye(len(mean))
    return VectorPart(
        name="logistic",
        w0=np.hstack([eye, -eye]),
        b0=np.zeros(2 * len(mean)),
        w1=np.vstack([weights, -weights]),
        b1=bias - mean @ weights,
    )


def fit_words(split: Split, *, class_weight: str | None) -> WordPart:
    """One-vs-rest logistic regression over binary TF-IDF words that at least three texts have."""
    vectorizer = TfidfVectorizer(analyzer=text_classifier.words_of, min_df=3, binary=True, sublinear_tf=False)
    strength = 2.0 if class_weight is None else 0.5
    weights, bias = _one_vs_rest(
        vectorizer.fit_transform(split.texts), split.truth, C=strength, class_weight=class_weight
    )
    name = "words" if class_weight is None else "words, classes weighted"
    return WordPart(name=name, vectorizer=vectorizer, weights=weights, bias=bias)


def _moments(vectors: Array) -> tuple[Array, Array]:
    # Three of the 384 numbers are constant zero in the default model: the floor keeps them finite.
    return vectors.mean(axis=0, dtype=float), np.maximum(vectors.std(axis=0, dtype=float), 1e-3)


def _one_vs_rest(features: Any, truth: Array, *, C: float, class_weight: str | None) -> tuple[Array, Array]:  # noqa: N803
    models = [
        LogisticRegression(C=C, class_weight=class_weight, solver="liblinear", random_state=SEED).fit(features, column)
        for column in truth.T
    ]
    return np.column_stack([m.coef_[0] for m in models]), np.array([m.intercept_[0] for m in models])


def head_arrays(
    vector: VectorPart, word: WordPart, *, share: float, dev: Split, labels: Sequence[str]
) -> dict[str, Array]:
    """The head's file: weights in half precision, Platt scaling, thresholds and level of abstention set on `dev`."""
    by_vector = vector.scores(dev.vectors)
    mixed = (1 - share) * by_vector + share * word.scores(dev.texts)
    vector_scale, vector_shift = platt(by_vector, dev.truth)
    scale, shift = platt(mixed, dev.truth)
    p = 1 / (1 + np.exp(-(scale * mixed + shift)))
    groups = np.array([label.startswith(GROUP_PREFIX) for label in labels])
    arrays: dict[str, Any] = {
        "labels": np.array(labels),
        "embedding_model": np.array(EMBEDDING_MODEL),
        "thresholds": thresholds_of(p, dev.truth),
        "abstain_below": np.float32(abstention_level(p, dev.truth, groups)),
        "w0": vector.w0.astype(np.float16),
        "b0": vector.b0.astype(np.float32),
        "w1": vector.w1.astype(np.float16),
        "b1": vector.b1.astype(np.float32),
        "vector_scale": vector_scale,
        "vector_shift": vector_shift,
    }
    if share > 0:
        arrays |= {
            "words": np.array(word.vectorizer.get_feature_names_out(), dtype=np.str_),
            "idf": word.vectorizer.idf_.astype(np.float16),
            "word_weights": word.weights.astype(np.float16),
            "word_bias": word.bias.astype(np.float32),
            "mix": np.float32(share),
            "scale": scale,
            "shift": shift,
        }
    return arrays


def platt(logits: Array, truth: Array) -> tuple[Array, Array]:
    """Per label, scale and shift of the logit (Platt 1999), with a weak prior for labels of few examples."""
    fits = [LogisticRegression(C=1.0).fit(logits[:, [k]], truth[:, k]) for k in range(truth.shape[1])]
    scale = np.array([fit.coef_[0, 0] for fit in fits], np.float32)
    return np.maximum(scale, 0.01), np.array([fit.intercept_[0] for fit in fits], np.float32)


def abstention_level(p: Array, truth: Array, groups: Array) -> float:
    """The lowest largest probability from which the best group is right as often as TARGET_ACCURACY."""
    confidence = p.max(axis=1)
    right = truth[:, groups][np.arange(len(p)), p[:, groups].argmax(axis=1)]
    order = np.argsort(-confidence)
    accuracy = np.cumsum(right[order]) / np.arange(1, len(p) + 1)
    enough = np.flatnonzero(accuracy >= TARGET_ACCURACY)
    return float(confidence[order[enough[-1]]]) if len(enough) else 1.0


async def evaluate(folder: Path, split: Split) -> dict[str, Any]:
    """Figures of the head as written, through the product's runtime."""
    head = text_classifier.load("goemotions-head", folder, threads=1, options={})
    try:
        p = await head.predict_texts(split.vectors, split.texts)
        alone = await head.predict(split.vectors)
        return score(head, p, split.truth, uncalibrated=uncalibrated(folder, p), vectors_alone=alone)
    finally:
        head.close()


def uncalibrated(folder: Path, p: Array) -> Array:
    """The probabilities `p` would be without Platt scaling."""
    with np.load(folder / text_classifier.HEAD_FILE, allow_pickle=False) as file:
        prefix = "" if "words" in file else "vector_"
        scale, shift = file[prefix + "scale"], file[prefix + "shift"]
    p = np.clip(p.astype(float), 1e-9, 1 - 1e-9)
    raw: Array = 1 / (1 + np.exp(-(np.log(p / (1 - p)) - shift) / scale))
    return raw


def model_card(path: Path, *, chosen: dict[str, Any], figures: dict[str, Any], rows: dict[str, int]) -> dict[str, Any]:
    """What stands in card.json."""
    return {
        "model": "goemotions-head",
        "file": path.name,
        "bytes": path.stat().st_size,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "licence": "Apache-2.0",
        "data": "GoEmotions (Demszky et al. 2020), Reddit comments in English, Apache-2.0; the published split",
        "rows": rows,
        "embedding_model": EMBEDDING_MODEL,
        "date": datetime.now(UTC).date().isoformat(),
        "seed": SEED,
        "chosen_on_dev": chosen,
        "figures": figures,
        "published": {"bert_macro_f1": 0.46, "bert_ekman_macro_f1": 0.64, "logistic_regression_micro_f1": 0.51},
    }


if __name__ == "__main__":
    main()
