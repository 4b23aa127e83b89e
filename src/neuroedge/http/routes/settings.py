"""/v1/settings: what an organisation allows on purpose, and the terms its recordings are heard with."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from neuroedge.contract.principal import MANAGE_ORG, Principal
from neuroedge.http.auth import Reader, RequestId, Requires, ThePlatform
from neuroedge.services.switches import MAX_TERMS, Ground, Name

router = APIRouter(prefix="/v1/settings", tags=["settings"])
Manager = Annotated[Principal, Depends(Requires(MANAGE_ORG))]
Term = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=80)]
Purpose = Annotated[str, StringConstraints(strip_whitespace=True, min_length=10, max_length=500)]


class SwitchOut(BaseModel):
    """A switch as it stands."""

    model_config = ConfigDict(from_attributes=True)

    name: str
    allowed: bool = Field(description="Off until somebody who manages the organisation switches it on.")
    meaning: str = Field(description="What switching it on means.")
    purpose: str | None = Field(description="What it was switched on for.")
    ground: str | None = Field(description="medical, safety or other.")
    changed_by: UUID | None
    changed_at: datetime | None


class SwitchChange(BaseModel):
    """One change of a switch."""

    model_config = ConfigDict(from_attributes=True)

    name: str
    allowed: bool
    purpose: str | None
    ground: str | None
    changed_by: UUID
    changed_at: datetime


class SwitchesOut(BaseModel):
    """All switches, and what was changed."""

    switches: list[SwitchOut]
    history: list[SwitchChange] = Field(description="The latest changes, newest first.")


class SwitchIn(BaseModel):
    """How a switch is to stand."""

    model_config = ConfigDict(extra="forbid")

    name: Name
    allowed: bool
    purpose: Purpose | None = Field(
        default=None, description="What for; voice_emotion needs it to be switched on. Kept, and audited."
    )
    ground: Ground | None = Field(
        default=None,
        description="Needed for voice_emotion: medical or safety; other: the people heard are neither at work nor in"
        " education.",
    )


class Glossary(BaseModel):
    """Names and terms, to be spelt like this."""

    model_config = ConfigDict(extra="forbid")

    terms: list[Term] = Field(max_length=MAX_TERMS, description="At most 50, of at most 80 characters.")


@router.get("/switches", summary="What the organisation allows")
async def switches(principal: Reader, platform: ThePlatform) -> SwitchesOut:
    """Every member may see it: it concerns everybody who is recorded."""
    standing, history = await platform.switches.show(principal)
    return SwitchesOut(
        switches=[SwitchOut.model_validate(switch) for switch in standing],
        history=[SwitchChange.model_validate(change) for change in history],
    )


@router.put("/switches", summary="Allow or forbid")
async def set_switch(body: SwitchIn, principal: Manager, platform: ThePlatform, request_id: RequestId) -> SwitchOut:
    """Holds from the next call on; recordings already processed keep what was found."""
    changed = await platform.switches.set(
        principal,
        body.name,
        allowed=body.allowed,
        purpose=body.purpose,
        ground=body.ground,
        request_id=request_id,
    )
    return SwitchOut.model_validate(changed)


@router.get("/glossary", summary="Terms recordings are heard with")
async def glossary(principal: Reader, platform: ThePlatform) -> Glossary:
    """The organisation's own."""
    return Glossary(terms=await platform.switches.glossary(principal))


@router.put("/glossary", summary="Replace the terms")
async def set_glossary(body: Glossary, principal: Manager, platform: ThePlatform, request_id: RequestId) -> Glossary:
    """They are given to the recogniser with those of each upload, which come first; 50 in all."""
    return Glossary(terms=await platform.switches.set_glossary(principal, body.terms, request_id=request_id))
