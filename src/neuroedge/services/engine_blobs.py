"""The objects that an engine call may name: those of things its caller sees."""

from pathlib import Path
from typing import Final
from uuid import UUID

from neuroedge.contract.errors import NotFound
from neuroedge.contract.principal import Principal
from neuroedge.infra.blobs import TenantBlobs
from neuroedge.stores import visible_things
from neuroedge.stores.postgres import Database

_PASSING: Final = frozenset({"scratch"})
"""Folders of what is on its way through, under a name that nobody is told."""


class EngineBlobs:
    """The Blobs port of one caller: a colleague's private file is not found, whoever knows its key.

    What is nobody's thing (exports, weights, results) is none of an engine's input.
    """

    def __init__(self, blobs: TenantBlobs, *, db: Database, principal: Principal) -> None:
        self._blobs = blobs
        self._db = db
        self._principal = principal

    async def put(self, key: str, data: bytes) -> None:
        """Write or replace an object. Raises NotFound."""
        await self._check(key)
        await self._blobs.put(key, data)

    async def get(self, key: str) -> bytes:
        """Read an object. Raises NotFound, SealBroken."""
        await self._check(key)
        return await self._blobs.get(key)

    async def fetch(self, key: str, target: Path) -> None:
        """Write an object into a file. Raises NotFound, SealBroken."""
        await self._check(key)
        await self._blobs.fetch(key, target)

    async def delete_prefix(self, prefix: str) -> None:
        """Delete every object below a folder-like prefix. Raises NotFound."""
        await self._check(prefix)
        await self._blobs.delete_prefix(prefix)

    async def _check(self, key: str) -> None:
        self._blobs.check(key)
        folder, _, rest = key.partition("/")
        if folder in _PASSING:
            return
        unknown = NotFound(f"no object {key}", hint='name one of yours, as in "recordings/<id>/audio.wav"')
        if folder not in visible_things.FOLDERS:
            raise unknown
        try:
            thing_id = UUID(rest.partition("/")[0])
        except ValueError:
            raise unknown from None
        if await visible_things.hidden(self._db, self._principal, folder=folder, thing_id=thing_id):
            raise unknown
