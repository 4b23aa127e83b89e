"""Words said right and with a planted error of articulation, by espeak-ng and by Piper, for which the truth is known.

Errors are those of children's speech (Shriberg & Kwiatkowski 1980): fronting, stopping, gliding, changes of voicing,
interdental /s/, omission of initial, final and cluster consonants, a vowel put into a cluster; one in five exchanges a
consonant at random. Both speakers are told phonemes, so the error is exactly the one planted. Synthetic speech: what is
measured on it proves the method, not its validity for children.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from tests import espeak

from neuroedge.kit.phonology import CONSONANTS

Split = Literal["train", "dev", "test"]
ErrorKind = Literal["substitution", "omission", "addition"]

WORDS = tuple(
    """
    house tree window telephone cup knife spoon girl ball wagon shovel monkey banana zipper scissors duck quack yellow
    vacuum watch plane swimming watches lamp car blue rabbit carrot orange fishing chair feather pencils this bathtub
    bath ring finger thumb jumping pajamas flowers brush drum frog green clown balloon crying glasses slide stars five
    cat dog bed milk bus pig goat sheep cow horse fish bird lion tiger zebra giraffe elephant snake spider ladybug kite
    boat truck train bike helicopter apple grapes cheese bread cookie cake soup sandwich potato tomato pizza water juice
    shirt shoes socks hat coat glove button pocket nose mouth teeth tongue leg foot hand hair face ear soap toothbrush
    towel table lamp clock door key roof garden leaf grass flower sun moon cloud rain snow wind fire smoke yes no
    mother father brother sister baby boy teacher doctor kitchen school chicken cabbage pumpkin pumpkin sugar treasure
    television measure beach peach judge cage bridge page voice love stove seven eleven river vase zoo nose rose buzz
    crown crab crayon string splash spring scratch square straw strawberry street three throw thread thin think thirsty
    that those there mouthwash birthday something yellow yoyo yawn young queen quiet quick twins sweater sweep smile
    small sneeze sky skate stop stick step black blanket block plate play please clap glue globe flag fly slow sleep
    present prince brown broom dress drink dragon grandma grow free fruit friend shrimp shrink wing wash wet web window
    happy hippo hello hop mop map cup bump camp lamp jump desk mask nest fast last left gift salt belt cold gold old
    """.split()  # noqa: SIM905
)
PHRASES = (
    "the red fish", "a big yellow bus", "my little sister", "see the black cat", "we like green grapes",
    "he can jump fast", "the dog is asleep", "give me the spoon", "three blue flowers", "look at the zebra",
    "the girl has a kite", "put on your shoes", "a glass of milk", "she found a shell", "the sun is very hot",
)  # fmt: skip
_ESPEAK = {
    "p": "p", "b": "b", "t": "t", "d": "d", "k": "k", "g": "ɡ", "m": "m", "n": "n", "N": "ŋ", "f": "f", "v": "v",
    "T": "θ", "D": "ð", "s": "s", "z": "z", "S": "ʃ", "Z": "ʒ", "h": "h", "tS": "t͡ʃ", "dZ": "d͡ʒ", "l": "l",
    "r": "ɹ", "w": "w", "j": "j", "t#": "t",
}  # fmt: skip
_TO_ESPEAK = {phone: name for name, phone in _ESPEAK.items() if name != "t#"}
_USUAL = {
    "k": "t t t ɡ", "ɡ": "d d d k", "ŋ": "n n", "ʃ": "s s t t͡ʃ", "t͡ʃ": "t t ʃ d͡ʒ", "d͡ʒ": "d d t͡ʃ ʒ", "ʒ": "z d͡ʒ",
    "s": "t t θ θ ʃ", "z": "d d s ð", "f": "p p b", "v": "b b f", "θ": "f t s", "ð": "d d v", "l": "w w j",
    "ɹ": "w w w l", "j": "l w", "w": "v j", "t": "k d", "d": "ɡ t", "p": "b t", "b": "p d",
    "m": "b n", "n": "d m", "h": "f",
}  # fmt: skip
"""Phones children put in place of each, the commoner ones more often."""
_RANDOM = 0.2


@dataclass(frozen=True, kw_only=True)
class Item:
    """Something to say: `text` as expected, and what is wrong with one of its consonants, if anything."""

    text: str
    voice: str
    rate_wpm: int
    pitch: int
    error: ErrorKind | None = None
    consonant: int | None = None
    """Which of the consonants (as `consonants_of` counts) is hit; a vowel is added behind it."""
    heard: str | None = None
    """The consonant put in its place."""


def consonants_of(words: Sequence[Sequence[str]]) -> list[tuple[int, int]]:
    """Word and place of the consonants that every accent says: all but an /ɹ/ with no vowel behind it."""
    return [
        (w, i)
        for w, phones in enumerate(words)
        for i, phone in enumerate(phones)
        if phone in CONSONANTS and (phone != "ɹ" or (i + 1 < len(phones) and phones[i + 1] not in CONSONANTS))
    ]


class EspeakSpeaker:
    """Says items with espeak-ng's many voices."""

    def phones(self, item: Item) -> list[list[str]]:
        """The phones of each word of the text said right; what is no consonant keeps espeak-ng's name."""
        return [[_ESPEAK.get(_bare(n), n) for n in word] for word in self._words(item.text)]

    def say(self, item: Item) -> NDArray[np.float32]:
        """The item at 16 kHz."""
        words = [list(word) for word in self._words(item.text)]
        if item.error is not None and item.consonant is not None:
            word, place = consonants_of(self.phones(item))[item.consonant]
            _hit(words[word], place, item, [_TO_ESPEAK[item.heard]] if item.heard else [], "@")
        spoken = " ".join(_joined(word) for word in words)
        return espeak.say(f"[[{spoken}]]", voice=item.voice, rate_wpm=item.rate_wpm, pitch=item.pitch)

    @staticmethod
    def _words(text: str) -> list[list[str]]:
        return espeak.phonemes(text, voice="en-us")


class PiperSpeaker:
    """Says items with one Piper voice, whose model is given; `rate_wpm` 150 is its own rate."""

    def __init__(self, model: Path) -> None:
        from piper import PiperVoice

        self._voice: Any = PiperVoice.load(str(model))

    def phones(self, item: Item) -> list[list[str]]:
        """The phones of each word of the text said right; what is no consonant is as Piper writes it."""
        return [[_PIPER.get(token, token) for token in word] for word in self._words(item.text)]

    def say(self, item: Item) -> NDArray[np.float32]:
        """The item at 16 kHz."""
        from piper import SynthesisConfig
        from scipy.signal import resample

        words = [list(word) for word in self._words(item.text)]
        if item.error is not None and item.consonant is not None:
            word, place = consonants_of(self.phones(item))[item.consonant]
            _hit(words[word], place, item, [_TO_PIPER.get(item.heard, item.heard)] if item.heard else [], "ə")
        letters = [letter for word in words for token in (*word, " ") for letter in token][:-1]
        ids = self._voice.phonemes_to_ids([*letters, "."])
        sound = self._voice.phoneme_ids_to_audio(ids, SynthesisConfig(length_scale=150 / item.rate_wpm))
        sound = sound[0] if isinstance(sound, tuple) else sound
        count = round(len(sound) * 16_000 / self._voice.config.sample_rate)
        return np.asarray(resample(sound, count), np.float32)

    def _words(self, text: str) -> list[list[str]]:
        letters = [letter for sentence in self._voice.phonemize(text) for letter in sentence]
        words: list[list[str]] = [[]]
        for letter in letters:
            if letter == " ":
                words.append([])
            elif letter in ".,!?":
                continue
            elif words[-1] and words[-1][-1] + letter in ("tʃ", "dʒ"):
                words[-1][-1] += letter
            else:
                words[-1].append(letter)
        return words


_PIPER = {"tʃ": "t͡ʃ", "dʒ": "d͡ʒ", "ɾ": "t", "g": "ɡ", "r": "ɹ"}
_TO_PIPER = {"t͡ʃ": "tʃ", "d͡ʒ": "dʒ"}


def planted(text: str, phones: Sequence[Sequence[str]], rng: random.Random, **voice: Any) -> Item | None:
    """An error in one consonant of `text`; None where the draw does not fit the word."""
    places = consonants_of(phones)
    if not places:
        return None
    consonant = rng.randrange(len(places))
    word, i = places[consonant]
    own = phones[word]
    phone = own[i]
    neighbours = [own[j] in CONSONANTS for j in (i - 1, i + 1) if 0 <= j < len(own)]
    kind = rng.choices(("substitution", "omission", "addition"), (0.62, 0.3, 0.08))[0]
    if kind == "omission" and not (any(neighbours) or i in (0, len(own) - 1)):
        kind = "substitution"
    if kind == "addition":
        if not (i + 1 < len(own) and own[i + 1] in CONSONANTS):
            return None
        return Item(text=text, error="addition", consonant=consonant, **voice)
    if kind == "omission":
        return Item(text=text, error="omission", consonant=consonant, **voice)
    usual = _USUAL[phone].split()
    heard = rng.choice(CONSONANTS) if rng.random() < _RANDOM else rng.choice(usual)
    final, initial = i == len(own) - 1, i == 0
    if heard == phone or (final and heard in ("h", "w", "j", "ɹ")) or (initial and heard in ("ŋ", "ʒ")):
        return None
    return Item(text=text, error="substitution", consonant=consonant, heard=heard, **voice)


def _hit(word: list[str], place: int, item: Item, heard: list[str], vowel: str) -> None:
    """Change the word in place; names may carry stress marks, which consonants never have here."""
    if item.error == "addition":
        word.insert(place + 1, vowel)
    else:
        word[place : place + 1] = heard


def _bare(name: str) -> str:
    return name.lstrip("',%=|")


def _joined(names: Sequence[str]) -> str:
    return "|".join(names).replace("|'", "'|").replace("'|", "'")
