"""Texts to token ids: special tokens, ends, cuts, and files that are no tokenizer."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer

from neuroedge.contract.errors import ModelUnavailable
from neuroedge.runtimes.embedding.layout import EncoderOptions
from neuroedge.runtimes.embedding.tokens import Tokens, read
from tests.runtimes.embedding.tiny_models import WORDS, write_tokenizer


def tokens(folder: Path, *, special: bool = True, **options: object) -> Tokens:
    """The tiny tokenizer."""
    write_tokenizer(folder, special=special)
    return read("m", folder, EncoderOptions.parse("m", options))


def words(ids: list[int]) -> str:
    """Ids as text."""
    return " ".join(WORDS[i] for i in ids)


def test_a_long_text_is_cut_and_keeps_its_special_tokens(tmp_path: Path) -> None:
    """The limit counts all tokens; a text of ten thousand words is no trouble."""
    long, short = tokens(tmp_path, max_tokens=4)(["w1 " * 10_000, "w2"])
    assert words(long) == "[CLS] w1 w1 [SEP]"
    assert words(short) == "[CLS] w2 [SEP]"


def test_an_empty_text_still_has_a_token(tmp_path: Path) -> None:
    """Pooling over nothing has no answer."""
    assert [words(i) for i in tokens(tmp_path)(["", " "])] == ["[CLS] [SEP]"] * 2
    assert [words(i) for i in tokens(tmp_path, special=False)(["", "w1"])] == ["[PAD]", "w1"]


def test_the_end_token_is_appended_once_and_survives_a_cut(tmp_path: Path) -> None:
    """Last-token pooling reads the state of this token, so it must always be there."""
    tokenise = tokens(tmp_path, special=False, append_token="<end>", max_tokens=3)
    assert [words(i) for i in tokenise(["w1", "w1 w2 w3 w4", "w5 <end>", ""])] == [
        "w1 <end>",
        "w1 w2 <end>",
        "w5 <end>",
        "<end>",
    ]


def test_padding_that_the_file_asks_for_is_taken_out_but_its_id_kept(tmp_path: Path) -> None:
    """Files exported for fixed shapes pad every text to the longest they know."""
    write_tokenizer(tmp_path)
    file = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    file.enable_padding(pad_id=3, pad_token="[UNK]", length=16)
    file.save(str(tmp_path / "tokenizer.json"))
    read_back = read("m", tmp_path, EncoderOptions())
    assert words(read_back(["w1"])[0]) == "[CLS] w1 [SEP]"
    assert read_back.pad_id == 3


@pytest.mark.parametrize("content", [None, "", "{}", "[1, 2]", '{"version": "1.0", "model":'], ids=repr)
def test_a_file_that_is_no_tokenizer_is_reported_with_the_remedy(tmp_path: Path, content: str | None) -> None:
    """Missing, empty, of another kind, cut off."""
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ModelUnavailable, match=r"tokenizer\.json") as caught:
        read("m", tmp_path, EncoderOptions())
    assert "models verify m" in str(caught.value.hint)


def test_an_end_token_the_vocabulary_lacks_is_refused(tmp_path: Path) -> None:
    """Appending nothing would silently pool another state."""
    with pytest.raises(ModelUnavailable, match="<eos>"):
        tokens(tmp_path, append_token="<eos>")
