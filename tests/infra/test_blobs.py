"""Objects of organisations in a folder: kept, read, listed and deleted, each under its own prefix only."""

import asyncio
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from neuroedge.contract.errors import InvalidInput, NotFound, SealBroken, Unavailable
from neuroedge.contract.vault import Cipher
from neuroedge.infra.blobs import TenantBlobs, open_store, organisations
from neuroedge.infra.vault import Vault, new_master_key

pytestmark = pytest.mark.anyio

OURS = UUID("11111111-1111-4111-8111-111111111111")
THEIRS = UUID("22222222-2222-4222-8222-222222222222")


_KEYS = Vault(new_master_key())
_WRAPPED = _KEYS.new("blobs")


def _blobs(store: Any, org_id: UUID) -> TenantBlobs:
    async def cipher() -> Cipher:
        return _KEYS.cipher(_WRAPPED, "blobs")

    return TenantBlobs(store, org_id, cipher=cipher, tmp=Path(tempfile.gettempdir()))


@pytest.fixture
def store(tmp_path: Path) -> Any:
    """A store in a folder."""
    return open_store(None, tmp_path / "blobs")


@pytest.fixture
def blobs(store: Any) -> TenantBlobs:
    """Our organisation's objects."""
    return _blobs(store, OURS)


async def test_an_object_is_kept_replaced_and_deleted(blobs: TenantBlobs) -> None:
    """What was put last is read; after deletion there is nothing, and deleting again is fine."""
    await blobs.put("recordings/1/audio.wav", b"first")
    await blobs.put("recordings/1/audio.wav", b"second")
    assert await blobs.get("recordings/1/audio.wav") == b"second"
    await blobs.delete_prefix("recordings/1")
    with pytest.raises(NotFound, match=r"recordings/1/audio\.wav"):
        await blobs.get("recordings/1/audio.wav")
    await blobs.delete_prefix("recordings/1")


async def test_one_object_is_deleted_alone(store: Any, blobs: TenantBlobs) -> None:
    """What lies beside and below it stays, as does another organisation's; deleting it again is fine."""
    for key in ("models/1", "models/10", "models/2/part"):
        await blobs.put(key, b"x")
    await _blobs(store, THEIRS).put("models/1", b"theirs")
    await blobs.delete_prefix("models/1")
    assert await blobs.get("models/1") == b"x"
    for _ in range(2):
        await blobs.delete("models/1")
    with pytest.raises(NotFound):
        await blobs.get("models/1")
    assert await blobs.count("models") == 2
    assert await _blobs(store, THEIRS).get("models/1") == b"theirs"
    with pytest.raises(InvalidInput):
        await blobs.delete("../x")


async def test_an_object_of_any_size_is_written_into_a_file(store: Any, blobs: TenantBlobs, tmp_path: Path) -> None:
    """Larger than the blocks it is moved in; another organisation's key opens nothing, a missing one is not found."""
    data = bytes(range(256)) * (9 << 12)
    await blobs.put("large", data)
    target = tmp_path / "large"
    await blobs.fetch("large", target)
    assert await asyncio.to_thread(target.read_bytes) == data
    with pytest.raises(NotFound, match="no object small"):
        await blobs.fetch("small", target)
    with pytest.raises(NotFound):
        await _blobs(store, THEIRS).fetch("large", target)


async def test_a_changed_object_is_not_written_into_a_file(blobs: TenantBlobs, tmp_path: Path) -> None:
    """One bit of the sealed object is turned."""
    await blobs.put("x", b"some words")
    (path,) = [p for p in (tmp_path / "blobs").rglob("x") if p.is_file()]
    sealed = bytearray(path.read_bytes())
    sealed[-1] ^= 1
    path.write_bytes(sealed)
    with pytest.raises(SealBroken):
        await blobs.fetch("x", tmp_path / "plain")


async def test_an_empty_object_is_an_object(blobs: TenantBlobs) -> None:
    """No bytes are not the same as no object."""
    await blobs.put("empty", b"")
    assert await blobs.get("empty") == b""


async def test_deleting_takes_whole_folders_only(blobs: TenantBlobs) -> None:
    """Many objects below the folder go, with or without a slash; a folder whose name only starts alike stays."""
    for i in range(120):
        await blobs.put(f"recordings/1/{i}/part", b"x")
    await blobs.put("recordings/12/part", b"kept")
    await blobs.delete_prefix("recordings/1/")
    assert await blobs.folders("recordings") == ["12"]
    assert await blobs.get("recordings/12/part") == b"kept"


async def test_an_object_that_vanishes_while_a_folder_is_deleted_does_not_save_the_others(
    blobs: TenantBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two deletions of a recording at once: all its objects go, and neither fails."""
    import obstore

    for name in ("a", "b", "c"):
        await blobs.put(f"recordings/1/{name}", b"x")
    delete = obstore.delete_async
    calls = []

    async def racing(store: Any, paths: Any) -> None:
        calls.append(paths)
        if len(calls) == 1:
            await delete(store, f"{OURS}/recordings/1/a")
            raise obstore.exceptions.NotFoundError("a is gone")
        await delete(store, paths)

    monkeypatch.setattr(obstore, "delete_async", racing)
    await blobs.delete_prefix("recordings/1")
    for name in ("a", "b", "c"):
        with pytest.raises(NotFound):
            await blobs.get(f"recordings/1/{name}")


@pytest.mark.parametrize(
    "key",
    [
        *("", "/", "..", "../x", "a/../b", "a/..", "/etc/passwd", "a//b", "a/", ".hidden"),
        *("a\x00b", "a\nb", "a\n", "a b", "a\\b", "ä", "%2e%2e/x", "a" * 513),
    ],
    ids=repr,
)
async def test_keys_that_could_leave_the_organisation_are_refused(blobs: TenantBlobs, key: str) -> None:
    """Dots, slashes, control characters, length: refused by every operation, before the store is asked."""
    with pytest.raises(InvalidInput, match="object key"):
        await blobs.put(key, b"x")
    with pytest.raises(InvalidInput, match="object key"):
        await blobs.get(key)
    if key != "a/":  # folders may end in a slash
        with pytest.raises(InvalidInput, match="object key"):
            await blobs.delete_prefix(key)
        with pytest.raises(InvalidInput, match="object key"):
            await blobs.folders(key)


async def test_the_longest_key_is_taken(blobs: TenantBlobs) -> None:
    """512 characters, in folders as file systems want them."""
    key = "/".join(["a" * 127] * 4) + "b"
    assert len(key) == 512
    await blobs.put(key, b"x")
    assert await blobs.get(key) == b"x"


async def test_two_organisations_do_not_see_each_other(store: Any, blobs: TenantBlobs) -> None:
    """The same key twice: each reads, lists and deletes its own."""
    theirs = _blobs(store, THEIRS)
    await blobs.put("recordings/1/audio.wav", b"ours")
    await theirs.put("recordings/1/audio.wav", b"theirs")
    await theirs.put("recordings/2/audio.wav", b"theirs too")
    assert await blobs.folders("recordings") == ["1"]
    with pytest.raises(NotFound):
        await blobs.get("recordings/2/audio.wav")
    await blobs.delete_prefix("recordings")
    assert await theirs.get("recordings/1/audio.wav") == b"theirs"
    assert await theirs.folders("recordings") == ["1", "2"]


async def test_only_the_names_directly_below_are_listed(blobs: TenantBlobs) -> None:
    """Objects and deeper folders are not; a prefix nobody wrote under has none."""
    await blobs.put("recordings/b/deep/er/x", b"x")
    await blobs.put("recordings/a/x", b"x")
    await blobs.put("recordings/loose", b"x")
    await blobs.put("recordings-old/c/x", b"x")
    assert await blobs.folders("recordings") == ["a", "b"]
    assert await blobs.folders("recordings/") == ["a", "b"]
    assert await blobs.folders("recordings/b") == ["deep"]
    assert await blobs.folders("scratch") == []


async def test_organisations_are_those_with_objects(store: Any, blobs: TenantBlobs, tmp_path: Path) -> None:
    """An empty store has none; folders of other names are no organisations."""
    assert await organisations(store) == []
    await _blobs(store, THEIRS).put("x", b"x")
    await blobs.put("x", b"x")
    for name in ("lost+found", "backups", OURS.hex):
        (tmp_path / "blobs" / name).mkdir()
    assert await organisations(store) == [OURS, THEIRS]


_MEASURE = """
import asyncio, sys, threading
from pathlib import Path
from uuid import UUID
import psutil
from neuroedge.infra.blobs import TenantBlobs, open_store
from neuroedge.infra.vault import Vault, new_master_key
keys = Vault(new_master_key())
sealing = keys.cipher(keys.new("x"), "x")
async def cipher():
    return sealing
blobs = TenantBlobs(open_store(None, Path(sys.argv[2])), UUID(int=1), cipher=cipher, tmp=Path(sys.argv[2]).parent)
process, peak, done = psutil.Process(), 0, threading.Event()
def watch():
    global peak
    while not done.wait(0.002):
        peak = max(peak, process.memory_info().rss)
asyncio.run(blobs.put("small", b"x"))
base = process.memory_info().rss
watcher = threading.Thread(target=watch)
watcher.start()
asyncio.run(blobs.put("big", Path(sys.argv[1])))
done.set()
watcher.join()
print((peak - base) // 1_000_000)
"""


async def test_a_file_is_streamed(blobs: TenantBlobs, tmp_path: Path) -> None:
    """300 MB go from disk to the store without being held in memory, and arrive whole."""
    source = tmp_path / "upload"
    with source.open("wb") as file:
        file.write(b"start")
        file.truncate(300_000_000)
        file.seek(0, 2)
        file.write(b"end")
    command = [sys.executable, "-c", _MEASURE, str(source), str(tmp_path / "streamed")]
    answer = await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True, text=True)
    assert int(answer.stdout) < 150
    kept = tmp_path / "streamed" / str(UUID(int=1)) / "big"
    assert kept.stat().st_size > 300_000_003
    with kept.open("rb") as file:
        assert file.read(1 << 20).count(0) < 10_000  # the file was zeros, sealed they are noise
    source.write_bytes(b"start" + bytes(3 << 20) + b"end")
    await blobs.put("big", source)
    assert await blobs.get("big") == b"start" + bytes(3 << 20) + b"end"
    source.write_bytes(b"small")
    await blobs.put("small", source)
    assert await blobs.get("small") == b"small"


async def test_a_store_that_fails_is_unavailable(store: Any, blobs: TenantBlobs, tmp_path: Path) -> None:
    """A file where the organisation's folder should be: every operation says so in NeuroEdge's own error."""
    (tmp_path / "blobs" / str(OURS)).write_bytes(b"in the way")
    with pytest.raises(Unavailable, match="stored"):
        await blobs.put("a/x", b"x")
    with pytest.raises(Unavailable, match="stored"):
        await _blobs(store, THEIRS).put("a/x", tmp_path / "no such file")


async def test_errors_of_an_object_store_do_not_escape(blobs: TenantBlobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused permissions and broken connections while reading, listing and deleting."""
    import obstore

    def broken(*_: Any, **__: Any) -> Any:
        raise obstore.exceptions.GenericError("connection refused")

    await blobs.put("a/x", b"x")
    for name, said in (("get_async", "read"), ("delete_async", "deleted"), ("list", "deleted")):
        with monkeypatch.context() as patch:
            patch.setattr(obstore, name, broken)
            with pytest.raises(Unavailable, match=said) as caught:
                await (blobs.get("a/x") if name == "get_async" else blobs.delete_prefix("a"))
            assert caught.value.retryable
    monkeypatch.setattr(obstore, "list_with_delimiter_async", broken)
    with pytest.raises(Unavailable, match="listed"):
        await blobs.folders("a")


async def test_what_was_stored_in_plain_is_sealed_once(store: Any, blobs: TenantBlobs, tmp_path: Path) -> None:
    """Objects of an older layout become readable; sealed ones and other organisations' stay as they are."""
    await blobs.put("recordings/new", b"sealed already")
    await _blobs(store, THEIRS).put("x", b"theirs")
    old = tmp_path / "blobs" / str(OURS) / "recordings" / "old"
    old.write_bytes(b"plain words")
    assert await blobs.seal_plain() == 1
    assert b"plain words" not in old.read_bytes()
    assert await blobs.get("recordings/old") == b"plain words"
    assert await blobs.get("recordings/new") == b"sealed already"
    assert await blobs.seal_plain() == 0
