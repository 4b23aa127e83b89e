"""A query with each of its passages as token ids, in the template a cross-encoder was trained with."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from neuroedge.contract.errors import ModelUnavailable
from neuroedge.runtimes.embedding.pooling import Integers

Pair = list[int]
"""2 * id + segment for each token: the segment (0 query, 1 passage where the template tells them apart) travels in the
lowest bit, so that a pair queues and is batched like any other sequence of numbers."""


class PairTokens:
    """The tokenizer of one cross-encoder; for one thread at a time."""

    def __init__(self, model_id: str, folder: Path, *, max_tokens: int) -> None:
        """Read folder/tokenizer.json. Raises ModelUnavailable."""
        from tokenizers import Tokenizer

        path = folder / "tokenizer.json"
        hint = f"run `neuroedge models verify {model_id}`"
        if not path.is_file():
            raise ModelUnavailable(f"{model_id}: tokenizer.json is missing", hint=hint)
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare exceptions of its own
            raise ModelUnavailable(f"{model_id}: tokenizer.json does not load: {error}", hint=hint) from error
        self.pad_id = int((self._tokenizer.padding or {}).get("pad_id", 0))
        # The file may ask for padding to a fixed length: batches are padded elsewhere, to their longest pair only.
        self._tokenizer.no_padding()
        special = self._tokenizer.num_special_tokens_to_add(is_pair=True)
        self._max_query_tokens = max(1, (max_tokens - special) // 2)
        self._max_tokens = max_tokens

    def __call__(self, query: str, passages: Sequence[str]) -> list[Pair]:
        """Pairs of at most `max_tokens`: what is too long loses the passage's end.

        A query is cut only where it alone would take more than half of the tokens.
        """
        asked = self._cut(query)
        self._tokenizer.enable_truncation(self._max_tokens, strategy="only_second")
        encoded = self._tokenizer.encode_batch([(asked, passage) for passage in passages])
        return [
            [2 * token + segment for token, segment in zip(pair.ids, pair.type_ids, strict=True)] for pair in encoded
        ]

    def _cut(self, query: str) -> str:
        # The strategy for pairs fails on a text alone.
        self._tokenizer.no_truncation()
        ends = [end for _, end in self._tokenizer.encode(query, add_special_tokens=False).offsets]
        return query if len(ends) <= self._max_query_tokens else query[: ends[self._max_query_tokens - 1]]


def segments(padded: Integers) -> tuple[Integers, Integers]:
    """Token ids and segments of a padded batch of pairs."""
    return np.asarray(padded >> 1), np.asarray(padded & 1)
