"""Extractive summaries against people's, beside the first sentences (lead) and a middle of the road: random sentences.

    python -m benchmarks.summarization --data DIR --models DIR

DIR of --data is the folder `aclsum/dataset` of the wheel `aclsum` (PyPI, MIT; Takeshita et al. 2024): 250 papers of
computational linguistics, each with its abstract, introduction and conclusion, and one sentence on challenge, approach
and outcome written by experts. Text: the three sections joined; reference: the three sentences joined. Summaries of
three sentences; ROUGE F1 (Lin 2004). Chosen on the first 80 of train (threshold of the vectors' cosines, balance);
test (100 papers) scored once. Intervals: bootstrap over papers. Limits: scientific prose; sentences of an abstract are
made to summarise, so the lead is strong, and a reference written freshly keeps every extract's ROUGE low.
"""

import argparse
import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tests.fakes import make_context

from benchmarks.report import Figure, figure, save
from benchmarks.rouge import rouge_l, rouge_n
from neuroedge.contract.engine import EngineContext
from neuroedge.engines.language import summarization
from neuroedge.engines.language.summarization import Input, Summarization
from neuroedge.kit.sentence_spans import sentence_spans
from neuroedge.runtimes import text_encoder

WANTED = 3
MEASURES: dict[str, Callable[[str, str], float]] = {
    "ROUGE-1": lambda a, b: rouge_n(a, b, n=1),
    "ROUGE-2": lambda a, b: rouge_n(a, b, n=2),
    "ROUGE-L": rouge_l,
}


def papers(path: Path) -> list[tuple[str, str]]:
    """(text, reference) of each paper."""
    found = []
    for line in path.read_text().splitlines():
        paper = json.loads(line)
        text = "\n\n".join(" ".join(paper["sentences"][part]) for part in ("abstract", "introduction", "conclusion"))
        found.append((text, " ".join(paper["summary"][aspect] for aspect in ("challenge", "approach", "outcome"))))
    return found


def lead(text: str, at: Sequence[int] | None = None) -> str:
    """The first sentences, or those at the given places."""
    spans = sentence_spans(text)
    return " ".join(text[slice(*spans[i])] for i in (at if at is not None else range(min(WANTED, len(spans)))))


def at_random(texts: Sequence[str]) -> list[str]:
    """Sentences at random places, in order; seed 0."""
    rng = np.random.default_rng(0)
    return [
        lead(t, sorted(rng.choice(n, min(WANTED, n), replace=False))) for t in texts if (n := len(sentence_spans(t)))
    ]


async def summaries(texts: Sequence[str], ctx: EngineContext, **fields: Any) -> list[str]:
    """The engine's."""
    engine = Summarization(probe=ctx)
    return [(await engine.run(Input(text=text, sentences=WANTED, **fields), ctx)).summary for text in texts]


def scores(told: Sequence[str], references: Sequence[str]) -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
    """Each measure of each summary."""
    return {
        name: np.array([measure(a, b) for a, b in zip(told, references, strict=True)])
        for name, measure in MEASURES.items()
    }


def interval(values: np.ndarray[Any, np.dtype[np.float64]]) -> str:
    """95 % bootstrap interval of the mean."""
    means = np.random.default_rng(0).choice(values, (1000, len(values))).mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return f"95 % {low:.3f} to {high:.3f}, n={len(values)}"


async def develop(folder: Path, ctx: EngineContext) -> None:
    """What the choices would give on the first papers of train."""
    some = papers(folder / "train.jsonl")[:80]
    texts, references = [t for t, _ in some], [r for _, r in some]
    print("dev lead", scores([lead(t) for t in texts], references)["ROUGE-1"].mean())
    for balance in (0.5, 0.7, 0.9, 1.0):
        told = await summaries(texts, ctx, balance=balance)
        print(f"dev words, balance {balance}: {scores(told, references)['ROUGE-1'].mean():.4f}")
    for threshold in (0.1, 0.2, 0.3, 0.4, 0.5):
        summarization.MEANING_THRESHOLD = threshold  # type: ignore[misc]
        told = await summaries(texts, ctx, similarity="meaning")
        print(f"dev meaning, threshold {threshold}: {scores(told, references)['ROUGE-1'].mean():.4f}")


async def test(folder: Path, ctx: EngineContext) -> list[Figure]:
    """The figures on the papers kept for it."""
    found = papers(folder / "test.jsonl")
    texts, references = [t for t, _ in found], [r for _, r in found]
    first = scores([lead(t) for t in texts], references)
    figures = []
    told = {
        "LexRank, words (default)": await summaries(texts, ctx),
        "LexRank, meaning": await summaries(texts, ctx, similarity="meaning"),
        "lead": [lead(t) for t in texts],
        "random sentences": at_random(texts),
    }
    for who, written in told.items():
        for name, values in scores(written, references).items():
            figures.append(figure(f"{name} F1, {who}", "", [float(values.mean())], note=interval(values)))
            if who.startswith("LexRank"):
                gain = values - first[name]
                figures.append(
                    figure(
                        f"{name} gain over lead, {who}",
                        "",
                        [float(gain.mean())],
                        at_least=0,
                        note=f"paired; {interval(gain)}",
                    )
                )
    return figures


def main() -> int:
    """Measure, print, and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--develop", action="store_true", help="only try choices, on train")
    given = parser.parse_args()
    encoder = text_encoder.load("all-minilm-l6-v2-int8", given.models / "all-minilm-l6-v2-int8", threads=1, options={})
    try:
        ctx = make_context(models={"text_embedding": encoder})
        if given.develop:
            asyncio.run(develop(given.data, ctx))
            return 0
        figures = asyncio.run(test(given.data, ctx))
    finally:
        encoder.close()
    command = "python -m benchmarks.summarization --data DIR --models DIR"
    save("summarization", figures, title="Summaries of scientific papers (ACLSum)", command=command)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
