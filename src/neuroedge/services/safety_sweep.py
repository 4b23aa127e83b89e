"""What the safety passes decided is kept for a time, and deleted after it."""

from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import structlog

from neuroedge.contract.errors import VaultLocked
from neuroedge.contract.ports import Clock
from neuroedge.services.housekeeping import service_principal
from neuroedge.stores import key_rotation, safety
from neuroedge.stores.postgres import Database

log = structlog.get_logger(__name__)
_AT_ONCE: Final = 5000


class SafetySweep:
    """Deletes old decisions in every organisation; those a review looks at stay until it is finished.

    `keep_days`: how long a decision is kept.
    """

    def __init__(self, *, db: Database, clock: Clock, keep_days: float) -> None:
        self._db = db
        self._clock = clock
        self._keep = timedelta(days=keep_days)

    async def run(self) -> int:
        """How many decisions were deleted. Raises Unavailable."""
        before, swept = self._clock.now() - self._keep, 0
        async with self._db.unbound() as conn:
            # Nothing is decided in an organisation without keys.
            organisations = [standing.org_id for standing in await key_rotation.standings(conn)]
        for org_id in organisations:
            try:
                swept += await self._of(org_id, before)
            except VaultLocked as error:  # one organisation's keys hold up no other's sweep
                log.warning("safety_not_swept", tenant_id=str(org_id), code=error.code)
        return swept

    async def _of(self, org_id: UUID, before: datetime) -> int:
        swept, gone = 0, _AT_ONCE
        while gone == _AT_ONCE:
            async with self._db.tenant(service_principal(org_id), sees_all=True) as conn:
                gone = await safety.delete_before(conn, org_id=org_id, before=before, limit=_AT_ONCE)
            swept += gone
        return swept
