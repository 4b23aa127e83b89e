"""/v1/privacy: take away or erase the data of one user or of the whole organisation."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator

from neuroedge.http.auth import Operator, Reader, RequestId, ThePlatform

router = APIRouter(tags=["privacy"])


class ExportIn(BaseModel):
    """Whose data: the caller's own when nothing is given."""

    model_config = ConfigDict(extra="forbid")

    user_id: UUID | None = Field(default=None, description="A member's; needs the permission org:manage.")
    organisation: bool = Field(default=False, description="All of the organisation's; needs org:manage.")

    @model_validator(mode="after")
    def _one(self) -> "ExportIn":
        if self.organisation and self.user_id is not None:
            raise ValueError("give at most one of 'user_id' and 'organisation'")
        return self


class ExportOut(BaseModel):
    """An export and where it stands."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    user_id: UUID | None = Field(description="Whose data; null: the organisation's.")
    state: Literal["running", "done", "failed"]
    counts: dict[str, int] = Field(description="How many things of each kind are in it.")
    created_at: datetime
    finished_at: datetime | None


class EraseIn(BaseModel):
    """What to erase: one user's data, or the organisation."""

    model_config = ConfigDict(extra="forbid")

    user_id: UUID | None = Field(default=None, description="The caller, or a member with the permission org:manage.")
    account: bool = Field(default=False, description="Whether the user's account goes too.")
    organisation: bool = Field(default=False, description="The whole organisation; only its owner may.")
    confirm: str | None = Field(default=None, max_length=200, description="The organisation's name, to erase it.")

    @model_validator(mode="after")
    def _one(self) -> "EraseIn":
        if self.organisation == (self.user_id is not None):
            raise ValueError("give exactly one of 'user_id' and 'organisation'")
        if self.organisation == (self.confirm is None):
            raise ValueError("'confirm' belongs to 'organisation'")
        return self


class ErasureOut(BaseModel):
    """An erasure, where it stands, and its proof once it is done."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    user_id: UUID | None = Field(description="Whose data; null: the organisation's.")
    state: Literal["running", "done"]
    report: dict[str, Any] | None = Field(description="How many rows and objects were erased, how many are left.")
    report_sha256: str | None = Field(
        description="SHA-256 of the report as JSON with sorted keys and no spaces, as the audit log has it."
    )
    created_at: datetime
    finished_at: datetime | None


class InstallationErasureOut(ErasureOut):
    """An erasure with the organisation it was in."""

    org_id: UUID
    requested_by: UUID


@router.post("/v1/privacy/export", status_code=202, summary="Export data")
async def export(body: ExportIn, principal: Reader, platform: ThePlatform, request_id: RequestId) -> ExportOut:
    """Put together memories, recordings with transcripts, documents, tasks, usage and audit rows as a ZIP file of
    JSON lines, in the background. It is kept for seven days."""
    order = await platform.privacy.order_export(
        principal, user_id=body.user_id, organisation=body.organisation, request_id=request_id
    )
    return ExportOut.model_validate(order)


@router.get("/v1/privacy/exports/{export_id}", summary="Read where an export stands")
async def read_export(export_id: UUID, principal: Reader, platform: ThePlatform) -> ExportOut:
    """Only who ordered it may."""
    return ExportOut.model_validate(await platform.privacy.export(principal, export_id))


@router.get(
    "/v1/privacy/exports/{export_id}/file",
    summary="Download an export",
    response_class=Response,
    responses={200: {"content": {"application/zip": {}}, "description": "The ZIP file"}},
)
async def download(export_id: UUID, principal: Reader, platform: ThePlatform) -> Response:
    """The ZIP file, in the clear."""
    return Response(
        await platform.privacy.exported(principal, export_id),
        media_type="application/zip",
        headers={"Content-Disposition": f'attachment; filename="export-{export_id}.zip"'},
    )


@router.delete("/v1/privacy/exports/{export_id}", status_code=204, summary="Delete an export")
async def delete_export(export_id: UUID, principal: Reader, platform: ThePlatform) -> Response:
    """Before its seven days are over."""
    await platform.privacy.delete_export(principal, export_id)
    return Response(status_code=204)


@router.post("/v1/privacy/erase", status_code=202, summary="Erase data")
async def erase(body: EraseIn, principal: Reader, platform: ThePlatform, request_id: RequestId) -> ErasureOut:
    """Erase for good what a user has stored, or the whole organisation, whose keys are deleted before this answers.

    The rest happens in the background and ends with a count of what is left, the proof.
    """
    if body.user_id is not None:
        order = await platform.privacy.order_user_erasure(
            principal, body.user_id, account=body.account, request_id=request_id
        )
    else:
        order = await platform.privacy.order_organisation_erasure(
            principal, confirm=body.confirm or "", request_id=request_id
        )
    return ErasureOut.model_validate(order)


@router.get("/v1/privacy/erasures/{erasure_id}", summary="Read where an erasure stands")
async def read_erasure(erasure_id: UUID, principal: Reader, platform: ThePlatform) -> ErasureOut:
    """With its proof once it is done; an access token outlives the organisation's erasure by some minutes."""
    return ErasureOut.model_validate(await platform.privacy.erasure(principal, erasure_id))


@router.get("/v1/admin/erasures", summary="List erasures of the installation")
async def list_erasures(
    principal: Operator, platform: ThePlatform, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> list[InstallationErasureOut]:
    """Newest first; ids and counts, also of organisations that are gone."""
    found = await platform.privacy.erasures_of_all(limit=limit)
    return [InstallationErasureOut.model_validate(erasure) for erasure in found]
