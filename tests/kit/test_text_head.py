"""Trained text heads and calibration: against closed forms, scikit-learn and labels that can and cannot be learnt."""

import numpy as np
import pytest

from neuroedge.kit import text_head
from neuroedge.kit.calibration import log_loss, softmax, temperature_of, top_label_error
from neuroedge.kit.text_head import TooFewExamples

_SPORT = ("goal", "match", "striker", "league", "coach")
_LAW = ("court", "judge", "appeal", "statute", "lawyer")


def _texts(n: int) -> tuple[list[str], list[str]]:
    drawn = np.random.default_rng(5)
    made = []
    for i in range(n):
        words, label = ((_SPORT, "sport"), (_LAW, "law"))[i % 2]
        made.append((" ".join(drawn.choice(words, 4)) + f" {i}", label))
    return [text for text, _ in made], [label for _, label in made]


def test_temperature_undoes_a_known_scaling() -> None:
    """Labels drawn from softmax(logits): logits that are three times too large need temperature three."""
    drawn = np.random.default_rng(1)
    logits = drawn.normal(0, 1.5, (8000, 4))
    p = softmax(logits)
    truth = np.array([drawn.choice(4, p=row) for row in p])
    assert temperature_of(3 * logits, truth) == pytest.approx(3.0, rel=0.08)
    assert log_loss(softmax(3 * logits, temperature=3.0), truth) == pytest.approx(log_loss(p, truth))


def test_calibration_error_is_the_gap() -> None:
    """Always 90 % sure and right half of the time: 0.4; sure and right: 0."""
    p = np.tile([0.9, 0.1], (10, 1))
    truth = np.array([0, 1] * 5)
    assert top_label_error(p, truth) == pytest.approx(0.4)
    assert top_label_error(np.tile([1.0, 0.0], (10, 1)), np.zeros(10, np.int64)) == 0.0
    assert softmax(np.array([[1000.0, 0.0]])).tolist() == [[1.0, 0.0]]


def test_words_are_learnt_and_held_out_examples_found() -> None:
    """Disjoint words are told apart without a mistake; a fifth is held out of each label."""
    texts, labels = _texts(100)
    head = text_head.train(texts, labels, seed=3)
    assert (head.labels, head.n_train, head.heldout.n) == (("law", "sport"), 80, 20)
    assert (head.heldout.accuracy, head.heldout.auc) == (1.0, 1.0)
    p = head.predict(["the judge heard the appeal", "the coach of the league"])
    assert p.argmax(axis=1).tolist() == [0, 1]
    assert p.sum(axis=1) == pytest.approx([1, 1])


def test_labels_without_meaning_are_not_better_than_chance() -> None:
    """Random labels: the held-out figures say so, and the probabilities stay near even."""
    texts, _ = _texts(400)
    labels = np.random.default_rng(2).choice(["a", "b"], 400).tolist()
    head = text_head.train(texts, labels)
    assert 0.3 < head.heldout.auc < 0.7
    assert head.predict(["goal match"]).max() < 0.75


def test_the_same_seed_gives_the_same_head() -> None:
    """And another one another split."""
    texts, labels = _texts(60)
    one, same, other = (text_head.train(texts, labels, seed=s).predict(["goal court"]) for s in (1, 1, 2))
    assert one.tolist() == same.tolist()
    assert one.tolist() != other.tolist()


def test_vectors_are_learnt_and_exported() -> None:
    """Three clouds of points; the ONNX graph gives the same calibrated probabilities to 1e-5."""
    import onnxruntime

    drawn = np.random.default_rng(7)
    truth = np.repeat([0, 1, 2], 40)
    vectors = (np.eye(6)[truth] + drawn.normal(0, 0.4, (120, 6))).astype(np.float32)
    labels = ["xyz"[k] for k in truth]
    for n in (120, 80):
        head = text_head.train(["t"] * n, labels[:n], vectors=vectors[:n])
        assert head.features == "embedding"
        assert head.heldout.accuracy > 0.75
        session = onnxruntime.InferenceSession(text_head.exported(head))
        told = dict(zip([o.name for o in session.get_outputs()], session.run(None, {"vectors": vectors}), strict=True))
        assert np.abs(told["probabilities"] - head.predict([], vectors)).max() < 1e-5
    with pytest.raises(ValueError, match="words"):
        text_head.exported(text_head.train(*_texts(20)))


@pytest.mark.parametrize("labels", [["a"] * 10, ["a"] * 8 + ["b"] * 4, [], ["a", "b"]])
def test_too_few_examples_are_refused(labels: list[str]) -> None:
    """One label, four of one, none, one each."""
    with pytest.raises(TooFewExamples):
        text_head.train([f"text {i}" for i in range(len(labels))], labels)
