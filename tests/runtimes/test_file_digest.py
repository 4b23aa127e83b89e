"""sha256 of weight files, remembered while they lie unchanged."""

import hashlib
import os
from pathlib import Path

import pytest

from neuroedge.runtimes import file_digest
from neuroedge.runtimes.file_digest import known_sha256, sha256


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A file of weights."""
    path = tmp_path / "model.bin"
    path.write_bytes(b"weights")
    return path


def test_a_file_is_hashed_once_while_it_lies_unchanged(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second answer is the first one, and the file is not read again."""
    hashed: list[Path] = []

    def count(path: Path) -> str:
        hashed.append(path)
        return sha256(path)

    monkeypatch.setattr(file_digest, "sha256", count)
    expected = hashlib.sha256(b"weights").hexdigest()
    assert [known_sha256(weights), known_sha256(weights)] == [expected, expected]
    assert hashed == [weights]


@pytest.mark.parametrize("how", ["longer", "later", "another file"])
def test_a_changed_file_is_hashed_again(weights: Path, how: str) -> None:
    """Its size, its time and its place on disk each tell."""
    known_sha256(weights)
    before = weights.stat()
    if how == "longer":
        weights.write_bytes(b"weights and more")
        os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    elif how == "later":
        weights.write_bytes(b"WEIGHTS")
        os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000))
    else:
        other = weights.with_suffix(".new")
        other.write_bytes(b"WEIGHTS")
        os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
        other.replace(weights)
    assert known_sha256(weights) == hashlib.sha256(weights.read_bytes()).hexdigest()


def test_a_missing_file_has_no_digest(tmp_path: Path) -> None:
    """It is the caller's to say what that means."""
    with pytest.raises(FileNotFoundError):
        known_sha256(tmp_path / "none.bin")
