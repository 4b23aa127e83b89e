"""What happens in a session, for its user's other devices: published by whoever changes it, ids only, no content."""

from collections.abc import AsyncIterator
from typing import Any, Final
from uuid import UUID

from neuroedge.contract.errors import NotFound
from neuroedge.contract.principal import Principal
from neuroedge.infra.events import Events
from neuroedge.services.progress import PING, Following, ProgressEvent
from neuroedge.stores import chat_sessions
from neuroedge.stores.chat_messages import Message
from neuroedge.stores.chat_sessions import Session
from neuroedge.stores.postgres import Connection, Database

GONE: Final = "deleted"


class SessionProgress:
    """Publishes to and follows one session's topic."""

    def __init__(self, *, db: Database, events: Events) -> None:
        self._db = db
        self._events = events
        self._following = Following(events, ends=(GONE,))

    async def publish(self, org_id: UUID, session_id: UUID, name: str, data: dict[str, Any]) -> None:
        """Tell listeners; losing an event never fails the work."""
        await self._events.publish(org_id, _topic(session_id), name, data)

    async def forget(self, org_id: UUID, session_id: UUID) -> None:
        """Drop a deleted session's events, after telling those who listen."""
        await self.publish(org_id, session_id, GONE, {})
        await self._events.forget(org_id, _topic(session_id))

    async def follow(
        self, principal: Principal, session_id: UUID, *, after: str | None = None
    ) -> AsyncIterator[ProgressEvent]:
        """What happens until the session is deleted, first what already happened. Raises NotFound, Overloaded before
        the first event."""
        self._following.admit(principal)
        async with self._db.tenant(principal) as conn:
            await require(conn, session_id)
        return self._following.follow(
            principal, _topic(session_id), after=after or "0", look=lambda: self._look(principal, session_id)
        )

    async def _look(self, principal: Principal, session_id: UUID) -> ProgressEvent:
        async with self._db.tenant(principal) as conn:
            there = await chat_sessions.find(conn, session_id)
        return PING if there else ProgressEvent(id=None, name=GONE, data={})


async def tell(progress: SessionProgress, org_id: UUID, message: Message) -> None:
    """A message began to be generated, or is there."""
    data = {
        "message_id": str(message.id),
        "parent_id": message.parent_id and str(message.parent_id),
        "role": message.role,
        "state": message.state,
    }
    name = "message.started" if message.state == "running" else "message.finished"
    await progress.publish(org_id, message.session_id, name, data)


async def require(conn: Connection, session_id: UUID) -> Session:
    """The session, if the caller may read it. Raises NotFound."""
    session = await chat_sessions.find(conn, session_id)
    if session is None:
        raise no_session(session_id)
    return session


def no_session(session_id: UUID) -> NotFound:
    """The same for an id that never existed, another tenant's, and one hidden from the caller."""
    return NotFound(f"no chat session {session_id}", hint="GET /v1/sessions lists yours")


def _topic(session_id: UUID) -> str:
    return f"chat_session:{session_id}"
