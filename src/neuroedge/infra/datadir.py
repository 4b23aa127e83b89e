"""The data directory: its layout version, its folders, and the secrets generated into it.

VERSION        layout version; a newer one is refused
secrets.json   0600: JWT key, database passwords
master.key     0600: wraps the keys of every organisation's content; back it up apart from the database
postgres.initialised   written when postgres/ was made to its end
postgres/ valkey/ blobs/ models/ tmp/ run/
"""

import contextlib
import json
import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from neuroedge.contract.errors import NeuroEdgeError
from neuroedge.infra.vault import new_master_key
from neuroedge.settings import Settings

LAYOUT_VERSION = 2
"""1: objects in blobs/ were not sealed."""
SEALED_BLOBS_VERSION = 2
_FOLDERS = ("blobs", "models", "tmp", "run")
STALE_UPLOAD_S = 24 * 3600
"""A file of tmp/ to which nothing was written for so long is dead: no call lasts so long, our engines end after 4 h.

Files end with the call they serve; what is left in tmp/ comes from a process that was killed. Another process of the
same data directory may be working with its own while this one starts, hence not at once."""


class DataDirError(NeuroEdgeError):
    """The data directory cannot be used; the hint says what to do."""

    code = "data_dir"


@dataclass(frozen=True, slots=True, kw_only=True)
class Secrets:
    """What was generated at first start."""

    jwt_secret: str
    postgres_password: str
    postgres_app_password: str
    master_key: str


def prepare(settings: Settings) -> Secrets:
    """Create the folders and secrets of a new data directory, or check those of an old one. Safe in parallel."""
    root = settings.data_dir
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / ".lock"):
            _check_version(root)
            for name in _FOLDERS:
                (root / name).mkdir(exist_ok=True)
            (root / "blobs").chmod(0o700)
            (root / "tmp").chmod(0o700)
            _sweep_stale_uploads(root / "tmp")
            return Secrets(**_load_secrets(root / "secrets.json"), master_key=_load_master_key(root / "master.key"))
    except OSError as error:
        raise DataDirError(
            f"the data directory {root} cannot be used: {error.strerror or error}",
            hint="make it writable, or set NEUROEDGE_DATA_DIR to another folder",
        ) from error


def version(root: Path) -> int:
    """The layout version of a data directory that `prepare` has seen."""
    return int((root / "VERSION").read_text())


def set_version(root: Path) -> None:
    """The directory has the present layout now."""
    (root / "VERSION").write_text(f"{LAYOUT_VERSION}\n")


def _check_version(root: Path) -> None:
    file = root / "VERSION"
    if not file.exists():
        set_version(root)
        return
    text = file.read_text().strip()
    if not text.isdigit() or int(text) > LAYOUT_VERSION:
        raise DataDirError(
            f"the data directory {root} has layout version {text!r}, this NeuroEdge knows {LAYOUT_VERSION}",
            hint="run the newer NeuroEdge that made it, or set NEUROEDGE_DATA_DIR to another folder",
        )


def _load_secrets(file: Path) -> dict[str, str]:
    names = [name for name in Secrets.__dataclass_fields__ if name != "master_key"]
    if not file.exists():
        _write_secret(file, json.dumps({name: secrets.token_urlsafe(36) for name in names}, indent=1))
    try:
        read = json.loads(file.read_text())
        return {name: str(read[name]) for name in names}
    except (ValueError, KeyError, TypeError) as error:
        raise DataDirError(f"{file} is damaged", hint="restore it from a backup") from error


def _load_master_key(file: Path) -> str:
    if not file.exists():
        _write_secret(file, new_master_key())
    return file.read_text().strip()


def _write_secret(file: Path, text: str) -> None:
    # Write beside and rename: a crash in the middle never leaves half a secrets file.
    beside = file.with_suffix(".new")
    beside.unlink(missing_ok=True)
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    beside.rename(file)


def _sweep_stale_uploads(folder: Path) -> None:
    """Remove what calls left behind when a process was killed in the middle, STALE_UPLOAD_S after the last write."""
    import time

    for entry in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # of a call of another process that just ended
            # A folder keeps its time while a file in it grows, and uploads lie in folders of folders.
            written = [entry, *entry.rglob("*")]
            if time.time() - max(file.stat().st_mtime for file in written) > STALE_UPLOAD_S:
                shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink()
