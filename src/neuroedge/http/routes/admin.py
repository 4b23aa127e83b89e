"""Reloading engines: for operators of the installation."""

from typing import Any, Literal

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from neuroedge.http.auth import Operator, RequestId, ThePlatform
from neuroedge.http.problems import Problem
from neuroedge.services.reload import Reload

router = APIRouter(tags=["admin"])
_REJECTED = 422


class ReloadOut(BaseModel):
    """How a reload went."""

    model_config = ConfigDict(from_attributes=True)

    engine: str
    outcome: Literal["swapped", "rolled_back"]
    version_before: str
    version_after: str = Field(description="The version that answers from now on.")
    generation: int = Field(description="Which generation of the engine answers in this process, from 1.")
    stage: Literal["import", "contract", "build", "health", "post_swap_test"] | None = Field(
        description="Where the new version failed; null when it took over."
    )
    detail: str | None = Field(description="Why it failed.")
    drained: bool = Field(description="Whether no call ran on the old version any more; if not, they go on there.")
    seconds: float


class ReloadProblem(Problem, ReloadOut):
    """The new version failed its proof, and the old one goes on."""

    detail: str = Field(description="Why it failed.")


_ANSWERS: dict[int | str, dict[str, Any]] = {
    409: {
        "description": "The engine is being reloaded already",
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    },
    _REJECTED: {
        "description": "The new version failed its proof; the old one goes on",
        "content": {"application/problem+json": {"schema": ReloadProblem.model_json_schema()}},
    },
}


@router.post(
    "/v1/admin/engines/{name}/reload", summary="Reload an engine", response_model=ReloadOut, responses=_ANSWERS
)
async def reload(name: str, principal: Operator, platform: ThePlatform, request_id: RequestId) -> Response:
    """Load the engine's module as it is on disk now and let it take over, if it proves itself.

    Other processes of the installation follow.
    """
    outcome = await platform.reloader.reload(name, principal=principal, request_id=request_id)
    if outcome.outcome == "swapped":
        return JSONResponse(ReloadOut.model_validate(outcome).model_dump())
    return _rejected(outcome, request_id)


@router.post("/admin/engines/reload/{engine}", summary="Reload an engine", response_model=ReloadOut, responses=_ANSWERS)
async def reload_by_old_path(
    engine: str, principal: Operator, platform: ThePlatform, request_id: RequestId
) -> Response:
    """The same."""
    return await reload(engine, principal, platform, request_id)


def _rejected(outcome: Reload, request_id: str) -> Response:
    facts = ReloadOut.model_validate(outcome).model_dump()
    body = ReloadProblem(
        **facts,
        type="about:blank",
        title="Unprocessable Entity",
        status=_REJECTED,
        code="reload_rejected",
        hint=f"mend the new version and reload again; {outcome.version_after} goes on meanwhile",
        request_id=request_id,
    )
    return JSONResponse(body.model_dump(exclude_none=True), _REJECTED, media_type="application/problem+json")
