"""Files of the embedded servers: where a socket may lie, what a log ends with, what survives a crash, whose it is."""

import contextlib
import hashlib
import os
import pwd
import re
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from neuroedge.contract.errors import Unavailable

if TYPE_CHECKING:
    import psutil

_PLAIN_PATH = re.compile(r"[A-Za-z0-9._/-]+")
_SOCKET_PATH_BYTES = 100
"""The kernel takes 108 on Linux and 104 on macOS, with the closing zero."""


def socket_folder(folder: Path, *, user: str | None = None) -> Path:
    """Where a server's socket lies: in its own folder, or in one of its own under the temporary directory.

    The second when the path is longer than the kernel takes, or has characters that command lines and URLs would need
    quoted. `user` owns that folder then, else we do. Raises Unavailable when it is somebody else's.
    """

    def fits(path: Path) -> bool:
        return len(os.fsencode(path)) + len("/.s.PGSQL.5432") < _SOCKET_PATH_BYTES and bool(
            _PLAIN_PATH.fullmatch(str(path))
        )

    if fits(folder):
        return folder
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    name = f"neuroedge-{os.getuid()}-{digest}"
    # /tmp first, so that processes with different TMPDIR find each other.
    for parent in (Path("/tmp"), Path(tempfile.gettempdir())):  # noqa: S108
        short = parent / name
        if fits(short) and os.access(parent, os.W_OK | os.X_OK):
            break
    else:
        raise Unavailable(
            f"no place for the socket of {folder}", hint="set TMPDIR to a short path, or NEUROEDGE_DATA_DIR"
        )
    short.mkdir(mode=0o700, exist_ok=True)
    owner = pwd.getpwnam(user).pw_uid if user else os.getuid()
    if short.is_symlink() or short.lstat().st_uid not in (os.getuid(), owner):
        raise Unavailable(f"{short} belongs to somebody else", hint="remove it, or set NEUROEDGE_DATA_DIR")
    short.chmod(0o700)
    if user:
        os.chown(short, owner, -1)
    return short


def write_durably(file: Path, content: bytes, *, like: Path | None = None) -> None:
    """Write beside and rename, on the disk when it returns; with the owner and mode of `like`, else ours and 0600."""
    beside = file.with_name(file.name + ".new")
    beside.unlink(missing_ok=True)
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        if like is not None:
            model = like.stat()
            os.fchmod(out.fileno(), model.st_mode & 0o777)
            if model.st_uid != os.getuid():
                os.fchown(out.fileno(), model.st_uid, model.st_gid)
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    beside.rename(file)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def log_tail(log: Path, lines: int = 5) -> str:
    """The last lines of a log on one line."""
    try:
        return " | ".join(log.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return "no log was written"


def works_in(process: "psutil.Process", folder: Path) -> bool:
    """Whether a process's working directory is a folder, as a server's is its data folder; a zombie has none.

    Raises psutil.NoSuchProcess, psutil.AccessDenied.
    """
    import psutil

    return process.status() != psutil.STATUS_ZOMBIE and process.cwd() == str(folder.resolve())


def wait_until_gone(process: "psutil.Process", folder: Path, *, timeout_s: float) -> None:
    """Wait until a server that was told to stop has left its folder, for so long at most."""
    import psutil

    deadline = time.monotonic() + timeout_s
    # Not `process.wait`: a container's first process may leave the dead standing for long, or for ever.
    with contextlib.suppress(psutil.Error):
        while works_in(process, folder) and time.monotonic() < deadline:
            time.sleep(0.02)
