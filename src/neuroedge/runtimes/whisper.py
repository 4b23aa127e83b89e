"""Speech recognition by Whisper (Radford et al. 2022) on CTranslate2, through faster-whisper.

Recordings are decoded in blocks of at most three minutes, cut where it is quietest, so that memory does not grow with
the length (a spectrogram of four hours takes gigabytes) and a cancelled call ends soon.
"""

import asyncio
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neuroedge.contract.errors import InvalidInput, ModelFailed, ModelUnavailable
from neuroedge.contract.models import SAMPLE_RATE_HZ, Floats, SpeechTask, SpokenWord, Transcription, Utterance
from neuroedge.kit.signal import quiet_blocks
from neuroedge.runtimes.device import split
from neuroedge.runtimes.threaded import MAX_WAITING_AUDIO_S, Threaded

UNDETERMINED = "und"
"""Language of a recording in which nobody speaks (BCP 47)."""
DECODING: Mapping[str, Any] = {
    "beam_size": 5,
    # Text carried from one window to the next lets one invented sentence repeat through a whole recording.
    "condition_on_previous_text": False,
    "word_timestamps": True,
    # On silence and noise Whisper invents words; what Silero does not hear as speech never reaches it.
    "vad_filter": True,
}
"""Parameters of every call, of which options may change some."""
_LIVE: Mapping[str, Any] = {
    # One pass, whose time is bounded: no second try at a higher temperature, no search for the next timestamp.
    "temperature": 0.0,
    "without_timestamps": True,
    # A sentence said again takes longer than the sentence; more than this costs words that are really said twice.
    "repetition_penalty": 1.05,
}
_AFTER_S = 2.0
"""Silence after a live piece: with less, the model takes its end for cut off and says it again (benchmarks/live.py).

It has to be silence in the waveform: the library fills up a spectrogram with what is a hum to the model.
"""
_WINDOW_S = 30.0
_FRAMES_PER_S = 100
_TOKENS_PER_S, _MOST_TOKENS = 8, 16
"""Nobody says more; what exceeds it is the model repeating itself."""
_MOST_WAITING_LIVE_S = 240.0
_LIVE_WORKERS = 2
"""Live pieces computed at once, beside a recording: a short piece keeps hardly more than one core busy."""
_BLOCK_S = 180.0
"""Computing a spectrogram takes 0.8 MB a second of the block."""
_FILES = ("config.json", "model.bin", "tokenizer.json")


def load(model_id: str, folder: Path, *, threads: int, options: Mapping[str, Any]) -> "WhisperSpeechToText":
    """Open a CTranslate2 Whisper model in `folder`. Raises ModelUnavailable; never fetches anything.

    Options: device ("cpu", "cuda:0"), compute_type ("int8"), beam_size (5), vad_parameters (faster-whisper's
    VadOptions by name).
    """
    missing = [name for name in _FILES if not (folder / name).is_file()]
    if missing:
        raise ModelUnavailable(f"{model_id} lacks {', '.join(missing)}", hint=f"run `neuroedge models pull {model_id}`")
    from faster_whisper import WhisperModel

    device, index = split(str(options.get("device", "cpu")))
    try:
        model = WhisperModel(
            str(folder),
            device="cpu" if device == "mps" else device,  # CTranslate2 knows no Apple GPU
            device_index=index,
            compute_type=str(options.get("compute_type", "int8")),
            cpu_threads=threads,
            num_workers=1 + _LIVE_WORKERS,  # they share the weights
            local_files_only=True,
        )
    except (RuntimeError, ValueError, OSError) as error:
        raise ModelUnavailable(
            f"{model_id} does not load: {error}", hint=f"run `neuroedge models verify {model_id}`"
        ) from error
    changes = {name: options[name] for name in ("beam_size", "vad_parameters") if name in options}
    window, encode = _Window(), model.encode
    model.encode = lambda features: encode(features[..., : window.frames])
    return WhisperSpeechToText(model_id, model, {**DECODING, **changes}, window=window)


class _Window(threading.local):
    """How much of a spectrogram's window the encoder looks at in this thread.

    The library pads every piece to 30 s, of which the encoder takes most of the time a second of speech costs.
    """

    frames: int | None = None
    """None: all of it."""


class WhisperSpeechToText(Threaded):
    """SpeechToText over faster-whisper."""

    def __init__(
        self, model_id: str, model: Any, decoding: Mapping[str, Any], *, window: "_Window | None" = None
    ) -> None:
        super().__init__(model_id, max_waiting=MAX_WAITING_AUDIO_S)
        self._window = window or _Window()
        self._live = Threaded(model_id, workers=_LIVE_WORKERS, max_waiting=_MOST_WAITING_LIVE_S)
        """The workers of live pieces: they go past a recording, and two streams past each other."""
        self._model = model
        self._decoding = dict(decoding)

    async def transcribe(
        self,
        samples: Floats,
        *,
        language: str | None = None,
        hot_words: Sequence[str] = (),
        on_progress: Callable[[float], None] | None = None,
        task: SpeechTask = "transcribe",
        prompt: str = "",
        beam_size: int | None = None,
        vad: bool = True,
        live: bool = False,
    ) -> Transcription:
        """Transcribe `samples` [n] at 16 kHz, or with `task` translate say it in English; see SpeechToText.

        When the awaiting task is cancelled, decoding stops after the segment in hand. Raises InvalidInput for a
        language the model does not know, and for a translation by a model that knows English only.
        """
        languages = self._model.supported_languages
        if language is not None and language not in languages:
            raise InvalidInput(
                f"{self.model_id} does not know the language {language!r}", hint=f"one of {', '.join(languages)}"
            )
        if task == "translate" and not self._model.model.is_multilingual:
            raise InvalidInput(
                f"{self.model_id} knows English only and cannot translate", hint="let the operator set whisper-base"
            )
        decoding = {**self._decoding, "task": task, "vad_filter": vad and self._decoding["vad_filter"]}
        decoding |= {"language": language, "hotwords": ", ".join(hot_words) or None, "initial_prompt": prompt or None}
        if beam_size is not None:
            decoding["beam_size"] = beam_size
        duration_s = len(samples) / SAMPLE_RATE_HZ
        frames = None
        if live and duration_s + _AFTER_S < _WINDOW_S:
            frames = math.ceil((duration_s + _AFTER_S) * _FRAMES_PER_S)
            decoding |= {**_LIVE, "max_new_tokens": _MOST_TOKENS + round(duration_s * _TOKENS_PER_S)}
        lane = self if frames is None else self._live
        lane.surroundings = self.surroundings
        stop = threading.Event()

        def report(done: float) -> None:
            if stop.is_set():
                raise _StoppedError
            lane._alive()
            if on_progress is not None:
                on_progress(done)

        try:
            return await lane._in_thread(lambda: self._transcribe(samples, decoding, report, frames), cost=duration_s)
        except asyncio.CancelledError:
            stop.set()
            raise

    def _transcribe(
        self, samples: Floats, decoding: dict[str, Any], report: Callable[[float], None], frames: int | None
    ) -> Transcription:
        duration_s = len(samples) / SAMPLE_RATE_HZ
        self._window.frames = frames
        if frames is not None:
            samples = np.pad(samples, (0, frames * SAMPLE_RATE_HZ // _FRAMES_PER_S - len(samples)))
        language = decoding["language"]
        utterances: list[Utterance] = []
        language_p = 1.0 if language else 0.0
        try:
            for offset, block in quiet_blocks(samples, max_s=_BLOCK_S):
                offset_s = offset / SAMPLE_RATE_HZ
                report(offset / max(1, len(samples)))
                segments, info = self._model.transcribe(block, **{**decoding, "language": language})
                if not info.duration_after_vad:
                    continue
                if language is None:
                    language, language_p = info.language, float(info.language_probability)
                for segment in segments:
                    if segment.text.strip():
                        utterances.append(_utterance(segment, offset_s))
                    report(min(1.0, (offset_s + segment.end) / duration_s))
                    if frames is not None:
                        break  # it is all in one; what the library would look at next is the silence after it
            report(1.0)
        except (RuntimeError, MemoryError) as error:
            raise ModelFailed(
                f"{self.model_id} failed: {error}", model_id=self.model_id, hint="see `neuroedge doctor`"
            ) from error
        return Transcription(
            utterances=utterances,
            language=language or UNDETERMINED,
            language_p=language_p,
            duration_s=duration_s,
        )

    def stuck(self) -> bool:
        """Whether a computation has hung."""
        return super().stuck() or self._live.stuck()

    @property
    def busy(self) -> bool:
        """Whether it computes."""
        return super().busy or self._live.busy

    def abandon(self) -> None:
        """Give up on a hung model."""
        super().abandon()
        self._live.abandon()

    def close(self) -> None:
        """Wait for the running computations and free the weights."""
        super().close()
        self._live.close()
        self._model.model.unload_model()


class _StoppedError(Exception):
    """Nobody waits for the result any more."""


def _utterance(segment: Any, offset_s: float) -> Utterance:
    return Utterance(
        text=segment.text.strip(),
        start_s=offset_s + float(segment.start),
        end_s=offset_s + float(segment.end),
        words=[_word(word, offset_s) for word in segment.words or ()],
        avg_logprob=float(segment.avg_logprob),
        no_speech_prob=float(segment.no_speech_prob),
    )


def _word(word: Any, offset_s: float) -> SpokenWord:
    return SpokenWord(
        w=word.word.strip(),
        start_s=offset_s + float(word.start),
        end_s=offset_s + float(word.end),
        p=float(word.probability),
    )
