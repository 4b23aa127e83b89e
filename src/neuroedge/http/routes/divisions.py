"""/v1/divisions: parts of an organisation, which share what has the visibility `division`."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from neuroedge.contract.principal import MANAGE_ORG, Principal, Role
from neuroedge.http.auth import RequestId, Requires, ThePlatform
from neuroedge.services.memory_drafts import without_nul

router = APIRouter(prefix="/v1/divisions", tags=["divisions"])
Manager = Annotated[Principal, Depends(Requires(MANAGE_ORG))]


def _name(text: str) -> str:
    if not text.strip():
        raise ValueError("give a name")
    return text.strip()


class DivisionIn(BaseModel):
    """A division."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, AfterValidator(without_nul), AfterValidator(_name), Field(min_length=1, max_length=200)]


class DivisionOut(BaseModel):
    """A division."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    name: str
    created_at: datetime


class MemberOut(BaseModel):
    """A user of the organisation."""

    model_config = ConfigDict(from_attributes=True)

    user_id: UUID
    username: str
    role: Role
    division_id: UUID | None = Field(description="null: in no division.")


class DivisionList(BaseModel):
    """Divisions and users of the organisation, both by name."""

    model_config = ConfigDict(from_attributes=True)

    divisions: list[DivisionOut]
    members: list[MemberOut]


@router.get("", summary="List divisions")
async def list_divisions(principal: Manager, platform: ThePlatform) -> DivisionList:
    """All divisions, and which one each user is in."""
    return DivisionList.model_validate(await platform.divisions.list(principal))


@router.post("", status_code=201, summary="Make a division")
async def create(body: DivisionIn, principal: Manager, platform: ThePlatform, request_id: RequestId) -> DivisionOut:
    """A division without members."""
    made = await platform.divisions.create(principal, name=body.name, request_id=request_id)
    return DivisionOut.model_validate(made)


@router.patch("/{division_id}", summary="Rename a division")
async def rename(
    division_id: UUID, body: DivisionIn, principal: Manager, platform: ThePlatform, request_id: RequestId
) -> DivisionOut:
    """Another name for it."""
    renamed = await platform.divisions.rename(principal, division_id, name=body.name, request_id=request_id)
    return DivisionOut.model_validate(renamed)


@router.delete("/{division_id}", status_code=204, summary="Delete a division")
async def delete(division_id: UUID, principal: Manager, platform: ThePlatform, request_id: RequestId) -> Response:
    """Refused while it has members, or memories or documents that only it may see."""
    await platform.divisions.delete(principal, division_id, request_id=request_id)
    return Response(status_code=204)


@router.put("/{division_id}/members/{user_id}", status_code=204, summary="Put a user into a division")
async def assign(
    division_id: UUID, user_id: UUID, principal: Manager, platform: ThePlatform, request_id: RequestId
) -> Response:
    """A user is in one division at most, and leaves the one before; what was shared with that one stays there."""
    await platform.divisions.assign(principal, division_id, user_id, request_id=request_id)
    return Response(status_code=204)


@router.delete("/{division_id}/members/{user_id}", status_code=204, summary="Take a user out of a division")
async def remove(
    division_id: UUID, user_id: UUID, principal: Manager, platform: ThePlatform, request_id: RequestId
) -> Response:
    """The user is in no division then."""
    await platform.divisions.remove(principal, division_id, user_id, request_id=request_id)
    return Response(status_code=204)
