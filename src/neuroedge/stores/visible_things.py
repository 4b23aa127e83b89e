"""Whether a caller may see the thing that an object of the blob store belongs to."""

from typing import Final
from uuid import UUID

from neuroedge.contract.principal import Principal
from neuroedge.stores import chat_attachments
from neuroedge.stores.postgres import Database

FOLDERS: Final = frozenset({"artifacts", "documents", "files", "images", "recordings", chat_attachments.FOLDER})
"""Each is named as the table whose rows' objects lie in it; row level security knows who sees which row."""


async def hidden(db: Database, principal: Principal, *, folder: str, thing_id: UUID) -> bool:
    """Whether a thing of one of FOLDERS is there, but not for this caller. What is still being made is nobody's yet."""
    if folder not in FOLDERS:
        raise ValueError(f"{folder} is no folder of things")
    there = f"SELECT 1 FROM {folder} WHERE org_id = %s AND id = %s"
    for sees_all in (False, True):
        async with db.tenant(principal, sees_all=sees_all) as conn:
            if await (await conn.execute(there, [principal.org_id, thing_id])).fetchone() is not None:
                return sees_all
    return False
