"""The prosody engine: measures of known voices, what it refuses to measure, what it marks as spoilt."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from benchmarks.voices import RATE_HZ, chord, syllables, vowel, whisper
from pydantic import ValidationError

from neuroedge.contract.errors import MediaTooShort, ModelUnavailable, TooLarge
from neuroedge.contract.models import Floats, Span
from neuroedge.contract.ports import Audio, AudioSource
from neuroedge.engines.speech.prosody import Input, Output, ProsodyEngine
from tests.fakes import FakeMedia, RecordedProgress, make_context

pytestmark = pytest.mark.anyio
AUDIO = AudioSource(blob="voice.wav")


class Voices:
    """A detector that hears speech everywhere, or nowhere."""

    model_id = "vad"

    def __init__(self, *, everywhere: bool = True) -> None:
        self._everywhere = everywhere

    async def speech(self, samples: Floats) -> Sequence[Span]:
        """One stretch, or none."""
        return [Span(start_s=0.0, end_s=len(samples) / RATE_HZ)] if self._everywhere else []


class Telephone(FakeMedia):
    """Media of an 8 kHz file."""

    async def audio(self, source: AudioSource) -> Audio:
        """The waveform, as if decoded from such."""
        heard = await super().audio(source)
        return Audio(
            samples=heard.samples,
            duration_s=heard.duration_s,
            source_rate_hz=8_000,
            source_channels=1,
            codec="pcm_mulaw",
            container="wav",
        )


async def _run(samples: Floats, *, media: Any = None, speech: bool = True, **asked: Any) -> Output:
    ctx = make_context(media=media or FakeMedia(samples), models={"voice_activity": Voices(everywhere=speech)})
    return await ProsodyEngine(probe=ctx).run(Input(audio=AUDIO, **asked), ctx)


async def test_a_voice_of_known_pitch_is_measured() -> None:
    """Median, percentiles and range of a voice that glides an octave; level, HNR and rates are there."""
    answer = await _run(vowel(120.0, 3.0, glide_st=12.0, noise_db=25).samples)
    assert answer.f0_median_hz == pytest.approx(120 * 2**0.5, rel=0.03)
    assert answer.f0_p5_hz == pytest.approx(120, rel=0.06)
    assert answer.f0_p95_hz == pytest.approx(240, rel=0.06)
    assert answer.range_st == pytest.approx(11, abs=1)
    assert answer.phrases[0].final_movement_st == pytest.approx(1.2, abs=0.4)
    assert len(answer.contour) == 100
    assert answer.hnr_db is not None
    assert answer.intensity_db is not None
    assert answer.reliable
    assert answer.models == ["vad"]


async def test_jitter_and_shimmer_are_given_for_a_held_vowel() -> None:
    """With what they were measured on."""
    made = vowel(140.0, 2.5, jitter=0.01, shimmer=0.05, noise_db=35, seed=4)
    answer = await _run(made.samples, task="sustained_vowel", speech=False)
    assert answer.jitter_percent == pytest.approx(100 * made.jitter, rel=0.25)
    assert answer.shimmer_percent is not None
    assert answer.voice_quality_reason is None
    assert answer.sustained_vowel is not None
    assert answer.sustained_vowel.cycles > 250
    assert answer.reliable


async def test_running_speech_has_no_jitter_but_a_reason() -> None:
    """Trap: there it would be intonation. Rates and rhythm are given instead."""
    answer = await _run(syllables(16, 4.0))
    assert answer.jitter_percent is None
    assert answer.shimmer_percent is None
    assert "running speech" in (answer.voice_quality_reason or "")
    assert answer.articulation_rate_syl_s == pytest.approx(4, rel=0.12)
    assert answer.npvi_v is not None
    assert 20 < (answer.percent_v or 0) < 100
    assert answer.rhythm_reason is None


async def test_a_telephones_band_has_no_jitter() -> None:
    """8 kHz: pitch is given, voice quality is not."""
    samples = vowel(140.0, 2.0, noise_db=30).samples
    answer = await _run(samples, media=Telephone(samples), task="sustained_vowel")
    assert answer.f0_median_hz == pytest.approx(140, rel=0.01)
    assert answer.jitter_percent is None
    assert "telephone" in (answer.voice_quality_reason or "")
    assert answer.signal.narrow_band


@pytest.mark.parametrize(
    ("samples", "speech", "why"),
    [
        (chord(3.0), False, "music"),
        (whisper(3.0), True, "whispered"),
        (syllables(12, 4.0) + syllables(12, 4.0, f0_hz=205, seed=1), True, "several people"),
        (np.clip(10 * syllables(12, 4.0), -1, 1), True, "clipped"),
        (np.zeros(2 * RATE_HZ, np.float32), False, "silence"),
        (syllables(30, 4.0)[::3], True, "sampling rate"),
    ],
    ids=["music", "whisper", "two people", "clipping", "silence", "thrice the rate"],
)
async def test_what_spoils_the_measures_is_told(samples: Floats, speech: bool, why: str) -> None:
    """Marked unreliable, with the reason, and less confident."""
    answer = await _run(np.ascontiguousarray(samples), speech=speech)
    assert not answer.reliable
    assert any(why in warning for warning in answer.warnings), answer.warnings
    assert answer.confidence <= 0.5


async def test_silence_and_whisper_have_no_pitch() -> None:
    """Null, not 0; no phrase ends either."""
    for samples in (np.zeros(2 * RATE_HZ, np.float32), whisper(3.0)):
        answer = await _run(samples)
        assert (answer.f0_median_hz, answer.range_st, answer.hnr_db, answer.npvi_v) == (None, None, None, None)
        assert answer.speech_rate_syl_s is None
        assert all(phrase.final is None for phrase in answer.phrases)
        assert answer.confidence == 0


async def test_a_vowel_that_was_asked_for_and_not_held_is_told() -> None:
    """Syllables instead."""
    answer = await _run(syllables(12, 4.0), task="sustained_vowel")
    assert any("no steady vowel" in warning for warning in answer.warnings)


async def test_too_short_and_too_long_recordings_are_refused() -> None:
    """0.1 s; more than a quarter of an hour."""
    with pytest.raises(MediaTooShort):
        await _run(np.zeros(RATE_HZ // 10, np.float32))
    with pytest.raises(TooLarge):
        await _run(np.zeros(901 * RATE_HZ, np.float32))


async def test_without_a_detector_it_says_so() -> None:
    """The role has no model."""
    ctx = make_context(models={})
    with pytest.raises(ModelUnavailable):
        await ProsodyEngine(probe=ctx).run(ProsodyEngine.example, ctx)
    assert (await ProsodyEngine(probe=ctx).health()).status == "unavailable"


async def test_progress_ends_at_one() -> None:
    """For those who wait."""
    progress = RecordedProgress()
    media = FakeMedia(vowel(140.0, 1.0).samples)
    ctx = make_context(media=media, models={"voice_activity": Voices()}, progress=progress)
    await ProsodyEngine(probe=ctx).run(Input(audio=AUDIO), ctx)
    assert progress.reports[-1] == ("prosody", 1.0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"audio": {}},
        {"audio": {"blob": "x"}, "f0_floor_hz": float("nan")},
        {"audio": {"blob": "x"}, "f0_floor_hz": -1},
        {"audio": {"blob": "x"}, "f0_floor_hz": 200, "f0_ceiling_hz": 300},
        {"audio": {"blob": "x"}, "f0_ceiling_hz": float("inf")},
        {"audio": {"blob": "x"}, "contour_points": 1_000_000},
        {"audio": {"blob": "x"}, "task": "singing"},
        {"audio": {"blob": "x"}, "child": 4},
        {},
    ],
)
def test_input_that_breaks_the_contract_is_refused(wrong: dict[str, Any]) -> None:
    """Missing, wrong type, out of range, not a number, unknown."""
    with pytest.raises(ValidationError):
        Input.model_validate(wrong)
