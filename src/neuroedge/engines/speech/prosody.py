"""Prosody: pitch, loudness, voice quality, rhythm and the ends of phrases of a recording.

Method: F0 and harmonics-to-noise ratio by autocorrelation (Boersma 1993, as Praat's "ac" commands compute them); jitter
and shimmer (local) from periods by cross-correlation, on sustained vowels only; nPVI-V (Grabe & Low 2002) and %V (Ramus
et al. 1999) from vocalic intervals estimated from the sound; syllables by de Jong & Wempe (2009). Own code, compared
with Praat (docs/engines/prosody.md: data, figures). Speech is told from other sounds by Silero VAD v6 (MIT).
Limits: observations for a professional, never a diagnosis, and no threshold of pathology: jitter, shimmer and HNR move
with the microphone, the room, loudness and the vowel. Levels are relative to full scale, not sound pressure. One voice
at a time. What proves the code on synthetic voices says nothing of its validity for a person.
"""

import asyncio
import base64
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, Field, model_validator

from neuroedge.contract.engine import Engine, EngineContext, EngineInput, EngineOutput
from neuroedge.contract.errors import MediaTooShort, TooLarge
from neuroedge.contract.models import VOICE_ACTIVITY, Span
from neuroedge.contract.ports import Audio, AudioSource
from neuroedge.kit import intonation, rhythm
from neuroedge.kit.envelope import at_frames, envelope_db
from neuroedge.kit.perturbation import MIN_SUSTAINED_S, jitter_local, pulses, shimmer_local, sustained_vowel
from neuroedge.kit.pitch import F0_CEILING_HZ, F0_FLOOR_HZ, HOP_S, Doubles, Track, harmonicity_db, track
from neuroedge.kit.syllables import MIN_PAUSE_S, Talk, joined, talk
from neuroedge.kit.tone import tone_wav
from neuroedge.kit.voice_signal import VoiceSignal, voice_signal
from neuroedge.kit.waveform import Floats

MIN_DURATION_S = 0.25
MAX_DURATION_S = 900.0
MIN_VOICED_S = 0.2
MIN_SYLLABLES = 5
USUAL_RATE_SYL_S = (2.0, 8.5)
"""Articulation outside of this is hardly human: more likely the sampling rate is wrong."""
USUAL_F0_HZ = (76.0, 500.0)
"""Median pitch of people, children included, at most; beyond, the same."""
_CONFIDENT_VOICED_S = 3.0
_CONFIDENT_SNR_DB = 25.0


class Input(EngineInput):
    """A recording of one voice."""

    audio: AudioSource = Field(description="The recording, of one voice; at most 15 minutes.")
    task: Literal["speech", "sustained_vowel"] = Field(
        default="speech", description="What was asked of the speaker: to talk or read, or to hold one vowel."
    )
    f0_floor_hz: float = Field(
        default=F0_FLOOR_HZ, ge=40, le=300, allow_inf_nan=False, description="Lowest pitch looked for, in Hz."
    )
    f0_ceiling_hz: float = Field(
        default=F0_CEILING_HZ, ge=150, le=1200, allow_inf_nan=False, description="Highest pitch looked for, in Hz."
    )
    contour_points: int = Field(default=100, ge=0, le=2000, description="Points of the contour; 0: none.")

    @model_validator(mode="after")
    def _range_has_an_octave(self) -> "Input":
        if self.f0_ceiling_hz < 2 * self.f0_floor_hz:
            raise ValueError("'f0_ceiling_hz' must be at least twice 'f0_floor_hz'")
        return self


class ContourPoint(BaseModel):
    """A stretch of the contour."""

    t_s: float = Field(description="Its middle, in seconds.")
    f0_hz: float | None = Field(description="Median pitch in Hz; null where most of it has none.")
    level_db: float = Field(description="Mean level in dB of full scale.")


class Phrase(BaseModel):
    """A stretch of speech between pauses of more than 250 ms."""

    start_s: float = Field(description="Start, in seconds.")
    end_s: float = Field(description="End, in seconds.")
    f0_median_hz: float | None = Field(description="Median pitch in Hz; null without voice.")
    final_movement_st: float | None = Field(description="Semitones pitch moves over its last 0.3 s of voice.")
    final: intonation.Final | None = Field(description="rise or fall from 2 semitones on, else level; null unknown.")


class SustainedVowel(BaseModel):
    """The stretch jitter and shimmer are measured on."""

    start_s: float = Field(description="Start, in seconds.")
    end_s: float = Field(description="End, in seconds.")
    cycles: int = Field(description="Periods of the voice in it.")


class Signal(BaseModel):
    """How good the recording is for this."""

    source_rate_hz: int = Field(description="Sampling rate of the file, in Hz.")
    snr_db: float | None = Field(description="Sound over background in dB; null when there is too little of either.")
    clipping_percent: float = Field(description="Share of samples in plateaus at full scale, in percent.")
    narrow_band: bool = Field(description="Whether next to nothing lies above 4 kHz, as after a telephone.")
    speech_percent: float = Field(description="Share of the sounding time that is recognised as speech.")
    voiced_percent: float = Field(description="Share of the sounding time that is voiced.")
    second_voice_percent: float = Field(description="Share of the voiced time in which a second pitch sounds too.")

    @classmethod
    def of(cls, found: VoiceSignal, *, source_rate_hz: int) -> "Signal":
        """For the answer."""
        return cls(
            source_rate_hz=source_rate_hz,
            snr_db=None if found.snr_db is None else round(found.snr_db, 1),
            clipping_percent=round(found.clipping_percent, 4),
            narrow_band=found.narrow_band,
            speech_percent=round(100 * found.speech_share, 1),
            voiced_percent=round(100 * found.voiced_share, 1),
            second_voice_percent=round(100 * found.second_voice_share, 1),
        )


class Output(EngineOutput):
    """Measures of the voice; null where there is too little to measure, or nothing it could mean."""

    duration_s: float = Field(description="Length of the recording, in seconds.")
    voiced_s: float = Field(description="Seconds with a voice: what the pitch measures rest on.")
    f0_median_hz: float | None = Field(description="Median pitch in Hz; null under 0.2 s of voice.")
    f0_p5_hz: float | None = Field(description="5th percentile of pitch in Hz.")
    f0_p95_hz: float | None = Field(description="95th percentile of pitch in Hz.")
    range_st: float | None = Field(description="Semitones between the two percentiles.")
    contour: list[ContourPoint] = Field(description="Pitch and level over time, thinned.")
    intensity_db: float | None = Field(description="Mean level of the sounding time in dB of full scale.")
    intensity_range_db: float | None = Field(description="5th to 95th percentile of level over it, in dB.")
    hnr_db: float | None = Field(description="Mean harmonics-to-noise ratio of the voiced frames in dB, at most 60.")
    jitter_percent: float | None = Field(description="Jitter (local) of the sustained vowel, in percent.")
    shimmer_percent: float | None = Field(description="Shimmer (local) of the sustained vowel, in percent.")
    voice_quality_reason: str | None = Field(description="Why there is no jitter and shimmer.")
    sustained_vowel: SustainedVowel | None = Field(description="What they were measured on.")
    syllables: int = Field(description="Syllable nuclei found: what rate and rhythm rest on.")
    speech_rate_syl_s: float | None = Field(description="Syllables a second, pauses included; null under 5.")
    articulation_rate_syl_s: float | None = Field(description="Syllables a second without pauses; null under 5.")
    npvi_v: float | None = Field(description="Variability of consecutive vowels (nPVI); a weak estimate, see the docs.")
    percent_v: float | None = Field(description="Share of phonation that is vocalic, in percent; an estimate.")
    rhythm_reason: str | None = Field(description="Why there is no rhythm.")
    phrases: list[Phrase] = Field(description="Stretches between pauses, in order.")
    confidence: float = Field(description="0..1 from the amount of voice and the noise; uncalibrated.")
    signal: Signal = Field(description="How good the recording is for this.")
    reliable: bool = Field(description="Whether nothing was found that spoils the measures.")
    warnings: list[str] = Field(description="What spoils them.")


class ProsodyEngine(Engine[Input, Output]):
    """Measures how something was said."""

    name = "prosody"
    title = "Pitch, loudness, voice quality and rhythm of speech"
    method = "boersma-1993-autocorrelation"
    example = Input(
        audio=AudioSource(base64=base64.b64encode(tone_wav(seconds=1.5, hz=220.0)).decode()), contour_points=8
    )
    needs = (VOICE_ACTIVITY,)
    timeout_s = 300.0

    async def run(self, payload: Input, ctx: EngineContext) -> Output:
        """Measure one recording. Raises MediaTooShort under 0.25 s, TooLarge over 15 minutes, what decoding raises."""
        audio = await ctx.media.audio(payload.audio)
        if audio.duration_s < MIN_DURATION_S:
            raise MediaTooShort(
                f"{audio.duration_s:.2f} s of audio; at least {MIN_DURATION_S} s are needed", hint="record longer"
            )
        if audio.duration_s > MAX_DURATION_S:
            raise TooLarge(f"the recording is longer than {MAX_DURATION_S:g} s", hint="send the part that matters")
        async with ctx.models.lease(VOICE_ACTIVITY) as model:
            speech = await model.speech(audio.samples)
            answered_by = model.model_id
        await ctx.progress(self.name, 0.1)
        answer = await asyncio.to_thread(_measure, audio, speech, payload, answered_by, self.method)
        await ctx.progress(self.name, 1.0)
        return answer


def _measure(audio: Audio, speech: list[Span], payload: Input, model_id: str, method: str) -> Output:
    samples = audio.samples
    voice = track(samples, floor_hz=payload.f0_floor_hz, ceiling_hz=payload.f0_ceiling_hz)
    spoken = talk(samples, voice)
    vowel = sustained_vowel(voice, at_frames(envelope_db(samples), voice))
    asked = payload.task == "sustained_vowel"
    found = voice_signal(
        samples, source_rate_hz=audio.source_rate_hz, voice=voice, talk=spoken, speech=speech, vowel=asked
    )
    pitch = _pitch(voice)
    held = _held(samples, voice, vowel, narrow_band=found.narrow_band)
    tempo = _tempo(samples, voice, spoken)
    warnings = [*found.warnings, *_implausible(pitch["f0_median_hz"], tempo["articulation_rate_syl_s"], asked=asked)]
    if asked and vowel is None:
        warnings.append(f"no steady vowel of {MIN_SUSTAINED_S:g} s was found")
    return Output(
        method=method,
        models=[model_id],
        duration_s=round(audio.duration_s, 3),
        contour=[
            ContourPoint(t_s=round(p.time_s, 3), f0_hz=_rounded(p.f0_hz), level_db=round(p.level_db, 2))
            for p in intonation.contour(voice, payload.contour_points)
        ],
        hnr_db=_hnr(samples, voice, payload),
        **pitch,
        **_level(voice, spoken),
        **held,
        **tempo,
        phrases=_phrases(voice, spoken),
        confidence=_confidence(pitch["voiced_s"], found.snr_db, spoilt_by=len(warnings)),
        signal=Signal.of(found, source_rate_hz=audio.source_rate_hz),
        reliable=not warnings,
        warnings=warnings,
    )


def _pitch(voice: Track) -> dict[str, Any]:
    """Percentiles of F0 and the range between them."""
    f0_hz = voice.f0_hz[np.isfinite(voice.f0_hz)]
    voiced_s = len(f0_hz) * HOP_S
    if voiced_s < MIN_VOICED_S:
        none = dict.fromkeys(("f0_median_hz", "f0_p5_hz", "f0_p95_hz", "range_st"))
        return {"voiced_s": round(voiced_s, 2), **none}
    low, middle, high = (float(v) for v in np.percentile(f0_hz, [5, 50, 95]))
    return {
        "voiced_s": round(voiced_s, 2),
        "f0_median_hz": round(middle, 2),
        "f0_p5_hz": round(low, 2),
        "f0_p95_hz": round(high, 2),
        "range_st": round(12 * float(np.log2(high / low)), 2),
    }


def _hnr(samples: Floats, voice: Track, payload: Input) -> float | None:
    time_s, hnr_db = harmonicity_db(samples, floor_hz=payload.f0_floor_hz, ceiling_hz=payload.f0_ceiling_hz)
    voiced = np.array([np.isfinite(voice.at(float(t))) for t in time_s], bool)
    told: Doubles = hnr_db[voiced & np.isfinite(hnr_db)]
    return round(float(told.mean()), 2) if len(told) * HOP_S >= MIN_VOICED_S else None


def _level(voice: Track, spoken: Talk) -> dict[str, Any]:
    """Level of the sounding time."""
    parts = [voice.between(s.start_s, s.end_s).level_db for s in spoken.speech]
    level_db = np.concatenate(parts) if parts else np.zeros(0)
    if not len(level_db):
        return {"intensity_db": None, "intensity_range_db": None}
    low, high = np.percentile(level_db, [5, 95])
    mean = 10 * np.log10(np.mean(10 ** (level_db / 10)))
    return {"intensity_db": round(float(mean), 2), "intensity_range_db": round(float(high - low), 2)}


def _held(samples: Floats, voice: Track, vowel: Span | None, *, narrow_band: bool) -> dict[str, Any]:
    """Jitter and shimmer of the sustained vowel, or the reason for none."""
    none = {"jitter_percent": None, "shimmer_percent": None, "sustained_vowel": None}
    if vowel is None:
        return {
            **none,
            "voice_quality_reason": f"no steady vowel of {MIN_SUSTAINED_S:g} s: meaningless in running speech",
        }
    if narrow_band:
        return {**none, "voice_quality_reason": "a telephone's band: periods are too coarse"}
    points = pulses(samples, voice)
    points = points[(points >= vowel.start_s) & (points <= vowel.end_s)]
    jitter, shimmer = jitter_local(points), shimmer_local(samples, points)
    if jitter is None or shimmer is None:
        return {**none, "voice_quality_reason": "no regular periods in the vowel"}
    return {
        "jitter_percent": round(100 * jitter, 3),
        "shimmer_percent": round(100 * shimmer, 3),
        "voice_quality_reason": None,
        "sustained_vowel": SustainedVowel(
            start_s=round(vowel.start_s, 3), end_s=round(vowel.end_s, 3), cycles=max(0, len(points) - 1)
        ),
    }


def _tempo(samples: Floats, voice: Track, spoken: Talk) -> dict[str, Any]:
    """Rates and rhythm, or the reason for none."""
    count = len(spoken.nuclei_s)
    enough = count >= MIN_SYLLABLES
    vowels = rhythm.vocalic_intervals(samples, voice, spoken)
    rhythmic = len(vowels) >= rhythm.MIN_VOWELS
    return {
        "syllables": count,
        "speech_rate_syl_s": _rounded(spoken.speech_rate_syl_s) if enough else None,
        "articulation_rate_syl_s": _rounded(spoken.articulation_rate_syl_s) if enough else None,
        "npvi_v": _rounded(rhythm.npvi_within(rhythm.in_phrases(vowels, spoken.pauses))) if rhythmic else None,
        "percent_v": _rounded(rhythm.percent_v(vowels, spoken.phonation_s)) if rhythmic else None,
        "rhythm_reason": None if rhythmic else f"{len(vowels)} vowels, at least {rhythm.MIN_VOWELS} are needed",
    }


def _phrases(voice: Track, spoken: Talk) -> list[Phrase]:
    found = []
    for phrase in joined(spoken.speech, gap_s=MIN_PAUSE_S):
        f0_hz = voice.between(phrase.start_s, phrase.end_s).f0_hz
        voiced = f0_hz[np.isfinite(f0_hz)]
        movement_st = intonation.final_movement_st(voice, phrase)
        found.append(
            Phrase(
                start_s=round(phrase.start_s, 3),
                end_s=round(phrase.end_s, 3),
                f0_median_hz=_rounded(float(np.median(voiced))) if len(voiced) else None,
                final_movement_st=_rounded(movement_st),
                final=intonation.final(movement_st),
            )
        )
    return found


def _implausible(f0_hz: float | None, rate_syl_s: float | None, *, asked: bool) -> list[str]:
    """What hardly a human voice does: a sign of a wrong sampling rate."""
    told = []
    if f0_hz is not None and not USUAL_F0_HZ[0] <= f0_hz <= USUAL_F0_HZ[1]:
        told.append(f"a median pitch of {f0_hz:.0f} Hz is rare: is the sampling rate right?")
    if rate_syl_s is not None and not asked and not USUAL_RATE_SYL_S[0] <= rate_syl_s <= USUAL_RATE_SYL_S[1]:
        told.append(f"{rate_syl_s:.1f} syllables a second is hardly speech: is the sampling rate right?")
    return told


def _confidence(voiced_s: float, snr_db: float | None, *, spoilt_by: int) -> float:
    """Grows with the voice there is up to 3 s and with SNR up to 25 dB; halved by each thing that spoils."""
    noise = 1.0 if snr_db is None else min(1.0, max(0.1, snr_db / _CONFIDENT_SNR_DB))
    return round(min(1.0, voiced_s / _CONFIDENT_VOICED_S) * noise * 0.5**spoilt_by, 3)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
