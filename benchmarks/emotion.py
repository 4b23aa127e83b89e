"""The shipped text emotion head on the test split of GoEmotions.

    python -m benchmarks.emotion --data DIR --models DIR [--head DIR] [--scratch DIR]

DIR of --data holds goemotions/test.tsv and labels.txt, DIR of --models the embedding model's folder. Published for this
split: BERT macro-F1 0.46 (27 emotions and neutral) and 0.64 (Ekman's six and neutral) (Demszky et al. 2020). Ends with
status 1 when the figures are not those of the head's card (to 0.005: another processor rounds otherwise).
"""

import argparse
import asyncio
import json
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from training.emotion_text import Split, evaluate, read_labels, read_split
from training.scores import f1_per_label

from benchmarks.report import figure, save
from benchmarks.resampling import interval
from neuroedge.engines.speech.emotion import GROUP_PREFIX
from neuroedge.runtimes import text_classifier

SHIPPED = Path(str(resources.files("neuroedge"))) / "weights" / "goemotions-head"
PRINTED = (
    *("macro_f1", "micro_f1", "ekman_macro_f1", "ece_before_calibration", "ece", "abstain_below", "coverage"),
    *("best_label_accuracy_all", "best_label_accuracy_covered"),
    *("best_group_accuracy_all", "best_group_accuracy_covered", "macro_f1_from_vectors_alone"),
)
TOLERANCE = 0.005
_SAMPLES = 500


def main() -> int:
    """Score and compare with the card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--head", type=Path, default=SHIPPED)
    parser.add_argument("--scratch", type=Path, help="keeps the sentence vectors for the next run")
    given = parser.parse_args()
    folder = given.data / "goemotions"
    test = read_split(folder / "test.tsv", read_labels(folder), models=given.models, scratch=given.scratch)
    figures = asyncio.run(evaluate(given.head, test))
    single, grouped = asyncio.run(_intervals(given.head, test))
    claimed = json.loads((given.head / "card.json").read_text())["figures"]["test"]
    print(f"{len(test.texts)} texts of the test split; in brackets the head's card")
    for name in PRINTED:
        print(f"{name:28} {figures[name]:.4f} [{claimed[name]:.4f}]")
    save(
        "emotion",
        [
            figure(
                "macro-F1 over 27+1 labels",
                "",
                [figures["macro_f1"]],
                at_least=0.46,
                note=f"n={len(test.texts)}; {single}",
            ),
            figure("macro-F1 over Ekman's groups", "", [figures["ekman_macro_f1"]], at_least=0.64, note=grouped),
            figure("expected calibration error", "", [figures["ece"]]),
            figure("share of texts answered", "", [figures["coverage"]]),
        ],
        title="Emotion of words, GoEmotions test split",
        command="python -m benchmarks.emotion --data DIR --models DIR",
    )
    off = [name for name in PRINTED if abs(figures[name] - claimed[name]) > TOLERANCE]
    if off:
        print(f"not as the card says: {', '.join(off)}")
    return 1 if off else 0


async def _intervals(folder: Path, test: Split) -> tuple[str, str]:
    """Of the macro-F1 over labels and over groups, drawing texts."""
    head = text_classifier.load("goemotions-head", folder, threads=1, options={})
    try:
        said = await head.predict_texts(test.vectors, test.texts) >= head.thresholds
    finally:
        head.close()
    groups = np.array([label.startswith(GROUP_PREFIX) for label in head.labels])

    def macro_f1(part: NDArray[np.bool_]) -> Callable[[NDArray[np.int64]], float]:
        return lambda rows: f1_per_label(said[rows][:, part], test.truth[rows][:, part]).mean()

    told = []
    for part in (~groups, groups):
        low, high = interval(len(said), macro_f1(part), samples=_SAMPLES)
        told.append(f"95 % interval {low:.3f} to {high:.3f} (bootstrap over texts)")
    return told[0], told[1]


if __name__ == "__main__":
    raise SystemExit(main())
