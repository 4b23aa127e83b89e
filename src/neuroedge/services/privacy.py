"""What privacy laws let a person ask for: all data of one user or of one organisation, to take away or to erase.

Both are durable jobs. An erasure ends with a count of what is left, which must be nothing, and keeps that as its proof.
"""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import structlog

from neuroedge.contract.errors import Conflict, Forbidden, InvalidInput, NotFound, Unavailable
from neuroedge.contract.principal import MANAGE_ORG, NOBODY, Principal
from neuroedge.infra.cache.tiered import TieredCache
from neuroedge.infra.events import Events
from neuroedge.infra.queue import TASK_QUEUE, JobQueue
from neuroedge.services.export_file import write_export
from neuroedge.services.run_engine import Contexts
from neuroedge.stores import ledgers, privacy
from neuroedge.stores.postgres import Connection, Database, bind
from neuroedge.stores.privacy import Erasure, Export

log = structlog.get_logger(__name__)

ERASE_TASK: Final = "erase_data"
EXPORT_TASK: Final = "export_data"
EXPORT_KEPT: Final = timedelta(days=7)
_BATCH: Final = 200
_PASSES: Final = 3
_TOPIC: Final = {
    "recordings": "recording",
    "documents": "document",
    "tasks": "task",
    "batches": "batch",
    "chat_sessions": "chat_session",
    "artifacts": "artifact",
    "files": "file",
    "images": "image",
    "trained_models": "trained_model",
}
"""Tables whose rows have objects below `<table>/<id>` and events under `<topic>:<id>`."""


class Privacy:
    """Orders to export and to erase."""

    def __init__(
        self, *, db: Database, queue: JobQueue, contexts: Contexts, cache: TieredCache, events: Events
    ) -> None:
        self._db = db
        self._queue = queue
        self._contexts = contexts
        self._cache = cache
        self._events = events

    async def order_export(
        self, principal: Principal, *, user_id: UUID | None, organisation: bool, request_id: str
    ) -> Export:
        """Have the caller's data, a member's or the organisation's put together. Raises Forbidden, NotFound."""
        subject = None if organisation else user_id or principal.user_id
        async with self._bound(principal.org_id) as conn:
            await _allow(conn, principal, subject)
            order = await privacy.add_export(
                conn, org_id=principal.org_id, user_id=subject, requested_by=principal.user_id
            )
            await self._queued(conn, principal, EXPORT_TASK, "privacy.export_requested", subject, order.id, request_id)
        return order

    async def export(self, principal: Principal, export_id: UUID) -> Export:
        """An export the caller ordered. Raises NotFound."""
        async with self._bound(principal.org_id) as conn:
            order = await privacy.export(conn, export_id)
        if order is None or order.requested_by != principal.user_id:
            raise NotFound("you ordered no such export", hint="exports are kept for seven days")
        return order

    async def exported(self, principal: Principal, export_id: UUID) -> bytes:
        """The ZIP file. Raises NotFound, Conflict while it is being made."""
        order = await self.export(principal, export_id)
        if order.state != "done":
            raise Conflict(f"the export is {order.state}", hint="wait until its state is done")
        return await self._contexts.blobs(principal).get(export_blob(export_id))

    async def delete_export(self, principal: Principal, export_id: UUID) -> None:
        """Delete an export the caller ordered. Raises NotFound."""
        await self.export(principal, export_id)
        await self._forget_export(principal.org_id, export_id)

    async def order_user_erasure(
        self, principal: Principal, user_id: UUID, *, account: bool, request_id: str
    ) -> Erasure:
        """Have all data of the caller or of a member erased, with `account` the account too.

        Raises Forbidden, NotFound, Conflict for the account of the only owner.
        """
        async with self._bound(principal.org_id) as conn:
            await _allow(conn, principal, user_id)
            if account and await privacy.owners(conn, principal.org_id) == [user_id]:
                raise Conflict(
                    "this is the account of the organisation's only owner",
                    hint="erase the organisation, or make someone else an owner first",
                )
            order = await privacy.add_erasure(
                conn, org_id=principal.org_id, user_id=user_id, account=account, requested_by=principal.user_id
            )
            await self._queued(conn, principal, ERASE_TASK, "privacy.erasure_requested", user_id, order.id, request_id)
        return order

    async def order_organisation_erasure(self, principal: Principal, *, confirm: str, request_id: str) -> Erasure:
        """Delete the organisation's keys at once, which makes its content unreadable, and have all of it erased.

        Raises Forbidden unless the caller owns it, InvalidInput unless `confirm` is its name.
        """
        if principal.role != "owner":
            raise Forbidden("only an owner may erase the organisation")
        async with self._bound(principal.org_id) as conn:
            name = await privacy.organisation_name(conn, principal.org_id)
            if name is None:
                raise NotFound("the organisation is erased already")
            if confirm != name:
                raise InvalidInput("`confirm` is not the organisation's name", hint="give its name to erase all of it")
            shredded = await privacy.shred(conn, principal.org_id)
            order = await privacy.add_erasure(
                conn, org_id=principal.org_id, user_id=None, account=True, requested_by=principal.user_id
            )
            await privacy.count_erased(conn, order.id, "tenant_keys", shredded)
            await self._queued(conn, principal, ERASE_TASK, "privacy.erasure_requested", None, order.id, request_id)
        self._db.forget(principal.org_id)
        return order

    async def erasure(self, principal: Principal, erasure_id: UUID) -> Erasure:
        """An erasure the caller ordered, or one of a member for who manages the organisation. Raises NotFound."""
        async with self._bound(principal.org_id) as conn:
            order = await privacy.erasure(conn, erasure_id)
        if order is None or (order.requested_by != principal.user_id and not principal.may(MANAGE_ORG)):
            raise NotFound("you ordered no such erasure", hint="check the id")
        return order

    async def erasures_of_all(self, *, limit: int) -> list[Erasure]:
        """Of every organisation, newest first; for the operator."""
        async with self._db.unbound() as conn:
            return await privacy.erasures_of_all(conn, limit=limit)

    async def sweep(self) -> int:
        """Delete exports that are too old; how many."""
        async with self._db.unbound() as conn:
            old = await privacy.exports_before(conn, datetime.now(UTC) - EXPORT_KEPT)
        for org_id, export_id in old:
            await self._forget_export(org_id, export_id)
        return len(old)

    async def run_erasure(self, org_id: UUID, erasure_id: UUID, *, request_id: str) -> None:
        """Erase and prove it; again from the start when it was cut off. Raises Unavailable when something is left."""
        async with self._bound(org_id) as conn:
            order = await privacy.erasure(conn, erasure_id)
        if order is None or order.state == "done":
            return
        for _ in range(_PASSES):  # what was under way meanwhile may have written something
            left = await (self._erase_organisation(order) if order.user_id is None else self._erase_user(order))
            if not any(left.values()):
                await self._prove(order, left, request_id)
                return
        raise Unavailable(f"not everything could be erased: {[name for name, n in left.items() if n]} are left")

    async def _erase_organisation(self, order: Erasure) -> dict[str, int]:
        org_id, blobs = order.org_id, self._contexts.blobs(_service(order.org_id))
        self._db.forget(org_id)
        for table in privacy.cleared():
            await self._repeat(order, table, partial(privacy.clear, table=table, org_id=org_id, limit=_BATCH * 5))
        await self._repeat(order, "usage and audit", partial(privacy.clear_ledgers, limit=_BATCH * 50))
        async with self._bound(org_id) as conn:
            for name, count in (await privacy.delete_organisation(conn, org_id)).items():
                await privacy.count_erased(conn, order.id, name, count)
        objects, topics = await blobs.delete_all(), await self._events.forget_all(org_id)
        await self._cache.forget(org_id)
        async with self._bound(org_id) as conn:
            await privacy.count_erased(conn, order.id, "blobs", objects)
            await privacy.count_erased(conn, order.id, "event topics", topics)
            left = await privacy.left_of_organisation(conn)
        return {**left, "blobs": await blobs.count()}

    async def _erase_user(self, order: Erasure) -> dict[str, int]:
        org_id, user_id = order.org_id, order.user_id
        assert user_id is not None
        emptied: list[str] = []
        for table in privacy.OWNED:
            while ids := await self._owned(table, org_id, user_id):
                emptied += await self._erase_things(order, table, ids)
        async with self._bound(org_id) as conn:
            exports = await privacy.exports_holding(conn, org_id=org_id, user_id=user_id)
        for export_id in exports:
            await self._forget_export(org_id, export_id)
            emptied.append(f"exports/{export_id}")
        async with self._bound(org_id) as conn:
            gone = await privacy.delete_traces(conn, org_id=org_id, user_id=user_id)
            gone |= {"exports": len(exports)}
            if order.account:
                gone["accounts"] = await privacy.delete_account(conn, user_id)
            for name, count in gone.items():
                await privacy.count_erased(conn, order.id, name, count)
        await self._cache.forget(org_id)
        async with self._bound(org_id) as conn:
            left = await privacy.left_of_user(conn, user_id)
        if not order.account:
            left.pop("memberships")
        blobs = self._contexts.blobs(_service(org_id))
        return {**left, "blobs": sum([await blobs.count(folder) for folder in emptied])}

    async def _owned(self, table: str, org_id: UUID, user_id: UUID) -> list[UUID]:
        async with self._bound(org_id) as conn:
            return await privacy.owned(conn, table, org_id=org_id, user_id=user_id, limit=_BATCH)

    async def _erase_things(self, order: Erasure, table: str, ids: list[UUID]) -> list[str]:
        """Objects first: as long as the row is there, a job that was cut off finds them again."""
        folders = [f"{table}/{thing}" for thing in ids] if table in _TOPIC else []
        blobs, objects = self._contexts.blobs(_service(order.org_id)), 0
        for folder in folders:
            objects += await blobs.count(folder)
            await blobs.delete_prefix(folder)
        async with self._bound(order.org_id) as conn:
            count = await privacy.delete_owned(conn, table, org_id=order.org_id, ids=ids)
            await privacy.count_erased(conn, order.id, table, count)
            await privacy.count_erased(conn, order.id, "blobs", objects)
        for thing in ids if table in _TOPIC else []:
            await self._events.forget(order.org_id, f"{_TOPIC[table]}:{thing}")
        return folders

    async def _repeat(self, order: Erasure, name: str, delete: Callable[[Connection], Awaitable[int]]) -> None:
        """Delete in transactions of some rows each until none is left."""
        count = 1
        while count:
            async with self._bound(order.org_id) as conn:
                count = await delete(conn)
                await privacy.count_erased(conn, order.id, name, count)

    async def _prove(self, order: Erasure, left: dict[str, int], request_id: str) -> None:
        async with self._bound(order.org_id) as conn:
            erased = (await privacy.erasure(conn, order.id) or order).report or {}
            report = {
                "organisation": str(order.org_id),
                "user": order.user_id and str(order.user_id),
                "account": order.account,
                "finished_at": datetime.now(UTC).isoformat(),
                "erased": erased,
                "left": left,
            }
            sha256 = report_sha256(report)
            await privacy.finish_erasure(conn, order.id, report=report, sha256=sha256)
            if order.user_id is not None:
                await ledgers.add_audit(
                    conn,
                    org_id=order.org_id,
                    user_id=order.requested_by,
                    request_id=request_id,
                    action="privacy.erased",
                    target=f"user:{order.user_id}",
                    detail={"report": report, "sha256": sha256},
                )
        log.info("data_erased", erasure=str(order.id), sha256=sha256)

    async def run_export(self, org_id: UUID, export_id: UUID, *, folder: Path) -> None:
        """Put an ordered export together as a ZIP file of JSON lines, and keep it among the organisation's objects."""
        service = _service(org_id)
        async with self._bound(org_id) as conn:
            order = await privacy.export(conn, export_id)
        if order is None or order.state != "running":
            return
        path = folder / "export.zip"
        blobs = self._contexts.blobs(service)
        counts = await write_export(self._db, blobs, service, order, path)
        await blobs.put(export_blob(export_id), path)
        async with self._bound(org_id) as conn:
            wanted = await privacy.finish_export(conn, export_id, state="done", counts=counts)
        if not wanted:
            await asyncio.shield(blobs.delete_prefix(f"exports/{export_id}"))

    async def fail_export(self, org_id: UUID, export_id: UUID) -> None:
        """The export cannot be made."""
        async with self._bound(org_id) as conn:
            await privacy.finish_export(conn, export_id, state="failed", counts={})

    async def _forget_export(self, org_id: UUID, export_id: UUID) -> None:
        await self._contexts.blobs(_service(org_id)).delete_prefix(f"exports/{export_id}")
        async with self._bound(org_id) as conn:
            await privacy.delete_export(conn, export_id)

    async def _queued(
        self,
        conn: Connection,
        principal: Principal,
        task: str,
        action: str,
        subject: UUID | None,
        order_id: UUID,
        request_id: str,
    ) -> None:
        await ledgers.add_audit(
            conn,
            org_id=principal.org_id,
            user_id=principal.user_id,
            request_id=request_id,
            action=action,
            target=f"user:{subject}" if subject else f"organisation:{principal.org_id}",
        )
        await self._queue.defer(
            conn,
            task,
            lock=f"privacy/{principal.org_id}",
            args={"org_id": str(principal.org_id), "order_id": str(order_id), "request_id": request_id},
            queue=TASK_QUEUE,
        )

    @asynccontextmanager
    async def _bound(self, org_id: UUID) -> AsyncIterator[Connection]:
        """A transaction that sees all rows of one organisation but not its keys, which may be gone."""
        async with self._db.unbound() as conn:
            await bind(conn, org_id, sees_all=True)
            yield conn


def report_sha256(report: dict[str, Any]) -> str:
    """Of the report as JSON with sorted keys and no spaces."""
    return hashlib.sha256(json.dumps(report, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def export_blob(export_id: UUID) -> str:
    """Where an export lies."""
    return f"exports/{export_id}/export.zip"


async def _allow(conn: Connection, principal: Principal, subject: UUID | None) -> None:
    """Everyone may ask for what is theirs; the rest needs the right to manage the organisation."""
    if subject == principal.user_id:
        return
    if not principal.may(MANAGE_ORG):
        raise Forbidden(f"what is not yours needs the permission {MANAGE_ORG}")
    if subject is not None and not await privacy.is_member(conn, org_id=principal.org_id, user_id=subject):
        raise NotFound("no such user in your organisation", hint="check the id")


def _service(org_id: UUID) -> Principal:
    """The platform itself, acting inside one organisation."""
    return Principal(user_id=NOBODY, org_id=org_id, username="neuroedge", role="owner", permissions=frozenset())
