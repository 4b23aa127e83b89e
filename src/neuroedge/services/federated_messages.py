"""What a client's message must be before it is kept: signed, of the right kind and shape, in time."""

import base64
import hashlib
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import numpy as np

from neuroedge.contract.errors import Conflict, Forbidden, InvalidInput
from neuroedge.kit.federated import signing, weights
from neuroedge.kit.federated.secure import of_bytes
from neuroedge.kit.federated.weights import Shapes
from neuroedge.services.federated_drafts import FederationMessageDraft, FederationSettings, decoded
from neuroedge.stores.federated import Client, Federation, Round

_MAX_SMALL_BYTES: Final = 256 * 1024
"""Of a message that is no update."""


def settings_of(federation: Federation) -> FederationSettings:
    """How its rounds work."""
    return FederationSettings.model_validate(federation.told["settings"])


def shapes_of(federation: Federation) -> Shapes:
    """Of its model's arrays."""
    return {name: tuple(shape) for name, shape in federation.told["shapes"].items()}


def payload_of(text: str) -> bytes:
    """The bytes of a message. Raises InvalidInput."""
    try:
        return decoded(text)
    except ValueError as error:
        raise _invalid("payload", str(error)) from error


def genuine(
    federation: Federation, client: Client, round_id: UUID, draft: FederationMessageDraft, payload: bytes
) -> dict[str, Any]:
    """What is kept of a message beside its payload. Raises Forbidden for a revoked client and a bad signature."""
    if client.revoked:
        raise Forbidden("this client is revoked", hint="register another one")
    text = signing.signed_text(
        federation_id=str(federation.id),
        round_id=str(round_id),
        client_id=str(client.id),
        kind=draft.kind,
        samples=draft.samples,
        payload=payload,
    )
    if not signing.genuine(decoded(client.public_key), decoded(draft.signature), text):
        raise Forbidden("the signature is not of this client's key and this message", hint="docs/federated.md")
    return {
        "samples": draft.samples,
        "signature": draft.signature,
        "sha256": base64.b64encode(hashlib.sha256(payload).digest()).decode(),
    }


def check_content(kind: str, payload: bytes, shapes: Shapes) -> None:
    """Raise InvalidInput for a payload that is none of the kind for a model of these shapes."""
    try:
        if kind == "update":
            norm = np.linalg.norm(weights.flat(weights.of_npz(payload), shapes).astype(np.float64))
            if norm > np.finfo(np.float32).max:
                raise ValueError("the update is too long")
        elif kind == "masked":
            of_bytes(payload, weights.size(shapes))
        elif len(payload) > _MAX_SMALL_BYTES:
            raise ValueError(f"more than {_MAX_SMALL_BYTES} bytes")
    except ValueError as error:
        raise _invalid("payload", str(error)) from error


def check_time(found: Round, draft: FederationMessageDraft) -> None:
    """Raise Conflict for a message of another phase, and for a late one."""
    if found.state not in ("open", "collecting"):
        raise Conflict(f"the round is {found.state}: this came too late")
    if draft.kind != found.phase:
        raise Conflict(f"the round's phase is {found.phase!r}, not {draft.kind!r}")
    if datetime.now(UTC) > found.deadline:
        raise Conflict("the deadline has passed: this came too late")


def _invalid(field: str, detail: str) -> InvalidInput:
    return InvalidInput(
        f"{field}: {detail}",
        hint="docs/federated.md says what a message holds",
        errors=[{"loc": ("body", field), "msg": detail, "type": "value_error"}],
    )
