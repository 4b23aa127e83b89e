"""Phones of speech and of written words: hama's CTC recogniser, the CMU dictionary, hama's grapheme-to-phoneme model.

hama (Apache-2.0) brings its weights and native engine. Its own `transcribe` keeps only the best symbol of a frame;
goodness of pronunciation needs all, so the session is asked for them. Its grapheme-to-phoneme model knows several
languages and takes some short English words for another's, so common words come from the CMU dictionary (BSD), of which
NeuroEdge ships a part (weights/cmudict), and the model answers for the others.
"""

import gzip
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Final

import numpy as np

from neuroedge.contract.errors import ModelUnavailable
from neuroedge.contract.models import SAMPLE_RATE_HZ, Floats, PhonePosteriors
from neuroedge.kit.phonology import from_arpabet
from neuroedge.runtimes.threaded import MAX_WAITING_AUDIO_S, Threaded

_FRAME_SAMPLES: Final = 320
_LEAST_SAMPLES: Final = 1600
"""Below, the network has no frame to give; shorter sounds get silence behind them."""
_LONGEST_WORD: Final = 64
_LETTERS: Final = re.compile(r"[a-z']+")
_COST_OF_WORDS_S: Final = 1.0

Ways = list[tuple[str, ...]]


def load(model_id: str, folder: Path, *, threads: int, options: Mapping[str, Any]) -> "HamaPhonemes":
    """Open both networks; `folder`, `threads` and `options` are not used: they come with the library, for one thread.

    Raises ModelUnavailable.
    """
    try:
        from hama import ASRModel, G2PModel

        return HamaPhonemes(model_id, ASRModel(), G2PModel(), _dictionary())
    except Exception as error:  # a missing native library is a RuntimeError, a missing file an OSError
        raise ModelUnavailable(
            f"{model_id} does not load: {error}", hint="reinstall hama; it runs on Linux and macOS, x86-64 and Arm"
        ) from error


def _dictionary() -> dict[str, Ways]:
    data = resources.files("neuroedge").joinpath("weights", "cmudict", "words.txt.gz").read_bytes()
    words: dict[str, Ways] = {}
    for line in gzip.decompress(data).decode().splitlines():
        word, *names = line.split()
        words.setdefault(word, []).append(tuple(from_arpabet(names)))
    return words


class HamaPhonemes(Threaded):
    """PhonemeRecogniser over hama and a dictionary."""

    def __init__(self, model_id: str, recogniser: Any, pronouncer: Any, dictionary: Mapping[str, Ways]) -> None:
        super().__init__(model_id, cores=1, max_waiting=MAX_WAITING_AUDIO_S)
        self._recogniser = recogniser
        self._pronouncer = pronouncer
        self._dictionary = dictionary

    async def posteriors(self, samples: Floats) -> PhonePosteriors:
        """Frames of `samples` [n] at 16 kHz."""
        return await self._in_thread(lambda: self._posteriors(samples), cost=len(samples) / SAMPLE_RATE_HZ)

    async def pronounce(self, words: Sequence[str]) -> list[Ways]:
        """The ways to say each English word, as phones in IPA, the commonest first; none for what has no letters."""
        return await self._in_thread(lambda: [self._ways(word) for word in words], cost=_COST_OF_WORDS_S)

    def _posteriors(self, samples: Floats) -> PhonePosteriors:
        wave = np.clip(samples, -1.0, 1.0).astype(np.float32, copy=False)
        wave = np.pad(wave, (0, max(0, _LEAST_SAMPLES - len(wave))))
        log_p, frames = self._recogniser.session.run(
            ["log_probs", "out_lengths"],
            {"waveform": wave[None], "waveform_lengths": np.array([len(wave)], np.int64)},
        )
        return PhonePosteriors(
            log_p=np.asarray(log_p[0, : int(frames[0])], np.float32),
            symbols=tuple(self._recogniser.decoder_tokens),
            frame_s=_FRAME_SAMPLES / SAMPLE_RATE_HZ,
            blank=int(self._recogniser.blank_id),
        )

    def _ways(self, word: str) -> Ways:
        letters = "".join(_LETTERS.findall(word.lower().replace("’", "'")))[:_LONGEST_WORD]
        if not letters.strip("'"):
            return []
        known = self._dictionary.get(letters) or self._dictionary.get(letters.strip("'"))
        if known is not None:
            return list(known)
        self._alive()
        return [tuple(a.phoneme for a in self._pronouncer.predict(letters.strip("'")).alignments)]
