"""What clients sign (Ed25519): each message names its federation, round, client and kind, so none fits elsewhere."""

import hashlib
from typing import Any, Final

KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
_DOMAIN: Final = "neuroedge federated 1"


def signed_text(*, federation_id: str, round_id: str, client_id: str, kind: str, samples: int, payload: bytes) -> bytes:
    """The bytes a signature is over."""
    parts = [_DOMAIN, federation_id, round_id, client_id, kind, str(samples), hashlib.sha256(payload).hexdigest()]
    return "\n".join(parts).encode()


def new_private_key() -> bytes:
    """A fresh key (32 bytes); it stays with the client."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return bytes(Ed25519PrivateKey.generate().private_bytes_raw())


def public_key_of(private_key: bytes) -> bytes:
    """What the federation's owner registers."""
    return bytes(_private(private_key).public_key().public_bytes_raw())


def sign(private_key: bytes, text: bytes) -> bytes:
    """64 bytes."""
    return bytes(_private(private_key).sign(text))


def genuine(public_key: bytes, signature: bytes, text: bytes) -> bool:
    """Whether the key's holder signed the text."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, text)
    except (InvalidSignature, ValueError):
        return False
    return True


def _private(key: bytes) -> Any:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(key)
