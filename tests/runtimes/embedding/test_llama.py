"""GGUF encoders: a tiny Qwen3 against its computation in numpy, and files that are none."""

import asyncio
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neuroedge.contract.errors import ModelUnavailable
from neuroedge.runtimes import text_encoder
from neuroedge.runtimes.embedding.backend import Backend, open_backend
from tests.runtimes.embedding.tiny_models import unit

pytest.importorskip("gguf")

from tests.runtimes.embedding.gguf_models import END, TinyQwen3

MODEL = TinyQwen3()
TEXTS = ["a", "hello", "Instruct: find it\nQuery:what is up?", "ü"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny Qwen3."""
    made = tmp_path_factory.mktemp("qwen3")
    MODEL.write(made / "model.gguf")
    return made


def opened(folder: Path, **options: Any) -> Backend:
    """The encoder in `folder`."""
    return open_backend("m", folder, threads=1, options={"pooling": "last", **options})


@pytest.fixture(scope="module")
def encoder(folder: Path) -> Iterator[Backend]:
    """The tiny Qwen3, pooled at its last token."""
    backend = opened(folder, max_tokens=64)
    yield backend
    backend.close()


def expected(ids: list[int]) -> Any:
    """Numpy's answer for one text."""
    return unit(MODEL.states(ids)[-1])


def test_texts_end_with_the_end_token(encoder: Backend) -> None:
    """The file says so, and a cut keeps it; an empty text is that token alone."""
    assert encoder.tokenise(["ab", ""]) == [[ord("a"), ord("b"), END], [END]]
    (long,) = encoder.tokenise(["a" * 10_000])
    assert len(long) == encoder.max_tokens == 64
    assert long[-1] == END


def test_the_last_tokens_state_is_the_vector(encoder: Backend) -> None:
    """As numpy computes it."""
    ids = encoder.tokenise(TEXTS)
    assert encoder.name == "llama.cpp"
    assert encoder.dim == MODEL.dim
    assert encoder.forward(ids) == pytest.approx(np.stack([expected(i) for i in ids]), abs=2e-3)


def test_alone_and_batched_agree(encoder: Backend) -> None:
    """More texts than llama.cpp computes together, in the order given."""
    ids = encoder.tokenise([f"text number {i} " * (1 + i % 3) for i in range(40)])
    together = encoder.forward(ids)
    alone = np.concatenate([encoder.forward([i]) for i in ids])
    assert np.abs(together - alone).max() < 1e-3


def test_fewer_dimensions_are_normalised_anew(folder: Path) -> None:
    """Matryoshka, as Qwen3-Embedding allows from 32 to 1024 dimensions."""
    backend = opened(folder, dims=8)
    (vector,) = backend.forward(backend.tokenise(["hello"]))
    assert backend.dim == 8
    assert vector == pytest.approx(unit(MODEL.states(backend.tokenise(["hello"])[0])[-1][:8]), abs=2e-3)
    backend.close()


def test_the_end_token_is_appended_where_the_file_does_not_ask_for_it(folder: Path, tmp_path: Path) -> None:
    """By its name, once."""
    data = (folder / "model.gguf").read_bytes()
    key = b"tokenizer.ggml.add_eos_token"
    at = data.index(key) + len(key) + 4
    (tmp_path / "model.gguf").write_bytes(data[:at] + b"\x00" + data[at + 1 :])
    without = opened(tmp_path)
    assert without.tokenise(["a"])[0][-1] != END
    without.close()
    backend = opened(tmp_path, append_token="<|endoftext|>")
    assert backend.tokenise(["a", ""]) == [[ord("a"), END], [END]]
    backend.close()


def test_the_files_own_pooling_is_used_unless_another_is_asked_for(folder: Path, encoder: Backend) -> None:
    """The file says: the last token. The mean is another vector."""
    ids = encoder.tokenise(["hello"])
    for pooling, state in ((None, MODEL.states(ids[0])[-1]), ("mean", MODEL.states(ids[0]).mean(axis=0))):
        backend = open_backend("m", folder, threads=1, options={"pooling": pooling})
        assert backend.forward(ids)[0] == pytest.approx(unit(state), abs=2e-3)
        backend.close()


def test_a_file_without_a_pooling_asks_for_the_option(folder: Path, tmp_path: Path) -> None:
    """A generating model gives a vector for each token, which is no embedding."""
    data = (folder / "model.gguf").read_bytes()
    (tmp_path / "model.gguf").write_bytes(data.replace(b"qwen3.pooling_type", b"qwen3.pooling_none"))
    with pytest.raises(ModelUnavailable) as caught:
        open_backend("m", tmp_path, threads=1, options={})
    assert "pooling" in str(caught.value.hint)
    backend = opened(tmp_path)
    assert backend.dim == MODEL.dim
    backend.close()


def test_texts_as_long_as_the_limit_follow_each_other(encoder: Backend) -> None:
    """More tokens in a call, and one call after another, than the context holds; the vectors stay right."""
    ids = encoder.tokenise([f"{i} " * 100 for i in range(12)])
    assert {len(i) for i in ids} == {encoder.max_tokens}
    for _ in range(3):
        vectors = encoder.forward(ids)
    assert vectors == pytest.approx(np.stack([expected(i) for i in ids]), abs=5e-3)


@pytest.mark.parametrize("kept", [0, 100, 20_000])
def test_a_truncated_file_is_reported_with_the_remedy(folder: Path, tmp_path: Path, kept: int) -> None:
    """Empty, cut in its header, cut in its weights."""
    (tmp_path / "model.gguf").write_bytes((folder / "model.gguf").read_bytes()[:kept])
    with pytest.raises(ModelUnavailable) as caught:
        opened(tmp_path)
    assert "models verify m" in str(caught.value.hint)


def test_a_backend_that_cannot_read_the_file_is_refused(folder: Path, tmp_path: Path) -> None:
    """With what could."""
    shutil.copy(folder / "model.gguf", tmp_path)
    with pytest.raises(ModelUnavailable) as caught:
        opened(tmp_path, backend="onnxruntime")
    assert "llama.cpp" in str(caught.value.hint)


@pytest.mark.anyio
async def test_a_page_is_not_tokenised_on_the_event_loop(folder: Path) -> None:
    """llama.cpp's own server is asked, text by text: others must not wait for that."""
    encoder = text_encoder.load("m", folder, threads=1, options={"pooling": "last", "max_tokens": 64})
    try:
        threads: set[str] = set()
        tokenise = encoder._tokenise

        def noted(texts: list[str]) -> list[list[int]]:
            threads.add(threading.current_thread().name)
            return tokenise(texts)

        encoder._tokenise = noted  # type: ignore[method-assign]
        await encoder.encode(["a b"])
        assert threading.main_thread().name not in threads
    finally:
        await asyncio.to_thread(encoder.close)
