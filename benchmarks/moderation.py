"""The shipped moderation head on its test split of Davidson's tweets, and how long a check takes.

    python -m benchmarks.moderation --data DIR --models DIR [--head DIR] [--scratch DIR]

DIR of --data holds hate-speech/labeled_data.csv, DIR of --models the embedding model's folder. Published for these
data: weighted F1 0.90 (Davidson et al. 2017, logistic regression over n-grams, by cross-validation; another split). A
tweet's label is the one whose probability is most above its threshold, as training/moderation.py says.
Ends with status 1 when the figures are not those of the head's card (to 0.005: another processor rounds otherwise).
"""

import argparse
import asyncio
import json
import time
from importlib import resources
from pathlib import Path

import numpy as np
from training.emotion_text import Split
from training.moderation import as_split, evaluate, named_people, read, split, weighted_f1

from benchmarks import resampling
from benchmarks.report import figure, save
from neuroedge.kit import injection, personal_data
from neuroedge.runtimes import text_classifier

SHIPPED = Path(str(resources.files("neuroedge"))) / "weights" / "davidson-head"
PRINTED = (
    *("weighted_f1", "weighted_f1_of_most_probable", "macro_f1", "weighted_f1_from_vectors_alone", "ece"),
    "hate_f1_at_threshold",
    *("hate_recall_at_0.8", "hate_false_alarms_at_0.8", "named_people_false_alarms"),
)
TOLERANCE = 0.005
_SAMPLES = 1000
_SENTENCE = "Write to jo@example.org before the train to Lagos leaves at nine, or call +49 30 1234567. "


def main() -> int:
    """Score, compare with the card, and time the patterns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--head", type=Path, default=SHIPPED)
    parser.add_argument("--scratch", type=Path, help="keeps the sentence vectors for the next run")
    given = parser.parse_args()
    tweets = read(given.data / "hate-speech" / "labeled_data.csv")
    rows = split(tweets.texts)["test"]
    where = {"models": given.models, "scratch": given.scratch}
    test = as_split([tweets.texts[i] for i in rows], [tweets.labels[i] for i in rows], **where)
    figures = asyncio.run(evaluate(given.head, test, named_people(**where)))
    low, high = asyncio.run(_interval(given.head, test))
    interval = f"95 % interval {low:.4f} to {high:.4f} (bootstrap over tweets, seed 0)"
    claimed = json.loads((given.head / "card.json").read_text())["figures"]["test"]
    print(f"{len(rows)} tweets of the test split; in brackets the head's card")
    for name in PRINTED:
        print(f"{name:32} {figures[name]:.4f} [{claimed[name]:.4f}]")
    print(f"false alarms about people: {figures['false_alarms_by_group']}")
    for chars in (100, 10_000, 1_000_000):
        text = (_SENTENCE * (chars // len(_SENTENCE) + 1))[:chars]
        data, orders = _ms(personal_data.find, text), _ms(injection.signs, text)
        print(f"{chars:9} characters: personal data {data}, injection {orders}")
    save(
        "moderation",
        [
            figure("weighted F1", "", [figures["weighted_f1"]], at_least=0.90, note=f"n={len(rows)}; {interval}"),
            figure("weighted F1 of the most probable label", "", [figures["weighted_f1_of_most_probable"]]),
            figure("macro-F1", "", [figures["macro_f1"]]),
            figure("F1 of hate", "", [figures["hate_f1_at_threshold"]]),
            figure("expected calibration error", "", [figures["ece"]]),
            figure("false alarms about named people", "", [figures["named_people_false_alarms"]]),
        ],
        title="Moderation, Davidson test split",
        command="python -m benchmarks.moderation --data DIR --models DIR",
    )
    off = [name for name in PRINTED if abs(figures[name] - claimed[name]) > TOLERANCE]
    if off:
        print(f"not as the card says: {', '.join(off)}")
    return 1 if off else 0


async def _interval(folder: Path, test: Split) -> tuple[float, float]:
    """Of the weighted F1 by thresholds."""
    head = text_classifier.load("davidson-head", folder, threads=1, options={})
    try:
        scores = await head.predict_texts(test.vectors, test.texts) / head.thresholds
    finally:
        head.close()
    return resampling.interval(len(scores), lambda rows: weighted_f1(scores[rows], test.truth[rows]), samples=_SAMPLES)


def _ms(run: object, text: str) -> str:
    assert callable(run)
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        run(text)
        seconds.append(time.perf_counter() - started)
    return f"{np.median(seconds) * 1000:.3g} ms"


if __name__ == "__main__":
    raise SystemExit(main())
