"""/v1/recommenders: bandits that remember what their choices earned."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field

from neuroedge.http.auth import RequestId, Runner, ThePlatform, Writer
from neuroedge.services.policies import Name, RecommenderSettings

router = APIRouter(prefix="/v1/recommenders", tags=["recommenders"])
RecommenderName = Annotated[Name, Path(alias="recommender", description="The recommender's name.")]
ContextNumber = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]


class RecommenderOut(BaseModel):
    """A recommender."""

    name: str
    version: int = Field(description="Rewards it has learned from.")
    choices: int = Field(description="Choices it has made.")
    settings: RecommenderSettings


class ChooseIn(BaseModel):
    """What to choose from."""

    model_config = ConfigDict(extra="forbid")

    context: list[ContextNumber] = Field(default_factory=list, max_length=16, description="What is known now.")
    candidates: list[Name] = Field(default_factory=list, max_length=200, description="Items; empty: all it knows.")
    limit: int = Field(default=10, ge=1, le=200, description="Items to give back.")


class ChosenItem(BaseModel):
    """An item with what the recommender thinks of it."""

    id: str
    expected_reward: float
    se: float = Field(description="Standard error of it.")
    propensity: float = Field(description="Probability with which it was put first.")


class ChooseOut(BaseModel):
    """The drawn item first, then the others by expected reward."""

    choice_id: UUID = Field(description="Give it back with the reward.")
    version: int = Field(description="Rewards the choice rests on.")
    items: list[ChosenItem]


class RewardIn(BaseModel):
    """What a choice earned."""

    model_config = ConfigDict(extra="forbid")

    choice_id: UUID
    reward: float = Field(ge=0, le=1, allow_inf_nan=False, description="0 to 1.")


class RewardOut(BaseModel):
    """What became of it."""

    version: int
    new: bool = Field(description="false: it was known already, and nothing changed.")


@router.put("/{recommender}", summary="Make a recommender")
async def create_recommender(
    recommender: RecommenderName,
    body: RecommenderSettings,
    principal: Writer,
    platform: ThePlatform,
    request_id: RequestId,
) -> RecommenderOut:
    """It knows nothing at first. Again with the same settings: the one that is there."""
    found = await platform.policies.create(principal, recommender, body, request_id=request_id)
    settings = RecommenderSettings.model_validate(found.settings)
    return RecommenderOut(name=found.name, version=found.version, choices=found.choices, settings=settings)


@router.post("/{recommender}/recommend", summary="Choose an item")
async def choose(recommender: RecommenderName, body: ChooseIn, principal: Writer, platform: ThePlatform) -> ChooseOut:
    """The choice is noted with its probability, so that it can be rewarded and evaluated."""
    told = await platform.policies.recommend(principal, recommender, context=body.context, candidates=body.candidates)
    by_mean = sorted(range(len(told.opinion.items)), key=lambda k: (k != told.first, -told.opinion.mean[k]))
    return ChooseOut(
        choice_id=told.choice_id,
        version=told.version,
        items=[
            ChosenItem(
                id=told.opinion.items[k],
                expected_reward=float(told.opinion.mean[k]),
                se=float(told.opinion.se[k]),
                propensity=float(told.opinion.propensity[k]),
            )
            for k in by_mean[: body.limit]
        ],
    )


@router.post("/{recommender}/reward", summary="Tell what a choice earned")
async def reward_choice(
    recommender: RecommenderName, body: RewardIn, principal: Writer, platform: ThePlatform
) -> RewardOut:
    """Learned once: the same reward again changes nothing, another one is a conflict."""
    version, new = await platform.policies.reward(principal, recommender, choice_id=body.choice_id, value=body.reward)
    return RewardOut(version=version, new=new)


@router.post("/{recommender}/evaluate", summary="What the recommender would earn")
async def evaluate_recommender(
    recommender: RecommenderName, principal: Runner, platform: ThePlatform, request_id: RequestId
) -> dict[str, Any]:
    """The engine recommendation's off-policy evaluation over the rewarded choices; needs at least 100."""
    found, rows = await platform.policies.history(principal, recommender)
    settings = RecommenderSettings.model_validate(found.settings)
    order = {
        "interactions": rows,
        "method": settings.policy,
        "context": [0.0] * settings.features,
        "exploration": settings.exploration,
        "explore_share": settings.explore_share,
        "evaluate": True,
    }
    answer = await platform.runner.run("recommendation", order, principal=principal, request_id=request_id)
    told = answer.model_dump(mode="json")
    return {key: told[key] for key in ("evaluation", "n_interactions", "reliable", "warnings")}


@router.delete("/{recommender}", status_code=204, summary="Delete a recommender")
async def delete_recommender(
    recommender: RecommenderName, principal: Writer, platform: ThePlatform, request_id: RequestId
) -> None:
    """With everything it has learned and chosen."""
    await platform.policies.delete(principal, recommender, request_id=request_id)
