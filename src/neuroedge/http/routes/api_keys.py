"""/v1/api-keys: keys for programs, each acting for the user who made it, with that user's rights or less."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Response
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from neuroedge.http.auth import Reader, RequestId, ThePlatform
from neuroedge.services.api_keys import NewKey

router = APIRouter(prefix="/v1/api-keys", tags=["auth"])
Scope = Literal["read", "write", "engines:run", "org:manage"]
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100)]
ModelName = Annotated[str, StringConstraints(pattern=r"^[\w.:@/*-]{1,200}$")]
EngineName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]{1,64}$")]


class ApiKeyIn(BaseModel):
    """A key to make."""

    model_config = ConfigDict(extra="forbid")

    name: Name = Field(description="What it is for.")
    scopes: list[Scope] | None = Field(default=None, description="Permissions; all of the caller's when not given.")
    models: list[ModelName] | None = Field(
        default=None,
        min_length=1,
        max_length=100,
        description="Language models it may use as `provider/model`, with * for any letters; the first one by default. "
        "A name without a provider is one of this machine's models. Any model when not given.",
    )
    engines: list[EngineName] | None = Field(
        default=None, max_length=100, description="Engines it may call by name; any when not given."
    )
    expires_at: AwareDatetime | None = Field(default=None, description="When it ends; never when not given.")


class ApiKeyOut(BaseModel):
    """A key without its secret."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    name: str
    prefix: str = Field(description="The key begins with sk-ne- and this.")
    scopes: list[str]
    models: list[str] | None
    engines: list[str] | None
    expires_at: datetime | None
    last_used_at: datetime | None = Field(description="Within a minute.")
    created_at: datetime


class NewApiKeyOut(ApiKeyOut):
    """A key just made."""

    key: str = Field(description="The key itself: shown this once, kept nowhere.")

    @classmethod
    def of(cls, made: NewKey) -> "NewApiKeyOut":
        """From what the service made."""
        return cls(**ApiKeyOut.model_validate(made.key).model_dump(), key=made.text)


class ApiKeyList(BaseModel):
    """The caller's keys, newest first."""

    keys: list[ApiKeyOut]


@router.get("", summary="List the caller's API keys")
async def list_keys(principal: Reader, platform: ThePlatform) -> ApiKeyList:
    """Those that are not revoked; expired ones too."""
    found = await platform.api_keys.mine(principal)
    return ApiKeyList(keys=[ApiKeyOut.model_validate(key) for key in found])


@router.post("", status_code=201, summary="Make an API key")
async def create_key(
    body: ApiKeyIn, response: Response, principal: Reader, platform: ThePlatform, request_id: RequestId
) -> NewApiKeyOut:
    """A key that acts for the caller, in this organisation, as long as the caller is a member of it."""
    made = await platform.api_keys.create(
        principal,
        name=body.name,
        scopes=body.scopes,
        models=body.models,
        engines=body.engines,
        expires_at=body.expires_at,
        request_id=request_id,
    )
    response.headers["Location"] = f"/v1/api-keys/{made.key.id}"
    response.headers["Cache-Control"] = "no-store"
    return NewApiKeyOut.of(made)


@router.delete("/{key_id}", status_code=204, summary="Revoke an API key")
async def revoke_key(key_id: UUID, principal: Reader, platform: ThePlatform, request_id: RequestId) -> Response:
    """It ends within five seconds in every process. With org:manage also those of others in the organisation."""
    await platform.api_keys.revoke(principal, key_id, request_id=request_id)
    return Response(status_code=204)
