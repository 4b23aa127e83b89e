"""Chunks: nothing lost, nothing too long, structure kept."""

import itertools

import pytest

from neuroedge.kit.chunking import Block, Chunk, chunks, estimated_tokens

WORDS = [f"word{n}" for n in range(1000)]


def _words(text: str) -> int:
    return len(text.split())


def _cut(blocks: list[Block], *, capacity: int = 40, overlap: int = 8) -> list[Chunk]:
    return list(chunks(blocks, capacity_tokens=capacity, overlap_tokens=overlap, count_tokens=_words))


def _paragraph(text: str, page: int | None = None) -> Block:
    return Block(type="paragraph", text=text, page=page)


def _heading(text: str, level: int, page: int | None = None) -> Block:
    return Block(type="heading", text=text, level=level, page=page)


def test_nothing_is_lost_and_no_chunk_is_too_long() -> None:
    """Every word of a text of many chunks is there, in order; each chunk with its path fits."""
    found = _cut([_heading("Top", 1), _heading("Sub", 2), _paragraph(" ".join(WORDS))])
    assert len(found) > 20
    seen = [word for chunk in found for word in chunk.text.split()]
    assert list(dict.fromkeys(seen)) == WORDS
    assert all(_words(chunk.embedded) <= 40 for chunk in found)
    assert {chunk.heading_path for chunk in found} == {("Top", "Sub")}
    assert [chunk.position for chunk in found] == list(range(len(found)))


def test_neighbouring_chunks_overlap() -> None:
    """The end of a chunk is the beginning of the next, so that a sentence across the cut is found."""
    found = _cut([_paragraph(". ".join(" ".join(WORDS[n : n + 4]) for n in range(0, 200, 4)))])
    for before, after in itertools.pairwise(found):
        assert set(before.text.replace(".", "").split()) & set(after.text.replace(".", "").split())
    alone = _cut([_paragraph(" ".join(WORDS[:200]))], overlap=0)
    assert sum(_words(chunk.text) for chunk in alone) == 200


def test_pages_are_those_of_the_text() -> None:
    """A chunk over two pages names both; one on a single page names that."""
    found = _cut([_paragraph(" ".join(WORDS[n * 50 : n * 50 + 50]), page=n + 1) for n in range(3)], overlap=0)
    assert found[0].first_page == found[0].last_page == 1
    assert found[-1].last_page == 3
    pages = [(chunk.first_page or 0, chunk.last_page or 0) for chunk in found]
    assert all(first <= last for first, last in pages)
    for chunk in found:
        first_word, last_word = chunk.text.split()[0], chunk.text.split()[-1]
        assert chunk.first_page == int(first_word.removeprefix("word")) // 50 + 1
        assert chunk.last_page == int(last_word.removeprefix("word")) // 50 + 1


def test_small_sections_share_a_chunk_under_their_common_heading() -> None:
    """Three short sections become one chunk; their own headings stay in the text."""
    found = _cut([_heading("Pumps", 1), *[b for n in "abc" for b in (_heading(n, 2), _paragraph(f"text of {n}"))]])
    assert len(found) == 1
    assert found[0].heading_path == ("Pumps",)
    assert "## b\n\ntext of b" in found[0].text


def test_a_table_that_fits_stays_whole() -> None:
    """A table between long paragraphs is not torn apart, though a cut inside it would fill chunks better."""
    table = "| a | b |\n| --- | --- |\n| 1 | 2 |\n| 3 | 4 |"
    long = " ".join(WORDS[:33])
    found = _cut([_paragraph(long), Block(type="table", text=table), _paragraph(long)])
    assert table in [chunk.text for chunk in found]


def test_a_long_table_repeats_its_header() -> None:
    """Cut between rows, each part under the header row, no row lost."""
    rows = [f"| part{n} | {n} |" for n in range(50)]
    found = _cut([Block(type="table", text="\n".join(["| part | count |", "| --- | --- |", *rows]), page=7)])
    assert len(found) > 5
    assert all(chunk.text.startswith("| part | count |\n| --- | --- |\n") for chunk in found)
    assert [line for chunk in found for line in chunk.text.split("\n")[2:]] == rows
    assert {chunk.first_page for chunk in found} == {7}


def test_a_row_and_a_header_longer_than_a_chunk_are_cut_too() -> None:
    """Nothing is too long to be stored."""
    wide = "| " + " ".join(WORDS[:100]) + " |"
    found = _cut([Block(type="table", text=f"| a |\n| --- |\n{wide}\n| x |")])
    assert all(_words(chunk.text) <= 40 for chunk in found)
    found = _cut([Block(type="table", text=f"{wide}\n| --- |\n| y |\n| x |")])
    assert all(_words(chunk.text) <= 40 for chunk in found)
    assert {"y", "x", "word99"} <= {word for chunk in found for word in chunk.text.split()}


def test_a_heading_without_text_is_kept() -> None:
    """The last heading, and one followed by its equal, hold no text: they are text themselves."""
    text = "\n".join(chunk.embedded for chunk in _cut([_heading("One", 1), _heading("Two", 1), _heading("Three", 2)]))
    assert all(title in text for title in ("One", "Two", "Three"))


def test_empty_blocks_make_no_chunk() -> None:
    """Nothing in, nothing out."""
    assert _cut([]) == []
    assert _cut([_paragraph(" \n "), _heading("", 1)]) == []


@pytest.mark.parametrize(("capacity", "overlap"), [(15, 0), (40, 20), (40, -1)])
def test_impossible_sizes_are_refused(capacity: int, overlap: int) -> None:
    """An overlap of half a chunk would never come to an end."""
    with pytest.raises(ValueError, match="capacity"):
        _cut([_paragraph("x")], capacity=capacity, overlap=overlap)


def test_the_estimate_is_near_a_subword_tokenizer() -> None:
    """Words by five letters, digits by two, other scripts and marks by one."""
    assert estimated_tokens("The pump, 1234!") == 6
    assert estimated_tokens("水泵") == 2
    assert estimated_tokens("") == 0
