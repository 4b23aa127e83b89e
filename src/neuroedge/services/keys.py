"""Master and organisation keys: wrap all anew under another master key, rotate an organisation's content key.

A rotation is a durable job. Each of its steps is stored before the next begins, so one that was cut off goes on where
it stopped: add a key, wait until every process has read it, seal with it, wait until every process does, seal what is
stored anew in batches, forget the older keys. Rows stay readable all the while.
"""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import structlog

from neuroedge.contract.errors import NeuroEdgeError, NotFound, Unavailable
from neuroedge.contract.principal import NOBODY, Principal
from neuroedge.contract.vault import Keys
from neuroedge.infra.queue import TASK_QUEUE, JobQueue
from neuroedge.stores import key_rotation, ledgers, resealing
from neuroedge.stores.key_rotation import Standing
from neuroedge.stores.postgres import TENANT_KEPT_S, Connection, Database, bind

log = structlog.get_logger(__name__)

ROTATE_TASK: Final = "rotate_keys"
_BATCH: Final = 500
_MARGIN_S: Final = 10.0
"""On top of TENANT_KEPT_S: between reading the keys and beginning a transaction a caller may wait for a connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewrapped:
    """What became of a rewrapping: how many organisations' keys, and why which were left as they were."""

    count: int
    failed: dict[UUID, str]


class KeyCare:
    """Keys of all organisations, for the operator."""

    def __init__(
        self, *, db: Database, keys: Keys, queue: JobQueue, settled_s: float = TENANT_KEPT_S + _MARGIN_S
    ) -> None:
        """`settled_s`: after so long every process works with the keys as they are stored."""
        self._db = db
        self._keys = keys
        self._queue = queue
        self._settled_s = settled_s

    async def standings(self) -> list[Standing]:
        """Where the keys of every organisation stand."""
        async with self._db.unbound() as conn:
            return await key_rotation.standings(conn)

    async def rewrap(self) -> Rewrapped:
        """Wrap every organisation's keys by the present master key. Doing it again, after an error too, is safe."""
        count, failed = 0, dict[UUID, str]()
        for standing in await self.standings():
            try:
                count += await self._rewrap(standing.org_id)
            except NeuroEdgeError as error:
                failed[standing.org_id] = error.detail
        return Rewrapped(count=count, failed=failed)

    async def _rewrap(self, org_id: UUID) -> bool:
        async with self._db.unbound() as conn:
            await bind(conn, org_id)
            kept = await key_rotation.lock(conn, org_id)
            if kept is None:
                return False
            anew = await asyncio.to_thread(self._keys.rewrap, kept.wrapped, _place(org_id))
            await key_rotation.rewrap(conn, org_id, anew)
        return True

    async def rotate(self, org_id: UUID | None, *, operator: Principal | None, request_id: str) -> list[Standing]:
        """Queue the rotation of one organisation's key, or of all; one under way goes on. Raises NotFound."""
        chosen = {standing.org_id for standing in await self.standings() if org_id in (None, standing.org_id)}
        if org_id is not None and not chosen:
            raise NotFound("no organisation with this id has keys", hint="GET /v1/admin/keys lists them")
        for chosen_id in chosen:
            async with self._db.unbound() as conn:
                await bind(conn, chosen_id)
                if await key_rotation.request(conn, chosen_id):
                    user_id = operator.user_id if operator else None
                    await _audit(conn, chosen_id, user_id, request_id, "keys.rotation_requested")
                    await self._queued(conn, chosen_id, request_id)
        return [standing for standing in await self.standings() if standing.org_id in chosen]

    async def run(self, org_id: UUID, *, request_id: str) -> None:
        """Take a rotation as far as it goes now, and queue the rest for when every process knows the changed keys."""
        if await self._waits(org_id, request_id):
            return
        await self._seal_anew(org_id)
        await self._retire(org_id, request_id)
        self._db.forget(org_id)

    async def _waits(self, org_id: UUID, request_id: str) -> bool:
        """Add or promote a key when it is time; False when all that is left is to seal anew."""
        async with self._db.unbound() as conn:
            await bind(conn, org_id)
            kept = await key_rotation.lock(conn, org_id)
            if kept is None or kept.rotation is None:
                return True
            wait_s = 0.0 if kept.rotation == "requested" else self._settled_s - kept.age_s
            if wait_s <= 0:
                if kept.rotation == "promoted":
                    return False
                wait_s = self._settled_s
                if kept.rotation == "requested":
                    anew = await asyncio.to_thread(self._keys.add, kept.wrapped, _place(org_id))
                    await key_rotation.store(conn, org_id, wrapped=anew, rotation="added")
                else:
                    anew = await asyncio.to_thread(self._keys.promote, kept.wrapped, _place(org_id))
                    await key_rotation.store(conn, org_id, wrapped=anew, rotation="promoted")
            await self._queued(conn, org_id, request_id, wait_s=wait_s)
            return True

    async def _queued(self, conn: Connection, org_id: UUID, request_id: str, *, wait_s: float = 0.0) -> None:
        await self._queue.defer(
            conn,
            ROTATE_TASK,
            lock=f"keys/{org_id}",
            args={"org_id": str(org_id), "request_id": request_id},
            queue=TASK_QUEUE,
            priority="low",
            run_at=datetime.now(UTC) + timedelta(seconds=wait_s) if wait_s else None,
        )

    async def _seal_anew(self, org_id: UUID) -> None:
        service = _service(org_id)
        self._db.forget(org_id)  # its keys changed
        async with self._db.tenant(service, sees_all=True) as conn:
            prefix = resealing.key_prefix(conn.vault)
            outdated = await resealing.count_outdated(conn, org_id=org_id, prefix=prefix)
            await key_rotation.set_work(conn, org_id, to_reseal=outdated)
        for sealed in resealing.SEALED:
            after = None
            while True:
                async with self._db.tenant(service, sees_all=True) as conn:
                    count, after = await resealing.reseal(
                        conn, sealed, org_id=org_id, prefix=prefix, after=after, limit=_BATCH
                    )
                    await key_rotation.add_work(conn, org_id, resealed=count)
                if after is None:
                    break

    async def _retire(self, org_id: UUID, request_id: str) -> None:
        """Forget the older keys. Raises Unavailable while anything is, or may yet be, sealed with them."""
        async with self._db.tenant(_service(org_id), sees_all=True) as conn:
            kept = await key_rotation.lock(conn, org_id)
            if kept is None:
                return
            # Asked before counting: what such a transaction has written by then is counted.
            if await key_rotation.older_transactions(conn, org_id, settled_s=self._settled_s):
                raise Unavailable("a transaction that began with an older key is under way; the rotation goes on")
            prefix = resealing.key_prefix(conn.vault)
            if left := await resealing.count_outdated(conn, org_id=org_id, prefix=prefix):
                raise Unavailable(f"{left} values were sealed with an older key meanwhile; the rotation goes on")
            anew = await asyncio.to_thread(self._keys.retire, kept.wrapped, _place(org_id))
            await key_rotation.store(conn, org_id, wrapped=anew, rotation=None)
            await _audit(conn, org_id, None, request_id, "keys.rotated")
        log.info("keys_rotated", organisation=str(org_id))


async def _audit(conn: Connection, org_id: UUID, user_id: UUID | None, request_id: str, action: str) -> None:
    await ledgers.add_audit(
        conn, org_id=org_id, user_id=user_id, request_id=request_id, action=action, target=f"organisation:{org_id}"
    )


def _place(org_id: UUID) -> str:
    return f"tenant_keys/{org_id}"


def _service(org_id: UUID) -> Principal:
    """The platform itself, acting inside one organisation."""
    return Principal(user_id=NOBODY, org_id=org_id, username="neuroedge", role="owner", permissions=frozenset())
