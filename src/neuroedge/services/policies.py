"""Recommenders that remember: they choose, are told what the choice earned, and learn from it once.

The bandit is kit/bandit.py's; its evaluation is the engine recommendation's, over the kept choices. Choices and rewards
belong to the organisation; what an item or a context stands for is the application's own knowledge.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from neuroedge.contract.errors import Conflict, InvalidInput, NotFound
from neuroedge.contract.principal import Principal
from neuroedge.kit import bandit
from neuroedge.kit.bandit import LinearBandit
from neuroedge.services.audit import audited
from neuroedge.services.memory_drafts import without_nul
from neuroedge.stores import policies
from neuroedge.stores.ids import new_id
from neuroedge.stores.policies import Choice, Recommender
from neuroedge.stores.postgres import Connection, Database

MAX_RECOMMENDERS: Final = 100
"""Of an organisation."""
MAX_ITEMS: Final = 200
"""A recommender learns of so many items."""
KEPT_CHOICES: Final = 20_000
"""The newest choices of a recommender; a reward for an older one is not found."""

Name = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(without_nul)]


class RecommenderSettings(BaseModel):
    """How a recommender chooses; fixed when it is made."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    policy: Literal["thompson", "linucb"] = Field(default="thompson", description="The bandit.")
    features: int = Field(default=0, ge=0, le=16, description="Numbers in a context.")
    exploration: float = Field(default=1.0, ge=0, le=10, description="Standard errors the uncertain is preferred by.")
    explore_share: float = Field(default=0.05, ge=0, le=1, description="Share of choices that are any item at random.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """A choice with what the recommender thinks of every candidate; `first` is its place."""

    choice_id: UUID
    version: int
    first: int
    opinion: bandit.Choice


class Policies:
    """Recommenders of the caller's organisation."""

    def __init__(self, *, db: Database) -> None:
        self._db = db

    async def create(
        self, principal: Principal, name: str, settings: RecommenderSettings, *, request_id: str
    ) -> Recommender:
        """Make one that knows nothing; the one of the same name and settings is given back. Raises Conflict."""
        empty = LinearBandit(features=settings.features).state()
        async with self._db.tenant(principal) as conn:
            found = await policies.find(conn, org_id=principal.org_id, name=name)
            if found is None:
                if await policies.count(conn, org_id=principal.org_id) >= MAX_RECOMMENDERS:
                    raise Conflict(f"there are {MAX_RECOMMENDERS} recommenders already", hint="delete one")
                found = await policies.insert(
                    conn, org_id=principal.org_id, name=name, settings=settings.model_dump(), state=empty
                )
                if found is not None:
                    await _audit(conn, principal, request_id, "recommender.created", found.id)
                    return found
                found = await _found(conn, principal, name)
        if found.settings != settings.model_dump():
            raise Conflict("a recommender of this name has other settings", hint="delete it or take another name")
        return found

    async def recommend(
        self, principal: Principal, name: str, *, context: Sequence[float], candidates: Sequence[str]
    ) -> Chosen:
        """Draw one of `candidates` (empty: all it knows) and note it. Raises NotFound, InvalidInput."""
        async with self._db.tenant(principal) as conn:
            found = await _found(conn, principal, name)
            settings = _fitting(found, context)
            learner = LinearBandit.of(found.state)
            items = list(dict.fromkeys(candidates or learner.models))
            if not items:
                raise InvalidInput("the recommender knows no items yet", hint="name `candidates`")
            opinion = await asyncio.to_thread(
                learner.choice,
                items,
                list(context),
                policy=settings.policy,
                exploration=settings.exploration,
                uniform=settings.explore_share,
            )
            first = int(np.random.default_rng().choice(len(items), p=opinion.propensity))
            choice = Choice(
                id=new_id(),
                item=items[first],
                context=list(context),
                propensity=float(opinion.propensity[first]),
                reward=None,
            )
            await policies.add_choice(conn, org_id=principal.org_id, of=found.id, choice=choice, keep=KEPT_CHOICES)
        return Chosen(choice_id=choice.id, version=found.version, first=first, opinion=opinion)

    async def reward(self, principal: Principal, name: str, *, choice_id: UUID, value: float) -> tuple[int, bool]:
        """Learn what a choice earned; the version, and whether this is new. The same reward again changes nothing.

        Raises NotFound, Conflict for another reward of the same choice or too many items.
        """
        async with self._db.tenant(principal) as conn:
            found = await _found(conn, principal, name, lock=True)
            choice = await policies.choice(conn, org_id=principal.org_id, of=found.id, choice_id=choice_id)
            if choice is None:
                raise NotFound("the recommender made no such choice, or too long ago", hint="use `choice_id` as given")
            if choice.reward is not None:
                if choice.reward != value:
                    raise Conflict("this choice has another reward already", hint="a reward is final")
                return found.version, False
            learner = LinearBandit.of(found.state)
            if choice.item not in learner.models and len(learner.models) >= MAX_ITEMS:
                raise Conflict(f"the recommender knows {MAX_ITEMS} items already", hint="make another for the others")
            learner.learn(choice.item, choice.context, value)
            state = await asyncio.to_thread(learner.state)
            version = await policies.learned(conn, org_id=principal.org_id, of=found, state=state)
            await policies.reward(conn, org_id=principal.org_id, choice_id=choice.id, value=value)
        return version, True

    async def history(self, principal: Principal, name: str) -> tuple[Recommender, list[dict[str, Any]]]:
        """The rewarded choices as the engine recommendation takes them, oldest first. Raises NotFound."""
        async with self._db.tenant(principal) as conn:
            found = await _found(conn, principal, name)
            kept = await policies.rewarded(conn, org_id=principal.org_id, of=found.id, newest=KEPT_CHOICES)
        rows = [{"item": c.item, "context": c.context, "value": c.reward, "propensity": c.propensity} for c in kept]
        return found, rows

    async def delete(self, principal: Principal, name: str, *, request_id: str) -> None:
        """Delete one with its choices. Raises NotFound."""
        async with self._db.tenant(principal) as conn:
            found = await _found(conn, principal, name)
            await policies.delete(conn, org_id=principal.org_id, name=name)
            await _audit(conn, principal, request_id, "recommender.deleted", found.id)


def _fitting(found: Recommender, context: Sequence[float]) -> RecommenderSettings:
    settings = RecommenderSettings.model_validate(found.settings)
    if len(context) != settings.features:
        raise InvalidInput(
            f"`context` has {len(context)} numbers, this recommender takes {settings.features}",
            hint="give as many numbers as `features` says",
        )
    return settings


async def _found(conn: Connection, principal: Principal, name: str, *, lock: bool = False) -> Recommender:
    found = await policies.find(conn, org_id=principal.org_id, name=name, lock=lock)
    if found is None:
        raise NotFound("your organisation has no such recommender", hint="PUT /v1/recommenders/{name} makes one")
    return found


async def _audit(conn: Connection, principal: Principal, request_id: str, action: str, row_id: UUID) -> None:
    await audited(conn, principal, request_id=request_id, action=action, target=f"recommender:{row_id}")
