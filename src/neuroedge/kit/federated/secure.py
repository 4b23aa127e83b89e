"""Secure aggregation by double masks with recovery of those who drop out (Bonawitz et al., 2017).

Each update is quantised to integers modulo 2^32 and masked by a mask of the client's own and one for each pair of
clients; pairs' masks cancel in the sum. Seeds are secret-shared, so that of a client who drops out only the pairwise
masks, and of one who stays only the own mask, can be taken away by the server, with the help of `threshold` others.

Primitives: X25519, HKDF-SHA256, ChaCha20 (masks), ChaCha20-Poly1305 (shares on their way through the server) of
`cryptography`, Shamir's sharing of pycryptodome. What is shared are two seeds of 16 bytes, of which the own mask's key
and the private key of the pairs' masks are derived; a client commits to the first, so that wrong shares are noticed.
Against a server that follows the protocol and is curious, with up to threshold - 1 clients in league with it;
threshold > 2/3 of the clients also keeps a lying server from learning both seeds of a client. The protocol's extra
round of signed survivor lists is not here.
"""

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from neuroedge.kit.federated import shamir
from neuroedge.kit.federated.weights import Vector

Masked = npt.NDArray[np.uint32]
KEY_BYTES: Final = 32
MIN_CLIENTS: Final = 3
"""With two, the sum and one's own update give the other's."""
MAX_CLIENTS: Final = 100
"""Joining everybody's shares takes 15 s of a core for so many, and grows with their cube."""
_NONCE_BYTES: Final = 12


def threshold_of(clients: int) -> int:
    """Survivors needed to take the masks away: more than two thirds of those whose keys are in the round."""
    return clients * 2 // 3 + 1


def quantised(update: Vector, *, bound: float, clients: int) -> Masked:
    """Integers modulo 2^32 of an update cut to ±bound, so small that the sum over all clients does not wrap."""
    levels = _levels(clients)
    scaled = np.rint(np.clip(update.astype(np.float64) / bound, -1.0, 1.0) * levels)
    return scaled.astype(np.int64).astype(np.uint32)


def dequantised(total: Masked, *, bound: float, clients: int) -> npt.NDArray[np.float64]:
    """The sum of the updates. `clients` is what it was when they were quantised."""
    return total.astype(np.int32).astype(np.float64) / _levels(clients) * bound


def of_bytes(data: bytes, length: int) -> Masked:
    """uint32, little-endian. Raises ValueError for another number of them than `length`."""
    if len(data) != 4 * length:
        raise ValueError(f"a masked update of {length} parameters has {4 * length} bytes, not {len(data)}")
    return np.frombuffer(data, "<u4").astype(np.uint32)


def to_bytes(masked: Masked) -> bytes:
    """uint32, little-endian."""
    return masked.astype("<u4").tobytes()


def mask(seed: bytes, length: int) -> Masked:
    """Pseudo-random integers of a seed that masks one round only (ChaCha20, counter from zero)."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

    stream = Cipher(algorithms.ChaCha20(seed, bytes(16)), mode=None).encryptor()
    return of_bytes(stream.update(bytes(4 * length)), length)


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicKeys:
    """What a client shows to the others: keys of this round only."""

    cipher: bytes
    """For shares on their way."""
    masks: bytes
    """For pairwise masks."""
    own: bytes
    """Commitment to the seed of the own mask."""


class Participant:
    """A client's side of one round. `me` and `round_id` bind what is sealed to its place."""

    def __init__(self, *, me: str, round_id: str) -> None:
        self._me, self._round = me, round_id
        self._cipher = _new_key()
        self._masks_seed, self._own_seed = (secrets.token_bytes(shamir.SECRET_BYTES) for _ in range(2))
        self._masks = _masks_key(self._masks_seed, round_id)
        self._others: dict[str, PublicKeys] = {}
        self._threshold = 0

    @property
    def public(self) -> PublicKeys:
        """To be sent to the server."""
        return PublicKeys(
            cipher=_public(self._cipher), masks=_public(self._masks), own=_commitment(self._own_seed, self._round)
        )

    def shares(self, keys: Mapping[str, PublicKeys]) -> dict[str, bytes]:
        """Sealed shares of both seeds for each other client, by its name; `keys` are everybody's.

        Raises ValueError for too few, or a list that does not hold this client's own keys.
        """
        if len(keys) < MIN_CLIENTS or keys.get(self._me) != self.public:
            raise ValueError("the list of keys is not one to take part with")
        if len({key for pair in keys.values() for key in (pair.cipher, pair.masks)}) < 2 * len(keys):
            raise ValueError("a key stands in the list twice")
        self._others = {name: pair for name, pair in keys.items() if name != self._me}
        self._threshold = threshold_of(len(keys))
        order = sorted(keys)
        private = shamir.split(self._masks_seed, threshold=self._threshold, holders=len(order))
        own = shamir.split(self._own_seed, threshold=self._threshold, holders=len(order))
        self._kept = private[order.index(self._me) + 1], own[order.index(self._me) + 1]
        return {
            name: _sealed(self._channel(name), private[x] + own[x], self._place(self._me, name))
            for x, name in enumerate(order, start=1)
            if name != self._me
        }

    def masked(self, update: Vector, senders: Iterable[str], *, bound: float, clients: int) -> Masked:
        """The update under masks with all who sent shares; `clients` stood in the list of keys."""
        sent = set(senders) - {self._me}
        if len(sent) + 1 < max(self._threshold, MIN_CLIENTS) or not sent <= set(self._others):
            raise ValueError("too few clients sent shares, or some who sent no keys")
        total = quantised(update, bound=bound, clients=clients) + mask(
            _own_key(self._own_seed, self._round), update.size
        )
        for name in sorted(sent):
            pair = mask(self._pair_seed(name), update.size)
            total = total + pair if self._me < name else total - pair
        self._senders = frozenset(sent)
        return total

    def unmask(self, sealed: Mapping[str, bytes], survivors: Iterable[str]) -> dict[str, bytes]:
        """For each client the one share that the server may have: of the own mask's seed for who stayed, of the
        private key for who dropped out. Can be asked once. Raises ValueError where that would give too much away.
        """
        alive = set(survivors)
        if self._threshold == 0 or self._me not in alive or len(alive) < max(self._threshold, MIN_CLIENTS):
            raise ValueError("too few clients stayed")
        if not alive <= self._senders | {self._me}:
            raise ValueError("somebody is said to have stayed who never took part")
        told = {self._me: self._kept[1]}
        for name in sorted(self._senders):
            pair = _opened(self._channel(name), sealed[name], self._place(name, self._me))
            told[name] = pair[shamir.SHARE_BYTES :] if name in alive else pair[: shamir.SHARE_BYTES]
        self._threshold = 0
        return told

    def _pair_seed(self, name: str) -> bytes:
        return _agreed(self._masks, self._others[name].masks, f"masks {self._round}")

    def _channel(self, name: str) -> bytes:
        return _agreed(self._cipher, self._others[name].cipher, f"shares {self._round}")

    def _place(self, sender: str, receiver: str) -> bytes:
        return f"{self._round}\n{sender}\n{receiver}".encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Revealed:
    """What the server knows when the survivors have answered."""

    round_id: str
    keys: Mapping[str, PublicKeys]
    """Of all who were in the list."""
    senders: frozenset[str]
    """Who sent shares, and so has masks with each other."""
    masked: Mapping[str, Masked]
    """Of the survivors."""
    shares: Mapping[str, Mapping[str, bytes]]
    """By who answered: the shares by whose they are."""


def unmasked_sum(known: Revealed) -> Masked:
    """The sum of the survivors' quantised updates. Raises ValueError where shares are too few or do not fit."""
    order = sorted(known.keys)
    threshold = threshold_of(len(order))
    if len(known.shares) < threshold:
        raise ValueError(f"{len(known.shares)} clients helped to take the masks away; {threshold} are needed")
    length = next(iter(known.masked.values())).size
    total = np.zeros(length, np.uint32)
    for vector in known.masked.values():
        total += vector
    for name in sorted(known.senders):
        held = {order.index(holder) + 1: told[name] for holder, told in known.shares.items() if name in told}
        if len(held) < threshold:
            raise ValueError("shares are missing")
        seed = shamir.join(dict(sorted(held.items())[:threshold]))
        if name in known.masked:
            if _commitment(seed, known.round_id) != known.keys[name].own:
                raise ValueError("the shares of a client's seed do not give what it committed to")
            total -= mask(_own_key(seed, known.round_id), length)
            continue
        private = _masks_key(seed, known.round_id)
        if _public(private) != known.keys[name].masks:
            raise ValueError("the shares of a client's key do not give its key")
        for other in sorted(known.masked):
            pair = mask(_agreed(private, known.keys[other].masks, f"masks {known.round_id}"), length)
            total = total - pair if other < name else total + pair
    return total


def _levels(clients: int) -> int:
    return (2**31 - 1) // clients


def _new_key() -> Any:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    return X25519PrivateKey.generate()


def _masks_key(seed: bytes, round_id: str) -> Any:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    return X25519PrivateKey.from_private_bytes(_derived(seed, f"masks key {round_id}"))


def _own_key(seed: bytes, round_id: str) -> bytes:
    return _derived(seed, f"own mask {round_id}")


def _commitment(seed: bytes, round_id: str) -> bytes:
    """Says nothing of the seed, and fits no other."""
    return _derived(seed, f"own mask's commitment {round_id}")


def _public(key: Any) -> bytes:
    return bytes(key.public_key().public_bytes_raw())


def _agreed(key: Any, public: bytes, purpose: str) -> bytes:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

    return _derived(key.exchange(X25519PublicKey.from_public_bytes(public)), purpose)


def _derived(secret: bytes, purpose: str) -> bytes:
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=f"neuroedge {purpose}".encode()).derive(secret)


def _sealed(key: bytes, data: bytes, place: bytes) -> bytes:
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    nonce = secrets.token_bytes(_NONCE_BYTES)
    return nonce + ChaCha20Poly1305(key).encrypt(nonce, data, place)


def _opened(key: bytes, data: bytes, place: bytes) -> bytes:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    try:
        return ChaCha20Poly1305(key).decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], place)
    except InvalidTag as error:
        raise ValueError("a share was changed on its way") from error
