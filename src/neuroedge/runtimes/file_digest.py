"""sha256 of weight files. Hashing half a gigabyte at each load would take longer than the load."""

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Final

_FILES_REMEMBERED: Final = 1024


def sha256(path: Path) -> str:
    """Hash the file now. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def known_sha256(path: Path) -> str:
    """As `sha256`, but once a process, and again when the file's size, time or place on disk has changed."""
    stat = path.stat()
    return _sha256_of(path, stat.st_size, stat.st_mtime_ns, stat.st_ino)


@lru_cache(maxsize=_FILES_REMEMBERED)
def _sha256_of(path: Path, size_bytes: int, mtime_ns: int, inode: int) -> str:
    return sha256(path)
