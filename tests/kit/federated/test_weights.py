"""Npz files from outside: what numpy writes is read, what is damaged or lies about its size is a ValueError."""

import io
import random
import struct
import zipfile

import numpy as np
import pytest

from neuroedge.kit.federated import weights

GIVEN = {"b": np.linspace(-1, 1, 40, dtype=np.float32), "w": np.arange(60, dtype=np.float32).reshape(5, 12)}


def _compressed() -> bytes:
    target = io.BytesIO()
    np.savez_compressed(target, **GIVEN)  # type: ignore[arg-type]
    return target.getvalue()


def _zip(member: bytes, *, method: int = zipfile.ZIP_STORED, name: str = "w.npy") -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as archive:
        archive.writestr(name, member)
    return target.getvalue()


def _member(header: str, data: bytes = bytes(16), *, version: bytes = b"\x01\x00") -> bytes:
    """One array as npy, under any header."""
    text = header.encode("latin1") + b"\n"
    return b"\x93NUMPY" + version + struct.pack("<H", len(text)) + text + data


def _header(shape: str, dtype: str = "'<f4'") -> str:
    return f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}}}"


@pytest.mark.parametrize("data", [weights.to_npz(GIVEN), _compressed()], ids=["stored", "compressed"])
def test_thousands_of_random_damages_are_value_errors(data: bytes) -> None:
    """Each of one to five bytes, or a cut: read as finite numbers, or refused; nothing else is raised."""
    rng, refused = random.Random(3), 0
    for _ in range(4000):
        damaged = bytearray(data)
        for _ in range(rng.choice([1, 2, 5])):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        if rng.random() < 0.1:
            del damaged[rng.randrange(len(damaged)) :]
        try:
            found = weights.of_npz(bytes(damaged))
        except ValueError:
            refused += 1
        else:
            assert all(np.isfinite(array).all() for array in found.values())
    assert refused > 1000


@pytest.mark.parametrize(
    "header",
    [
        _header("(10000000000000,)"),
        _header("(100000000000000000000,)"),
        _header("(-4,)"),
        _header("(-2, -2)"),
        _header("(3,)"),
        _header("(True, 4.0)"),
        _header("(" + "1, " * 70 + "4)"),
        _header("(4,"),
        "{'descr': '''<f4",
        "(" * 5000,
        "{[]: 1}",
        "['w']",
        _header("(4,)", "5"),
        _header("(4,)", "'<c8'"),
        _header("(2,)", "'|S8'"),
        _header("(2,)", "'|O'"),
        _header("(1,)", "('<f4', (4,))"),
        _header("(4,)", "[('a', '<f4')]"),
    ],
)
def test_headers_that_lie_or_are_none_are_value_errors(header: str) -> None:
    """Nothing of the size they claim is ever allocated."""
    with pytest.raises(ValueError):  # noqa: PT011 - that it is nothing else is the point
        weights.of_npz(_zip(_member(header)))


def test_what_lies_otherwise_is_a_value_error() -> None:
    """Methods numpy does not write, another version, no npy, a name twice, and more inside than the directory says."""
    array = _member(_header("(4,)"))
    assert weights.of_npz(_zip(array, method=zipfile.ZIP_DEFLATED))["w"].tolist() == [0, 0, 0, 0]
    for method in (zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2):
        with pytest.raises(ValueError, match="no npz file"):
            weights.of_npz(_zip(array, method=method))
    for member in (_member(_header("(4,)"), version=b"\x03\x00"), b"words", b""):
        with pytest.raises(ValueError, match="no npz file"):
            weights.of_npz(_zip(member))
    with zipfile.ZipFile(target := io.BytesIO(), "w") as archive:
        archive.writestr("w.npy", array)
        archive.writestr("w", array)
    with pytest.raises(ValueError, match="twice"):
        weights.of_npz(target.getvalue())
    large = bytearray(_zip(bytes(2**24), method=zipfile.ZIP_DEFLATED))
    place = large.rindex(b"PK\x01\x02") + 24
    large[place : place + 4] = struct.pack("<I", 200)
    with pytest.raises(ValueError, match="no npz file"):
        weights.of_npz(bytes(large))


def test_what_numpy_writes_is_read() -> None:
    """Any order, byte order and kind of number, compressed or not, as float32 that may be changed."""
    written = {
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big": np.array([1.5, -2.0], ">f8"),
        "whole": np.array([[1], [2]], np.int16),
        "one": np.array(7, np.uint8),
    }
    for save in (np.savez, np.savez_compressed):
        save(target := io.BytesIO(), **written)  # type: ignore[arg-type]
        found = weights.of_npz(target.getvalue())
        assert list(found) == list(written)
        for name, array in found.items():
            assert array.dtype == np.float32
            assert array.tolist() == written[name].tolist()
            array += 1
