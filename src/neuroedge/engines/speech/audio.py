"""Audio: what a recording is and how good it is, before anything is made of it.

Method: loudness by ITU-R BS.1770-4 (pyloudnorm), speech by Silero VAD v6 (MIT), SNR from the power inside and outside
speech, clipping from plateaus at full scale. All is measured on the 16 kHz mono mix: sound above 8 kHz, differences
between channels and clipping of one channel of several are not seen.
"""

import asyncio
import base64

from pydantic import BaseModel, Field

from neuroedge.contract.engine import Engine, EngineContext, EngineInput, EngineOutput
from neuroedge.contract.errors import MediaTooShort
from neuroedge.contract.models import VOICE_ACTIVITY, Span
from neuroedge.contract.ports import Audio, AudioSource
from neuroedge.kit.loudness import loudness_lufs
from neuroedge.kit.signal import clipped_fraction, peak_dbfs, rms_dbfs, snr_db, waveform_peaks
from neuroedge.kit.tone import tone_wav

MIN_DURATION_S = 0.25


class Input(EngineInput):
    """A recording."""

    audio: AudioSource = Field(description="The recording.")
    peaks: int = Field(default=0, ge=0, le=2000, description="How many waveform peaks to return for drawing; 0: none.")


class SpeechSpan(BaseModel):
    """A stretch in which somebody speaks."""

    start_s: float = Field(description="Start, in seconds.")
    end_s: float = Field(description="End, in seconds.")


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


class AudioEngine(Engine[Input, Output]):
    """Measures a recording."""

    name = "audio"
    title = "Audio quality and speech detection"
    method = "silero-vad-v6+bs1770-4"
    example = Input(audio=AudioSource(base64=base64.b64encode(tone_wav(seconds=0.5)).decode()), peaks=8)
    needs = (VOICE_ACTIVITY,)
    timeout_s = 900.0

    async def run(self, payload: Input, ctx: EngineContext) -> Output:
        """Measure one recording. Raises MediaTooShort under 0.25 s, and what decoding raises."""
        audio = await ctx.media.audio(payload.audio)
        if audio.duration_s < MIN_DURATION_S:
            raise MediaTooShort(
                f"{audio.duration_s:.2f} s of audio; at least {MIN_DURATION_S} s are needed", hint="record longer"
            )
        async with ctx.models.lease(VOICE_ACTIVITY) as model:
            speech = await model.speech(audio.samples)
            answered_by = model.model_id
        return await asyncio.to_thread(self._measure, audio, speech, payload.peaks, answered_by)

    def _measure(self, audio: Audio, speech: list[Span], peaks: int, model_id: str) -> Output:
        samples = audio.samples
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
            snr_db=_rounded(snr_db(samples, speech)),
            clipping_percent=round(100 * clipped_fraction(samples), 4),
            speech=[SpeechSpan(start_s=round(s.start_s, 3), end_s=round(s.end_s, 3)) for s in speech],
            speech_s=round(sum(s.end_s - s.start_s for s in speech), 3),
            peaks=waveform_peaks(samples, peaks),
        )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
