"""/v1/admin/keys: the organisations' keys, for operators of the installation."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from neuroedge.http.auth import Operator, RequestId, ThePlatform

router = APIRouter(prefix="/v1/admin/keys", tags=["admin"])


class KeysOut(BaseModel):
    """Where an organisation's keys stand; never the keys."""

    model_config = ConfigDict(from_attributes=True)

    org_id: UUID
    rotation: Literal["requested", "added", "promoted"] | None = Field(
        description="The step a rotation is at; null when none is under way."
    )
    resealed: int = Field(description="Values sealed with the new key so far.")
    to_reseal: int = Field(description="Values that were sealed with an older key when that began.")
    changed_at: datetime


class RotateIn(BaseModel):
    """Whose key to rotate."""

    model_config = ConfigDict(extra="forbid")

    organisation: UUID | None = Field(default=None, description="One organisation; all of them when not given.")


@router.get("", summary="List where keys stand")
async def list_keys(principal: Operator, platform: ThePlatform) -> list[KeysOut]:
    """Of every organisation that has stored something."""
    return [KeysOut.model_validate(standing) for standing in await platform.keys.standings()]


@router.post("/rotate", status_code=202, summary="Rotate content keys")
async def rotate(body: RotateIn, principal: Operator, platform: ThePlatform, request_id: RequestId) -> list[KeysOut]:
    """Give organisations a new content key and seal what they have stored anew, in the background."""
    queued = await platform.keys.rotate(body.organisation, operator=principal, request_id=request_id)
    return [KeysOut.model_validate(standing) for standing in queued]
