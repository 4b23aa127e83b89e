"""What the routes of voices take and give."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from neuroedge.contract.ports import AudioSource, VoicePurpose
from neuroedge.contract.speaker import VoicePartAnswer
from neuroedge.services.voice_drafts import VoiceDraft
from neuroedge.services.voices import MAX_SAMPLES, VoiceDetail
from neuroedge.stores.voice_relabels import Relabel
from neuroedge.stores.voices import Voice, Voiceprint


class VoiceIn(VoiceDraft):
    """A person to enrol, with samples of the voice."""

    samples: list[AudioSource] = Field(
        min_length=1, max_length=MAX_SAMPLES, description="Recordings of this person alone."
    )


class VoiceSamplesIn(BaseModel):
    """More samples of a voice."""

    model_config = ConfigDict(extra="forbid")

    samples: list[AudioSource] = Field(
        min_length=1, max_length=MAX_SAMPLES, description="Recordings of this person alone."
    )


class VoiceVerifyIn(BaseModel):
    """A sample, and whose it is said to be."""

    model_config = ConfigDict(extra="forbid")

    voice_id: UUID = Field(description="Whose voice it is said to be.")
    audio: AudioSource = Field(description="The sample.")
    prior: float = Field(
        default=0.5, gt=0, lt=1, allow_inf_nan=False, description="How likely that was before listening."
    )


class VoiceIdentifyIn(BaseModel):
    """A sample of somebody."""

    model_config = ConfigDict(extra="forbid")

    audio: AudioSource = Field(description="The sample.")
    prior: float = Field(
        default=0.5, gt=0, lt=1, allow_inf_nan=False, description="How likely it was one of the enrolled."
    )
    top: int = Field(default=5, ge=1, le=100, description="Most candidates in the answer.")


class ConsentOut(BaseModel):
    """What the person agreed to."""

    model_config = ConfigDict(from_attributes=True)

    given_by: str
    at: datetime
    purposes: list[VoicePurpose]
    text_version: str
    minor: bool
    guardian: str | None


class VoiceSampleOut(BaseModel):
    """A sample as it is kept: without its sound, and without its vector."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    model: str = Field(description="The encoder it was heard by.")
    quality: dict[str, Any] = Field(description="speech_s, snr_db, clipping_percent, other_speech_s.")
    created_at: datetime

    @classmethod
    def of(cls, sample: Voiceprint) -> "VoiceSampleOut":
        """From the stored row."""
        return cls.model_validate(sample)


class VoiceOut(BaseModel):
    """An enrolled person."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    user_id: UUID = Field(description="Who enrolled the person.")
    name: str
    external_id: str | None
    labels: dict[str, str]
    consent: ConsentOut
    prints: int = Field(description="How many samples there are.")
    created_at: datetime
    updated_at: datetime
    expires_at: datetime = Field(description="After this the voice is deleted.")

    @classmethod
    def of(cls, voice: Voice) -> "VoiceOut":
        """From the stored row."""
        return cls.model_validate(voice)


class VoiceDetailOut(VoiceOut):
    """An enrolled person with the samples."""

    samples: list[VoiceSampleOut]
    usable: bool = Field(description="Whether it can be compared with now: a sample is of the encoder in use.")

    @classmethod
    def of_detail(cls, detail: VoiceDetail) -> "VoiceDetailOut":
        """From what the service returns."""
        return cls(
            **VoiceOut.of(detail.voice).model_dump(),
            samples=[VoiceSampleOut.of(sample) for sample in detail.samples],
            usable=detail.usable,
        )


class VoicePage(BaseModel):
    """Voices, newest first."""

    voices: list[VoiceOut]
    next: UUID | None = Field(default=None, description="Give it as `before` to get the next page.")


class VoiceFound(VoicePartAnswer):
    """Whose voice a sample is."""


class RelabelOut(BaseModel):
    """A run that names the speakers of recordings."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    recording_id: UUID | None = Field(description="Null: all finished recordings.")
    state: Literal["queued", "running", "done", "failed"]
    total: int = Field(description="Recordings to hear.")
    done: int = Field(description="Recordings heard.")
    labelled: int = Field(description="Speakers recognised.")
    skipped: int = Field(description="Recordings that could not be heard any more.")
    error_code: str | None = None
    created_at: datetime
    finished_at: datetime | None

    @classmethod
    def of(cls, run: Relabel) -> "RelabelOut":
        """From the stored row."""
        return cls.model_validate(run)
