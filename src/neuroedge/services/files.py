"""Files that applications keep for later calls: taken in, listed, read, deleted, forgotten when their time is over.

A file is seen by the user who sent it, with whichever token or key; its name and its content are sealed.
"""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from neuroedge.contract.errors import Conflict, InvalidInput, NotFound, TooLarge
from neuroedge.contract.principal import Principal
from neuroedge.services.audit import audited
from neuroedge.services.housekeeping import forget_blobs, in_each, service_principal
from neuroedge.services.orphans import sweep_orphans
from neuroedge.services.recordings import Upload
from neuroedge.services.run_engine import Contexts
from neuroedge.stores import files
from neuroedge.stores.files import StoredFile
from neuroedge.stores.ids import new_id
from neuroedge.stores.postgres import Connection, Database

MAX_FILE_BYTES: Final = 128 * 1024 * 1024
"""A file is read whole into memory when it is asked for."""
MAX_FILES: Final = 10_000
"""Of one user."""
PURPOSES: Final = ("assistants", "batch", "evals", "fine-tune", "user_data", "vision")
MIN_LIFE: Final = timedelta(hours=1)
MAX_LIFE: Final = timedelta(days=30)
_SWEPT_AT_ONCE: Final = 200


class Files:
    """Files of the caller."""

    def __init__(self, *, db: Database, contexts: Contexts) -> None:
        self._db = db
        self._contexts = contexts

    async def add(
        self, principal: Principal, upload: Upload, *, purpose: str, life: timedelta | None, request_id: str
    ) -> StoredFile:
        """Keep a file, for `life` or until it is deleted. Raises InvalidInput, TooLarge, Conflict; then nothing is
        kept."""
        if purpose not in PURPOSES:
            raise InvalidInput(f"{purpose[:100]!r} is no purpose of a file", hint=f"one of {', '.join(PURPOSES)}")
        if life is not None and not MIN_LIFE <= life <= MAX_LIFE:
            raise InvalidInput("a file expires after one hour to 30 days", hint="3600 to 2592000 seconds")
        if upload.bytes > MAX_FILE_BYTES:
            raise TooLarge(f"the file is larger than {MAX_FILE_BYTES} bytes", hint="send it in parts")
        file_id = new_id()
        blobs = self._contexts.blobs(principal)
        try:
            await blobs.put(_content(file_id), upload.path)
            async with self._db.tenant(principal) as conn:
                if await files.count(conn) >= MAX_FILES:
                    raise Conflict(f"you have {MAX_FILES} files already", hint="delete some")
                kept = await files.insert(
                    conn,
                    org_id=principal.org_id,
                    user_id=principal.user_id,
                    file_id=file_id,
                    filename=upload.filename,
                    purpose=purpose,
                    size_bytes=upload.bytes,
                    expires_at=None if life is None else datetime.now(UTC) + life,
                )
                await _audit(conn, principal, request_id, "file.created", file_id)
        except BaseException:
            await asyncio.shield(forget_blobs(blobs, _folder(file_id)))
            raise
        return kept

    async def get(self, principal: Principal, file_id: UUID) -> StoredFile:
        """One file. Raises NotFound."""
        async with self._db.tenant(principal) as conn:
            found = await files.find(conn, file_id)
        if found is None:
            raise _not_found(file_id)
        return found

    async def content(self, principal: Principal, file_id: UUID) -> tuple[StoredFile, bytes]:
        """A file with its bytes. Raises NotFound."""
        found = await self.get(principal, file_id)
        return found, await self._contexts.blobs(principal).get(_content(file_id))

    async def page(
        self, principal: Principal, *, limit: int, after: UUID | None, ascending: bool, purpose: str | None
    ) -> list[StoredFile]:
        """The caller's files by time."""
        async with self._db.tenant(principal) as conn:
            return await files.page(conn, limit=limit, after=after, ascending=ascending, purpose=purpose)

    async def delete(self, principal: Principal, file_id: UUID, *, request_id: str) -> None:
        """Delete a file. Raises NotFound."""
        async with self._db.tenant(principal) as conn:
            if not await files.delete(conn, file_id):
                raise _not_found(file_id)
            await _audit(conn, principal, request_id, "file.deleted", file_id)
        # What cannot be deleted now is an object without a row, which the sweep deletes.
        await forget_blobs(self._contexts.blobs(principal), _folder(file_id))

    async def sweep(self) -> int:
        """Delete files whose time is over, and objects that a crash left without a row; how many."""
        async with self._db.unbound() as conn:
            late = await files.organisations_with_expired(conn)
        swept = await in_each(late, self._sweep_expired)
        return swept + await sweep_orphans(self._db, self._contexts, "files", exist=files.exist)

    async def _sweep_expired(self, org_id: UUID) -> int:
        service, swept, gone = service_principal(org_id), 0, [org_id]
        while gone:
            async with self._db.tenant(service, sees_all=True) as conn:
                gone = await files.delete_expired(conn, org_id=service.org_id, limit=_SWEPT_AT_ONCE)
            for file_id in gone:
                await forget_blobs(self._contexts.blobs(service), _folder(file_id))
            swept += len(gone)
        return swept


def _folder(file_id: UUID) -> str:
    return f"files/{file_id}"


def _content(file_id: UUID) -> str:
    return f"{_folder(file_id)}/content"


def _not_found(file_id: UUID) -> NotFound:
    return NotFound(f"you have no file {file_id}", hint="GET /v1/files lists them; files may expire")


async def _audit(conn: Connection, principal: Principal, request_id: str, action: str, file_id: UUID) -> None:
    await audited(conn, principal, request_id=request_id, action=action, target=f"file:{file_id}")
