"""Shamir's secret sharing (1979) of secrets of up to 64 bytes, over the integers modulo the prime 2^521 - 1.

Any `threshold` shares give the secret, fewer say nothing about it. Coefficients come from the operating system's
generator. Arithmetic is Python's and takes no constant time: use it where no other process can time it.
"""

import secrets
from collections.abc import Mapping
from typing import Final

PRIME: Final = 2**521 - 1
SHARE_BYTES: Final = 66
_MAX_SECRET_BYTES: Final = 64


def split(secret: bytes, *, threshold: int, holders: int) -> dict[int, bytes]:
    """Shares for the holders 1..n."""
    if not 1 <= threshold <= holders or len(secret) > _MAX_SECRET_BYTES:
        raise ValueError("a secret of up to 64 bytes is split among at least `threshold` holders")
    coefficients = [int.from_bytes(secret, "big"), *(secrets.randbelow(PRIME) for _ in range(threshold - 1))]
    shares = {}
    for x in range(1, holders + 1):
        value = 0
        for coefficient in reversed(coefficients):
            value = (value * x + coefficient) % PRIME
        shares[x] = value.to_bytes(SHARE_BYTES, "big")
    return shares


def join(shares: Mapping[int, bytes], *, size: int) -> bytes:
    """The secret of `size` bytes from at least the threshold of its shares. Raises ValueError where they do not fit."""
    points = {x: int.from_bytes(share, "big") for x, share in shares.items()}
    if not points or any(x < 1 or y >= PRIME for x, y in points.items()):
        raise ValueError("these are no shares")
    secret = 0
    for x, y in points.items():
        above, below = 1, 1
        for other in points:
            if other != x:
                above = above * other % PRIME
                below = below * (other - x) % PRIME
        secret = (secret + y * above * pow(below, -1, PRIME)) % PRIME
    if secret >= 1 << (8 * size):
        raise ValueError("the shares do not belong together, or are too few")
    return secret.to_bytes(size, "big")
