"""Objects of one organisation in a folder or an object store (S3, GCS, Azure), through obstore."""

import re
from pathlib import Path
from typing import Any
from uuid import UUID

from neuroedge.contract.errors import InvalidInput, NotFound, Unavailable

_KEY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")


def open_store(url: str | None, folder: Path) -> Any:
    """The store at `url`, or the local folder when None."""
    from obstore.store import LocalStore, from_url

    return from_url(url) if url else LocalStore(folder, mkdir=True, automatic_cleanup=True)


class TenantBlobs:
    """The Blobs port: every key lies under the organisation's own prefix."""

    def __init__(self, store: Any, org_id: UUID) -> None:
        self._store = store
        self._org_id = org_id

    def _path(self, key: str) -> str:
        if len(key) > 512 or not _KEY.fullmatch(key):
            raise InvalidInput("not a valid object key", hint="use letters, digits, '.', '_', '-' and '/'")
        return f"{self._org_id}/{key}"

    async def put(self, key: str, data: bytes | Path) -> None:
        """Write or replace an object; a Path is streamed from disk."""
        import obstore

        try:
            await obstore.put_async(self._store, self._path(key), data)
        except (OSError, obstore.exceptions.BaseError) as error:
            raise Unavailable("the object could not be stored", hint="check free space and the blob store") from error

    async def get(self, key: str) -> bytes:
        """Read an object. Raises NotFound."""
        import obstore

        try:
            answer = await obstore.get_async(self._store, self._path(key))
            return bytes(await answer.bytes_async())
        except (FileNotFoundError, obstore.exceptions.NotFoundError) as error:
            raise NotFound(f"no object {key}") from error
        except (OSError, obstore.exceptions.BaseError) as error:
            raise Unavailable("the object could not be read", hint="check the blob store") from error

    async def delete_prefix(self, prefix: str) -> None:
        """Delete every object below a folder-like prefix."""
        import obstore

        full = self._path(prefix.rstrip("/"))
        try:
            async for batch in obstore.list(self._store, prefix=full):
                paths = [entry["path"] for entry in batch]
                if paths:
                    await obstore.delete_async(self._store, paths)
        except FileNotFoundError:
            return
