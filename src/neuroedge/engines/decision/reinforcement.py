"""Which action is best in each state when actions have later consequences, and what a policy is worth.

Task: a decision process (given as a table, or one of gymnasium's small ones), or a log of what was done; out come a
policy with its values, and for logs off-policy estimates with 95 % intervals.
Method: value iteration (Bellman 1957) and tabular Q-learning (Watkins & Dayan 1992) on processes, the learned policy
valued exactly beside the optimum; fitted Q iteration (Ernst et al. 2005) on logs, exact on named states and by trees on
numbers; weighted importance sampling (Precup et al. 2000) and doubly robust estimation (Jiang & Li 2016) on episodes
that were held out.
Model: none; everything comes from the call. Licence: own code; gymnasium's tables are MIT.
Limits: a log tells nothing of what was never tried; estimates need true propensities and a policy near the logged one;
their intervals are too narrow where few episodes carry the weight (`effective_n`). Not for decisions about people that
matter to them without a person who decides.
"""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from neuroedge.contract.engine import Engine, EngineContext, EngineInput, EngineOutput
from neuroedge.contract.errors import InvalidInput, ModelUnavailable
from neuroedge.kit import fitted_q, logged_policy, mdp
from neuroedge.kit.gymnasium_tables import of_gymnasium
from neuroedge.kit.logged_policy import MIN_EPISODES, Log, Rule
from neuroedge.kit.mdp import Mdp, Numbers
from neuroedge.kit.named_states import process_of
from neuroedge.kit.off_policy import PolicyWorth
from neuroedge.kit.q_learning import QLearner
from neuroedge.kit.refusal import Refused

MAX_MOVES: Final = 50_000
MAX_SHOWN: Final = 1000
"""States of numbers given back."""
MIN_PAIR: Final = 5
"""Moves from a state by an action before its value is trusted."""
MIN_EFFECTIVE: Final = 20
"""Equally weighted episodes the weights must be worth."""
TREE_ROUNDS: Final = 25
MAX_TREE_MOVES: Final = 10_000
_SLICE: Final = 50_000
_NEAR: Final = 0.01
"""Share of the optimum's value by which a learned policy may fall short."""

Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Reward = Annotated[float, Field(ge=-1e6, le=1e6)]
Numbered = Annotated[list[Reward], Field(min_length=1, max_length=32)]
Environment = Literal["FrozenLake-v1", "FrozenLake8x8-v1", "CliffWalking-v1", "Taxi-v4"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class ProcessMove(_Part):
    """What an action in a state can lead to."""

    state: Name = Field(description="The state before.")
    action: Name = Field(description="The action.")
    next_state: Name = Field(description="The state after.")
    p: float = Field(gt=0, le=1, description="Probability of it; those of a state and action sum to 1.")
    reward: Reward = Field(default=0.0, description="Reward that comes with it.")
    ends: bool = Field(default=False, description="Whether the episode ends with it.")


class DecisionProcess(_Part):
    """A Markov decision process."""

    moves: list[ProcessMove] = Field(min_length=1, max_length=MAX_MOVES, description="All possible moves.")
    start: Name | None = Field(default=None, description="The first state; null: each state is as likely.")


class LoggedMove(_Part):
    """A step of an episode, as it was done."""

    episode: Name = Field(description="The episode; its steps follow each other in the order given.")
    state: Name | Numbered = Field(description="The state: a name, or numbers that describe it.")
    action: Name = Field(description="What was done.")
    reward: Reward = Field(description="What it earned.")
    next_state: Name | Numbered = Field(description="The state after.")
    ends: bool = Field(default=False, description="Whether the process ended with it (not: the log was cut).")
    propensity: float | None = Field(
        default=None, gt=0, le=1, description="Probability with which it was chosen; null: estimated by shares."
    )


class TargetChoice(_Part):
    """An action of the policy to be valued."""

    state: Name = Field(description="The state.")
    action: Name = Field(description="The action.")
    p: float = Field(ge=0, le=1, description="Probability with which the policy takes it.")


class Input(EngineInput):
    """A process, an environment, or a log: one of them."""

    process: DecisionProcess | None = Field(default=None, description="A process given as a table.")
    environment: Environment | None = Field(default=None, description="One of gymnasium's small processes.")
    log: list[LoggedMove] | None = Field(
        default=None, min_length=1, max_length=MAX_MOVES, description="Episodes that were done."
    )
    method: Literal["auto", "value_iteration", "q_learning", "fitted_q"] = Field(
        default="auto", description="auto: value iteration for processes, fitted Q for logs."
    )
    discount: float = Field(default=0.95, ge=0, le=0.999, description="Worth of a reward one step later.")
    steps: int = Field(default=300_000, ge=1000, le=2_000_000, description="Of Q-learning: steps to try.")
    target: list[TargetChoice] = Field(
        default_factory=list, max_length=MAX_MOVES, description="Of logs: a policy of your own to value instead."
    )
    softness: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="Of logs: share of choices in which the valued learned policy takes any action seen.",
    )
    seed: int = Field(default=0, ge=0, le=2**31, description="The same seed gives the same answer.")

    @model_validator(mode="after")
    def _fits(self) -> "Input":
        if sum(x is not None for x in (self.process, self.environment, self.log)) != 1:
            raise ValueError("give exactly one of 'process', 'environment' and 'log'")
        if self.method != "auto" and (self.log is None) == (self.method == "fitted_q"):
            raise ValueError(f"the method {self.method} does not fit: fitted_q is for logs, the others for processes")
        if self.log is None and self.target:
            raise ValueError("'target' is valued on a 'log'")
        return self


class StateAction(BaseModel):
    """What to do in a state."""

    state: str = Field(description="The state; of numbers, the place in the log.")
    action: str | None = Field(description="The best action; null: nothing can be done.")
    value: float = Field(description="Expected discounted reward from here on.")
    n: int = Field(description="Moves of this state and action it rests on; 0: computed from the process.")
    reliable: bool = Field(description="Whether enough moves stand behind it.")


class OffPolicyValue(BaseModel):
    """What a policy is worth, from the log."""

    policy: str = Field(description="logged, learned (on the other half of the episodes) or target.")
    estimator: str = Field(description="mean, dr, or wis (whose interval is too narrow where weights are few).")
    value: float = Field(description="Mean discounted return of an episode.")
    ci95: tuple[float, float] = Field(description="95 % interval of it.")
    n: int = Field(description="Episodes it is estimated on.")
    effective_n: float = Field(description="Equally weighted episodes that would tell as much.")


class Output(EngineOutput):
    """A policy and what it is worth."""

    policy: list[StateAction] = Field(description="Every state, at most 5000; of numbers, the first states.")
    value: float = Field(description="Expected discounted return from the start under the policy.")
    ci95: tuple[float, float] | None = Field(description="95 % interval of it; null: exact, or not estimable.")
    optimum: float | None = Field(description="The optimal value from the start; null: not known of a log.")
    off_policy: list[OffPolicyValue] = Field(description="Estimates from the log; empty for processes.")
    n_moves: int = Field(description="Moves it rests on: of the log, or steps tried; 0: computed from the process.")
    reliable: bool = Field(description="Whether no warning is serious.")
    warnings: list[str] = Field(description="What to mind.")


def _example() -> Input:
    """A corridor of three rooms: going on ends with a reward of 1, each step costs 0.1."""
    moves = [
        ProcessMove(state=f"room-{i}", action="go on", next_state=f"room-{min(i + 1, 2)}", p=1.0, reward=r, ends=i == 2)
        for i, r in enumerate((-0.1, -0.1, 1.0))
    ]
    stay = [ProcessMove(state=f"room-{i}", action="stay", next_state=f"room-{i}", p=1.0, reward=-0.1) for i in range(3)]
    return Input(process=DecisionProcess(moves=moves + stay, start="room-0"), discount=0.9)


class Reinforcement(Engine[Input, Output]):
    """Policies from processes and logs, with their values."""

    name = "reinforcement"
    title = "Policies from decision processes and logs"
    method = "value-iteration"
    example = _example()
    timeout_s = 300.0

    async def run(self, payload: Input, ctx: EngineContext) -> Output:
        """Learn. Raises InvalidInput for a process that is none, and for too little or too much."""
        await ctx.progress("reinforcement", 0.0)
        try:
            if payload.log is not None:
                return await _from_log(payload, payload.log, ctx)
            process, states, actions = await asyncio.to_thread(_process, payload)
        except Refused as error:
            raise InvalidInput(str(error), hint=error.hint) from error
        return await _on_process(payload, process, states, actions, ctx)

    async def post_swap_test(self) -> None:
        """The example, where going on is best in every room."""
        await super().post_swap_test()
        answer = await self.run(self.example, self.probe)
        if any(row.action != "go on" for row in answer.policy) or abs(answer.value - 0.62) > 1e-3:
            raise ModelUnavailable("the reinforcement engine does not find the optimum of its example")


def _process(payload: Input) -> tuple[Mdp, list[str], list[str]]:
    """The process with the names of its states and actions. Raises Refused."""
    if payload.environment is not None:
        return of_gymnasium(payload.environment)
    assert payload.process is not None
    moves = [(m.state, m.action, m.next_state, m.p, m.reward, m.ends) for m in payload.process.moves]
    return process_of(moves, start=payload.process.start)


async def _on_process(
    payload: Input, process: Mdp, states: Sequence[str], actions: Sequence[str], ctx: EngineContext
) -> Output:
    """By planning or by trial, beside the optimum."""
    q, settled = await asyncio.to_thread(mdp.value_iteration, process, discount=payload.discount)
    warnings = [] if settled else ["value iteration had not settled"]
    optimum = float(process.start @ mdp.best(q))
    visits = np.zeros(q.shape)
    if payload.method == "q_learning":
        learner = QLearner(process, discount=payload.discount, total_steps=payload.steps, seed=payload.seed)
        for done in range(0, payload.steps, _SLICE):
            await ctx.progress("reinforcement", done / payload.steps)
            await asyncio.to_thread(learner.learn, min(_SLICE, payload.steps - done))
        q, visits = learner.q, learner.visits
    policy = mdp.greedy(q)
    values = await asyncio.to_thread(mdp.policy_values, process, policy, discount=payload.discount)
    value = float(process.start @ values)
    if value < optimum - _NEAR * max(abs(optimum), 1e-9):
        warnings.append(f"the learned policy earns {value:.4f}, the optimum {optimum:.4f}: try more `steps`")
    learned = payload.method == "q_learning"
    return Output(
        method="q-learning" if learned else "value-iteration",
        policy=_policy(q, values, visits, states, actions, counted=learned),
        value=value,
        ci95=None,
        optimum=optimum,
        off_policy=[],
        n_moves=payload.steps if learned else 0,
        reliable=not warnings,
        warnings=warnings,
    )


def _policy(
    q: Numbers, values: Numbers, n: Numbers, states: Sequence[str], actions: Sequence[str], *, counted: bool
) -> list[StateAction]:
    rows = []
    for s, name in enumerate(states):
        acting = bool(np.isfinite(q[s]).any())
        best = int(q[s].argmax())
        rows.append(
            StateAction(
                state=name,
                action=actions[best] if acting else None,
                value=round(float(values[s]), 6),
                n=int(n[s, best]) if acting else 0,
                reliable=not counted or not acting or bool(n[s, best] >= MIN_PAIR),
            )
        )
    return rows


async def _from_log(payload: Input, given: Sequence[LoggedMove], ctx: EngineContext) -> Output:
    """Fitted Q on all episodes; values from episodes held out."""
    kinds = {len(s) if isinstance(s, list) else 0 for m in given for s in (m.state, m.next_state)}
    if len(kinds) > 1:
        raise Refused("the states are not all names, or not all as many numbers", hint="describe them alike")
    log = Log.given(
        [m.episode for m in given],
        [m.action for m in given],
        reward=[m.reward for m in given],
        ends=[m.ends for m in given],
        propensity=[m.propensity for m in given],
    )
    if isinstance(given[0].state, str):
        return await asyncio.to_thread(_from_named, payload, given, log)
    return await _from_numbers(payload, given, log, ctx)


def _from_named(payload: Input, given: Sequence[LoggedMove], log: Log) -> Output:
    """The optimum of the process that the log shows."""
    found = logged_policy.of_named(
        log,
        [str(m.state) for m in given],
        [str(m.next_state) for m in given],
        target=[(choice.state, choice.action, choice.p) for choice in payload.target],
        discount=payload.discount,
        softness=payload.softness,
        seed=payload.seed,
    )
    warnings = []
    if log.propensity is None:
        warnings.append("propensities are estimated by shares: what moved the choices beside the state is not seen")
    return _log_output(
        log,
        policy=_policy(found.q, found.values, found.n, found.states, log.actions, counted=True),
        model_value=found.start_value,
        worth=found.worth,
        warnings=warnings,
        method="fitted-q-table",
    )


async def _from_numbers(payload: Input, given: Sequence[LoggedMove], log: Log, ctx: EngineContext) -> Output:
    """Fitted Q with trees: once on half of the episodes to value it on the others, once on all."""
    if payload.target:
        raise Refused("a 'target' names states, the log describes them by numbers", hint="name the states")
    if len(given) > MAX_TREE_MOVES:
        raise Refused(f"{len(given)} steps; at most {MAX_TREE_MOVES} of numbers", hint="send fewer")
    moves = logged_policy.number_moves(log, [m.state for m in given], [m.next_state for m in given])
    warnings, worth = [], list[PolicyWorth]()
    if log.propensity is None:
        warnings.append("without propensities nothing says what the policy is worth but the trees themselves")
    elif len(log.rows) >= MIN_EPISODES:
        worth = await _half_valued(payload, log, log.propensity, moves, ctx)
    trees = await _trees(payload, moves, ctx, begin=0.5)
    q = await asyncio.to_thread(trees.q, moves.state)
    best, n = q.argmax(axis=1), np.bincount(log.action, None, len(log.actions))
    policy = [
        StateAction(
            state=str(k), action=log.actions[best[k]], value=float(q[k, best[k]]), n=int(n[best[k]]), reliable=True
        )
        for k in range(min(len(q), MAX_SHOWN))
    ]
    return _log_output(
        log,
        policy=policy,
        model_value=float(q[log.first].max(axis=1).mean()),
        worth=worth,
        warnings=warnings,
        method="fitted-q-trees",
    )


async def _half_valued(
    payload: Input, log: Log, propensity: Numbers, moves: fitted_q.NumberMoves, ctx: EngineContext
) -> list[PolicyWorth]:
    """The policy learned on half of the episodes, judged on the others."""
    taught, judged = logged_policy.halves(len(log.rows), seed=payload.seed)
    half = await _trees(payload, moves.only(log.of(taught)), ctx, begin=0.0)
    q = await asyncio.to_thread(half.q, moves.state)
    rule = Rule(p=fitted_q.softened(q.argmax(axis=1).tolist(), np.ones(q.shape, bool), payload.softness), q=q)
    return logged_policy.worth(
        log, propensity, judged, rule, policy="learned", discount=payload.discount, seed=payload.seed
    )


async def _trees(payload: Input, moves: fitted_q.NumberMoves, ctx: EngineContext, *, begin: float) -> fitted_q.TreeQ:
    trees = fitted_q.TreeQ(moves, discount=payload.discount, seed=payload.seed)
    for number in range(TREE_ROUNDS):
        await ctx.progress("reinforcement", begin + 0.5 * number / TREE_ROUNDS)
        await asyncio.to_thread(trees.iterate)
    return trees


def _log_output(
    log: Log,
    *,
    policy: list[StateAction],
    model_value: float,
    worth: Sequence[PolicyWorth],
    warnings: list[str],
    method: str,
) -> Output:
    if len(log.rows) < MIN_EPISODES:
        warnings.append(
            f"{len(log.rows)} episodes, needs {MIN_EPISODES} to hold some out: the value is the model's own"
        )
    found = [_told(one) for one in worth]
    best = next((v for v in found if v.estimator == "dr"), None)
    if best is not None and best.effective_n < MIN_EFFECTIVE:
        warnings.append(
            f"{best.effective_n} effective episodes, needs {MIN_EFFECTIVE}: the policy is too far from the logged one"
        )
    if few := sum(not row.reliable for row in policy):
        warnings.append(f"in {few} states the best action was done fewer than {MIN_PAIR} times")
    return Output(
        method=method,
        policy=policy,
        value=model_value if best is None else best.value,
        ci95=None if best is None else best.ci95,
        optimum=None,
        off_policy=found,
        n_moves=len(log.action),
        reliable=not warnings,
        warnings=warnings,
    )


def _told(one: PolicyWorth) -> OffPolicyValue:
    found = one.estimate
    return OffPolicyValue(
        policy=one.policy,
        estimator="mean" if one.policy == "logged" else found.estimator,
        value=found.value,
        ci95=(found.low, found.high),
        n=found.n,
        effective_n=round(found.effective_n, 1),
    )
