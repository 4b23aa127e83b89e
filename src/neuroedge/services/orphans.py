"""Objects that a crash left without the row that would name them."""

from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

from neuroedge.services.housekeeping import in_each, old_id, service_principal
from neuroedge.services.run_engine import Contexts
from neuroedge.stores.postgres import Connection, Database

Exist = Callable[[Connection, Sequence[UUID]], Awaitable[set[UUID]]]
"""In a transaction of an organisation: which of these ids have a row."""


async def sweep_orphans(db: Database, contexts: Contexts, top: str, *, exist: Exist) -> int:
    """Delete, in every organisation, the folders `top`/<id> that are old and have no row; how many."""

    async def of(org_id: UUID) -> int:
        service = service_principal(org_id)
        blobs = contexts.blobs(service)
        there = {found for found in map(old_id, await blobs.folders(top)) if found is not None}
        if not there:
            return 0
        async with db.tenant(service, sees_all=True) as conn:
            orphans = there - await exist(conn, list(there))
        for orphan in orphans:
            await blobs.delete_prefix(f"{top}/{orphan}")
        return len(orphans)

    return await in_each(await contexts.organisations(), of)
