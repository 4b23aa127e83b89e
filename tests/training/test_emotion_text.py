"""The training code on a tiny corpus whose answer is known; no weights, no data set."""

import asyncio
from pathlib import Path

import numpy as np
import pytest
from training.emotion_text import (
    GROUPS,
    Split,
    abstention_level,
    all_labels,
    evaluate,
    model_card,
    platt,
    read_split,
    train,
)
from training.scores import calibration_error, crossed_macro_f1, f1_per_label, micro_f1, thresholds_of

from neuroedge.runtimes import text_classifier

LABELS = [name for members in GROUPS.values() for name in members]
DIM = 8


def _split(n: int, *, seed: int) -> Split:
    """Texts that name their label among filler, with vectors that hint at it too."""
    r = np.random.default_rng(seed)
    fine = np.zeros((n, len(LABELS)), bool)
    which = r.permutation(np.arange(n) % len(LABELS))
    fine[np.arange(n), which] = True
    groups = [fine[:, [LABELS.index(m) for m in members]].any(axis=1) for members in GROUPS.values()]
    filler = np.array(["the", "a", "train", "house", "today"])
    texts = [f"{LABELS[k]} {' '.join(r.choice(filler, 3))}" for k in which]
    directions = np.random.default_rng(0).normal(size=(len(LABELS), DIM))
    vectors = directions[which] + 0.5 * r.normal(size=(n, DIM))
    return Split(texts=texts, vectors=vectors.astype(np.float32), truth=np.column_stack([fine, *groups]))


def test_a_head_is_trained_chosen_written_and_scored(tmp_path: Path) -> None:
    """On words that give the label away it must be nearly perfect, through the file and the product's runtime."""
    fit, dev, test = _split(560, seed=1), _split(280, seed=2), _split(280, seed=3)
    path = tmp_path / text_classifier.HEAD_FILE
    chosen = train(fit, dev, all_labels(LABELS), path)
    assert chosen["share_of_words"] > 0
    figures = asyncio.run(evaluate(tmp_path, test))
    assert figures["macro_f1"] > 0.9
    assert figures["ekman_macro_f1"] > 0.9
    assert figures["macro_f1_from_vectors_alone"] < figures["macro_f1"]
    assert 0 <= figures["ece"] < 0.05
    card = model_card(path, chosen=chosen, figures={"test": figures}, rows={"test": 280})
    assert card["bytes"] == path.stat().st_size
    first = path.read_bytes()
    train(fit, dev, all_labels(LABELS), path)
    assert path.read_bytes() == first, "the seed does not fix the head"


def test_every_label_of_the_data_is_in_one_group() -> None:
    """The paper's mapping covers 27 emotions and neutral, each once."""
    assert len(LABELS) == len(set(LABELS)) == 28


def test_the_files_of_the_data_are_read_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several label ids, quotes and a line separator inside a text, no line feed at the end."""
    monkeypatch.setattr("training.emotion_text.embedded", lambda texts, **_: np.zeros((len(texts), DIM), np.float32))
    path = tmp_path / "dev.tsv"
    path.write_text('He said "no\u2028way"\t1,3\tid1\nok\t27\tid2', encoding="utf-8")
    split = read_split(path, LABELS, models=tmp_path)
    assert split.texts == ['He said "no\u2028way"', "ok"]
    named = [[name for name, true in zip(all_labels(LABELS), row, strict=True) if true] for row in split.truth]
    assert named == [[LABELS[1], LABELS[3], "ekman:anger", "ekman:disgust"], ["neutral", "ekman:neutral"]]


def test_thresholds_have_the_largest_f1() -> None:
    """Against a search over every possible threshold."""
    r = np.random.default_rng(5)
    p, truth = r.random((60, 3)), r.random((60, 3)) < 0.3
    found = f1_per_label(p >= thresholds_of(p, truth), truth)
    for k in range(3):
        best = max(f1_per_label(p[:, [k]] >= level, truth[:, [k]])[0] for level in p[:, k])
        assert found[k] == pytest.approx(best)


def test_thresholds_of_the_other_half_do_not_flatter() -> None:
    """On noise, F1 by one's own thresholds is above F1 by the other half's."""
    r = np.random.default_rng(6)
    p, truth = r.random((200, 20)), r.random((200, 20)) < 0.05
    own = f1_per_label(p >= thresholds_of(p, truth), truth).mean()
    assert crossed_macro_f1(p, truth) < own


def test_calibration_error_is_zero_for_honest_and_large_for_boastful_probabilities() -> None:
    """Half of the 0.5s are true; none of the 0.9s is."""
    truth = np.array([[True], [False]] * 50)
    assert calibration_error(np.full((100, 1), 0.5), truth) == pytest.approx(0)
    assert calibration_error(np.full((100, 1), 0.9), np.zeros((100, 1), bool)) == pytest.approx(0.9)


def test_scaling_mends_overconfident_logits() -> None:
    """Logits three times too large are scaled back to about a third."""
    r = np.random.default_rng(7)
    logits = r.normal(0, 1.5, size=(20_000, 1))
    truth = r.random((20_000, 1)) < 1 / (1 + np.exp(-logits))
    scale, shift = platt(3 * logits, truth)
    assert scale[0] == pytest.approx(1 / 3, abs=0.03)
    assert shift[0] == pytest.approx(0, abs=0.1)


def test_the_level_of_abstention_is_the_lowest_that_is_right_often_enough() -> None:
    """Right above 0.6, wrong below: the level keeps as many as three in four right ones allow."""
    p = np.linspace(0.2, 0.99, 80)[:, None]
    truth = p > 0.6
    level = abstention_level(p, truth, np.array([True]))
    covered = p[:, 0] >= level
    assert truth[covered].mean() >= 0.75
    assert truth[p[:, 0] >= level - 0.011].mean() < 0.75
    assert abstention_level(p, np.zeros_like(truth), np.array([True])) == 1.0


def test_micro_f1_counts_all_decisions_together() -> None:
    """Two hits, one miss, one false alarm."""
    truth = np.array([[1, 1, 0, 0], [1, 0, 0, 0]], bool)
    said = np.array([[1, 0, 1, 0], [1, 0, 0, 0]], bool)
    assert micro_f1(said, truth) == pytest.approx(2 * 2 / (3 + 3))
