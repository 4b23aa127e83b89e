"""Messages of secure aggregation: what each phase may hold, and the sum that comes out of all of them."""

import base64
import json
from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from neuroedge.contract.errors import Conflict, InvalidInput
from neuroedge.kit.federated import shamir
from neuroedge.kit.federated.secure import KEY_BYTES, Masked, PublicKeys, Revealed
from neuroedge.services.federated_drafts import decoded
from neuroedge.stores import federated as store
from neuroedge.stores.federated import Message, Phase, Round
from neuroedge.stores.postgres import Connection

_SEALED_SHARES_BYTES: Final = 12 + 2 * shamir.SHARE_BYTES + 16
"""Nonce, both shares, tag."""


async def check_phase(conn: Connection, found: Round, client_id: UUID, kind: Phase, payload: bytes) -> None:
    """Raise InvalidInput for a message that does not hold what its phase needs, Conflict for who left before."""
    if kind == "update":
        return
    before: dict[str, Phase] = {"shares": "keys", "masked": "shares", "unmask": "masked"}
    if kind in before and client_id not in await store.senders(conn, found.id, before[kind]):
        raise Conflict(f"this client sent no {before[kind]!r}: it is not in the round any more")
    if kind == "keys":
        _fields(payload, {"cipher", "masks", "own"}, size=KEY_BYTES)
    elif kind == "shares":
        others = {str(i) for i in await store.senders(conn, found.id, "keys")} - {str(client_id)}
        _fields(payload, others, size=_SEALED_SHARES_BYTES)
    elif kind == "unmask":
        senders = {str(i) for i in await store.senders(conn, found.id, "shares")}
        _fields(payload, senders, size=shamir.SHARE_BYTES)


def _fields(payload: bytes, names: set[str], *, size: int) -> dict[str, bytes]:
    """Bytes by name of a JSON object with exactly these names."""
    try:
        told: Any = json.loads(payload)
        if not isinstance(told, dict) or set(told) != names or not all(isinstance(v, str) for v in told.values()):
            raise ValueError(f"a JSON object with {len(names)} names is needed: {', '.join(sorted(names)[:3])} …")
        found = {name: decoded(value) for name, value in told.items()}
        if any(len(value) != size for value in found.values()):
            raise ValueError(f"each value is {size} bytes in base64")
    except (ValueError, RecursionError) as error:
        errors = [{"loc": ("body", "payload"), "msg": str(error), "type": "value_error"}]
        raise InvalidInput(f"payload: {error}", hint="docs/federated.md", errors=errors) from error
    return found


def public_keys(message: Message) -> PublicKeys:
    """Of a message of the kind `keys`."""
    told = json.loads(decoded(message.told["payload"]))
    return PublicKeys(**{name: base64.b64decode(told[name]) for name in ("cipher", "masks", "own")})


async def revealed(conn: Connection, found: Round, masked: Mapping[str, Masked]) -> Revealed:
    """What the server knows at the end of a secure round."""
    keys = await store.messages(conn, found.id, "keys")
    answers = await store.messages(conn, found.id, "unmask")
    return Revealed(
        round_id=str(found.id),
        keys={str(m.client_id): public_keys(m) for m in keys},
        senders=frozenset(str(i) for i in await store.senders(conn, found.id, "shares")),
        masked=masked,
        shares={
            str(m.client_id): {
                name: base64.b64decode(share) for name, share in json.loads(decoded(m.told["payload"])).items()
            }
            for m in answers
        },
    )
