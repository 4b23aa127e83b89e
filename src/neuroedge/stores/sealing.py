"""How rows are sealed: where each value belongs, and which keyed hashes stand beside it for searching.

The context of a seal names table and row, so that a sealed value copied to another row does not open there.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from neuroedge.contract.vault import Cipher
from neuroedge.kit.bm25 import document_weights
from neuroedge.kit.words import words

TERMS: Final = 1_000_000_000
"""Dimensions of a sparse vector, the most pgvector allows: a word's keyed hash modulo this is its index."""
MAX_TERMS: Final = 16_000
"""Different words of one row, the most a sparse vector holds."""


def memory(memory_id: UUID) -> str:
    """Context of a memory."""
    return f"memories/{memory_id}"


def recording(recording_id: UUID) -> str:
    """Context of a recording's own texts."""
    return f"recordings/{recording_id}"


def segment(segment_id: UUID) -> str:
    """Context of a segment."""
    return f"segments/{segment_id}"


def step(recording_id: UUID, name: str) -> str:
    """Context of a step's output."""
    return f"recording_steps/{recording_id}/{name}"


def task(task_id: UUID, part: str) -> str:
    """Context of a task's payload or result."""
    return f"tasks/{task_id}/{part}"


def text(data: bytes) -> str:
    """Any bytes as a text that can be sealed: they may hold what is no UTF-8."""
    return data.decode("latin-1")


def plain(sealed_text: str) -> bytes:
    """The bytes `text` was given."""
    return sealed_text.encode("latin-1")


def content_mac(cipher: Cipher, content: str) -> int:
    """Equal for equal contents of one organisation."""
    return cipher.blind(f"content:{content}")


def facets(cipher: Cipher, *, tags: Iterable[str], metadata: Mapping[str, Any], source: str | None) -> list[int]:
    """Keyed hashes of what a search can be restricted to: each tag, each scalar of the metadata, the source."""
    named = [f"tag:{tag}" for tag in tags]
    named += [f"meta:{key}={json.dumps(value)}" for key, value in metadata.items() if _scalar(value)]
    named += [f"source:{source}"] if source else []
    return sorted({cipher.blind(name) for name in named})


def _scalar(value: Any) -> bool:
    return isinstance(value, str | int | float | bool)


@dataclass(frozen=True, slots=True)
class Weights:
    """A row's words as the database keeps them: keyed hashes with their BM25 weight."""

    length: int
    weight: dict[int, float]

    @property
    def term_ids(self) -> list[int]:
        """The hashes, ascending."""
        return sorted(self.weight)

    def text(self) -> str:
        """The sparse vector as PostgreSQL reads it."""
        return sparse_text(self.weight)


class Words:
    """The words of several rows, hashed."""

    def __init__(self, terms: Sequence[list[int]]) -> None:
        self._terms = terms

    @classmethod
    def of(cls, texts: Iterable[str], cipher: Cipher) -> "Words":
        """Analyse and hash."""
        return cls([terms(text, cipher) for text in texts])

    def total(self) -> int:
        """Words of all rows, repeated ones repeated."""
        return sum(map(len, self._terms))

    def average_length(self) -> float:
        """Words of a row on average; 0 without rows."""
        return self.total() / len(self._terms) if self._terms else 0.0

    def containing(self) -> Counter[int]:
        """Of each word, how many rows hold it."""
        return Counter(term for row in self._terms for term in set(row))

    def weights(self, *, average_length: float) -> list[Weights]:
        """Of each row."""
        return [Weights(len(row), document_weights(row, average_length=average_length)) for row in self._terms]


def terms(text: str, cipher: Cipher) -> list[int]:
    """Keyed hashes of the words of a text, in order, 1 to TERMS - 1; of the first MAX_TERMS different words only."""
    hashed = [1 + cipher.blind(f"word:{word}") % (TERMS - 1) for word in words(text)]
    kept = dict.fromkeys(hashed)
    if len(kept) > MAX_TERMS:
        allowed = set(list(kept)[:MAX_TERMS])
        hashed = [term for term in hashed if term in allowed]
    return hashed


def sparse_text(weight: Mapping[int, float]) -> str:
    """A sparse vector as PostgreSQL reads it: indices from 1."""
    inner = ",".join(f"{term}:{value:.6g}" for term, value in sorted(weight.items()))
    return f"{{{inner}}}/{TERMS}"
