"""Texts to token ids with a Hugging Face tokenizer.json."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from neuroedge.contract.errors import ModelUnavailable
from neuroedge.runtimes.embedding.layout import EncoderOptions


class Tokens:
    """The tokenizer of one encoder; may be called from several threads."""

    def __init__(self, tokenizer: Any, options: EncoderOptions) -> None:
        self.pad_id = int((tokenizer.padding or {}).get("pad_id", 0))
        # The file may ask for padding to a fixed length: batches are padded elsewhere, to their longest text only.
        tokenizer.no_padding()
        self._last = None if options.append_token is None else tokenizer.token_to_id(options.append_token)
        if options.append_token is not None and self._last is None:
            raise ValueError(f"the tokenizer has no token {options.append_token!r}")
        self._max_tokens = options.max_tokens
        tokenizer.enable_truncation(options.max_tokens)
        self._tokenizer = tokenizer

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids with special tokens, at least one, cut at `max_tokens` so that the special tokens stay."""
        return [self._ended(encoding.ids) for encoding in self._tokenizer.encode_batch_fast(list(texts))]

    def _ended(self, ids: list[int]) -> list[int]:
        if self._last is None:
            return ids or [self.pad_id]
        if ids and ids[-1] == self._last:
            return ids
        return [*ids[: self._max_tokens - 1], self._last]


def read(model_id: str, folder: Path, options: EncoderOptions) -> Tokens:
    """Read folder/tokenizer.json. Raises ModelUnavailable."""
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    hint = f"run `neuroedge models verify {model_id}`"
    if not path.is_file():
        raise ModelUnavailable(f"{model_id}: tokenizer.json is missing", hint=hint)
    try:
        return Tokens(Tokenizer.from_file(str(path)), options)
    except Exception as error:  # the library raises bare exceptions of its own
        raise ModelUnavailable(f"{model_id}: tokenizer.json does not load: {error}", hint=hint) from error
