"""LocalAI's /v1/voice/* and /v1/audio/diarization over the canonical services.

Paths and fields: LocalAI's documentation, features "Voice Recognition" and "Speaker Diarization" (MIT), as of 2026.
What is different, and why: `register` takes a `consent`, without which no voice is kept. /v1/voice/embed is not here:
a speaker vector identifies a person, and out of this house nobody could delete it; nor is /v1/voice/analyze, which
guesses age and sex. Audio comes as base64 or a data URI; a URL is not fetched. `verified` and `match` follow calibrated
log-likelihood ratios; a `threshold` of one's own, a cosine distance, is taken where it is given.
"""

import re
import time
from datetime import datetime
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from fastapi import APIRouter, Request, Response
from pydantic import AfterValidator, BaseModel, Field

from neuroedge.contract.errors import InvalidInput
from neuroedge.contract.ports import AudioSource
from neuroedge.contract.speaker import GivenVoice, VoiceCandidate
from neuroedge.engines.speech.diarization import SpeakerTurn
from neuroedge.engines.speech.speaker import Input as SpeakerInput
from neuroedge.http.auth import RequestId, Runner, ThePlatform, Writer
from neuroedge.http.departure import unless_client_leaves
from neuroedge.http.uploads import form_schema, receive
from neuroedge.services.scratch import scratch
from neuroedge.services.voice_drafts import ConsentDraft, ExternalId, KeptDays, Labels, Name, VoiceDraft

router = APIRouter(tags=["LocalAI dialect"])
_MODEL: Final = "The speaker encoder in use answers, whatever is named."
_DATA_URI: Final = re.compile(r"data:[\w.+/-]*(;[\w=.+-]+)*;base64,")


def _audio(text: str) -> str:
    if re.match(r"https?://", text):
        raise ValueError("URLs are not fetched: send the audio as base64 or as a data URI")
    return _DATA_URI.sub("", text, count=1)


AudioText = Annotated[str, AfterValidator(_audio), Field(min_length=1, description="base64 or a data URI.")]
Threshold = Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)]


class LocalAIVerifyIn(BaseModel):
    """Two samples."""

    model: str | None = Field(default=None, description=_MODEL)
    audio1: AudioText
    audio2: AudioText
    threshold: Threshold | None = Field(default=None, description="Cosine distance up to which it is one person.")
    anti_spoofing: Literal[False] = Field(default=False, description="Not possible here.")


class LocalAIVerifyOut(BaseModel):
    """Whether two samples are of one person."""

    verified: bool
    distance: float = Field(description="1 less the cosine of the speaker vectors.")
    threshold: float | None = Field(description="The request's; null: decided by the calibrated ratio.")
    confidence: float = Field(description="Probability that it is one person, in percent.")
    model: str
    processing_time_ms: float
    llr: float | None = Field(description="Natural log-likelihood ratio, one person over two.")
    decision: str
    warnings: list[str]


class LocalAIRegisterIn(BaseModel):
    """A person to enrol."""

    model: str | None = Field(default=None, description=_MODEL)
    audio: AudioText
    name: Name
    labels: Labels = Field(default_factory=dict)
    store: str | None = Field(default=None, description="There is one store; the name is not looked at.")
    consent: ConsentDraft | None = Field(default=None, description="Without it nothing is kept.")
    external_id: ExternalId | None = None
    keep_days: KeptDays = 365


class LocalAIRegistered(BaseModel):
    """Where the voice is kept."""

    id: UUID
    name: str
    registered_at: datetime


class LocalAIIdentifyIn(BaseModel):
    """A sample of somebody."""

    model: str | None = Field(default=None, description=_MODEL)
    audio: AudioText
    top_k: int = Field(default=5, ge=1, le=100)
    threshold: Threshold | None = Field(default=None, description="Cosine distance up to which it is a match.")
    store: str | None = None


class LocalAIMatch(BaseModel):
    """A registered voice."""

    id: UUID
    name: str
    labels: dict[str, str]
    distance: float
    confidence: float = Field(description="Probability in percent.")
    match: bool


class LocalAIMatches(BaseModel):
    """By ascending distance."""

    matches: list[LocalAIMatch]
    warnings: list[str]


class LocalAIForgetIn(BaseModel):
    """A voice to forget."""

    id: UUID
    store: str | None = None


@router.post("/v1/voice/verify", summary="Whether two samples are of one person (LocalAI)")
async def verify(
    body: LocalAIVerifyIn, principal: Runner, platform: ThePlatform, request_id: RequestId
) -> LocalAIVerifyOut:
    """Compare; nothing is kept."""
    started = time.perf_counter()
    given = GivenVoice(id="audio2", samples=[AudioSource(base64=body.audio2)])
    payload = SpeakerInput(audio=AudioSource(base64=body.audio1), voices=[given])
    answer = await platform.runner.run("speaker", payload, principal=principal, request_id=request_id)
    told = answer.model_dump(mode="json")
    (part,) = told["parts"]
    if not part["candidates"]:
        raise InvalidInput("nobody speaks in one of the samples", hint="send a few seconds of speech each")
    best = VoiceCandidate.model_validate(part["candidates"][0])
    return LocalAIVerifyOut(
        verified=_same(best, body.threshold),
        distance=round(1 - best.score, 4),
        threshold=body.threshold,
        confidence=round(100 * (best.p_same or 0.0), 2),
        model=told["models"][-1],
        processing_time_ms=round(1000 * (time.perf_counter() - started), 1),
        llr=best.llr,
        decision=best.decision,
        warnings=part["warnings"],
    )


@router.post("/v1/voice/register", summary="Enrol a person's voice (LocalAI)")
async def register(
    body: LocalAIRegisterIn, principal: Writer, platform: ThePlatform, request_id: RequestId
) -> LocalAIRegistered:
    """As POST /v1/voices: refused without consent."""
    draft = VoiceDraft(
        name=body.name,
        external_id=body.external_id,
        labels=body.labels,
        consent=body.consent,
        keep_days=body.keep_days,
    )
    sample = AudioSource(base64=body.audio)
    voice = (await platform.voices.enrol(principal, draft, [sample], request_id=request_id)).voice
    return LocalAIRegistered(id=voice.id, name=voice.name, registered_at=voice.created_at)


@router.post("/v1/voice/identify", summary="Find whose voice it is (LocalAI)")
async def identify(
    body: LocalAIIdentifyIn, principal: Runner, platform: ThePlatform, request_id: RequestId
) -> LocalAIMatches:
    """Among the people who agreed to `identify`."""
    sample = AudioSource(base64=body.audio)
    found = await platform.voices.identify(principal, sample, top=body.top_k, request_id=request_id)
    labels = await platform.voices.labels(principal, [UUID(one.id) for one in found.candidates])
    matches = [
        LocalAIMatch(
            id=UUID(one.id),
            name=one.name or "",
            labels=labels.get(UUID(one.id), {}),
            distance=round(1 - one.score, 4),
            confidence=round(100 * (one.p_candidate or 0.0), 2),
            match=one.id == found.identified if body.threshold is None else _same(one, body.threshold),
        )
        for one in found.candidates
    ]
    return LocalAIMatches(matches=sorted(matches, key=lambda m: m.distance), warnings=found.warnings)


@router.post("/v1/voice/forget", status_code=204, summary="Delete a voice (LocalAI)")
async def forget(body: LocalAIForgetIn, principal: Writer, platform: ThePlatform, request_id: RequestId) -> Response:
    """As DELETE /v1/voices/{id}."""
    await platform.voices.delete(principal, body.id, request_id=request_id)
    return Response(status_code=204)


DIARIZATION_FIELDS: Final = {
    "model": "The models in use answer, whatever is named.",
    "num_speakers": "The number of speakers, if known; 0: found.",
    "min_speakers": "At least so many.",
    "max_speakers": "At most so many.",
    "min_duration_on": "Leave out segments shorter than this, in seconds.",
    "min_duration_off": "Join segments of a speaker with less between them, in seconds.",
    "include_text": "false: POST /v1/recordings gives words with speakers.",
    "response_format": "json, verbose_json or rttm.",
}


@router.post(
    "/v1/audio/diarization",
    summary="Who spoke when (LocalAI)",
    openapi_extra=form_schema("file", dict(DIARIZATION_FIELDS)),
    response_class=Response,
)
async def diarization(request: Request, principal: Runner, platform: ThePlatform, request_id: RequestId) -> Response:
    """Turns of the speakers of a file; nothing of it is kept."""
    async with receive(request, file_field="file", fields=tuple(DIARIZATION_FIELDS)) as received:
        fields = received.fields
        asked, form = _asked(fields), fields.get("response_format", "json")
        async with scratch(platform.runner.contexts.blobs(principal), received.upload) as audio:

            async def engine(name: str, payload: dict[str, Any]) -> Any:
                return await platform.runner.run(
                    name, {"audio": audio, **payload}, principal=principal, request_id=request_id
                )

            found = await unless_client_leaves(request, engine("diarization", asked))
            facts = await unless_client_leaves(request, engine("audio", {}))
    turns = _shaped(
        found.turns, on_s=_number(fields, "min_duration_on", 0.0), off_s=_number(fields, "min_duration_off", 0.0)
    )
    if form == "rttm":
        return Response(_rttm(turns), media_type="text/plain; charset=utf-8")
    return _answer(turns, facts.duration_s, verbose=form == "verbose_json")


def _asked(fields: dict[str, str]) -> dict[str, Any]:
    """What the engine is asked. Raises InvalidInput."""
    if fields.get("response_format", "json") not in ("json", "verbose_json", "rttm"):
        raise _wrong("response_format", "json, verbose_json or rttm")
    if fields.get("include_text", "false").lower() not in ("false", "0", ""):
        raise _wrong("include_text", "false; POST /v1/recordings gives words with speakers")
    counts = {name: int(_number(fields, name, 0.0)) for name in ("num_speakers", "min_speakers", "max_speakers")}
    return {name: count for name, count in counts.items() if count > 0}


def _number(fields: dict[str, str], name: str, default: float) -> float:
    text = fields.get(name, "").strip()
    if not text:
        return default
    if not re.fullmatch(r"\d{1,6}(\.\d{1,6})?", text):
        raise _wrong(name, "a number that is not negative")
    return float(text)


def _wrong(name: str, hint: str) -> InvalidInput:
    return InvalidInput(
        f"{name} is wrong", hint=hint, errors=[{"loc": (name,), "msg": f"give {hint}", "type": "value_error"}]
    )


def _shaped(turns: list[SpeakerTurn], *, on_s: float, off_s: float) -> list[SpeakerTurn]:
    """Without turns shorter than `on_s`, after those of a speaker with less than `off_s` between them were joined."""
    joined: list[SpeakerTurn] = []
    for turn in turns:
        last = joined[-1] if joined else None
        if last is not None and last.speaker == turn.speaker and turn.start_s - last.end_s < off_s:
            joined[-1] = last.model_copy(update={"end_s": turn.end_s})
        else:
            joined.append(turn)
    return [turn for turn in joined if turn.end_s - turn.start_s >= on_s]


def _label(speaker: str) -> str:
    """SPEAKER_00 for S1."""
    return f"SPEAKER_{int(speaker.removeprefix('S')) - 1:02}"


def _rttm(turns: list[SpeakerTurn]) -> str:
    lines = (
        f"SPEAKER audio 1 {t.start_s:.3f} {t.end_s - t.start_s:.3f} <NA> <NA> {_label(t.speaker)} <NA> <NA>\n"
        for t in turns
    )
    return "".join(lines)


def _answer(turns: list[SpeakerTurn], duration_s: float, *, verbose: bool) -> Response:
    from pydantic_core import to_json

    segments = [
        {"id": i, "speaker": _label(t.speaker), "label": t.speaker, "start": t.start_s, "end": t.end_s}
        for i, t in enumerate(turns)
    ]
    labels = sorted({turn.speaker for turn in turns}, key=lambda s: int(s.removeprefix("S")))
    told: dict[str, Any] = {
        "task": "diarize",
        "duration": duration_s,
        "num_speakers": len(labels),
        "segments": segments,
    }
    if verbose:
        told["speakers"] = [
            {
                "id": _label(label),
                "label": label,
                "total_speech_duration": round(sum(t.end_s - t.start_s for t in turns if t.speaker == label), 3),
                "segment_count": sum(t.speaker == label for t in turns),
            }
            for label in labels
        ]
    return Response(to_json(told), media_type="application/json")


def _same(candidate: VoiceCandidate, threshold: float | None) -> bool:
    return candidate.decision == "same" if threshold is None else 1 - candidate.score <= threshold
