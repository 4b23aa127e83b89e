"""Safety passes and the review queue."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from uuid import UUID

from neuroedge.bootstrap.core import Core
from neuroedge.contract.errors import NotFound
from neuroedge.contract.principal import Principal
from neuroedge.infra.personal_data import NationalIdentifiers
from neuroedge.infra.safety_metrics import SafetyMetrics
from neuroedge.services.chat.sessions import Chats
from neuroedge.services.memory import MemoryService
from neuroedge.services.reviews import Reviews, Snapshot
from neuroedge.services.safety import Safety
from neuroedge.services.safety_sweep import SafetySweep


@dataclass(frozen=True, slots=True, kw_only=True)
class SafetyParts:
    """What judges texts, what people look at, and what forgets."""

    safety: Safety
    reviews: Reviews
    sweep: SafetySweep


def safety_of(core: Core, *, memories: MemoryService, chats: Chats) -> SafetyParts:
    """Build them."""

    async def memory(principal: Principal, memory_id: UUID) -> str:
        return (await memories.get(principal, memory_id)).content

    async def message(principal: Principal, session_id: UUID, message_id: UUID) -> str:
        return (await chats.message(principal, session_id, message_id)).content

    reviews = Reviews(
        db=core.db, events=core.events, snapshots={"memory": _by_ids(memory, 1), "message": _by_ids(message, 2)}
    )
    safety = Safety(
        db=core.db,
        runner=core.runner,
        identifiers=NationalIdentifiers(),
        metrics=SafetyMetrics(core.metrics.registry),
        reviews=reviews,
    )
    sweep = SafetySweep(db=core.db, clock=core.clock, keep_days=core.settings.safety_keep_days)
    return SafetyParts(safety=safety, reviews=reviews, sweep=sweep)


def _by_ids(read: Callable[..., Awaitable[str]], count: int) -> Snapshot:
    """What reads a thing whose `ref` is its id, or the ids of its place and itself: `<session>/<message>`."""

    async def snapshot(principal: Principal, ref: str) -> str:
        try:
            ids = [UUID(part) for part in ref.split("/")]
        except ValueError:
            ids = []
        if len(ids) != count:
            raise NotFound(f"no such thing: {ref}", hint="a memory's id, or <session id>/<message id>")
        return await read(principal, *ids)

    return snapshot
