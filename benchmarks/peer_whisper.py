"""The peer of the transcription engine: faster-whisper called directly with the same parameters, and word error rates.

Run as: python -m benchmarks.peer_whisper sample.wav sample.stm path/to/whisper-base

A 30 s call is too little to choose parameters by: leaving out its first 8 to 380 ms alone moves the word error rate
by as much as the parameters do, so the shipped ones are faster-whisper's own.
"""

import sys
import time
import wave
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from neuroedge.runtimes.whisper import DECODING


class Peer:
    """faster-whisper itself, loaded once, with the parameters the engine uses."""

    def __init__(self, model_dir: Path, *, threads: int) -> None:
        from faster_whisper import WhisperModel

        self._model = WhisperModel(str(model_dir), device="cpu", compute_type="int8", cpu_threads=threads)

    def transcribe(self, wav: Path, *, changes: Mapping[str, Any] | None = None) -> tuple[float, str]:
        """Seconds and text of one transcription of a 16 kHz mono PCM16 file; reading the file counts."""
        started = time.perf_counter()
        with wave.open(str(wav)) as file:
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32_768
        segments, _info = self._model.transcribe(samples, **{**DECODING, **(changes or {})})
        text = " ".join(segment.text.strip() for segment in segments)
        return time.perf_counter() - started, text


def wer(reference: Path | str, hypothesis: str) -> float:
    """Word error rate against a text or an .stm file: lower case, no punctuation, contractions spelt out."""
    text = stm_text(reference) if isinstance(reference, Path) else reference
    wrong, words = word_errors(text, hypothesis)
    return wrong / words


def word_errors(reference: str, hypothesis: str) -> tuple[int, int]:
    """How many words are wrong, missing or too many, and how many the reference has; as `wer` counts them."""
    import jiwer

    normal = jiwer.Compose(
        [
            jiwer.ToLowerCase(),
            jiwer.ExpandCommonEnglishContractions(),
            jiwer.SubstituteRegexes({r"[^\w\s']": " "}),
            jiwer.RemovePunctuation(),
            jiwer.RemoveMultipleSpaces(),
            jiwer.Strip(),
            jiwer.ReduceToListOfListOfWords(),
        ]
    )
    found = jiwer.process_words(reference, hypothesis, reference_transform=normal, hypothesis_transform=normal)
    return found.substitutions + found.deletions + found.insertions, sum(map(len, found.references))


def stm_text(path: Path) -> str:
    """The words of an STM file (name, channel, speaker, start, end, words), in order."""
    return " ".join(line.split(None, 5)[5].strip() for line in path.read_text().splitlines() if line.strip())


def main(wav: Path, stm: Path, model_dir: Path) -> None:
    """Print seconds and word error rate of parameter sets worth choosing from."""
    peer = Peer(model_dir, threads=2)
    peer.transcribe(wav)
    for changes in (
        {},
        {"beam_size": 1},
        {"language": "en"},
        {"vad_filter": False},
        {"vad_parameters": {"min_silence_duration_ms": 500, "speech_pad_ms": 200}},
    ):
        seconds, text = peer.transcribe(wav, changes=changes)
        print(f"{seconds:6.2f} s  WER {wer(stm, text):.3f}  {changes or 'as shipped'}")


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:4]))
