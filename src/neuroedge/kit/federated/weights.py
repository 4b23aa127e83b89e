"""A model's weights as named float32 arrays, as one vector, and as npz bytes; everything from outside is checked."""

import io
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float32]
Weights = Mapping[str, Vector]
Shapes = Mapping[str, tuple[int, ...]]

MAX_PARAMETERS: Final = 2_000_000
"""Of one model: 8 MB."""
MAX_ARRAYS: Final = 500
_MAX_DIMENSIONS: Final = 8
_MAX_NAME: Final = 200
_HEADER_BYTES: Final = 4096
_HEADERS: Final[Mapping[Any, Any]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_NO_NPZ: Final = "these bytes are no npz file of numpy"


def size(shapes: Shapes) -> int:
    """Parameters of a model."""
    return sum(math.prod(shape) for shape in shapes.values())


def shapes_of(weights: Weights) -> dict[str, tuple[int, ...]]:
    """The shapes of all arrays by name."""
    return {name: array.shape for name, array in weights.items()}


def checked_shapes(shapes: Shapes) -> Shapes:
    """The same. Raises ValueError for shapes that no model here may have."""
    if not 1 <= len(shapes) <= MAX_ARRAYS:
        raise ValueError(f"a model has 1 to {MAX_ARRAYS} arrays, not {len(shapes)}")
    for name, shape in shapes.items():
        if not 1 <= len(name) <= _MAX_NAME or "\x00" in name:
            raise ValueError(f"the name of an array has 1 to {_MAX_NAME} characters")
        if len(shape) > _MAX_DIMENSIONS or any(length < 1 for length in shape):
            raise ValueError(f"array {name!r} has the shape {list(shape)[:10]}")
    if size(shapes) > MAX_PARAMETERS:
        raise ValueError(f"the model has {size(shapes)} parameters; at most {MAX_PARAMETERS}")
    return shapes


def of_lists(lists: Mapping[str, Any]) -> dict[str, Vector]:
    """Arrays from nested lists of numbers. Raises ValueError."""
    found = {}
    for name, given in lists.items():
        try:
            array = np.asarray(given)
        except ValueError as error:
            raise ValueError(f"array {name!r} is ragged") from error
        if array.dtype.kind not in "fiu":
            raise ValueError(f"array {name!r} holds what is no number")
        found[name] = _finite(name, array)
    checked_shapes(shapes_of(found))
    return found


def of_npz(data: bytes) -> dict[str, Vector]:
    """Arrays from an npz file of numpy (no pickles); what it unpacks to is limited. Raises ValueError."""
    found: dict[str, Vector] = {}
    with _opened(data) as archive:
        entries = archive.infolist()
        unpacked = sum(entry.file_size for entry in entries)
        if len(entries) > MAX_ARRAYS or unpacked > MAX_PARAMETERS * 8 + len(entries) * _HEADER_BYTES:
            raise ValueError(f"more than {MAX_ARRAYS} arrays or {MAX_PARAMETERS} parameters")
        for entry in entries:
            name = entry.filename.removesuffix(".npy")
            if name in found:
                raise ValueError(f"array {name!r} stands in the file twice")
            found[name] = _finite(name, _array(name, _member(archive, entry)))
    checked_shapes(shapes_of(found))
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Member:
    """An array of a file as it says of itself, not checked yet."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]
    data: bytes


def _opened(data: bytes) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(io.BytesIO(data))
    except Exception as error:  # damaged bytes make zipfile fail in many ways
        raise ValueError(_NO_NPZ) from error


def _member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> _Member:
    """Of the size the directory tells at most, by the ways numpy compresses. Raises ValueError."""
    try:
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError("numpy does not compress like this")
        with archive.open(entry) as member:
            file = io.BytesIO(member.read(entry.file_size))
        read_header = _HEADERS[np.lib.format.read_magic(file)]
        shape, fortran, dtype = read_header(file, max_header_size=_HEADER_BYTES)
        return _Member(shape=tuple(map(int, shape)), fortran=fortran, dtype=dtype, data=file.read())
    except Exception as error:  # so do zlib and numpy's reading of headers, which are Python
        raise ValueError(_NO_NPZ) from error


def _array(name: str, member: _Member) -> npt.NDArray[Any]:
    """Before anything of the size the header claims is made, that is what there is. Raises ValueError."""
    if member.dtype.kind not in "fiu":
        raise ValueError(f"array {name!r} holds what is no number")
    if len(member.shape) > _MAX_DIMENSIONS or any(length < 0 for length in member.shape):
        raise ValueError(f"array {name!r} has the shape {list(member.shape)[:10]}")
    if math.prod(member.shape) * member.dtype.itemsize != len(member.data):
        raise ValueError(f"array {name!r} has another size than its header says")
    array = np.frombuffer(member.data, member.dtype).reshape(member.shape, order="F" if member.fortran else "C")
    return array.copy()


def to_npz(weights: Weights) -> bytes:
    """The same arrays as an npz file; equal weights give equal bytes."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(weights):
            member = io.BytesIO()
            np.lib.format.write_array(member, np.asarray(weights[name], "<f4", order="C"), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), member.getvalue())
    return target.getvalue()


def flat(weights: Weights, shapes: Shapes) -> Vector:
    """One vector [size(shapes)], arrays in the order of their names. Raises ValueError where the shapes differ."""
    if missing := sorted(set(shapes) - set(weights)):
        raise ValueError(f"array {missing[0]!r} is missing")
    if unknown := sorted(set(weights) - set(shapes)):
        raise ValueError(f"array {unknown[0]!r} is not one of the model's")
    for name, shape in shapes.items():
        if weights[name].shape != tuple(shape):
            raise ValueError(f"array {name!r} has the shape {list(weights[name].shape)}, not {list(shape)}")
    return np.concatenate([weights[name].ravel() for name in sorted(shapes)]).astype(np.float32)


def shaped(vector: npt.NDArray[Any], shapes: Shapes) -> dict[str, Vector]:
    """The arrays of a vector; the inverse of `flat`."""
    found, start = {}, 0
    for name in sorted(shapes):
        end = start + math.prod(shapes[name])
        found[name] = np.asarray(vector[start:end], np.float32).reshape(shapes[name])
        start = end
    return found


def _finite(name: str, array: npt.NDArray[Any]) -> Vector:
    with np.errstate(over="ignore"):
        found = np.asarray(array, np.float32)
    if not np.isfinite(found).all():
        raise ValueError(f"array {name!r} holds NaN, infinity or what is too large for float32")
    return found
