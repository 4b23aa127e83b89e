"""Progress of a document: published by its job, followed by whoever may read it."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

from neuroedge.contract.errors import NeuroEdgeError, NotFound
from neuroedge.contract.principal import Principal
from neuroedge.infra.events import Events
from neuroedge.services.progress import PING, Following, ProgressEvent
from neuroedge.stores import documents
from neuroedge.stores.documents import Document
from neuroedge.stores.postgres import Connection, Database

END = ("done", "failed", "deleted")


class DocumentGone(NeuroEdgeError):
    """The document was deleted, or has another file, while this one was being processed."""

    status = 404
    code = "not_found"


class DocumentProgress:
    """Publishes to and follows one document's topic."""

    def __init__(self, *, db: Database, events: Events) -> None:
        self._db = db
        self._events = events
        self._following = Following(events, ends=END)

    async def publish(self, principal: Principal, document_id: UUID, name: str, data: dict[str, Any]) -> None:
        """Tell listeners; losing an event never fails the work."""
        await self._events.publish(principal.org_id, _topic(document_id), name, data)

    async def begin(self, principal: Principal, document_id: UUID) -> None:
        """Tell that a file waits; what was told of the file before is dropped."""
        await self._events.forget(principal.org_id, _topic(document_id))
        await self.publish(principal, document_id, "queued", {})

    async def forget(self, principal: Principal, document_id: UUID) -> None:
        """Drop a deleted document's events, after telling those who listen."""
        await self.publish(principal, document_id, "deleted", {})
        await self._events.forget(principal.org_id, _topic(document_id))

    async def follow(
        self, principal: Principal, document_id: UUID, *, after: str | None = None
    ) -> AsyncIterator[ProgressEvent]:
        """Progress until the end, first what already happened. Raises NotFound, Overloaded before the first event."""
        self._following.admit(principal)
        async with self._db.tenant(principal) as conn:
            await require(conn, document_id)
        return self._following.follow(
            principal, _topic(document_id), after=after or "0", look=lambda: self._from_row(principal, document_id)
        )

    async def _from_row(self, principal: Principal, document_id: UUID) -> ProgressEvent:
        async with self._db.tenant(principal) as conn:
            document = await documents.find(conn, document_id)
        if document is None:
            return ProgressEvent(id=None, name="deleted", data={})
        if document.status in END:
            return ProgressEvent(id=None, name=document.status, data=failure(document))
        return PING


def failure(document: Document) -> dict[str, Any]:
    """The failure of a document as an event carries it; empty when there is none."""
    if document.status != "failed":
        return {}
    return {"code": document.error_code, "detail": document.error_detail, "hint": document.error_hint}


async def require(conn: Connection, document_id: UUID, *, lock: bool = False) -> Document:
    """The document, if the caller may see it. Raises NotFound."""
    document = await documents.find(conn, document_id, lock=lock)
    if document is None:
        raise not_found(document_id)
    return document


def not_found(document_id: UUID) -> NotFound:
    """The same for an id that never existed, another tenant's, and one hidden from the caller."""
    return NotFound(f"no document {document_id}", hint="GET /v1/documents lists yours")


def _topic(document_id: UUID) -> str:
    return f"document:{document_id}"
