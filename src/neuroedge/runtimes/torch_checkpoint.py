"""Reads tensors out of a PyTorch checkpoint without PyTorch, and without running anything the file asks for.

The legacy (pre-1.6, not zipped) layout: four pickles in a row (magic number, protocol, system facts, the object with
tensors as references to storages), a fifth with the storages' keys, then each storage as an int64 count and its raw
little-endian values in the order of those keys (torch/serialization.py, `_legacy_load`).
"""

import os
import pickle
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_ZIP_SIGNATURE = b"PK\x03\x04"
_DTYPES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
}


class CheckpointError(ValueError):
    """The file is no legacy PyTorch checkpoint, is cut off, or asks for something other than tensors."""


@dataclass(frozen=True, slots=True)
class _Storage:
    dtype: np.dtype[Any]
    key: str
    count: int


@dataclass(frozen=True, slots=True)
class _TensorRef:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def _tensor_ref(storage: _Storage, offset: int, shape: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> _TensorRef:
    """Stands where the pickle names torch._utils._rebuild_tensor_v2."""
    return _TensorRef(storage, offset, tuple(shape), tuple(stride))


class _TensorUnpickler(pickle.Unpickler):
    """Knows ordered dicts, tensors and storages; any other class or function ends the reading."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor_ref
        if module == "torch" and name in _DTYPES:
            return np.dtype(_DTYPES[name])
        raise CheckpointError(f"the checkpoint asks for {module}.{name}, which is not allowed")

    def persistent_load(self, pid: Any) -> _Storage:
        match pid:
            case ("storage", np.dtype() as dtype, str() as key, str(), int() as count, None):
                return _Storage(dtype, key, count)
        raise CheckpointError("the checkpoint refers to something that is no plain storage")


def read_tensors(path: Path, *, section: str) -> dict[str, NDArray[Any]]:
    """The tensors of the checkpoint's dict entry `section` by name, copied into arrays of their own shape and dtype.

    Raises CheckpointError for any other layout, a cut-off file, or a pickle that names a class outside the five
    storage types, `OrderedDict` and the tensor constructor; OSError when the file cannot be read.
    """
    with path.open("rb") as file:
        try:
            content = _read_pickles(file)
            tensors = content.get(section) if isinstance(content, dict) else None
            if not isinstance(tensors, dict):
                raise CheckpointError(f"{path.name} holds no '{section}'")
            storages = _read_storages(file, known=_storages_in(content), wanted=_storages_in(tensors))
            return {name: _view(ref, storages) for name, ref in tensors.items() if isinstance(ref, _TensorRef)}
        except CheckpointError:
            raise
        except Exception as error:  # a broken pickle raises nearly anything
            raise CheckpointError(f"{path.name} is not a readable legacy PyTorch checkpoint: {error}") from error


def _read_pickles(file: BinaryIO) -> Any:
    if file.read(4) == _ZIP_SIGNATURE:
        raise CheckpointError("this is a zipped checkpoint; only the legacy layout is read")
    file.seek(0)
    if _load(file) != _MAGIC or _load(file) != _PROTOCOL:
        raise CheckpointError("this is no legacy PyTorch checkpoint")
    facts = _load(file)
    if not facts.get("little_endian"):
        raise CheckpointError("only little-endian checkpoints are read")
    return _load(file)


def _load(file: BinaryIO) -> Any:
    return _TensorUnpickler(file).load()


def _read_storages(
    file: BinaryIO, *, known: dict[str, _Storage], wanted: dict[str, _Storage]
) -> dict[str, NDArray[Any]]:
    """Values of the wanted storages; the others (an optimizer's moments are twice the weights) are skipped."""
    arrays: dict[str, NDArray[Any]] = {}
    for key in _load(file):
        storage = known[key]
        size_bytes = storage.count * storage.dtype.itemsize
        if int.from_bytes(file.read(8), "little", signed=True) != storage.count:
            raise CheckpointError(f"storage {key} is of another size than announced")
        if key not in wanted:
            file.seek(size_bytes, os.SEEK_CUR)
            continue
        raw = file.read(size_bytes)
        if len(raw) != size_bytes:
            raise CheckpointError(f"storage {key} is cut off")
        arrays[key] = np.frombuffer(raw, storage.dtype)
    return arrays


def _storages_in(value: Any) -> dict[str, _Storage]:
    if isinstance(value, _TensorRef):
        return {value.storage.key: value.storage}
    if isinstance(value, dict):
        value = list(value.values())
    found: dict[str, _Storage] = {}
    if isinstance(value, list | tuple):
        for item in value:
            found |= _storages_in(item)
    return found


def _view(ref: _TensorRef, storages: dict[str, NDArray[Any]]) -> NDArray[Any]:
    values = storages[ref.storage.key][ref.offset :]
    needed = 1 + sum((size - 1) * step for size, step in zip(ref.shape, ref.stride, strict=True))
    if ref.offset < 0 or min((*ref.shape, *ref.stride, 1)) < 0 or needed > len(values):
        raise CheckpointError("a tensor reaches outside its storage")
    strides = [step * values.itemsize for step in ref.stride]
    return np.lib.stride_tricks.as_strided(values, ref.shape, strides).copy()
