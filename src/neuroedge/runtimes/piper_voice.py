"""Neural voices by Piper (VITS, Kim et al. 2021, on ONNX Runtime), through `piper-tts`.

piper-tts is GPL-3.0 and no part of NeuroEdge: the extra `voices` installs it, and it is imported when a voice is
loaded. Pronunciations in IPA go to the network as they are; when it says which word it does not tell.
"""

import asyncio
import importlib.util
import json
import threading
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from neuroedge.contract.errors import InvalidInput, ModelUnavailable
from neuroedge.contract.speech import INSTALL_VOICES, Part, SpeechPiece
from neuroedge.kit.waveform import Floats
from neuroedge.runtimes.threaded import Threaded

_MODEL, _CONFIG = "voice.onnx", "voice.onnx.json"
_STOPS: Final = frozenset(".!?")
_MOST_WAITING_CHARS: Final = 50_000.0


def installed() -> bool:
    """Whether piper-tts is; nothing is imported for that."""
    return importlib.util.find_spec("piper") is not None


def load(model_id: str, folder: Path, *, threads: int, options: Mapping[str, Any]) -> "Piper":
    """Open a voice: voice.onnx and voice.onnx.json in `folder`. Options: none of its own. Raises ModelUnavailable."""
    if not installed():
        raise ModelUnavailable("piper-tts is not installed", hint=INSTALL_VOICES)
    missing = [name for name in (_MODEL, _CONFIG) if not (folder / name).is_file()]
    if missing:
        raise ModelUnavailable(f"{model_id} lacks {', '.join(missing)}", hint=f"run `neuroedge models pull {model_id}`")
    import onnxruntime
    from piper import PiperVoice
    from piper.config import PiperConfig

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    try:
        config = PiperConfig.from_dict(json.loads((folder / _CONFIG).read_text("utf-8")))
        session = onnxruntime.InferenceSession(str(folder / _MODEL), settings, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own exceptions share no public base
        raise ModelUnavailable(
            f"{model_id} does not load: {error}", hint=f"run `neuroedge models verify {model_id}`"
        ) from error
    return Piper(model_id, PiperVoice(session=session, config=config, download_dir=folder))


class Piper(Threaded):
    """SpeechSynthesiser over one Piper voice, which may hold several speakers."""

    def __init__(self, model_id: str, voice: Any) -> None:
        super().__init__(model_id, max_waiting=_MOST_WAITING_CHARS)
        self._voice = voice

    async def say(
        self, parts: Sequence[Part], *, voice: str | None = None, language: str | None = None, speed: float = 1.0
    ) -> SpeechPiece:
        """Say `parts`; `voice` is a speaker of a model of several. `language` is the model's own.

        A cancelled call ends after the sentence in hand.
        """
        speakers = self._voice.config.speaker_id_map
        if voice is not None and voice not in speakers:
            raise InvalidInput(
                f"{self.model_id} has no speaker {voice[:50]!r}", hint=", ".join(speakers) or "name none"
            )
        stop = threading.Event()
        try:
            samples, unknown = await self._in_thread(
                lambda: self._say(parts, None if voice is None else speakers[voice], speed, stop),
                cost=float(sum(len(part.text) for part in parts)),
            )
        except asyncio.CancelledError:
            stop.set()
            raise
        warnings = [f"the voice does not know the sounds {' '.join(sorted(unknown))}"] if unknown else []
        return SpeechPiece(samples=samples, rate_hz=int(self._voice.config.sample_rate), words=None, warnings=warnings)

    def _say(
        self, parts: Sequence[Part], speaker: int | None, speed: float, stop: threading.Event
    ) -> tuple[Floats, set[str]]:
        from piper.config import SynthesisConfig

        config = SynthesisConfig(speaker_id=speaker, length_scale=self._voice.config.length_scale / speed)
        known = self._voice.config.phoneme_id_map
        pieces: list[Floats] = []
        unknown: set[str] = set()
        for phonemes in self._sentences(parts):
            if stop.is_set():
                break
            self._alive()
            unknown |= {one for one in phonemes if one not in known}
            ids = self._voice.phonemes_to_ids([one for one in phonemes if one in known])
            sound = self._voice.phoneme_ids_to_audio(ids, config)
            pieces.append(np.clip(np.atleast_1d(sound), -1.0, 1.0).astype(np.float32))
        return (np.concatenate(pieces) if pieces else np.zeros(0, np.float32)), unknown

    def _sentences(self, parts: Sequence[Part]) -> list[list[str]]:
        """Phonemes by sentence; a part goes on with the sentence that the one before has not ended."""
        sentences: list[list[str]] = []
        open_ = False
        for part in parts:
            if part.ipa is not None:
                spoken = [list(unicodedata.normalize("NFD", part.ipa.strip()))]
            else:
                # Two brackets of the text's own would be read as phonemes.
                spoken = self._voice.phonemize(part.text.replace("[[", "[ ["))
                if spoken and not part.text.rstrip().endswith(tuple(_STOPS)) and spoken[-1][-1:] == ["."]:
                    spoken[-1] = spoken[-1][:-1]
            if not spoken and open_ and part.text.strip():
                sentences[-1] += [char for char in part.text.strip() if char in ",;:.!?"]
            elif spoken and open_:
                comma = part.text.lstrip()[:1]
                sentences[-1] += [comma] if comma in ",;:" else []
                sentences[-1] += [" ", *spoken[0]]
                spoken = spoken[1:]
            sentences += spoken
            open_ = bool(sentences) and not (part.ipa is None and part.text.rstrip().endswith(tuple(_STOPS)))
        return [sentence for sentence in sentences if sentence]
