"""What the safety passes decided is kept for a time, and deleted after it."""

from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from neuroedge.contract.ports import Clock
from neuroedge.services.housekeeping import in_each, service_principal
from neuroedge.stores import key_rotation, safety
from neuroedge.stores.postgres import Database

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
        before = self._clock.now() - self._keep
        async with self._db.unbound() as conn:
            # Nothing is decided in an organisation without keys.
            organisations = [standing.org_id for standing in await key_rotation.standings(conn)]
        return await in_each(organisations, lambda org_id: self._of(org_id, before))

    async def _of(self, org_id: UUID, before: datetime) -> int:
        swept, gone = 0, _AT_ONCE
        while gone == _AT_ONCE:
            async with self._db.tenant(service_principal(org_id), sees_all=True) as conn:
                gone = await safety.delete_before(conn, org_id=org_id, before=before, limit=_AT_ONCE)
            swept += gone
        return swept
