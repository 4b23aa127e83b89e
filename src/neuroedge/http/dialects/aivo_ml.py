"""AIVO Brain Service's paths for predictions over the engines of learning: {modelType, input, learnerId} in,
{prediction, confidence, …} out.

`input` holds the engine's own fields, in snake_case or camelCase. Without the engine's data in it, the events kept of
`learnerId` are used (POST /v1/learners/{id}/events).
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from neuroedge.contract.errors import InvalidInput, Overloaded
from neuroedge.contract.principal import Principal
from neuroedge.http.auth import RequestId, Runner, ThePlatform, platform_of
from neuroedge.http.platform import Platform
from neuroedge.services import learner_inputs
from neuroedge.services.learners import Name

router = APIRouter(prefix="/api/v1", tags=["AIVO dialect"])
_HUMP: Final = re.compile(r"(?<=[a-z0-9])([A-Z])")
_MAX_ITEMS: Final = 5_000


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
    allowed = platform.settings.ml_requests_per_minute
    quota = await platform.limits.spend(allowed, "ml", principal.org_id.hex)
    if quota is not None and not quota.granted:
        raise Overloaded(
            f"your organisation has made its {allowed} predictions a minute",
            hint="send fewer, or let the operator raise NEUROEDGE_ML_REQUESTS_PER_MINUTE",
            retry_after_s=quota.reset_s,
        )
    return principal


Predictor = Annotated[Principal, Depends(_within_limit)]


@router.post("/ml/predict/difficulty", summary="Chance of a right answer")
async def difficulty(body: MlIn, principal: Predictor, platform: ThePlatform, request_id: RequestId) -> MlOut:
    """Of `input.responses`, or of the learner's kept answers for `input.items`; prediction: the chance, or a list."""
    given = _snake(body.input)
    if "responses" not in given:
        items = _items(given)
        learner, answers = await _answers(body, principal, platform)
        given = learner_inputs.difficulty(learner, answers, items=items)
        told = await _run("difficulty", given, principal, platform, request_id)
        # The others' answers made the scale; their estimates are not this caller's question.
        for part in ("students", "mastery"):
            told[part] = [row for row in told[part] if row["student"] == str(learner)]
    else:
        told = await _run("difficulty", given, principal, platform, request_id)
    chances = [row["p_correct"] for row in told["predictions"]]
    single = chances[0] if len(chances) == 1 else None
    sure = None if single is None else max(single, 1 - single)
    return _out(body, "difficulty", told, single if len(chances) == 1 else chances, sure)


@router.post("/ml/predict/engagement", summary="Chance of having disengaged")
async def engagement(body: MlIn, principal: Predictor, platform: ThePlatform, request_id: RequestId) -> MlOut:
    """Of `input.events`, or of the learner's latest kept session; prediction: engaged or disengaged."""
    given = _snake(body.input)
    if "events" not in given:
        given = learner_inputs.engagement(*await _answers(body, principal, platform))
    told = await _run("engagement", given, principal, platform, request_id)
    p = told["p_disengage"]
    return _out(body, "engagement", told, "disengaged" if p >= 0.5 else "engaged", max(p, 1 - p))


@router.post("/ml/detect/learning-style", summary="Whether the form of presentation matters")
async def learning_style(body: MlIn, principal: Predictor, platform: ThePlatform, request_id: RequestId) -> MlOut:
    """Of `input.outcomes`, or of kept answers; prediction: the verdict, which is "insufficient" by default."""
    given = _snake(body.input)
    if "outcomes" not in given:
        given = learner_inputs.learning_preference(*await _answers(body, principal, platform))
    told = await _run("learning_preference", given, principal, platform, request_id)
    return _out(body, "learning_preference", told, told["verdict"], None)


@router.post("/ml/detect/emotion", summary="Emotions of words")
async def emotion(body: MlIn, principal: Predictor, platform: ThePlatform, request_id: RequestId) -> MlOut:
    """Of `input.text`, or the emotion engine's own input; prediction: the likeliest label, null when it abstains."""
    given = _snake(body.input)
    if "text" in given:
        given = {**{k: v for k, v in given.items() if k != "text"}, "segments": [{"text": given["text"]}]}
    told = await _run("emotion", given, principal, platform, request_id)
    best = max(told["emotions"], key=lambda found: found["score"], default=None)
    return _out(body, "emotion", told, best and best["label"], best and best["score"])


@router.post("/ml/predict/focus", summary="Focus against the learner's own usual")
async def focus(body: MlIn, principal: Predictor, platform: ThePlatform, request_id: RequestId) -> MlOut:
    """Of `input.responses`, or of the learner's kept sessions; prediction: a score of 0 to 100, 50 is usual."""
    told = await _focus(body, principal, platform, request_id)
    return _out(body, "focus", told, told["score_0_100"], None)


@router.post("/ml/personalize", summary="What to learn next")
async def personalize(body: MlIn, principal: Predictor, platform: ThePlatform, request_id: RequestId) -> MlOut:
    """Of `input.skills`, with the learner's kept mastery unless `input.mastery` is given; prediction: next steps."""
    given = _snake(body.input)
    if body.learner_id is not None and "mastery" not in given:
        profile = await platform.learners.profile(principal, body.learner_id)
        asked = given.get("skills")
        named = {s.get("id") for s in asked if isinstance(s, dict)} if isinstance(asked, list) else set()
        given["mastery"] = [{"skill": s.skill, "p": s.p_mastery, "n": s.n} for s in profile.skills if s.skill in named]
    told = await _run("learning_path", given, principal, platform, request_id)
    return _out(body, "learning_path", told, told["next"], None)


@router.post("/ml/recommend/content", summary="What to show next")
async def recommend_content(body: MlIn, principal: Predictor, platform: ThePlatform, request_id: RequestId) -> MlOut:
    """Of `input.interactions`, for `learnerId` where taste is asked for; prediction: items, the first one drawn."""
    given = _snake(body.input)
    if body.learner_id is not None and given.get("method") in ("uses", "ratings"):
        given.setdefault("user", body.learner_id)
    told = await _run("recommendation", given, principal, platform, request_id)
    return _out(body, "recommendation", told, told["items"], None)


@router.post("/analytics/focus", summary="Focus with what it is made of")
async def analyse_focus(body: MlIn, principal: Predictor, platform: ThePlatform, request_id: RequestId) -> MlOut:
    """Prediction: score, interval and components."""
    told = await _focus(body, principal, platform, request_id)
    found = {"score": told["score_0_100"], "ci95": told["ci95"], "components": told["components"]}
    return _out(body, "focus", told, found, None)


@router.post("/analytics/break", summary="When a break will be wanted")
async def analyse_break(body: MlIn, principal: Predictor, platform: ThePlatform, request_id: RequestId) -> MlOut:
    """Prediction: when to suggest it, seconds from the session's start; confidence: chance within five minutes."""
    told = await _focus(body, principal, platform, request_id)
    found = {"suggestAtSeconds": told["suggest_at_s"], "pBreak5min": told["p_break_5min"]}
    return _out(body, "focus", told, found, told["p_break_5min"])


@router.post("/analytics/attention", summary="The course of a session")
async def analyse_attention(body: MlIn, principal: Predictor, platform: ThePlatform, request_id: RequestId) -> MlOut:
    """Prediction: stretches of the session with their state."""
    told = await _focus(body, principal, platform, request_id)
    return _out(body, "focus", told, told["segments"], None)


async def _focus(body: MlIn, principal: Principal, platform: Platform, request_id: str) -> dict[str, Any]:
    given = _snake(body.input)
    if "responses" not in given:
        name = _learner(body)
        events = await platform.learners.events(principal, name, newest=learner_inputs.NEWEST_OWN)
        given = learner_inputs.focus(events)
    return await _run("focus", given, principal, platform, request_id)


async def _answers(body: MlIn, principal: Principal, platform: Platform) -> Any:
    return await platform.learners.answers_of_all(principal, _learner(body), newest=learner_inputs.NEWEST_ANSWERS)


def _learner(body: MlIn) -> str:
    if body.learner_id is None:
        raise InvalidInput(
            "`input` holds no data and `learnerId` is not given",
            hint="put the engine's fields into `input`, or name a learner whose events are kept",
        )
    return body.learner_id


def _items(given: Mapping[str, Any]) -> list[str]:
    items = given.get("items", given.get("item"))
    items = [items] if isinstance(items, str) else items
    if not isinstance(items, list) or not all(isinstance(i, str) and i for i in items) or len(items) > _MAX_ITEMS:
        raise InvalidInput(
            "`input.items` is missing or no list of names", hint=f"name the items to predict, at most {_MAX_ITEMS}"
        )
    return items


async def _run(
    engine: str, given: dict[str, Any], principal: Principal, platform: Platform, request_id: str
) -> dict[str, Any]:
    answer = await platform.runner.run(engine, given, principal=principal, request_id=request_id)
    return answer.model_dump(mode="json")


def _out(body: MlIn, engine: str, told: dict[str, Any], prediction: Any, confidence: float | None) -> MlOut:
    return MlOut(
        prediction=prediction,
        confidence=confidence,
        modelType=body.model_type or engine,
        learnerId=body.learner_id,
        engine=engine,
        method=told["method"],
        reliable=told.get("reliable", prediction is not None),
        warnings=told.get("warnings", []),
        details=told,
    )


def _snake(value: Any) -> Any:
    """The same with camelCase keys in snake_case."""
    if isinstance(value, dict):
        return {_HUMP.sub(lambda hump: f"_{hump[1].lower()}", key): _snake(inner) for key, inner in value.items()}
    return [_snake(inner) for inner in value] if isinstance(value, list) else value
