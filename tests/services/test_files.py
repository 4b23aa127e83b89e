"""Files over a real database and a real folder: what is kept, what is forgotten in time, what a crash leaves."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from neuroedge.contract.errors import Conflict, InvalidInput, NotFound, TooLarge
from neuroedge.contract.principal import Principal
from neuroedge.infra.blobs import open_store
from neuroedge.infra.clock import SystemClock
from neuroedge.services import files as service
from neuroedge.services import housekeeping
from neuroedge.services.files import Files
from neuroedge.services.recordings import Upload
from neuroedge.services.run_engine import Contexts
from neuroedge.stores import files as store
from neuroedge.stores.ids import new_id
from neuroedge.stores.postgres import Database
from tests.stores.conftest import colleague, new_principal

pytestmark = pytest.mark.anyio


def contexts_over(db: Database, folder: Path) -> Contexts:
    """Engine contexts with the database and a folder of objects, for what needs no model."""
    unused: Any = None
    return Contexts(
        db=db,
        models=unused,
        blob_store=open_store(None, folder / "blobs"),
        tmp=folder,
        cache=lambda principal: unused,
        clock=SystemClock(),
        llm=lambda principal, request_id: unused,
        max_audio_bytes=1,
        max_audio_s=1,
    )


def upload_of(folder: Path, data: bytes = b"words", *, name: str = "notes.txt") -> Upload:
    """A file as it comes in."""
    path = folder / f"upload-{new_id()}"
    path.write_bytes(data)
    return Upload(path=path, filename=name, bytes=len(data))


async def _kept(files: Files, caller: Principal, folder: Path, **more: Any) -> UUID:
    asked: dict[str, Any] = {"purpose": "batch", "life": None, "request_id": "r", **more}
    return (await files.add(caller, upload_of(folder), **asked)).id


async def test_a_file_is_seen_by_its_user_alone(db: Database, tmp_path: Path) -> None:
    """Not by a colleague in the same organisation, nor by another organisation."""
    contexts = contexts_over(db, tmp_path)
    files, caller, stranger = Files(db=db, contexts=contexts), await new_principal(db), await new_principal(db)
    file_id = await _kept(files, caller, tmp_path)
    found, data = await files.content(caller, file_id)
    assert (found.filename, data) == ("notes.txt", b"words")
    for other in (colleague(caller, "admin"), stranger):
        with pytest.raises(NotFound):
            await files.content(other, file_id)
        with pytest.raises(NotFound):
            await files.delete(other, file_id, request_id="r")
        assert await files.page(other, limit=9, after=None, ascending=True, purpose=None) == []


async def test_a_file_is_forgotten_when_its_time_is_over(db: Database, tmp_path: Path) -> None:
    """At once for who asks; row and object by the sweep. The others stay."""
    contexts = contexts_over(db, tmp_path)
    files, caller = Files(db=db, contexts=contexts), await new_principal(db)
    stays = await _kept(files, caller, tmp_path, life=timedelta(days=1))
    goes = await _kept(files, caller, tmp_path)
    async with db.tenant(caller) as conn:
        # As the application made it an hour ago: it may not change a row.
        await store.delete(conn, goes)
        await store.insert(
            conn,
            org_id=caller.org_id,
            user_id=caller.user_id,
            file_id=goes,
            filename="notes.txt",
            purpose="batch",
            size_bytes=5,
            expires_at=datetime.now(UTC) - timedelta(seconds=1),
        )
    with pytest.raises(NotFound):
        await files.get(caller, goes)
    assert await files.sweep() >= 1
    assert await contexts.blobs(caller).count(f"files/{goes}") == 0
    assert await contexts.blobs(caller).count(f"files/{stays}") == 1
    async with db.tenant(caller) as conn:
        assert await store.exist(conn, [stays, goes]) == {stays}


async def test_what_a_crash_left_is_swept(db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An object without a row, once it is too old to be an upload in progress."""
    contexts = contexts_over(db, tmp_path)
    files, caller = Files(db=db, contexts=contexts), await new_principal(db)
    kept, orphan = await _kept(files, caller, tmp_path), new_id()
    await contexts.blobs(caller).put(f"files/{orphan}/content", b"left")
    await files.sweep()
    assert await contexts.blobs(caller).count(f"files/{orphan}") == 1
    later = time.time() + 2 * 3600
    monkeypatch.setattr(housekeeping.time, "time", lambda: later)
    await files.sweep()
    assert await contexts.blobs(caller).count(f"files/{orphan}") == 0
    assert (await files.content(caller, kept))[1] == b"words"


async def test_what_is_refused_leaves_nothing(db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another purpose, a life too short or too long, a file too large, one file too many."""
    contexts = contexts_over(db, tmp_path)
    files, caller = Files(db=db, contexts=contexts), await new_principal(db)
    for wrong in ({"purpose": ""}, {"life": timedelta(minutes=1)}, {"life": timedelta(days=31)}):
        with pytest.raises(InvalidInput):
            await _kept(files, caller, tmp_path, **wrong)
    monkeypatch.setattr(service, "MAX_FILE_BYTES", 4)
    with pytest.raises(TooLarge):
        await _kept(files, caller, tmp_path)
    monkeypatch.setattr(service, "MAX_FILE_BYTES", 5)
    monkeypatch.setattr(service, "MAX_FILES", 1)
    await _kept(files, caller, tmp_path)
    with pytest.raises(Conflict):
        await _kept(files, caller, tmp_path)
    assert await contexts.blobs(caller).count("files") == 1
