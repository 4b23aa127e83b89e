"""Voice activity by Silero VAD v6 (MIT, a small recurrent network on ONNX Runtime) as faster-whisper ships it."""

import asyncio
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from neuroedge.contract.errors import ModelFailed, ModelUnavailable
from neuroedge.contract.models import SAMPLE_RATE_HZ, VOICE_FRAME, Floats, Span, VoiceState
from neuroedge.kit.signal import quiet_blocks
from neuroedge.runtimes.threaded import MAX_WAITING_AUDIO_S, Threaded

_CONTEXT = 64
"""Samples of the frame before that the network sees with each."""
_BLOCK_S = 120.0
"""The network's frames take three times the waveform's memory, so long recordings go block by block."""


def load(model_id: str, folder: Path, *, threads: int, options: Mapping[str, Any]) -> "SileroVoiceActivity":
    """Open the network; `folder` and `threads` are not used: it comes with the library and needs one thread.

    Options: threshold (0.5), min_silence_ms (100), min_speech_ms (100), speech_pad_ms (30). Silero's own 250 ms of
    least speech loses a short "Hello?" at the start of a call. Raises ModelUnavailable.
    """
    from faster_whisper.vad import VadOptions, get_vad_model

    try:
        get_vad_model()
    except Exception as error:  # ONNX Runtime's own exceptions share no public base
        raise ModelUnavailable(f"{model_id} does not load: {error}", hint="reinstall faster-whisper") from error
    return SileroVoiceActivity(
        model_id,
        VadOptions(
            threshold=float(options.get("threshold", 0.5)),
            min_silence_duration_ms=int(options.get("min_silence_ms", 100)),
            min_speech_duration_ms=int(options.get("min_speech_ms", 100)),
            speech_pad_ms=int(options.get("speech_pad_ms", 30)),
        ),
    )


class SileroVoiceActivity(Threaded):
    """VoiceActivity over faster-whisper's Silero VAD."""

    def __init__(self, model_id: str, options: Any) -> None:
        super().__init__(model_id, max_waiting=MAX_WAITING_AUDIO_S)
        self._options = options
        self._streams = ThreadPoolExecutor(1, f"{model_id}-streams")
        """Streams have a worker of their own: a frame takes a moment and must not wait behind an hour's recording."""

    async def speech(self, samples: Floats) -> list[Span]:
        """Stretches of speech in `samples` [n] at 16 kHz, in order, not overlapping; a cancelled call stops early."""
        stop = threading.Event()
        try:
            return await self._in_thread(lambda: self._speech(samples, stop), cost=len(samples) / SAMPLE_RATE_HZ)
        except asyncio.CancelledError:
            stop.set()
            raise

    async def listen(self, samples: Floats, state: VoiceState | None) -> tuple[Floats, VoiceState]:
        """Probabilities of speech of the next frames of a stream: the same as if it were judged in one piece."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._streams, _listen, samples, state)
        except RuntimeError as error:
            raise ModelFailed(f"{self.model_id} failed: {error}", model_id=self.model_id, hint="try again") from error

    def _speech(self, samples: Floats, stop: threading.Event) -> list[Span]:
        from faster_whisper.vad import get_speech_timestamps

        spans: list[Span] = []
        for offset, block in quiet_blocks(samples, max_s=_BLOCK_S):
            if stop.is_set() or not len(block):
                break
            self._alive()
            for found in get_speech_timestamps(block, self._options):
                start_s = (offset + found["start"]) / SAMPLE_RATE_HZ
                end_s = (offset + found["end"]) / SAMPLE_RATE_HZ
                if spans and start_s <= spans[-1].end_s:
                    start_s = spans.pop().start_s
                spans.append(Span(start_s=start_s, end_s=end_s))
        return spans

    def close(self) -> None:
        """Wait for the running computation and free the network."""
        from faster_whisper.vad import get_vad_model

        super().close()
        self._streams.shutdown(cancel_futures=True)
        get_vad_model.cache_clear()


def _listen(samples: Floats, state: VoiceState | None) -> tuple[Floats, VoiceState]:
    from faster_whisper.vad import get_vad_model

    if state is None:
        nothing = np.zeros((1, 1, 128), np.float32)
        state = VoiceState((nothing, nothing, np.zeros(_CONTEXT, np.float32)))
    if not len(samples):
        return np.empty(0, np.float32), state
    h, c, before = state.memory
    joined = np.concatenate([before, samples])
    frames = np.lib.stride_tricks.sliding_window_view(joined, _CONTEXT + VOICE_FRAME)[::VOICE_FRAME]
    found, h, c = get_vad_model().session.run(None, {"input": np.ascontiguousarray(frames), "h": h, "c": c})
    return found.reshape(-1), VoiceState((h, c, joined[-_CONTEXT:]))
