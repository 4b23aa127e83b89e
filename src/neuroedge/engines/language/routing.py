"""Routing: which engine serves a request in words, and which kind of language model it needs.

A multinomial logistic regression over the request's sentence vector, with temperature scaling and abstention (Guo et
al. 2017, "On Calibration of Modern Neural Networks", ICML); beside it a Platt-scaled head for whether a request asks
much of a language model. Role routing; the default head is trained in NeuroEdge (training/routing.py) on requests
written for it. Licence: Apache-2.0, data CC0. Personal data (kit/personal_data.py) keeps a request on the machine.
Limits of use: English requests of one sentence or two, all written by one author: real users write otherwise, and the
figures of the card are the better for it. One engine for each request. It proposes; it calls nothing.
"""

import asyncio
import pkgutil
from functools import cache
from typing import Annotated, Final, Literal, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field

import neuroedge.engines
from neuroedge.contract.chat import Policy
from neuroedge.contract.engine import Engine, EngineContext, EngineInput, EngineOutput
from neuroedge.contract.errors import InvalidInput, ModelUnavailable, NeuroEdgeError
from neuroedge.contract.models import TEXT_EMBEDDING, Floats, ModelRef, TextClassifier
from neuroedge.kit import personal_data

DEMANDING: Final = "demanding"
"""The head's last label: beside the engines, and not excluding them."""
GENERATING: Final = frozenset({"artifact", "chat", "reasoning", "simplification", "summarization", "translation"})
"""Engines that ask, or may ask, a language model."""
_LIKELY_PERSONAL: Final = 0.5


@runtime_checkable
class RoutingHead(TextClassifier, Protocol):
    """A head over engines that exclude each other, which knows its encoder and when to abstain."""

    embedding_model: str
    abstain_below: float
    exclusive: int
    """How many of the labels, the first ones, are engines."""


ROUTING: Final = ModelRef("routing", RoutingHead)  # type: ignore[type-abstract]
Request = Annotated[str, Field(min_length=1, max_length=4000, pattern=r"\S")]


class Input(EngineInput):
    """Requests in words."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    requests: list[Request] = Field(min_length=1, max_length=256, description="What users ask, 1 to 256 requests.")
    targets: list[Annotated[str, Field(max_length=100)]] | None = Field(
        default=None, min_length=1, max_length=100, description="Engines that may be chosen; all if absent."
    )
    abstain_below: float | None = Field(
        default=None, ge=0, le=1, description="Abstain where the best p is lower; the level chosen on dev if absent."
    )
    local_only: bool = Field(default=False, description="Whether nothing may leave the machine.")
    alternatives: int = Field(default=3, ge=0, le=10, description="How many other engines to give.")


class RoutingTarget(BaseModel):
    """An engine with its probability."""

    target: str = Field(description="Name of the engine.")
    p: float = Field(description="Calibrated probability (0..1) that it serves the request.")


class RoutedProvider(BaseModel):
    """Which kind of language model the request needs."""

    kind: Literal["none", "local", "external"] = Field(
        description="none: the engine asks no language model; local: a small one on the machine will do, or must; "
        "external: a large one is worth asking."
    )
    p_demanding: float = Field(description="Probability (0..1) that the request asks much of a language model.")
    reason: str = Field(description="What decided.")


class RoutedRequest(BaseModel):
    """The answer on one request."""

    target: str | None = Field(description="The engine; null when abstained.")
    p: float = Field(description="Calibrated probability (0..1) of the best engine, also when abstained.")
    abstained: bool = Field(description="Whether no engine is likely enough: ask the user, or let chat answer.")
    alternatives: list[RoutingTarget] = Field(description="The next best engines; all of them when abstained.")
    provider: RoutedProvider | None = Field(description="Kind of language model; null when abstained.")
    truncated: bool = Field(description="Whether the sentence encoder read only the beginning.")


class Output(EngineOutput):
    """Where each request should go."""

    results: list[RoutedRequest] = Field(description="One for each request, in its order.")
    abstain_below: float = Field(description="The level of abstention that was used.")
    model_local: str | None = Field(description="The model on this machine that would be asked; null if there is none.")
    model_any: str | None = Field(description="The model that would be asked where all may be; null if there is none.")
    unknown_engines: list[str] = Field(description="Registered engines the head does not know: they are never chosen.")
    reliable: bool = Field(description="Whether every request was answered and read to its end.")
    warnings: list[str] = Field(description="What is uncertain.")


class Routing(Engine[Input, Output]):
    """The routing head, and a rule for personal data."""

    name = "routing"
    title = "Which engine and model serve a request"
    method = "routing-head"
    example = Input(requests=["Please transcribe this recording of our meeting.", "Turn on the light in the kitchen."])
    needs = (TEXT_EMBEDDING, ROUTING)

    async def run(self, payload: Input, ctx: EngineContext) -> Output:
        """Route. Raises InvalidInput for unknown targets, ModelUnavailable without head or encoder."""
        async with ctx.models.lease(ROUTING) as head:
            async with ctx.models.lease(TEXT_EMBEDDING.named(head.embedding_model)) as encoder:
                found = await encoder.encode(payload.requests)
                model_id, most = encoder.model_id, encoder.max_tokens
            p = await head.predict(found.vectors)
            allowed = _allowed(head, payload.targets)
        level = head.abstain_below if payload.abstain_below is None else payload.abstain_below
        personal = await asyncio.to_thread(lambda: [_is_personal(text) for text in payload.requests])
        cut = [tokens >= most for tokens in found.tokens]
        results = [
            _routed(p[i], head, allowed, payload, level=level, personal=personal[i], truncated=cut[i])
            for i in range(len(p))
        ]
        engines = head.labels[: head.exclusive]
        warnings = [f"{sum(cut)} requests were read only in part"] if any(cut) else []
        return Output(
            method=self.method,
            models=[model_id, head.model_id],
            results=results,
            abstain_below=round(level, 4),
            model_local=await _model(ctx, Policy(local_only=True)),
            model_any=await _model(ctx, Policy(local_only=payload.local_only, prefer="quality")),
            unknown_engines=sorted(registered() - {*engines}),
            reliable=not any(cut) and not any(result.abstained for result in results),
            warnings=warnings,
        )

    async def post_swap_test(self) -> None:
        """A recording goes to transcription; nothing switches on a light."""
        await super().post_swap_test()
        answer = await self.run(self.example, self.probe)
        if [result.target for result in answer.results] != ["transcription", None]:
            raise ModelUnavailable("the routing head misjudges its own example")


@cache
def registered() -> frozenset[str]:
    """Names of the engines that come with NeuroEdge, by their files."""
    found = pkgutil.walk_packages(neuroedge.engines.__path__, "neuroedge.engines.")
    return frozenset(info.name.rsplit(".", 1)[1] for info in found if not info.ispkg)


def _allowed(head: RoutingHead, targets: list[str] | None) -> list[int]:
    """Positions of the labels that may be chosen."""
    engines = head.labels[: head.exclusive]
    if targets is not None and (unknown := sorted({*targets} - {*engines})):
        problem = {"loc": ["body", "targets"], "msg": f"unknown: {', '.join(unknown[:5])}", "type": "unknown_target"}
        raise InvalidInput(
            f"the routing head knows no {unknown[0]!r}", hint=f"known: {', '.join(engines)}", errors=[problem]
        )
    wanted = registered() if targets is None else set(targets) & registered()
    return [i for i, name in enumerate(engines) if name in wanted]


def _routed(
    p: Floats,
    head: RoutingHead,
    allowed: list[int],
    payload: Input,
    *,
    level: float,
    personal: bool,
    truncated: bool,
) -> RoutedRequest:
    order = sorted(allowed, key=lambda i: -p[i])
    best = order[0]
    abstained = float(p[best]) < level
    others = order[: payload.alternatives] if abstained else order[1 : 1 + payload.alternatives]
    target = None if abstained else head.labels[best]
    demand = float(p[head.labels.index(DEMANDING)])
    return RoutedRequest(
        target=target,
        p=round(float(p[best]), 4),
        abstained=abstained,
        alternatives=[RoutingTarget(target=head.labels[i], p=round(float(p[i]), 4)) for i in others],
        provider=None if target is None else _provider(target, demand, personal=personal, local=payload.local_only),
        truncated=truncated,
    )


def _provider(target: str, demand: float, *, personal: bool, local: bool) -> RoutedProvider:
    kind: Literal["none", "local", "external"]
    if target not in GENERATING:
        kind, reason = "none", f"{target} asks no language model by default"
    elif local or personal:
        kind, reason = "local", "nothing may leave the machine" if local else "the request holds personal data"
    elif demand >= 0.5:
        kind, reason = "external", "the request asks much of a language model"
    else:
        kind, reason = "local", "a small model will do"
    return RoutedProvider(kind=kind, p_demanding=round(demand, 4), reason=reason)


def _is_personal(text: str) -> bool:
    return any(hit.score >= _LIKELY_PERSONAL for hit in personal_data.find(text))


async def _model(ctx: EngineContext, policy: Policy) -> str | None:
    try:
        return (await ctx.llm.chosen(policy)).model_id
    except NeuroEdgeError:
        return None
