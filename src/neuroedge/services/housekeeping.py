"""What services that keep objects share: acting for the platform, forgetting objects, finding leftovers."""

import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Final
from uuid import UUID

import structlog

from neuroedge.contract.errors import NeuroEdgeError, VaultLocked
from neuroedge.contract.principal import NOBODY, ROLE_PERMISSIONS, Principal
from neuroedge.infra.blobs import TenantBlobs

log = structlog.get_logger(__name__)

_ORPHAN_S: Final = 3600
"""Objects without a row are an upload in progress for so long; after that they are what a crash left."""


async def forget_blobs(blobs: TenantBlobs, folder: str) -> None:
    """Delete objects nobody names any more; what cannot be deleted now, the job or the sweep deletes later."""
    try:
        await blobs.delete_prefix(folder)
    except NeuroEdgeError as error:
        log.warning("blobs_not_deleted", folder=folder, detail=error.detail)


async def forget_blob(blobs: TenantBlobs, key: str) -> None:
    """The same with one object."""
    try:
        await blobs.delete(key)
    except NeuroEdgeError as error:
        log.warning("blobs_not_deleted", folder=key, detail=error.detail)


def old_id(name: str) -> UUID | None:
    """The id a folder is named by, when it was made (UUIDv7: the first 48 bits are milliseconds) long enough ago."""
    try:
        found = UUID(name)
    except ValueError:
        return None
    made_s = (found.int >> 80) / 1000
    return found if time.time() - made_s > _ORPHAN_S else None


async def in_each(organisations: Iterable[UUID], act: Callable[[UUID], Awaitable[int]]) -> int:
    """Do the same in each organisation; the sum of what each call counted.

    An organisation whose keys cannot be unwrapped holds up no other; the next round tries it again. Raises what else
    `act` raises.
    """
    done = 0
    for org_id in organisations:
        try:
            done += await act(org_id)
        except VaultLocked as error:
            log.warning("organisation_left_out", tenant_id=str(org_id), code=error.code)
    return done


def service_principal(org_id: UUID) -> Principal:
    """The platform itself, acting inside one organisation."""
    return Principal(
        user_id=NOBODY,
        org_id=org_id,
        username="neuroedge",
        role="owner",
        permissions=ROLE_PERMISSIONS["owner"],
    )
