"""Entries in one SQLite file: bounded in bytes, shared by processes, and thrown away when it is damaged. Blocking."""

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from neuroedge.contract.errors import Unavailable
from neuroedge.infra.cache.entry import Entry

_SCHEMA_VERSION = 1
_LOCK_TIMEOUT_S = 0.05
_EXPIRED_AT_ONCE = 1000
_SCHEMA = (
    "CREATE TABLE entries (age INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, expires REAL, entry BLOB)",
    "CREATE INDEX entries_expires ON entries (expires)",
    f"PRAGMA user_version = {_SCHEMA_VERSION}",
)
"""`age` grows with each entry written, so that the oldest go first whatever the clock does."""


class EntryFile:
    """A table of entries. Used from one thread; every method raises Unavailable when the file or the disk fails.

    Deleted entries are overwritten with zeros. Another schema's file, and one that SQLite finds damaged, is replaced
    by an empty one. At `limit_bytes` (the write-ahead log of a few MiB comes on top) the oldest entries are deleted.
    """

    def __init__(self, path: Path, *, limit_bytes: int) -> None:
        self._path = path
        self._limit_bytes = limit_bytes
        self._connection: sqlite3.Connection | None = None

    def read(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """The entries there are, by key."""
        found: dict[bytes, bytes] = {}
        with self._open() as connection:
            for key in keys:
                row = connection.execute("SELECT entry FROM entries WHERE key = ?", (key,)).fetchone()
                if row is not None and isinstance(row[0], bytes):
                    found[key] = row[0]
        return found

    def write(self, entries: Sequence[Entry]) -> None:
        """Store entries, all or none, and delete what is expired or over the limit."""
        now = time.time()
        rows = [(entry.key, now + entry.ttl_s, entry.sealed) for entry in entries]
        with self._open() as connection, connection:
            connection.execute(
                "DELETE FROM entries WHERE age IN (SELECT age FROM entries WHERE expires < ? LIMIT ?)",
                (now, _EXPIRED_AT_ONCE),
            )
            connection.executemany("INSERT OR REPLACE INTO entries (key, expires, entry) VALUES (?, ?, ?)", rows)
            self._shrink(connection)

    def delete_prefix(self, prefix: bytes) -> None:
        """Delete the entries whose key starts with `prefix`, from the write-ahead log too."""
        with self._open() as connection:
            with connection:
                connection.execute("DELETE FROM entries WHERE key >= ? AND key < ?", (prefix, prefix + b"\xff" * 64))
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Close the file; the next call opens it again."""
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            if self._connection is None:
                self._connection = self._connect()
            yield self._connection
        except (sqlite3.Error, OSError) as error:
            self._give_up(error)
            raise Unavailable(f"the cache on disk failed: {error}") from error

    def _connect(self) -> sqlite3.Connection:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        connection = sqlite3.connect(self._path, timeout=_LOCK_TIMEOUT_S, check_same_thread=False)
        try:
            # Never waits for the disk to have written: what a power failure damages is found out and computed again.
            for pragma in ("journal_mode = WAL", "synchronous = OFF", "secure_delete = ON"):
                connection.execute(f"PRAGMA {pragma}")
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Make the table in a new file. Raises sqlite3.DatabaseError for a file of another schema."""
        with connection:
            connection.execute("BEGIN IMMEDIATE")  # of several processes that start at once, one makes it
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if version == 0 and tables == 0:
                for statement in _SCHEMA:
                    connection.execute(statement)
            elif version != _SCHEMA_VERSION:
                raise sqlite3.DatabaseError(f"schema version {version}")

    def _shrink(self, connection: sqlite3.Connection) -> None:
        """Delete the oldest tenth of the entries until the rest fits."""
        while self._used_bytes(connection) > self._limit_bytes:
            oldest, youngest = connection.execute("SELECT min(age), max(age) FROM entries").fetchone()
            if oldest is None:
                return
            connection.execute("DELETE FROM entries WHERE age <= ?", (oldest + (youngest - oldest) // 10,))

    def _used_bytes(self, connection: sqlite3.Connection) -> int:
        pages, free, page_bytes = (
            connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * page_bytes)

    def _give_up(self, error: Exception) -> None:
        """Close after an error, and throw the file away when it is the file that is bad, not the disk."""
        self.close()
        if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
            for suffix in ("", "-wal", "-shm"):
                with suppress(OSError):
                    Path(f"{self._path}{suffix}").unlink(missing_ok=True)
