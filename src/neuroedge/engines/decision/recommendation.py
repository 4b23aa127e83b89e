"""What to show next: by what was earned with each item, or by what similar users liked or used.

Task: interactions in; out come items with scores, the probability that each is put first, and the reason.
Method: bandits (LinUCB, Li et al. 2010; linear Thompson sampling, Agrawal & Goyal 2013) for rewards of 0 to 1 in a
context; factors for taste (`uses`: Hu et al. 2008; `ratings`: ALS-WR with biases, Zhou et al. 2008). Held out, factors
are compared with the plain baseline in every answer. Off-policy evaluation of logged choices: inverse propensity (IPS),
self-normalised (SNIPS) and doubly robust (Dudík et al. 2011), with 95 % intervals.
Model: none is shipped; all is estimated from the call's interactions. Licence: own code.
Limits: past reward is no cause of future reward where tastes change; popular items grow more popular without
exploration. Evaluation assumes that the logged propensities are true and that the logging policy could choose whatever
the target chooses. Rankings of people are no use of this.
"""

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from neuroedge.contract.engine import Engine, EngineContext, EngineInput, EngineOutput
from neuroedge.contract.errors import InvalidInput, ModelUnavailable
from neuroedge.kit import logged_choices, taste
from neuroedge.kit import matrix_factorisation as factors
from neuroedge.kit.logged_choices import BanditRule, Shown
from neuroedge.kit.off_policy import PolicyWorth
from neuroedge.kit.refusal import Refused
from neuroedge.kit.taste import HeldOut

MIN_TRIES: Final = 10
"""Tries of an item before a bandit's expectation of it is trusted."""
MIN_EFFECTIVE: Final = 30
"""Equally weighted choices the weights must be worth."""
_WHY: Final = 3
MAX_BANDIT_ITEMS: Final = 500

Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Number = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]
Probability = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Contextual = Annotated[list[Number], Field(max_length=32)]


class Interaction(BaseModel):
    """Something that happened between a user and an item."""

    model_config = ConfigDict(extra="forbid")

    item: Name = Field(description="The item.")
    user: Name | None = Field(default=None, description="The user; factors need it.")
    value: Number = Field(default=1.0, description="Reward (0 to 1) of a bandit, rating, or strength of use (above 0).")
    context: Contextual = Field(default_factory=list, description="Numbers known when it was shown; scale them to ±1.")
    propensity: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None, description="Probability with which it was shown then; needed to evaluate."
    )
    target_propensity: Probability | None = Field(
        default=None, description="Probability with which your own other policy would have shown it; to evaluate that."
    )


class Input(EngineInput):
    """Interactions, and for whom to recommend what."""

    interactions: list[Interaction] = Field(max_length=100_000, description="What happened, oldest first.")
    method: Literal["thompson", "linucb", "uses", "ratings"] = Field(
        default="thompson", description="Bandits (thompson, linucb) learn from rewards; factors from use or ratings."
    )
    user: Name | None = Field(default=None, description="For whom; factors need it.")
    context: Contextual = Field(default_factory=list, description="What is known now; as long as the interactions'.")
    candidates: list[Name] | None = Field(
        default=None, min_length=1, max_length=2000, description="Items to choose from, new ones too; null: all seen."
    )
    exclude_seen: bool = Field(default=True, description="Of factors: leave out what the user has interacted with.")
    limit: int = Field(default=10, ge=1, le=100, description="Items to give back.")
    exploration: float = Field(
        default=1.0, ge=0, le=10, description="Of bandits: standard errors by which the uncertain is preferred."
    )
    explore_share: float = Field(
        default=0.05, ge=0, le=1, description="Share of the calls in which any candidate comes first, at random."
    )
    rank: int = Field(default=10, ge=1, le=64, description="Of factors: their number.")
    seed: int | None = Field(
        default=None, ge=0, le=2**31, description="The same seed draws the same first item; null: a new draw."
    )
    evaluate: bool = Field(default=False, description="Estimate what the policy would earn; needs propensities.")

    @model_validator(mode="after")
    def _fits(self) -> "Input":
        bandit = self.method in ("thompson", "linucb")
        if not bandit and self.evaluate:
            raise ValueError("'evaluate' judges bandits; factors are judged on held-out interactions in every answer")
        if not bandit and self.user is None:
            raise ValueError(f"'{self.method}' recommends for a 'user'")
        for k, row in enumerate(self.interactions):
            if bandit and not 0 <= row.value <= 1:
                raise ValueError(f"interactions.{k}.value: a reward lies within 0 and 1")
            if bandit and len(row.context) != len(self.context):
                raise ValueError(
                    f"interactions.{k}.context has {len(row.context)} numbers, 'context' has another count"
                )
            if not bandit and row.user is None:
                raise ValueError(f"interactions.{k}.user is missing: factors need it")
            if self.method == "uses" and not 0 < row.value <= 1000:
                raise ValueError(f"interactions.{k}.value: strength of use is above 0, at most 1000")
            if self.evaluate and row.propensity is None:
                raise ValueError(f"interactions.{k}.propensity is missing: 'evaluate' needs it")
        return self


class RecommendedItem(BaseModel):
    """An item to show."""

    id: str = Field(description="The item.")
    score: float = Field(description="Upper bound or expected reward (bandits), preference (uses), rating (ratings).")
    propensity: float = Field(description="Probability with which this call put it first; log it with the reward.")
    why: str = Field(description="What the score rests on.")
    n: int = Field(description="Interactions with the item.")


class PolicyValue(BaseModel):
    """What a policy would earn for a choice."""

    policy: str = Field(description="logged, learned (on the first half), or target (the caller's).")
    estimator: str = Field(description="mean, ips, snips or dr.")
    value: float = Field(description="Mean reward of a choice.")
    ci95: tuple[float, float] = Field(description="95 % interval of it.")
    n: int = Field(description="Choices it is estimated on.")
    effective_n: float = Field(description="Equally weighted choices that would tell as much.")


class HeldOutScore(BaseModel):
    """How well factors predict interactions they have not seen, and the baseline."""

    measure: str = Field(description="rmse (lower is better) or hit_rate_10 (higher is better).")
    model: float = Field(description="Of the factors.")
    baseline: float = Field(description="Of biases alone, or of popularity.")
    n: int = Field(description="Interactions held out.")


class Output(EngineOutput):
    """What to show, with how far to trust it."""

    items: list[RecommendedItem] = Field(description="The drawn first item, then the others by score.")
    evaluation: list[PolicyValue] = Field(description="Values of policies; empty unless asked for.")
    held_out: HeldOutScore | None = Field(description="Of factors; null for bandits, or too few to hold out.")
    n_interactions: int = Field(description="Interactions all of it rests on.")
    explored: bool = Field(description="Whether the first item is not the one of the highest score.")
    reliable: bool = Field(description="Whether no warning is serious.")
    warnings: list[str] = Field(description="What to mind.")


def _example() -> Input:
    """Two videos, of which the second earns more when the context is positive."""
    rows = [(k % 2, 1.0 if k % 4 < 2 else -1.0) for k in range(60)]
    return Input(
        interactions=[
            Interaction(item=f"video-{i}", context=[x], value=float((i == 1) == (x > 0)), propensity=0.5)
            for i, x in rows
        ],
        context=[1.0],
        seed=1,
    )


class Recommendation(Engine[Input, Output]):
    """Items with scores, propensities and reasons."""

    name = "recommendation"
    title = "Recommendation with exploration and off-policy evaluation"
    method = "thompson"
    example = _example()
    timeout_s = 180.0

    async def run(self, payload: Input, ctx: EngineContext) -> Output:
        """Recommend. Raises InvalidInput below the minimum, and for candidates nothing is known of."""
        await ctx.progress("recommendation", 0.0)
        left = threading.Event()
        try:
            if payload.method in ("thompson", "linucb"):
                return await asyncio.to_thread(_by_reward, payload, go_on=lambda: not left.is_set())
            return await _by_taste(payload, ctx)
        except Refused as error:
            raise InvalidInput(str(error), hint=error.hint) from error
        finally:
            left.set()

    async def post_swap_test(self) -> None:
        """The example, where the second video must have the higher score."""
        await super().post_swap_test()
        answer = await self.run(self.example, self.probe)
        if max(answer.items, key=lambda i: i.score).id != "video-1":
            raise ModelUnavailable("the recommendation engine prefers the item that earned nothing in its example")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ranked:
    """Candidates with all that is told of them; `why` by place."""

    candidates: Sequence[str]
    score: factors.Numbers
    propensity: factors.Numbers
    why: Callable[[int], str]
    n: Mapping[str, int]


def _by_reward(payload: Input, *, go_on: Callable[[], bool]) -> Output:
    """The bandits; `go_on` ends an evaluation whose caller has left."""
    rows, features = [_shown(row) for row in payload.interactions], len(payload.context)
    bandit = logged_choices.learned(rows, features=features)
    candidates = list(dict.fromkeys(payload.candidates or bandit.models))
    if not candidates:
        raise InvalidInput("no interactions and no `candidates`: nothing to recommend", hint="give one of them")
    if len(candidates) > MAX_BANDIT_ITEMS:
        raise InvalidInput(
            f"{len(candidates)} items are too many for a bandit; at most {MAX_BANDIT_ITEMS}",
            hint="narrow them by `candidates`, for example with the method uses",
        )
    rule = BanditRule(
        candidates=candidates,
        policy="thompson" if payload.method == "thompson" else "linucb",
        exploration=payload.exploration,
        uniform=payload.explore_share,
    )
    told = rule.choice(bandit, payload.context)
    n = {item: bandit.models[item].n if item in bandit.models else 0 for item in candidates}

    def why(k: int) -> str:
        tries = n[candidates[k]]
        known = f"expected reward {told.mean[k]:.3f} ± {1.96 * told.se[k]:.3f} from {tries} tries"
        return known if tries else "never tried yet"

    ranked = _Ranked(
        candidates=candidates,
        score=told.mean if rule.policy == "thompson" else told.score,
        propensity=told.propensity,
        why=why,
        n=n,
    )
    warnings = []
    if few := sum(count < MIN_TRIES for count in n.values()):
        warnings.append(f"{few} of {len(n)} items were tried less than {MIN_TRIES} times: their scores are guesses")
    evaluation = []
    if payload.evaluate:
        evaluation = [_value(one) for one in logged_choices.worth(rows, rule, features=features, go_on=go_on)]
    if any(v.policy != "logged" and v.effective_n < MIN_EFFECTIVE for v in evaluation):
        warnings.append(
            f"the evaluation rests on fewer than {MIN_EFFECTIVE} effective choices: the policies differ too much"
        )
    return _output(payload, ranked, warnings, evaluation=evaluation)


def _shown(row: Interaction) -> Shown:
    return Shown(
        item=row.item,
        context=tuple(row.context),
        reward=row.value,
        propensity=row.propensity or 1.0,  # only evaluation reads it, which requires it
        target_propensity=row.target_propensity,
    )


def _value(one: PolicyWorth) -> PolicyValue:
    found = one.estimate
    return PolicyValue(
        policy=one.policy,
        estimator=found.estimator,
        value=round(found.value, 6),
        ci95=(round(found.low, 6), round(found.high, 6)),
        n=found.n,
        effective_n=round(found.effective_n, 1),
    )


async def _by_taste(payload: Input, ctx: EngineContext) -> Output:
    """The factors, judged on interactions held out and fitted to all."""
    method: Literal["ratings", "uses"] = "ratings" if payload.method == "ratings" else "uses"
    rows = [(row.user or "", row.item, row.value) for row in payload.interactions]
    table, users, items = taste.table_of(rows, add=method == "uses")
    judged = await asyncio.to_thread(taste.held_out, table, method, rank=payload.rank)
    await ctx.progress("recommendation", 0.5)
    return await asyncio.to_thread(_liked, payload, table, users, items, judged)


def _liked(payload: Input, table: factors.Table, users: list[str], items: list[str], judged: HeldOut | None) -> Output:
    """What the user likes; for one nothing is known of, what everybody does."""
    warnings = _taste_warnings(judged)
    user = users.index(payload.user) if payload.user in users else None
    if user is None:
        warnings.append("nothing is known of this user: the order is what all users like")
    if payload.method == "ratings":
        scores, why = _rated(payload, table, user, items)
    else:
        scores, why = _used(payload, table, user, items)
    place = {name: i for i, name in enumerate(items)}
    seen = {items[i] for i in table.item[table.user == user]} if user is not None and payload.exclude_seen else set()
    asked = list(dict.fromkeys(payload.candidates or items))
    candidates = [name for name in asked if name in place and name not in seen]
    if unknown := sum(name not in place for name in asked):
        warnings.append(f"{unknown} candidates have no interactions and were left out")
    if not candidates:
        raise InvalidInput("no candidate is left that is known and unseen", hint="see `exclude_seen`, or use thompson")
    own = scores[[place[name] for name in candidates]]
    top = (own == own.max()).astype(float)
    ranked = _Ranked(
        candidates=candidates,
        score=own,
        propensity=(1 - payload.explore_share) * top / top.sum() + payload.explore_share / len(candidates),
        why=lambda k: why(place[candidates[k]]),
        n=dict(zip(items, np.bincount(table.item, None, table.items).tolist(), strict=True)),
    )
    return _output(payload, ranked, warnings, held_out=HeldOutScore(**asdict(judged)) if judged is not None else None)


def _taste_warnings(judged: HeldOut | None) -> list[str]:
    if judged is None:
        return ["too few interactions to hold some out: how well this predicts is not known"]
    better = judged.model < judged.baseline if judged.measure == "rmse" else judged.model > judged.baseline
    told = f"{judged.measure} {judged.model:.3f} against {judged.baseline:.3f}"
    return [] if better else [f"the factors do not predict better than the plain baseline ({told})"]


def _rated(
    payload: Input, table: factors.Table, user: int | None, items: Sequence[str]
) -> tuple[factors.Numbers, Callable[[int], str]]:
    """Predicted ratings of all items."""
    model = taste.ratings(table, rank=payload.rank)
    if user is None:
        return model.mean + model.item_bias, lambda i: f"all users: {model.mean + model.item_bias[i]:.2f} on average"
    every = np.arange(table.items)
    scores = model.predicted(np.full(table.items, user), every)

    def why(i: int) -> str:
        liking = scores[i] - model.mean - model.user_bias[user] - model.item_bias[i]
        return (
            f"average {model.mean:.2f}, this user {model.user_bias[user]:+.2f},"
            f" this item {model.item_bias[i]:+.2f}, taste {liking:+.2f}"
        )

    return scores, why


def _used(
    payload: Input, table: factors.Table, user: int | None, items: Sequence[str]
) -> tuple[factors.Numbers, Callable[[int], str]]:
    """Preferences for all items."""
    if user is None:
        users = np.bincount(table.item, None, table.items)
        return users / table.users, lambda i: f"used by {users[i]} of {table.users} users"
    model = taste.uses(table, rank=payload.rank)

    def why(i: int) -> str:
        past, shares = model.shares(table, user, i)
        best = [k for k in np.argsort(-shares)[:_WHY] if shares[k] > 0]
        named = ", ".join(f"{items[past[k]]} ({shares[k]:+.2f})" for k in best)
        return f"after {named}" if named else "no past item speaks for it"

    return model.scores(user), why


def _output(
    payload: Input,
    ranked: _Ranked,
    warnings: list[str],
    *,
    evaluation: Sequence[PolicyValue] = (),
    held_out: HeldOutScore | None = None,
) -> Output:
    """The first item drawn by the propensities, then the others by score."""
    first = int(np.random.default_rng(payload.seed).choice(len(ranked.candidates), p=ranked.propensity))
    order = sorted(range(len(ranked.candidates)), key=lambda k: (k != first, -ranked.score[k]))[: payload.limit]
    return Output(
        method=payload.method,
        items=[
            RecommendedItem(
                id=ranked.candidates[k],
                score=round(float(ranked.score[k]), 6),
                propensity=float(ranked.propensity[k]),
                why=ranked.why(k),
                n=ranked.n[ranked.candidates[k]],
            )
            for k in order
        ],
        evaluation=list(evaluation),
        held_out=held_out,
        n_interactions=len(payload.interactions),
        explored=bool(ranked.score[first] < ranked.score.max()),
        reliable=not warnings,
        warnings=warnings,
    )
