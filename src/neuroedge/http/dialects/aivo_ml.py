"""AIVO Brain Service's paths for predictions over the engines of learning: {modelType, input, learnerId} in,
{prediction, confidence, …} out.

`input` holds the engine's own fields, in snake_case or camelCase. Without the engine's data in it, the events kept of
`learnerId` are used (POST /v1/learners/{id}/events).
"""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from neuroedge.contract.principal import Principal
from neuroedge.http.auth import RequestId, Runner, ThePlatform, platform_of
from neuroedge.http.platform import Platform
from neuroedge.services import callers
from neuroedge.services.callers import PREDICTIONS
from neuroedge.services.learners import Name
from neuroedge.services.predictions import Kind, Predictions

router = APIRouter(prefix="/api/v1", tags=["AIVO dialect"])


class MlIn(BaseModel):
    """What to predict, and from what."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True, protected_namespaces=())

    model_type: Annotated[str, Field(max_length=100)] | None = Field(
        default=None, alias="modelType", description="The client's own name of it; given back."
    )
    input: dict[str, Any] = Field(default_factory=dict, description="The engine's input, in either spelling.")
    learner_id: Name | None = Field(default=None, alias="learnerId", description="Whose kept events to use.")


class MlOut(BaseModel):
    """An answer of an engine."""

    prediction: Any = Field(description="What the engine says; null: it rests on too little.")
    confidence: float | None = Field(
        description="Probability (0..1) of what `prediction` says, as the engine gives it; null: the engine gives none."
    )
    modelType: str  # noqa: N815 - the dialect's own name
    learnerId: str | None  # noqa: N815 - the dialect's own name
    engine: str
    method: str
    reliable: bool
    warnings: list[str]
    details: dict[str, Any] = Field(description="The engine's whole answer.")


async def _within_limit(request: Request, principal: Runner) -> Principal:
    """The caller, one of whose organisation's predictions this is. Raises Overloaded."""
    platform = platform_of(request)
    per_minute = platform.settings.ml_requests_per_minute
    callers.granted(await callers.spend(platform.limits, PREDICTIONS, per_minute, principal), PREDICTIONS)
    return principal


Predictor = Annotated[Principal, Depends(_within_limit)]


@router.post("/ml/predict/difficulty", summary="Chance of a right answer")
async def difficulty(body: MlIn, principal: Predictor, platform: ThePlatform, request_id: RequestId) -> MlOut:
    """Of `input.responses`, or of the learner's kept answers for `input.items`; prediction: the chance, or a list."""
    return await _predicted("difficulty", body, platform, principal, request_id)


@router.post("/ml/predict/engagement", summary="Chance of having disengaged")
async def engagement(body: MlIn, principal: Predictor, platform: ThePlatform, request_id: RequestId) -> MlOut:
    """Of `input.events`, or of the learner's latest kept session; prediction: engaged or disengaged."""
    return await _predicted("engagement", body, platform, principal, request_id)


@router.post("/ml/detect/learning-style", summary="Whether the form of presentation matters")
async def learning_style(body: MlIn, principal: Predictor, platform: ThePlatform, request_id: RequestId) -> MlOut:
    """Of `input.outcomes`, or of kept answers; prediction: the verdict, which is "insufficient" by default."""
    return await _predicted("learning_style", body, platform, principal, request_id)


@router.post("/ml/detect/emotion", summary="Emotions of words")
async def emotion(body: MlIn, principal: Predictor, platform: ThePlatform, request_id: RequestId) -> MlOut:
    """Of `input.text`, or the emotion engine's own input; prediction: the likeliest label, null when it abstains."""
    return await _predicted("emotion", body, platform, principal, request_id)


@router.post("/ml/predict/focus", summary="Focus against the learner's own usual")
async def focus(body: MlIn, principal: Predictor, platform: ThePlatform, request_id: RequestId) -> MlOut:
    """Of `input.responses`, or of the learner's kept sessions; prediction: a score of 0 to 100, 50 is usual."""
    return await _predicted("focus", body, platform, principal, request_id)


@router.post("/ml/personalize", summary="What to learn next")
async def personalize(body: MlIn, principal: Predictor, platform: ThePlatform, request_id: RequestId) -> MlOut:
    """Of `input.skills`, with the learner's kept mastery unless `input.mastery` is given; prediction: next steps."""
    return await _predicted("personalize", body, platform, principal, request_id)


@router.post("/ml/recommend/content", summary="What to show next")
async def recommend_content(body: MlIn, principal: Predictor, platform: ThePlatform, request_id: RequestId) -> MlOut:
    """Of `input.interactions`, for `learnerId` where taste is asked for; prediction: items, the first one drawn."""
    return await _predicted("recommendation", body, platform, principal, request_id)


@router.post("/analytics/focus", summary="Focus with what it is made of")
async def analyse_focus(body: MlIn, principal: Predictor, platform: ThePlatform, request_id: RequestId) -> MlOut:
    """Prediction: score, interval and components."""
    return await _predicted("focus_analysis", body, platform, principal, request_id)


@router.post("/analytics/break", summary="When a break will be wanted")
async def analyse_break(body: MlIn, principal: Predictor, platform: ThePlatform, request_id: RequestId) -> MlOut:
    """Prediction: when to suggest it, seconds from the session's start; confidence: chance within five minutes."""
    return await _predicted("break", body, platform, principal, request_id)


@router.post("/analytics/attention", summary="The course of a session")
async def analyse_attention(body: MlIn, principal: Predictor, platform: ThePlatform, request_id: RequestId) -> MlOut:
    """Prediction: stretches of the session with their state."""
    return await _predicted("attention", body, platform, principal, request_id)


async def _predicted(kind: Kind, body: MlIn, platform: Platform, principal: Principal, request_id: str) -> MlOut:
    predictions = Predictions(runner=platform.runner, learners=platform.learners)
    found = await predictions.predict(
        kind, body.input, learner=body.learner_id, principal=principal, request_id=request_id
    )
    return MlOut(
        prediction=found.prediction,
        confidence=found.confidence,
        modelType=body.model_type or found.engine,
        learnerId=body.learner_id,
        engine=found.engine,
        method=found.method,
        reliable=found.reliable,
        warnings=found.warnings,
        details=found.details,
    )
