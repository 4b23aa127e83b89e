"""AIVO Brain Service's speech paths and field names over the canonical engines."""

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from neuroedge.contract.principal import Principal
from neuroedge.http.auth import RequestId, Runner, ThePlatform
from neuroedge.http.platform import Platform
from neuroedge.http.routes.speech import Age, Language, SpeechProblem, Text
from neuroedge.services import speech
from neuroedge.services.speech import DISCLAIMER, Ask, Part, Sound, articulation_errors, reliable, warnings_of

router = APIRouter(prefix="/api/v1/speech", tags=["AIVO dialect"])
SAMPLE_RATES_HZ = (4_000, 192_000)


class AivoSpeechIn(BaseModel):
    """A recording, raw PCM16 or a file."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True, alias_generator=to_camel)

    audio_base64: str = Field(
        min_length=1, description="Raw PCM16 (little-endian, mono) or a sound file, in base64; a data: URL is fine."
    )
    sample_rate: int | None = Field(
        default=None,
        ge=SAMPLE_RATES_HZ[0],
        le=SAMPLE_RATES_HZ[1],
        description="Samples a second of raw PCM16; a file says its own.",
    )
    child_age: Age | None = Field(default=None, description="Age of the speaker in years, 1 to 120.")
    task_type: Annotated[str, Field(max_length=100)] | None = Field(
        default=None, description="What was asked of the speaker; sustained_vowel: one vowel held."
    )
    expected_text: Text | None = Field(default=None, description="What was to be said; articulation needs it.")
    language: Language | None = Field(default=None, description="Language spoken; null: detected.")
    learner_id: Annotated[str, Field(max_length=200)] | None = Field(
        default=None, description="The client's own; nothing is kept under it."
    )


class AivoSpeechOut(BaseModel):
    """What was measured; a part that was not asked for or failed is null."""

    model_config = ConfigDict(populate_by_name=True, alias_generator=to_camel)

    transcription: dict[str, Any] | None = None
    articulation_errors: list[dict[str, Any]] | None = None
    articulation: dict[str, Any] | None = None
    fluency_metrics: dict[str, Any] | None = None
    prosody: dict[str, Any] | None = None
    errors: dict[str, SpeechProblem] = Field(default_factory=dict, description="Why a part has no result, by its name.")
    reliable: bool
    warnings: list[str]
    disclaimer: str = DISCLAIMER
    request_id: str


@router.post("/analyze", summary="All that is measured of a recording of speech")
async def analyze(body: AivoSpeechIn, principal: Runner, platform: ThePlatform, request_id: RequestId) -> AivoSpeechOut:
    """Transcription, articulation, fluency and prosody; one that fails stands in `errors`."""
    sound = _sound(body)
    parts = await speech.analyse(platform.runner, _ask(body, sound), principal=principal, request_id=request_id)
    return _answer(parts, sound, request_id)


@router.post("/transcribe", summary="What was said")
async def transcribe(
    body: AivoSpeechIn, principal: Runner, platform: ThePlatform, request_id: RequestId
) -> AivoSpeechOut:
    """The engine transcription."""
    return await _one("transcription", body, platform, principal, request_id)


@router.post("/articulation", summary="How single sounds were said")
async def articulation(
    body: AivoSpeechIn, principal: Runner, platform: ThePlatform, request_id: RequestId
) -> AivoSpeechOut:
    """The engine articulation; it needs `expectedText`."""
    return await _one("articulation", body, platform, principal, request_id)


@router.post("/fluency", summary="How fluent it was")
async def fluency(body: AivoSpeechIn, principal: Runner, platform: ThePlatform, request_id: RequestId) -> AivoSpeechOut:
    """The engine fluency, with words by the engine transcription."""
    return await _one("fluency", body, platform, principal, request_id)


@router.post("/prosody", summary="How it sounded")
async def prosody(body: AivoSpeechIn, principal: Runner, platform: ThePlatform, request_id: RequestId) -> AivoSpeechOut:
    """The engine prosody."""
    return await _one("prosody", body, platform, principal, request_id)


async def _one(
    name: str, body: AivoSpeechIn, platform: Platform, principal: Principal, request_id: str
) -> AivoSpeechOut:
    sound = _sound(body)
    ask = _ask(body, sound)
    payload = {
        "transcription": speech.transcription_payload,
        "articulation": speech.articulation_payload,
        "fluency": lambda asked: {**speech.fluency_payload(asked), "transcribe": True},
        "prosody": speech.prosody_payload,
    }[name](ask)
    answer = await platform.runner.run(name, payload, principal=principal, request_id=request_id)
    return _answer({name: Part(result=answer.model_dump(mode="json"))}, sound, request_id)


def _sound(body: AivoSpeechIn) -> Sound:
    return speech.sound(body.audio_base64, sample_rate_hz=body.sample_rate)


def _ask(body: AivoSpeechIn, sound: Sound) -> Ask:
    return speech.asked_for(
        sound,
        task_type=body.task_type,
        expected_text=body.expected_text,
        child_age_years=body.child_age,
        language=body.language,
    )


def _answer(parts: dict[str, Part], sound: Sound, request_id: str) -> AivoSpeechOut:
    results = {name: camel(part.result) for name, part in parts.items() if part.result}
    said = results.get("articulation")
    return AivoSpeechOut(
        transcription=results.get("transcription"),
        articulation=said,
        articulation_errors=None if said is None else articulation_errors(said),
        fluency_metrics=results.get("fluency"),
        prosody=results.get("prosody"),
        errors={name: SpeechProblem.of(part.error) for name, part in parts.items() if part.error},
        reliable=reliable(parts) and not sound.warnings,
        warnings=[*sound.warnings, *warnings_of(parts)],
        request_id=request_id,
    )


def camel(value: Any) -> Any:
    """An engine's answer with its field names in camelCase."""
    if isinstance(value, dict):
        return {to_camel(key): camel(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [camel(inner) for inner in value]
    return value
