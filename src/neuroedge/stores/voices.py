"""Voices of enrolled people and their voiceprints: personal data, so that names, consent and vectors are sealed.

A voice past its `expires_at` is not there for anybody; the sweep deletes it.
"""

import base64
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import numpy as np

from neuroedge.contract.models import Floats
from neuroedge.contract.ports import EnrolledVoice, VoicePurpose
from neuroedge.contract.principal import Principal
from neuroedge.contract.vault import Cipher
from neuroedge.stores.ids import new_id
from neuroedge.stores.postgres import Connection, Database

_COLUMNS: Final = "id, user_id, sealed, created_at, updated_at, expires_at"
_ALIVE: Final = "expires_at > now()"


@dataclass(frozen=True, slots=True, kw_only=True)
class Consent:
    """What a person agreed to; proof of it is the organisation's to keep."""

    given_by: str
    """Who agreed: the person, or the guardian who speaks for a child."""
    at: datetime
    purposes: tuple[VoicePurpose, ...]
    text_version: str
    """Which text was agreed to."""
    minor: bool
    guardian: str | None = None
    """Who agreed for a minor: name and relation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Voice:
    """An enrolled person."""

    id: UUID
    user_id: UUID
    """Who enrolled the person."""
    name: str
    external_id: str | None
    labels: Mapping[str, str]
    consent: Consent
    created_at: datetime
    updated_at: datetime
    expires_at: datetime
    prints: int = 0
    """Samples enrolled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewVoice:
    """Someone to enrol."""

    name: str
    consent: Consent
    expires_at: datetime
    external_id: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Voiceprint:
    """What the encoder makes of one sample; the sample itself is not kept."""

    id: UUID
    voice_id: UUID
    model: str
    """Fingerprint of the encoder: vectors of another one cannot be compared with it."""
    quality: Mapping[str, Any]
    created_at: datetime


def context(voice_id: UUID) -> str:
    """Where a voice's sealed value belongs."""
    return f"voices/{voice_id}"


def print_context(print_id: UUID) -> str:
    """Where a voiceprint's sealed value belongs."""
    return f"voiceprints/{print_id}"


def external_mac(cipher: Cipher, external_id: str) -> int:
    """What a voice is found by under the id another system gave the person."""
    return cipher.blind(f"voice:{external_id}")


async def insert(conn: Connection, *, org_id: UUID, user_id: UUID, new: NewVoice) -> Voice:
    """Store a person without voiceprints."""
    voice_id = new_id()
    cursor = await conn.execute(
        "INSERT INTO voices (org_id, id, user_id, external_mac, sealed, expires_at) VALUES (%s, %s, %s, %s, %s, %s)"
        f" RETURNING {_COLUMNS}",
        [
            *(org_id, voice_id, user_id),
            None if new.external_id is None else external_mac(conn.vault, new.external_id),
            conn.vault.seal(_said(new), context(voice_id)),
            new.expires_at,
        ],
    )
    return _voice(conn, await cursor.fetchone() or {})


async def find(conn: Connection, voice_id: UUID, *, hold: bool = False) -> Voice | None:
    """One of the transaction's organisation; `hold` keeps its row until the transaction ends."""
    query = f"SELECT {_COLUMNS} FROM voices WHERE id = %s AND {_ALIVE}" + (" FOR UPDATE" if hold else "")
    row = await (await conn.execute(query, [voice_id])).fetchone()
    if row is None:
        return None
    return replace(_voice(conn, row), prints=(await _counts(conn, [voice_id])).get(voice_id, 0))


async def by_external_id(conn: Connection, external_id: str) -> Voice | None:
    """The person another system knows under this id."""
    cursor = await conn.execute(
        f"SELECT {_COLUMNS} FROM voices WHERE external_mac = %s AND {_ALIVE} FOR UPDATE",
        [external_mac(conn.vault, external_id)],
    )
    row = await cursor.fetchone()
    return _voice(conn, row) if row else None


async def page(conn: Connection, *, limit: int, before: UUID | None) -> list[Voice]:
    """Newest first; `before` continues after the last id of the page before."""
    cursor = await conn.execute(
        f"SELECT {_COLUMNS} FROM voices WHERE {_ALIVE} AND (%(before)s::uuid IS NULL OR id < %(before)s)"
        " ORDER BY id DESC LIMIT %(limit)s",
        {"before": before, "limit": limit},
    )
    found = [_voice(conn, row) for row in await cursor.fetchall()]
    counts = await _counts(conn, [voice.id for voice in found])
    return [replace(voice, prints=counts.get(voice.id, 0)) for voice in found]


async def lock(conn: Connection, org_id: UUID) -> None:
    """Be the only one who adds voices to the organisation until the transaction ends."""
    await conn.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"voices/{org_id}"])


async def count(conn: Connection) -> int:
    """How many voices the transaction's organisation keeps."""
    row = await (await conn.execute("SELECT count(*) AS n FROM voices")).fetchone()
    return int(row["n"]) if row else 0


async def update(conn: Connection, voice: Voice) -> bool:
    """Store name, external id, labels, consent and expiry; whether it was there."""
    cursor = await conn.execute(
        "UPDATE voices SET external_mac = %s, sealed = %s, expires_at = %s, updated_at = now() WHERE id = %s",
        [
            None if voice.external_id is None else external_mac(conn.vault, voice.external_id),
            conn.vault.seal(_said(voice), context(voice.id)),
            voice.expires_at,
            voice.id,
        ],
    )
    return cursor.rowcount == 1


async def delete(conn: Connection, voice_id: UUID) -> bool:
    """Delete a voice with its voiceprints; whether it was there. Names in memories are `recording_voices`' to undo."""
    return (await conn.execute("DELETE FROM voices WHERE id = %s", [voice_id])).rowcount == 1


async def add_print(
    conn: Connection, *, org_id: UUID, voice_id: UUID, model: str, vector: Floats, quality: Mapping[str, Any]
) -> UUID:
    """Store what the encoder made of a sample; `vector` [dim] is L2-normalised."""
    print_id = new_id()
    told = {"vector": base64.b64encode(vector.astype("<f4").tobytes()).decode(), "quality": dict(quality)}
    await conn.execute(
        "INSERT INTO voiceprints (org_id, id, voice_id, model, sealed) VALUES (%s, %s, %s, %s, %s)",
        [org_id, print_id, voice_id, model, conn.vault.seal(told, print_context(print_id))],
    )
    return print_id


async def prints(conn: Connection, voice_id: UUID) -> list[Voiceprint]:
    """A voice's samples in the order they came, without their vectors."""
    cursor = await conn.execute(
        "SELECT id, voice_id, model, sealed, created_at FROM voiceprints WHERE voice_id = %s ORDER BY id", [voice_id]
    )
    return [
        Voiceprint(
            id=row["id"],
            voice_id=row["voice_id"],
            model=row["model"],
            quality=conn.vault.open(row["sealed"], print_context(row["id"]))["quality"],
            created_at=row["created_at"],
        )
        for row in await cursor.fetchall()
    ]


async def delete_print(conn: Connection, *, voice_id: UUID, print_id: UUID) -> bool:
    """Delete a sample's voiceprint; whether it was there."""
    cursor = await conn.execute("DELETE FROM voiceprints WHERE voice_id = %s AND id = %s", [voice_id, print_id])
    return cursor.rowcount == 1


async def enrolled(conn: Connection, *, model: str, purpose: VoicePurpose) -> list[EnrolledVoice]:
    """Who has a voiceprint by the model and agreed to the purpose, in the order of enrolment."""
    cursor = await conn.execute(
        "SELECT p.id, p.voice_id, p.sealed, v.sealed AS voice_sealed FROM voiceprints p"
        " JOIN voices v ON (v.org_id, v.id) = (p.org_id, p.voice_id)"
        f" WHERE p.model = %s AND v.{_ALIVE} ORDER BY p.voice_id, p.id",
        [model],
    )
    told: dict[UUID, dict[str, Any]] = {}
    rows_of: dict[UUID, list[Floats]] = {}
    seconds: dict[UUID, list[float]] = {}
    for row in await cursor.fetchall():
        voice_id = row["voice_id"]
        if voice_id not in told:
            told[voice_id] = conn.vault.open(row["voice_sealed"], context(voice_id))
        if purpose not in told[voice_id]["consent"]["purposes"]:
            continue
        sample = conn.vault.open(row["sealed"], print_context(row["id"]))
        rows_of.setdefault(voice_id, []).append(_vector(sample))
        seconds.setdefault(voice_id, []).append(float(sample["quality"].get("speech_s", 1.0)))
    return [
        EnrolledVoice(
            id=voice_id,
            name=told[voice_id]["name"],
            vectors=np.stack(rows),
            speech_s=np.array(seconds[voice_id], np.float32),
        )
        for voice_id, rows in rows_of.items()
    ]


async def vectors(conn: Connection, voice_id: UUID, *, model: str) -> list[Floats]:
    """Vectors [dim] of a voice's samples by the model."""
    cursor = await conn.execute(
        "SELECT id, sealed FROM voiceprints WHERE voice_id = %s AND model = %s ORDER BY id", [voice_id, model]
    )
    told = [conn.vault.open(row["sealed"], print_context(row["id"])) for row in await cursor.fetchall()]
    return [_vector(sample) for sample in told]


async def names(conn: Connection, voice_ids: Collection[UUID]) -> dict[UUID, str]:
    """What recordings call those of these voices that are there and agreed to it."""
    if not voice_ids:
        return {}
    cursor = await conn.execute(
        f"SELECT id, sealed FROM voices WHERE id = ANY(%s) AND {_ALIVE}", [sorted(set(voice_ids))]
    )
    found = {row["id"]: conn.vault.open(row["sealed"], context(row["id"])) for row in await cursor.fetchall()}
    return {i: told["name"] for i, told in found.items() if "label_recordings" in told["consent"]["purposes"]}


async def delete_expired(conn: Connection, *, limit: int) -> list[UUID]:
    """Delete voices of the transaction's organisation whose time is over."""
    cursor = await conn.execute(
        f"DELETE FROM voices WHERE id IN (SELECT id FROM voices WHERE NOT {_ALIVE} LIMIT %s) RETURNING id", [limit]
    )
    return [row["id"] for row in await cursor.fetchall()]


async def organisations_with_stale(conn: Connection) -> list[UUID]:
    """Organisations with a voice whose time is over, or a speaker named by a voice that is gone."""
    cursor = await conn.execute("SELECT org_id FROM organisations_with_stale_voices()")
    return [row["org_id"] for row in await cursor.fetchall()]


class TenantVoices:
    """The Voices port over one caller's organisation."""

    def __init__(self, db: Database, principal: Principal) -> None:
        self._db = db
        self._principal = principal

    async def enrolled(self, *, model: str, purpose: VoicePurpose) -> list[EnrolledVoice]:
        """Who has a voiceprint by the model and agreed to the purpose."""
        async with self._db.tenant(self._principal) as conn:
            return await enrolled(conn, model=model, purpose=purpose)


async def _counts(conn: Connection, voice_ids: Sequence[UUID]) -> dict[UUID, int]:
    cursor = await conn.execute(
        "SELECT voice_id, count(*) AS n FROM voiceprints WHERE voice_id = ANY(%s) GROUP BY voice_id", [list(voice_ids)]
    )
    return {row["voice_id"]: row["n"] for row in await cursor.fetchall()}


def _vector(sample: Mapping[str, Any]) -> Floats:
    return np.frombuffer(base64.b64decode(sample["vector"]), "<f4").astype(np.float32)


def _said(voice: Voice | NewVoice) -> dict[str, Any]:
    consent = asdict(voice.consent)
    return {
        "name": voice.name,
        "external_id": voice.external_id,
        "labels": dict(voice.labels),
        "consent": {**consent, "at": voice.consent.at.isoformat(), "purposes": list(voice.consent.purposes)},
    }


def _voice(conn: Connection, row: dict[str, Any]) -> Voice:
    told = conn.vault.open(row.pop("sealed"), context(row["id"]))
    consent = told.pop("consent")
    consent |= {"at": datetime.fromisoformat(consent["at"]), "purposes": tuple(consent["purposes"])}
    return Voice(**row, **told, consent=Consent(**consent))
