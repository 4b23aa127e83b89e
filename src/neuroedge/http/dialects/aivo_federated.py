"""AIVO Brain Service's paths for federated learning: a client's update, and the aggregation.

`update` goes to a round of /v1/federations; `aggregate` ends one, or combines the updates it is given.
"""

from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, model_validator

from neuroedge.contract.errors import Conflict
from neuroedge.contract.principal import WRITE
from neuroedge.engines.decision import federated as engine
from neuroedge.http.auth import RequestId, Requires, Runner, ThePlatform, Writer
from neuroedge.kit.federated.aggregation import Rule
from neuroedge.services.federated_drafts import FederationMessageDraft

router = APIRouter(prefix="/api/v1/federated", tags=["AIVO dialect"])
_writer = Requires(WRITE)
_RULES: dict[str, Rule] = {"fedavg": "mean", "trimmed_mean": "trimmed_mean", "krum": "multi_krum"}


class AivoFederatedUpdate(BaseModel):
    """A client's signed update."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    federation_id: UUID = Field(alias="federationId", description="Of /v1/federations.")
    round_id: UUID = Field(alias="roundId", description="The running round; the signature names it.")
    client_id: str = Field(alias="clientId", max_length=100, description="As registration gave it.")
    samples: int = Field(default=1, alias="numSamples", ge=1, le=engine.MAX_COUNT, description="Examples trained on.")
    weights: engine.Base64 = Field(description="Trained weights minus the base's: an npz file in base64.")
    signature: str = Field(max_length=200, description="Ed25519 in base64; docs/federated.md says over what.")

    @model_validator(mode="after")
    def _message(self) -> "AivoFederatedUpdate":
        self.message()
        return self

    def message(self) -> FederationMessageDraft:
        """As the service takes it. Raises ValueError."""
        return FederationMessageDraft(
            client_id=self.client_id, samples=self.samples, payload=self.weights, signature=self.signature
        )


class AivoFederatedTaken(BaseModel):
    """What became of it."""

    accepted: bool
    duplicate: bool = Field(description="It was there already.")
    roundId: UUID  # noqa: N815 - the dialect's own name
    status: str = Field(description="The round's state.")


class AivoClientUpdate(BaseModel):
    """An update to be combined at once."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    client_id: engine.Client = Field(alias="clientId", description="Each may send one.")
    samples: int = Field(default=1, alias="numSamples", ge=1, le=engine.MAX_COUNT, description="Examples trained on.")
    weights: dict[str, Any] = Field(description="Nested lists of numbers by the array's name.")


class AivoFederatedAggregate(BaseModel):
    """Either a federation whose running round is to end, or updates to combine."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    federation_id: UUID | None = Field(default=None, alias="federationId", description="End its running round.")
    updates: Annotated[list[AivoClientUpdate], Field(max_length=engine.MAX_UPDATES)] = Field(
        default_factory=list, description="Or combine these."
    )
    method: Literal["fedavg", "trimmed_mean", "krum"] = Field(default="fedavg", description="For `updates`.")
    attackers: int = Field(default=0, ge=0, le=engine.MAX_UPDATES, description="Malicious clients to withstand.")

    @model_validator(mode="after")
    def _either(self) -> "AivoFederatedAggregate":
        if (self.federation_id is None) == (not self.updates):
            raise ValueError("give either 'federationId' or 'updates'")
        return self


class AivoFederatedAggregated(BaseModel):
    """The new model, or the round that is being combined."""

    status: str = Field(description="closed: combined; otherwise the round's state.")
    roundId: UUID | None = None  # noqa: N815 - the dialect's own name
    version: int | None = Field(description="Of the weights; null while they are not there.")
    weights: str | None = Field(default=None, description="Of `updates`: an npz file in base64.")
    weightsRef: str | None = Field(default=None)  # noqa: N815 - the dialect's own name
    epsilon: float | None = None
    delta: float | None = None
    rejected: list[str] = Field(default_factory=list, description="Clients whose updates had no part.")


@router.post("/update", summary="Send a client's update")
async def federated_update(body: AivoFederatedUpdate, principal: Writer, platform: ThePlatform) -> AivoFederatedTaken:
    """To a running round; the same again is a duplicate."""
    taken = await platform.federations.submit(principal, body.federation_id, body.round_id, body.message())
    return AivoFederatedTaken(accepted=True, duplicate=taken.known, roundId=taken.round.id, status=taken.round.state)


@router.post("/aggregate", summary="Combine updates")
async def federated_aggregate(
    body: AivoFederatedAggregate, principal: Runner, platform: ThePlatform, request_id: RequestId
) -> AivoFederatedAggregated:
    """End a federation's running round, which a job then combines; or combine the given updates at once."""
    if body.federation_id is not None:
        return await _ended(body.federation_id, _writer.granted(principal), platform, request_id)
    updates = [
        {"client": update.client_id, "samples": update.samples, "weights": {"arrays": update.weights}}
        for update in body.updates
    ]
    payload = {"updates": updates, "rule": _RULES[body.method], "attackers": body.attackers}
    answer = await platform.runner.run("federated", payload, principal=principal, request_id=request_id)
    told = answer.model_dump(mode="json")
    return AivoFederatedAggregated(
        status="closed",
        version=told["version"],
        weights=told["weights"]["npz"],
        weightsRef=told["weights_ref"],
        epsilon=told["epsilon"],
        delta=told["delta"],
        rejected=[one["client"] for one in told["rejected"]],
    )


async def _ended(
    federation_id: UUID, principal: Writer, platform: ThePlatform, request_id: str
) -> AivoFederatedAggregated:
    newest = await platform.federations.rounds(principal, federation_id, limit=1)
    if not newest:
        raise Conflict("no round was opened yet", hint="POST /v1/federations/{federation_id}/rounds opens one")
    found = await platform.federations.end(principal, federation_id, newest[0].id, request_id=request_id)
    result = found.told.get("result") or {}
    return AivoFederatedAggregated(
        status=found.state,
        roundId=found.id,
        version=result.get("version"),
        weightsRef=f"/v1/federations/{federation_id}/weights" if result else None,
        epsilon=result.get("epsilon"),
        delta=result.get("delta"),
        rejected=result.get("rejected", []),
    )
