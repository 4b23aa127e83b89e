"""A DOCX's character references reach the reader as characters, and nothing else of the file changes."""

import io
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from neuroedge.contract.errors import TooLarge, UnreadableMedia
from neuroedge.infra.documents.outcome import MIB, Parsed, ParseLimits, read_blocks
from neuroedge.infra.documents.parser import DocumentParser
from neuroedge.infra.documents.references import without_references
from neuroedge.kit.chunking import Block
from tests.infra.documents import samples

WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
REFERENCES = "R&amp;D it&apos;s &quot;so&quot; caf&#233; &#x1F600; a &lt; b &gt; c"
CHARACTERS = 'R&D it\'s "so" café \U0001f600 a < b > c'
CORE = (
    '<cp:coreProperties xmlns:cp="http://schemas.openxmlformats.org/package/2006/metadata/core-properties"'
    f' xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>Of {REFERENCES}</dc:title>'
    "<dc:creator>A&amp;B</dc:creator></cp:coreProperties>"
)


def _document(body: str, **parts: str) -> bytes:
    """A DOCX with this body; `word_header1` is the part word/header1.xml."""
    with zipfile.ZipFile(io.BytesIO(samples.docx())) as archive:
        held: dict[str, str | bytes] = {name: archive.read(name) for name in archive.namelist()}
    held["word/document.xml"] = f'<w:document xmlns:w="{WORD}"><w:body>{body}</w:body></w:document>'
    related = "".join(
        f'<Relationship Id="r_{kind}" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/{kind}"'
        f' Target="{kind}.xml"/>'
        for kind in ("footnotes", "header")
    )
    rels = held["word/_rels/document.xml.rels"]
    assert isinstance(rels, bytes)
    held["word/_rels/document.xml.rels"] = rels.decode().replace("</Relationships>", f"{related}</Relationships>")
    held |= {f"{name.replace('_', '/', 1)}.xml": part for name, part in parts.items()}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, part in held.items():
            archive.writestr(name, part)
    return out.getvalue()


def _paragraph(text: str, style: str = "") -> str:
    return f"<w:p>{style}<w:r><w:t>{text}</w:t></w:r></w:p>"


def _resolved(folder: Path, data: bytes, part: str = "word/document.xml") -> tuple[str, str]:
    """A part of the copy, as it is and with its marks put back."""
    copy = without_references(samples.written(folder, "a.docx", data), unpacked_bytes=64 * MIB)
    with zipfile.ZipFile(io.BytesIO(copy.data)) as archive:
        assert archive.testzip() is None
        assert len(archive.namelist()) == len(set(archive.namelist()))
        text = archive.read(part).decode()
    return text, copy.restored(text)


async def _parsed(folder: Path, data: bytes) -> tuple[Parsed, list[Block]]:
    out = folder / "blocks"
    parsed = await DocumentParser().parse(samples.written(folder, "a.docx", data), "a.docx", out)
    return parsed, list(read_blocks(out.read_bytes()))


@pytest.mark.anyio
async def test_a_docx_is_read_with_all_its_characters(tmp_path: Path) -> None:
    """Heading, paragraph, table cell, footnote, title and metadata; also what looks like a reference and is text."""
    cells = "".join(f"<w:tc>{_paragraph(text)}</w:tc>" for text in (REFERENCES, "a&#124;b"))
    body = (
        _paragraph(f"On {REFERENCES}", '<w:pPr><w:pStyle w:val="Heading1"/></w:pPr>')
        + _paragraph(REFERENCES)
        + _paragraph("write &amp;lt; or &amp;#233; or &#38;amp;")
        + '<w:p><w:r><w:t>noted</w:t></w:r><w:r><w:footnoteReference w:id="2"/></w:r></w:p>'
        + f"<w:tbl><w:tr>{cells}</w:tr></w:tbl>"
    )
    note = f'<w:footnotes xmlns:w="{WORD}"><w:footnote w:id="2">{_paragraph("AT&amp;T, 1 &lt; 2")}</w:footnote>'
    parsed, blocks = await _parsed(
        tmp_path, _document(body, word_footnotes=f"{note}</w:footnotes>", docProps_core=CORE)
    )
    texts = [(block.type, block.text) for block in blocks]
    assert ("heading", f"On {CHARACTERS}") in texts
    assert ("paragraph", CHARACTERS) in texts
    assert ("paragraph", "write &lt; or &#233; or &amp;") in texts
    assert ("paragraph", "AT&T, 1 < 2") in texts
    assert ("table", f"| {CHARACTERS} | a\\|b |\n| --- | --- |") in texts
    assert parsed.title == f"Of {CHARACTERS}"
    assert parsed.metadata["author"] == "A&B"


@pytest.mark.anyio
async def test_private_use_characters_of_the_document_stay(tmp_path: Path) -> None:
    """Written as bytes, as a number, or in the metadata alone: the marks are others."""
    title = CORE.replace(f"Of {REFERENCES}", "\ue002 title")
    parsed, blocks = await _parsed(tmp_path, _document(_paragraph("\ue000 R&amp;D &#xE001;"), docProps_core=title))
    assert [block.text for block in blocks] == ["\ue000 R&D \ue001"]
    assert parsed.title == "\ue002 title"


def test_headers_and_attributes_are_resolved_and_stay_well_formed(tmp_path: Path) -> None:
    """A quote within an attribute must not end it."""
    header = f'<w:hdr xmlns:w="{WORD}"><w:p w:alt="&quot;R&amp;D&quot; &lt;x&gt;"/>{_paragraph("A&amp;B")}</w:hdr>'
    written, restored = _resolved(tmp_path, _document("", word_header1=header), "word/header1.xml")
    assert "&" not in written
    assert written.count('"') == header.count('"')
    assert written.count("<") == header.count("<")
    assert 'w:alt=""R&D" <x>"' in restored


def test_a_document_without_references_is_read_as_it_is(tmp_path: Path) -> None:
    """No copy, no marks; references outside `word/` are the reader's own to resolve."""
    data = _document(_paragraph("plain"), docProps_core=CORE)
    copy = without_references(samples.written(tmp_path, "a.docx", data), unpacked_bytes=MIB)
    assert copy.data == data
    assert not copy.marks


def test_other_parts_stay_as_they_are_packed(tmp_path: Path) -> None:
    """A picture is not unpacked: a broken one does not keep the text from being read."""
    data = _document(_paragraph("R&amp;D"))
    with_picture = io.BytesIO(data)
    with zipfile.ZipFile(with_picture, "a") as archive:
        archive.writestr("word/media/image1.png", samples.PNG)
    broken = with_picture.getvalue().replace(samples.PNG[-20:], bytes(20))
    copy = without_references(samples.written(tmp_path, "a.docx", broken), unpacked_bytes=MIB)
    with zipfile.ZipFile(io.BytesIO(copy.data)) as archive:
        assert copy.restored(archive.read("word/document.xml").decode()).count("R&D") == 1
        with pytest.raises(zipfile.BadZipFile):
            archive.read("word/media/image1.png")


@pytest.mark.parametrize(
    "broken",
    [
        "a & b &; &nbsp; &#; &#x; &#0; &#x1F; &#xD800; &#x110000; &#99999999999999999999; &amp",
        "<w:p><w:r><w:t>never closed",
        "&#" + "9" * 100 + ";",
    ],
)
def test_malformed_xml_passes_unchanged(broken: str, tmp_path: Path) -> None:
    """What is no reference to a character of XML is left to the reader."""
    written, _ = _resolved(tmp_path, _document(broken))
    assert broken in written


@pytest.mark.parametrize("shift", range(28))
def test_references_across_pieces(shift: int, tmp_path: Path) -> None:
    """Wherever the end of a piece falls, the characters are the same."""
    text = "x" * ((1 << 20) - 250 - shift) + "é&amp;&#233;&#x1F600;&lt;" * 8 + "é" * 40
    written, restored = _resolved(tmp_path, _document(_paragraph(text)))
    assert "é&é\U0001f600<" * 8 in restored
    assert "&" not in written


def test_a_private_use_character_across_pieces_is_seen(tmp_path: Path) -> None:
    """Its three bytes end one piece and begin the next."""
    head = len(_document_head())
    for shift in range(4):
        text = "x" * ((1 << 20) - head - shift) + "\ue000" + "y" * 60 + "&amp;"
        _, restored = _resolved(tmp_path, _document(text))
        assert restored.count("\ue000") == 1


def _document_head() -> str:
    return f'<w:document xmlns:w="{WORD}"><w:body>'


def test_a_document_with_every_private_use_character(tmp_path: Path) -> None:
    """No mark is left: refused, rather than mixed up."""
    text = "".join(map(chr, range(0xE000, 0xF900)))
    path = samples.written(tmp_path, "a.docx", _document(_paragraph(f"{text}&amp;")))
    with pytest.raises(UnreadableMedia, match="private-use"):
        without_references(path, unpacked_bytes=MIB)


def test_a_huge_part_is_counted_while_it_unpacks(tmp_path: Path) -> None:
    """32 MB of references: refused over the limit without being held in memory."""
    path = samples.written(tmp_path, "a.docx", _document("&amp;" * (32 * MIB // 5)))
    tracemalloc.start()
    with pytest.raises(TooLarge, match="unpacks to more than"):
        without_references(path, unpacked_bytes=8 * MIB)
    assert tracemalloc.get_traced_memory()[1] < 16 * MIB
    tracemalloc.stop()


def test_a_huge_part_within_the_limit_is_rewritten_in_pieces(tmp_path: Path) -> None:
    """Every reference, and memory of a few pieces."""
    path = samples.written(tmp_path, "a.docx", _document("&amp;" * (16 * MIB // 5)))
    tracemalloc.start()
    copy = without_references(path, unpacked_bytes=64 * MIB)
    assert tracemalloc.get_traced_memory()[1] < 12 * MIB
    tracemalloc.stop()
    with zipfile.ZipFile(io.BytesIO(copy.data)) as archive:
        text = copy.restored(archive.read("word/document.xml").decode())
    assert text.count("&") == 16 * MIB // 5


def test_a_damaged_part_is_an_error_of_the_file(tmp_path: Path) -> None:
    """Bytes that do not unpack, or are not those that were packed."""
    data = bytearray(_document(_paragraph("R&amp;D " * 200)))
    start = data.find(b"word/document.xml") + len("word/document.xml")
    data[start + 8 : start + 24] = bytes(16)
    with pytest.raises(UnreadableMedia, match="damaged"):
        without_references(samples.written(tmp_path, "a.docx", bytes(data)), unpacked_bytes=MIB)


@pytest.mark.anyio
async def test_limits_hold_end_to_end(tmp_path: Path) -> None:
    """A file over the limit is refused by the reading process as before."""
    parser = DocumentParser(limits=ParseLimits(unpacked_bytes=MIB))
    path = samples.written(tmp_path, "a.docx", _document("&amp;" * MIB))
    with pytest.raises(TooLarge, match="unpacks"):
        await parser.parse(path, "a.docx", tmp_path / "blocks")
