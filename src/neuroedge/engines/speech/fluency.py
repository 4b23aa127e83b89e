"""Fluency: rates, pauses, and disfluencies heard in the sound of a recording.

Method: syllable nuclei (de Jong & Wempe 2009, with a vowels' band as in its third version), pauses over 250 ms,
repetitions by local self-similarity of the spectral envelope, prolongations and filled pauses by its steadiness (after
Goto et al. 1999), blocks as silences inside recognised words; %SS counts stuttering-like disfluencies (Ambrose & Yairi
1999) per 100 syllables. Own code on numpy and scipy (docs/engines/fluency.md: data, figures); Silero VAD v6 (MIT).
Limits: observations for a professional, never a diagnosis. Disfluencies are normal, in children between 2 and 6 most of
all; dialect, a second language and reading aloud change all of it. Recognisers such as Whisper leave out hesitations
and repetitions, so words only add what they hold; blocks cannot be told from pauses without words. Detection was
measured on sounds spliced into real speech: that proves the code, not its validity for people who stutter.
"""

import asyncio
import base64
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from neuroedge.contract.engine import Engine, EngineContext, EngineInput, EngineOutput
from neuroedge.contract.errors import MediaTooShort, TooLarge
from neuroedge.contract.models import VOICE_ACTIVITY, Span
from neuroedge.contract.ports import Audio, AudioSource
from neuroedge.engines.speech.prosody import Signal
from neuroedge.kit.disfluency import Disfluency, Word, disfluencies, fillers
from neuroedge.kit.pitch import track
from neuroedge.kit.syllables import Talk, talk
from neuroedge.kit.tone import tone_wav
from neuroedge.kit.voice_signal import voice_signal

MIN_DURATION_S = 0.25
MAX_DURATION_S = 900.0
MIN_SYLLABLES = 5
MIN_SS_SYLLABLES = 100
"""Samples of fewer syllables are too short for %SS (G. Riley 2009, SSI-4, asks for 150 to 500)."""
USUAL_RATE_SYL_S = (2.0, 8.5)
WHISPER_NOTE = "the recogniser leaves out most hesitations, repetitions and blocks; those found are heard in the sound"


class SpokenWord(BaseModel):
    """A recognised word with its times."""

    model_config = ConfigDict(extra="ignore")

    w: str = Field(max_length=200, description="The word.")
    start_s: float = Field(ge=0, allow_inf_nan=False, description="Start, in seconds.")
    end_s: float = Field(ge=0, allow_inf_nan=False, description="End, in seconds.")

    @model_validator(mode="after")
    def _in_order(self) -> "SpokenWord":
        if self.end_s < self.start_s:
            raise ValueError("'end_s' must not be before 'start_s'")
        return self


class Input(EngineInput):
    """A recording of one person talking or reading."""

    audio: AudioSource = Field(description="The recording, of one voice; at most 15 minutes.")
    words: list[SpokenWord] | None = Field(
        default=None, max_length=5000, description="Words with times, as the engine transcription gives them, if known."
    )
    transcribe: bool = Field(
        default=False, description="Let the engine transcription give the words when none are given."
    )
    language: str | None = Field(
        default=None, pattern="^([a-z]{2,3}|auto)$", description="Language spoken, as ISO 639-1 code, if known."
    )


class Pause(BaseModel):
    """A silence of more than 250 ms."""

    start_s: float = Field(description="Start, in seconds.")
    end_s: float = Field(description="End, in seconds.")


class Found(BaseModel):
    """A disfluency."""

    start_s: float = Field(description="Start, in seconds.")
    end_s: float = Field(description="End, in seconds.")
    text: str | None = Field(description="The word, where words tell.")
    source: Literal["sound", "words"] = Field(description="Whether it was heard in the sound or read in the words.")


class Repetition(Found):
    """A stretch that comes again at once."""

    times: int = Field(description="How often it came again.")
    unit: Literal["sound_or_syllable", "longer"] = Field(description="Up to one syllable, or more: a phrase.")


class Output(EngineOutput):
    """How fluent it was; null where there is too little to tell."""

    duration_s: float = Field(description="Length of the recording, in seconds.")
    speaking_s: float = Field(description="From the first sound to the last, in seconds.")
    phonation_s: float = Field(description="The same without pauses, in seconds.")
    syllables: int = Field(description="Syllable nuclei found: what all rates rest on.")
    speech_rate_syl_s: float | None = Field(description="Syllables a second, pauses included; null under 5 syllables.")
    articulation_rate_syl_s: float | None = Field(description="Syllables a second without pauses; null under 5.")
    mean_length_of_run: float | None = Field(description="Mean number of syllables between pauses; null without any.")
    pauses: list[Pause] = Field(description="Silences of more than 250 ms between sounds, in order.")
    pause_percent: float | None = Field(description="Share of the speaking time that is pause, in percent.")
    filled_pauses: list[Found] = Field(description="Fillers such as 'um': level, steady, next to silence.")
    repetitions: list[Repetition] = Field(description="Repeated sounds, syllables, words and phrases.")
    prolongations: list[Found] = Field(description="Sounds held much longer than syllables last.")
    blocks: list[Found] | None = Field(description="Silences inside a word; null without words, nobody can tell then.")
    ss_count: int = Field(
        description="Stuttering-like disfluencies: repetitions up to a syllable, prolongations, blocks."
    )
    ss_percent: float | None = Field(description="The same per 100 syllables meant; null under 5 syllables.")
    signal: Signal = Field(description="How good the recording is for this.")
    reliable: bool = Field(description="Whether nothing was found that spoils the measures.")
    warnings: list[str] = Field(description="What spoils them.")
    notes: list[str] = Field(description="What limits them in any case.")


class FluencyEngine(Engine[Input, Output]):
    """Measures how fluently somebody spoke."""

    name = "fluency"
    title = "Speech rate, pauses and disfluencies"
    method = "syllable-nuclei+self-similarity"
    example = Input(audio=AudioSource(base64=base64.b64encode(tone_wav(seconds=1.5, hz=220.0)).decode()))
    needs = (VOICE_ACTIVITY,)
    timeout_s = 900.0

    async def run(self, payload: Input, ctx: EngineContext) -> Output:
        """Measure one recording. Raises MediaTooShort under 0.25 s, TooLarge over 15 minutes, what decoding raises,
        and what transcription raises where it is asked for."""
        audio = await ctx.media.audio(payload.audio)
        if audio.duration_s < MIN_DURATION_S:
            raise MediaTooShort(
                f"{audio.duration_s:.2f} s of audio; at least {MIN_DURATION_S} s are needed", hint="record longer"
            )
        if audio.duration_s > MAX_DURATION_S:
            raise TooLarge(f"the recording is longer than {MAX_DURATION_S:g} s", hint="send the part that matters")
        words, models = await _words(payload, ctx)
        async with ctx.models.lease(VOICE_ACTIVITY) as model:
            speech = await model.speech(audio.samples)
            models = [model.model_id, *models]
        await ctx.progress(self.name, 0.3)
        answer = await asyncio.to_thread(_measure, audio, speech, words, payload.language, models, self.method)
        await ctx.progress(self.name, 1.0)
        return answer


async def _words(payload: Input, ctx: EngineContext) -> tuple[list[Word] | None, list[str]]:
    """Words given or recognised, with the recogniser's models."""
    if payload.words is not None:
        return [Word(w=w.w, start_s=w.start_s, end_s=w.end_s) for w in payload.words], []
    if not payload.transcribe:
        return None, []
    ask = _Transcription(audio=payload.audio, language=payload.language)
    heard: dict[str, Any] = (await ctx.call("transcription", ask)).model_dump()
    spoken = [w for segment in heard["segments"] for w in segment["words"]]
    return [Word(w=w["w"], start_s=w["start_s"], end_s=w["end_s"]) for w in spoken], list(heard["models"])


class _Transcription(BaseModel):
    """What the engine transcription is asked."""

    audio: AudioSource
    language: str | None


def _measure(
    audio: Audio, speech: list[Span], words: list[Word] | None, language: str | None, models: list[str], method: str
) -> Output:
    samples = audio.samples
    voice = track(samples)
    spoken = talk(samples, voice)
    found = disfluencies(samples, voice, spoken, words)
    found += fillers(words, language, found) if words is not None else []
    signal = voice_signal(samples, source_rate_hz=audio.source_rate_hz, voice=voice, talk=spoken, speech=speech)
    rates = _rates(spoken)
    counted = sum(d.times for d in found if d.is_stuttering_like)
    meant = len(spoken.nuclei_s) - sum(d.times * d.syllables for d in found if d.kind == "repetition")
    enough = len(spoken.nuclei_s) >= MIN_SYLLABLES and meant > 0
    warnings = [*signal.warnings, *_implausible(rates["articulation_rate_syl_s"])]
    return Output(
        method=method,
        models=models,
        duration_s=round(audio.duration_s, 3),
        **rates,
        pauses=[Pause(start_s=round(p.start_s, 3), end_s=round(p.end_s, 3)) for p in spoken.pauses],
        filled_pauses=[_found(d) for d in found if d.kind == "filled_pause"],
        repetitions=[_repetition(d) for d in found if d.kind == "repetition"],
        prolongations=[_found(d) for d in found if d.kind == "prolongation"],
        blocks=None if words is None else [_found(d) for d in found if d.kind == "block"],
        ss_count=counted,
        ss_percent=round(100 * counted / meant, 2) if enough else None,
        signal=Signal.of(signal, source_rate_hz=audio.source_rate_hz),
        reliable=not warnings,
        warnings=warnings,
        notes=_notes(len(spoken.nuclei_s), words),
    )


def _rates(spoken: Talk) -> dict[str, Any]:
    enough = len(spoken.nuclei_s) >= MIN_SYLLABLES
    lengths = spoken.run_lengths()
    return {
        "speaking_s": round(spoken.span_s, 3),
        "phonation_s": round(spoken.phonation_s, 3),
        "syllables": len(spoken.nuclei_s),
        "speech_rate_syl_s": _rounded(spoken.speech_rate_syl_s) if enough else None,
        "articulation_rate_syl_s": _rounded(spoken.articulation_rate_syl_s) if enough else None,
        "mean_length_of_run": _rounded(float(np.mean(lengths))) if lengths else None,
        "pause_percent": _rounded(100 * (1 - spoken.phonation_s / spoken.span_s)) if spoken.span_s > 0 else None,
    }


def _implausible(rate_syl_s: float | None) -> list[str]:
    low, high = USUAL_RATE_SYL_S
    if rate_syl_s is None or low <= rate_syl_s <= high:
        return []
    return [f"{rate_syl_s:.1f} syllables a second is hardly speech: is the sampling rate right?"]


def _notes(syllables: int, words: list[Word] | None) -> list[str]:
    notes = ["observations for a professional, not a diagnosis"]
    if syllables < MIN_SS_SYLLABLES:
        notes.append(f"{syllables} syllables: ss_percent of fewer than {MIN_SS_SYLLABLES} varies much by chance")
    notes.append(WHISPER_NOTE if words is not None else "without words, blocks and text are not told")
    return notes


def _found(one: Disfluency) -> Found:
    return Found(**_times(one))


def _repetition(one: Disfluency) -> Repetition:
    unit: Literal["sound_or_syllable", "longer"] = "sound_or_syllable" if one.syllables <= 1 else "longer"
    return Repetition(**_times(one), times=one.times, unit=unit)


def _times(one: Disfluency) -> dict[str, Any]:
    return {"start_s": round(one.start_s, 3), "end_s": round(one.end_s, 3), "text": one.text, "source": one.source}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
