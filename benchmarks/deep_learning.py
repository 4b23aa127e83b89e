"""What the deep learning engine trains, against logistic regression on the same rows; parity of the ONNX graph.

    python -m benchmarks.deep_learning [--fashion FOLDER]

scikit-learn's digits (1,797 images of 8 × 8), as a CSV of 64 numbers and a class, five splits (seeds 0 to 4), a fifth
held out: the engine's default settings, nothing tuned on these data. With --fashion, also Fashion-MNIST (Debian's
dataset-fashion-mnist; the folder with train-images-idx3-ubyte.gz), 6,000 images averaged over 2 × 2 pixels, one split.
"""

import argparse
import asyncio
import gzip
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tests.fakes import make_context

from benchmarks.report import figure, save
from benchmarks.resampling import interval
from neuroedge.contract.engine import EngineContext
from neuroedge.engines.decision.deep_learning import DeepLearning, Input, Output
from neuroedge.runtimes.tabular import TabularSessions

SPLITS = 5
FASHION_ROWS = 6000


class TriedOnly:
    """A TrainedModels port that runs graphs and keeps none."""

    def __init__(self) -> None:
        self._sessions = TabularSessions()

    async def try_out(self, graph: bytes, inputs: Any) -> Any:
        """Outputs by name."""
        return await self._sessions.run(graph, inputs)

    async def aclose(self) -> None:
        """End its thread."""
        await self._sessions.aclose()


def as_csv(pixels: np.ndarray, labels: np.ndarray) -> str:
    """A row for each image."""
    out = io.StringIO()
    out.write(",".join([*(f"p{i}" for i in range(pixels.shape[1])), "label"]) + "\n")
    for row, label in zip(pixels, labels, strict=True):
        out.write(",".join(f"{v:g}" for v in row) + f",{label}\n")
    return out.getvalue()


def digits() -> str:
    """All of them."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    return as_csv(pixels, labels)


def fashion(folder: Path) -> str:
    """The first images of the training part, 14 × 14."""
    with gzip.open(folder / "train-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28)[:FASHION_ROWS]
    with gzip.open(folder / "train-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)[:FASHION_ROWS]
    small = images.reshape(len(images), 14, 2, 14, 2).mean(axis=(2, 4))
    return as_csv(small.reshape(len(images), -1), labels)


async def trained(csv: str, seed: int, context: EngineContext) -> Output:
    """By the engine, from the CSV on."""
    order = {"name": "b", "task": "classification", "target": "label", "table": {"csv": csv}, "seed": seed}
    return await DeepLearning(probe=context).run(Input.model_validate({"train": {**order, "keep": False}}), context)


def accuracy(told: Output) -> tuple[float, float]:
    """The network's and the baseline's."""
    assert told.holdout is not None
    found = next(f for f in told.holdout.figures if f.name == "accuracy")
    return found.value, found.baseline


async def run(folder: Path | None) -> None:
    """Train and save the figures."""
    port = TriedOnly()
    context = replace(make_context(), trained=port)  # type: ignore[arg-type]
    csv = digits()
    told = [await trained(csv, seed, context) for seed in range(SPLITS)]
    ours, base = zip(*map(accuracy, told), strict=True)
    print("digits", [round(v, 4) for v in ours], [round(v, 4) for v in base], flush=True)
    gains = np.array(ours) - np.array(base)
    low, high = interval(len(gains), lambda rows: gains[rows].mean(), samples=1000)
    parity = [told_one.trained.onnx_parity or 0.0 for told_one in told if told_one.trained]
    figures = [
        figure("accuracy on digits", "", ours, at_least=0.969, note="five splits; target: published logistic"),
        figure("accuracy of logistic regression, same rows", "", base, note="five splits"),
        figure(
            "gain over logistic regression, same rows",
            "",
            [low, float(gains.mean()), high],
            at_least=0.0,
            note="mean; range: 95 % bootstrap interval over splits",
        ),
        figure("largest difference of the ONNX graph × 1e6", "", [1e6 * p for p in parity], at_most=10),
    ]
    if folder is not None:
        found = accuracy(await trained(fashion(folder), 0, context))
        print("fashion", found)
        note = f"{FASHION_ROWS} images of 14 × 14, one split; target: logistic regression on the same rows"
        figures.append(figure("accuracy on Fashion-MNIST", "", [found[0]], at_least=found[1], note=note))
    save("deep_learning", figures, title="Training on tables", command="python -m benchmarks.deep_learning")
    await port.aclose()


def main() -> int:
    """Train on digits, and on Fashion-MNIST where it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fashion", type=Path, help="folder with Fashion-MNIST's training files")
    asyncio.run(run(parser.parse_args().fashion))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
