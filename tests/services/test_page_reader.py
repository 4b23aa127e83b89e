"""Scanned pages through the ocr engine: paragraphs, pages of a TIFF file, errors that name their page."""

import base64
from typing import Any

import pytest

from neuroedge.contract.errors import TooLarge, Unavailable, UnreadableMedia
from neuroedge.engines.vision.ocr import Input, Output
from neuroedge.kit.chunking import Block
from neuroedge.services import page_reader
from neuroedge.services.page_reader import EnginePageReader
from tests.fakes import make_principal

pytestmark = pytest.mark.anyio
CALLER = make_principal()


class Runner:
    """Answers for the ocr engine, with a text for each page or an error."""

    def __init__(self, *pages: str | Exception) -> None:
        self.pages = pages
        self.images: set[bytes] = set()

    async def run(self, name: str, payload: Input, *, principal: Any, request_id: str) -> Output:
        """The page asked for."""
        assert (name, principal, request_id) == ("ocr", CALLER, "r")
        self.images.add(base64.b64decode(payload.image.base64 or ""))
        text = self.pages[payload.page - 1]
        if isinstance(text, Exception):
            raise text
        return Output(
            method="m", models=[], text=text, lines=[], size_px=(1, 1), turned_degrees=0, pages=len(self.pages)
        )


def _reader(runner: Any) -> EnginePageReader:
    return EnginePageReader(runner, CALLER, request_id="r", model_id="m")


async def test_each_paragraph_is_a_block() -> None:
    """With the page it was asked for; none of an empty page."""
    runner = Runner("One\ntwo.\n\nThree.")
    assert await _reader(runner).read(b"picture", page=7) == [
        Block(type="paragraph", text="One\ntwo.", page=7),
        Block(type="paragraph", text="Three.", page=7),
    ]
    assert runner.images == {b"picture"}
    assert await _reader(Runner("")).read(b"picture", page=None) == []


async def test_a_file_of_several_pages_gives_all_of_them() -> None:
    """Numbered from 1; a single page has no number."""
    blocks = await _reader(Runner("One.", "", "Three.")).read(b"tiff", page=None)
    assert [(block.text, block.page) for block in blocks] == [("One.", 1), ("Three.", 3)]
    assert [block.page for block in await _reader(Runner("One.")).read(b"png", page=None)] == [None]


async def test_a_page_of_a_file_can_be_read_alone() -> None:
    """With its number and how many there are; the only one has no number."""
    reader = _reader(Runner("One.", "Two."))
    assert await reader.leaf(b"tiff", number=2) == ([Block(type="paragraph", text="Two.", page=2)], 2)
    assert await _reader(Runner("One.")).leaf(b"png", number=1) == ([Block(type="paragraph", text="One.")], 1)


async def test_too_many_pages_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the first one, which tells how many there are."""
    monkeypatch.setattr(page_reader, "MAX_PAGES", 2)
    with pytest.raises(TooLarge, match="3 pages"):
        await _reader(Runner("One.", "Two.", "Three.")).read(b"tiff", page=None)


async def test_a_broken_page_is_named() -> None:
    """Of a PDF by its number there, of a TIFF file by its own; other errors are as they were."""
    broken = UnreadableMedia("the image is damaged", hint="send it again")
    with pytest.raises(UnreadableMedia, match="page 9: the image is damaged"):
        await _reader(Runner(broken)).read(b"png", page=9)
    with pytest.raises(UnreadableMedia, match="page 2: "):
        await _reader(Runner("One.", broken)).read(b"tiff", page=None)
    with pytest.raises(Unavailable, match="no model"):
        await _reader(Runner(Unavailable("no model"))).read(b"png", page=1)
