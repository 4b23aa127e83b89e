"""Shamir's secret sharing (1979) of 16 bytes, by pycryptodome over GF(2^128).

Any `threshold` shares give the secret, fewer say nothing about it. Shares that do not belong together, or are too few,
give another secret and no error: whoever joins them must check what comes out. Time grows with the square of the
threshold (about 10 ms to join 14 shares) and is not constant.
"""

from collections.abc import Mapping
from typing import Final

SECRET_BYTES: Final = 16
VERSION: Final = b"\x02"
"""Before each share: 1 was arithmetic modulo a prime, 66 bytes and no version."""
SHARE_BYTES: Final = len(VERSION) + SECRET_BYTES


def split(secret: bytes, *, threshold: int, holders: int) -> dict[int, bytes]:
    """Shares for the holders 1..n."""
    from Crypto.Protocol.SecretSharing import Shamir

    if not 1 <= threshold <= holders or len(secret) != SECRET_BYTES:
        raise ValueError(f"a secret of {SECRET_BYTES} bytes is split among at least `threshold` holders")
    return {x: VERSION + bytes(share) for x, share in Shamir.split(threshold, holders, secret, ssss=False)}


def join(shares: Mapping[int, bytes]) -> bytes:
    """The secret from exactly the threshold of its shares. Raises ValueError for what is no share."""
    from Crypto.Protocol.SecretSharing import Shamir

    if not shares or any(x < 1 or len(s) != SHARE_BYTES or s[:1] != VERSION for x, s in shares.items()):
        raise ValueError("these are no shares of this version")
    return bytes(Shamir.combine([(x, share[1:]) for x, share in shares.items()], ssss=False))
