"""A text encoder without weights: words hashed into a vector, so texts with common words are near."""

import zlib
from collections.abc import Sequence
from typing import Literal

import numpy as np

from neuroedge.contract.models import Embeddings


class HashedWords:
    """TextEncoder over a bag of hashed words."""

    model_id = "hashed-words"
    dim = 64
    max_tokens = 256

    async def encode(self, texts: Sequence[str], *, kind: Literal["query", "passage"] = "passage") -> Embeddings:
        """Unit vectors [len(texts), 64]."""
        vectors = np.full((len(texts), self.dim), 1e-3, np.float32)
        for row, text in zip(vectors, texts, strict=True):
            for word in text.lower().replace(".", " ").replace("?", " ").split():
                row[zlib.crc32(word.encode()) % self.dim] += 1.0
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return Embeddings(vectors=vectors, tokens=[len(text.split()) for text in texts])
