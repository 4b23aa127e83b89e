"""Keys of the organisations, wrapped by a master key, over Google Tink.

Each organisation has three keysets: AES-256-GCM for content (rows), AES-256-GCM-HKDF in segments for files,
HMAC-SHA-256 as pseudo-random function for the blind index. The content keyset can hold several keys: the primary one
seals, any of them opens, so keys are rotated while rows sealed with older ones stay readable.

The master key is 32 random bytes (a file in the data directory, or the environment), or a key that never leaves a key
management service (AWS KMS, Google Cloud KMS, HashiCorp Vault) and is named by URI.
"""

import base64
import binascii
import io
import json
import re
import shutil
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import msgpack

from neuroedge.contract.errors import InvalidInput, SealBroken, VaultLocked

_BLIND_BYTES: Final = 8
_WORDS_REMEMBERED: Final = 32_768
_REMEMBERED_CHARACTERS: Final = 80
"""A word with its kind is shorter. Whole contents are hashed once: kept, they would be megabytes of open text."""
_KMS_SCHEMES: Final = ("aws-kms://", "gcp-kms://", "hcvault://")
MASTER_KEY_BYTES: Final = 32
_ZERO: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
"""A zero character as JSON writes it, not a backslash that is followed by the same letters."""


class Vault:
    """Implements contract.vault.Keys. `former` are master keys that still unwrap, until `rewrap` has been run."""

    def __init__(self, master: str, *, former: Sequence[str] = ()) -> None:
        _register()
        self._master = _wrapper(master)
        self._former = [_wrapper(key) for key in former]

    def new(self, context: str) -> bytes:
        """Keys of a new organisation, wrapped."""
        from tink import aead, prf, streaming_aead

        return self._wrap(
            {
                "content": _new_keyset(aead.aead_key_templates.AES256_GCM),
                "files": _new_keyset(streaming_aead.streaming_aead_key_templates.AES256_GCM_HKDF_1MB),
                "blind": _new_keyset(prf.prf_key_templates.HMAC_SHA256),
            },
            context,
        )

    def cipher(self, wrapped: bytes, context: str) -> "TinkCipher":
        """Unwrap. Raises VaultLocked."""
        return TinkCipher(self._unwrap(wrapped, context))

    def add(self, wrapped: bytes, context: str) -> bytes:
        """The same keys with one more for content, not used yet."""
        from tink import aead

        keysets = self._unwrap(wrapped, context)
        content, more = _parsed(keysets["content"]), _parsed(_new_keyset(aead.aead_key_templates.AES256_GCM))
        content.key.extend(more.key)
        return self._wrap({**keysets, "content": content.SerializeToString()}, context)

    def promote(self, wrapped: bytes, context: str) -> bytes:
        """The same keys, content sealed with the newest from now on."""
        keysets = self._unwrap(wrapped, context)
        content = _parsed(keysets["content"])
        content.primary_key_id = content.key[-1].key_id
        return self._wrap({**keysets, "content": content.SerializeToString()}, context)

    def retire(self, wrapped: bytes, context: str) -> bytes:
        """The same keys without the ones no content is sealed with any more."""
        keysets = self._unwrap(wrapped, context)
        content = _parsed(keysets["content"])
        kept = [key for key in content.key if key.key_id == content.primary_key_id]
        del content.key[:]
        content.key.extend(kept)
        return self._wrap({**keysets, "content": content.SerializeToString()}, context)

    def rewrap(self, wrapped: bytes, context: str) -> bytes:
        """The same keys, wrapped by the present master key."""
        return self._wrap(self._unwrap(wrapped, context), context)

    def _wrap(self, keysets: dict[str, bytes], context: str) -> bytes:
        return bytes(self._master.encrypt(msgpack.packb(keysets), context.encode()))

    def _unwrap(self, wrapped: bytes, context: str) -> dict[str, bytes]:
        from tink import TinkError

        for wrapper in (self._master, *self._former):
            try:
                keysets: dict[str, bytes] = msgpack.unpackb(wrapper.decrypt(wrapped, context.encode()))
            except TinkError:
                continue
            return keysets
        raise VaultLocked(
            "the organisation's keys were wrapped by another master key",
            hint="every process needs the master key the data was written with: NEUROEDGE_MASTER_KEY, or the file"
            " master.key of the first data directory",
        )


class TinkCipher:
    """Implements contract.vault.Cipher."""

    def __init__(self, keysets: dict[str, bytes]) -> None:
        from tink import aead, prf, streaming_aead

        self._content = _handle(keysets["content"]).primitive(aead.Aead)
        self._files = _handle(keysets["files"]).primitive(streaming_aead.StreamingAead)
        pseudo_random = _handle(keysets["blind"]).primitive(prf.PrfSet).primary()

        def computed(text: str) -> int:
            # 63 bits: PostgreSQL's bigint has a sign.
            return int.from_bytes(pseudo_random.compute(text.encode(), _BLIND_BYTES)) >> 1

        self._computed = computed
        self._remembered = lru_cache(maxsize=_WORDS_REMEMBERED)(computed)

    def blind(self, text: str) -> int:
        """Keyed hash, 63 bits. Raises InvalidInput for what is no text."""
        try:
            return self._remembered(text) if len(text) <= _REMEMBERED_CHARACTERS else self._computed(text)
        except UnicodeEncodeError as error:
            raise InvalidInput("a text holds half a surrogate pair", hint="leave out broken Unicode") from error

    def seal(self, value: Any, context: str) -> bytes:
        """Encrypt a JSON value. Raises InvalidInput for what JSON cannot hold."""
        try:
            plain = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
        except (ValueError, TypeError) as error:  # NaN, Infinity, halves of surrogate pairs
            raise InvalidInput(
                "a value cannot be stored", hint="leave out NaN, Infinity and broken Unicode characters"
            ) from error
        if _ZERO.search(plain):
            raise InvalidInput("a value cannot be stored", hint="leave out zero characters")
        return bytes(self._content.encrypt(plain, context.encode()))

    def open(self, sealed: bytes, context: str) -> Any:
        """The value `seal` was given. Raises SealBroken."""
        from tink import TinkError

        try:
            return json.loads(self._content.decrypt(bytes(sealed), context.encode()))
        except TinkError as error:
            raise SealBroken(f"{context} cannot be opened with the organisation's keys") from error

    def seal_file(self, source: Path, target: Path, context: str) -> None:
        """Encrypt a file into another one."""
        with (
            source.open("rb") as plain,
            target.open("wb") as raw,
            # Closing it writes the last segment and closes the file.
            self._files.new_encrypting_stream(raw, context.encode()) as sealed,
        ):
            shutil.copyfileobj(plain, sealed, 1 << 20)

    def open_bytes(self, sealed: bytes, context: str) -> bytes:
        """What `seal_file` encrypted. Raises SealBroken."""
        from tink import TinkError

        try:
            with self._files.new_decrypting_stream(io.BytesIO(sealed), context.encode()) as stream:
                return bytes(stream.read())
        except TinkError as error:
            raise SealBroken(f"{context} cannot be opened with the organisation's keys") from error

    def open_file(self, sealed: Path, target: Path, context: str) -> None:
        """Decrypt what `seal_file` wrote into another file. Raises SealBroken."""
        from tink import TinkError

        try:
            with (
                sealed.open("rb") as raw,
                target.open("wb") as plain,
                self._files.new_decrypting_stream(raw, context.encode()) as stream,
            ):
                shutil.copyfileobj(stream, plain, 1 << 20)
        except TinkError as error:
            raise SealBroken(f"{context} cannot be opened with the organisation's keys") from error


def new_master_key() -> str:
    """A random master key as the setting takes it."""
    import secrets

    return base64.urlsafe_b64encode(secrets.token_bytes(MASTER_KEY_BYTES)).decode()


def _register() -> None:
    from tink import aead, prf, streaming_aead

    aead.register()
    prf.register()
    streaming_aead.register()


def _wrapper(master: str) -> Any:
    """The AEAD of a master key. Raises VaultLocked when the text is none."""
    if master.startswith(_KMS_SCHEMES):
        return _from_service(master)
    from tink import aead
    from tink.proto import aes_gcm_pb2, tink_pb2

    try:
        key = base64.urlsafe_b64decode(master)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != MASTER_KEY_BYTES:
        raise VaultLocked(
            "NEUROEDGE_MASTER_KEY is no master key",
            hint="32 random bytes in base64 (`neuroedge keys new`), or a URI of a key management service",
        )
    data = tink_pb2.KeyData(
        type_url="type.googleapis.com/google.crypto.tink.AesGcmKey",
        value=aes_gcm_pb2.AesGcmKey(version=0, key_value=key).SerializeToString(),
        key_material_type=tink_pb2.KeyData.SYMMETRIC,
    )
    keyset = tink_pb2.Keyset(primary_key_id=1)
    # RAW: no key id before the ciphertext, since there is only this key.
    keyset.key.add(key_data=data, status=tink_pb2.ENABLED, key_id=1, output_prefix_type=tink_pb2.RAW)
    return _handle(keyset.SerializeToString()).primitive(aead.Aead)


def _from_service(uri: str) -> Any:
    try:
        if uri.startswith("aws-kms://"):
            from tink.integration import awskms

            return awskms.AwsKmsClient(uri, None).get_aead(uri)
        if uri.startswith("gcp-kms://"):
            from tink.integration import gcpkms

            return gcpkms.GcpKmsClient(uri, None).get_aead(uri)
        from tink.integration import hcvault

        return hcvault.new_client(uri).get_aead(uri)
    except ImportError as error:
        service = uri.split("-", 1)[0].split(":", 1)[0]
        raise VaultLocked(
            f"the client of the key management service of {uri.split('://')[0]} is not installed",
            hint=f"pip install 'tink[{service}kms]'" if service != "hcvault" else "pip install 'tink[hcvault]'",
        ) from error
    except Exception as error:  # each service's client has errors of its own
        raise VaultLocked(f"the key management service does not give its key: {error}") from error


def _new_keyset(template: Any) -> bytes:
    import tink
    from tink import secret_key_access

    handle = tink.new_keyset_handle(template)
    return bytes(tink.proto_keyset_format.serialize(handle, secret_key_access.TOKEN))


def _handle(keyset: bytes) -> Any:
    import tink
    from tink import secret_key_access

    return tink.proto_keyset_format.parse(keyset, secret_key_access.TOKEN)


def _parsed(keyset: bytes) -> Any:
    from tink.proto import tink_pb2

    return tink_pb2.Keyset.FromString(keyset)
