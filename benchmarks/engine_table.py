"""The table of engines in docs/benchmarks.md: one row for each, from the figures that its benchmark saved.

A row names one figure, the number to beat and the data. A benchmark named as its engine needs a row here only where the
first figure with a target is not the one to show.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from statsmodels.stats.proportion import proportion_confint

_INTERVAL: Final = re.compile(r"95 %[^;]*?(-?\d+(?:\.\d+)?) to (-?\d+(?:\.\d+)?)")
_COUNT: Final = re.compile(
    r"\bn ?= ?(\d+)|\b(\d+) (?:questions|queries|planted|consonants|pages|texts|pictures|people|units|new learners"
    r"|users|students|experiments)\b"
)
"""What a note says of how many there were of what an interval is drawn from."""
_SHARE: Final = re.compile(r"\b(\d+) of (\d+) (?:locales|countries|planted|found|histories)\b")
"""What a note says of a share: how many of how many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """Which figure tells how good an engine is: `figure` is a pattern for how its name begins, None takes any.

    Of several the first that misses its target is shown, so that no good one hides it; of any, the first with a target.
    """

    group: str
    figure: str | None = None
    beat: str = ""
    """The number to beat, where the figure's own target does not say it."""
    data: str = ""
    why: str = ""
    """Why a target is not reached; the engine's card tells it."""


MEASURES: Final[Mapping[str, Measure]] = {
    "articulation": Measure(
        group="articulation",
        figure="AUC of p_error over consonants",
        beat="0.932",
        data="planted errors in voices made of recordings",
        why="the phoneme recogniser is the limit: it understands about 85 % of these words, and a threshold chosen on"
        " the test words themselves would still miss the F1 that is asked for.",
    ),
    "audio": Measure(group="audio_measures", beat="FFmpeg, Praat", data="speech clips with noise mixed in"),
    "artifact": Measure(group="artifact", beat="the model's own free answers", data="18 orders of six types"),
    "chat": Measure(
        group="grounded_answers",
        beat="refusals on unanswerable questions",
        data="own recorded and written conversations",
    ),
    "classification": Measure(group="classification", beat="AUC 0.9987", data="SpamAssassin corpus"),
    "cultural_context": Measure(
        group="cultural_context", figure="date_pattern", beat="CLDR", data="CLDR 47, 398 locales"
    ),
    "curriculum": Measure(group="curriculum", beat="F1 0.95", data="762 planted defects in 200 curricula"),
    "deep_learning": Measure(group="deep_learning", beat="logistic regression 0.969", data="scikit-learn digits"),
    "diarization": Measure(group="overlap", figure="DER of the sample call", beat="0.20", data="the sample call"),
    "difficulty": Measure(
        group="difficulty",
        figure=".*new students: AUC",
        data="MathExam14W, ASSISTments09, by student",
        why="the published 0.77 is of the paper's own splits; ours is one split by student, and 0.77 lies within its"
        " interval.",
    ),
    "document": Measure(group="document", beat="text recall 0.98", data="words of 20 made files of each format"),
    "embedding": Measure(
        group="embedding",
        beat="2 × sentence-transformers",
        data="Cranfield texts",
        why="with llama.cpp, which is not the default, a text alone and the same text in a batch differ that much; with"
        " the default runtime they do not.",
    ),
    "emotion": Measure(
        group="emotion",
        beat="BERT 0.46 macro-F1",
        data="GoEmotions test split",
        why="the published 0.64 over Ekman's groups is of a BERT with 110 million parameters, all of them trained on"
        " these data; this head of 0.9 MB reads words, and sentence vectors of an encoder that was not. It beats that"
        " BERT over the single labels only, whose thresholds are set one by one.",
    ),
    "engagement": Measure(group="engagement", beat="rapid answers alone", data="simulated truth, 3000 learners"),
    "federated": Measure(group="federated", figure="accuracy", beat="0.958", data="digits, 20 unlike clients"),
    "fluency": Measure(group="fluency", figure="articulation rate: error", data="espeak-ng, 6 languages"),
    "focus": Measure(group="focus", figure="people of 18", beat="17 of 18", data="sleepstudy"),
    "forecasting": Measure(
        group="forecasting",
        figure="MASE of",
        beat="seasonal naive",
        data="fpp2 series",
        why="a series whose growth has just ended is carried on too far; the engine's own check marks it.",
    ),
    "grade_adaptation": Measure(
        group="simplification", figure="target 1 under", beat="within one grade", data="public-domain books"
    ),
    "index": Measure(
        group="index", figure="recall@10, clusters.*hnsw", beat="recall@10 0.95 of exact", data="clustered unit vectors"
    ),
    "knowledge": Measure(group="knowledge", figure="names, F1 on odd rows", data="sentences labelled by hand"),
    "language_detection": Measure(
        group="language_detection", figure="accuracy, 80 characters", beat="chance", data="UDHR, 135 languages"
    ),
    "learning_path": Measure(
        group="learning_path", figure="parity.*share", beat="ts-fsrs, 1e-6", data="1000 simulated histories"
    ),
    "learning_preference": Measure(group="learning_preference", beat="5 % false", data="InstEval, labels shuffled"),
    "memory": Measure(
        group="memory",
        beat="search without time",
        data="made facts, half of them outdated",
        why="weighing by age puts what holds now before what is outdated, which search without time does not; it costs"
        " some of the facts that were told long ago. A longer half-life costs fewer.",
    ),
    "moderation": Measure(
        group="moderation",
        beat="weighted F1 0.90",
        data="Davidson test split",
        why="the published 0.90, told to two places, is of another split of the same tweets, for none is official; it"
        " lies within the interval.",
    ),
    "ocr": Measure(group="ocr", figure="character error rate, mean", beat="Tesseract", data="rendered pages, a photo"),
    "prosody": Measure(group="prosody", figure="real clips: F0 median", beat="Praat", data="real clips of speech"),
    "ranking": Measure(
        group="retrieval_quality",
        figure="Glosses, second sample, test half, hybrid \\+ rerank: nDCG",
        data="GCIDE→WordNet",
        why="the first sample of the glosses, 530 questions, is too small to show the gain (p = 0.27); on the second,"
        " 2664 questions, it is there (p < 0.0001).",
    ),
    "recommendation": Measure(group="recommendation", beat="bias only 0.944 RMSE", data="MovieLens 100k"),
    "reinforcement": Measure(group="reinforcement", beat="value iteration", data="solvable processes"),
    "routing": Measure(
        group="routing",
        beat="cosine with the engines' titles",
        data="own requests, 132 templates never trained on",
    ),
    "search": Measure(
        group="retrieval_served",
        figure="Cranfield, test half, hybrid \\+ rerank: nDCG",
        data="Cranfield, 116 questions",
    ),
    "simplification": Measure(group="simplification", beat="one grade", data="public-domain books"),
    "simulation": Measure(
        group="simulation",
        beat="M/M/1 in closed form",
        data="closed form",
        why="ten replications of a long queue are few and skewed; 0.9 lies within the interval of the share.",
    ),
    "speaker": Measure(group="speaker_verification", data="telephone prompts of 24 speakers"),
    "summarization": Measure(
        group="summarization",
        figure="ROUGE-1 gain over lead",
        beat="lead",
        data="ACLSum",
        why="LexRank over meaning, which is not the default, has no more of the reference's word pairs than the first"
        " sentences have; papers begin with what matters. The difference is within its interval.",
    ),
    "synthesis": Measure(
        group="synthesis",
        figure="phone error rate, Piper",
        beat="phone errors of espeak-ng, heard by hama",
        data="Harvard sentences",
    ),
    "transcription": Measure(
        group="transcription", figure="WER", beat="pocketsphinx 27.1 % (on LibriVox)", data="the sample call"
    ),
    "translation": Measure(group="translation", beat="chrF of the copied source", data="UDHR"),
    "vision": Measure(
        group="image_search",
        figure="Recall@1, colour-gradient-1, all alterations",
        beat="perceptual hash, colour histogram",
        data="59 wallpapers, 8 alterations",
    ),
}
"""Engines without a row here are looked up by their own name."""


def rows(results: Path, engines: list[str]) -> list[str]:
    """The table's lines: each engine's figure, number to beat, data, n, interval and median latency."""
    latency = {figure["name"]: figure for figure in _figures(results, "engines")}
    lines = [
        "| engine | measure | our figure | to beat | data | n | 95 % interval or range | median of its example |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in engines:
        measure = MEASURES.get(name, Measure(group=name))
        shown = _row(measure, _figure(results, measure))
        call = latency.get(f"{name}: a call")
        lines.append(f"| {name} | {shown} | {call['median']:.0f} ms |" if call else f"| {name} | {shown} | |")
    return lines


def card_lines(results: Path, engine: str) -> list[str]:
    """Every figure of an engine's benchmark, for its card."""
    measure = MEASURES.get(engine, Measure(group=engine))
    found = list(_figures(results, measure.group))
    lines = []
    if found:
        lines = ["| what | figure | range | n | target | note |", "|---|---|---|---|---|---|"]
    for one in found:
        mark = {None: "", True: " ✓", False: " ✗"}[one["met"]]
        lines.append(
            f"| {one['name']} | {one['median']:g} {one['unit']} | {one['low']:g} to {one['high']:g} | {one['runs']}"
            f" | {one['target']}{mark} | {one['note']} |"
        )
    beat = f" To beat: {measure.beat}." if measure.beat else ""
    data = f" Data: {measure.data}." if measure.data else ""
    first = (
        f"Results of `benchmarks/results/{measure.group}.json`." if found else "No result is kept in the repository."
    )
    why = [f"**Not reached:** {measure.why}", ""] if measure.why and missed(results, engine) else []
    return [f"{first}{beat}{data}", "", *why, *lines] if lines else [f"{first}{beat}{data}"]


def missed(results: Path, engine: str) -> list[str]:
    """Names of the figures of an engine's benchmark that do not reach their target."""
    group = MEASURES.get(engine, Measure(group=engine)).group
    return [figure["name"] for figure in _figures(results, group) if figure["met"] is False]


def measured(results: Path, engines: list[str]) -> int:
    """How many engines have a figure."""
    return sum(_figure(results, MEASURES.get(name, Measure(group=name))) is not None for name in engines)


def _row(measure: Measure, figure: Mapping[str, Any] | None) -> str:
    if figure is None:
        return f"not measured | | {measure.beat} | {measure.data} | |"
    mark = {None: "", True: " ✓", False: " ✗"}[figure["met"]]
    beat = " · ".join(part for part in (measure.beat, figure["target"]) if part)
    return (
        f"{figure['name']} | {figure['median']:g} {figure['unit']}{mark} | {beat} | {measure.data}"
        f" | {_count(figure)} | {_interval(figure)}"
    )


def _count(figure: Mapping[str, Any]) -> str:
    if share := _SHARE.search(figure["note"]):
        return share[2]
    count = _COUNT.search(figure["note"])
    return count[1] or count[2] if count else str(figure["runs"])


def _interval(figure: Mapping[str, Any]) -> str:
    if told := _INTERVAL.search(figure["note"]):
        return f"{told[1]} to {told[2]}"
    if share := _SHARE.search(figure["note"]):
        below, above = proportion_confint(int(share[1]), int(share[2]), method="wilson")
        return f"{below:.4f} to {above:.4f}"
    low, high = figure["low"], figure["high"]
    return f"{low:g} to {high:g}" if low != high else ""


def _figure(results: Path, measure: Measure) -> Mapping[str, Any] | None:
    """The figure a measure means; None before its benchmark ran."""
    found = list(_figures(results, measure.group))
    if measure.figure is not None:
        found = [figure for figure in found if re.match(measure.figure, figure["name"])]
        if missed := next((figure for figure in found if figure["met"] is False), None):
            return missed
    return next((figure for figure in found if figure["met"] is not None), found[0] if found else None)


def _figures(results: Path, group: str) -> Iterator[Mapping[str, Any]]:
    path = results / f"{group}.json"
    if path.exists():
        yield from json.loads(path.read_text())["figures"]
