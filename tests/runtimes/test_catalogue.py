"""The model catalogue: what is checked before use, and what each failure tells."""

import hashlib
import multiprocessing
from pathlib import Path

import pytest
from pydantic import ValidationError

from neuroedge.contract.errors import ModelUnavailable, NotFound
from neuroedge.runtimes.catalogue import Catalogue, ModelEntry, WeightFile, load_catalogue

CONTENT = b"weights" * 1000


def _entry(source: Path, *, sha256: str | None = None, parts: int = 1) -> ModelEntry:
    return ModelEntry.model_validate(
        {
            "id": "tiny",
            "role": "chat",
            "runtime": "llama-cpp",
            "licence": "MIT",
            "about": "a test's model",
            "default": True,
            "file": [
                {
                    "name": "model.bin",
                    "bytes": len(CONTENT) * parts,
                    "sha256": sha256 or hashlib.sha256(CONTENT * parts).hexdigest(),
                    "source": [{"path": str(source)}] * parts,
                }
            ],
        }
    )


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A weight file somewhere."""
    path = tmp_path / "source.bin"
    path.write_bytes(CONTENT)
    return path


def _catalogue(tmp_path: Path, entry: ModelEntry) -> Catalogue:
    store = tmp_path / "store"
    store.mkdir(exist_ok=True)
    return Catalogue([entry], store=store, overrides={})


@pytest.mark.parametrize(("name", "roles_only"), [("tiney", False), ("chats", False), ("tiny", True), ("", True)])
def test_a_name_in_a_setting_that_is_none_is_told(name: str, roles_only: bool, tmp_path: Path, source: Path) -> None:
    """With the setting; a model misspelt would be evicted though it was to be pinned. Ids are no roles."""
    catalogue = _catalogue(tmp_path, _entry(source))
    with pytest.raises(NotFound, match=f"NEUROEDGE_X names {name}") as caught:
        catalogue.require_known(["chat", name], setting="NEUROEDGE_X", roles_only=roles_only)
    assert "models list" in (caught.value.hint or "")
    catalogue.require_known(["chat", "tiny"], setting="NEUROEDGE_X")
    catalogue.require_known(["chat"], setting="NEUROEDGE_X", roles_only=True)


def test_a_pulled_model_verifies_and_is_not_pulled_again(tmp_path: Path, source: Path) -> None:
    """Pull fetches once; then the files are there."""
    entry = _entry(source, parts=3)
    catalogue = _catalogue(tmp_path, entry)
    lines: list[str] = []
    assert catalogue.pull(entry, lines.append) is True
    assert (catalogue.require(entry) / "model.bin").read_bytes() == CONTENT * 3
    assert len(lines) == 3
    assert catalogue.pull(entry, lines.append) is False
    assert len(lines) == 3
    assert [p.name for p in catalogue.folder(entry).iterdir()] == ["model.bin"]


def test_a_file_of_a_folder_below_is_pulled_and_checked_there(tmp_path: Path, source: Path) -> None:
    """Models of many files keep their own folders, and nothing but the files stays behind."""
    entry = _entry(source, parts=2)
    entry = entry.model_copy(update={"file": (entry.file[0].model_copy(update={"name": "a/b.c/model"}),)})
    catalogue = _catalogue(tmp_path, entry)
    assert catalogue.pull(entry, lambda _: None) is True
    assert (catalogue.require(entry) / "a/b.c/model").read_bytes() == CONTENT * 2
    assert [path.name for path in catalogue.folder(entry).rglob("*")] == ["a", "b.c", "model"]
    assert catalogue.states(entry) == {"a/b.c/model": "ok"}


@pytest.mark.parametrize("name", ["../model", "a/../model", "/model", "a//model", "a/", ".model", "a/.model", ""])
def test_a_files_name_cannot_lead_out_of_its_models_folder(source: Path, name: str) -> None:
    """Whatever a models.toml says."""
    with pytest.raises(ValidationError):
        WeightFile.model_validate({**_entry(source).file[0].model_dump(), "name": name})


def test_a_missing_file_is_named_with_the_command_that_mends_it(tmp_path: Path, source: Path) -> None:
    """The error tells the file and `neuroedge models pull`."""
    entry = _entry(source)
    with pytest.raises(ModelUnavailable) as caught:
        _catalogue(tmp_path, entry).require(entry)
    assert "model.bin" in caught.value.detail
    assert "missing" in caught.value.detail
    assert caught.value.hint == "run `neuroedge models pull tiny`"


@pytest.mark.parametrize("damage", ["flip", "truncate"])
def test_a_changed_file_is_refused_and_mended_by_pull(tmp_path: Path, source: Path, damage: str) -> None:
    """One flipped byte, or a cut: never loaded, and pull brings it back."""
    entry = _entry(source)
    catalogue = _catalogue(tmp_path, entry)
    catalogue.pull(entry, lambda _: None)
    file = catalogue.folder(entry) / "model.bin"
    file.write_bytes(b"W" + CONTENT[1:] if damage == "flip" else CONTENT[:-1])
    with pytest.raises(ModelUnavailable, match="changed"):
        catalogue.require(entry)
    assert catalogue.pull(entry, lambda _: None) is True
    assert catalogue.states(entry) == {"model.bin": "ok"}


def test_a_source_with_other_bytes_is_not_kept(tmp_path: Path, source: Path) -> None:
    """What does not have the pinned hash never reaches its place in the store."""
    entry = _entry(source, sha256="0" * 64)
    catalogue = _catalogue(tmp_path, entry)
    with pytest.raises(ModelUnavailable, match="has sha256"):
        catalogue.pull(entry, lambda _: None)
    assert catalogue.states(entry) == {"model.bin": "missing"}


def test_a_pull_goes_on_where_it_stopped(tmp_path: Path, source: Path) -> None:
    """Pieces that arrived before an interruption are not fetched again."""
    entry = _entry(source, parts=2)
    catalogue = _catalogue(tmp_path, entry)
    folder = catalogue.folder(entry)
    folder.mkdir(parents=True)
    (folder / ".model.bin.0.piece").write_bytes(CONTENT)
    lines: list[str] = []
    catalogue.pull(entry, lines.append)
    assert len(lines) == 1
    assert catalogue.states(entry) == {"model.bin": "ok"}


def _pull_in_process(store: str, source: str) -> None:
    entry = _entry(Path(source), parts=4)
    Catalogue([entry], store=Path(store), overrides={}).pull(entry, lambda _: None)


def test_two_processes_may_pull_at_once(tmp_path: Path, source: Path) -> None:
    """The second waits for the first and finds everything there."""
    (tmp_path / "store").mkdir()
    context = multiprocessing.get_context("spawn")
    pulls = [context.Process(target=_pull_in_process, args=(str(tmp_path / "store"), str(source))) for _ in range(2)]
    for pull in pulls:
        pull.start()
    for pull in pulls:
        pull.join(60)
    assert [pull.exitcode for pull in pulls] == [0, 0]
    entry = _entry(source, parts=4)
    assert _catalogue(tmp_path, entry).states(entry) == {"model.bin": "ok"}


def test_the_shipped_catalogue_has_a_default_for_each_role(tmp_path: Path) -> None:
    """Exactly one default for every role; every file is pinned by hash and licence."""
    catalogue = load_catalogue(store=tmp_path, extra=None, overrides={})
    roles = {entry.role for entry in catalogue}
    assert roles >= {"speech_to_text", "voice_activity", "speaker_embedding", "text_embedding", "emotion_text", "chat"}
    for role in roles:
        assert sum(entry.default for entry in catalogue if entry.role == role) == 1
    assert all(entry.licence for entry in catalogue)


def test_an_operators_own_catalogue_adds_and_overrides(tmp_path: Path, source: Path) -> None:
    """models.toml in the data directory names a local model; settings choose it for its role."""
    extra = tmp_path / "models.toml"
    extra.write_text(
        '[[model]]\nid = "mine"\nrole = "chat"\nruntime = "llama-cpp"\nlicence = "own"\nabout = "mine"\n'
        f'[[model.file]]\nname = "model.gguf"\nbytes = {len(CONTENT)}\n'
        f'sha256 = "{hashlib.sha256(CONTENT).hexdigest()}"\n[[model.file.source]]\npath = "{source}"\n'
    )
    catalogue = load_catalogue(store=tmp_path / "store", extra=extra, overrides={"chat": "mine"})
    assert catalogue.for_role("chat").id == "mine"
    assert "mine" in {entry.id for entry in catalogue.defaults()}


def test_wrong_choices_are_clear_errors(tmp_path: Path) -> None:
    """A model that does not exist, or one of another role."""
    with pytest.raises(NotFound, match="no model nothing"):
        load_catalogue(store=tmp_path, extra=None, overrides={"chat": "nothing"})
    with pytest.raises(NotFound, match="no model for the role chat"):
        load_catalogue(store=tmp_path, extra=None, overrides={"chat": "whisper-base"})


@pytest.mark.parametrize("text", ["not toml [", "[[model]]\nid = 'x'"])
def test_a_broken_catalogue_names_its_file(tmp_path: Path, text: str) -> None:
    """The operator sees which file is wrong."""
    extra = tmp_path / "models.toml"
    extra.write_text(text)
    with pytest.raises(ModelUnavailable, match=r"models\.toml"):
        load_catalogue(store=tmp_path, extra=extra, overrides={})
