"""Who works on a turn says so every second, and hears there whether it shall go on."""

import asyncio
from typing import Final, Literal
from uuid import UUID

from neuroedge.contract.errors import Unavailable
from neuroedge.contract.principal import Principal
from neuroedge.stores import turns
from neuroedge.stores.postgres import Database

Ending = Literal["cancelled", "gone"]
EVERY_S: Final = 1.0


async def beat(db: Database, principal: Principal, turn_id: UUID, *, worker: UUID) -> Ending:
    """Say that `worker` lives until it shall stop; why: its turn is cancelled, or deleted or taken over."""
    while True:
        await asyncio.sleep(EVERY_S)
        try:
            async with db.tenant(principal) as conn:
                standing = await turns.seen(conn, turn_id, worker=worker)
        except Unavailable:
            continue
        if standing != "mine":
            return standing
