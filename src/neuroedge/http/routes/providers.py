"""/v1/providers: who answers for the organisation's callers, with whose key, and in which order."""

import time
from contextlib import aclosing
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, ConfigDict, Field

from neuroedge.contract.chat import ChatMessage, ChatRequest, Policy
from neuroedge.contract.errors import NeuroEdgeError
from neuroedge.contract.principal import MANAGE_ORG, Principal
from neuroedge.http.auth import Reader, RequestId, Requires, ThePlatform
from neuroedge.services.llm.offers import Offer, Preferences
from neuroedge.services.llm.provider_settings import ApiKey, ModelName, Name, ProviderSettings, QueryType
from neuroedge.services.llm.providers import Listed

router = APIRouter(prefix="/v1/providers", tags=["language models"])
Manager = Annotated[Principal, Depends(Requires(MANAGE_ORG))]
OfferId = Annotated[str, Field(min_length=3, max_length=300, pattern=r"^[^/\s]+/.+$")]
_TEST_TOKENS = 16


class ProviderIn(ProviderSettings):
    """A provider of the organisation's own."""

    name: Name
    api_key: ApiKey | None = Field(default=None, repr=False, description="Kept sealed, and never shown again.")


class ProviderPatch(BaseModel):
    """What is to change: settings as they are given at the beginning, each in whole, and the key."""

    model_config = ConfigDict(extra="forbid")

    settings: dict[str, Any] = Field(default_factory=dict, max_length=20, description="As in POST, without the name.")
    api_key: ApiKey | None = Field(default=None, repr=False, description="Needed for another address.")


class OfferedPriceOut(BaseModel):
    """US dollars per million tokens, with where and when that was read."""

    model_config = ConfigDict(from_attributes=True)

    prompt_usd_per_million: float
    completion_usd_per_million: float
    cached_usd_per_million: float | None
    source: str
    as_of: str


class OfferedModelOut(BaseModel):
    """A model of a provider."""

    model_config = ConfigDict(from_attributes=True)

    id: str = Field(description="As requests name it.")
    model: str
    context_tokens: int
    tools: bool
    images: bool
    query_types: list[str]
    price: OfferedPriceOut | None = Field(description="null: not known; its calls count as nothing.")


class ProviderOut(BaseModel):
    """A provider. Its settings are shown for the organisation's own, to who manages it."""

    id: UUID | None = Field(default=None, description="Of the organisation's own.")
    name: str
    source: Literal["local", "organisation", "operator"]
    private: bool = Field(description="Whether what is sent there stays with the operator.")
    models: list[OfferedModelOut]
    settings: dict[str, Any] | None = None
    key_end: str | None = Field(default=None, description="The last four characters of its key.")
    updated_at: datetime | None = None

    @classmethod
    def of(cls, listed: Listed, *, manages: bool) -> "ProviderOut":
        """As this reader may see it."""
        shown = cls(
            name=listed.name,
            source=listed.source,
            private=all(offer.private for offer in listed.offers),
            models=[_model(offer) for offer in listed.offers],
        )
        if listed.stored is not None:
            shown.id = listed.stored.id
            if manages:
                shown.settings, shown.key_end = listed.stored.settings, listed.stored.key_end
                shown.updated_at = listed.stored.updated_at
        return shown


class ProviderList(BaseModel):
    """This machine, the organisation's providers, the operator's."""

    providers: list[ProviderOut]


class ProviderTestIn(BaseModel):
    """Which model to ask; the provider's first by default."""

    model_config = ConfigDict(extra="forbid")

    model: ModelName | None = None


class ProviderTestOut(BaseModel):
    """What came of one small real call."""

    ok: bool
    model: str
    seconds: float
    answer: str = Field(default="", description="What it said, cut off after some tokens.")
    code: str | None = Field(default=None, description="Of the error.")
    detail: str | None = None


class ProviderPolicy(BaseModel):
    """What holds for all calls of the organisation. Models are named as GET /v1/providers shows their ids."""

    model_config = ConfigDict(extra="forbid", from_attributes=True)

    default_model: OfferId | None = Field(default=None, description="What answers where a caller names none.")
    local_only: bool = Field(default=False, description="Nothing may leave the operator's machines.")
    fallback: Annotated[list[OfferId], Field(max_length=50)] = Field(
        default_factory=list, description="What is tried next when the first cannot answer, in this order."
    )
    by_query_type: Annotated[dict[QueryType, OfferId], Field(max_length=50)] = Field(
        default_factory=dict, description="The first choice for queries of a type: chat, grounded, summary, code, …"
    )


@router.get("", summary="List providers of language models")
async def list_providers(principal: Reader, platform: ThePlatform) -> ProviderList:
    """With their models; settings and the end of the key for who manages the organisation."""
    manages = principal.may(MANAGE_ORG)
    found = await platform.providers.list(principal)
    return ProviderList(providers=[ProviderOut.of(one, manages=manages) for one in found])


@router.post("", status_code=201, summary="Set up a provider")
async def create(
    body: ProviderIn, response: Response, principal: Manager, platform: ThePlatform, request_id: RequestId
) -> ProviderOut:
    """A provider of the organisation's own: a well-known vendor with your key, or any server on the public internet
    that speaks OpenAI's or Anthropic's wire format."""
    settings = ProviderSettings.model_validate(body.model_dump(exclude={"name", "api_key"}, exclude_unset=True))
    made = await platform.providers.create(
        principal, name=body.name, settings=settings, api_key=body.api_key, request_id=request_id
    )
    response.headers["Location"] = "/v1/providers"
    return ProviderOut.of(made, manages=True)


@router.get("/policy", summary="Read which models answer")
async def read_policy(principal: Reader, platform: ThePlatform) -> ProviderPolicy:
    """What the organisation has settled."""
    return ProviderPolicy.model_validate(await platform.providers.preferences(principal))


@router.put("/policy", summary="Settle which models answer")
async def set_policy(
    body: ProviderPolicy, principal: Manager, platform: ThePlatform, request_id: RequestId
) -> ProviderPolicy:
    """In place of what was settled before; seen by every process within seconds."""
    wanted = Preferences(
        default_model=body.default_model,
        local_only=body.local_only,
        fallback=tuple(body.fallback),
        by_query_type=body.by_query_type,
    )
    await platform.providers.set_preferences(principal, wanted, request_id=request_id)
    return body


@router.patch("/{provider_id}", summary="Change a provider")
async def update(
    provider_id: UUID, body: ProviderPatch, principal: Manager, platform: ThePlatform, request_id: RequestId
) -> ProviderOut:
    """Change what is given; a setting of null is as if it had never been given."""
    changed = await platform.providers.update(
        principal, provider_id, changes=body.settings, api_key=body.api_key, request_id=request_id
    )
    return ProviderOut.of(changed, manages=True)


@router.delete("/{provider_id}", status_code=204, summary="Delete a provider")
async def delete(provider_id: UUID, principal: Manager, platform: ThePlatform, request_id: RequestId) -> Response:
    """With its key."""
    await platform.providers.delete(principal, provider_id, request_id=request_id)
    return Response(status_code=204)


@router.post("/{provider_id}/test", summary="Try a provider")
async def test(
    provider_id: UUID, body: ProviderTestIn, principal: Manager, platform: ThePlatform, request_id: RequestId
) -> ProviderTestOut:
    """One small real call, which costs what such a call costs, and is in the ledger."""
    found = await platform.providers.find(principal, provider_id)
    model = f"{found.name}/{body.model}" if body.model else found.offers[0].id
    llm = platform.runner.context(principal, request_id=request_id).llm
    request = ChatRequest([ChatMessage(role="user", content="Reply with the word OK.")], max_tokens=_TEST_TOKENS)
    started, said = time.monotonic(), list[str]()
    try:
        policy = Policy(model=model, fallback=False, query_type="provider_test")
        async with aclosing(llm.stream(request, policy=policy)) as deltas:
            async for delta in deltas:
                said.append(delta.text)
    except NeuroEdgeError as error:
        seconds = time.monotonic() - started
        return ProviderTestOut(ok=False, model=model, seconds=seconds, code=error.code, detail=error.detail)
    return ProviderTestOut(ok=True, model=model, seconds=time.monotonic() - started, answer="".join(said))


def _model(offer: Offer) -> OfferedModelOut:
    return OfferedModelOut.model_validate(offer)
