"""What a speaker noted below the slides of a presentation, which kreuzberg (4) leaves out."""

import posixpath
import zipfile
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

_A: Final = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
_P: Final = "{http://schemas.openxmlformats.org/presentationml/2006/main}"
_R: Final = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}"
_MAIN: Final = "ppt/presentation.xml"


def notes(path: Path, *, unpacked_bytes: int) -> dict[int, str]:
    """Notes by the number of their slide, from 1, in the order of the slides; parts that are no XML have none.

    At most `unpacked_bytes` are unpacked.
    """
    found: dict[int, str] = {}
    with zipfile.ZipFile(path) as archive:
        parts = _Parts(archive, unpacked_bytes)
        slides = parts.related(_MAIN)
        listed = parts.root(_MAIN)
        order = [] if listed is None else [slides.get(one.get(f"{_R}id") or "") for one in listed.iter(f"{_P}sldId")]
        for number, slide in enumerate(order, start=1):
            for target in parts.related(slide).values() if slide else ():
                if "/notesSlides/" in target and (said := _said(parts.root(target))):
                    found[number] = said
    return found


class _Parts:
    """The XML parts of an archive, within a number of bytes."""

    def __init__(self, archive: zipfile.ZipFile, unpacked_bytes: int) -> None:
        self._archive = archive
        self._left = unpacked_bytes

    def root(self, name: str) -> ElementTree.Element | None:
        """A part's root; None for one that is not there, damaged, or over the limit."""
        try:
            with self._archive.open(name) as file:
                data = file.read(self._left + 1)
            self._left -= len(data)
            # The reading process is limited in memory and time, whatever entities expand to.
            return ElementTree.fromstring(data) if self._left >= 0 else None  # noqa: S314
        except (KeyError, zipfile.BadZipFile, NotImplementedError, OSError, ValueError, ElementTree.ParseError):
            return None

    def related(self, name: str) -> dict[str, str]:
        """The parts a part refers to, by id."""
        folder, file = posixpath.split(name)
        root = self.root(f"{folder}/_rels/{file}.rels")
        if root is None:
            return {}
        return {
            one.get("Id") or "": posixpath.normpath(posixpath.join(folder, one.get("Target") or "")).lstrip("/")
            for one in root
            if one.get("TargetMode") != "External"
        }


def _said(root: ElementTree.Element | None) -> str:
    """The text of the notes' body; the slide's picture and number stand in shapes of their own."""
    lines: list[str] = []
    for shape in root.iter(f"{_P}sp") if root is not None else ():
        place = shape.find(f"{_P}nvSpPr/{_P}nvPr/{_P}ph")
        if place is None or place.get("type") != "body":
            continue
        for paragraph in shape.iter(f"{_A}p"):
            line = "".join(text.text or "" for text in paragraph.iter(f"{_A}t")).strip()
            if line:
                lines.append(line)
    return "\n".join(lines)
