"""What stores may do with an organisation's keys, without ever seeing them."""

from pathlib import Path
from typing import Any, Protocol


class Cipher(Protocol):
    """Encrypts and hashes for one organisation. `context` binds a value to its place, such as "memories/<id>"."""

    def seal(self, value: Any, context: str) -> bytes:
        """Encrypt a JSON value. Raises InvalidInput for what JSON cannot hold."""
        ...

    def open(self, sealed: bytes, context: str) -> Any:
        """The value `seal` was given. Raises SealBroken when it was changed, moved or sealed with another key."""
        ...

    def blind(self, text: str) -> int:
        """Keyed hash, 63 bits: equal texts of one organisation have equal hashes, and no other's are comparable.

        Raises InvalidInput for half a surrogate pair, which is no text.
        """
        ...

    def seal_file(self, source: Path, target: Path, context: str) -> None:
        """Encrypt a file of any size into another one (blocking)."""
        ...

    def open_bytes(self, sealed: bytes, context: str) -> bytes:
        """What `seal_file` encrypted (blocking). Raises SealBroken."""
        ...

    def open_file(self, sealed: Path, target: Path, context: str) -> None:
        """Decrypt what `seal_file` wrote, of any size, into another file (blocking). Raises SealBroken."""
        ...


class Keys(Protocol):
    """The master key, which wraps the keys of every organisation."""

    def new(self, context: str) -> bytes:
        """Keys of a new organisation, wrapped."""
        ...

    def cipher(self, wrapped: bytes, context: str) -> Cipher:
        """Unwrap (blocking: a key management service is asked). Raises VaultLocked."""
        ...

    def add(self, wrapped: bytes, context: str) -> bytes:
        """The same keys with one more for content, not used yet: every process must know it before it is."""
        ...

    def promote(self, wrapped: bytes, context: str) -> bytes:
        """The same keys, content sealed with the newest from now on."""
        ...

    def retire(self, wrapped: bytes, context: str) -> bytes:
        """The same keys without the ones no content is sealed with any more."""
        ...

    def rewrap(self, wrapped: bytes, context: str) -> bytes:
        """The same keys, wrapped by the present master key."""
        ...
