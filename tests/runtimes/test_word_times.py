"""Word times are true to 0.2 s: clips of the real call joined with silences of known length."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from neuroedge.contract.models import SAMPLE_RATE_HZ, Floats, SpokenWord
from neuroedge.kit.word_times import trimmed
from neuroedge.runtimes import whisper
from neuroedge.runtimes.whisper import WhisperSpeechToText
from tests.conftest import SampleCall

pytestmark = [pytest.mark.models, pytest.mark.anyio]

CLIPS_S = [(18.09, 21.53), (21.80, 27.60)]
"""From a pause to a pause of the call: the first sound to the last, by ear and level."""
TRUE_TO_S = 0.2


@pytest.fixture(scope="module")
def model(models_dir: Path) -> Iterator[WhisperSpeechToText]:
    """The default recogniser."""
    opened = whisper.load("whisper-base", models_dir / "whisper-base", threads=2, options={})
    yield opened
    opened.close()


def _joined(call: Floats, gaps_s: tuple[float, float, float]) -> tuple[Floats, list[tuple[float, float]]]:
    """Both clips with silence before, between and after; and where each lies."""
    parts, placed, at_s = [], [], 0.0
    for (start_s, end_s), gap_s in zip(CLIPS_S, gaps_s, strict=False):
        parts.append(np.zeros(round(gap_s * SAMPLE_RATE_HZ), np.float32))
        at_s += gap_s
        parts.append(call[round(start_s * SAMPLE_RATE_HZ) : round(end_s * SAMPLE_RATE_HZ)])
        placed.append((at_s, at_s + end_s - start_s))
        at_s = placed[-1][1]
    parts.append(np.zeros(round(gaps_s[-1] * SAMPLE_RATE_HZ), np.float32))
    return np.concatenate(parts), placed


def _inside(words: list[SpokenWord], stretch: tuple[float, float]) -> list[SpokenWord]:
    return [word for word in words if stretch[0] - 0.5 <= (word.start_s + word.end_s) / 2 <= stretch[1] + 0.5]


@pytest.mark.parametrize("gaps_s", [(1.0, 2.0, 1.0), (3.5, 0.7, 0.5)])
async def test_words_stand_where_they_were_put(
    model: WhisperSpeechToText, sample_call: SampleCall, gaps_s: tuple[float, float, float]
) -> None:
    """The first word of each clip begins, and the last one ends, where the clip does; none stands in a silence."""
    call, rate_hz = soundfile.read(sample_call.wav, dtype="float32")
    assert rate_hz == SAMPLE_RATE_HZ
    samples, placed = _joined(call, gaps_s)
    heard = await model.transcribe(samples, language="en")
    found = [word for utterance in heard.utterances for word in utterance.words]
    times = trimmed([(word.start_s, word.end_s) for word in found], samples)
    words = [replace(w, start_s=start_s, end_s=end_s) for w, (start_s, end_s) in zip(found, times, strict=True)]
    assert len(words) > 15
    for stretch in placed:
        of_clip = _inside(words, stretch)
        assert of_clip[0].start_s == pytest.approx(stretch[0], abs=TRUE_TO_S)
        assert of_clip[-1].end_s == pytest.approx(stretch[1], abs=TRUE_TO_S)
    assert sum(len(_inside(words, stretch)) for stretch in placed) == len(words)
