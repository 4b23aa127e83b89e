"""Whether speech is good enough to know a voice by: how long, how clean, and of one person only."""

from collections.abc import Sequence
from dataclasses import dataclass

MIN_SAMPLE_SPEECH_S = 3.0
"""Speech of a sample that is enrolled."""
MIN_VOICE_SPEECH_S = 6.0
"""Speech of all samples of a voice."""
MIN_PROBE_SPEECH_S = 2.0
"""Less speech gives an answer that is marked unreliable."""
MIN_SNR_DB = 10.0
MAX_CLIPPING_PERCENT = 1.0
MIN_OTHER_S = 1.0
MIN_OTHER_SHARE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class VoiceQuality:
    """Measures of a piece of speech."""

    speech_s: float
    snr_db: float | None
    """None where the background is too short or digitally silent."""
    clipping_percent: float
    other_speech_s: float | None
    """Seconds that seem to be somebody else's than the main voice's; None where that was not looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flaw:
    """Something that makes speech a bad basis, and what to do about it."""

    code: str
    detail: str
    hint: str


def flaws(quality: VoiceQuality, *, min_speech_s: float) -> list[Flaw]:
    """What is wrong with it, the worst first; nothing when it will do."""
    found: Sequence[Flaw | None] = (
        _length(quality, min_speech_s),
        _company(quality),
        _noise(quality),
        _clipping(quality),
    )
    return [flaw for flaw in found if flaw is not None]


def _length(quality: VoiceQuality, min_speech_s: float) -> Flaw | None:
    if quality.speech_s >= min_speech_s:
        return None
    detail = f"{quality.speech_s:.1f} s of speech; at least {min_speech_s:g} s are needed"
    return Flaw(code="too_little_speech", detail=detail, hint="record longer; pauses, music and noise do not count")


def _company(quality: VoiceQuality) -> Flaw | None:
    other = quality.other_speech_s or 0.0
    if other < MIN_OTHER_S or other < MIN_OTHER_SHARE * quality.speech_s:
        return None
    detail = f"{other:.1f} of {quality.speech_s:.1f} s seem to be another person's"
    return Flaw(code="several_speakers", detail=detail, hint="record the person alone")


def _noise(quality: VoiceQuality) -> Flaw | None:
    if quality.snr_db is None or quality.snr_db >= MIN_SNR_DB:
        return None
    detail = f"a signal-to-noise ratio of {quality.snr_db:.1f} dB; at least {MIN_SNR_DB:g} dB are needed"
    return Flaw(code="too_noisy", detail=detail, hint="record in a quieter place, nearer to the microphone")


def _clipping(quality: VoiceQuality) -> Flaw | None:
    if quality.clipping_percent <= MAX_CLIPPING_PERCENT:
        return None
    detail = f"{quality.clipping_percent:.1f} % of the samples are clipped; at most {MAX_CLIPPING_PERCENT:g} % may be"
    return Flaw(code="clipped", detail=detail, hint="lower the recording level")
