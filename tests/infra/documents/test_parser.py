"""Files of every format become blocks; bad ones become clear errors, and none of them hurts this process."""

import asyncio
import io
import zipfile
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path

import pytest

from neuroedge.contract.errors import (
    DeadlineExceeded,
    EmptyMedia,
    NeuroEdgeError,
    TooLarge,
    UnreadableMedia,
    UnsupportedMedia,
)
from neuroedge.contract.scope import call_scope
from neuroedge.infra.documents.mail import NESTED
from neuroedge.infra.documents.outcome import MIB, Parsed, ParseLimits, read_blocks
from neuroedge.infra.documents.parser import DocumentParser
from neuroedge.kit.chunking import Block
from tests.infra.documents import samples

pytestmark = pytest.mark.anyio

EML = (
    "From: anna@example.org\nTo: bob@example.org\nSubject: Pump order\nMIME-Version: 1.0\n"
    "Content-Type: text/plain; charset=utf-8\n\nPlease order a pump.\n"
)
HTML = (
    "<html><head><title>T</title><script>alert(1)</script></head><body><h1>Top</h1><p>Some text.</p><ul><li>x</li>"
    "<li>y</li></ul><table><tr><th>A</th><th>B</th></tr><tr><td>1</td><td>2</td></tr></table></body></html>"
)
MARKDOWN = "# Top\n\nSome *text*.\n\n- x\n- y\n\n| A | B |\n|---|---|\n| 1 | 2 |\n\n```python\nx = 1\n\ny = 2\n```\n"


async def _parsed(
    folder: Path, name: str, data: bytes | str, *, limits: ParseLimits | None = None
) -> tuple[Parsed, list[Block]]:
    out = folder / "blocks"
    parsed = await DocumentParser(limits=limits).parse(samples.written(folder, name, data), name, out)
    return parsed, list(read_blocks(out.read_bytes())) if out.exists() else []


async def test_a_pdf_keeps_headings_and_pages(tmp_path: Path) -> None:
    """Larger type is a heading; every block names its page."""
    parsed, blocks = await _parsed(tmp_path, "a.pdf", samples.report())
    assert (parsed.media_type, parsed.pages, parsed.unread_pages) == ("application/pdf", 2, ())
    headings = {(b.text, b.page) for b in blocks if b.type == "heading"}
    assert {("Annual report", 1), ("Bearings", 2)} <= headings
    assert any("turbine hall was cleaned in week 7" in b.text and b.page == 1 for b in blocks)
    assert any("Bearing 7 was greased" in b.text and b.page == 2 for b in blocks)


async def test_a_docx_keeps_headings_tables_and_pages(tmp_path: Path) -> None:
    """The table is Markdown with its header; what follows a page break is on page 2."""
    parsed, blocks = await _parsed(tmp_path, "a.docx", samples.docx())
    assert parsed.media_type.endswith("wordprocessingml.document")
    assert Block(type="heading", text="Safety", page=1, level=1) in blocks
    assert Block(type="table", text="| Tool | Count |\n| --- | --- |\n| Saw | 3 |", page=1) in blocks
    assert Block(type="paragraph", text="The second page.", page=2) in blocks


async def test_a_sheet_is_a_table_under_its_name(tmp_path: Path) -> None:
    """XLSX: sheets are headings and pages."""
    _, blocks = await _parsed(tmp_path, "a.xlsx", samples.xlsx())
    assert [b.text for b in blocks] == ["Stock", "| Part | Qty |\n| --- | --- |\n| Pump | 4 |"]
    assert blocks[1].page == 1


async def test_slides_keep_their_titles_and_numbers(tmp_path: Path) -> None:
    """PPTX: a slide is a page."""
    parsed, blocks = await _parsed(tmp_path, "a.pptx", samples.pptx())
    assert parsed.media_type.endswith("presentationml.presentation")
    assert parsed.pages == 2
    assert [(b.text, b.page) for b in blocks] == [("Pumps", 1), ("Grease them weekly.", 1), ("Valves", 2)]
    assert blocks[0].type == blocks[2].type == "heading"


async def test_slides_come_with_their_notes_and_a_table_does_not_move_them(tmp_path: Path) -> None:
    """Notes stand behind what their slide says; every block names its own slide though only one holds a table."""
    parsed, blocks = await _parsed(tmp_path, "a.pptx", samples.pptx_with_notes_and_table())
    assert parsed.pages == 2
    assert [(b.text, b.page) for b in blocks] == [
        ("Pumps", 1),
        ("Grease them weekly.", 1),
        ("Notes: Say that the seal\nwas late.", 1),
        ("Valves", 2),
        ("| Region | Cost |\n| --- | --- |\n| North | 4 |", 2),
    ]


async def test_damaged_notes_are_no_reason_to_refuse_a_presentation(tmp_path: Path) -> None:
    """What is no XML has no notes; the slides are read."""
    with zipfile.ZipFile(io.BytesIO(samples.pptx_with_notes_and_table())) as archive:
        parts = {name: archive.read(name).decode().partition("?>")[2] for name in archive.namelist()}
    for broken in ("<p:notes", "", "<a/>"):
        parts["ppt/notesSlides/notesSlide1.xml"] = broken
        _, blocks = await _parsed(tmp_path, "a.pptx", samples.office(parts))
        assert [b.text for b in blocks][:3] == ["Pumps", "Grease them weekly.", "Valves"]


async def test_a_mail_comes_with_what_is_attached(tmp_path: Path) -> None:
    """Each once under its name, mails too; of what cannot be read, why. A picture the text shows is no attachment."""
    inner = EmailMessage()
    inner["Subject"] = "Inner"
    inner.set_content("The inner words.")
    inner.add_attachment("deep,value\nx,1\n", subtype="csv", filename="deep.csv")
    mail = EmailMessage()
    mail["Subject"] = "Outer"
    mail.set_content("The outer words.")
    mail.add_attachment(samples.docx(), maintype="application", subtype="octet-stream", filename="größe.docx")
    mail.add_attachment(b"", maintype="application", subtype="pdf", filename="empty.pdf")
    mail.add_attachment(samples.PNG, maintype="image", subtype="png", filename="scan.png")
    mail.add_attachment(samples.PNG, maintype="image", subtype="png", filename="logo.png", disposition="inline")
    mail.add_attachment(inner)
    parsed, blocks = await _parsed(tmp_path, "a.eml", mail.as_bytes())
    said = [(b.type, b.text, b.level) for b in blocks]
    assert parsed.title == "Outer"
    assert said.index(("heading", "Attachment: größe.docx", 1)) < said.index(("heading", "Safety", 2))
    assert ("table", "| Tool | Count |\n| --- | --- |\n| Saw | 3 |", None) in said
    text = "\n".join(b.text for b in blocks)
    assert "Attachment: empty.pdf\nNot read: the file is empty." in text
    assert "Attachment: scan.png\nNot read: it is image/png; send it by itself." in text
    assert text.count("The inner words.") == text.count("Subject: Inner") == 1
    assert "Attachment: deep.csv\n| deep | value |" in text
    assert "logo.png" not in text
    assert {b.page for b in blocks} == {None}


async def test_an_attachment_that_is_too_large_does_not_cost_the_mail(tmp_path: Path) -> None:
    """It is named with the limit; text and the other attachments are read."""
    mail = EmailMessage()
    mail.set_content("The words.")
    mail.add_attachment(bytes(20_000), maintype="application", subtype="zip", filename="big.zip")
    mail.add_attachment("More words.", filename="b.txt")
    _, blocks = await _parsed(tmp_path, "a.eml", mail.as_bytes(), limits=ParseLimits(characters=2000))
    assert "Not read: it has more than 10000 bytes." in [b.text for b in blocks]
    assert blocks[-1].text == "More words."


async def test_mails_within_mails_come_to_an_end(tmp_path: Path) -> None:
    """The innermost ones of very many are not read; a mail of attachments alone is no empty one."""
    mail = EmailMessage()
    mail.set_content("The innermost words.")
    for depth in range(20):
        around = EmailMessage()
        around["Subject"] = f"depth {depth}"
        around.add_attachment(mail)
        mail = around
    _, blocks = await _parsed(tmp_path, "a.eml", mail.as_bytes())
    assert sum(b.text.startswith("Attachment: ") for b in blocks) == NESTED
    assert not any("innermost" in b.text for b in blocks)


@pytest.mark.parametrize("header", ['filename="=?nonsense?q?=FF?="', "filename*=bad''%ff", 'filename="../../b.txt"'])
async def test_strange_names_of_attachments(header: str, tmp_path: Path) -> None:
    """Whatever the header says, the words are read."""
    body = f"Content-Type: text/plain\r\nContent-Disposition: attachment; {header}\r\n\r\nThe plan.\r\n"
    mail = f'Subject: s\r\nContent-Type: multipart/mixed; boundary="X"\r\n\r\n--X\r\n{body}--X--\r\n'
    _, blocks = await _parsed(tmp_path, "a.eml", mail)
    assert blocks[-1].text == "The plan."


@pytest.mark.parametrize(("name", "data"), [("a.html", HTML), ("a.md", MARKDOWN)])
async def test_marked_up_text_keeps_its_structure(name: str, data: str, tmp_path: Path) -> None:
    """Headings, lists and tables of HTML and Markdown; no script."""
    _, blocks = await _parsed(tmp_path, name, data)
    assert Block(type="heading", text="Top", level=1) in blocks
    assert Block(type="list", text="- x\n- y") in blocks
    assert Block(type="table", text="| A | B |\n| --- | --- |\n| 1 | 2 |") in blocks
    assert not any("alert" in b.text for b in blocks)
    if name == "a.md":
        assert Block(type="code", text="```python\nx = 1\n\ny = 2\n```") in blocks


async def test_plain_text_mail_and_csv(tmp_path: Path) -> None:
    """Paragraphs; subject and body; rows, quoted separators and semicolons understood."""
    _, text = await _parsed(tmp_path, "a.txt", "One\ntwo\n\n\nThree\r\n")
    assert [b.text for b in text] == ["One\ntwo", "Three"]
    mail, body = await _parsed(tmp_path, "a.eml", EML)
    assert mail.title == "Pump order"
    assert any("anna@example.org" in b.text for b in body)
    assert any("Please order a pump." in b.text for b in body)
    _, rows = await _parsed(tmp_path, "a.csv", 'name;qty\n"Pump; big";4\n')
    assert [b.text for b in rows] == ["| name | qty |\n| --- | --- |\n| Pump; big | 4 |"]


async def test_a_long_csv_becomes_tables_with_the_header(tmp_path: Path) -> None:
    """No row is lost, every table begins with the header."""
    data = "n,square\n" + "".join(f"{n},{n * n}\n" for n in range(1000))
    _, blocks = await _parsed(tmp_path, "a.csv", data)
    assert all(b.text.startswith("| n | square |\n| --- | --- |\n") for b in blocks)
    assert sum(b.text.count("\n") - 1 for b in blocks) == 1000


async def test_quotes_doubled_late_in_a_csv_part_no_cell(tmp_path: Path) -> None:
    """What the first lines show of quotes is not all there is: commas and quotes within a cell stay in it."""
    early = "".join(f'{n},"Smith, J{n}",remark number {n}\n' for n in range(300))
    late = '999,"Doe, Jane","She said ""no, never"" and left"\n'
    _, blocks = await _parsed(tmp_path, "a.csv", "id,name,remark\n" + early + late)
    assert blocks[-1].text.splitlines()[0] == "| id | name | remark |"
    assert blocks[-1].text.splitlines()[-1] == '| 999 | Doe, Jane | She said "no, never" and left |'


@pytest.mark.parametrize(
    ("data", "row"),
    [
        ("id,name\n1,'Smith, J'\n2,'Doe, Jane'\n", "| 2 | Doe, Jane |"),
        ("id;name\n1;'Smith; J'\n2;'it''s; her'\n", "| 2 | it's; her |"),
    ],
)
async def test_single_quotes_around_cells_are_none_of_their_text(data: str, row: str, tmp_path: Path) -> None:
    """Where a CSV is written so, and has no others."""
    _, blocks = await _parsed(tmp_path, "a.csv", data)
    assert blocks[-1].text.splitlines()[-1] == row


@pytest.mark.parametrize("data", ["a,b", "a,b\n\n", "\na,b\n", '"a",b\n,\n'])
async def test_a_csv_of_a_header_alone_is_a_table(data: str, tmp_path: Path) -> None:
    """Whatever empty lines stand around it."""
    _, blocks = await _parsed(tmp_path, "a.csv", data)
    assert [b.text for b in blocks] == ["| a | b |\n| --- | --- |"]


async def test_content_decides_not_the_name(tmp_path: Path) -> None:
    """A PDF named .docx is a PDF, UTF-16 text is read, an HTML page needs no suffix and may name its charset."""
    parsed, _ = await _parsed(tmp_path, "a.docx", samples.report())
    assert parsed.media_type == "application/pdf"
    _, blocks = await _parsed(tmp_path, "a.txt", "größer".encode("utf-16"))
    assert blocks[0].text == "größer"
    latin = '<html><head><meta charset="iso-8859-1"></head><body><p>größer</p></body></html>'.encode("latin-1")
    parsed, blocks = await _parsed(tmp_path, "download", latin)
    assert parsed.media_type == "text/html"
    assert blocks[0].text == "größer"


async def test_images_and_sound_are_told_apart(tmp_path: Path) -> None:
    """They are not read here; whoever asked sends them on."""
    assert (await _parsed(tmp_path, "scan.pdf", samples.PNG))[0] == Parsed(kind="image", media_type="image/png")
    assert (await _parsed(tmp_path, "a.txt", b"RIFF\0\0\0\0WAVEfmt "))[0].kind == "audio"


async def test_pages_without_text_are_named_and_can_be_drawn(tmp_path: Path) -> None:
    """For optical character recognition: which pages, and a picture of one; a page that is not there is named."""
    path = samples.written(tmp_path, "a.pdf", samples.pdf([[(12, "words")], [], [(12, "more")]]))
    parser = DocumentParser()
    parsed = await parser.parse(path, "a.pdf", tmp_path / "blocks")
    assert parsed.unread_pages == (2,)
    await parser.picture(path, tmp_path / "page.png", page=2)
    assert samples.PNG[:8] == (tmp_path / "page.png").read_bytes()[:8]
    with pytest.raises(UnreadableMedia, match="page 9"):
        await parser.picture(path, tmp_path / "page.png", page=9)


@pytest.mark.parametrize(
    ("name", "make", "error", "said"),
    [
        ("a.txt", lambda: b"", EmptyMedia, "empty"),
        ("a.txt", lambda: b" \n\t\n", EmptyMedia, "no text"),
        ("a.pdf", samples.encrypted_pdf, UnreadableMedia, "encrypted"),
        ("a.pdf", lambda: samples.report()[:400], UnreadableMedia, "damaged"),
        ("a.pdf", lambda: b"%PDF-1.7\n" + bytes(range(256)) * 40, UnreadableMedia, "damaged"),
        ("a.docx", lambda: samples.docx()[:300], UnreadableMedia, "damaged"),
        ("a.docx", samples.zip_bomb, TooLarge, "unpacks"),
        ("a.zip", lambda: samples.office({"notes.txt": "x"}), UnsupportedMedia, "ZIP"),
        ("a.odt", lambda: samples.office({"mimetype": "x", "content.xml": "x"}), UnsupportedMedia, "OpenDocument"),
        ("a.doc", lambda: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), UnsupportedMedia, "2007"),
        (
            "a.docx",
            lambda: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + "EncryptedPackage".encode("utf-16-le"),
            UnreadableMedia,
            "encrypted",
        ),
        ("a.pdf", lambda: b"<html>Please log in</html>", UnsupportedMedia, r"named \.pdf"),
        ("a.exe", lambda: b"MZ\x90\x00\x03" + bytes(100), UnreadableMedia, "line 1 holds a zero byte"),
        ("a.txt", lambda: b"one\ntwo \xff\xfe three", UnreadableMedia, "line 2, byte 8"),
        ("a.md", lambda: b"# one\n\n\xc3\x28", UnreadableMedia, "line 3"),
        ("a.txt", lambda: b"fine\nbroken\x00here", UnreadableMedia, "line 2 holds a zero byte"),
        ("a.txt", lambda: b"short\n" + b"x" * 20_000_000, TooLarge, "line 2 has 20000000"),
        ("a.csv", lambda: b"x" * 20_000_000, TooLarge, "line 1"),
    ],
)
async def test_bad_files_are_clear_errors(
    name: str, make: Callable[[], bytes], error: type[NeuroEdgeError], said: str, tmp_path: Path
) -> None:
    """Each with what is wrong and where."""
    with pytest.raises(error, match=said) as caught:
        await _parsed(tmp_path, name, make())
    assert caught.value.hint


async def test_too_many_pages(tmp_path: Path) -> None:
    """5,000 pages are counted before they are read."""
    data = samples.pdf([[(12, f"Page {n}")] for n in range(5000)])
    with pytest.raises(TooLarge, match="5000 pages"):
        await _parsed(tmp_path, "a.pdf", data)


async def test_too_many_bytes(tmp_path: Path) -> None:
    """The file's own size, before it is read."""
    with pytest.raises(TooLarge, match="larger than 100 bytes"):
        await _parsed(tmp_path, "a.txt", "x " * 100, limits=ParseLimits(file_bytes=100))


async def test_too_much_text_names_the_page(tmp_path: Path) -> None:
    """The limit of characters, with the page where it was reached."""
    with pytest.raises(TooLarge, match="page 2"):
        await _parsed(tmp_path, "a.pdf", samples.report(), limits=ParseLimits(characters=600))


async def test_memory_is_limited(tmp_path: Path) -> None:
    """A file whose reading needs more memory than allowed ends the reading process, not this one."""
    data = "word " * 20_000_000
    with pytest.raises((TooLarge, UnreadableMedia)):
        await _parsed(tmp_path, "a.html", data, limits=ParseLimits(memory_bytes=400 * MIB))


async def test_time_is_limited(tmp_path: Path) -> None:
    """A reading process that does not end is ended."""
    with pytest.raises(TooLarge, match="longer than"):
        await _parsed(tmp_path, "a.pdf", samples.report(), limits=ParseLimits(time_s=0.01))


async def test_the_callers_deadline_ends_the_reading(tmp_path: Path) -> None:
    """Long before the limit of a file; the error is the call's, not the file's."""
    path, out = samples.written(tmp_path, "a.pdf", samples.report()), tmp_path / "blocks"
    with call_scope(timeout_s=0.05), pytest.raises(DeadlineExceeded):
        await DocumentParser().parse(path, "a.pdf", out)
    with call_scope(timeout_s=0.05), pytest.raises(DeadlineExceeded):
        await DocumentParser().picture(path, out, page=1)
    with call_scope(timeout_s=100):
        assert (await DocumentParser().parse(path, "a.pdf", out)).pages == 2


async def test_the_callers_deadline_ends_the_wait_for_a_slot(tmp_path: Path) -> None:
    """Who waits for another file's end leaves in time, and takes no slot along."""
    parser = DocumentParser(at_once=1)
    path = samples.written(tmp_path, "a.pdf", samples.report())
    first = asyncio.create_task(parser.parse(path, "a.pdf", tmp_path / "first"))
    await asyncio.sleep(0)  # it has the slot now
    with call_scope(timeout_s=0.01), pytest.raises(DeadlineExceeded):
        await parser.parse(path, "a.pdf", tmp_path / "second")
    assert (await first).pages == 2
    assert (await parser.parse(path, "a.pdf", tmp_path / "third")).pages == 2


async def test_a_crash_of_the_parser_is_an_error_of_the_file(tmp_path: Path) -> None:
    """With too little memory to load it, the parser cannot even start: the file counts as unreadable."""
    with pytest.raises(UnreadableMedia, match="cannot be read"):
        await _parsed(tmp_path, "a.pdf", samples.report(), limits=ParseLimits(memory_bytes=64 * MIB))
