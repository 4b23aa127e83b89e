"""Language models of providers in `GET /v1/models`, beside those of the catalogue; each as `provider/model`."""

from fnmatch import fnmatchcase
from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from neuroedge.contract.principal import Principal
from neuroedge.http.auth import Reader, ThePlatform
from neuroedge.http.openai.errors import ModelNotFound, OpenAIRoute
from neuroedge.http.platform import Platform
from neuroedge.services.llm.offers import LOCAL, Offer

router = APIRouter(tags=["models"], route_class=OpenAIRoute)


class RemoteModelOut(BaseModel):
    """A language model that the caller's organisation may use."""

    id: str = Field(description="As callers name it: provider/model.")
    object: Literal["model"] = "model"
    created: int = Field(default=0, description="Seconds since 1970; 0: not known.")
    owned_by: str = Field(description="The provider.")
    role: Literal["chat"] = "chat"
    private: bool = Field(description="Whether what is sent stays with the operator.")
    context_tokens: int
    max_output_tokens: int | None = None
    tools: bool
    images: bool

    @classmethod
    def of(cls, offer: Offer) -> "RemoteModelOut":
        """Without address, key and price."""
        return cls(
            id=offer.id,
            owned_by=offer.provider,
            private=offer.private,
            context_tokens=offer.context_tokens,
            max_output_tokens=offer.max_output_tokens,
            tools=offer.tools,
            images=offer.images,
        )


async def offered(platform: Platform, principal: Principal) -> list[Offer]:
    """What the caller may name, its key's own restriction considered."""
    offers = await platform.providers.offers(principal)
    if principal.models is None:
        return offers
    # As services/llm/permitted.py reads them: patterns, and a bare name is one of this machine's.
    allowed = [name if "/" in name else f"{LOCAL}/{name}" for name in principal.models]
    return [offer for offer in offers if any(fnmatchcase(offer.id, name) for name in allowed)]


@router.get("/v1/models/{provider}/{model:path}", summary="One model of a provider (OpenAI)")
async def show(provider: str, model: str, principal: Reader, platform: ThePlatform) -> RemoteModelOut:
    """A language model that the caller's organisation may use."""
    for offer in await offered(platform, principal):
        if (offer.provider, offer.model) == (provider, model):
            return RemoteModelOut.of(offer)
    raise ModelNotFound(f"there is no model {provider[:100]}/{model[:200]}", hint="GET /v1/models lists them")
