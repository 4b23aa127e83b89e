"""Late interaction (Khattab & Zaharia 2020, ColBERT): a passage answers when it holds a match for each query token."""

from collections.abc import Sequence

import numpy as np

from neuroedge.kit.waveform import Floats


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
