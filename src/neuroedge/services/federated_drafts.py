"""What callers give to federations, checked."""

import base64
import binascii
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from neuroedge.engines.decision.federated import FederatedWeights
from neuroedge.kit.federated import secure
from neuroedge.kit.federated.aggregation import Rule, least_clients
from neuroedge.kit.federated.privacy import MIN_NOISE_MULTIPLIER
from neuroedge.kit.federated.signing import KEY_BYTES, SIGNATURE_BYTES
from neuroedge.services.memory_drafts import without_nul

MAX_CLIENTS: Final = 500
MAX_SAMPLES: Final = 1_000_000_000
_MAX_PAYLOAD_CHARACTERS: Final = 22_000_000

Label = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(without_nul)]


def decoded(text: str) -> bytes:
    """The bytes of base64. Raises ValueError."""
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError("this is no base64") from error


def _exactly(size: int) -> AfterValidator:
    def check(text: str) -> str:
        if len(decoded(text)) != size:
            raise ValueError(f"{size} bytes in base64 are needed")
        return text

    return AfterValidator(check)


PublicKey = Annotated[str, StringConstraints(max_length=100), _exactly(KEY_BYTES)]
Signature = Annotated[str, StringConstraints(max_length=200), _exactly(SIGNATURE_BYTES)]


class FederationSettings(BaseModel):
    """How the rounds of a federation work."""

    model_config = ConfigDict(extra="forbid")

    rule: Rule = Field(default="mean", description="How updates are combined.")
    attackers: int = Field(default=0, ge=0, le=MAX_CLIENTS, description="Malicious clients a robust rule withstands.")
    optimizer: Literal["sgd", "fedadam"] = Field(default="sgd", description="How the server takes the step.")
    server_rate: float = Field(default=1.0, gt=0, le=1000, allow_inf_nan=False, description="The server's step size.")
    clip_norm: float | None = Field(
        default=None, gt=0, le=1e6, allow_inf_nan=False, description="Longest update (L2); longer ones are shortened."
    )
    noise_multiplier: float | None = Field(
        default=None,
        ge=MIN_NOISE_MULTIPLIER,
        le=1000,
        allow_inf_nan=False,
        description="Noise of each round, in units of clip_norm; null: no differential privacy.",
    )
    delta: float = Field(default=1e-5, gt=0, lt=0.1, allow_inf_nan=False, description="Chance that epsilon fails.")
    epsilon_budget: float | None = Field(
        default=None,
        gt=0,
        le=1000,
        allow_inf_nan=False,
        description="Needs noise: no round opens that would exceed it.",
    )
    secure: bool = Field(default=False, description="Secure aggregation: the server learns the sum only.")
    min_clients: int = Field(default=2, ge=1, le=MAX_CLIENTS, description="Fewer updates: the round fails.")
    deadline_s: float = Field(
        default=3600,
        ge=1,
        le=604_800,
        allow_inf_nan=False,
        description="Seconds for a round, or a phase of a secure one.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> "FederationSettings":
        if self.secure and self.rule != "mean":
            raise ValueError("robust rules must see each update, which secure aggregation hides: use one of them")
        if self.secure and (not secure.MIN_CLIENTS <= self.min_clients <= secure.MAX_CLIENTS or self.clip_norm is None):
            raise ValueError(
                f"secure aggregation needs clip_norm, which bounds values, and {secure.MIN_CLIENTS} to"
                f" {secure.MAX_CLIENTS} clients"
            )
        if self.noise_multiplier is not None and (self.rule != "mean" or self.clip_norm is None):
            raise ValueError("noise is calibrated for the rule 'mean' with 'clip_norm'")
        if (self.noise_multiplier is None) != (self.epsilon_budget is None):
            raise ValueError("noise_multiplier and epsilon_budget belong together")
        if self.rule == "mean" and self.attackers:
            raise ValueError("the mean withstands no attackers: use 'trimmed_mean' or 'multi_krum'")
        if self.min_clients < (least := least_clients(self.rule, attackers=self.attackers)):
            raise ValueError(f"{self.rule} against {self.attackers} attackers needs min_clients of at least {least}")
        return self


class FederationDraft(BaseModel):
    """A model to train together."""

    model_config = ConfigDict(extra="forbid")

    name: Label = Field(description="For people.")
    weights: FederatedWeights = Field(description="Version 0; its arrays' names and shapes hold for all versions.")
    settings: FederationSettings = Field(default_factory=FederationSettings)


class FederationClientDraft(BaseModel):
    """Who may take part."""

    model_config = ConfigDict(extra="forbid")

    name: Label = Field(description="Unique in the federation.")
    public_key: PublicKey = Field(description="Ed25519, 32 raw bytes in base64; the private key stays with the client.")


class FederationMessageDraft(BaseModel):
    """What a client says in a round, signed."""

    model_config = ConfigDict(extra="forbid")

    client_id: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")] = Field(
        description="As registration gave it."
    )
    kind: Literal["update", "keys", "shares", "masked", "unmask"] = Field(
        default="update", description="The round's phase: `update`, or one of secure aggregation's."
    )
    samples: int = Field(default=1, ge=1, le=MAX_SAMPLES, description="Examples the client trained on.")
    payload: Annotated[str, StringConstraints(min_length=1, max_length=_MAX_PAYLOAD_CHARACTERS)] = Field(
        description="In base64. update: an npz file of weights minus the base's; the other kinds: docs/federated.md."
    )
    signature: Signature = Field(description="Ed25519, over the text docs/federated.md gives.")
