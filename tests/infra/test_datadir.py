"""The data directory: versioned, secrets generated once and private."""

import os
import stat
import time
from pathlib import Path

import pytest

from neuroedge.infra.datadir import STALE_UPLOAD_S, DataDirError, prepare
from neuroedge.services.engines import discover
from neuroedge.settings import Settings


def test_secrets_are_made_once_and_only_the_owner_may_read_them(tmp_path: Path) -> None:
    """Two directories never share secrets; a second start finds the first's."""
    first = prepare(Settings(data_dir=tmp_path / "a"))
    assert prepare(Settings(data_dir=tmp_path / "a")) == first
    other = prepare(Settings(data_dir=tmp_path / "b"))
    assert first.jwt_secret != other.jwt_secret
    assert len(first.jwt_secret) >= 32
    assert stat.S_IMODE((tmp_path / "a" / "secrets.json").stat().st_mode) == 0o600


@pytest.mark.parametrize("version", ["3", "99", "garbage"])
def test_a_newer_layout_is_refused(tmp_path: Path, version: str) -> None:
    """Data of a newer NeuroEdge is not touched."""
    (tmp_path / "VERSION").write_text(version)
    with pytest.raises(DataDirError, match="layout version"):
        prepare(Settings(data_dir=tmp_path))


def test_damaged_secrets_are_an_error_not_new_secrets(tmp_path: Path) -> None:
    """New secrets would lock every user out and orphan encrypted data."""
    prepare(Settings(data_dir=tmp_path))
    (tmp_path / "secrets.json").write_text("{")
    with pytest.raises(DataDirError, match="damaged"):
        prepare(Settings(data_dir=tmp_path))


def test_a_folder_that_cannot_be_made_names_the_setting(tmp_path: Path) -> None:
    """A file stands where the folder should be."""
    (tmp_path / "file").write_text("")
    with pytest.raises(DataDirError) as caught:
        prepare(Settings(data_dir=tmp_path / "file" / "data"))
    assert "NEUROEDGE_DATA_DIR" in (caught.value.hint or "")


def _written(path: Path, *, ago_s: float) -> None:
    os.utime(path, (time.time() - ago_s,) * 2)


@pytest.mark.parametrize("place", ["upload", "0/upload"])
def test_dead_uploads_are_swept_at_start_and_living_ones_are_not(tmp_path: Path, place: str) -> None:
    """A folder keeps the time it was made while the upload in it grows, each upload in a folder of its own."""
    tmp = tmp_path / "tmp"
    for name, ago_s in (("dead", STALE_UPLOAD_S + 60), ("growing", 1), ("new", 1)):
        file = tmp / name / place
        file.parent.mkdir(parents=True)
        file.write_bytes(b"x")
        _written(file, ago_s=ago_s)
        for folder in {file.parent, tmp / name}:
            _written(folder, ago_s=1 if name == "new" else STALE_UPLOAD_S + 60)
    (tmp / "file").write_bytes(b"x")
    _written(tmp / "file", ago_s=STALE_UPLOAD_S + 60)
    prepare(Settings(data_dir=tmp_path))
    assert {entry.name for entry in tmp.iterdir()} == {"growing", "new"}


def test_what_a_running_call_uses_is_never_swept() -> None:
    """Nothing is written to an upload while engines work on it, one after the other; none may run for long enough."""
    limits = [engine.timeout_s for engine in discover() if engine.__module__.startswith("neuroedge.")]
    assert max(limits) >= 4 * 3600
    assert 5 * max(limits) < STALE_UPLOAD_S


def test_an_upload_that_ends_during_the_sweep_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process of the same directory removes its folder between listing and looking."""
    (tmp_path / "tmp").mkdir()
    real = Path.iterdir

    def with_a_ghost(folder: Path) -> list[Path]:
        return [*real(folder), folder / "ghost"]

    monkeypatch.setattr(Path, "iterdir", with_a_ghost)
    assert prepare(Settings(data_dir=tmp_path)).jwt_secret
