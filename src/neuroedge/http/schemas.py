"""Answers of the canonical API."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from neuroedge.services.recordings import RecordingDetail
from neuroedge.stores.recordings import Recording


class Failure(BaseModel):
    """Why a recording could not be processed."""

    code: str
    detail: str
    hint: str | None = None


class RecordingOut(BaseModel):
    """A recording and where its processing stands."""

    id: UUID
    title: str
    context: str | None = None
    filename: str
    bytes: int = Field(description="Size of the file as it was sent.")
    status: Literal["queued", "running", "done", "failed"]
    step: str | None = Field(default=None, description="The step that runs now.")
    error: Failure | None = None
    created_at: datetime
    finished_at: datetime | None = None

    @classmethod
    def of(cls, recording: Recording) -> "RecordingOut":
        """From the stored row."""
        return cls.model_validate(_row(recording))


class WordOut(BaseModel):
    """A word with its time."""

    w: str
    start_s: float
    end_s: float
    p: float = Field(description="The recogniser's probability, 0 to 1.")


class SegmentOut(BaseModel):
    """A stretch of one speaker's speech."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    speaker: str
    start_s: float
    end_s: float
    text: str
    confidence: float = Field(description="Mean probability of its words, 0 to 1.")
    words: list[WordOut]
    emotion: dict[str, Any] | None = Field(
        default=None, description="From the words and, apart, from the voice, each with its method; may abstain."
    )


class SpeakerOut(BaseModel):
    """A voice of the recording."""

    model_config = ConfigDict(from_attributes=True)

    label: str
    speech_s: float
    name: str | None = Field(default=None, description="Of the enrolled person the speaker was recognised as.")
    voice_id: UUID | None = Field(default=None, description="That person's voice.")
    voice_llr: float | None = Field(default=None, description="How much likelier it is that person: ln of the ratio.")


class OverlapOut(BaseModel):
    """A stretch in which more than one person may speak."""

    speakers: list[str]
    start_s: float
    end_s: float
    p: float = Field(description="How sure this is, 0 to 1; docs/recordings.md says what it was measured to mean.")


class RecordingDetailOut(RecordingOut):
    """A recording with all that was found in it."""

    text: str
    language: str | None
    analysis: dict[str, Any] | None = Field(default=None, description="Duration, loudness and quality of the audio.")
    speakers: list[SpeakerOut]
    segments: list[SegmentOut]
    overlaps: list[OverlapOut] = Field(default_factory=list, description="Where more than one may speak at once.")
    step_seconds: dict[str, float] = Field(default_factory=dict, description="Time each finished step took.")

    @classmethod
    def of_detail(cls, detail: RecordingDetail) -> "RecordingDetailOut":
        """From what the service returns."""
        return cls(
            **_row(detail.recording),
            text=detail.text,
            language=detail.language,
            analysis=detail.analysis,
            speakers=[SpeakerOut.model_validate(s) for s in detail.speakers],
            segments=[SegmentOut.model_validate(s) for s in detail.segments],
            overlaps=[OverlapOut.model_validate(overlap) for overlap in detail.overlaps],
            step_seconds=detail.steps,
        )


class RecordingPage(BaseModel):
    """Recordings, newest first."""

    recordings: list[RecordingOut]
    next: UUID | None = Field(default=None, description="Give it as `before` to get the next page.")


def _row(recording: Recording) -> dict[str, Any]:
    names = ("id", "title", "context", "filename", "bytes", "status", "step", "created_at", "finished_at")
    row = {name: getattr(recording, name) for name in names}
    row["error"] = (
        Failure(code=recording.error_code, detail=recording.error_detail or "", hint=recording.error_hint)
        if recording.error_code
        else None
    )
    return row
