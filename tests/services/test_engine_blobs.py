"""Objects that an engine call names: the caller's own, those that are shared, and no others."""

from pathlib import Path
from uuid import UUID

import pytest

from neuroedge.contract.errors import InvalidInput, NotFound
from neuroedge.contract.principal import Principal
from neuroedge.services.files import Files
from neuroedge.stores.ids import new_id
from neuroedge.stores.postgres import Database
from tests.services.test_files import contexts_over, upload_of
from tests.stores.conftest import colleague, new_principal

pytestmark = pytest.mark.anyio


class _Bench:
    """Objects of organisations in one folder."""

    def __init__(self, db: Database, folder: Path) -> None:
        self._contexts, self._folder = contexts_over(db, folder), folder
        self._files = Files(db=db, contexts=self._contexts)
        self.whole, self.seen = self._contexts.blobs, self._contexts.seen_blobs

    async def file(self, owner: Principal) -> str:
        """Keep a file; its key."""
        upload = upload_of(self._folder, b"secret", name="secret.txt")
        kept = await self._files.add(owner, upload, purpose="user_data", life=None, request_id="r")
        return f"files/{kept.id}/content"


@pytest.fixture
def bench(db: Database, tmp_path: Path) -> _Bench:
    """One for each test."""
    return _Bench(db, tmp_path)


async def test_who_knows_the_key_of_a_colleagues_file_does_not_get_it(
    db: Database, bench: _Bench, tmp_path: Path
) -> None:
    """Neither to read nor to replace nor to delete; the owner does."""
    owner = await new_principal(db)
    key = await bench.file(owner)
    assert await bench.seen(owner).get(key) == b"secret"
    theirs = bench.seen(colleague(owner, "admin"))
    for attempt in (
        theirs.get(key),
        theirs.fetch(key, tmp_path / "copy"),
        theirs.put(key, b"x"),
        theirs.delete_prefix(key.removesuffix("/content")),
    ):
        with pytest.raises(NotFound, match="no object"):
            await attempt
    assert not (tmp_path / "copy").exists()
    await bench.seen(owner).fetch(key, tmp_path / "own")
    assert (tmp_path / "own").read_bytes() == b"secret"


async def test_what_is_still_being_made_can_be_read(db: Database, bench: _Bench) -> None:
    """An upload is looked at before its row is there; a colleague's row appears later, and hides it."""
    caller = await new_principal(db)
    for key in (f"images/{new_id()}/content", f"scratch/{new_id()}/original"):
        await bench.whole(caller).put(key, b"fresh")
        assert await bench.seen(caller).get(key) == b"fresh"


@pytest.mark.parametrize("folder", ["exports", "federations", "trained_models", "tasks", "Files"])
async def test_what_is_nobodys_input_is_not_found(db: Database, bench: _Bench, folder: str) -> None:
    """Whole exports, weights and results are given out by their own routes only."""
    caller = await new_principal(db)
    key = f"{folder}/{new_id()}/export.zip"
    await bench.whole(caller).put(key, b"all of it")
    with pytest.raises(NotFound, match="no object"):
        await bench.seen(caller).get(key)


@pytest.mark.parametrize("key", ["files", "files/", "files/../exports/x", "/files/x", "files//x", "x" * 513, ""])
async def test_what_is_no_key_is_refused(db: Database, bench: _Bench, key: str) -> None:
    """Climbing, empty and endless ones."""
    with pytest.raises((InvalidInput, NotFound)):
        await bench.seen(await new_principal(db)).get(key)


async def test_another_spelling_of_an_id_opens_nothing(db: Database, bench: _Bench) -> None:
    """Objects lie under one spelling of their thing's id."""
    owner = await new_principal(db)
    key = await bench.file(owner)
    file_id = UUID(key.split("/")[1])
    for spelling in (file_id.hex, str(file_id).upper()):
        with pytest.raises(NotFound):
            await bench.seen(colleague(owner, "admin")).get(f"files/{spelling}/content")
