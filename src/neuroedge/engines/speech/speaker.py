"""Whose voice is it: compares speech with the voices of a request, or with those the organisation has enrolled.

Task: verification (one voice), identification among several, somebody unknown included (open set), with a calibrated
score. Method: GE2E speaker vectors (Wan et al. 2018) of 1.6 s windows, pooled, centred, cosine; logistic calibration to
log-likelihood ratios (Brümmer & du Preez 2006); kit/speaker_scores.py.
Models: roles voice_activity (Silero, MIT) and speaker_embedding (Resemblyzer, Apache-2.0).
Limits: fitted and measured on short prompts and read speech of adults, mostly one microphone and one language each
(docs/voices.md has the figures); children, whispering, song, illness, disguise, other microphones than at enrolment and
less than some seconds make it worse; a recording or a clone of a voice passes: never the only proof of identity.
Vectors identify people: they stay in the organisation's store and are in no answer.
"""

import asyncio
import base64
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import numpy as np
from pydantic import Field, PrivateAttr, model_validator

from neuroedge.contract.engine import Engine, EngineContext, EngineInput, EngineOutput, Health
from neuroedge.contract.errors import MediaTooShort
from neuroedge.contract.models import (
    SAMPLE_RATE_HZ,
    SPEAKER_EMBEDDING,
    VOICE_ACTIVITY,
    Floats,
    Span,
    SpeakerEncoder,
    VoiceActivity,
)
from neuroedge.contract.ports import AudioSource, VoicePurpose
from neuroedge.contract.speaker import (
    GivenVoice,
    GivenVoiceAnswer,
    SpeechQuality,
    VoiceCalibration,
    VoiceCandidate,
    VoicePart,
    VoicePartAnswer,
    VoiceSpan,
)
from neuroedge.kit.diarization import Stretch, cut, sliding_windows
from neuroedge.kit.signal import clipped_fraction, snr_db
from neuroedge.kit.speaker_calibration import calibration_of
from neuroedge.kit.speaker_samples import POOLING, opening, other_speech_s
from neuroedge.kit.speaker_scores import Calibration, decide, llr, p_each, p_same, pooled, score
from neuroedge.kit.tone import tone_wav
from neuroedge.kit.voice_quality import MIN_PROBE_SPEECH_S, VoiceQuality, flaws

MIN_AUDIO_S = 0.25
WHOLE = "audio"
"""Id of the only part when none are named."""
_HEARD_S = 120.0
"""Speech looked at in one recording; of a part, its longest stretches up to half of this."""
_CHUNK = 128


class Input(EngineInput):
    """A recording, and whom to look for in it."""

    audio: AudioSource = Field(description="The speech in question.")
    parts: list[VoicePart] | None = Field(
        default=None, min_length=1, max_length=50, description="Its speakers, each judged apart; else it is one person."
    )
    voices: list[GivenVoice] = Field(default_factory=list, max_length=20, description="Voices to compare with.")
    enrolled: VoicePurpose | None = Field(
        default=None, description="Compare with the organisation's voices too, of those who agreed to this purpose."
    )
    only: list[UUID] | None = Field(
        default=None, max_length=1000, description="Of the organisation's voices, only these."
    )
    prior: float = Field(
        default=0.5, gt=0, lt=1, allow_inf_nan=False, description="How likely it was one of them before listening."
    )
    top: int = Field(default=5, ge=1, le=100, description="Most candidates in an answer.")

    @model_validator(mode="after")
    def _names_once(self) -> "Input":
        for what, ids in (("voices", [v.id for v in self.voices]), ("parts", [p.id for p in self.parts or []])):
            if len(set(ids)) < len(ids):
                raise ValueError(f"two of the {what} have the same id")
        if self.only is not None and self.enrolled is None:
            raise ValueError("'only' restricts 'enrolled', which is not given")
        return self


class Output(EngineOutput):
    """Whose voices they are."""

    parts: list[VoicePartAnswer] = Field(description="An answer for each part, in the order given.")
    voices: list[GivenVoiceAnswer] = Field(description="The voices of the request.")
    compared: int = Field(description="Voices it was compared with.")
    calibration: VoiceCalibration | None = Field(description="Null when the encoder is not calibrated.")
    _vectors: dict[str, Floats] = PrivateAttr(default_factory=dict)

    @property
    def vectors(self) -> dict[str, Floats]:
        """By part, the vector of its speech [dim]: for enrolment in this process, never part of an answer."""
        return self._vectors


@dataclass(frozen=True, slots=True)
class _Heard:
    quality: VoiceQuality
    vector: Floats | None
    """None where there is no speech."""


@dataclass(frozen=True, slots=True)
class _Known:
    id: str
    name: str | None
    vector: Floats
    speech_s: float


class Speaker(Engine[Input, Output]):
    """Verification and open-set identification of speakers."""

    name = "speaker"
    title = "Whose voice it is"
    method = "ge2e-cosine-logistic"
    example = Input(
        audio=AudioSource(base64=base64.b64encode(tone_wav(seconds=0.5)).decode()),
        voices=[GivenVoice(id="ann", samples=[AudioSource(base64=base64.b64encode(tone_wav(seconds=0.5)).decode())])],
    )
    needs = (VOICE_ACTIVITY, SPEAKER_EMBEDDING)
    timeout_s = 900.0

    async def health(self) -> Health:
        """Degraded when the encoder in use is not calibrated: then nobody is ever identified."""
        health = await super().health()
        model_id = self.probe.models.status(SPEAKER_EMBEDDING).id
        if health.status == "ready" and calibration_of(model_id) is None:
            detail = f"{model_id} is not calibrated: scores only rank; use resemblyzer-ge2e"
            return health.model_copy(update={"status": "degraded", "detail": detail})
        return health

    async def run(self, payload: Input, ctx: EngineContext) -> Output:
        """Compare. Raises MediaTooShort under 0.25 s, what decoding raises, ModelUnavailable."""
        status = ctx.models.status(SPEAKER_EMBEDDING)
        calibration = calibration_of(status.id)
        known, given = await self._enrolled(payload, ctx, fingerprint_of(status.id, status.fingerprint)), []
        if payload.parts and not known and not payload.voices:
            return _nobody(payload, calibration, method=self.method)
        async with ctx.models.lease(VOICE_ACTIVITY) as voice, ctx.models.lease(SPEAKER_EMBEDDING) as encoder:
            ears = _Ears(voice, encoder, ctx, calibration)
            for named in payload.voices:
                heard = [await ears.whole(source, f"voice {named.id}") for source in named.samples]
                given.append(GivenVoiceAnswer(id=named.id, samples=[_quality(one.quality) for one in heard]))
                known += _one_voice(named.id, heard)
            listened = await ears.parts(payload)
            models = [voice.model_id, encoder.model_id]
        answer = Output(
            method=self.method,
            models=models,
            parts=[_judge(part_id, heard, known, payload, calibration) for part_id, heard in listened.items()],
            voices=given,
            compared=len(known),
            calibration=_told(calibration),
        )
        answer.vectors.update({part: heard.vector for part, heard in listened.items() if heard.vector is not None})
        return answer

    async def _enrolled(self, payload: Input, ctx: EngineContext, fingerprint: str) -> list[_Known]:
        if payload.enrolled is None:
            return []
        voices = await ctx.voices.enrolled(model=fingerprint, purpose=payload.enrolled)
        wanted = None if payload.only is None else set(payload.only)
        return [
            _Known(str(v.id), v.name, pooled(v.vectors, v.speech_s), float(v.speech_s.sum()))
            for v in voices
            if wanted is None or v.id in wanted
        ]


def fingerprint_of(model_id: str, fingerprint: str) -> str:
    """What vectors of an encoder are kept under: they can be compared with each other only."""
    return f"{model_id}/{fingerprint}"


class _Ears:
    """Turns audio into vectors with their quality."""

    def __init__(
        self, voice: VoiceActivity, encoder: SpeakerEncoder, ctx: EngineContext, calibration: Calibration | None
    ) -> None:
        self._voice = voice
        self._encoder = encoder
        self._ctx = ctx
        self._calibration = calibration

    async def parts(self, payload: Input) -> dict[str, _Heard]:
        """What is heard of each part."""
        if payload.parts is None:
            return {WHOLE: await self.whole(payload.audio, WHOLE)}
        samples = await self._samples(payload.audio, WHOLE)
        end_s = len(samples) / SAMPLE_RATE_HZ
        spans = {part.id: _clean(part.spans, end_s=end_s) for part in payload.parts}
        every = sorted(stretch for stretches in spans.values() for stretch in stretches)
        noise = await asyncio.to_thread(snr_db, samples, [Span(start_s=a, end_s=b) for a, b in every])
        heard: dict[str, _Heard] = {}
        for number, (part_id, stretches) in enumerate(spans.items(), 1):
            heard[part_id] = await self._part(samples, stretches, noise)
            await self._ctx.progress("speaker", number / len(spans))
        return heard

    async def whole(self, source: AudioSource, what: str) -> _Heard:
        """What is heard of a recording of one person, and whether it is one."""
        samples = await self._samples(source, what)
        speech = await self._voice.speech(samples)
        spans = opening([(s.start_s, s.end_s) for s in speech], limit_s=_HEARD_S)
        windows = sliding_windows(spans, tuning=POOLING)
        vectors = await self._vectors(samples, windows)
        quality = VoiceQuality(
            speech_s=sum(s.end_s - s.start_s for s in speech),
            snr_db=await asyncio.to_thread(snr_db, samples, speech),
            clipping_percent=100 * clipped_fraction(samples),
            other_speech_s=await asyncio.to_thread(other_speech_s, vectors, windows, spans, self._calibration),
        )
        return _Heard(quality, pooled(vectors) if len(vectors) else None)

    async def _part(self, samples: Floats, spans: list[Stretch], noise_db: float | None) -> _Heard:
        longest = sorted(sorted(spans, key=lambda s: s[0] - s[1])[:200])
        windows = sliding_windows(opening(longest, limit_s=_HEARD_S / 2), tuning=POOLING)
        vectors = await self._vectors(samples, windows)
        quality = VoiceQuality(
            speech_s=sum(end - start for start, end in spans),
            snr_db=noise_db,
            clipping_percent=100 * clipped_fraction(samples),
            other_speech_s=None,
        )
        return _Heard(quality, pooled(vectors) if len(vectors) else None)

    async def _samples(self, source: AudioSource, what: str) -> Floats:
        audio = await self._ctx.media.audio(source)
        if audio.duration_s < MIN_AUDIO_S:
            raise MediaTooShort(
                f"{what}: {audio.duration_s:.2f} s of audio; at least {MIN_AUDIO_S} s are needed",
                hint=f"record longer; {MIN_PROBE_SPEECH_S:g} s of speech or more make an answer reliable",
            )
        return audio.samples

    async def _vectors(self, samples: Floats, windows: list[Stretch]) -> Floats:
        found = [
            await self._encoder.encode(
                cut(samples, windows[first : first + _CHUNK], rate_hz=SAMPLE_RATE_HZ, tuning=POOLING)
            )
            for first in range(0, len(windows), _CHUNK)
        ]
        return np.concatenate(found) if found else np.zeros((0, self._encoder.dim), np.float32)


def _clean(spans: Sequence[VoiceSpan], *, end_s: float) -> list[Stretch]:
    """In order of time, inside the recording, without empty ones."""
    inside = ((span.start_s, min(span.end_s, end_s)) for span in spans)
    return sorted((start, end) for start, end in inside if end > start)


def _one_voice(voice_id: str, heard: Sequence[_Heard]) -> list[_Known]:
    """The voice of its samples; none when nobody speaks in any."""
    usable = [(one.vector, one.quality.speech_s) for one in heard if one.vector is not None]
    if not usable:
        return []
    seconds = np.array([s for _, s in usable], np.float32)
    return [_Known(voice_id, None, pooled(np.stack([v for v, _ in usable]), seconds), float(seconds.sum()))]


def _judge(
    part_id: str, heard: _Heard, known: Sequence[_Known], payload: Input, calibration: Calibration | None
) -> VoicePartAnswer:
    wrong = flaws(heard.quality, min_speech_s=MIN_PROBE_SPEECH_S)
    warnings = [f"{flaw.code}: {flaw.detail}" for flaw in wrong]
    if calibration is None:
        warnings.append("not_calibrated: scores of this encoder only rank")
    candidates: list[VoiceCandidate] = []
    if heard.vector is not None:
        candidates = _candidates(heard.vector, heard.quality.speech_s, known, payload.prior, calibration)
    best = candidates[0] if candidates else None
    sure = best is not None and best.decision == "same" and best.p_candidate is not None and calibration is not None
    if sure and best is not None and calibration is not None:
        sure = (best.p_candidate or 0.0) >= p_same(calibration.same_llr, prior=payload.prior)
    reliable = not warnings
    return VoicePartAnswer(
        id=part_id,
        quality=_quality(heard.quality),
        candidates=candidates[: payload.top],
        identified=best.id if best is not None and sure and reliable else None,
        reliable=reliable,
        warnings=warnings,
    )


def _candidates(
    vector: Floats, speech_s: float, known: Sequence[_Known], prior: float, calibration: Calibration | None
) -> list[VoiceCandidate]:
    centre = np.zeros_like(vector) if calibration is None else calibration.centre
    scored = sorted(((score(vector, one.vector, centre), one) for one in known), key=lambda pair: -pair[0])
    if calibration is None:
        ratios: list[float | None] = [None] * len(scored)
        among: list[float | None] = [None] * len(scored)
    else:
        values = [llr(value, min(speech_s, one.speech_s), calibration) for value, one in scored]
        ratios, among = [*values], [*p_each(values, prior=prior)]
    found = [
        VoiceCandidate(
            id=one.id,
            name=one.name,
            score=round(value, 4),
            llr=None if ratio is None else round(ratio, 3),
            p_same=None if ratio is None else round(p_same(ratio, prior=prior), 4),
            p_candidate=None if p is None else round(p, 4),
            decision="uncertain" if ratio is None or calibration is None else decide(ratio, calibration),
        )
        for (value, one), ratio, p in zip(scored, ratios, among, strict=True)
    ]
    return sorted(found, key=lambda c: -(c.llr if c.llr is not None else c.score))


def _quality(quality: VoiceQuality) -> SpeechQuality:
    return SpeechQuality(
        speech_s=round(quality.speech_s, 2),
        snr_db=None if quality.snr_db is None else round(quality.snr_db, 1),
        clipping_percent=round(quality.clipping_percent, 3),
        other_speech_s=None if quality.other_speech_s is None else round(quality.other_speech_s, 2),
        flaws=[flaw.code for flaw in flaws(quality, min_speech_s=MIN_PROBE_SPEECH_S)],
    )


def _told(calibration: Calibration | None) -> VoiceCalibration | None:
    if calibration is None:
        return None
    return VoiceCalibration(
        same_llr=calibration.same_llr,
        different_llr=calibration.different_llr,
        far=calibration.far,
        frr=calibration.frr,
        source=calibration.source,
    )


def _nobody(payload: Input, calibration: Calibration | None, *, method: str) -> Output:
    """The answer where there is nobody to compare with: then nobody's voice is looked at."""
    parts = [
        VoicePartAnswer(id=part.id, quality=None, candidates=[], identified=None, reliable=True, warnings=[])
        for part in payload.parts or []
    ]
    return Output(method=method, models=[], parts=parts, voices=[], compared=0, calibration=_told(calibration))
