"""Keys and entries of the cache, the same on every level below memory.

An entry proves itself: its checksum covers key, header and payload, so that damaged bytes, another version's format and
an entry under a foreign key all count as missing. It carries when it was stored and for how long it holds, because the
levels keep time by different clocks, any of which may be set.
"""

import hashlib
import struct
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

FORMAT = 1
MAX_TTL_S = 30 * 24 * 3600.0
NO_GENERATION = bytes(8)
"""Of an organisation that was never forgotten, and of entries stored while its generation was not known."""
_SKEW_S = 5.0
_CHECKSUM_BYTES = 8
_HEADER = struct.Struct(">B8sdd")
_START = _CHECKSUM_BYTES + _HEADER.size


@dataclass(frozen=True, slots=True)
class Kept:
    """What a level still had: the packed value and the seconds it may be used yet."""

    payload: bytes
    left_s: float


class Entry(NamedTuple):
    """What the levels below memory store: sealed bytes under a key, for a time."""

    key: bytes
    sealed: bytes
    ttl_s: float


def key_of(org_id: UUID, key: str, *, secret: bytes = b"") -> bytes:
    """48 bytes: the organisation, then a hash of `key` under `secret` (BLAKE2b, RFC 7693; at most 64 bytes).

    No level ever sees the key itself, nor can whoever reads a level try out what it might have been.
    """
    return org_id.bytes + hashlib.blake2b(key.encode("utf-8", "surrogatepass"), key=secret, digest_size=32).digest()


def seal(key: bytes, kept: Kept, *, generation: bytes, now: float) -> bytes:
    """A value as bytes that prove themselves; `now` in seconds since 1970."""
    header = _HEADER.pack(FORMAT, generation, now, kept.left_s)
    return _checksum(key, header, kept.payload) + header + kept.payload


def unseal(key: bytes, sealed: bytes, *, generation: bytes | None, now: float) -> Kept | None:
    """The value; None when it is damaged, foreign, expired or of another generation (None: any will do).

    An entry from the future expired too: the clock was set back since, and it could outlive its time by any amount.
    """
    if len(sealed) < _START:
        return None
    header, payload = sealed[_CHECKSUM_BYTES:_START], sealed[_START:]
    version, its_generation, stored_at, ttl_s = _HEADER.unpack(header)
    if version != FORMAT or sealed[:_CHECKSUM_BYTES] != _checksum(key, header, payload):
        return None
    if generation is not None and generation != its_generation:
        return None
    age_s = max(0.0, now - stored_at) if now > stored_at - _SKEW_S else ttl_s
    return Kept(payload, ttl_s - age_s) if age_s < ttl_s else None


def _checksum(key: bytes, header: bytes, payload: bytes) -> bytes:
    digest = hashlib.blake2b(header, digest_size=_CHECKSUM_BYTES, key=key)
    digest.update(payload)
    return digest.digest()
