"""The training code of the moderation head on a tiny corpus whose answer is known; no weights, no data set."""

import asyncio
from pathlib import Path

import numpy as np
import pytest
from training.emotion_text import Split
from training.moderation import (
    GROUPS,
    LABELS,
    SCORED,
    TAUGHT,
    by_group,
    clean,
    evaluate,
    model_card,
    read,
    split,
    train,
    weighted_f1,
)

from neuroedge.runtimes import text_classifier

DIM = 8


def _split(n: int, *, seed: int) -> Split:
    """Texts that give their label away, with vectors that hint at it."""
    r = np.random.default_rng(seed)
    which = r.permutation(np.arange(n) % len(LABELS))
    filler = np.array(["the", "a", "train", "house", "today"])
    texts = [f"{LABELS[k]} {' '.join(r.choice(filler, 3))}" for k in which]
    directions = np.random.default_rng(0).normal(size=(len(LABELS), DIM))
    vectors = directions[which] + 0.8 * r.normal(size=(n, DIM))
    return Split(texts=texts, vectors=vectors.astype(np.float32), truth=np.eye(len(LABELS), dtype=bool)[which])


def _named() -> Split:
    texts = [template.replace("{}", group) for group in GROUPS for template in SCORED]
    truth = np.zeros((len(texts), len(LABELS)), bool)
    truth[:, 2] = True
    return Split(texts=texts, vectors=np.zeros((len(texts), DIM), np.float32), truth=truth)


def test_a_head_is_trained_chosen_written_and_scored(tmp_path: Path) -> None:
    """Nearly perfect on words that give the label away, through the file and the product's runtime; by its seed."""
    path = tmp_path / text_classifier.HEAD_FILE
    chosen = train(_split(300, seed=1), _split(150, seed=2), path)
    figures = asyncio.run(evaluate(tmp_path, _split(150, seed=3), _named()))
    assert figures["weighted_f1"] > 0.95
    assert figures["weighted_f1_from_vectors_alone"] < figures["weighted_f1"]
    assert 0 <= figures["ece"] < 0.1
    card = model_card(path, chosen=chosen, figures={"test": figures}, rows={"test": 150})
    assert card["bytes"] == path.stat().st_size
    first = path.read_bytes()
    train(_split(300, seed=1), _split(150, seed=2), path)
    assert path.read_bytes() == first, "the seed does not fix the head"


@pytest.mark.parametrize(
    ("tweet", "text"),
    [
        ("!!! RT @some_one: As a woman &amp; you https://t.co/x go", "As a woman & you go"),
        ("&#128514;&#128514; fine", "😂😂 fine"),
        ("@a @b http://x.y", ""),
        ("it costs 5 and PART of it", "it costs 5 and PART of it"),
    ],
)
def test_tweets_are_cleaned_of_what_no_other_text_has(tweet: str, text: str) -> None:
    """Mentions, links, RT; entities become characters; words stay."""
    assert clean(tweet) == text


def test_the_file_of_the_data_is_read_as_it_is(tmp_path: Path) -> None:
    """Quotes, commas and line breaks inside a tweet; rows that are empty once cleaned are left out."""
    path = tmp_path / "labeled_data.csv"
    path.write_text(
        ',count,hate_speech,offensive_language,neither,class,tweet\n0,3,0,0,3,2,"He said ""no"",\nthen left"\n'
        "1,3,0,3,0,1,@someone\n2,3,3,0,0,0,bad words\n",
        encoding="utf-8",
    )
    tweets = read(path)
    assert tweets.texts == ['He said "no", then left', "bad words"]
    assert tweets.labels == [2, 0]


def test_equal_texts_are_on_one_side() -> None:
    """Whatever their case; every row is on one side, about one in ten on the two small ones."""
    texts = [f"text {i % 500}" if i < 1000 else f"TEXT {i % 500}" for i in range(2000)]
    sides = split(texts)
    assert sorted(i for rows in sides.values() for i in rows) == list(range(2000))
    side_of = {texts[i].casefold(): name for name, rows in sides.items() for i in rows}
    assert all(side_of[texts[i].casefold()] == name for name, rows in sides.items() for i in rows)
    assert 0.05 < len(sides["test"]) / 2000 < 0.15


def test_what_is_scored_was_not_taught() -> None:
    """No harmless sentence is in both lists."""
    assert not set(TAUGHT) & set(SCORED)


def test_weighted_f1_weighs_labels_by_how_often_they_are_true() -> None:
    """Three of four rows right, the rare label missed."""
    truth = np.array([[1, 0], [1, 0], [1, 0], [0, 1]], bool)
    scores = np.array([[1.0, 0], [1, 0], [1, 0], [1, 0]])
    assert weighted_f1(scores, truth) == pytest.approx(0.75 * (2 * 3 / (4 + 3)))


def test_false_alarms_are_told_by_group() -> None:
    """Only of groups that have any."""
    p = np.zeros((len(GROUPS) * len(SCORED), 3))
    p[len(SCORED)] = [0.9, 0, 0.1]  # the second group's first sentence
    assert by_group(p, np.array([0.5, 0.5, 0.5])) == {GROUPS[1]: round(1 / len(SCORED), 3)}
