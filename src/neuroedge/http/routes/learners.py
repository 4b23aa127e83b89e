"""/v1/learners: consent, events, profile, export and erasure of those whom the organisation teaches."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict, Field

from neuroedge.http.auth import Reader, RequestId, ThePlatform, Writer
from neuroedge.kit.learner_profile import METHOD
from neuroedge.services.learners import Consent, LearnerEvent, Name, Profile
from neuroedge.stores.learners import Learner

router = APIRouter(prefix="/v1/learners", tags=["learners"])
LearnerName = Annotated[Name, Path(alias="learner_id", description="The learner's id, as your applications use it.")]


class ConsentRecord(BaseModel):
    """What was said about consent, when, and by whom it was recorded."""

    granted: bool
    by: Literal["learner", "guardian", "school"]
    policy: str | None = None
    at: datetime
    recorded_by: UUID


class LearnerOut(BaseModel):
    """A learner."""

    learner_id: str = Field(description="As your applications use it.")
    row_id: UUID = Field(description="Under this the audit log names the learner.")
    consented: bool
    consents: list[ConsentRecord] = Field(description="Oldest first; the last one holds.")
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, learner: Learner) -> "LearnerOut":
        """From the stored row."""
        return cls(
            learner_id=learner.name,
            row_id=learner.id,
            consented=learner.consented,
            consents=[ConsentRecord.model_validate(said) for said in learner.consents],
            created_at=learner.created_at,
            updated_at=learner.updated_at,
        )


class LearnerPage(BaseModel):
    """Learners of the organisation."""

    learners: list[LearnerOut]
    next: UUID | None = Field(default=None, description="Give it as `after` to get the next page.")


class LearnerEventsIn(BaseModel):
    """Events in any order; those sent before are not doubled."""

    model_config = ConfigDict(extra="forbid")

    events: list[LearnerEvent] = Field(min_length=1, max_length=1000)


class LearnerEventsOut(BaseModel):
    """What became of them."""

    model_config = ConfigDict(from_attributes=True)

    added: list[str] = Field(description="Ids of those that are new.")
    known: list[str] = Field(description="Ids of those that were there already.")
    conflicting: list[str] = Field(description="Ids of those that were there with another content, which stays.")
    total: int = Field(description="Events of the learner now.")


class SkillProvenance(BaseModel):
    """What a skill's state rests on."""

    method: str = Field(default=METHOD, description="How it is computed.")
    sources: dict[str, int] = Field(description="Answers by the application that sent them.")
    first_at: datetime
    last_at: datetime


class LearnerSkill(BaseModel):
    """A skill as the learner's answers show it."""

    skill: str
    mean: float = Field(description="Posterior mean of the share of right answers, 0 to 1.")
    sd: float = Field(description="Its posterior standard deviation.")
    n: int = Field(description="Answers it rests on.")
    p_mastery: float = Field(description="Probability of mastery by knowledge tracing with its usual parameters.")
    reliable: bool = Field(description="Whether at least five answers stand behind it.")
    provenance: SkillProvenance


class LearnerProfile(BaseModel):
    """The open learner model: all that is derived, with what it rests on."""

    learner: LearnerOut
    skills: list[LearnerSkill] = Field(description="By name.")
    events: int = Field(description="Events kept.")
    answers: int = Field(description="Answers among them.")

    @classmethod
    def of(cls, profile: Profile) -> "LearnerProfile":
        """From the service's."""
        return cls(
            learner=LearnerOut.of(profile.learner),
            skills=[
                LearnerSkill(
                    skill=s.skill,
                    mean=round(s.mean, 4),
                    sd=round(s.sd, 4),
                    n=s.n,
                    p_mastery=round(s.p_mastery, 4),
                    reliable=s.n >= _RELIABLE,
                    provenance=SkillProvenance(sources=s.sources, first_at=s.first_at, last_at=s.last_at),
                )
                for s in profile.skills
            ],
            events=profile.events,
            answers=profile.answers,
        )


_RELIABLE = 5


class LearnerExport(BaseModel):
    """All that is kept of a learner, and all that is derived from it."""

    profile: LearnerProfile
    events: list[dict[str, Any]] = Field(description="As they were sent, by time, with the time they came.")


class LearnerErased(BaseModel):
    """What was deleted."""

    events: int


@router.get("", summary="List learners")
async def list_learners(
    principal: Reader,
    platform: ThePlatform,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    after: UUID | None = None,
) -> LearnerPage:
    """Of the organisation; the order means nothing."""
    found = await platform.learners.page(principal, limit=limit, after=after)
    following = found[-1].id if len(found) == limit else None
    return LearnerPage(learners=[LearnerOut.of(learner) for learner in found], next=following)


@router.put("/{learner_id}/consent", summary="Record consent, or its withdrawal")
async def set_consent(
    learner_id: LearnerName, body: Consent, principal: Writer, platform: ThePlatform, request_id: RequestId
) -> LearnerOut:
    """Without consent on record nothing of a learner is kept; the history of it is."""
    return LearnerOut.of(await platform.learners.set_consent(principal, learner_id, body, request_id=request_id))


@router.post("/{learner_id}/events", summary="Keep what a learner did")
async def add_events(
    learner_id: LearnerName, body: LearnerEventsIn, principal: Writer, platform: ThePlatform
) -> LearnerEventsOut:
    """All or none. Late, repeated and disordered events are fine: the profile is made of the set of them."""
    return LearnerEventsOut.model_validate(await platform.learners.add_events(principal, learner_id, body.events))


@router.get("/{learner_id}/profile", summary="Read a learner's profile")
async def profile(learner_id: LearnerName, principal: Reader, platform: ThePlatform) -> LearnerProfile:
    """The state of each skill with its uncertainty and what it rests on."""
    return LearnerProfile.of(await platform.learners.profile(principal, learner_id))


@router.get("/{learner_id}/export", summary="Take a learner's data away")
async def export(
    learner_id: LearnerName, principal: Writer, platform: ThePlatform, request_id: RequestId
) -> LearnerExport:
    """Everything, also after consent was withdrawn."""
    found = await platform.learners.export(principal, learner_id, request_id=request_id)
    return LearnerExport(
        profile=LearnerProfile.of(found.profile),
        events=[
            {"id": e.name, "kind": e.kind, "at": e.at, **e.body, "received_at": e.received_at} for e in found.events
        ],
    )


@router.delete("/{learner_id}", summary="Erase a learner")
async def erase(
    learner_id: LearnerName, principal: Writer, platform: ThePlatform, request_id: RequestId
) -> LearnerErased:
    """Delete the learner with everything kept."""
    return LearnerErased(events=await platform.learners.erase(principal, learner_id, request_id=request_id))
