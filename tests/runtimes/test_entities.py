"""The parser of texts over the shipped spaCy pipeline."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from neuroedge.contract.errors import ModelUnavailable
from neuroedge.runtimes import entities
from neuroedge.runtimes.entities import SpacyParser

pytestmark = pytest.mark.anyio
MODEL = "en-core-web-sm"


@pytest.fixture
async def parser(models_dir: Path) -> AsyncIterator[SpacyParser]:
    """The pipeline, closed afterwards."""
    opened = await asyncio.to_thread(entities.load, MODEL, models_dir / MODEL, threads=1, options={})
    yield opened
    opened.close()


@pytest.mark.models
async def test_tokens_sentences_and_names_cover_the_text(parser: SpacyParser) -> None:
    """Offsets are those of the text, one result for each text, in order."""
    text = "Marie Curie lived in Paris. She won."
    first, second = await parser.parse([text, ""])
    assert [text[token.start : token.end] for token in first.tokens] == [token.text for token in first.tokens]
    assert [(span.first, span.stop) for span in first.sentences] == [(0, 6), (6, 9)]
    named = {text[first.tokens[n.first].start : first.tokens[n.stop - 1].end]: n.label for n in first.names}
    assert named == {"Marie Curie": "PERSON", "Paris": "GPE"}
    assert first.tokens[first.tokens[1].head].lemma == "live"
    assert second.tokens == second.sentences == second.names == ()


@pytest.mark.models
@pytest.mark.parametrize("text", ["\x00\x01\x02", "\ud800", "😀" * 500, " \n\t ", "a" * 20_000, "), (" * 5_000])
async def test_no_text_breaks_it(parser: SpacyParser, text: str) -> None:
    """Control characters, half surrogate pairs, one endless word: parsed or nothing, and the next call is served."""
    [odd] = await parser.parse([text])
    assert all(0 <= token.start <= token.end <= len(text) for token in odd.tokens)
    assert len(await parser.parse(["Hello."])) == 1


@pytest.mark.models
async def test_the_vocabulary_does_not_grow_with_what_is_read(parser: SpacyParser) -> None:
    """A server reads for years."""
    await parser.parse(["warm up"])
    before = len(parser._pipeline.vocab.strings)
    await parser.parse([f"zq{n}x met vw{n}y." for n in range(200)])
    assert len(parser._pipeline.vocab.strings) == before


@pytest.mark.models
def test_it_needs_no_torch(models_dir: Path) -> None:
    """Nor does loading warn."""
    code = (
        "import sys; from pathlib import Path; from neuroedge.runtimes import entities;"
        f"entities.load('m', Path({str(models_dir / MODEL)!r}), threads=1, options={{}}).close();"
        "assert 'torch' not in sys.modules and 'tensorflow' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("content", [None, "", "[nlp]\nlang = 'xx'\npipeline = ['nowhere']\n"])
async def test_a_folder_that_is_no_pipeline_is_named(tmp_path: Path, content: str | None) -> None:
    """With the command that mends it."""
    if content is not None:
        (tmp_path / "config.cfg").write_text(content)
        (tmp_path / "meta.json").write_text("{}")
    with pytest.raises(ModelUnavailable) as caught:
        entities.load("broken", tmp_path, threads=1, options={})
    assert "broken" in caught.value.detail
    assert "models verify broken" in str(caught.value.hint)


async def test_a_pipeline_without_names_is_refused(tmp_path: Path) -> None:
    """Rather at loading than with empty answers."""
    import spacy

    spacy.blank("en").to_disk(tmp_path / "blank")
    with pytest.raises(ModelUnavailable, match="ner"):
        entities.load("blank", tmp_path / "blank", threads=1, options={})
