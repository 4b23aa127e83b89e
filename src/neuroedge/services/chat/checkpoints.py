"""LangGraph's checkpoints in our own tables: one tenant each, sealed, deleted with the message they belong to.

`langgraph.checkpoint.postgres` cannot be used: its statements name keys without the organisation (ON CONFLICT), and it
writes texts of the state in plain JSON beside the serialised ones. This saver follows its in-memory one: a state is one
value, and the serialiser is LangGraph's.
"""

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    get_checkpoint_id,
    get_checkpoint_metadata,
)

from neuroedge.contract.principal import Principal
from neuroedge.stores import checkpoints
from neuroedge.stores.checkpoints import Saved, Write
from neuroedge.stores.postgres import Database

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig

_PAGE = 100


class TenantSaver(BaseCheckpointSaver[str]):
    """Checkpoints of one caller; a thread is the id of the assistant's message. Graphs without subgraphs only."""

    def __init__(self, db: Database, principal: Principal) -> None:
        super().__init__()
        self._db = db
        self._principal = principal

    async def aget_tuple(self, config: "RunnableConfig") -> CheckpointTuple | None:
        """The state asked for, or the last one."""
        thread_id = _thread(config)
        async with self._db.tenant(self._principal) as conn:
            saved = await checkpoints.find(conn, thread_id, get_checkpoint_id(config))
            writes = await checkpoints.writes_of(conn, thread_id, saved.checkpoint_id) if saved else []
        return self._tuple(thread_id, saved, writes) if saved else None

    async def alist(
        self,
        config: "RunnableConfig | None",
        *,
        filter: dict[str, Any] | None = None,
        before: "RunnableConfig | None" = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """States of a turn, the last first; at most a hundred, a turn has a dozen."""
        if config is None:
            raise NotImplementedError("states are listed one turn at a time")
        thread_id = _thread(config)
        end = get_checkpoint_id(before) if before else None
        async with self._db.tenant(self._principal) as conn:
            found = await checkpoints.history(conn, thread_id, before=end, limit=_PAGE)
            writes = {s.checkpoint_id: await checkpoints.writes_of(conn, thread_id, s.checkpoint_id) for s in found}
        listed = [self._tuple(thread_id, saved, writes[saved.checkpoint_id]) for saved in found]
        matching = [t for t in listed if (filter or {}).items() <= dict(t.metadata).items()]
        for each in matching[:limit]:
            yield each

    async def aput(
        self,
        config: "RunnableConfig",
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> "RunnableConfig":
        """Save a state. Raises NotFound when the message it belongs to was deleted."""
        thread_id = _thread(config)
        data = self._packed({"checkpoint": checkpoint, "metadata": get_checkpoint_metadata(config, metadata)})
        async with self._db.tenant(self._principal) as conn:
            await checkpoints.put(
                conn,
                org_id=self._principal.org_id,
                user_id=self._principal.user_id,
                thread_id=thread_id,
                checkpoint_id=checkpoint["id"],
                parent_id=get_checkpoint_id(config),
                data=data,
            )
        return _config(thread_id, checkpoint["id"])

    async def aput_writes(
        self, config: "RunnableConfig", writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Keep what a step wrote, so that it need not run again. Raises NotFound when the message was deleted."""
        packed = [
            Write(task_id=task_id, idx=WRITES_IDX_MAP.get(channel, i), data=self._packed([channel, value]))
            for i, (channel, value) in enumerate(writes)
        ]
        async with self._db.tenant(self._principal) as conn:
            await checkpoints.put_writes(
                conn,
                org_id=self._principal.org_id,
                user_id=self._principal.user_id,
                thread_id=_thread(config),
                checkpoint_id=get_checkpoint_id(config) or "",
                writes=packed,
            )

    async def adelete_thread(self, thread_id: str) -> None:
        """Forget a turn's states."""
        async with self._db.tenant(self._principal) as conn:
            await checkpoints.delete(conn, UUID(thread_id))

    def get_next_version(self, current: str | None, channel: None) -> str:
        """Versions that sort as text; a state is saved whole, so they need not differ between branches."""
        return f"{int(current or 0) + 1:032}"

    def get_tuple(self, config: "RunnableConfig") -> CheckpointTuple | None:
        """Not without an event loop."""
        raise NotImplementedError("the assistant's states are read asynchronously")

    def list(self, config: "RunnableConfig | None", **_: Any) -> Iterator[CheckpointTuple]:
        """Not without an event loop."""
        raise NotImplementedError("the assistant's states are read asynchronously")

    def _tuple(self, thread_id: UUID, saved: Saved, writes: Sequence[Write]) -> CheckpointTuple:
        state = self._unpacked(saved.data)
        return CheckpointTuple(
            config=_config(thread_id, saved.checkpoint_id),
            checkpoint=state["checkpoint"],
            metadata=state["metadata"],
            parent_config=_config(thread_id, saved.parent_id) if saved.parent_id else None,
            pending_writes=[(write.task_id, *self._unpacked(write.data)) for write in writes],
        )

    def _packed(self, value: Any) -> bytes:
        kind, data = self.serde.dumps_typed(value)
        return kind.encode() + b":" + data

    def _unpacked(self, packed: bytes) -> Any:
        kind, _, data = packed.partition(b":")
        return self.serde.loads_typed((kind.decode(), data))


def _thread(config: "RunnableConfig") -> UUID:
    return UUID(config["configurable"]["thread_id"])


def _config(thread_id: UUID, checkpoint_id: str) -> "RunnableConfig":
    return {"configurable": {"thread_id": str(thread_id), "checkpoint_ns": "", "checkpoint_id": checkpoint_id}}
