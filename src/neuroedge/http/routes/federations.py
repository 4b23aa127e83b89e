"""/v1/federations: models that clients train together on data they keep; clients, rounds, signed messages."""

import asyncio
import base64
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from neuroedge.http.auth import Reader, RequestId, ThePlatform, Writer
from neuroedge.services.federated_drafts import (
    FederationClientDraft,
    FederationDraft,
    FederationMessageDraft,
    FederationSettings,
)
from neuroedge.services.federated_messages import settings_of
from neuroedge.services.federated_rounds import spent
from neuroedge.stores.federated import Client, Federation, Phase, Round, RoundState

router = APIRouter(prefix="/v1/federations", tags=["federated learning"])


class FederationOut(BaseModel):
    """A model that is trained together."""

    id: UUID
    name: str
    state: Literal["open", "closed"]
    closed_because: str | None = Field(description="asked, or privacy_budget.")
    version: int = Field(description="Of the model: rounds that changed it.")
    weights_ref: str = Field(description="Where the newest version is read.")
    shapes: dict[str, list[int]] = Field(description="Shape of each array by its name.")
    settings: FederationSettings
    epsilon: float | None = Field(description="Privacy spent in all rounds; null: no noise, nothing is promised.")
    delta: float | None
    created_at: datetime
    closed_at: datetime | None

    @classmethod
    async def of(cls, found: Federation) -> "FederationOut":
        """From the stored row."""
        settings = settings_of(found)
        return cls(
            id=found.id,
            name=found.told["name"],
            state=found.state,
            closed_because=found.told.get("closed_because"),
            version=found.version,
            weights_ref=f"/v1/federations/{found.id}/weights",
            shapes=found.told["shapes"],
            settings=settings,
            epsilon=await asyncio.to_thread(spent, settings, found.noisy_rounds),
            delta=settings.delta if settings.noise_multiplier is not None else None,
            created_at=found.created_at,
            closed_at=found.closed_at,
        )


class FederationPage(BaseModel):
    """Federations of the organisation."""

    federations: list[FederationOut]
    next: UUID | None = Field(default=None, description="Give it as `before` to get the next page.")


class FederationClientOut(BaseModel):
    """Who may take part."""

    id: UUID
    name: str
    public_key: str
    revoked: bool
    created_at: datetime

    @classmethod
    def of(cls, found: Client) -> "FederationClientOut":
        """From the stored row."""
        return cls(
            id=found.id,
            name=found.name,
            public_key=found.public_key,
            revoked=found.revoked,
            created_at=found.created_at,
        )


class FederationClients(BaseModel):
    """All of them."""

    clients: list[FederationClientOut]


class FederatedResult(BaseModel):
    """What a round came to."""

    version: int = Field(description="Of the model after it.")
    clients: int = Field(description="Updates that were combined or rejected.")
    clipped: int = Field(description="Updates that were shortened by the server.")
    rejected: list[str] = Field(description="Names of clients whose updates had no part.")
    step_norm: float = Field(description="L2 length of the step.")
    epsilon: float | None = Field(description="Privacy spent up to and with this round.")
    delta: float | None


class FederationRoundOut(BaseModel):
    """A round."""

    id: UUID
    number: int
    state: RoundState = Field(description="open, collecting, aggregating, closed; or failed.")
    phase: Phase = Field(description="Which kind of message it takes.")
    base_version: int = Field(description="The model's version that updates start from.")
    deadline: datetime = Field(description="Of the phase.")
    error_code: str | None
    result: FederatedResult | None
    created_at: datetime
    finished_at: datetime | None

    @classmethod
    def of(cls, found: Round) -> "FederationRoundOut":
        """From the stored row."""
        return cls(
            id=found.id,
            number=found.number,
            state=found.state,
            phase=found.phase,
            base_version=found.told["base_version"],
            deadline=found.deadline,
            error_code=found.told.get("error_code"),
            result=found.told.get("result"),
            created_at=found.created_at,
            finished_at=found.finished_at,
        )


class FederationRounds(BaseModel):
    """Newest first."""

    rounds: list[FederationRoundOut]
    next: int | None = Field(default=None, description="Give it as `before` to get the next page.")


class FederationWeights(BaseModel):
    """A version of the model."""

    version: int
    npz: str = Field(description="An npz file of numpy (float32) in base64.")


class FederationMessageOut(BaseModel):
    """What became of a message."""

    known: bool = Field(description="It was there already.")
    round: FederationRoundOut


class SignedKeys(BaseModel):
    """What a client of a secure round said of its keys, as it signed it."""

    client_id: UUID
    public_key: str = Field(description="The client's registered key, which made the signature.")
    samples: int
    payload: str
    signature: str


class FederationInbox(BaseModel):
    """What a client of a secure round needs for its next message."""

    round: FederationRoundOut
    keys: list[SignedKeys]
    shares: dict[str, str] = Field(description="Sealed shares for this client, by sender.")
    senders: list[str] = Field(description="Who sent shares.")
    survivors: list[str] = Field(description="Who sent a masked update.")


@router.post("", status_code=201, summary="Make a federation")
async def create_federation(
    body: FederationDraft, principal: Writer, platform: ThePlatform, request_id: RequestId
) -> FederationOut:
    """A model as version 0, and how its rounds work."""
    return await FederationOut.of(await platform.federations.create(principal, body, request_id=request_id))


@router.get("", summary="List federations")
async def list_federations(
    principal: Reader,
    platform: ThePlatform,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    before: UUID | None = None,
) -> FederationPage:
    """Newest first."""
    found = await platform.federations.page(principal, limit=limit, before=before)
    following = found[-1].id if len(found) == limit else None
    return FederationPage(federations=[await FederationOut.of(one) for one in found], next=following)


@router.get("/{federation_id}", summary="Read a federation")
async def get_federation(federation_id: UUID, principal: Reader, platform: ThePlatform) -> FederationOut:
    """Its state, version and the privacy spent."""
    return await FederationOut.of(await platform.federations.get(principal, federation_id))


@router.delete("/{federation_id}", status_code=204, summary="Delete a federation")
async def delete_federation(
    federation_id: UUID, principal: Writer, platform: ThePlatform, request_id: RequestId
) -> None:
    """With its clients, rounds, updates and weights."""
    await platform.federations.delete(principal, federation_id, request_id=request_id)


@router.post("/{federation_id}/close", summary="Close a federation")
async def close_federation(
    federation_id: UUID, principal: Writer, platform: ThePlatform, request_id: RequestId
) -> FederationOut:
    """No round opens any more; the weights stay."""
    return await FederationOut.of(await platform.federations.close(principal, federation_id, request_id=request_id))


@router.get("/{federation_id}/weights", summary="Read the newest version of the model")
async def get_federation_weights(federation_id: UUID, principal: Reader, platform: ThePlatform) -> FederationWeights:
    """What the next round's updates start from."""
    found, data = await platform.federations.weights(principal, federation_id)
    return FederationWeights(version=found.version, npz=base64.b64encode(data).decode())


@router.post("/{federation_id}/clients", status_code=201, summary="Register a client")
async def register_federation_client(
    federation_id: UUID, body: FederationClientDraft, principal: Writer, platform: ThePlatform, request_id: RequestId
) -> FederationClientOut:
    """By its public key; again with the same key is fine."""
    found = await platform.federations.register(principal, federation_id, body, request_id=request_id)
    return FederationClientOut.of(found)


@router.get("/{federation_id}/clients", summary="List a federation's clients")
async def list_federation_clients(federation_id: UUID, principal: Reader, platform: ThePlatform) -> FederationClients:
    """All of them, with their public keys."""
    found = await platform.federations.clients(principal, federation_id)
    return FederationClients(clients=[FederationClientOut.of(client) for client in found])


@router.delete("/{federation_id}/clients/{client_id}", status_code=204, summary="Revoke a client")
async def revoke_federation_client(
    federation_id: UUID, client_id: UUID, principal: Writer, platform: ThePlatform, request_id: RequestId
) -> None:
    """Nothing more is taken from it; an update of a running round has no part, unless it is masked."""
    await platform.federations.revoke(principal, federation_id, client_id, request_id=request_id)


@router.post("/{federation_id}/rounds", status_code=201, summary="Open a round")
async def open_federation_round(
    federation_id: UUID, principal: Writer, platform: ThePlatform, request_id: RequestId
) -> FederationRoundOut:
    """One at a time; 409 when the privacy budget is spent, and then the federation is closed."""
    return FederationRoundOut.of(await platform.federations.open_round(principal, federation_id, request_id=request_id))


@router.get("/{federation_id}/rounds", summary="List a federation's rounds")
async def list_federation_rounds(
    federation_id: UUID,
    principal: Reader,
    platform: ThePlatform,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    before: Annotated[int | None, Query(ge=1, le=2**31 - 1)] = None,
) -> FederationRounds:
    """Newest first."""
    found = await platform.federations.rounds(principal, federation_id, limit=limit, before=before)
    following = found[-1].number if len(found) == limit else None
    return FederationRounds(rounds=[FederationRoundOut.of(one) for one in found], next=following)


@router.get("/{federation_id}/rounds/{round_id}", summary="Read a round")
async def get_federation_round(
    federation_id: UUID, round_id: UUID, principal: Reader, platform: ThePlatform
) -> FederationRoundOut:
    """Its state, phase and result."""
    return FederationRoundOut.of(await platform.federations.round(principal, federation_id, round_id))


@router.post("/{federation_id}/rounds/{round_id}/end", summary="Wait no longer")
async def end_federation_round(
    federation_id: UUID, round_id: UUID, principal: Writer, platform: ThePlatform, request_id: RequestId
) -> FederationRoundOut:
    """As if the deadline of the round, or of its phase, had passed."""
    found = await platform.federations.end(principal, federation_id, round_id, request_id=request_id)
    return FederationRoundOut.of(found)


@router.post("/{federation_id}/rounds/{round_id}/messages", summary="Send a client's message")
async def send_federation_message(
    federation_id: UUID, round_id: UUID, body: FederationMessageDraft, principal: Writer, platform: ThePlatform
) -> FederationMessageOut:
    """An update, or one of secure aggregation's messages; the same again changes nothing."""
    taken = await platform.federations.submit(principal, federation_id, round_id, body)
    return FederationMessageOut(known=taken.known, round=FederationRoundOut.of(taken.round))


@router.get("/{federation_id}/rounds/{round_id}/inbox/{client_id}", summary="Read what a client needs to go on")
async def get_federation_inbox(
    federation_id: UUID, round_id: UUID, client_id: UUID, principal: Reader, platform: ThePlatform
) -> FederationInbox:
    """In secure aggregation: others' keys, shares for this client, who stayed. Shares are sealed for the client."""
    found = await platform.federations.inbox(principal, federation_id, round_id, client_id)
    keys: list[dict[str, Any]] = [
        {
            "client_id": client.id,
            "public_key": client.public_key,
            "samples": message.told["samples"],
            "payload": message.told["payload"],
            "signature": message.told["signature"],
        }
        for client, message in found.keys
    ]
    return FederationInbox(
        round=FederationRoundOut.of(found.round),
        keys=[SignedKeys(**one) for one in keys],
        shares=found.shares,
        senders=found.senders,
        survivors=found.survivors,
    )
