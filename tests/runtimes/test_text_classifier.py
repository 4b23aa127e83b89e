"""The head's runtime: its arithmetic against scikit-learn, what it refuses, and the head that ships."""

import json
import pickle
from hashlib import sha256
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from neuroedge.contract.errors import ModelUnavailable
from neuroedge.runtimes.text_classifier import HeadClassifier, load, words_of

DIM, HIDDEN = 6, 5
LABELS = ("joy", "anger", "ekman:joy")
TEXTS = ["Good good day!", "a bad, bad day", "unseen entirely", ""]


def _arrays(*, words: bool = True) -> dict[str, Any]:
    r = np.random.default_rng(3)
    n = len(LABELS)
    arrays: dict[str, Any] = {
        "labels": np.array(LABELS),
        "thresholds": np.array([0.3, 0.4, 0.5], np.float32),
        "abstain_below": np.float32(0.2),
        "embedding_model": np.array("some-encoder"),
        "w0": r.normal(size=(DIM, HIDDEN)),
        "b0": r.normal(size=HIDDEN),
        "w1": r.normal(size=(HIDDEN, n)),
        "b1": r.normal(size=n),
        "vector_scale": np.array([1.0, 2.0, 0.5]),
        "vector_shift": np.array([0.0, -1.0, 0.3]),
    }
    if words:
        fitted = _vectorizer()
        v = len(fitted.vocabulary_)
        arrays |= {
            "words": np.array(fitted.get_feature_names_out(), dtype=np.str_),
            "idf": fitted.idf_,
            "word_weights": r.normal(size=(v, n)),
            "word_bias": r.normal(size=n),
            "mix": np.float32(0.25),
            "scale": np.array([1.5, 1.0, 2.0]),
            "shift": np.array([0.1, 0.0, -0.2]),
        }
    return arrays


def _vectorizer() -> TfidfVectorizer:
    return TfidfVectorizer(analyzer=words_of, binary=True).fit(["a good day !", "a bad day", "it's a day , good"])


def _write(folder: Path, arrays: dict[str, Any]) -> Path:
    np.savez(folder / "head.npz", allow_pickle=False, **arrays)
    return folder


def _load(folder: Path) -> HeadClassifier:
    return load("head", folder, threads=1, options={})


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def _mlp(a: dict[str, Any], vectors: Any) -> Any:
    return np.maximum(vectors @ a["w0"] + a["b0"], 0) @ a["w1"] + a["b1"]


@pytest.mark.anyio
async def test_probabilities_are_those_of_the_formula_with_scikit_learns_tfidf(tmp_path: Path) -> None:
    """Vector and words mixed and scaled; unknown words and no words at all are no error."""
    a = _arrays()
    head = _load(_write(tmp_path, a))
    vectors = np.random.default_rng(1).normal(size=(len(TEXTS), DIM)).astype(np.float32)
    by_words = _vectorizer().transform(TEXTS) @ a["word_weights"] + a["word_bias"]
    expected = _sigmoid(a["scale"] * (0.75 * _mlp(a, vectors) + 0.25 * by_words) + a["shift"])
    found = await head.predict_texts(vectors, TEXTS)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found.dtype == np.float32
    head.close()


@pytest.mark.anyio
async def test_vectors_alone_have_a_calibration_of_their_own(tmp_path: Path) -> None:
    """`predict` as the contract has it, with and without words in the head."""
    vectors = np.random.default_rng(1).normal(size=(4, DIM)).astype(np.float32)
    for words in (True, False):
        a = _arrays(words=words)
        head = _load(_write(tmp_path, a))
        expected = _sigmoid(a["vector_scale"] * _mlp(a, vectors) + a["vector_shift"])
        np.testing.assert_allclose(await head.predict(vectors), expected, atol=1e-5)
        if not words:
            np.testing.assert_allclose(await head.predict_texts(vectors, TEXTS), expected, atol=1e-5)
        head.close()


@pytest.mark.anyio
async def test_a_batch_answers_as_one_by_one(tmp_path: Path) -> None:
    """Rows do not touch each other; no rows give no rows."""
    head = _load(_write(tmp_path, _arrays()))
    vectors = np.random.default_rng(1).normal(size=(len(TEXTS), DIM)).astype(np.float32)
    together = await head.predict_texts(vectors, TEXTS)
    alone = [await head.predict_texts(vectors[[i]], [text]) for i, text in enumerate(TEXTS)]
    np.testing.assert_allclose(together, np.concatenate(alone), atol=1e-6)
    assert (await head.predict_texts(vectors[:0], [])).shape == (0, len(LABELS))
    head.close()


@pytest.mark.anyio
async def test_vectors_of_another_encoder_are_refused(tmp_path: Path) -> None:
    """The width tells; the hint names the encoder the head is for."""
    head = _load(_write(tmp_path, _arrays()))
    with pytest.raises(ModelUnavailable, match="vectors of 6 numbers") as error:
        await head.predict(np.zeros((1, DIM + 1), np.float32))
    assert "some-encoder" in (error.value.hint or "")
    head.close()


def test_it_says_what_it_decides_by(tmp_path: Path) -> None:
    """Labels, thresholds, level of abstention and encoder come from the file."""
    head = _load(_write(tmp_path, _arrays()))
    assert head.labels == LABELS
    assert head.thresholds.tolist() == pytest.approx([0.3, 0.4, 0.5])
    assert (head.dim, head.embedding_model, head.abstain_below) == (DIM, "some-encoder", pytest.approx(0.2))
    head.close()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"w1": None}, "lacks w1"),
        ({"mix": None}, "lacks mix"),
        ({"thresholds": np.zeros(2)}, r"thresholds \[2\], expected \[3\]"),
        ({"word_weights": np.zeros((2, 3))}, "word_weights"),
        ({"w0": np.zeros(6)}, "no matrix"),
        ({"b1": np.array([0.0, np.nan, 0.0])}, "no finite numbers in b1"),
        ({"b1": np.array(["x", "y", "z"])}, "no finite numbers in b1"),
        ({"labels": np.array(["joy", "joy", "anger"])}, "one twice"),
        ({"labels": np.array([], dtype="U4")}, "no labels"),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    """Every such head is one error with the command that mends it."""
    arrays = {k: v for k, v in {**_arrays(), **change}.items() if v is not None}
    with pytest.raises(ModelUnavailable, match=says) as error:
        _load(_write(tmp_path, arrays))
    assert "neuroedge models verify head" in (error.value.hint or "")


def test_a_missing_broken_or_pickled_file_is_refused(tmp_path: Path) -> None:
    """Nothing is ever unpickled."""
    with pytest.raises(ModelUnavailable):
        _load(tmp_path)
    for content in (b"", b"no zip at all", pickle.dumps({"labels": ["joy"]})):
        (tmp_path / "head.npz").write_bytes(content)
        with pytest.raises(ModelUnavailable):
            _load(tmp_path)
    np.savez(tmp_path / "head.npz", **{**_arrays(), "labels": np.array([{"a": 1}], dtype=object)})
    with pytest.raises(ModelUnavailable):
        _load(tmp_path)


def test_words_are_lower_case_with_their_marks() -> None:
    """Apostrophes of both kinds stay inside the word; each mark is a word of its own."""
    assert words_of("Don’t STOP!! it's 2") == ["don't", "stop", "!", "!", "it's", "2"]


def test_the_shipped_head_is_the_one_its_card_describes() -> None:
    """Hash, size, labels and encoder."""
    folder = Path(str(resources.files("neuroedge"))) / "weights" / "goemotions-head"
    card = json.loads((folder / "card.json").read_text())
    data = (folder / "head.npz").read_bytes()
    assert sha256(data).hexdigest() == card["sha256"]
    assert len(data) == card["bytes"] < 3_000_000
    head = load("goemotions-head", folder, threads=1, options={})
    assert head.embedding_model == card["embedding_model"]
    assert set(head.labels) == set(card["figures"]["test"]["f1_by_label"])
    assert len(head.labels) == 28 + 7
    head.close()


@pytest.mark.anyio
async def test_labels_that_exclude_each_other_sum_to_one(tmp_path: Path) -> None:
    """The first two by softmax of the scaled scores, the third by itself as before; more than there are is refused."""
    vectors = np.random.default_rng(4).normal(size=(5, DIM)).astype(np.float32)
    plain = load("h", _write(tmp_path, _arrays(words=False)), threads=1, options={})
    before = await plain.predict(vectors)
    arrays = _arrays(words=False) | {"exclusive": np.int64(2)}
    joint = load("h", _write(tmp_path, arrays), threads=1, options={})
    p = await joint.predict(vectors)
    plain.close()
    joint.close()
    odds = before[:, :2] / (1 - before[:, :2])
    assert p[:, :2] == pytest.approx(odds / odds.sum(axis=1, keepdims=True), abs=1e-5)
    assert p[:, 2].tolist() == before[:, 2].tolist()
    with pytest.raises(ModelUnavailable, match="exclusive"):
        load("h", _write(tmp_path, arrays | {"exclusive": np.int64(4)}), threads=1, options={})
