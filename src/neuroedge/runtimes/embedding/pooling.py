"""From token ids to a padded batch, and from token states to one unit vector a text."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from neuroedge.contract.models import Floats
from neuroedge.runtimes.embedding.layout import Pooling

Integers = NDArray[np.int64]


def pad(ids: Sequence[Sequence[int]], *, pad_id: int) -> tuple[Integers, Integers]:
    """Ids and mask [n, longest], filled up on the right; so a causal model's last token is the last unmasked one."""
    width = max(len(i) for i in ids)
    padded = np.full((len(ids), width), pad_id, np.int64)
    mask = np.zeros_like(padded)
    for row, tokens in enumerate(ids):
        padded[row, : len(tokens)] = tokens
        mask[row, : len(tokens)] = 1
    return padded, mask


def pool(states: Floats, mask: Integers, pooling: Pooling) -> Floats:
    """One vector a text [n, dim] from token states [n, tokens, dim] of a batch padded on the right."""
    if pooling == "cls":
        return states[:, 0]
    if pooling == "last":
        last: Floats = states[np.arange(len(states)), mask.sum(axis=1) - 1]
        return last
    weights = mask[..., None].astype(np.float32)
    mean: Floats = (states * weights).sum(axis=1) / np.maximum(weights.sum(axis=1), 1.0)
    return mean


def unit(vectors: Floats, *, dims: int | None = None) -> Floats:
    """The first `dims` dimensions, L2-normalised, as float32."""
    kept = np.asarray(vectors[:, :dims], np.float32)
    norms = np.linalg.norm(kept, axis=1, keepdims=True)
    return np.asarray(kept / np.maximum(norms, 1e-12), np.float32)
