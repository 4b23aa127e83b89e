"""The shipped routing head on the test part of its requests, against the cosine with the engines' titles.

    python -m benchmarks.routing --models DIR [--scratch DIR]

DIR of --models holds the embedding model's folder. The requests are training/routing_requests.txt, written for
NeuroEdge by one author and split by template (training/routing.py tells how); real users write otherwise. Strength,
temperature and level of abstention were chosen on its dev part. Intervals are of a bootstrap over templates (seed 0),
for the wordings of one template are alike. Ends with status 1 when a figure is not the card's (to 0.005).
"""

import argparse
import asyncio
import json
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from training.emotion_text import embedded
from training.routing import NOBODY, Request, evaluate, requests, zero_shot

from benchmarks import resampling
from benchmarks.report import Figure, figure, save
from neuroedge.runtimes import text_classifier

SHIPPED = Path(str(resources.files("neuroedge"))) / "weights" / "routing-head"
TOLERANCE = 0.005
_ECE_BEST = 0.1


def main() -> int:
    """Score, compare with the card, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--scratch", type=Path, help="keeps the sentence vectors for the next run")
    given = parser.parse_args()
    asked = requests()["test"]
    vectors = embedded([one.text for one in asked], models=given.models, scratch=given.scratch)
    found = asyncio.run(evaluate(SHIPPED, asked, vectors))
    titles = zero_shot(asked, vectors, models=given.models)[1]
    low, high = asyncio.run(_interval(asked, vectors))
    save(
        "routing",
        _figures(found, titles=titles, interval=f"95 % interval {low:.3f} to {high:.3f}, bootstrap over templates"),
        title="Routing, requests of templates never trained on",
        command="python -m benchmarks.routing --models DIR",
    )
    claimed = json.loads((SHIPPED / "card.json").read_text())["figures"]["test"]
    off = [name for name, value in found.items() if abs(value - claimed[name]) > TOLERANCE]
    if off:
        print(f"not as the card says: {', '.join(off)}")
    return 1 if off else 0


def _figures(found: dict[str, Any], *, titles: float, interval: str) -> list[Figure]:
    n = f"n={int(found['requests'])} requests of {int(found['templates'])} templates"
    return [
        figure("accuracy, 41 engines", "", [found["accuracy"]], at_least=titles, note=f"{n}; {interval}"),
        figure("accuracy of the cosine with the engines' titles", "", [titles], note="baseline of the same run"),
        figure("right engine among the first three", "", [found["top3_accuracy"]]),
        figure("accuracy where it does not abstain", "", [found["accuracy_where_answered"]]),
        figure("requests answered", "", [found["coverage"]]),
        figure("expected calibration error", "", [found["ece"]], at_most=_ECE_BEST),
        figure(
            "abstains on requests of no engine",
            "",
            [found["out_of_scope_abstained"]],
            note=f"n={int(found['out_of_scope_requests'])}",
        ),
        figure("demanding or not: AUC", "", [found["demand_auc"]], note=f"n={int(found['demand_requests'])}"),
    ]


async def _interval(asked: list[Request], vectors: NDArray[Any]) -> tuple[float, float]:
    """95 % bootstrap interval of the accuracy, drawing templates."""
    head = text_classifier.load("routing-head", SHIPPED, threads=1, options={})
    try:
        p = await head.predict(vectors)
    finally:
        head.close()
    targets = list(head.labels[: head.exclusive])
    right: dict[int, list[bool]] = {}
    for one, row in zip(asked, p[:, : head.exclusive], strict=True):
        if one.target != NOBODY:
            right.setdefault(one.template, []).append(targets[int(row.argmax())] == one.target)
    sums, counts = np.array([(sum(r), len(r)) for r in right.values()]).T
    return resampling.interval(len(sums), lambda rows: sums[rows].sum() / counts[rows].sum())


if __name__ == "__main__":
    raise SystemExit(main())
