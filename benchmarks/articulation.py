"""Errors of articulation found and false alarms: `python -m benchmarks.articulation --data DIR [--piper VOICE.onnx]`.

Synthetic: the test split of `training.articulation` (other espeak-ng voices, words and phrases than the judge was
fitted on), words right and with one planted error. Real: the five LibriVox clips of Debian's `pocketsphinx-testdata`
(DIR is its usr/share/pocketsphinx/test/data): false alarms on what was read right, and errors planted in what is
expected instead of in what is said. The baseline of the same run flags a phone where any exchange or omission is
likelier than what was expected (goodness at threshold 0). Nothing is chosen on these data.
"""

import argparse
import random
import wave
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from training.articulation import Frames, Measured, collected, frames_of, heard
from training.planted_errors import Item, consonants_of, planted

from benchmarks.report import Figure, figure, save
from neuroedge.engines.speech.articulation import WEAK_WORDS
from neuroedge.kit.articulation import LEAST_CLARITY_NATS, Judge, clarity, expected_of, rivals
from neuroedge.kit.phonology import CONSONANTS, phones_of
from neuroedge.runtimes import phonemes
from neuroedge.runtimes.phonemes import HamaPhonemes

SEED = 6
RESAMPLES = 500
PLANTED_A_CLIP = 12
Flags = dict[int, str]
"""Flagged places: expected phones with the type found, additions as "addition" before a phone."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """What was flagged in one item."""

    row: Measured
    flags: Flags

    @property
    def found(self) -> bool:
        """Whether the planted error is among the flags; a neighbour counts for an addition."""
        hit = self.row.hit
        return hit is not None and (hit in self.flags or (self.row.item.error == "addition" and hit - 1 in self.flags))

    @property
    def wrong_flags(self) -> int:
        """Flags that are no planted error; those next to it belong to it."""
        return sum(self.row.hit is None or abs(place - self.row.hit) > 1 for place in self.flags)

    @property
    def words(self) -> tuple[int, int]:
        """Words flagged, and words, of an item said right; little words of a phrase do not count."""
        counted = [(a, b) for a, b in self.row.expected.words if not self.row.expected.reduced[a]]
        return sum(any(a <= place < b for place in self.flags) for a, b in counted), len(counted)


def judged(row: Measured, judge: Judge) -> Flags:
    """What the engine would flag."""
    flags: Flags = {}
    opinions = judge.opinions(row.found, row.expected)
    for start, end in row.expected.words:
        if row.expected.reduced[start]:
            continue
        for i in range(start, end):
            slip = judge.slip(row.expected.phones[start:end], i - start, opinions[i])
            if slip is not None:
                flags[i] = slip.type
    for _, place, _, _ in judge.additions(row.found, row.expected, slipped=list(flags)):
        if not row.expected.reduced[place - 1]:
            flags.setdefault(place, "addition")
    return flags


def baseline(row: Measured, _judge: Judge) -> Flags:
    """Goodness of pronunciation at threshold 0 on consonants."""
    flags: Flags = {}
    for i, phone in enumerate(row.expected.phones):
        if phone in CONSONANTS and not row.expected.reduced[i]:
            exchange = row.found.substituted[i, rivals(phone)].max()
            if max(exchange, row.found.omitted[i]) > 0:
                flags[i] = "omission" if row.found.omitted[i] > exchange else "substitution"
    return flags


def f1(scores: Sequence[Score]) -> tuple[float, float, float]:
    """F1, precision and recall of the planted errors."""
    hits = sum(s.found for s in scores)
    missed = sum(s.row.hit is not None and not s.found for s in scores)
    wrong = sum(s.wrong_flags for s in scores)
    precision, recall = hits / max(hits + wrong, 1), hits / max(hits + missed, 1)
    return 2 * precision * recall / max(precision + recall, 1e-9), precision, recall


def false_alarms(scores: Sequence[Score]) -> float:
    """Share of the words said right that were flagged."""
    counts = np.array([s.words for s in scores if s.row.hit is None])
    return float(counts[:, 0].sum() / counts[:, 1].sum())


def bootstrap(scores: Sequence[Score], measure: Callable[[Sequence[Score]], float]) -> str:
    """95 % confidence interval over items."""
    rng = np.random.default_rng(SEED)
    values = [measure([scores[i] for i in rng.integers(0, len(scores), len(scores))]) for _ in range(RESAMPLES)]
    low, high = np.quantile(values, [0.025, 0.975])
    return f"95 % interval {low:.3f} to {high:.3f} (bootstrap over {len(scores)} items)"


def auc(rows: Sequence[Measured], judge: Judge) -> float:
    """Area under the ROC curve of p_error over consonants."""
    from sklearn.metrics import roc_auc_score

    p, truth = probabilities(rows, judge)
    return float(roc_auc_score(truth, p))


def probabilities(rows: Sequence[Measured], judge: Judge) -> tuple[np.ndarray, np.ndarray]:
    """p_error and truth of every consonant that is judged and not next to a planted error."""
    p, truth = [], []
    for row in rows:
        for i, opinion in enumerate(judge.opinions(row.found, row.expected)):
            if row.expected.phones[i] not in CONSONANTS or row.expected.reduced[i]:
                continue
            hit = row.hit == i and row.item.error != "addition"
            if hit or row.hit is None or abs(row.hit - i) > 1:
                p.append(opinion.p_error)
                truth.append(hit)
    return np.array(p), np.array(truth)


def calibration_error(p: np.ndarray, truth: np.ndarray, *, bins: int = 10) -> float:
    """Expected calibration error over equal bins of probability."""
    which = np.minimum((p * bins).astype(int), bins - 1)
    return float(
        sum((which == b).mean() * abs(p[which == b].mean() - truth[which == b].mean()) for b in np.unique(which))
    )


def librivox(folder: Path, model: HamaPhonemes) -> tuple[list[Measured], list[Measured]]:
    """The clips as read right, and with errors planted in what is expected of them."""
    right, wrong = [], []
    rng = random.Random(SEED)
    lines = (folder / "transcription").read_text().splitlines()
    for line, name in zip(lines, (folder / "fileids").read_text().split(), strict=True):
        words = line.split("</s>")[0].replace("<s>", "").split()
        with wave.open(str(folder / f"{name}.wav")) as file:
            samples = (np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768).astype(np.float32)
        frames = frames_of(samples, model)
        phones = _phones(words, model)
        weak = [word in WEAK_WORDS for word in words]
        read = _measured(frames, " ".join(words), phones, weak, hit=None, item=None)
        right.append(read)
        for _ in range(PLANTED_A_CLIP):
            changed = _expected_otherwise(words, phones, weak, rng)
            if changed is not None:
                item, expected, hit = changed
                wrong.append(_measured(frames, item.text, expected, weak, hit=hit, item=item))
    return right, wrong


def _phones(words: Sequence[str], model: HamaPhonemes) -> list[tuple[str, ...]]:
    import asyncio

    return [tuple(phones_of("".join(ways[0]))) for ways in asyncio.run(model.pronounce(words))]


def _expected_otherwise(
    words: Sequence[str], phones: Sequence[tuple[str, ...]], weak: Sequence[bool], rng: random.Random
) -> tuple[Item, list[tuple[str, ...]], int] | None:
    """Another consonant expected than was read, as if the reader had exchanged it."""
    item = planted(" ".join(words), phones, rng, voice="librivox", rate_wpm=0, pitch=0)
    if item is None or item.error != "substitution" or item.consonant is None or item.heard is None:
        return None
    word, place = consonants_of(phones)[item.consonant]
    if weak[word]:
        return None
    expected = [list(p) for p in phones]
    expected[word][place] = item.heard
    hit = sum(len(p) for p in phones[:word]) + place
    return item, [tuple(p) for p in expected], hit


def _measured(
    frames: Frames,
    text: str,
    phones: Sequence[tuple[str, ...]],
    weak: Sequence[bool],
    *,
    hit: int | None,
    item: Item | None,
) -> Measured:
    expected = expected_of(phones, weak=weak)
    found = heard(frames, expected)
    assert found is not None, text
    said = item or Item(text=text, voice="librivox", rate_wpm=0, pitch=0)
    return Measured(item=said, expected=expected, found=found, hit=hit, speaker="librivox")


def _synthetic(rows: Sequence[Measured], judge: Judge, name: str) -> list[Figure]:
    ours = [Score(row=row, flags=judged(row, judge)) for row in rows]
    theirs = [Score(row=row, flags=baseline(row, judge)) for row in rows]
    value, precision, recall = f1(ours)
    return [
        figure(
            f"F1 of planted errors, {name}", "", [value], at_least=0.85,
            note=f"precision {precision:.3f}, recall {recall:.3f}; {bootstrap(ours, lambda s: f1(s)[0])}",
        ),
        figure(f"the same, goodness at threshold 0, {name}", "", [f1(theirs)[0]], note="baseline of the same run"),
        figure(
            f"false alarms on words said right, {name}", "%", [100 * false_alarms(ours)], at_most=5,
            note=bootstrap(ours, false_alarms),
        ),
        figure(f"the same, goodness at threshold 0, {name}: false alarms", "%", [100 * false_alarms(theirs)]),
    ]  # fmt: skip


def main() -> None:
    """Score and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with librivox/")
    parser.add_argument("--piper", type=Path, help="model of a Piper voice; without, espeak-ng alone speaks")
    parser.add_argument("--scratch", type=Path, help="keeps what was measured for the next run")
    parser.add_argument("--items", type=int, default=450)
    given = parser.parse_args()
    judge = Judge.shipped()
    rows = collected("test", count=given.items, piper=given.piper, scratch=given.scratch)
    figures: list[Figure] = []
    clear = [row for row in rows if clarity(row.found, row.expected) >= LEAST_CLARITY_NATS]
    for name in ("espeak", "piper"):
        of, answered = ([row for row in some if row.speaker == name] for some in (rows, clear))
        if answered:
            figures += _synthetic(answered, judge, f"{name}, the {len(answered)} of {len(of)} items it understands")
    figures += _synthetic(rows, judge, f"all {len(rows)} items, understood or not")
    p, truth = probabilities(clear, judge)
    figures += [
        figure("AUC of p_error, items it understands", "", [auc(clear, judge)], at_least=0.932),
        figure("AUC of p_error, all items", "", [auc(rows, judge)]),
        figure("expected calibration error of p_error", "", [calibration_error(p, truth)], note=f"{len(p)} consonants"),
        *_types(clear, judge),
    ]
    model = phonemes.load("hama-phonemes", Path(), threads=1, options={})
    right, wrong = librivox(given.data / "librivox", model)
    model.close()
    figures += _real(right, wrong, judge)
    save(
        "articulation",
        figures,
        title="Articulation: planted errors found, false alarms on words said right",
        command="python -m benchmarks.articulation",
    )


def _types(rows: Sequence[Measured], judge: Judge) -> list[Figure]:
    """Among the planted exchanges and omissions found: is the type right, and the phone heard?"""
    types, phones = [], []
    for row in rows:
        hit = row.hit
        if hit is None or row.item.error == "addition" or hit not in judged(row, judge):
            continue
        start, end = row.expected.words[row.expected.word_of(hit)]
        slip = judge.slip(row.expected.phones[start:end], hit - start, judge.opinions(row.found, row.expected)[hit])
        if slip is not None:
            types.append(slip.type == row.item.error)
            if row.item.error == "substitution":
                phones.append(slip.heard == row.item.heard)
    return [
        figure(
            "type right among planted errors found", "%", [100 * float(np.mean(types))], note=f"{len(types)} errors"
        ),
        figure("phone heard right among exchanges found", "%", [100 * float(np.mean(phones))], note=f"{len(phones)}"),
    ]


def _real(right: Sequence[Measured], wrong: Sequence[Measured], judge: Judge) -> list[Figure]:
    ours = [Score(row=row, flags=judged(row, judge)) for row in right]
    theirs = [Score(row=row, flags=baseline(row, judge)) for row in right]
    planted_rows = [Score(row=row, flags=judged(row, judge)) for row in wrong]
    words = sum(s.words[1] for s in ours)
    return [
        figure(
            "false alarms on LibriVox words", "%", [100 * false_alarms(ours)], at_most=5,
            note=f"{words} words, one reader; little words do not count",
        ),
        figure("the same, goodness at threshold 0", "%", [100 * false_alarms(theirs)], note="baseline of the same run"),
        figure(
            "errors found, LibriVox, another consonant expected", "%",
            [100 * float(np.mean([s.found for s in planted_rows]))], note=f"{len(planted_rows)} errors",
        ),
    ]  # fmt: skip


if __name__ == "__main__":
    main()
