"""Fits the judge of the articulation engine: the recogniser's habits, a logistic regression and its thresholds.

    python -m training.articulation --piper VOICE.onnx --out DIR [--scratch DIR] [--items 900]

Words and phrases are said right and with one planted error (`planted_errors`) by espeak-ng's voices and by a Piper
voice. Voices (of espeak-ng), words and phrases are split 60 : 20 : 20. Habits and regression are fitted on train;
recordings that the recogniser understands (`clarity`) teach the regression. The thresholds are the lowest that leave
false alarms in at most 4 % of words said right: for consonants those of the natural voice, Piper's, in train and dev
(espeak-ng's are heard as other sounds than a person's), for vowels and additions those of dev that are understood. The
test split was scored by an earlier judge and is dev by now; `benchmarks.articulation` scores words, sentences and
voices of its own (`unseen_words`), once, with the file as written, and real reading.
"""

import argparse
import asyncio
import hashlib
import json
import pickle
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from training.planted_errors import (
    PHRASES,
    WORDS,
    EspeakSpeaker,
    Item,
    PiperSpeaker,
    Split,
    consonants_of,
    planted,
)

from neuroedge.contract.models import Floats
from neuroedge.kit.articulation import (
    LEAST_CLARITY_NATS,
    MEASURES,
    Evidence,
    Expected,
    Judge,
    clarity,
    evidence,
    expected_of,
    measures,
    views,
)
from neuroedge.kit.phonology import CONSONANTS, INDEX, PHONES, phones_of, pooled
from neuroedge.runtimes import phonemes
from neuroedge.runtimes.phonemes import HamaPhonemes

Doubles = NDArray[np.float64]

SEED = 2024
SHARD = 50
FALSE_ALARMS = 0.04
PIPER_SHARE = 0.3
ERROR_SHARE = 0.55
WORD_SHARE = 0.7
LEAST_OF_A_VOWEL = 0.9
SHRINK = 12.0
"""So many right phones of the average pair a rare pair's habit counts as having seen."""
LEAST_SPREAD = 0.8
WEAK = frozenset("a my the is he we can me at has on your of she very".split())  # noqa: SIM905
_VOICES = (
    "Alex Alicia Andrea Andy Annie Denis Diogo Gene Hugo Jacky Lee Marco Mario Michael Mike Reed adam anika announcer "
    "antonio aunty belinda benjamin boris caleb david ed edward f1 f2 f3 f4 f5 grandma ian iven john kaukovalta klatt "
    "linda m1 m2 m3 m4 m5 m6 m7 m8 marcelo max michel miguel mike2 norbert paul pedro quincy rob robert sandro shelby "
    "steph steph2 travis victor zac"
)
VOICES = tuple(_VOICES.split())
"""espeak-ng's variants that are voices, not effects."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """An item as the recogniser heard it."""

    item: Item
    expected: Expected
    found: Evidence
    hit: int | None
    """The expected phone that is wrong; for an addition, the one it stands before."""
    speaker: str


def part(of: Sequence[str], split: Split) -> list[str]:
    """The members of one split: 60, 20 and 20 %, the same for each call."""
    shuffled = sorted(set(of))
    random.Random(SEED).shuffle(shuffled)
    first, second = round(0.6 * len(shuffled)), round(0.8 * len(shuffled))
    return {"train": shuffled[:first], "dev": shuffled[first:second], "test": shuffled[second:]}[split]


def items(split: Split, *, speakers: dict[str, Any], count: int, seed: int) -> Iterator[tuple[str, Item]]:
    """So many items with the name of their speaker, drawn by chance."""
    rng = random.Random(seed)
    voices, words, phrases = (part(of, split) for of in (VOICES, WORDS, PHRASES))
    while count:
        piper = "piper" in speakers and rng.random() < PIPER_SHARE
        name = "piper" if piper else "espeak"
        # A lone word is more than a small Piper voice can say well.
        text = rng.choice(phrases) if piper or rng.random() > WORD_SHARE else rng.choice(words)
        voice: dict[str, Any] = {
            "voice": f"en-us+{rng.choice(voices)}",
            "rate_wpm": rng.randint(105, 165),
            "pitch": rng.randint(35, 80),
        }
        right = Item(text=text, **voice)
        item = right
        if rng.random() < ERROR_SHARE:
            wrong = planted(text, speakers[name].phones(right), rng, **voice)
            if wrong is None:
                continue
            item = wrong
        yield name, item
        count -= 1


def measured(name: str, item: Item, speaker: Any, model: HamaPhonemes) -> Measured | None:
    """Say the item and measure it; None where dictionary and speaker disagree about its consonants."""
    words = item.text.split()
    phones = [tuple(phones_of("".join(ways[0]))) for ways in asyncio.run(model.pronounce(words))]
    said = speaker.phones(Item(text=item.text, voice=item.voice, rate_wpm=item.rate_wpm, pitch=item.pitch))
    ours, theirs = consonants_of(phones), consonants_of(said)
    if [phones[w][i] for w, i in ours] != [said[w][i] for w, i in theirs]:
        return None
    expected = expected_of(phones, weak=[len(words) > 1 and word in WEAK for word in words])
    found = heard(frames_of(speaker.say(item), model), expected)
    if found is None:
        return None
    hit = None
    if item.consonant is not None:
        word, place = ours[item.consonant]
        hit = expected.words[word][0] + place + (item.error == "addition")
    return Measured(item=item, expected=expected, found=found, hit=hit, speaker=name)


Frames = tuple[list[tuple[Doubles, float]], float]


def frames_of(samples: Floats, model: HamaPhonemes) -> Frames:
    """The pooled frames of each view of a waveform, and the length of a frame in seconds."""
    frames, frame_s = [], 0.0
    for wave, slower in views(samples):
        p = asyncio.run(model.posteriors(wave))
        frame_s = p.frame_s
        frames.append((pooled(p.log_p, p.symbols, p.blank), slower))
    return frames, frame_s


def heard(frames: Frames, expected: Expected) -> Evidence | None:
    """The evidence in a waveform; None where it is too short for the phones."""
    try:
        return evidence(frames[0], expected, frame_s=frames[1])
    except ValueError:
        return None


def habits(rows: Sequence[Measured]) -> tuple[Doubles, Doubles]:
    """Mean and spread of what each exchange, and an omission, would gain on phones said right, [PHONES, PHONES + 1]."""
    gains: list[list[Doubles]] = [[] for _ in PHONES]
    for row in rows:
        for i, phone in enumerate(row.expected.phones):
            if row.hit is None or abs(row.hit - i) > 1:
                gains[INDEX[phone]].append(np.append(row.found.substituted[i], row.found.omitted[i]))
    mean = np.zeros((len(PHONES), len(PHONES) + 1))
    square = np.zeros_like(mean)
    for kind in (range(len(CONSONANTS)), range(len(CONSONANTS), len(PHONES))):
        together = np.array([g for p in kind for g in gains[p]])
        for p in kind:
            own = np.array(gains[p]) if gains[p] else np.zeros((0, mean.shape[1]))
            mean[p] = (own.sum(axis=0) + SHRINK * together.mean(axis=0)) / (len(own) + SHRINK)
            square[p] = ((own - mean[p]) ** 2).sum(axis=0) + SHRINK * together.var(axis=0)
            square[p] /= len(own) + SHRINK
    return mean, np.maximum(np.sqrt(square), LEAST_SPREAD)


def table(rows: Sequence[Measured]) -> tuple[Doubles, NDArray[np.bool_]]:
    """Measures of all consonants that are judged, and which of them are wrong; neighbours of an error are left out."""
    x, y = [], []
    for row in rows:
        values = measures(row.found, row.expected)
        substituted = row.item.error in ("substitution", "omission")
        for i, phone in enumerate(row.expected.phones):
            if phone not in CONSONANTS or row.expected.reduced[i]:
                continue
            near = row.hit is not None and abs(row.hit - i) <= 1 and not (substituted and row.hit == i)
            if not near:
                x.append(values[i])
                y.append(substituted and row.hit == i)
    return np.array(x), np.array(y)


def fit(train: Sequence[Measured], dev: Sequence[Measured]) -> dict[str, NDArray[Any]]:
    """The judge's arrays."""
    from sklearn.linear_model import LogisticRegression

    mean, spread = habits(train)
    x, y = table([row for row in train if clarity(row.found, row.expected) >= LEAST_CLARITY_NATS])
    centre, scale = x.mean(axis=0), np.maximum(x.std(axis=0), 1e-6)
    model = LogisticRegression(C=0.05, max_iter=2000).fit((x - centre) / scale, y)
    right = np.array([g for row in train for g in _gaps(row)])
    arrays: dict[str, NDArray[Any]] = {
        "habit_mean": mean,
        "habit_spread": spread,
        "phone_mean": centre,
        "phone_scale": scale,
        "phone_weights": model.coef_[0],
        "phone_bias": np.array(model.intercept_[0]),
        "added_mean": right.mean(axis=0),
        "added_spread": np.maximum(right.std(axis=0), LEAST_SPREAD),
        "added_threshold": np.array(0.0),
        "threshold": np.array(0.5),
        "vowel_threshold": np.array(0.99),
    }
    natural = [row for row in (*train, *dev) if row.speaker == "piper"]
    return {**arrays, **thresholds(arrays, dev), **consonant_threshold(arrays, natural or dev)}


def _gaps(row: Measured) -> list[Doubles]:
    """What an addition would gain in the gaps inside words where none is."""
    return [
        row.found.added[place]
        for start, end in row.expected.words
        for place in range(start + 1, end)
        if row.hit is None
    ]


def consonant_threshold(arrays: dict[str, NDArray[Any]], rows: Sequence[Measured]) -> dict[str, NDArray[Any]]:
    """The lowest that leaves false alarms in 70 % of what is allowed of the words said right."""
    judge = Judge({k: np.asarray(v, np.float64) for k, v in arrays.items()})
    highest = []
    for row in rows:
        if row.item.error is not None:
            continue
        opinions = judge.opinions(row.found, row.expected)
        for start, end in row.expected.words:
            if not row.expected.reduced[start]:
                own = [opinions[i].p_error for i in range(start, end) if row.expected.phones[i] in CONSONANTS]
                highest.append(max(own, default=0.0))
    return {"threshold": np.array(np.quantile(highest, 1 - 0.7 * FALSE_ALARMS))}


def thresholds(arrays: dict[str, NDArray[Any]], dev: Sequence[Measured]) -> dict[str, NDArray[Any]]:
    """Those of vowels and of additions: the lowest with few enough false alarms, 15 % of what is allowed each."""
    judge = Judge({k: np.asarray(v, np.float64) for k, v in arrays.items()})
    vowels, added = [], []
    for row in dev:
        if row.item.error is not None or clarity(row.found, row.expected) < LEAST_CLARITY_NATS:
            continue
        opinions = judge.opinions(row.found, row.expected)
        for start, end in row.expected.words:
            if row.expected.reduced[start]:
                continue
            phones = row.expected.phones
            likelier = [opinions[i] for i in range(start, end) if phones[i] not in CONSONANTS]
            vowels.append(max((o.p_error for o in likelier if o.rival_nats > 0), default=0.0))
            z = (row.found.added[start + 1 : end] - arrays["added_mean"]) / arrays["added_spread"]
            added.append(float(z.max(initial=0.0)))
    share = 1 - 0.15 * FALSE_ALARMS
    # The regression has seen no wrong vowels: only what is certain of a vowel is said.
    return {
        "vowel_threshold": np.maximum(np.quantile(vowels, share), LEAST_OF_A_VOWEL),
        "added_threshold": np.array(np.quantile(added, share)),
    }


def collected(split: Split, *, count: int, piper: Path | None, scratch: Path | None) -> list[Measured]:
    """So many measured items of a split, in shards of 50, from `scratch` where they are there already."""
    return [row for shard in range(-(-count // SHARD)) for row in collected_shard(split, shard, piper, scratch)]


def collected_shard(split: Split, shard: int, piper: Path | None, scratch: Path | None) -> list[Measured]:
    """50 items of a split, fewer by those whose speaker and dictionary disagree; shards may be made in parallel."""
    kept = scratch / f"{split}-{shard}.pickle" if scratch else None
    if kept is not None and kept.exists():
        rows: list[Measured] = pickle.loads(kept.read_bytes())  # our own file
        return rows
    model = phonemes.load("hama-phonemes", Path(), threads=1, options={})
    speakers: dict[str, Any] = {"espeak": EspeakSpeaker()}
    if piper is not None:
        speakers["piper"] = PiperSpeaker(piper)
    drawn = items(split, speakers=speakers, count=SHARD, seed=SEED + 1000 * len(split) + shard)
    rows = [row for name, item in drawn if (row := measured(name, item, speakers[name], model)) is not None]
    model.close()
    if kept is not None:
        kept.write_bytes(pickle.dumps(rows))
    return rows


def main() -> None:
    """Fit and write judge.npz with its card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--piper", type=Path, help="model of a Piper voice; without, espeak-ng alone speaks")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scratch", type=Path, help="keeps what was measured for the next run")
    parser.add_argument("--items", type=int, default=900, help="of train; dev has half as many")
    given = parser.parse_args()
    train = collected("train", count=given.items, piper=given.piper, scratch=given.scratch)
    dev = collected("dev", count=given.items // 2, piper=given.piper, scratch=given.scratch)
    arrays = {name: np.asarray(value, np.float32) for name, value in fit(train, dev).items()}
    given.out.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(given.out / "judge.npz", **arrays)  # type: ignore[arg-type]
    data = (given.out / "judge.npz").read_bytes()
    card = {
        "file": "judge.npz",
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "licence": "Apache-2.0",
        "data": "synthetic: espeak-ng voices and one Piper voice, words said right and with one planted error",
        "recogniser": "hama-phonemes",
        "items": {"train": len(train), "dev": len(dev)},
        "items_with_an_error": {"train": _wrong(train), "dev": _wrong(dev)},
        "seed": SEED,
        "date": datetime.now(UTC).date().isoformat(),
        "false_alarms_allowed_on_dev": FALSE_ALARMS,
        "thresholds": {k: round(float(v), 4) for k, v in arrays.items() if k.endswith("threshold")},
        "weights": dict(zip(MEASURES, np.round(arrays["phone_weights"], 3).tolist(), strict=True)),
        "example": "example.ogg: LibriVox, Sense and Sensibility, chapter 1 (public domain)",
    }
    (given.out / "card.json").write_text(json.dumps(card, indent=1) + "\n")
    print(json.dumps(card, indent=1))


def _wrong(rows: Sequence[Measured]) -> int:
    return sum(row.item.error is not None for row in rows)


if __name__ == "__main__":
    main()
