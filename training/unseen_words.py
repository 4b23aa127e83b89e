"""Words that no part of the articulation judge has seen, said right or with one planted error: its benchmark's trials.

Other words and carrier sentences than those of `training.articulation`, said by the Piper voice, by four voices of
flite and by espeak-ng's test voices. flite (BSD-like licence) is Debian's `flite` with `libflite1`, unpacked anywhere:
a diphone voice (kal16) and three statistical ones (slt, awb, rms), all made of recordings of people.
"""

import asyncio
import os
import pickle
import random
import subprocess
import tempfile
import wave
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from training.articulation import SHARD, VOICES, Measured, frames_of, heard, part
from training.planted_errors import WORDS, EspeakSpeaker, Item, PiperSpeaker, consonants_of, planted

from neuroedge.kit.articulation import expected_of
from neuroedge.kit.phonology import phones_of
from neuroedge.runtimes import phonemes
from neuroedge.runtimes.phonemes import HamaPhonemes

SEED = 2027
ERROR_SHARE = 0.5
LONE_SHARE = 0.5
SHARES = {"piper": 0.5, "flite": 0.3, "espeak": 0.2}
UNSEEN_WORDS = tuple(
    """
    candle picnic jacket pepper market winter garlic bucket kettle ladder letter lemon melon napkin needle paper
    parrot peanut pillow pirate rocket saddle sailor salad shadow soccer spinach squirrel stamp stone storm
    swan tennis thimble ticket toast tunnel turtle velvet village violin walnut whistle wizard wool yogurt
    camel cactus canoe castle ceiling chalk cherry chimney circus comb cork cotton cousin cradle cricket curtain dentist
    desert dinner donkey dragonfly eagle engine feast fence fiddle flame flute forest fork fountain fox gallop ghost
    giant ginger goose gravel hammer hawk helmet honey island jelly jewel joke jungle kangaroo kettle kitten knot
    lantern lettuce lizard lobster magnet maple marble match meadow mirror mitten muffin museum mustard nephew noodle
    oven paint palace panda parade peas pebble penguin pickle plant plum pony puddle puppet puzzle raft razor ribbon
    sand sauce scarf shark shelf shield shovelful silver skunk sled slipper smell snack sofa spade spark sponge sprout
    stable statue steam swing sword temple tent thorn throne thunder toad tractor trophy trumpet tulip vest visit
    volcano waffle wallet walrus wheel whisker willow worm wrist yard zigzag
    """.split()  # noqa: SIM905
)
CARRIERS = (
    "then say {} once more",
    "that is the {} over there",
    "i can see a {} here",
    "he told us about the {} today",
)
"""Sentences around a word; their own words are no trial."""
_PITCH_HZ: Final = {"slt": 175, "awb": 130, "rms": 100, "kal16": 105}
_FLITE = {
    "p": "p", "b": "b", "t": "t", "d": "d", "k": "k", "g": "ɡ", "m": "m", "n": "n", "ng": "ŋ", "f": "f", "v": "v",
    "th": "θ", "dh": "ð", "s": "s", "z": "z", "sh": "ʃ", "zh": "ʒ", "hh": "h", "ch": "t͡ʃ", "jh": "d͡ʒ", "l": "l",
    "r": "ɹ", "w": "w", "y": "j",
}  # fmt: skip
_TO_FLITE = {phone: name for name, phone in _FLITE.items()}


class FliteSpeaker:
    """Says items with flite, unpacked in a folder; an item's voice is one of slt, awb, rms and kal16."""

    def __init__(self, folder: Path) -> None:
        self._program = folder / "usr" / "bin" / "flite"
        (library,) = {path.parent for path in folder.rglob("libflite.so.1")}
        self._environment = {**os.environ, "LD_LIBRARY_PATH": str(library)}

    def phones(self, item: Item) -> list[list[str]]:
        """The phones of each word of the text said right; what is no consonant keeps flite's name."""
        return [[_FLITE.get(name, name) for name in word] for word in self._words(item.text)]

    def say(self, item: Item) -> NDArray[np.float32]:
        """The item at 16 kHz."""
        words = [list(word) for word in self._words(item.text)]
        if item.error is not None and item.consonant is not None:
            word, place = consonants_of(self.phones(item))[item.consonant]
            words[word][place : place + 1] = [_TO_FLITE[item.heard]] if item.heard else []
        names = " ".join(("pau", *(name for word in words for name in word), "pau"))
        pitch_hz = _PITCH_HZ[item.voice] * 2 ** ((item.pitch - 50) / 100)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "said.wav")
            self._run(
                "-voice", item.voice, "--setf", f"duration_stretch={150 / item.rate_wpm:.3f}",
                "--setf", f"int_f0_target_mean={pitch_hz:.1f}", "-p", names, "-o", str(path),
            )  # fmt: skip
            with wave.open(str(path)) as file:
                return (np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32_768).astype(np.float32)

    def _words(self, text: str) -> list[list[str]]:
        told = (self._run("-voice", "slt", "-t", word, "-ps", "-o", "none").split() for word in text.split())
        return [[name for name in names if name != "pau"] for names in told]

    def _run(self, *arguments: str) -> str:
        command = [str(self._program), *arguments]
        return subprocess.run(command, env=self._environment, capture_output=True, text=True, check=True).stdout


def trials(speakers: dict[str, Any], *, count: int, seed: int) -> Iterator[tuple[str, Item, int]]:
    """So many items with the name of their speaker and which word is on trial; half of them have an error in it."""
    rng = random.Random(seed)
    words = sorted(set(UNSEEN_WORDS) - set(WORDS))
    voices = {
        "espeak": [f"en-us+{name}" for name in part(VOICES, "test")],
        "flite": sorted(_PITCH_HZ),
        "piper": ["joe"],
    }
    while count:
        (name,) = rng.choices(list(SHARES), list(SHARES.values()))
        # A lone word is more than a small Piper voice can say well.
        carrier = rng.choice(CARRIERS) if name == "piper" or rng.random() > LONE_SHARE else "{}"
        text, target = carrier.format(rng.choice(words)), carrier.split().index("{}")
        voice: dict[str, Any] = {
            "voice": rng.choice(voices[name]),
            "rate_wpm": rng.randint(105, 185),
            "pitch": rng.randint(35, 80),
        }
        item: Item | None = Item(text=text, **voice)
        if rng.random() < ERROR_SHARE:
            item = _with_error(text, target, speakers[name].phones(item), rng, voice)
        if item is not None:
            yield name, item, target
            count -= 1


def _with_error(
    text: str, target: int, phones: Sequence[Sequence[str]], rng: random.Random, voice: dict[str, Any]
) -> Item | None:
    """An exchange or omission in the word on trial; None where the draw does not fit it."""
    before = len(consonants_of(phones[:target]))
    item = planted(text, [phones[target]], rng, **voice)
    if item is None or item.consonant is None or item.error == "addition":
        return None
    place = consonants_of([phones[target]])[item.consonant][1]
    own = phones[target]
    flap = {own[place], item.heard} == {"t", "d"} and 0 < place < len(own) - 1
    twin = item.error == "omission" and own[place] in (*own[place - 1 : place], *own[place + 1 : place + 2])
    # Between vowels /t/ and /d/ are one flap, and one of two equal neighbours cannot be missed.
    return None if flap or twin else Item(**{**_fields(item), "consonant": before + item.consonant})


def _fields(item: Item) -> dict[str, Any]:
    return {name: getattr(item, name) for name in Item.__dataclass_fields__}


def _measured(name: str, item: Item, target: int, speaker: Any, model: HamaPhonemes) -> Measured | None:
    """Say the item and measure it; None where dictionary and speaker disagree about its consonants."""
    words = item.text.split()
    phones = [tuple(phones_of("".join(ways[0]))) for ways in asyncio.run(model.pronounce(words))]
    said = speaker.phones(item)
    ours, theirs = consonants_of(phones), consonants_of(said)
    if [phones[w][i] for w, i in ours] != [said[w][i] for w, i in theirs]:
        return None
    # Only the word on trial is judged, as if the carrier's words were little ones.
    expected = expected_of(phones, weak=[w != target for w in range(len(words))])
    found = heard(frames_of(speaker.say(item), model), expected)
    hit = None
    if item.consonant is not None:
        word, place = ours[item.consonant]
        hit = expected.words[word][0] + place
    return None if found is None else Measured(item=item, expected=expected, found=found, hit=hit, speaker=name)


def collected(*, count: int, flite: Path, piper: Path, scratch: Path | None) -> list[Measured]:
    """So many measured trials, in shards of 50, from `scratch` where they are there already."""
    return [row for k in range(-(-count // SHARD)) for row in shard(k, flite=flite, piper=piper, scratch=scratch)]


def shard(number: int, *, flite: Path, piper: Path, scratch: Path | None) -> list[Measured]:
    """50 trials, fewer by those whose speaker and dictionary disagree; shards may be made in parallel."""
    kept = scratch / f"unseen-{number}.pickle" if scratch else None
    if kept is not None and kept.exists():
        rows: list[Measured] = pickle.loads(kept.read_bytes())  # our own file
        return rows
    model = phonemes.load("hama-phonemes", Path(), threads=1, options={})
    speakers: dict[str, Any] = {
        "espeak": EspeakSpeaker(), "flite": FliteSpeaker(flite), "piper": PiperSpeaker(piper),
    }  # fmt: skip
    drawn = trials(speakers, count=SHARD, seed=SEED + number)
    rows = [row for n, i, t in drawn if (row := _measured(n, i, t, speakers[n], model)) is not None]
    model.close()
    if kept is not None:
        kept.write_bytes(pickle.dumps(rows))
    return rows
