"""Objects of one organisation in a folder or an object store (S3, GCS, Azure), through obstore."""

import asyncio
import re
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import UUID

from neuroedge.contract.errors import InvalidInput, NotFound, SealBroken, Unavailable
from neuroedge.contract.vault import Cipher

_KEY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
_DELETE_AT_ONCE = 1000
_FETCH_BLOCK = 4 << 20


def open_store(url: str | None, folder: Path) -> Any:
    """The store at `url`, or the local folder when None."""
    from obstore.store import LocalStore, from_url

    return from_url(url) if url else LocalStore(folder, mkdir=True, automatic_cleanup=True)


async def organisations(store: Any) -> list[UUID]:
    """Every organisation that has objects, in order; what else lies in the store is passed over."""
    found = []
    for name in await _folders(store, None):
        try:
            org_id = UUID(name)
        except ValueError:
            continue
        if str(org_id) == name:  # UUID() also reads spellings that no prefix is written in
            found.append(org_id)
    return sorted(found)


class TenantBlobs:
    """The Blobs port: every key lies under the organisation's own prefix, every object is sealed with its keys."""

    def __init__(self, store: Any, org_id: UUID, *, cipher: Callable[[], Awaitable[Cipher]], tmp: Path) -> None:
        self._store = store
        self._org_id = org_id
        self._cipher = cipher
        self._tmp = tmp
        """Folder for sealed files on their way to the store."""

    def _path(self, key: str) -> str:
        if len(key) > 512 or not _KEY.fullmatch(key):
            raise InvalidInput("not a valid object key", hint="use letters, digits, '.', '_', '-' and '/'")
        return f"{self._org_id}/{key}"

    def check(self, key: str) -> None:
        """Raise InvalidInput for what is no key, or one that climbs out of the organisation."""
        self._path(key)

    async def put(self, key: str, data: bytes | Path) -> None:
        """Write or replace an object; a Path is streamed from disk."""
        import obstore

        path, cipher = self._path(key), await self._cipher()
        with (
            _wrapped("the object could not be stored", hint="check free space and the blob store"),
            tempfile.TemporaryDirectory(dir=self._tmp) as folder,
        ):
            sealed = await asyncio.to_thread(_sealed, data, Path(folder), cipher, path)
            await obstore.put_async(self._store, path, sealed)

    async def get(self, key: str) -> bytes:
        """Read an object. Raises NotFound, SealBroken."""
        import obstore

        path, cipher = self._path(key), await self._cipher()
        with _wrapped("the object could not be read"):
            try:
                answer = await obstore.get_async(self._store, path)
                sealed = bytes(await answer.bytes_async())
            except (FileNotFoundError, obstore.exceptions.NotFoundError) as error:
                raise NotFound(f"no object {key}") from error
        return await asyncio.to_thread(cipher.open_bytes, sealed, _context(path))

    async def fetch(self, key: str, target: Path) -> None:
        """Write an object into a file, block by block, whatever its size. Raises NotFound, SealBroken."""
        import obstore

        path, cipher = self._path(key), await self._cipher()
        with (
            _wrapped("the object could not be read", hint="check free space and the blob store"),
            tempfile.TemporaryDirectory(dir=self._tmp) as folder,
        ):
            sealed = Path(folder, "sealed")
            try:
                answer = await obstore.get_async(self._store, path)
            except (FileNotFoundError, obstore.exceptions.NotFoundError) as error:
                raise NotFound(f"no object {key}") from error
            with await asyncio.to_thread(sealed.open, "wb") as file:
                async for block in answer.stream(min_chunk_size=_FETCH_BLOCK):
                    await asyncio.to_thread(file.write, block)
            await asyncio.to_thread(cipher.open_file, sealed, target, _context(path))

    async def folders(self, prefix: str) -> list[str]:
        """Names of the folders directly below a folder-like prefix, in order; none for a prefix without objects."""
        return await _folders(self._store, self._path(prefix.rstrip("/")))

    async def seal_plain(self) -> int:
        """Seal the objects that are not; how many. For what was stored before objects were sealed."""
        import obstore

        count, cipher = 0, await self._cipher()
        with _wrapped("the objects could not be sealed"):
            for path in await _paths(self._store, str(self._org_id)):
                kept = bytes(await (await obstore.get_async(self._store, path)).bytes_async())
                try:
                    await asyncio.to_thread(cipher.open_bytes, kept, _context(path))
                except SealBroken:
                    await self.put(path.removeprefix(f"{self._org_id}/"), kept)
                    count += 1
        return count

    async def delete(self, key: str) -> None:
        """Delete an object; one that is not there is fine."""
        path = self._path(key)
        with _wrapped("the object could not be deleted"):
            await _delete(self._store, [path])

    async def delete_prefix(self, prefix: str) -> None:
        """Delete every object below a folder-like prefix; an object of that very name stays."""
        await self._delete_below(self._path(prefix.rstrip("/")))

    async def delete_all(self) -> int:
        """Delete every object of the organisation; how many there were."""
        return await self._delete_below(str(self._org_id))

    async def count(self, prefix: str | None = None) -> int:
        """Objects below a folder-like prefix; of the whole organisation without one."""
        with _wrapped("the objects could not be listed"):
            return len(await _paths(self._store, self._path(prefix.rstrip("/")) if prefix else str(self._org_id)))

    async def _delete_below(self, full: str) -> int:
        with _wrapped("the objects could not be deleted"):
            # Listed to the end first: a listing that walks folders breaks when they vanish under it.
            paths = await _paths(self._store, full)
            for start in range(0, len(paths), _DELETE_AT_ONCE):
                await _delete(self._store, paths[start : start + _DELETE_AT_ONCE])
        return len(paths)


def _sealed(data: bytes | Path, folder: Path, cipher: Cipher, path: str) -> Path:
    plain = data if isinstance(data, Path) else folder / "plain"
    if not isinstance(data, Path):
        plain.write_bytes(data)
    cipher.seal_file(plain, folder / "sealed", _context(path))
    return folder / "sealed"


def _context(path: str) -> str:
    return f"blobs/{path}"


async def _paths(store: Any, full: str) -> list[str]:
    import obstore

    return [entry["path"] async for batch in obstore.list(store, prefix=full) for entry in batch]


async def _folders(store: Any, prefix: str | None) -> list[str]:
    import obstore

    with _wrapped("the objects could not be listed"):
        answer = await obstore.list_with_delimiter_async(store, prefix)
    return sorted(path.rsplit("/", 1)[-1] for path in answer["common_prefixes"])


async def _delete(store: Any, paths: Sequence[str]) -> None:
    """Delete objects of which some may be gone already."""
    import obstore

    gone = (FileNotFoundError, obstore.exceptions.NotFoundError)
    try:
        await obstore.delete_async(store, paths)
    except gone:
        # A batch may end at the first object that is not there.
        for path in paths:
            with suppress(*gone):
                await obstore.delete_async(store, path)


@contextmanager
def _wrapped(detail: str, *, hint: str = "check the blob store") -> Iterator[None]:
    """Errors of the store and of the disk become Unavailable."""
    import obstore

    try:
        yield
    except (OSError, obstore.exceptions.BaseError) as error:
        raise Unavailable(detail, hint=hint) from error
