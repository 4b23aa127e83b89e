"""How much of a file's known text the document engine gives back, by format.

    python -m benchmarks.document [--documents 20] [--models DIR]

Files are made here from the sentences of benchmarks/data/knowledge_sample.jsonl (books in the public domain): headings,
paragraphs, a table, over several pages. Text recall is the part of the words (with multiplicity, case aside) that the
blocks hold; precision the part of the blocks' words that were in the file; order is the Kendall correlation of the
sentences' places, 1 where they come as they were written. Headings and table cells count as found where text and kind
agree. Beside text recall stands how many words of all files came back, from which its interval is made (Wilson's, as if
words did not depend on each other). The peer is the plainest reader there is: for HTML all text between tags, for DOCX
and PPTX all `t` elements; for PDF there is none. With --models a few pages are drawn as pictures and read through the
engine ocr, too. Files made by one program are easier than those of the world: the figures find faults, they promise
nothing.
"""

import argparse
import asyncio
import base64
import html
import io
import json
import random
import re
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from tests.fakes import make_context
from tests.infra.documents import samples

from benchmarks.report import Figure, figure, save
from neuroedge.contract.content import FileSource
from neuroedge.engines.vision import ocr as ocr_engine
from neuroedge.engines.vision.document import DocumentEngine, Input, Output
from neuroedge.infra.documents.parser import DocumentParser
from neuroedge.infra.documents.port import ParsedDocuments

SAMPLE: Final = Path(__file__).parent / "data" / "knowledge_sample.jsonl"
SEED: Final = 28
PARAGRAPHS: Final = 8
RECALL: Final = 0.98
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What a file says."""

    sections: list[tuple[str, list[str]]]
    """Headings, each with its paragraphs."""
    table: list[list[str]]

    @property
    def paragraphs(self) -> list[str]:
        """In order."""
        return [text for _, texts in self.sections for text in texts]

    def words(self, *, table: bool) -> Counter[str]:
        """All words, with how often they stand there."""
        cells = [cell for row in self.table for cell in row] if table else []
        return _words(" ".join([*(heading for heading, _ in self.sections), *self.paragraphs, *cells]))


def made(sentences: Sequence[str], rng: random.Random) -> Known:
    """Four sections of two paragraphs, each of three sentences, and a table of three rows."""
    drawn = rng.sample(sentences, 3 * PARAGRAPHS)
    texts = [" ".join(drawn[3 * i : 3 * i + 3]) for i in range(PARAGRAPHS)]
    names = ("Origins", "Journeys", "Letters", "Later years")
    table = [["Year", "Place"], *([str(rng.randint(1700, 1900)), rng.choice(("Bonn", "Kew", "Leeds"))] for _ in "ab")]
    return Known(sections=[(name, texts[2 * i : 2 * i + 2]) for i, name in enumerate(names)], table=table)


def pdf(known: Known) -> bytes:
    """A page a section, headings in 20 point, lines of 11 point; a PDF holds no table here."""
    pages = []
    for heading, texts in known.sections:
        lines = [(20, _escaped(heading))]
        for text in texts:
            lines += [(11, _escaped(line)) for line in _wrapped(text, 85)]
        pages.append(lines)
    return samples.pdf(pages)


def docx(known: Known) -> bytes:
    """Headings by style, a table at the end."""
    paragraph = "<w:p>{}<w:r><w:t>{}</w:t></w:r></w:p>".format
    style = '<w:pPr><w:pStyle w:val="Heading1"/></w:pPr>'
    body = ""
    for heading, texts in known.sections:
        body += paragraph(style, html.escape(heading)) + "".join(paragraph("", html.escape(text)) for text in texts)
    rows = "".join(
        "<w:tr>" + "".join(f"<w:tc>{paragraph('', html.escape(cell))}</w:tc>" for cell in row) + "</w:tr>"
        for row in known.table
    )
    return _changed(
        samples.docx(), "word/document.xml", r"<w:body>.*</w:body>", f"<w:body>{body}<w:tbl>{rows}</w:tbl></w:body>"
    )


def pptx(known: Known) -> bytes:
    """Two slides of two sections each; titles are headings only where a slide begins."""
    data = samples.pptx()
    for number in (1, 2):
        shapes = ""
        for place, (heading, texts) in enumerate(known.sections[2 * number - 2 : 2 * number]):
            kind = "title" if place == 0 else "body"
            runs = "".join(f"<a:p><a:r><a:t>{html.escape(text)}</a:t></a:r></a:p>" for text in texts)
            shapes += _shape(10 * place + 2, kind, f"<a:p><a:r><a:t>{heading}</a:t></a:r></a:p>")
            shapes += _shape(10 * place + 3, "body", runs)
        data = _changed(data, f"ppt/slides/slide{number}.xml", r"(?<=<p:grpSpPr/>).*(?=</p:spTree>)", shapes)
    return data


def web(known: Known) -> bytes:
    """A page of the web with a script and a style that are no text."""
    body = ""
    for heading, texts in known.sections:
        body += f"<h1>{heading}</h1>" + "".join(f"<p>{html.escape(text)}</p>" for text in texts)
    rows = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in known.table)
    head = "<head><style>p { color: red }</style><script>var secret = 1;</script></head>"
    return f"<!doctype html><html>{head}<body>{body}<table>{rows}</table></body></html>".encode()


def _shape(number: int, kind: str, text: str) -> str:
    return (
        f'<p:sp><p:nvSpPr><p:cNvPr id="{number}" name="s"/><p:cNvSpPr/><p:nvPr><p:ph type="{kind}"/></p:nvPr>'
        "</p:nvSpPr>"
        f"<p:spPr/><p:txBody><a:bodyPr/>{text}</p:txBody></p:sp>"
    )


def _changed(data: bytes, part: str, pattern: str, text: str) -> bytes:
    """The Office file with what the pattern finds in one of its parts replaced."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as before, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as after:
        for name in before.namelist():
            content = before.read(name).decode()
            after.writestr(name, re.sub(pattern, lambda _: text, content, flags=re.S) if name == part else content)
    return out.getvalue()


def _escaped(text: str) -> str:
    return re.sub(r"([\\()])", r"\\\1", text)


def _wrapped(text: str, width: int) -> list[str]:
    import textwrap

    return textwrap.wrap(text, width, break_on_hyphens=False)


def _words(text: str) -> Counter[str]:
    return Counter(word.lower() for word in _WORD.findall(text))


def plain_web(data: bytes) -> str:
    """All that stands between tags."""
    return html.unescape(re.sub(r"<[^>]+>", " ", data.decode()))


def plain_office(data: bytes) -> str:
    """All `t` elements of all parts."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        parts = [archive.read(name).decode() for name in sorted(archive.namelist())]
    return html.unescape(" ".join(found for part in parts for found in re.findall(r"<[aw]:t>([^<]*)<", part)))


FORMATS: Final[dict[str, tuple[Callable[[Known], bytes], Callable[[bytes], str] | None]]] = {
    "pdf": (pdf, None),
    "docx": (docx, plain_office),
    "pptx": (pptx, plain_office),
    "html": (web, plain_web),
}
WITH_TABLE: Final = ("docx", "html")


def scored(known: Known, answer: Output, kind: str) -> dict[str, float]:
    """Measures of one answer."""
    expected = known.words(table=kind in WITH_TABLE)
    found = _words(" ".join(block.text for block in answer.blocks))
    text = " ".join(" ".join(_WORD.findall(block.text.lower())) for block in answer.blocks)
    places = [text.find(" ".join(_WORD.findall(p.lower()))[:40]) for p in known.paragraphs]
    wanted = {heading for heading, _ in known.sections[:: 2 if kind == "pptx" else 1]}
    measures = {
        "text recall": (expected & found).total() / expected.total(),
        "text precision": (expected & found).total() / max(1, found.total()),
        "order": _kendall([place for place in places if place >= 0]),
        "headings found": len(wanted & {heading.text for heading in answer.headings}) / len(wanted),
    }
    if kind in WITH_TABLE:
        measures["tables found"] = float(any(table.rows == known.table for table in answer.tables))
    return measures


def _kendall(places: Sequence[int]) -> float:
    pairs = [(a, b) for i, a in enumerate(places) for b in places[i + 1 :]]
    return sum(1 if a < b else -1 for a, b in pairs) / len(pairs) if pairs else 0.0


async def measure(documents: int, models: Path | None) -> list[Figure]:
    """Every format on the same texts; then pictures of pages."""
    lines = SAMPLE.read_text(encoding="utf-8").splitlines()
    sentences = sorted({json.loads(line)["text"].encode("ascii", "ignore").decode() for line in lines})
    rng = random.Random(SEED)
    texts = [made(sentences, rng) for _ in range(documents)]
    found: dict[tuple[str, str], list[float]] = {}
    peers: dict[str, list[float]] = {}
    sizes: dict[str, list[int]] = {}
    with tempfile.TemporaryDirectory() as folder:
        ctx = replace(make_context(), documents=ParsedDocuments(DocumentParser(), tmp=Path(folder)))
        for kind, (make, peer) in FORMATS.items():
            for known in texts:
                data = make(known)
                answer = await _read(data, f"a.{kind}", ctx)
                for name, value in scored(known, answer, kind).items():
                    found.setdefault((kind, name), []).append(value)
                words = known.words(table=kind in WITH_TABLE)
                sizes.setdefault(kind, []).append(words.total())
                if peer is not None:
                    peers.setdefault(kind, []).append((words & _words(peer(data))).total() / words.total())
        if models is not None:
            await _scans(texts[:3], ctx, models, found)
    return [
        figure(
            f"{name}, {kind}",
            "",
            values,
            at_least=RECALL if name == "text recall" and kind in FORMATS else None,
            note=told(values, sizes[kind], peers.get(kind, [])) if name == "text recall" and kind in FORMATS else "",
        )
        for (kind, name), values in found.items()
    ]


def told(recalls: Sequence[float], sizes: Sequence[int], peer: Sequence[float]) -> str:
    """How many words of all files came back, and the peer's recall."""
    words = round(sum(recall * size for recall, size in zip(recalls, sizes, strict=True)))
    beside = f"; plainest reader {sum(peer) / len(peer):.4f}" if peer else ""
    return f"words: {words} of {sum(sizes)} found in {len(sizes)} files{beside}"


async def _read(data: bytes, name: str, ctx: Any) -> Output:
    source = FileSource(base64=base64.b64encode(data).decode())
    return await DocumentEngine(probe=ctx).run(Input(file=source, filename=name), ctx)


async def _scans(texts: Sequence[Known], ctx: Any, models: Path, found: dict[tuple[str, str], list[float]]) -> None:
    """The PDFs' pages as pictures in a PDF without text."""
    from PIL import Image
    from tests.fakes import FakeModels

    from neuroedge.runtimes import ocr

    name = "pp-ocrv6-small"
    reader = ocr.load(name, models / name, threads=2, options={})

    async def call(engine: str, payload: Any) -> Any:
        assert engine == "ocr"
        return await ocr_engine.OcrEngine(probe=ctx).run(payload, reading)

    reading = replace(ctx, models=FakeModels({"ocr": reader}))
    try:
        for known in texts:
            drawn = [await ctx.documents.picture(pdf(known), page=page) for page in range(1, 5)]
            pictures = [Image.open(io.BytesIO(page)).convert("RGB") for page in drawn]
            with io.BytesIO() as buffer:
                pictures[0].save(buffer, "PDF", resolution=200, save_all=True, append_images=pictures[1:])
                answer = await _read(buffer.getvalue(), "a.pdf", replace(ctx, call=call))
            for measure_name, value in scored(known, answer, "scan").items():
                if measure_name != "headings found":
                    found.setdefault(("scanned pdf", measure_name), []).append(value)
    finally:
        reader.close()


def main() -> int:
    """Measure, print, and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=20)
    parser.add_argument("--models", type=Path, help="the model store, for scanned pages")
    given = parser.parse_args()
    figures = asyncio.run(measure(given.documents, given.models))
    command = f"python -m benchmarks.document --documents {given.documents}" + (" --models DIR" if given.models else "")
    save("document", figures, title="Documents with known text", command=command)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
