"""Late interaction (Khattab & Zaharia 2020, ColBERT): a passage answers when it holds a match for each query token."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from neuroedge.kit.waveform import Floats

READ_CHARS: Final = 384


def read_part(passage: str) -> str:
    """Its first READ_CHARS characters, without a word that would be cut in two: what is worth computing states of.

    Beside BM25 and the cosine of the whole text, which it is combined with, the beginning orders passages as well as
    all of it does (benchmarks/retrieval_quality.py), at less than half of the tokens.
    """
    if len(passage) <= READ_CHARS or passage[READ_CHARS].isspace():
        return passage[:READ_CHARS]
    whole_words = passage[:READ_CHARS].rsplit(maxsplit=1)
    return passage[:READ_CHARS] if len(whole_words) < 2 else whole_words[0]


def max_sim(query: Floats, passages: Sequence[Floats]) -> Floats:
    """Score of each passage, float32 [len(passages)], -1 to 1: the mean over query tokens of their best cosine.

    `query` [tokens, width] and each of `passages` hold L2-normalised token states without special tokens. A passage
    without a token scores -1, any passage for a query without a token 0.
    """
    scores = [_best(query, passage) for passage in passages]
    return np.asarray(scores, np.float32)


def _best(query: Floats, passage: Floats) -> float:
    if not len(passage):
        return -1.0
    return float((query @ passage.T).max(axis=1).mean()) if len(query) else 0.0
