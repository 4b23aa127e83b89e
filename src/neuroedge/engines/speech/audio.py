"""Audio: what a recording is and how good it is, before anything is made of it; and a cleaner copy of it on demand.

Method: loudness by ITU-R BS.1770-4 (pyloudnorm), speech by Silero VAD v6 (MIT), SNR from the power inside and outside
speech, clipping from plateaus at full scale, silence from the level of each 10 ms. These are measured on the 16 kHz
mono mix: sound above 8 kHz and clipping of one channel of several are not seen, unless `channels` asks for each.
`process` gives the sound back: one channel or each, at another rate (soxr), with less noise (FFmpeg's afftdn, after
Ephraim & Malah 1984, against the level measured outside speech).
Limits: only stationary noise is reduced; a higher SNR does not mean that words are easier to recognise.
"""

import asyncio
import base64
import io
import wave
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from neuroedge.contract.engine import Engine, EngineContext, EngineInput, EngineOutput
from neuroedge.contract.errors import InvalidInput, MediaTooShort
from neuroedge.contract.models import SAMPLE_RATE_HZ, VOICE_ACTIVITY, Floats, Span
from neuroedge.contract.ports import Audio, AudioSource, Channels
from neuroedge.kit.loudness import loudness_lufs
from neuroedge.kit.pitch import track
from neuroedge.kit.signal import (
    background_dbfs,
    clipped_fraction,
    peak_dbfs,
    rms_dbfs,
    silences,
    snr_db,
    waveform_peaks,
)
from neuroedge.kit.tone import tone_wav

MIN_DURATION_S = 0.25
MAX_PROCESSED_S = 600.0
MAX_CHANNELS = 8
MAX_OUTPUT_BYTES = 64 << 20
LOW_SNR_DB = 10.0
CLIPPED_PERCENT = 0.1
TELEPHONE_HZ = 8_000
LEAST_VOICED = 0.1
LOWEST_HZ, HIGHEST_HZ = 65.0, 350.0
"""Median pitch of grown men to children of school age (Baken & Orlikoff 2000)."""
FLOOR_HZ = 50.0
LISTENED_S = 20.0


class Processing(BaseModel):
    """What to make of the sound; it comes back as WAV (PCM16)."""

    model_config = ConfigDict(extra="forbid")

    channel: Literal["mix", "each"] | int = Field(
        default="mix",
        description="mix: all channels as one; each: a file for each; a number from 0: that channel alone.",
    )
    denoise_db: float | None = Field(
        default=None, ge=1, le=40, allow_inf_nan=False, description="Reduce stationary noise by at most so many dB."
    )
    rate_hz: int | None = Field(
        default=None, ge=8_000, le=48_000, description="Sampling rate of the result in Hz; the file's own if null."
    )


class Input(EngineInput):
    """A recording, and what is wanted of it."""

    audio: AudioSource = Field(description="The recording.")
    peaks: int = Field(default=0, ge=0, le=2000, description="How many waveform peaks to return for drawing; 0: none.")
    silence_below_dbfs: float = Field(
        default=-50.0, ge=-90, le=-10, allow_inf_nan=False, description="Softer than this counts as silence, in dB."
    )
    silence_at_least_s: float = Field(
        default=0.5, ge=0.05, le=60, allow_inf_nan=False, description="Shorter silences are not listed, in seconds."
    )
    channels: bool = Field(
        default=False, description="Whether to measure each channel by itself too; up to 600 s and 8 channels."
    )
    process: Processing | None = Field(
        default=None, description="Give the sound back, changed; up to 600 s and 64 MiB. Null: only measure."
    )


class SpeechSpan(BaseModel):
    """A stretch in which somebody speaks."""

    start_s: float = Field(description="Start, in seconds.")
    end_s: float = Field(description="End, in seconds.")


class Silence(BaseModel):
    """A stretch in which there is next to no sound."""

    start_s: float = Field(description="Start, in seconds.")
    end_s: float = Field(description="End, in seconds.")


class ChannelMeasures(BaseModel):
    """One channel of the file, at the file's own rate."""

    channel: int = Field(description="Its number, from 0.")
    peak_dbfs: float | None = Field(description="Highest sample in dB of full scale; null for digital silence.")
    rms_dbfs: float | None = Field(description="Root mean square in dB of full scale; null for digital silence.")
    clipping_percent: float = Field(description="Share of samples in plateaus at full scale, in percent.")
    peaks: list[float] = Field(description="Highest absolute sample (0..1) of equal stretches, as many as asked for.")


class Processed(BaseModel):
    """The sound as it was asked for."""

    channel: int | None = Field(description="Its number in the file, from 0; null for the mix of all.")
    rate_hz: int = Field(description="Sampling rate, in Hz.")
    duration_s: float = Field(description="Length, in seconds.")
    snr_before_db: float | None = Field(description="Of this channel as it was; null when there is too little to tell.")
    snr_after_db: float | None = Field(description="Of the result, by the same stretches of speech.")
    bytes: int = Field(description="Size of the WAV file.")
    base64: str = Field(description="The WAV file (PCM16, mono).")


class Output(EngineOutput):
    """What the file is and how it sounds."""

    duration_s: float = Field(description="Length, in seconds.")
    source_rate_hz: int = Field(description="Sampling rate of the file, in Hz.")
    source_channels: int = Field(description="Channels of the file.")
    codec: str = Field(description="How the sound is encoded, e.g. pcm_s16le, mp3, opus.")
    container: str = Field(description="File format, e.g. wav, mp4, ogg.")
    loudness_lufs: float | None = Field(description="Integrated loudness in LUFS; null under 0.4 s or below -70 LUFS.")
    peak_dbfs: float | None = Field(description="Highest sample in dB of full scale; null for digital silence.")
    rms_dbfs: float | None = Field(description="Root mean square in dB of full scale; null for digital silence.")
    snr_db: float | None = Field(description="Speech over background in dB; null when there is too little of either.")
    clipping_percent: float = Field(description="Share of samples in plateaus at full scale, in percent.")
    speech: list[SpeechSpan] = Field(description="Where somebody speaks, in order, not overlapping.")
    speech_s: float = Field(description="Seconds of speech in all.")
    peaks: list[float] = Field(description="Highest absolute sample (0..1) of equal stretches, as many as asked for.")
    silences: list[Silence] = Field(default_factory=list, description="Where there is next to no sound, in order.")
    silence_s: float = Field(default=0.0, description="Seconds of those silences in all.")
    channels: list[ChannelMeasures] = Field(default_factory=list, description="Each channel, where asked for.")
    processed: list[Processed] = Field(default_factory=list, description="The changed sound, where asked for.")
    reliable: bool = Field(default=True, description="Whether what is made of the speech can be relied on.")
    warnings: list[str] = Field(default_factory=list, description="Why it cannot.")


class AudioEngine(Engine[Input, Output]):
    """Measures a recording, and gives it back cleaner."""

    name = "audio"
    title = "Audio quality, speech detection and noise reduction"
    method = "silero-vad-v6+bs1770-4"
    example = Input(audio=AudioSource(base64=base64.b64encode(tone_wav(seconds=0.5)).decode()), peaks=8)
    needs = (VOICE_ACTIVITY,)
    timeout_s = 3600.0

    async def run(self, payload: Input, ctx: EngineContext) -> Output:
        """Measure one recording, and change it where asked to. Raises MediaTooShort under 0.25 s, TooLarge over 600 s
        of processing, InvalidInput for a channel that is not there, and what decoding raises.
        """
        audio = await ctx.media.audio(payload.audio)
        if audio.duration_s < MIN_DURATION_S:
            raise MediaTooShort(
                f"{audio.duration_s:.2f} s of audio; at least {MIN_DURATION_S} s are needed", hint="record longer"
            )
        async with ctx.models.lease(VOICE_ACTIVITY) as model:
            speech = await model.speech(audio.samples)
            answered_by = model.model_id
        found = await asyncio.to_thread(self._measure, audio, speech, payload, answered_by)
        if payload.channels or payload.process is not None:
            sound = await ctx.sound.channels(payload.audio, max_duration_s=MAX_PROCESSED_S)
            if len(sound.samples) > MAX_CHANNELS:
                raise InvalidInput(f"the file has {len(sound.samples)} channels", hint=f"at most {MAX_CHANNELS}")
            if payload.channels:
                found.channels = await asyncio.to_thread(_by_channel, sound, payload.peaks)
            if payload.process is not None:
                found.processed = await _processed(sound, payload.process, speech, ctx)
        return found

    def _measure(self, audio: Audio, speech: list[Span], payload: Input, model_id: str) -> Output:
        samples = audio.samples
        quiet = silences(samples, below_dbfs=payload.silence_below_dbfs, at_least_s=payload.silence_at_least_s)
        ratio, clipping = _rounded(snr_db(samples, speech)), round(100 * clipped_fraction(samples), 4)
        warnings = _warnings(audio, speech, snr=ratio, clipping_percent=clipping)
        return Output(
            method=self.method,
            models=[model_id],
            duration_s=round(audio.duration_s, 3),
            source_rate_hz=audio.source_rate_hz,
            source_channels=audio.source_channels,
            codec=audio.codec,
            container=audio.container,
            loudness_lufs=_rounded(loudness_lufs(samples)),
            peak_dbfs=_rounded(peak_dbfs(samples)),
            rms_dbfs=_rounded(rms_dbfs(samples)),
            snr_db=ratio,
            clipping_percent=clipping,
            speech=[SpeechSpan(start_s=round(s.start_s, 3), end_s=round(s.end_s, 3)) for s in speech],
            speech_s=round(sum(s.end_s - s.start_s for s in speech), 3),
            peaks=waveform_peaks(samples, payload.peaks),
            silences=[Silence(start_s=round(s.start_s, 3), end_s=round(s.end_s, 3)) for s in quiet],
            silence_s=round(sum(s.end_s - s.start_s for s in quiet), 3),
            reliable=not warnings,
            warnings=warnings,
        )


def _warnings(audio: Audio, speech: list[Span], *, snr: float | None, clipping_percent: float) -> list[str]:
    """What makes answers about the speech in it doubtful."""
    found = []
    if not speech:
        found.append("nobody is heard to speak: silence, noise, music, or whispering, which has no voice")
    voiced, pitch_hz = _voice(audio.samples, speech)
    if voiced is not None and voiced < LEAST_VOICED:
        found.append(f"only {100 * voiced:.0f} % of the speech is voiced: whispering, or no speech at all")
    elif pitch_hz is not None and not LOWEST_HZ <= pitch_hz <= HIGHEST_HZ:
        found.append(f"a median pitch of {pitch_hz:.0f} Hz: a small child, or the file declares a wrong sampling rate")
    if snr is not None and snr < LOW_SNR_DB:
        found.append(f"the speech stands only {snr:.0f} dB above the background: music, noise or other people")
    if clipping_percent >= CLIPPED_PERCENT:
        found.append(f"{clipping_percent:.1f} % of the samples are clipped: it was recorded too loud")
    if audio.source_rate_hz < TELEPHONE_HZ:
        found.append(f"a rate of {audio.source_rate_hz} Hz is below a telephone's: speech loses its consonants")
    return found


def _voice(samples: Floats, speech: list[Span]) -> tuple[float | None, float | None]:
    """Share (0..1) of the first 20 s of speech that is voiced, and its median pitch in Hz; None for too little."""
    parts, left_s = [], LISTENED_S
    for span in speech:
        end_s = min(span.end_s, span.start_s + left_s)
        parts.append(samples[int(span.start_s * SAMPLE_RATE_HZ) : int(end_s * SAMPLE_RATE_HZ)])
        left_s -= end_s - span.start_s
        if left_s <= 0:
            break
    if left_s > LISTENED_S - 1:
        return None, None
    pitch_hz = track(np.concatenate(parts), floor_hz=FLOOR_HZ).f0_hz
    voiced = np.isfinite(pitch_hz)
    return float(voiced.mean()), float(np.median(pitch_hz[voiced])) if voiced.any() else None


def _by_channel(sound: Channels, peaks: int) -> list[ChannelMeasures]:
    return [
        ChannelMeasures(
            channel=number,
            peak_dbfs=_rounded(peak_dbfs(samples)),
            rms_dbfs=_rounded(rms_dbfs(samples)),
            clipping_percent=round(100 * clipped_fraction(samples), 4),
            peaks=waveform_peaks(samples, peaks),
        )
        for number, samples in enumerate(sound.samples)
    ]


async def _processed(sound: Channels, wanted: Processing, speech: list[Span], ctx: EngineContext) -> list[Processed]:
    """The channels asked for, cleaned before they are resampled."""
    numbers: list[int | None] = [None] if wanted.channel == "mix" else list(range(len(sound.samples)))
    if isinstance(wanted.channel, int):
        if not 0 <= wanted.channel < len(sound.samples):
            raise InvalidInput(
                f"the file has no channel {wanted.channel}", hint=f"0 to {len(sound.samples) - 1}, mix or each"
            )
        numbers = [wanted.channel]
    rate_hz = wanted.rate_hz or min(sound.rate_hz, 48_000)
    size = len(numbers) * 2 * rate_hz * sound.samples.shape[1] // sound.rate_hz
    if size > MAX_OUTPUT_BYTES:
        raise InvalidInput(
            f"the result would have {size >> 20} MiB", hint="ask for one channel, a lower rate_hz or a shorter file"
        )
    found = []
    for done, number in enumerate(numbers, 1):
        samples = sound.samples.mean(axis=0, keepdims=True) if number is None else sound.samples[number : number + 1]
        found.append(await _one(Channels(samples=samples, rate_hz=sound.rate_hz), number, wanted, speech, ctx))
        await ctx.progress("process", done / len(numbers))
    return found


async def _one(
    sound: Channels, number: int | None, wanted: Processing, speech: list[Span], ctx: EngineContext
) -> Processed:
    heard = (await ctx.sound.resampled(sound, rate_hz=SAMPLE_RATE_HZ)).samples[0]
    before = snr_db(heard, speech)
    after = before
    if wanted.denoise_db is not None:
        floor = background_dbfs(heard, speech)
        sound = await ctx.sound.denoised(sound, strength_db=wanted.denoise_db, floor_dbfs=floor)
        after = snr_db((await ctx.sound.resampled(sound, rate_hz=SAMPLE_RATE_HZ)).samples[0], speech)
    sound = await ctx.sound.resampled(sound, rate_hz=wanted.rate_hz or min(sound.rate_hz, 48_000))
    data = await asyncio.to_thread(_wav, sound.samples[0], sound.rate_hz)
    return Processed(
        channel=number,
        rate_hz=sound.rate_hz,
        duration_s=round(sound.samples.shape[1] / sound.rate_hz, 3),
        snr_before_db=_rounded(before),
        snr_after_db=_rounded(after),
        bytes=len(data),
        base64=base64.b64encode(data).decode(),
    )


def _wav(samples: Floats, rate_hz: int) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate_hz)
        out.writeframes(np.clip(np.rint(samples * 32_768.0), -32_768, 32_767).astype("<i2").tobytes())
    return file.getvalue()


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
