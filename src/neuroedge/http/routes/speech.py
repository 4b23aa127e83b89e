"""/v1/speech: all that is measured of a recording of speech, in one call. Nothing is kept."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from neuroedge.contract.errors import NeuroEdgeError
from neuroedge.contract.ports import AudioSource
from neuroedge.http.auth import RequestId, Runner, ThePlatform
from neuroedge.services.speech import DISCLAIMER, Ask, Part, analyse, reliable, warnings_of

router = APIRouter(prefix="/v1/speech", tags=["speech"])

Age = Annotated[
    float, Field(ge=1, le=120, allow_inf_nan=False, description="Age of the speaker in years: choose norms by it.")
]
Text = Annotated[str, Field(min_length=1, max_length=1000, description="What was to be said.")]
Language = Annotated[str, Field(pattern="^([a-z]{2,3}|auto)$", description="Language spoken, as ISO 639-1 code.")]


class SpeechAnalysisIn(BaseModel):
    """A recording of one person, and what is known of it."""

    model_config = ConfigDict(extra="forbid")

    audio: AudioSource
    task: Literal["speech", "reading", "naming", "sustained_vowel"] = Field(
        default="speech", description="What was asked of the speaker."
    )
    expected_text: Text | None = Field(default=None, description="What was to be said; articulation needs it.")
    child_age_years: Age | None = Field(default=None, description="Age of the speaker in years, 1 to 120.")
    language: Language | None = Field(default=None, description="Language spoken; null: detected.")


class SpeechProblem(BaseModel):
    """Why a part has no result."""

    code: str = Field(description="Stable name of the error.")
    detail: str
    hint: str | None = None

    @classmethod
    def of(cls, error: NeuroEdgeError) -> "SpeechProblem":
        """For the answer."""
        return cls(code=error.code, detail=error.detail, hint=error.hint)


class SpeechPart(BaseModel):
    """One engine's answer: its result, or why there is none."""

    result: dict[str, Any] | None = Field(description="The Output of the engine of this name.")
    error: SpeechProblem | None

    @classmethod
    def of(cls, part: Part) -> "SpeechPart":
        """For the answer."""
        return cls(result=part.result, error=SpeechProblem.of(part.error) if part.error else None)


class SpeechAnalysisOut(BaseModel):
    """All parts; one that failed does not spoil the others."""

    transcription: SpeechPart
    articulation: SpeechPart
    fluency: SpeechPart
    prosody: SpeechPart
    reliable: bool = Field(description="Whether no part that answered found its measures spoilt.")
    warnings: list[str] = Field(description="What spoils them, each once.")
    disclaimer: str = DISCLAIMER


@router.post("/analyze", summary="Transcription, articulation, fluency and prosody of a recording")
async def analyze(
    body: SpeechAnalysisIn, principal: Runner, platform: ThePlatform, request_id: RequestId
) -> SpeechAnalysisOut:
    """Run the four engines side by side. When none can answer, the error is theirs."""
    ask = Ask(
        audio=body.audio.model_dump(exclude_none=True),
        task=body.task,
        expected_text=body.expected_text,
        child_age_years=body.child_age_years,
        language=None if body.language == "auto" else body.language,
    )
    parts = await analyse(platform.runner, ask, principal=principal, request_id=request_id)
    return SpeechAnalysisOut(
        transcription=SpeechPart.of(parts["transcription"]),
        articulation=SpeechPart.of(parts["articulation"]),
        fluency=SpeechPart.of(parts["fluency"]),
        prosody=SpeechPart.of(parts["prosody"]),
        reliable=reliable(parts),
        warnings=warnings_of(parts),
    )
