"""Trained heads: calibrated multi-label probabilities from a sentence vector and, where the head has them, from words.

A head file (`head.npz`, no pickled objects) mixes two scores a label: an MLP with one hidden ReLU layer over the
sentence vector, and a linear model over the text's TF-IDF words; then comes a Platt scaling by label (Platt 1999).
`training/emotion_text.py` writes such files; the keys:

    labels U[L], thresholds f[L], abstain_below f[], embedding_model U[]
    w0 f[D, H], b0 f[H], w1 f[H, L], b1 f[L]        the MLP
    vector_scale f[L], vector_shift f[L]            Platt scaling of the MLP's score alone
    words U[V], idf f[V], word_weights f[V, L], word_bias f[L], mix f[], scale f[L], shift f[L]
                                                    optional, all or none: the words, and Platt scaling of the mix
    exclusive i[]                                   optional: the first so many labels exclude each other, their
                                                    probabilities sum to 1 (softmax; the scale is a temperature's)
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from neuroedge.contract.errors import ModelUnavailable
from neuroedge.contract.models import Floats
from neuroedge.runtimes.threaded import Threaded

HEAD_FILE: Final = "head.npz"
_MAX_WAITING_TEXTS: Final = 4096.0
_TOKEN = re.compile(r"[\w']+|[^\w\s]")
_VECTOR_KEYS = ("w0", "b0", "w1", "b1", "vector_scale", "vector_shift")
_WORD_KEYS = ("idf", "word_weights", "word_bias", "mix", "scale", "shift")


def load(model_id: str, folder: Path, *, threads: int, options: Mapping[str, Any]) -> "HeadClassifier":
    """Load folder/head.npz, or the file that option `file` names (blocking).

    `threads` is not used: a head is two small matrix products.
    Raises ModelUnavailable when the file is missing, is no head, or its parts do not fit together.
    """
    path = folder / str(options.get("file", HEAD_FILE))
    hint = f"run `neuroedge models verify {model_id}`"
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except Exception as error:  # numpy and zipfile raise errors of five unrelated classes
        raise ModelUnavailable(f"{model_id} does not load: {error}", hint=hint) from error
    problem = _problem(arrays)
    if problem is not None:
        raise ModelUnavailable(f"{model_id}: {path.name} {problem}", hint=hint)
    return HeadClassifier(model_id, arrays)


def words_of(text: str) -> list[str]:
    """The lower-case words and punctuation marks a head sees; training and inference share it."""
    return _TOKEN.findall(text.lower().replace("’", "'"))


class HeadClassifier(Threaded):
    """A TextClassifier (contract/models.py) that can also read the words of the text (`predict_texts`)."""

    def __init__(self, model_id: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        super().__init__(model_id, max_waiting=_MAX_WAITING_TEXTS)
        self.labels: tuple[str, ...] = tuple(str(label) for label in arrays["labels"])
        self.thresholds: Floats = arrays["thresholds"].astype(np.float32)
        self.abstain_below = float(arrays["abstain_below"])
        self.embedding_model = str(arrays["embedding_model"])
        self.dim = int(arrays["w0"].shape[0])
        self.exclusive = int(arrays.get("exclusive", np.int64(0)))
        self._words = {str(word): i for i, word in enumerate(arrays.get("words", ()))}
        self._a: dict[str, Floats] = {
            key: arrays[key].astype(np.float32) for key in (*_VECTOR_KEYS, *_WORD_KEYS) if key in arrays
        }

    async def predict(self, vectors: Floats) -> Floats:
        """Probabilities [n, labels] from sentence vectors [n, dim] alone; less exact than with the words."""
        return await self._in_thread(lambda: self._predict(vectors, None), cost=len(vectors))

    async def predict_texts(self, vectors: Floats, texts: Sequence[str]) -> Floats:
        """Probabilities [n, labels] from the sentence vectors [n, dim] of `texts` and from their words."""
        read = texts if self._words else None
        return await self._in_thread(lambda: self._predict(vectors, read), cost=len(vectors))

    def close(self) -> None:
        """Wait for the running batch and drop the arrays."""
        super().close()
        self._a = {}
        self._words = {}

    def _predict(self, vectors: Floats, texts: Sequence[str] | None) -> Floats:
        if vectors.ndim != 2 or vectors.shape[1] != self.dim:
            raise ModelUnavailable(
                f"{self.model_id} reads vectors of {self.dim} numbers, not {vectors.shape[1:]}",
                hint=f"set text_embedding to {self.embedding_model} or train a head for the other encoder",
            )
        a = self._a
        score = np.maximum(vectors @ a["w0"] + a["b0"], 0) @ a["w1"] + a["b1"]
        if texts is None:
            logit = a["vector_scale"] * score + a["vector_shift"]
        else:
            by_words = np.stack([self._word_score(t) for t in texts]) if texts else np.zeros_like(score)
            logit = a["scale"] * ((1 - a["mix"]) * score + a["mix"] * by_words) + a["shift"]
        p = np.asarray(1 / (1 + np.exp(-np.clip(logit, -30, 30))), np.float32)
        if self.exclusive:
            raised = np.exp(logit[:, : self.exclusive] - logit[:, : self.exclusive].max(axis=1, keepdims=True))
            p[:, : self.exclusive] = raised / raised.sum(axis=1, keepdims=True)
        return p

    def _word_score(self, text: str) -> Floats:
        """Linear score [labels] over binary, IDF-weighted, L2-normalised words."""
        known = [self._words[w] for w in sorted(set(words_of(text))) if w in self._words]
        weights = self._a["idf"][known]
        norm = float(np.linalg.norm(weights)) or 1.0
        return np.asarray((weights / norm) @ self._a["word_weights"][known] + self._a["word_bias"], np.float32)


def _problem(arrays: Mapping[str, NDArray[Any]]) -> str | None:
    """What is wrong with a head's arrays, or None."""
    keys = ("labels", "thresholds", "abstain_below", "embedding_model", *_VECTOR_KEYS)
    has_words = "words" in arrays
    missing = [k for k in (*keys, *(_WORD_KEYS if has_words else ())) if k not in arrays]
    if missing:
        return f"lacks {', '.join(missing)}"
    n = len(arrays["labels"]) if arrays["labels"].ndim == 1 else 0
    if n == 0 or len(set(arrays["labels"].tolist())) != n:
        return "has no labels, or one twice"
    if arrays["w0"].ndim != 2:
        return "has a w0 that is no matrix"
    dim, hidden = arrays["w0"].shape
    shapes: dict[str, tuple[int, ...]] = {"thresholds": (n,), "abstain_below": (), "embedding_model": ()}
    shapes |= {"w0": (dim, hidden), "b0": (hidden,), "w1": (hidden, n), "b1": (n,)}
    shapes |= {"vector_scale": (n,), "vector_shift": (n,)}
    if has_words:
        v = arrays["words"].size
        shapes |= {"words": (v,), "idf": (v,), "word_weights": (v, n), "word_bias": (n,), "mix": ()}
        shapes |= {"scale": (n,), "shift": (n,)}
    for key, shape in shapes.items():
        if arrays[key].shape != shape:
            return f"has {key} {list(arrays[key].shape)}, expected {list(shape)}"
    exclusive = arrays.get("exclusive", np.int64(0))
    if exclusive.shape != () or exclusive.dtype.kind != "i" or not 0 <= exclusive <= n:
        return "has an exclusive that is no number of labels"
    numeric = [k for k in shapes if k not in ("words", "embedding_model")]
    broken = [k for k in numeric if arrays[k].dtype.kind != "f" or not np.isfinite(arrays[k]).all()]
    return f"has no finite numbers in {', '.join(broken)}" if broken else None
