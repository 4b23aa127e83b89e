"""What is derived from memories so that they can be found, and the types it is not derived from.

Embeddings, and keyed hashes of words, say something about a text to whoever holds the database (docs/security.md). An
operator can name types of memories that must not be found by one or the other: their rows then have none.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

ALL_TYPES: Final = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class Underived:
    """Types of memories without embedding, and without words; "*" is every type."""

    embedding: Collection[str] = ()
    words: Collection[str] = ()

    def embeds(self, memory_type: str) -> bool:
        """Whether memories of this type are found by their meaning."""
        return not _names(self.embedding, memory_type)

    def hashes(self, memory_type: str) -> bool:
        """Whether memories of this type are found by their words."""
        return not _names(self.words, memory_type)


def _names(types: Collection[str], memory_type: str) -> bool:
    return memory_type in types or ALL_TYPES in types
