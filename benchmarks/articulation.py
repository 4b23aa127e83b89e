"""Errors of articulation found and false alarms.

    python -m benchmarks.articulation --flite FOLDER --piper VOICE.onnx --data DIR [--scratch DIR]

A trial is a word: half of them are said right, half with one planted exchange or omission of a consonant; it is found
when the engine reports any error in the word (`located`: at that very phone), a false alarm is a right word with a
report. Synthetic: `training.unseen_words`, words and sentences that the judge was not fitted on, by the Piper voice it
was fitted on, by four voices of flite that it never met, and by espeak-ng's test voices. Real: the LibriVox clips of
Debian's `pocketsphinx-testdata` and the English prompts of `asterisk-core-sounds-en-g722` with the texts of
`asterisk-core-sounds-en` (DIR: all unpacked below it); there the error is planted in what is expected, as if the reader
had exchanged or left out what was expected. The baseline of the same run flags a word where any exchange or omission of
a consonant is likelier than what was expected (goodness at threshold 0). Nothing is chosen on these data. Intervals:
bootstrap over words, for the consonants of a word are heard together.
"""

import argparse
import gzip
import random
import re
import wave
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from training.articulation import Measured, frames_of, heard
from training.planted_errors import Item, consonants_of, planted
from training.unseen_words import collected

from benchmarks.report import Figure, figure, save
from benchmarks.resampling import interval
from neuroedge.kit.articulation import LEAST_CLARITY_NATS, Judge, clarity, expected_of, rivals
from neuroedge.kit.phonology import CONSONANTS, WEAK_WORDS, phones_of
from neuroedge.runtimes import phonemes
from neuroedge.runtimes.phonemes import HamaPhonemes

SEED = 7
PROMPTS = 20
TRIALS_A_CLIP = 6
_CLUSTERS = {"t": "s", "p": "s", "k": "s", "n": "s", "m": "s", "w": "s", "l": "p", "ɹ": "t"}
Flags = dict[int, str]
"""Flagged places: expected phones with the type found, additions as "addition" before a phone."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """What was flagged in the word on trial."""

    row: Measured
    flags: Flags

    @property
    def wrong(self) -> bool:
        """Whether the word was said with an error."""
        return self.row.hit is not None

    @property
    def located(self) -> bool:
        """Whether the planted error is reported where it is."""
        return self.row.hit in self.flags


def judged(row: Measured, judge: Judge) -> Flags:
    """What the engine would report of the words that count."""
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
    """F1, precision and recall over words."""
    hits = sum(bool(s.flags) for s in scores if s.wrong)
    reported, wrong = sum(bool(s.flags) for s in scores), sum(s.wrong for s in scores)
    precision, recall = hits / max(reported, 1), hits / max(wrong, 1)
    return 2 * precision * recall / max(precision + recall, 1e-9), precision, recall


def false_alarms(scores: Sequence[Score]) -> float:
    """Share of the words said right that were flagged."""
    return float(np.mean([bool(s.flags) for s in scores if not s.wrong]))


def bootstrap(scores: Sequence[Score], measure: Callable[[Sequence[Score]], float], *, scale: float = 1) -> str:
    """95 % confidence interval over trials."""
    low, high = interval(len(scores), lambda rows: scale * measure([scores[i] for i in rows]))
    return f"95 % interval {low:.3g} to {high:.3g} (bootstrap over {len(scores)} words)"


def best_f1(rows: Sequence[Measured], judge: Judge) -> float:
    """What the best threshold, chosen on the very same data, would reach: a bound, no result."""
    highest = np.array([max(_p(row, judge)) for row in rows])
    wrong = np.array([row.hit is not None for row in rows])
    return max(
        float(2 * (wrong & (highest >= t)).sum() / max(wrong.sum() + (highest >= t).sum(), 1))
        for t in np.unique(highest)
    )


def _p(row: Measured, judge: Judge) -> list[float]:
    opinions = judge.opinions(row.found, row.expected)
    return [
        o.p_error
        for o, phone, weak in zip(opinions, row.expected.phones, row.expected.reduced, strict=True)
        if phone in CONSONANTS and not weak
    ] or [0.0]


def probabilities(row: Measured, judge: Judge) -> np.ndarray:
    """p_error and truth of every consonant of a trial that is judged and not next to a planted error; [n, 2]."""
    found = [
        (opinion.p_error, row.hit == i)
        for i, opinion in enumerate(judge.opinions(row.found, row.expected))
        if row.expected.phones[i] in CONSONANTS and not row.expected.reduced[i]
        if row.hit == i or row.hit is None or abs(row.hit - i) > 1
    ]
    return np.array(found, float).reshape(-1, 2)


def auc(words: Sequence[np.ndarray]) -> float:
    """Area under the ROC curve over the consonants of these words, each [n, 2] of p and truth."""
    from sklearn.metrics import roc_auc_score

    p, truth = np.concatenate(words).T
    return float(roc_auc_score(truth, p))


def calibration_error(p: np.ndarray, truth: np.ndarray, *, bins: int = 10) -> float:
    """Expected calibration error over equal bins of probability."""
    which = np.minimum((p * bins).astype(int), bins - 1)
    return float(
        sum((which == b).mean() * abs(p[which == b].mean() - truth[which == b].mean()) for b in np.unique(which))
    )


def readings(data: Path, prompts_read: int) -> Iterator[tuple[str, str, np.ndarray]]:
    """Who, what and the sound of each clip of real speech."""
    (folder,) = (path.parent for path in data.rglob("librivox/transcription"))
    lines = (folder / "transcription").read_text().splitlines()
    for line, name in zip(lines, (folder / "fileids").read_text().split(), strict=True):
        with wave.open(str(folder / f"{name}.wav")) as file:
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        yield "LibriVox", line.split("</s>")[0].replace("<s>", "").strip(), (samples / 32768).astype(np.float32)
    yield from prompts(data, prompts_read)


def prompts(data: Path, count: int) -> Iterator[tuple[str, str, np.ndarray]]:
    """So many of asterisk's prompts that are sentences of plain words, drawn by chance."""
    import av

    (texts,) = data.rglob("core-sounds-en.txt.gz")
    found: list[tuple[str, Path]] = []
    for line in gzip.decompress(texts.read_bytes()).decode(errors="replace").splitlines():
        name, _, text = line.partition(":")
        paths = list(data.rglob(f"en_US_f_Allison/{name.strip()}.g722")) if name and not name.startswith(";") else []
        if paths and re.fullmatch(r"[A-Za-z' ,.]+", text.strip()) and 4 <= len(text.split()) <= 16:
            found.append((re.sub(r"[^A-Za-z' ]", " ", text).strip().lower(), paths[0]))
    for text, path in random.Random(SEED).sample(sorted(found), min(count, len(found))):
        with av.open(str(path), format="g722") as container:
            pieces = [frame.to_ndarray()[0] for frame in container.decode(audio=0)]
        yield "asterisk", text, (np.concatenate(pieces) / 32768).astype(np.float32)


def real(data: Path, model: HamaPhonemes, *, prompts_read: int) -> list[Measured]:
    """Trials on words of real speech: some as read, some with another consonant, or one more, expected."""
    import asyncio

    rows: list[Measured] = []
    rng = random.Random(SEED)
    for speaker, text, samples in readings(data, prompts_read):
        frames = frames_of(samples, model)
        words = text.split()
        phones = [tuple(phones_of("".join(ways[0]))) for ways in asyncio.run(model.pronounce(words))]
        strong = [w for w, word in enumerate(words) if word not in WEAK_WORDS]
        for target in rng.sample(strong, min(TRIALS_A_CLIP, len(strong))):
            weak = [w != target for w in range(len(words))]
            said = Item(text=text, voice=speaker, rate_wpm=0, pitch=0)
            expected, hit = phones, None
            if rng.random() < 0.5:
                changed = _expected_otherwise(said, phones, target, rng)
                if changed is None:
                    continue
                said, expected, hit = changed
            joined = expected_of(expected, weak=weak)
            found = heard(frames, joined)
            if found is not None:
                rows.append(Measured(item=said, expected=joined, found=found, hit=hit, speaker=speaker))
    return rows


def _expected_otherwise(
    said: Item, phones: Sequence[tuple[str, ...]], target: int, rng: random.Random
) -> tuple[Item, list[tuple[str, ...]], int] | None:
    """What is expected when the reader is to have exchanged or left out a consonant."""
    item = planted(said.text, [phones[target]], rng, voice=said.voice, rate_wpm=0, pitch=0)
    if item is None or item.consonant is None or item.error == "addition":
        return None
    word, place = target, consonants_of([phones[target]])[item.consonant][1]
    expected = [list(p) for p in phones]
    if item.error == "omission":
        # The reader left out the first consonant of a cluster that English has.
        cluster = _CLUSTERS.get(phones[word][place])
        if cluster is None or place:
            return None
        expected[word].insert(place, cluster)
    elif item.heard is not None:
        expected[word][place] = item.heard
    hit = sum(len(p) for p in phones[:word]) + place
    return item, [tuple(p) for p in expected], hit


def _group(rows: Sequence[Measured], judge: Judge, name: str, *, targets: bool = True) -> list[Figure]:
    ours = [Score(row=row, flags=judged(row, judge)) for row in rows]
    theirs = [Score(row=row, flags=baseline(row, judge)) for row in rows]
    value, precision, recall = f1(ours)
    wrong = [s for s in ours if s.wrong]
    located = float(np.mean([s.located for s in wrong]))
    return [
        figure(
            f"F1 of words said with an error, {name}", "", [value], at_least=0.85 if targets else None,
            note=f"precision {precision:.3f}, recall {recall:.3f}, located {located:.3f}; {len(wrong)} of {len(ours)} "
            f"words have an error; {bootstrap(ours, lambda s: f1(s)[0])}",
        ),
        figure(
            f"the same, goodness at threshold 0, {name}", "", [f1(theirs)[0]],
            note=f"baseline of the same run; false alarms {100 * false_alarms(theirs):.1f} %",
        ),
        figure(
            f"false alarms on words said right, {name}", "%", [100 * false_alarms(ours)],
            at_most=5 if targets else None, note=bootstrap(ours, false_alarms, scale=100),
        ),
    ]  # fmt: skip


def main() -> None:
    """Score and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flite", type=Path, required=True, help="folder with flite and libflite1 unpacked")
    parser.add_argument("--piper", type=Path, required=True, help="model of a Piper voice")
    parser.add_argument("--data", type=Path, required=True, help="folder with the real speech")
    parser.add_argument("--scratch", type=Path, help="keeps what was measured for the next run")
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--prompts", type=int, default=PROMPTS, help="sentences of asterisk's speaker")
    given = parser.parse_args()
    judge = Judge.shipped()
    rows = collected(count=given.items, flite=given.flite, piper=given.piper, scratch=given.scratch)
    people = [row for row in rows if row.speaker != "espeak"]
    figures = _group(people, judge, "voices made of recordings")
    for name in ("piper", "flite", "espeak"):
        figures += _group([row for row in rows if row.speaker == name], judge, name, targets=name == "espeak")
    figures += _group(rows, judge, "all synthetic voices")
    for name, kept in (("slow", range(146)), ("fast", range(146, 1000))):
        figures += _group([row for row in people if row.item.rate_wpm in kept], judge, f"{name} speech", targets=False)
    figures += _rest(people, judge)
    model = phonemes.load("hama-phonemes", Path(), threads=1, options={})
    spoken = real(given.data, model, prompts_read=given.prompts)
    model.close()
    figures += _group(spoken, judge, "real speech")
    save(
        "articulation",
        figures,
        title="Articulation: planted errors found, false alarms on words said right",
        command="python -m benchmarks.articulation --flite DIR --piper FILE --data DIR",
    )


def _rest(rows: Sequence[Measured], judge: Judge) -> list[Figure]:
    """Of the voices made of recordings."""
    words = [probabilities(row, judge) for row in rows]
    p, truth = np.concatenate(words).T
    low, high = interval(len(words), lambda drawn: auc([words[i] for i in drawn]))
    told = f"95 % interval {low:.3f} to {high:.3f} (bootstrap over n = {len(words)} words); {len(p)} consonants"
    understood = [row for row in rows if clarity(row.found, row.expected) >= LEAST_CLARITY_NATS]
    return [
        figure("share of these words that the recogniser understands", "%", [100 * len(understood) / len(rows)]),
        figure("F1 of the best threshold, chosen on test", "", [best_f1(rows, judge)], note="a bound, no result"),
        figure("AUC of p_error over consonants", "", [auc(words)], at_least=0.932, note=told),
        figure("expected calibration error of p_error", "", [calibration_error(p, truth)], note=f"{len(p)} consonants"),
        *_types(rows, judge),
    ]


def _types(rows: Sequence[Measured], judge: Judge) -> list[Figure]:
    """Among the planted errors reported where they are: is the type right, and the phone heard?"""
    types, phones = [], []
    for row in rows:
        hit = row.hit
        if hit is None or hit not in judged(row, judge):
            continue
        start, end = row.expected.words[row.expected.word_of(hit)]
        slip = judge.slip(row.expected.phones[start:end], hit - start, judge.opinions(row.found, row.expected)[hit])
        if slip is not None:
            types.append(slip.type == row.item.error)
            if row.item.error == "substitution":
                phones.append(slip.heard == row.item.heard)
    return [
        figure("type right among errors located", "%", [100 * float(np.mean(types))], note=f"{len(types)} errors"),
        figure("phone heard right among exchanges located", "%", [100 * float(np.mean(phones))], note=f"{len(phones)}"),
    ]


if __name__ == "__main__":
    main()
