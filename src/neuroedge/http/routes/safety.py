"""/v1/safety: what the organisation wants done about harmful texts and personal data, and what was done."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field

from neuroedge.contract.principal import MANAGE_ORG, Principal
from neuroedge.engines.language.moderation import MAX_CHARS
from neuroedge.http.auth import Reader, RequestId, Requires, Runner, ThePlatform
from neuroedge.services.safety import Verdict
from neuroedge.services.safety_policy import Action, SafetyPolicy, Stage

router = APIRouter(prefix="/v1/safety", tags=["safety"])
Manager = Annotated[Principal, Depends(Requires(MANAGE_ORG))]


class SafetyCheckIn(BaseModel):
    """A text to try the policy on."""

    model_config = ConfigDict(extra="forbid")

    text: str = Field(max_length=MAX_CHARS)
    stage: Stage = Field(default="input", description="Whose rules hold.")


class SafetyPlace(BaseModel):
    """Characters of the text as it was given."""

    start: int
    end: int
    type: str


class SafetyReason(BaseModel):
    """A rule that held."""

    category: str = Field(description="Of the policy; unchecked where a model was away.")
    action: Action
    p: float | None
    threshold: float | None
    rule: str = Field(description="Where it stands in the policy: output.hate.")
    details: list[str] = Field(description="Names of signs or types of personal data; no words of the text.")
    places: list[SafetyPlace] = Field(description="At most 100.")


class SafetyVerdict(BaseModel):
    """What the policy says about the text."""

    action: Action
    stage: Stage
    text: str = Field(description="What could be used: with placeholders where masked, empty where blocked.")
    reasons: list[SafetyReason]

    @classmethod
    def of(cls, verdict: Verdict) -> "SafetyVerdict":
        """From the service's answer."""
        return cls(
            action=verdict.action,
            stage=verdict.stage,
            text=verdict.text,
            reasons=[SafetyReason.model_validate(reason.as_json()) for reason in verdict.reasons],
        )


class SafetyDecisionOut(BaseModel):
    """What was done about a text; the text is not kept here."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    user_id: UUID
    request_id: str
    stage: Stage
    action: Literal["flag", "mask", "block"]
    reasons: list[SafetyReason]
    chars: int = Field(description="Length of the text.")
    created_at: datetime


class SafetyDecisionPage(BaseModel):
    """Decisions, newest first."""

    decisions: list[SafetyDecisionOut]
    next: UUID | None = Field(default=None, description="Give it as `before` to get the next page.")


@router.get("/policy", summary="The safety policy")
async def policy(principal: Manager, platform: ThePlatform) -> SafetyPolicy:
    """The organisation's own, or the platform's where it has set none."""
    return await platform.safety.policy(principal)


@router.put("/policy", summary="Replace the safety policy")
async def set_policy(
    body: SafetyPolicy, principal: Manager, platform: ThePlatform, request_id: RequestId
) -> SafetyPolicy:
    """What is left out becomes as the platform has it. Holds everywhere within ten seconds."""
    return await platform.safety.set_policy(principal, body, request_id=request_id)


@router.post("/check", summary="Try a text")
async def check(body: SafetyCheckIn, principal: Runner, platform: ThePlatform, request_id: RequestId) -> SafetyVerdict:
    """What the policy would do about it; nothing is kept."""
    verdict = await platform.safety.check(principal, body.text, stage=body.stage, request_id=request_id, remember=False)
    return SafetyVerdict.of(verdict)


@router.get("/decisions", summary="What was decided")
async def decisions(
    principal: Reader,
    platform: ThePlatform,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    before: UUID | None = None,
    stage: Stage | None = None,
    action: Literal["flag", "mask", "block"] | None = None,
) -> SafetyDecisionPage:
    """About everybody's texts for who manages the organisation, else about the caller's own."""
    found = await platform.safety.decisions(
        principal, everybody=principal.may(MANAGE_ORG), limit=limit, before=before, stage=stage, action=action
    )
    return SafetyDecisionPage(
        decisions=[SafetyDecisionOut.model_validate(decision) for decision in found],
        next=found[-1].id if len(found) == limit else None,
    )
