"""What stands at the beginning of a GGUF file: enough to tell which tensors it holds without loading it.

Format: ggml's docs/gguf.md, versions 2 and 3, little-endian. The package `gguf` reads it too, but brings a converter's
dependencies along.
"""

import mmap
import struct
from pathlib import Path
from typing import Final

_MAGIC: Final = b"GGUF"
_VERSIONS: Final = (2, 3)
_STRING, _ARRAY = 8, 9
_BYTES: Final = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Of a value by its type: integers, floats and booleans of several widths."""


def tensor_names(path: Path) -> list[str]:
    """Names of the tensors in the file, in its order. Raises ValueError for what is no whole GGUF header, OSError."""
    with path.open("rb") as file:
        if file.read(4) != _MAGIC:
            raise ValueError("it is no GGUF file")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                return _Header(data).tensor_names()
            except (struct.error, IndexError) as error:
                raise ValueError("its header is cut off") from error


class _Header:
    """A cursor over the header."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._at = len(_MAGIC)

    def tensor_names(self) -> list[str]:
        version = self._number("<I")
        if version not in _VERSIONS:
            raise ValueError(f"GGUF version {version} is unknown")
        tensors, pairs = self._number("<Q"), self._number("<Q")
        for _ in range(pairs):
            self._string()
            self._skip(self._number("<I"))
        return [self._tensor() for _ in range(tensors)]

    def _tensor(self) -> str:
        name = self._string().decode("utf-8", "replace")
        dimensions = self._number("<I")
        self._at += 8 * dimensions + 4 + 8  # shape, type, offset
        return name

    def _skip(self, kind: int) -> None:
        if kind == _STRING:
            self._string()
        elif kind != _ARRAY:
            self._at += self._width(kind)
        else:
            inner, length = self._number("<I"), self._number("<Q")
            if inner in (_STRING, _ARRAY):
                for _ in range(length):
                    self._skip(inner)
            else:
                self._at += length * self._width(inner)

    def _width(self, kind: int) -> int:
        if kind not in _BYTES:
            raise ValueError(f"GGUF value type {kind} is unknown")
        return _BYTES[kind]

    def _string(self) -> bytes:
        length = self._number("<Q")
        start, self._at = self._at, self._at + length
        if self._at > len(self._data):
            raise IndexError
        return self._data[start : self._at]

    def _number(self, layout: str) -> int:
        (value,) = struct.unpack_from(layout, self._data, self._at)
        self._at += struct.calcsize(layout)
        return int(value)
