"""Small real files of each format, made here."""

import io
import zipfile
from pathlib import Path

_TYPES = "http://schemas.openxmlformats.org/package/2006/content-types"
_RELS = "http://schemas.openxmlformats.org/package/2006/relationships"
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
_SHEET = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_SLIDE = "http://schemas.openxmlformats.org/presentationml/2006/main"
_DRAWING = "http://schemas.openxmlformats.org/drawingml/2006/main"
_SLIDES_TYPE = "application/vnd.openxmlformats-officedocument.presentationml"
_WORD_TYPE = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
_SHEET_TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360000002000001e221bc330000"
    "000049454e44ae426082"
)


def pdf(pages: list[list[tuple[int, str]]], *, trailer: str = "") -> bytes:
    """A PDF whose pages hold lines of (font size, text); a page without lines is blank."""
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", ""]
    kids = []
    for lines in pages:
        drawn = "BT 72 760 Td " + "".join(f"/F1 {size} Tf 0 -{2 * size} Td ({text}) Tj " for size, text in lines) + "ET"
        content = len(objects) + 1
        objects.append(f"<< /Length {len(drawn)} >>\nstream\n{drawn}\nendstream")
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents {content} 0 R /Resources"
            " << /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >> >>"
        )
        kids.append(f"{content + 1} 0 R")
    objects[1] = f"<< /Type /Pages /Kids [{' '.join(kids)}] /Count {len(kids)} >>"
    out, offsets = io.BytesIO(b"%PDF-1.4\n"), []
    out.seek(0, io.SEEK_END)
    for number, body in enumerate(objects, start=1):
        offsets.append(out.tell())
        out.write(f"{number} 0 obj\n{body}\nendobj\n".encode())
    start = out.tell()
    out.write(f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n".encode())
    out.write("".join(f"{offset:010d} 00000 n \n" for offset in offsets).encode())
    out.write(f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R {trailer} >>\nstartxref\n{start}\n%%EOF\n".encode())
    return out.getvalue()


def encrypted_pdf() -> bytes:
    """A PDF that says it is encrypted with a password nobody knows."""
    keys = f"/O <{'41' * 32}> /U <{'42' * 32}>"
    crypt = f"/Encrypt << /Filter /Standard /V 1 /R 2 {keys} /P -4 >> /ID [<{'43' * 16}> <{'43' * 16}>]"
    return pdf([[(12, "hidden")]], trailer=crypt)


def report() -> bytes:
    """Two pages with headings in larger type."""
    body = [(11, f"The turbine hall was cleaned in week {n} and nothing was found.") for n in range(8)]
    more = [(11, f"Bearing {n} was greased and runs without noise.") for n in range(8)]
    return pdf([[(24, "Annual report"), *body], [(24, "Bearings"), *more]])


def docx() -> bytes:
    """A heading, a paragraph, a table, and a second page."""
    style = '<w:pPr><w:pStyle w:val="Heading1"/></w:pPr>'
    cell = "<w:tc><w:p><w:r><w:t>{}</w:t></w:r></w:p></w:tc>".format
    row = "<w:tr>{}{}</w:tr>".format
    body = (
        f"<w:p>{style}<w:r><w:t>Safety</w:t></w:r></w:p><w:p><w:r><w:t>Wear a helmet in the hall.</w:t></w:r></w:p>"
        f"<w:tbl>{row(cell('Tool'), cell('Count'))}{row(cell('Saw'), cell('3'))}</w:tbl>"
        '<w:p><w:r><w:br w:type="page"/></w:r></w:p><w:p><w:r><w:t>The second page.</w:t></w:r></w:p>'
    )
    styles = (
        f'<w:styles xmlns:w="{_WORD}"><w:style w:type="paragraph" w:styleId="Heading1"><w:name w:val="heading 1"/>'
        '<w:pPr><w:outlineLvl w:val="0"/></w:pPr></w:style></w:styles>'
    )
    return office(
        {
            "[Content_Types].xml": _content_types("/word/document.xml", f"{_WORD_TYPE}.main+xml"),
            "_rels/.rels": _relation("officeDocument", "word/document.xml"),
            "word/document.xml": f'<w:document xmlns:w="{_WORD}"><w:body>{body}</w:body></w:document>',
            "word/styles.xml": styles,
            "word/_rels/document.xml.rels": _relation("styles", "styles.xml"),
        }
    )


def xlsx() -> bytes:
    """One sheet of two rows."""
    rows = "".join(
        "<row>" + "".join(f'<c t="inlineStr"><is><t>{cell}</t></is></c>' for cell in row) + "</row>"
        for row in (("Part", "Qty"), ("Pump", "4"))
    )
    sheets = f'<sheets><sheet name="Stock" sheetId="1" r:id="r1" xmlns:r="{_OFFICE}"/></sheets>'
    return office(
        {
            "[Content_Types].xml": _content_types("/xl/workbook.xml", f"{_SHEET_TYPE}.main+xml"),
            "_rels/.rels": _relation("officeDocument", "xl/workbook.xml"),
            "xl/workbook.xml": f'<workbook xmlns="{_SHEET}">{sheets}</workbook>',
            "xl/_rels/workbook.xml.rels": _relation("worksheet", "worksheets/sheet1.xml"),
            "xl/worksheets/sheet1.xml": f'<worksheet xmlns="{_SHEET}"><sheetData>{rows}</sheetData></worksheet>',
        }
    )


def pptx() -> bytes:
    """Two slides: a title and a line, then a title alone."""
    shape = (
        '<p:sp><p:nvSpPr><p:cNvPr id="{0}" name="s"/><p:cNvSpPr/><p:nvPr><p:ph type="{1}"/></p:nvPr></p:nvSpPr>'
        "<p:spPr/>"
        "<p:txBody><a:bodyPr/><a:p><a:r><a:t>{2}</a:t></a:r></a:p></p:txBody></p:sp>"
    ).format
    tree = (
        f'<p:sld xmlns:p="{_SLIDE}" xmlns:a="{_DRAWING}"><p:cSld><p:spTree><p:nvGrpSpPr><p:cNvPr id="1" name=""/>'
        "<p:cNvGrpSpPr/><p:nvPr/></p:nvGrpSpPr><p:grpSpPr/>{0}</p:spTree></p:cSld></p:sld>"
    ).format
    listed = '<p:sldId id="256" r:id="r1"/><p:sldId id="257" r:id="r2"/>'
    slides = "".join(f'<Relationship Id="r{n}" Type="{_OFFICE}/slide" Target="slides/slide{n}.xml"/>' for n in (1, 2))
    types = _content_types("/ppt/presentation.xml", f"{_SLIDES_TYPE}.presentation.main+xml")
    override = "".join(
        f'<Override PartName="/ppt/slides/slide{n}.xml" ContentType="{_SLIDES_TYPE}.slide+xml"/>' for n in (1, 2)
    )
    return office(
        {
            "[Content_Types].xml": types.replace("</Types>", f"{override}</Types>"),
            "_rels/.rels": _relation("officeDocument", "ppt/presentation.xml"),
            "ppt/presentation.xml": f'<p:presentation xmlns:p="{_SLIDE}" xmlns:r="{_OFFICE}"><p:sldIdLst>{listed}'
            "</p:sldIdLst></p:presentation>",
            "ppt/_rels/presentation.xml.rels": f'<Relationships xmlns="{_RELS}">{slides}</Relationships>',
            "ppt/slides/slide1.xml": tree(shape(2, "title", "Pumps") + shape(3, "body", "Grease them weekly.")),
            "ppt/slides/slide2.xml": tree(shape(2, "title", "Valves")),
        }
    )


def pptx_with_notes_and_table() -> bytes:
    """Notes below the first slide, a table on the second."""
    with zipfile.ZipFile(io.BytesIO(pptx())) as archive:
        parts = {name: archive.read(name).decode().partition("?>")[2] for name in archive.namelist()}
    shape = (
        '<p:sp><p:nvSpPr><p:cNvPr id="{0}" name="s"/><p:cNvSpPr/><p:nvPr><p:ph type="{1}"/></p:nvPr></p:nvSpPr>'
        "<p:spPr/><p:txBody><a:bodyPr/>{2}</p:txBody></p:sp>"
    ).format
    line = "<a:p><a:r><a:t>{}</a:t></a:r></a:p>".format
    notes = shape(2, "body", line("Say that the seal") + line("was late.")) + shape(3, "sldNum", line("1"))
    cell = f"<a:tc><a:txBody><a:bodyPr/>{line('{}')}</a:txBody></a:tc>".format
    rows = "".join(f'<a:tr h="1">{cell(a)}{cell(b)}</a:tr>' for a, b in (("Region", "Cost"), ("North", "4")))
    table = (
        '<p:graphicFrame><p:nvGraphicFramePr><p:cNvPr id="4" name="t"/><p:cNvGraphicFramePr/><p:nvPr/>'
        '</p:nvGraphicFramePr><p:xfrm><a:off x="0" y="0"/><a:ext cx="9" cy="9"/></p:xfrm><a:graphic>'
        f'<a:graphicData uri="{_DRAWING[: -len("main")]}table"><a:tbl><a:tblPr/><a:tblGrid><a:gridCol w="1"/>'
        f'<a:gridCol w="1"/></a:tblGrid>{rows}</a:tbl></a:graphicData></a:graphic></p:graphicFrame>'
    )
    slide = "ppt/slides/slide2.xml"
    parts[slide] = parts[slide].replace("</p:spTree>", f"{table}</p:spTree>")
    parts["ppt/slides/_rels/slide1.xml.rels"] = _relation("notesSlide", "../notesSlides/notesSlide1.xml")
    parts["ppt/notesSlides/notesSlide1.xml"] = (
        f'<p:notes xmlns:p="{_SLIDE}" xmlns:a="{_DRAWING}"><p:cSld><p:spTree>{notes}</p:spTree></p:cSld></p:notes>'
    )
    return office(parts)


def zip_bomb() -> bytes:
    """A small DOCX whose document unpacks to 600 MB."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        with archive.open("word/document.xml", "w") as part:
            for _ in range(600):
                part.write(bytes(1 << 20))
    return out.getvalue()


def office(parts: dict[str, str]) -> bytes:
    """An Office file of these parts."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in parts.items():
            archive.writestr(name, '<?xml version="1.0" encoding="UTF-8"?>' + text)
    return out.getvalue()


def written(folder: Path, name: str, data: bytes | str) -> Path:
    """A file of these bytes."""
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def _content_types(part: str, kind: str) -> str:
    return (
        f'<Types xmlns="{_TYPES}"><Default Extension="xml" ContentType="application/xml"/>'
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        f'<Override PartName="{part}" ContentType="{kind}"/></Types>'
    )


def _relation(kind: str, target: str) -> str:
    return (
        f'<Relationships xmlns="{_RELS}"><Relationship Id="r1" Type="{_OFFICE}/{kind}" Target="{target}"/>'
        "</Relationships>"
    )
