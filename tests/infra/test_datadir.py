"""The data directory: versioned, secrets generated once and private."""

import stat
from pathlib import Path

import pytest

from neuroedge.infra.datadir import DataDirError, prepare
from neuroedge.settings import Settings


def test_secrets_are_made_once_and_only_the_owner_may_read_them(tmp_path: Path) -> None:
    """Two directories never share secrets; a second start finds the first's."""
    first = prepare(Settings(data_dir=tmp_path / "a"))
    assert prepare(Settings(data_dir=tmp_path / "a")) == first
    other = prepare(Settings(data_dir=tmp_path / "b"))
    assert first.jwt_secret != other.jwt_secret
    assert len(first.jwt_secret) >= 32
    assert stat.S_IMODE((tmp_path / "a" / "secrets.json").stat().st_mode) == 0o600


@pytest.mark.parametrize("version", ["2", "99", "garbage"])
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
