"""DOCX without the character references that its reader loses.

kreuzberg 4.10.4 leaves out every reference in the text of a DOCX: `R&amp;D` comes as "RD", `caf&#233;` as "caf". Its
readers of PPTX, XLSX and HTML, and of a DOCX's properties, resolve them. So a DOCX is read from a copy in memory in
which the parts below `word/` hold the characters themselves. The five that XML does not allow as such everywhere
(& < > " ') are written as private-use characters that occur nowhere in the file, and put back in what was read.

Only the XML is unpacked, in pieces, and counted; the other parts stay packed. References never become longer, so the
copy unpacks to no more than the file did. Text in CDATA sections, which no office program writes, is still not read.
"""

import io
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from neuroedge.contract.errors import TooLarge, UnreadableMedia

_NAMED = {b"&amp;": "&", b"&lt;": "<", b"&gt;": ">", b"&quot;": '"', b"&apos;": "'"}
_NUMBERED = re.compile(rb"&#(?:([0-9]{1,32})|x([0-9A-Fa-f]{1,32}));")
_CHARACTERS = (range(0x20, 0xD800), range(0xE000, 0xFFFE), range(0x10000, 0x110000))
"""What a numeric reference may name, beside tab and line ends."""
_PRIVATE = range(0xE000, 0xF900)
_PRIVATE_UTF8 = re.compile(rb"\xee[\x80-\xbf]{2}|\xef[\x80-\xa3][\x80-\xbf]")
_PIECE_BYTES = 1 << 20
_LONGEST = 48
"""Bytes; more than any reference matched here."""


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A file to read in another's place, and what then stands for what in its texts."""

    data: bytes
    marks: Mapping[str, str] = field(default_factory=dict)
    """Private-use characters, and the character each stands for."""

    def restored(self, text: str) -> str:
        """A text that was read from `data`, as the original has it."""
        for mark, character in self.marks.items():
            text = text.replace(mark, character)
        return text


def without_references(path: Path, *, unpacked_bytes: int) -> Rewritten:
    """A DOCX with its references resolved; the file itself where it holds none.

    Raises UnreadableMedia for a damaged archive, or one that leaves no private-use character free; TooLarge where the
    XML unpacks to more than `unpacked_bytes`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            affected, used = _survey(archive, unpacked_bytes)
            if not affected:
                return Rewritten(path.read_bytes())
            marks = _free_marks(used)
            return Rewritten(_copy(archive, path, affected, marks), {mark: told for told, mark in marks.items()})
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError) as error:
        raise UnreadableMedia("the archive is damaged or broken off", hint="send the whole file again") from error


def _survey(archive: zipfile.ZipFile, unpacked_bytes: int) -> tuple[list[str], set[int]]:
    """The parts with references in their text, and the private-use characters of all parts."""
    affected: list[str] = []
    used: set[int] = set()
    left = unpacked_bytes
    for name in dict.fromkeys(archive.namelist()):
        if not name.lower().endswith((".xml", ".rels")):
            continue
        has_references = False
        with archive.open(name) as part:
            for piece in _pieces(part):
                left -= len(piece)
                if left < 0:
                    raise TooLarge(f"the archive unpacks to more than {unpacked_bytes} bytes", hint="split it")
                has_references = has_references or b"&" in piece
                used.update(_private(piece))
        if has_references and name.lower().startswith("word/") and name.lower().endswith(".xml"):
            affected.append(name)
    return affected, used


def _private(piece: bytes) -> Iterator[int]:
    """Private-use characters that a piece of XML holds, in whatever form."""
    for found in set(_PRIVATE_UTF8.findall(piece)):
        yield ord(found.decode())
    for decimal, hexadecimal in set(_NUMBERED.findall(piece)) if b"&#" in piece else ():
        yield int(decimal) if decimal else int(hexadecimal, 16)


def _free_marks(used: set[int]) -> dict[str, str]:
    """For each of the five characters one that is not used."""
    free = [chr(number) for number in _PRIVATE if number not in used][: len(_NAMED)]
    if len(free) < len(_NAMED):
        raise UnreadableMedia("the document uses all private-use characters", hint="send it as PDF")
    return dict(zip(_NAMED.values(), free, strict=True))


def _copy(archive: zipfile.ZipFile, path: Path, affected: list[str], marks: Mapping[str, str]) -> bytes:
    """The archive with new parts in the place of the affected ones; what is not affected stays as it is packed."""
    copy = io.BytesIO(path.read_bytes())
    with zipfile.ZipFile(copy, "a", zipfile.ZIP_DEFLATED, compresslevel=1) as changed:
        changed.filelist[:] = [part for part in changed.filelist if part.filename not in affected]
        for name in affected:
            del changed.NameToInfo[name]
            with archive.open(name) as before, changed.open(name, "w") as after:
                for piece in _pieces(before):
                    after.write(_resolved(piece, marks))
    return copy.getvalue()


def _resolved(piece: bytes, marks: Mapping[str, str]) -> bytes:
    """XML without the references that XML itself knows; those to no character of XML are left."""
    for reference, character in _NAMED.items():
        piece = piece.replace(reference, marks[character].encode())
    return _NUMBERED.sub(lambda found: _character(found, marks), piece) if b"&#" in piece else piece


def _character(found: re.Match[bytes], marks: Mapping[str, str]) -> bytes:
    number = int(found[1]) if found[1] else int(found[2], 16)
    if not (number in (9, 10, 13) or any(number in allowed for allowed in _CHARACTERS)):
        return found[0]
    return marks.get(chr(number), chr(number)).encode()


def _pieces(part: IO[bytes]) -> Iterator[bytes]:
    """A part's bytes, cut so that no reference and no private-use character is in two pieces."""
    rest = b""
    while data := part.read(_PIECE_BYTES):
        data = rest + data
        end = _cut(data)
        if end:
            yield data[:end]
        rest = data[end:]
    if rest:
        yield rest


def _cut(data: bytes) -> int:
    """Where what may go on in the next piece begins, near the end."""
    tail = len(data) - _LONGEST
    opened = data.rfind(b"&", max(0, tail))
    if opened >= 0:
        return opened
    for back in (1, 2):
        if len(data) > back and data[-back] in (0xEE, 0xEF):
            return len(data) - back
    return len(data)
