"""The fluency engine: rates, pauses and disfluencies of made speech, and how words are used."""

from typing import Any

import numpy as np
import pytest
from benchmarks.voices import RATE_HZ, chord, syllables, vowel, whisper
from pydantic import BaseModel, ValidationError

from neuroedge.contract.errors import MediaTooShort, TooLarge
from neuroedge.contract.models import Floats
from neuroedge.contract.ports import AudioSource
from neuroedge.engines.speech.fluency import FluencyEngine, Input, Output
from tests.engines.speech.test_prosody import Voices
from tests.fakes import FakeMedia, make_context

pytestmark = pytest.mark.anyio
AUDIO = AudioSource(blob="talk.wav")


class Heard(BaseModel):
    """What a recogniser answers."""

    models: list[str]
    segments: list[dict[str, Any]]


def _silence(seconds: float) -> Floats:
    return np.random.default_rng(6).normal(0, 1e-4, round(seconds * RATE_HZ)).astype(np.float32)


async def _run(*parts: Floats, call: Any = None, speech: bool = True, **asked: Any) -> Output:
    more = {} if call is None else {"call": call}
    ctx = make_context(
        media=FakeMedia(np.concatenate(parts)), models={"voice_activity": Voices(everywhere=speech)}, **more
    )
    return await FluencyEngine(probe=ctx).run(Input(audio=AUDIO, **asked), ctx)


async def test_rates_pauses_and_runs() -> None:
    """Four syllables, 0.7 s of silence, eight syllables, at 4 a second."""
    answer = await _run(syllables(4, 4.0), _silence(0.7), syllables(8, 4.0, seed=1))
    assert abs(answer.syllables - 12) <= 1
    assert answer.articulation_rate_syl_s == pytest.approx(4, rel=0.12)
    assert answer.speech_rate_syl_s == pytest.approx(12 / 3.7, rel=0.12)
    assert [(round(p.start_s, 1), round(p.end_s, 1)) for p in answer.pauses] == [(1.0, 1.7)]
    assert answer.pause_percent == pytest.approx(100 * 0.7 / 3.7, rel=0.2)
    assert answer.mean_length_of_run == pytest.approx(6, abs=0.6)
    assert answer.reliable
    assert answer.blocks is None
    assert any("without words" in note for note in answer.notes)


async def test_a_held_sound_counts_as_stuttering_like() -> None:
    """One prolongation; %SS rests on the syllables found."""
    answer = await _run(syllables(6, 4.0), vowel(120.0, 0.8, name="e").samples, syllables(6, 4.0, seed=2))
    assert len(answer.prolongations) == 1
    assert answer.ss_count >= 1
    assert answer.ss_percent is not None
    assert answer.ss_percent > 0
    assert any("varies much by chance" in note for note in answer.notes)


async def test_words_given_are_used_for_blocks_repetitions_and_fillers() -> None:
    """As the engine transcription gives them, with a probability."""
    words = [
        {"w": "Um,", "start_s": 0.0, "end_s": 0.3, "p": 0.9},
        {"w": "the", "start_s": 0.3, "end_s": 0.5},
        {"w": "the", "start_s": 0.5, "end_s": 0.7},
        {"w": "banana", "start_s": 0.75, "end_s": 2.4},
    ]
    answer = await _run(syllables(4, 4.0), _silence(0.7), syllables(8, 4.0, seed=1), words=words)
    assert [b.text for b in answer.blocks or []] == ["banana"]
    assert [(r.text, r.source) for r in answer.repetitions if r.source == "words"] == [("the", "words")]
    assert [(f.text, f.source) for f in answer.filled_pauses] == [("Um,", "words")]
    assert any("recogniser leaves out" in note for note in answer.notes)


async def test_it_asks_for_a_transcription_when_told_to() -> None:
    """In the caller's language; the recogniser's model is named."""
    asked: list[tuple[str, Any]] = []

    async def call(name: str, payload: BaseModel) -> BaseModel:
        asked.append((name, payload.model_dump(exclude_none=True)))
        words = [{"w": "one", "start_s": 0.0, "end_s": 0.5, "p": 1.0}]
        return Heard(models=["whisper"], segments=[{"words": words}])

    answer = await _run(syllables(8, 4.0), call=call, transcribe=True, language="en")
    assert asked == [("transcription", {"audio": {"blob": "talk.wav"}, "language": "en"})]
    assert answer.models == ["vad", "whisper"]
    assert answer.blocks == []


async def test_too_few_syllables_have_no_rate() -> None:
    """Null, not a number of nothing."""
    answer = await _run(syllables(3, 4.0))
    assert (answer.speech_rate_syl_s, answer.articulation_rate_syl_s, answer.ss_percent) == (None, None, None)
    assert answer.syllables <= 4


@pytest.mark.parametrize(
    ("samples", "speech", "why"),
    [
        (chord(3.0), False, "music"),
        (whisper(3.0), True, "whispered"),
        (syllables(12, 4.0) + syllables(12, 4.0, f0_hz=205, seed=1), True, "several people"),
        (np.clip(10 * syllables(12, 4.0), -1, 1), True, "clipped"),
        (np.zeros(2 * RATE_HZ, np.float32), False, "silence"),
    ],
    ids=["music", "whisper", "two people", "clipping", "silence"],
)
async def test_what_spoils_the_measures_is_told(samples: Floats, speech: bool, why: str) -> None:
    """Marked unreliable, with the reason."""
    answer = await _run(samples, speech=speech)
    assert not answer.reliable
    assert any(why in warning for warning in answer.warnings), answer.warnings


async def test_too_short_and_too_long_recordings_are_refused() -> None:
    """0.1 s; more than a quarter of an hour."""
    with pytest.raises(MediaTooShort):
        await _run(_silence(0.1))
    with pytest.raises(TooLarge):
        await _run(np.zeros(901 * RATE_HZ, np.float32))


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"audio": {"blob": "x"}, "words": [{"w": "a", "start_s": 1.0, "end_s": 0.5}]},
        {"audio": {"blob": "x"}, "words": [{"w": "a", "start_s": -1.0, "end_s": 0.5}]},
        {"audio": {"blob": "x"}, "words": [{"w": "a", "start_s": 0.0, "end_s": float("nan")}]},
        {"audio": {"blob": "x"}, "words": [{"w": "a" * 201, "start_s": 0.0, "end_s": 1.0}]},
        {"audio": {"blob": "x"}, "words": [{"w": "a", "start_s": 0.0, "end_s": 1.0}] * 5001},
        {"audio": {"blob": "x"}, "words": "a b c"},
        {"audio": {"blob": "x"}, "language": "English, please"},
        {"audio": {"blob": "x"}, "age": 4},
    ],
)
def test_input_that_breaks_the_contract_is_refused(wrong: dict[str, Any]) -> None:
    """Missing, reversed, negative, not a number, too long, too many, unknown."""
    with pytest.raises(ValidationError):
        Input.model_validate(wrong)
