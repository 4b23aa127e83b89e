"""The assistant's workflow (LangGraph): embed the query, search, determine the intent, generate, validate.

Each step takes the state and gives what changes of it; the state is saved after each, so that another process can go
on where one died. What a step needs beside the state is its Turn, which is made anew in each process.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from neuroedge.contract.principal import Principal
from neuroedge.services.chat import steps
from neuroedge.services.chat.state import State
from neuroedge.services.chat.turn import Turn
from neuroedge.stores import checkpoints
from neuroedge.stores.postgres import Database

if TYPE_CHECKING:
    from langgraph.checkpoint.base import BaseCheckpointSaver
    from langgraph.graph.state import CompiledStateGraph

Step = Callable[[State, Turn], Awaitable[State]]
GENERATE: Final[Mapping[str, str]] = {
    "question": "answer",
    "artifact": "artifact",
    "tool": "agent",
    "small_talk": "converse",
    "clarify": "converse",
}
"""The step that generates, by intent."""
STEPS: Final[Mapping[str, Step]] = {
    "embed": steps.embed,
    "search": steps.search,
    "intent": steps.intent,
    "answer": steps.answer,
    "artifact": steps.artifact,
    "agent": steps.agent,
    "converse": steps.converse,
    "validate": steps.validate,
}
_MOST_STEPS: Final = 64
"""Of a turn, an agent's steps included; their own limit is far below."""


class Workflow:
    """Runs turns and saves their states."""

    def __init__(self, db: Database, *, steps: Mapping[str, Step] = STEPS) -> None:
        self._db = db
        self._steps = steps

    async def run(self, principal: Principal, turn_id: UUID, state: State | None, turn: Turn) -> State:
        """The state at the end. `state` None goes on from the last saved one.

        Raises what a step raises; NotFound when the turn's message or session was deleted.
        """
        graph = await self._graph(principal)
        config: Any = {"configurable": {"thread_id": str(turn_id)}, "recursion_limit": _MOST_STEPS}
        # Each state is saved before the next step begins: what was paid for is not asked again.
        ended: Any = await graph.ainvoke(state, config, context=turn, durability="sync")
        return ended  # type: ignore[no-any-return]

    async def state(self, principal: Principal, turn_id: UUID) -> State:
        """The last saved state; empty when there is none."""
        saver = await asyncio.to_thread(_saver, self._db, principal)
        saved = await saver.aget_tuple({"configurable": {"thread_id": str(turn_id)}})
        return saved.checkpoint["channel_values"] if saved else {}  # type: ignore[return-value]

    async def prune(self, principal: Principal, turn_id: UUID) -> None:
        """Keep the last state only."""
        async with self._db.tenant(principal) as conn:
            await checkpoints.prune(conn, turn_id)

    async def _graph(self, principal: Principal) -> "CompiledStateGraph[State, Turn, State, State]":
        # The first import takes a second or two, which the other calls of this process do not wait for.
        return await asyncio.to_thread(_compiled, self._steps, self._db, principal)


def _compiled(
    steps: Mapping[str, Step], db: Database, principal: Principal
) -> "CompiledStateGraph[State, Turn, State, State]":
    from langgraph.graph import END, START, StateGraph

    graph = StateGraph(State, context_schema=Turn)
    for name, step in steps.items():
        graph.add_node(name, _node(step))
    graph.add_edge(START, "embed")
    graph.add_edge("embed", "search")
    graph.add_edge("search", "intent")
    graph.add_conditional_edges("intent", lambda state: GENERATE[state["intent"]], sorted(set(GENERATE.values())))
    graph.add_conditional_edges("agent", _after_step, ["agent", "validate"])
    for name in ("answer", "artifact", "converse"):
        graph.add_edge(name, "validate")
    graph.add_edge("validate", END)
    return graph.compile(checkpointer=_saver(db, principal))


def _saver(db: Database, principal: Principal) -> "BaseCheckpointSaver[str]":
    from neuroedge.services.chat.checkpoints import TenantSaver

    return TenantSaver(db, principal)


def _after_step(state: State) -> str:
    return "agent" if state["work"]["answer"] is None else "validate"


def _node(step: Step) -> Any:
    async def node(state: State, runtime: Any) -> State:
        return await step(state, runtime.context)

    return node
