"""Speech recognition by Whisper (Radford et al. 2022) on CTranslate2, through faster-whisper.

Recordings are decoded in blocks of at most ten minutes, cut where it is quietest, so that memory does not grow with
the length (a spectrogram of four hours takes gigabytes) and a cancelled call ends soon.
"""

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from neuroedge.contract.errors import InvalidInput, ModelFailed, ModelUnavailable
from neuroedge.contract.models import SAMPLE_RATE_HZ, Floats, SpokenWord, Transcription, Utterance
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
_BLOCK_S = 600.0
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
            local_files_only=True,
        )
    except (RuntimeError, ValueError, OSError) as error:
        raise ModelUnavailable(
            f"{model_id} does not load: {error}", hint=f"run `neuroedge models verify {model_id}`"
        ) from error
    changes = {name: options[name] for name in ("beam_size", "vad_parameters") if name in options}
    return WhisperSpeechToText(model_id, model, {**DECODING, **changes})


class WhisperSpeechToText(Threaded):
    """SpeechToText over faster-whisper."""

    def __init__(self, model_id: str, model: Any, decoding: Mapping[str, Any]) -> None:
        super().__init__(model_id, max_waiting=MAX_WAITING_AUDIO_S)
        self._model = model
        self._decoding = dict(decoding)

    async def transcribe(
        self,
        samples: Floats,
        *,
        language: str | None = None,
        hot_words: Sequence[str] = (),
        on_progress: Callable[[float], None] | None = None,
    ) -> Transcription:
        """Transcribe `samples` [n] at 16 kHz; `on_progress` gets the fraction done, from a worker thread.

        When the awaiting task is cancelled, decoding stops after the segment in hand. Raises InvalidInput for a
        language the model does not know.
        """
        languages = self._model.supported_languages
        if language is not None and language not in languages:
            raise InvalidInput(
                f"{self.model_id} does not know the language {language!r}", hint=f"one of {', '.join(languages)}"
            )
        stop = threading.Event()

        def report(done: float) -> None:
            if stop.is_set():
                raise _StoppedError
            self._alive()
            if on_progress is not None:
                on_progress(done)

        try:
            return await self._in_thread(
                lambda: self._transcribe(samples, language, ", ".join(hot_words) or None, report),
                cost=len(samples) / SAMPLE_RATE_HZ,
            )
        except asyncio.CancelledError:
            stop.set()
            raise

    def _transcribe(
        self, samples: Floats, language: str | None, hotwords: str | None, report: Callable[[float], None]
    ) -> Transcription:
        utterances: list[Utterance] = []
        language_p = 1.0 if language else 0.0
        duration_s = len(samples) / SAMPLE_RATE_HZ
        try:
            for offset, block in quiet_blocks(samples, max_s=_BLOCK_S):
                offset_s = offset / SAMPLE_RATE_HZ
                report(offset / max(1, len(samples)))
                segments, info = self._model.transcribe(block, language=language, hotwords=hotwords, **self._decoding)
                if not info.duration_after_vad:
                    continue
                if language is None:
                    language, language_p = info.language, float(info.language_probability)
                for segment in segments:
                    if segment.text.strip():
                        utterances.append(_utterance(segment, offset_s))
                    report(min(1.0, (offset_s + segment.end) / duration_s))
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

    def close(self) -> None:
        """Wait for the running computation and free the weights."""
        super().close()
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
