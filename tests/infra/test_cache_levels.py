"""The cache's levels one by one: bounds in bytes, times, damaged entries, files of other versions."""

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from neuroedge.contract.errors import Unavailable
from neuroedge.infra.cache import disk as disk_level
from neuroedge.infra.cache import entry_file
from neuroedge.infra.cache.disk import DiskLevel
from neuroedge.infra.cache.entry import NO_GENERATION, Entry, Kept, key_of, seal, unseal
from neuroedge.infra.cache.entry_file import EntryFile
from neuroedge.infra.cache.memory import ENTRY_OVERHEAD_BYTES, MAX_TTL_S, MemoryLevel

pytestmark = pytest.mark.anyio

KIB, MIB = 1024, 1024 * 1024


class Timer:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Seconds."""
        return self.now


def test_memory_never_takes_more_than_its_bytes() -> None:
    """However many values of whatever size come; those used last stay."""
    memory = MemoryLevel(256 * KIB)
    for n in range(2000):
        memory.put(b"%d" % n, b"x" * (n % 700), 60)
        memory.get(b"0")
        assert memory.size_bytes <= 256 * KIB
    assert memory.get(b"0") is not None
    assert memory.get(b"1") is None
    assert memory.get(b"1999") is not None
    assert memory.size_bytes > 200 * KIB


def test_the_counted_overhead_is_no_less_than_the_real_one() -> None:
    """The bound is one of real bytes."""
    import tracemalloc

    memory = MemoryLevel(64 * MIB)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for n in range(5000):
            memory.put(os.urandom(48), b"%1000d" % n, 60)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert memory.size_bytes == 5000 * (1000 + ENTRY_OVERHEAD_BYTES)
    assert after - before <= memory.size_bytes


def test_a_huge_value_does_not_push_out_all_others() -> None:
    """More than an eighth of the whole never enters; an older value of the key is not left in its place."""
    memory = MemoryLevel(64 * KIB)
    memory.put(b"small", b"x", 60)
    memory.put(b"huge", b"x", 60)
    memory.put(b"huge", b"x" * 9 * KIB, 60)
    assert memory.get(b"huge") is None
    assert memory.get(b"small") == b"x"


def test_memory_of_no_bytes_keeps_nothing() -> None:
    """The level can be turned off."""
    memory = MemoryLevel(0)
    memory.put(b"a", b"x", 60)
    assert (memory.get(b"a"), memory.size_bytes) == (None, 0)


def test_memory_forgets_in_time_and_on_demand() -> None:
    """Each value has its own time, five minutes at most; expired ones give their bytes back."""
    timer = Timer()
    memory = MemoryLevel(MIB, timer=timer)
    memory.put(b"short", b"x", 10)
    memory.put(b"long", b"x", 1e9)
    timer.now = 10
    assert (memory.get(b"short"), memory.get(b"long")) == (None, b"x")
    timer.now = MAX_TTL_S
    assert memory.get(b"long") is None
    memory.put(b"new", b"x", 10)
    assert memory.size_bytes == 1 + ENTRY_OVERHEAD_BYTES
    assert memory.clear() == 1 + ENTRY_OVERHEAD_BYTES
    assert (memory.size_bytes, memory.get(b"new")) == (0, None)


def test_memory_forgets_by_prefix() -> None:
    """Expired entries among them do not matter."""
    timer = Timer()
    memory = MemoryLevel(MIB, timer=timer)
    for key, ttl_s in ((b"a1", 5), (b"a2", 50), (b"b1", 50)):
        memory.put(key, b"x", ttl_s)
    timer.now = 6
    memory.forget(b"a")
    assert [memory.get(key) for key in (b"a1", b"a2", b"b1")] == [None, None, b"x"]
    assert memory.size_bytes == 1 + ENTRY_OVERHEAD_BYTES


KEY = key_of(uuid4(), "a")
SEALED = seal(KEY, Kept(b"payload", 60.0), generation=b"g" * 8, now=1000.0)


def test_an_entry_opens_for_its_key_time_and_generation() -> None:
    """The time left is told; a slightly fast clock of another machine does no harm."""
    assert unseal(KEY, SEALED, generation=b"g" * 8, now=1020.0) == Kept(b"payload", 40.0)
    assert unseal(KEY, SEALED, generation=None, now=998.0) == Kept(b"payload", 60.0)
    assert unseal(key_of(uuid4(), "a"), SEALED, generation=None, now=1000.0) is None
    assert unseal(KEY, SEALED, generation=NO_GENERATION, now=1000.0) is None
    for other_time in (1060.0, 1000.0 + 86_400, 1000.0 - 86_400, 990.0):
        assert unseal(KEY, SEALED, generation=None, now=other_time) is None


def test_every_damaged_byte_is_noticed() -> None:
    """Any byte changed, cut off or added; another format; nothing at all."""
    assert unseal(KEY, SEALED, generation=None, now=1000.0) is not None
    for at in range(len(SEALED)):
        damaged = SEALED[:at] + bytes([SEALED[at] ^ 1]) + SEALED[at + 1 :]
        assert unseal(KEY, damaged, generation=None, now=1000.0) is None
        assert unseal(KEY, SEALED[:at], generation=None, now=1000.0) is None
    assert unseal(KEY, SEALED + b"\0", generation=None, now=1000.0) is None


@pytest.fixture
def file(tmp_path: Path) -> Iterator[EntryFile]:
    """An empty file of one MiB at most."""
    opened = EntryFile(tmp_path / "cache" / "cache.sqlite", limit_bytes=MIB)
    yield opened
    opened.close()


def folder_bytes(folder: Path) -> int:
    """What lies in a folder."""
    return sum(path.stat().st_size for path in folder.iterdir())


def test_the_file_never_grows_beyond_its_bytes(file: EntryFile, tmp_path: Path) -> None:
    """The oldest entries go, many small ones for few large ones too; the log on top is a few MiB."""
    for n in range(200):
        file.write([Entry(b"%d/%d" % (n, i), b"x" * 100, 60) for i in range(50)])
    for n in range(200):
        file.write([Entry(b"large %d" % n, os.urandom(50_000), 60)])
    assert file.read([b"large 199"]) != {}
    assert file.read([b"0/0", b"large 0"]) == {}
    file.close()
    assert folder_bytes(tmp_path / "cache") <= MIB + 200 * KIB


def test_an_entry_is_replaced_and_expires(file: EntryFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last one written counts; expired ones are deleted by later writes."""
    file.write([Entry(b"a", b"1", 60), Entry(b"a", b"2", 60), Entry(b"b", b"1", -1)])
    file.write([Entry(b"c", b"1", 60)])
    assert file.read([b"a", b"b", b"c", b"d"]) == {b"a": b"2", b"c": b"1"}


def test_only_the_owner_may_look_into_the_folder(file: EntryFile, tmp_path: Path) -> None:
    """The entries hold what tenants said."""
    file.write([Entry(b"a", b"1", 60)])
    assert stat.S_IMODE((tmp_path / "cache").stat().st_mode) == 0o700


@pytest.mark.parametrize("content", [b"", b"not a database at all" * 100, b"SQLite format 3\0" + bytes(4096)])
def test_what_is_no_database_is_replaced(tmp_path: Path, content: bytes) -> None:
    """The first use may fail, the second works: recovery needs no restart."""
    path = tmp_path / "cache.sqlite"
    path.write_bytes(content)
    file = EntryFile(path, limit_bytes=MIB)
    if content:
        with pytest.raises(Unavailable):
            file.read([b"a"])
    file.write([Entry(b"a", b"1", 60)])
    assert file.read([b"a"]) == {b"a": b"1"}
    file.close()


def test_damage_inside_the_file_is_survived(tmp_path: Path) -> None:
    """Pages overwritten while it is closed: no wrong bytes come out unnoticed, and it works again."""
    path, key = tmp_path / "cache.sqlite", key_of(uuid4(), "a")
    file = EntryFile(path, limit_bytes=MIB)
    sealed = seal(key, Kept(b"x" * 2000, 60.0), generation=NO_GENERATION, now=0.0)
    file.write([Entry(key, sealed, 60), *(Entry(b"%d" % n, os.urandom(1000), 60) for n in range(100))])
    file.close()
    content = bytearray(path.read_bytes())
    for at in range(4096, len(content), 512):
        content[at : at + 64] = os.urandom(64)
    path.write_bytes(content)
    try:
        found = file.read([key])
    except Unavailable:
        found = {}
    assert all(unseal(key, entry, generation=None, now=0.0) is None for entry in found.values())
    for _ in range(2):
        try:
            file.write([Entry(key, sealed, 60)])
        except Unavailable:
            continue
    assert file.read([key]) == {key: sealed}
    file.close()


def test_a_file_of_another_version_is_replaced(file: EntryFile, tmp_path: Path) -> None:
    """Its entries count as missing."""
    file.write([Entry(b"a", b"1", 60)])
    file.close()
    with sqlite3.connect(tmp_path / "cache" / "cache.sqlite") as other:
        other.execute("PRAGMA user_version = 99")
    other.close()
    with pytest.raises(Unavailable, match="version 99"):
        file.read([b"a"])
    assert file.read([b"a"]) == {}


def test_several_processes_share_the_file(file: EntryFile, tmp_path: Path) -> None:
    """Started at once on an empty folder, they read what the others wrote."""
    code = (
        "import sys, pathlib;"
        "from neuroedge.infra.cache.entry import Entry;"
        "from neuroedge.infra.cache.entry_file import EntryFile;"
        "from neuroedge.contract.errors import Unavailable\n"
        "file = EntryFile(pathlib.Path(sys.argv[1]), limit_bytes=1 << 20)\n"
        "for n in range(30):\n"
        "  while True:\n"
        "    try: file.write([Entry(f'{sys.argv[2]}/{n}'.encode(), b'x', 3600)]); break\n"
        "    except Unavailable: pass\n"
    )
    path = tmp_path / "cache" / "cache.sqlite"
    children = [subprocess.Popen([sys.executable, "-c", code, str(path), name]) for name in "abc"]
    assert [child.wait(timeout=240) for child in children] == [0, 0, 0]
    keys = [f"{name}/{n}".encode() for name in "abc" for n in range(30)]
    assert list(file.read(keys)) == keys


def test_a_folder_that_cannot_be_made_is_an_outage_until_it_can(tmp_path: Path) -> None:
    """A file stands in its place; when it is gone the cache works."""
    (tmp_path / "cache").write_text("in the way")
    file = EntryFile(tmp_path / "cache" / "cache.sqlite", limit_bytes=MIB)
    with pytest.raises(Unavailable):
        file.write([Entry(b"a", b"1", 60)])
    (tmp_path / "cache").unlink()
    file.write([Entry(b"a", b"1", 60)])
    file.close()


async def test_reads_do_not_wait_for_all_writes_and_too_many_are_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the disk is stuck, 32 MiB are queued and the rest is dropped; reads give up; all goes on afterwards."""
    monkeypatch.setattr(disk_level, "_WRITE_PATIENCE_S", 60.0)
    disk = DiskLevel(tmp_path, limit_bytes=512 * MIB)
    await disk.put([Entry(b"first", b"x", 60)])
    stuck, write = threading.Event(), entry_file.EntryFile.write

    def slow(self: EntryFile, entries: list[Entry]) -> None:
        stuck.wait(timeout=240)
        write(self, entries)

    monkeypatch.setattr(entry_file.EntryFile, "write", slow)
    puts = [asyncio.create_task(disk.put([Entry(b"%d" % n, bytes(MIB), 60)])) for n in range(50)]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable, match="slow"):
        await disk.get([b"first"])
    disk._reads._patience_s = 60.0  # from here on only the machine may be slow
    stuck.set()
    dropped = sum(await asyncio.gather(*puts))
    assert 50 - 32 - 2 <= dropped <= 50 - 32
    assert list(await disk.get([b"first", b"0", b"49"])) == [b"first", b"0"]
    await disk.close()


async def test_a_value_too_large_for_the_disk_is_dropped(tmp_path: Path) -> None:
    """More than a sixteenth of the whole would push out too much."""
    disk = DiskLevel(tmp_path, limit_bytes=MIB, patience_s=60)
    assert await disk.put([Entry(b"a", bytes(65 * KIB), 60), Entry(b"b", b"x", 60)]) == 1
    assert await disk.get([b"a", b"b"]) == {b"b": b"x"}
    await disk.close()


async def test_forgetting_reaches_entries_that_wait_to_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of a prefix is written after it was forgotten."""
    disk = DiskLevel(tmp_path, limit_bytes=MIB, patience_s=60)
    begun, go, write = threading.Event(), threading.Event(), entry_file.EntryFile.write

    def slow(self: EntryFile, entries: list[Entry]) -> None:
        begun.set()
        go.wait(timeout=240)
        write(self, entries)

    monkeypatch.setattr(entry_file.EntryFile, "write", slow)
    puts = []
    for keys in ([b"a0"], [b"a1", b"b1"]):  # the first is being written while the second waits for its turn
        puts += [asyncio.create_task(disk.put([Entry(key, b"x", 60)])) for key in keys]
        await asyncio.to_thread(begun.wait, 30)
    await asyncio.sleep(0)
    forgetting = asyncio.create_task(disk.forget(b"a"))
    await asyncio.sleep(0)
    go.set()
    await forgetting
    assert list(await asyncio.gather(puts[0], puts[2])) == [0, 0]
    with pytest.raises(Unavailable):
        await puts[1]
    assert await disk.get([b"a0", b"a1", b"b1"]) == {b"b1": b"x"}
    await disk.close()
