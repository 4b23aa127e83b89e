"""Orders to make finished messages findable; `search` carries them out."""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from neuroedge.contract.principal import Principal
from neuroedge.infra.queue import TASK_QUEUE, JobQueue
from neuroedge.stores.postgres import Connection

REMEMBER_TASK: Final = "remember_chat_messages"
REMEMBERED: Final = ("user", "assistant")
"""Roles of messages that are found."""
_AT_ONCE: Final = 100


async def remember_later(queue: JobQueue, conn: Connection, principal: Principal, ids: Sequence[UUID]) -> None:
    """Queue it, in the transaction that finishes the messages."""
    for start in range(0, len(ids), _AT_ONCE):
        some = [str(i) for i in ids[start : start + _AT_ONCE]]
        await queue.defer(
            conn,
            REMEMBER_TASK,
            lock=f"chat_message:{some[0]}",
            args={
                "message_ids": some,
                "org_id": str(principal.org_id),
                "user_id": str(principal.user_id),
                "username": principal.username,
                "role": principal.role,
            },
            queue=TASK_QUEUE,
            priority="low",
        )
