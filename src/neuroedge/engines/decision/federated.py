"""Federated learning: combine the updates of clients that trained a model on data they keep.

Task: one server step from the clients' differences to a base model. Methods: FedAvg (McMahan et al., 2017); the
coordinate-wise trimmed mean (Yin et al., 2018) and multi-Krum (Blanchard et al., 2017), which withstand a stated number
of attackers; clipping with Gaussian noise and an accountant (DP-FedAvg, McMahan et al., 2018); FedAdam on the server
(Reddi et al., 2021); sums of masked updates (Bonawitz et al., 2017). Model: none; code: this repository's, accountant:
dp-accounting (Apache-2.0). Limits of use: federated learning alone is not privacy: updates can be inverted; without
noise `epsilon` is null. Robust rules must see each update, so they exclude secure aggregation; noise is calibrated for
the mean only. The noise is of a statistical generator in floating point, whose low bits leak (Mironov, 2012). Rounds
with signed updates, deadlines and a privacy budget are at /v1/federations; this engine keeps nothing.
"""

import asyncio
import base64
import binascii
import hashlib
import math
from typing import Annotated, Any, Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from neuroedge.contract.engine import Engine, EngineContext, EngineInput, EngineOutput
from neuroedge.contract.errors import InvalidInput, TooLarge
from neuroedge.kit.federated import aggregation, privacy, secure, weights
from neuroedge.kit.federated.aggregation import Adam, Rule
from neuroedge.kit.federated.privacy import MIN_NOISE_MULTIPLIER, Accountant
from neuroedge.kit.federated.weights import Vector, Weights

MAX_UPDATES: Final = 500
MAX_NUMBERS: Final = 20_000_000
"""Parameters times updates: 80 MB."""
MAX_COUNT: Final = 1_000_000_000
_BASE64_CHARACTERS: Final = weights.MAX_PARAMETERS * 11
_METHODS: Final = {"mean": "fedavg", "trimmed_mean": "trimmed-mean", "multi_krum": "multi-krum"}

Base64 = Annotated[str, StringConstraints(min_length=1, max_length=_BASE64_CHARACTERS)]
Client = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class FederatedWeights(BaseModel):
    """Named arrays of numbers: exactly one of the fields."""

    model_config = ConfigDict(extra="forbid")

    arrays: dict[str, Any] | None = Field(
        default=None, description="Nested lists of numbers by the name of the array, as in {'w': [[0.1, 0.2]], 'b': 0}."
    )
    npz: Base64 | None = Field(default=None, description="An npz file of numpy (float32, no pickles) in base64.")

    @model_validator(mode="after")
    def _readable(self) -> "FederatedWeights":
        if (self.arrays is None) == (self.npz is None):
            raise ValueError("give exactly one of 'arrays' and 'npz'")
        self.read()
        return self

    def read(self) -> dict[str, Vector]:
        """The arrays. Raises ValueError."""
        if self.arrays is not None:
            return weights.of_lists(self.arrays)
        return weights.of_npz(_bytes(self.npz or ""))

    @classmethod
    def of(cls, given: Weights) -> "FederatedWeights":
        """As npz."""
        return cls.model_construct(npz=base64.b64encode(weights.to_npz(given)).decode())


class FederatedUpdate(BaseModel):
    """What one client learned."""

    model_config = ConfigDict(extra="forbid")

    client: Client = Field(description="The client's name; each may send one update.")
    samples: int = Field(default=1, ge=1, le=MAX_COUNT, description="Examples it trained on: its weight in the mean.")
    weights: FederatedWeights = Field(description="Its weights minus the base model's.")


class MaskedUpdate(BaseModel):
    """An update of which only the sum with all others says anything."""

    model_config = ConfigDict(extra="forbid")

    client: Client = Field(description="The client's name; each may send one update.")
    masked: Base64 = Field(description="uint32 (little-endian) in base64: the quantised update plus masks, mod 2^32.")


class SecureSum(BaseModel):
    """Masked updates whose masks cancel in the sum (pairwise masks only, nobody missing)."""

    model_config = ConfigDict(extra="forbid")

    updates: list[MaskedUpdate] = Field(min_length=2, max_length=MAX_UPDATES, description="All clients' updates.")
    shapes: dict[str, Annotated[list[Annotated[int, Field(ge=1)]], Field(max_length=8)]] = Field(
        min_length=1, max_length=weights.MAX_ARRAYS, description="Shape of each array by its name."
    )
    bound: float = Field(
        gt=0, le=1e6, allow_inf_nan=False, description="Largest absolute value that was quantised, in weights."
    )


class Noise(BaseModel):
    """Differential privacy for a client's whole contribution."""

    model_config = ConfigDict(extra="forbid")

    multiplier: float = Field(
        ge=MIN_NOISE_MULTIPLIER,
        le=1000,
        allow_inf_nan=False,
        description="Standard deviation of the noise / clip_norm.",
    )
    delta: float = Field(default=1e-5, gt=0, lt=0.1, allow_inf_nan=False, description="Chance that epsilon fails.")
    rounds_before: int = Field(default=0, ge=0, le=100_000, description="Rounds with the same noise before this one.")
    sampling: float = Field(
        default=1.0,
        gt=0,
        le=1,
        allow_inf_nan=False,
        description="Chance with which each client takes part, drawn independently for each round; 1 claims nothing.",
    )
    accountant: Accountant = Field(default="rdp", description="pld is tighter; for little noise in many rounds: rdp.")


class Input(EngineInput):
    """Updates of one round and how to combine them."""

    updates: list[FederatedUpdate] = Field(
        default_factory=list, max_length=MAX_UPDATES, description="The clients' updates; or give `secure`."
    )
    secure: SecureSum | None = Field(default=None, description="Masked updates instead of visible ones.")
    base: FederatedWeights | None = Field(
        default=None, description="The model that the updates start from; null: all zeros, the answer is the step."
    )
    base_version: int = Field(
        default=0, ge=0, le=MAX_COUNT, description="The base's version; the answer's is one more."
    )
    rule: Rule = Field(default="mean", description="How updates are combined.")
    attackers: int = Field(
        default=0, ge=0, le=MAX_UPDATES, description="Malicious clients that a robust rule withstands."
    )
    clip_norm: float | None = Field(
        default=None, gt=0, le=1e6, allow_inf_nan=False, description="Longest update (L2); longer ones are shortened."
    )
    noise: Noise | None = Field(default=None, description="Needs clip_norm and the rule mean.")
    optimizer: Literal["sgd", "fedadam"] = Field(default="sgd", description="How the server takes the step.")
    server_rate: float = Field(default=1.0, gt=0, le=1000, allow_inf_nan=False, description="The server's step size.")
    server_state: FederatedWeights | None = Field(
        default=None, description="FedAdam: `server_state` of the answer before; null in the first round."
    )

    @field_validator("updates")
    @classmethod
    def _one_each(cls, updates: list[FederatedUpdate]) -> list[FederatedUpdate]:
        if len({update.client for update in updates}) < len(updates):
            raise ValueError("a client has more than one update")
        return updates

    @model_validator(mode="after")
    def _consistent(self) -> "Input":
        if bool(self.updates) == (self.secure is not None):
            raise ValueError("give either 'updates' or 'secure'")
        if self.secure is not None and (self.rule != "mean" or self.clip_norm is not None):
            raise ValueError(
                "robust rules and clipping must see each update, which secure aggregation hides: use the rule 'mean'"
                " without clip_norm, or send 'updates'"
            )
        if self.secure is not None and self.noise is not None:
            raise ValueError(
                "'noise' needs updates that were clipped, which masks hide: rounds at /v1/federations do both"
            )
        if self.noise is not None and (self.rule != "mean" or self.clip_norm is None):
            raise ValueError("'noise' is calibrated for the rule 'mean' with 'clip_norm'")
        if self.rule == "mean" and self.attackers:
            raise ValueError("the mean withstands no attackers: use 'trimmed_mean' or 'multi_krum'")
        if self.server_state is not None and self.optimizer != "fedadam":
            raise ValueError("'server_state' belongs to the optimizer 'fedadam'")
        return self


class Rejected(BaseModel):
    """An update that had no part in the answer."""

    client: str = Field(description="Whose.")
    reason: str = Field(description="Why.")


class Output(EngineOutput):
    """The next version of the model."""

    version: int = Field(description="Of the weights below.")
    weights: FederatedWeights = Field(description="Base plus step, as npz (float32).")
    weights_ref: str = Field(description="sha256 of the npz file's bytes.")
    step_norm: float = Field(description="L2 length of the step.")
    clients: int = Field(description="Updates that were given.")
    clipped: int = Field(description="Updates that were shortened.")
    rejected: list[Rejected] = Field(description="Clients whose updates had no part.")
    epsilon: float | None = Field(description="Privacy spent up to this round; null: no noise, nothing is promised.")
    delta: float | None = Field(description="Chance that epsilon fails; null without noise.")
    server_state: FederatedWeights | None = Field(description="FedAdam's: give it with the next round.")
    reliable: bool = Field(description="False: see the warnings.")
    warnings: list[str] = Field(description="What to know before the weights are used.")


class Federated(Engine[Input, Output]):
    """Combines clients' updates."""

    name = "federated"
    title = "Federated learning"
    method = "fedavg"
    example = Input(
        updates=[
            FederatedUpdate(
                client="school-a", samples=30, weights=FederatedWeights(arrays={"w": [0.1, -0.2], "b": 0.5})
            ),
            FederatedUpdate(
                client="school-b", samples=10, weights=FederatedWeights(arrays={"w": [0.3, 0.2], "b": 0.1})
            ),
        ],
        base=FederatedWeights(arrays={"w": [1.0, 1.0], "b": 0.0}),
        base_version=3,
    )

    async def run(self, payload: Input, ctx: EngineContext) -> Output:
        """Combine the updates. Raises InvalidInput where shapes differ or there are too few, TooLarge."""
        try:
            return await asyncio.to_thread(_combined, payload)
        except ValueError as error:
            raise InvalidInput(
                str(error), hint="send arrays of the same names and shapes from enough clients"
            ) from error


def _combined(payload: Input) -> Output:
    base = payload.base.read() if payload.base else None
    if payload.secure is not None:
        shapes, step = _summed(payload.secure)
        clients, clipped, rejected = [u.client for u in payload.secure.updates], 0, list[int]()
    else:
        given = [update.weights.read() for update in payload.updates]
        shapes = weights.shapes_of(base if base is not None else given[0])
        _within(weights.size(shapes) * len(given))
        clients = [update.client for update in payload.updates]
        found = aggregation.combine(
            np.stack([_flat(client, one, shapes) for client, one in zip(clients, given, strict=True)]),
            rule=payload.rule,
            counts=None if payload.noise else [update.samples for update in payload.updates],
            attackers=payload.attackers,
            clip_norm=payload.clip_norm,
            noise_multiplier=payload.noise.multiplier if payload.noise else 0.0,
        )
        step, clipped, rejected = found.step, found.clipped, found.rejected
    state, rate = None, payload.server_rate
    if payload.optimizer == "fedadam":
        step, moments = aggregation.adam_step(step, _moments(payload, shapes), rate=rate)
        state, rate = FederatedWeights.of({"m": moments.m, "v": moments.v}), 1.0
    before = np.zeros_like(step) if base is None else _flat("the base", base, shapes)
    data = weights.to_npz(weights.shaped(aggregation.moved(before, step, rate=rate), shapes))
    warnings = _warnings(payload, clients=len(clients), parameters=step.size)
    noise = payload.noise
    return Output(
        method=_method(payload),
        version=payload.base_version + 1,
        weights=FederatedWeights.model_construct(npz=base64.b64encode(data).decode()),
        weights_ref=f"sha256:{hashlib.sha256(data).hexdigest()}",
        step_norm=rate * float(np.linalg.norm(step.astype(np.float64))),
        clients=len(clients),
        clipped=clipped,
        rejected=[Rejected(client=clients[i], reason="far from the others (multi-Krum)") for i in rejected],
        epsilon=_epsilon(noise) if noise else None,
        delta=noise.delta if noise else None,
        server_state=state,
        reliable=not warnings,
        warnings=warnings,
    )


def _summed(given: SecureSum) -> tuple[dict[str, tuple[int, ...]], Vector]:
    if len({update.client for update in given.updates}) < len(given.updates):
        raise ValueError("a client has more than one update")
    shapes = {name: tuple(shape) for name, shape in given.shapes.items()}
    length = weights.size(weights.checked_shapes(shapes))
    _within(length * len(given.updates))
    total = np.zeros(length, np.uint32)
    for update in given.updates:
        total += secure.of_bytes(_bytes(update.masked), length)
    values = secure.dequantised(total, bound=given.bound, clients=len(given.updates))
    return shapes, (values / len(given.updates)).astype(np.float32)


def _moments(payload: Input, shapes: weights.Shapes) -> Adam | None:
    if payload.server_state is None:
        return None
    length = (weights.size(shapes),)
    state = payload.server_state.read()
    if weights.shapes_of(state) != {"m": length, "v": length} or (state["v"] < 0).any():
        raise ValueError("'server_state' is not of this model")
    return Adam(m=state["m"], v=state["v"])


def _warnings(payload: Input, *, clients: int, parameters: int) -> list[str]:
    found = []
    if clients == 1:
        found.append("one client only: the answer is its update")
    if payload.noise is not None and (ratio := payload.noise.multiplier * math.sqrt(parameters) / clients) > 1:
        found.append(f"the noise is about {ratio:.1f} times as long as the longest update: more clients are needed")
    return found


def _method(payload: Input) -> str:
    parts = ["secure-sum" if payload.secure else _METHODS[payload.rule]]
    if payload.noise:
        parts = [f"dp-{parts[0]}"]
    if payload.optimizer == "fedadam":
        parts.append("fedadam")
    return "+".join(parts)


def _epsilon(noise: Noise) -> float:
    return privacy.epsilon(
        noise_multiplier=noise.multiplier,
        rounds=noise.rounds_before + 1,
        delta=noise.delta,
        sampling=noise.sampling,
        accountant=noise.accountant,
    )


def _flat(whose: str, given: Weights, shapes: weights.Shapes) -> Vector:
    try:
        return weights.flat(given, shapes)
    except ValueError as error:
        raise ValueError(f"{whose}: {error}") from error


def _within(numbers: int) -> None:
    if numbers > MAX_NUMBERS:
        raise TooLarge(f"{numbers} numbers in all; at most {MAX_NUMBERS}", hint="send fewer updates at once")


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError("this is no base64") from error
