"""GGUF rerankers through llama.cpp, on a tiny BERT with random weights, and files that are none."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from neuroedge.contract.errors import ModelUnavailable
from neuroedge.runtimes.reranking.gguf import GgufReranker, load

pytest.importorskip("gguf")

from tests.runtimes.reranking.gguf_reranker import write_reranker

pytestmark = pytest.mark.anyio
OPTIONS = {"max_tokens": 32, "template_tokens": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny reranker."""
    made = tmp_path_factory.mktemp("reranker")
    write_reranker(made / "model.gguf")
    return made


@pytest.fixture(scope="module")
def reranker(folder: Path) -> Iterator[GgufReranker]:
    """The tiny reranker."""
    loaded = load("m", folder, threads=1, options=OPTIONS)
    yield loaded
    loaded.close()


async def test_each_passage_gets_its_score_whatever_stands_beside_it(reranker: GgufReranker) -> None:
    """In the order given, more passages than llama.cpp computes together, and different ones differ."""
    passages = [f"w{i} w{i + 1}" for i in range(18)]
    scores = await reranker.score("w1 w2", passages)
    alone = [float((await reranker.score("w1 w2", [passage]))[0]) for passage in passages]
    assert scores == pytest.approx(alone, abs=1e-3)
    assert len({round(score, 4) for score in alone}) > 9
    assert all(0 < score < 1 for score in alone)


async def test_the_query_counts(reranker: GgufReranker) -> None:
    """The model reads both texts together."""
    first, second = [float((await reranker.score(query, ["w1 w2"]))[0]) for query in ("w3", "w9 w8")]
    assert first != pytest.approx(second, abs=1e-4)


async def test_a_long_passage_loses_its_end_and_a_long_query_leaves_half(reranker: GgufReranker) -> None:
    """28 tokens beside the template: a query of 3 leaves 25, a query of 100 takes 14."""
    whole = " ".join(f"w{i % 20}" for i in range(25))
    long, cut = await reranker.score("w1 w2 w3", [f"{whole} w7 w8 w9 " * 9, whole])
    assert long == pytest.approx(cut, abs=1e-5)
    by_long, by_cut = [await reranker.score("w5 " * n, ["w1"]) for n in (100, 14)]
    assert by_long == pytest.approx(by_cut, abs=1e-5)


async def test_no_passages_no_scores(reranker: GgufReranker) -> None:
    """Nothing is asked of the model."""
    assert (await reranker.score("w1", [])).shape == (0,)


@pytest.mark.parametrize("kept", [None, 0, 100])
def test_a_missing_or_truncated_file_is_reported_with_the_remedy(
    folder: Path, tmp_path: Path, kept: int | None
) -> None:
    """Not there, empty, cut in its header."""
    if kept is not None:
        (tmp_path / "model.gguf").write_bytes((folder / "model.gguf").read_bytes()[:kept])
    with pytest.raises(ModelUnavailable) as caught:
        load("m", tmp_path, threads=1, options=OPTIONS)
    assert "models verify m" in str(caught.value.hint)


def test_an_encoder_without_a_ranking_head_is_refused(tmp_path: Path) -> None:
    """llama.cpp would load it and give numbers that mean nothing."""
    write_reranker(tmp_path / "model.gguf", head=False)
    with pytest.raises(ModelUnavailable, match="no ranking head"):
        load("m", tmp_path, threads=1, options=OPTIONS)


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (0, b"GGML"),
        (4, b"\x09\0\0\0"),  # version
        (16, b"\xff" * 8),  # number of pairs
        (24, b"\xff" * 8),  # length of the first key
        (24 + 8 + len("general.architecture"), b"\x63\0\0\0"),  # type of its value
    ],
)
def test_a_damaged_header_is_reported(folder: Path, tmp_path: Path, at: int, value: bytes) -> None:
    """Nothing is read beyond the end of the file."""
    data = bytearray((folder / "model.gguf").read_bytes())
    data[at : at + len(value)] = value
    (tmp_path / "model.gguf").write_bytes(data)
    with pytest.raises(ModelUnavailable, match="does not load"):
        load("m", tmp_path, threads=1, options=OPTIONS)
