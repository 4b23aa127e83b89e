"""The document engine: structure by the real parser, scanned pages by an OCR engine under the test's control."""

import base64
import dataclasses
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from neuroedge.contract.content import FileSource
from neuroedge.contract.errors import InvalidInput, ModelUnavailable, TooLarge, UnreadableMedia, UnsupportedMedia
from neuroedge.engines.vision import document, ocr
from neuroedge.engines.vision.document import DocumentEngine, Input, Output
from neuroedge.infra.documents.parser import DocumentParser
from neuroedge.infra.documents.port import ParsedDocuments
from tests.engines.vision import pages
from tests.fakes import FakeBlobs, make_context
from tests.infra.documents import samples

pytestmark = pytest.mark.anyio
HTML = (
    "<html><head><title>Pumps</title></head><body><h1>Pumps</h1><p>Grease them.</p><h2>Valves</h2><ul><li>x</li></ul>"
    "<table><tr><th>Part</th><th>Count</th></tr><tr><td>a|b</td><td>3</td></tr></table></body></html>"
)


class Reading:
    """An ocr engine that knows what the pages say; `fail` on one of them."""

    def __init__(self, *, total: int = 1, fail: int | None = None, error: Exception | None = None) -> None:
        self.asked: list[ocr.Input] = []
        self._total = total
        self._fail = fail
        self._error = error or UnreadableMedia("damaged")

    async def __call__(self, name: str, payload: Any) -> ocr.Output:
        """Two paragraphs a page."""
        assert name == "ocr"
        self.asked.append(payload)
        if len(self.asked) == self._fail:
            raise self._error
        lines = [
            ocr.Line(text="above", bbox_px=(10, 20, 90, 30), conf=0.9, paragraph=0),
            ocr.Line(text="below", bbox_px=(10, 120, 50, 200), conf=0.9, paragraph=1),
        ]
        return ocr.Output(
            method="by-hand",
            models=["reader"],
            text="above\n\nbelow",
            lines=lines,
            size_px=(100, 200),
            turned_degrees=0,
            pages=self._total,
        )


async def run(tmp_path: Path, data: bytes | str, name: str = "a.pdf", call: Any = None, **options: Any) -> Output:
    """The engine's answer on a file."""
    raw = data.encode() if isinstance(data, str) else data
    source = FileSource(base64=base64.b64encode(raw).decode())
    ctx = make_context(call=call) if call else make_context()
    ctx = dataclasses.replace(ctx, documents=ParsedDocuments(DocumentParser(), tmp=tmp_path))
    return await DocumentEngine(probe=ctx).run(Input(file=source, filename=name, **options), ctx)


async def test_a_page_of_the_web_has_headings_and_cells(tmp_path: Path) -> None:
    """In reading order, each heading and table with its block."""
    answer = await run(tmp_path, HTML, "a.html", markdown=True)
    assert [block.type for block in answer.blocks] == ["heading", "paragraph", "heading", "list", "table"]
    assert [(h.block, h.level, h.text) for h in answer.headings] == [(0, 1, "Pumps"), (2, 2, "Valves")]
    assert [(t.block, t.rows) for t in answer.tables] == [(4, [["Part", "Count"], ["a|b", "3"]])]
    assert (answer.title, answer.media_type, answer.pages) == ("Pumps", "text/html", None)
    assert answer.markdown is not None
    assert answer.markdown.startswith("# Pumps\n\nGrease them.\n\n## Valves")
    assert (answer.reliable, answer.warnings, answer.method) == (True, [], "document-structure")


async def test_a_pdfs_blocks_have_their_places(tmp_path: Path) -> None:
    """In parts of the page from the upper left: what stands above has the smaller top."""
    answer = await run(tmp_path, samples.report())
    first, second = answer.blocks[:2]
    assert first.bbox is not None
    assert second.bbox is not None
    assert first.bbox == pytest.approx((72 / 595, 1 - 736 / 842, 215.6 / 595, 1 - 712 / 842), abs=0.01)
    assert first.bbox[3] <= second.bbox[1]
    assert {block.page for block in answer.blocks} == {1, 2}


async def test_pages_without_text_are_read_and_stand_in_their_place(tmp_path: Path) -> None:
    """The second of three pages is a scan: its paragraphs come between the others, with page and place."""
    reading = Reading()
    answer = await run(tmp_path, samples.pdf([[(12, "One.")], [], [(12, "Three.")]]), call=reading)
    assert [(b.text, b.page, b.source) for b in answer.blocks] == [
        ("One.", 1, "file"),
        ("above", 2, "ocr"),
        ("below", 2, "ocr"),
        ("Three.", 3, "file"),
    ]
    assert answer.blocks[1].bbox == (0.1, 0.1, 0.9, 0.15)
    assert (answer.ocr_pages, answer.unread_pages, answer.models) == ([2], [], ["reader"])
    assert answer.method == "document-structure+ocr"
    assert base64.b64decode(reading.asked[0].image.base64 or "").startswith(b"\x89PNG")


async def test_a_picture_is_read_page_by_page(tmp_path: Path) -> None:
    """A TIFF of three pages: the first answer tells of the others; at most so many are read."""
    reading = Reading(total=3)
    answer = await run(tmp_path, pages.encoded(pages.page(), "TIFF"), "a.tif", call=reading, max_ocr_pages=2)
    assert [asked.page for asked in reading.asked] == [1, 2]
    assert (answer.pages, answer.ocr_pages, answer.unread_pages, answer.reliable) == (3, [1, 2], [3], False)
    assert "max_ocr_pages" in answer.warnings[0]


async def test_a_page_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    """The others are there; the answer is marked."""
    answer = await run(tmp_path, samples.pdf([[], [], []]), call=Reading(fail=2))
    assert (answer.ocr_pages, answer.unread_pages, answer.reliable) == ([1, 3], [2], False)
    assert answer.warnings == ["page 2 is not read: damaged"]


async def test_without_ocr_a_scan_is_marked(tmp_path: Path) -> None:
    """Switched off, or not installed: no text, and it is said."""
    blank = samples.pdf([[], []])
    off = await run(tmp_path, blank, ocr=False)
    none = await run(tmp_path, blank, call=Reading(fail=1, error=ModelUnavailable("no model")))
    for answer in (off, none):
        assert (answer.blocks, answer.unread_pages, answer.reliable) == ([], [1, 2], False)
        assert answer.warnings


async def test_more_text_than_wanted_is_left_out_and_told(tmp_path: Path) -> None:
    """Whole blocks only."""
    answer = await run(tmp_path, "First paragraph.\n\nSecond one.\n", "a.txt", max_characters=20)
    assert ([b.text for b in answer.blocks], answer.characters) == (["First paragraph."], 16)
    assert (answer.truncated, answer.reliable) == (True, False)


async def test_the_files_word_of_itself_is_given(tmp_path: Path) -> None:
    """Author and title as an e-mail or a page of the web tells them."""
    head = '<meta name="author" content="A. Miller"><meta name="description" content="On pumps.">'
    answer = await run(tmp_path, HTML.replace("</head>", f"{head}</head>"), "a.html")
    assert answer.title == "Pumps"
    assert (answer.metadata["author"], answer.metadata["description"]) == ("A. Miller", "On pumps.")


@pytest.mark.parametrize(
    ("data", "name", "error"),
    [
        (samples.encrypted_pdf(), "a.pdf", UnreadableMedia),
        (samples.docx()[:200], "a.docx", UnreadableMedia),
        (samples.zip_bomb(), "a.docx", TooLarge),
        (b"RIFF\x24\x00\x00\x00WAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00", "a.wav", UnsupportedMedia),
        ("plain", "a.pdf", UnsupportedMedia),
    ],
    ids=["encrypted", "cut off", "bomb", "sound", "misnamed"],
)
async def test_a_bad_file_is_an_error_of_its_kind(tmp_path: Path, data: Any, name: str, error: type[Exception]) -> None:
    """Nothing is guessed of it."""
    with pytest.raises(error):
        await run(tmp_path, data, name)


async def test_bytes_that_are_no_base64_and_too_many_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is read; of the blob storage, too."""
    blobs = FakeBlobs()
    blobs.objects["big"] = bytes(200)
    ctx = make_context(blobs=blobs)
    engine = DocumentEngine(probe=ctx)
    with pytest.raises(InvalidInput):
        await engine.run(Input(file=FileSource(base64="!!"), filename="a"), ctx)
    monkeypatch.setattr(document, "MAX_BYTES", 100)
    for source in (FileSource(blob="big"), FileSource(base64="A" * 400)):
        with pytest.raises(TooLarge):
            await engine.run(Input(file=source), ctx)


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"file": {}},
        {"file": {"base64": "", "blob": ""}},
        {"file": {"base64": "QQ=="}, "filename": ""},
        {"file": {"base64": "QQ=="}, "max_ocr_pages": 0},
        {"file": {"base64": "QQ=="}, "max_characters": 5_000_001},
        {"file": "QQ=="},
    ],
)
def test_input_out_of_range_is_refused(wrong: dict[str, Any]) -> None:
    """By the schema."""
    with pytest.raises(ValidationError):
        Input.model_validate(wrong)


async def test_health_tells_of_a_missing_ocr_model() -> None:
    """Scans would not be read."""
    assert (await DocumentEngine(probe=make_context(models={"ocr": object()})).health()).status == "ready"
    health = await DocumentEngine(probe=make_context()).health()
    assert (health.status, "scanned pages" in (health.detail or "")) == ("degraded", True)
