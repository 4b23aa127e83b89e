"""Artifacts, their versions, and what is being generated. Content and names are sealed; what lies in blob storage is
named by ids alone."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

from neuroedge.contract.ports import Visibility
from neuroedge.kit.artifact_checks import Check, Type
from neuroedge.stores.memories import division_of
from neuroedge.stores.postgres import Connection

State = Literal["generating", "ready", "failed"]
Origin = Literal["given", "generated", "restored"]
_COLUMNS: Final = (
    "id, user_id, visibility, type, state, version, sealed, session_id, message_id, memory_id, attempts, error_code,"
    " error_detail, error_hint, created_at, updated_at"
)
_VERSION: Final = "id, artifact_id, version, author_id, origin, bytes, valid, sealed, blob, created_at"


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """What is said of an artifact; sealed."""

    title: str
    tags: Sequence[str]
    format: str
    schema: Mapping[str, Any] | None
    """What JSON must be valid by."""
    slides: int | None
    """How many slides were asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """An artifact; `version` is the present one's number, 0 while the first is being generated."""

    id: UUID
    user_id: UUID
    visibility: Visibility
    type: Type
    state: State
    version: int
    named: Named
    session_id: UUID | None
    message_id: UUID | None
    memory_id: UUID | None
    """What its present version is found by."""
    attempts: int
    error_code: str | None
    error_detail: str | None
    error_hint: str | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A version's content as it was opened and checked; sealed."""

    content: str
    sha256: str
    checks: Sequence[Check]
    method: str | None = None
    models: Sequence[str] = ()
    note: str | None = None
    """What its author says of it: the instruction, or a remark."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """A version; content None: it lies in the blob."""

    id: UUID
    artifact_id: UUID
    version: int
    author_id: UUID | None
    origin: Origin
    bytes: int
    valid: bool
    content: str | None
    sha256: str
    checks: list[Check]
    method: str | None
    models: list[str]
    note: str | None
    blob: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class New:
    """An artifact to store."""

    id: UUID
    user_id: UUID
    visibility: Visibility
    type: Type
    named: Named
    session_id: UUID | None = None
    message_id: UUID | None = None
    request: Mapping[str, Any] | None = None
    """What is to be generated; None: its first version comes in the same transaction."""


async def insert(conn: Connection, *, org_id: UUID, new: New) -> None:
    """Store an artifact without versions. Raises InvalidInput for a division the user is in none of."""
    division_id = await division_of(conn, org_id, new.user_id) if new.visibility == "division" else None
    await conn.execute(
        "INSERT INTO artifacts (org_id, id, user_id, visibility, division_id, type, state, sealed, request, session_id,"
        " message_id) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        [
            *(org_id, new.id, new.user_id, new.visibility, division_id, new.type),
            "failed" if new.request is None else "generating",
            conn.vault.seal(asdict(new.named), _context(new.id)),
            None if new.request is None else conn.vault.seal(dict(new.request), _request_context(new.id)),
            *(new.session_id, new.message_id),
        ],
    )


async def find(conn: Connection, artifact_id: UUID, *, lock: bool = False) -> Artifact | None:
    """One the caller may see; `lock` holds its row until the transaction ends."""
    query = f"SELECT {_COLUMNS} FROM artifacts WHERE id = %s" + (" FOR UPDATE" if lock else "")
    row = await (await conn.execute(query, [artifact_id])).fetchone()
    return _opened(conn, row) if row else None


async def recent(
    conn: Connection,
    *,
    limit: int,
    before: UUID | None = None,
    type_: Type | None = None,
    state: State | None = None,
    session_id: UUID | None = None,
) -> list[Artifact]:
    """Newest first; `before` continues after the last id of the page before (ids are in time order)."""
    cursor = await conn.execute(
        f"SELECT {_COLUMNS} FROM artifacts WHERE (%(before)s::uuid IS NULL OR id < %(before)s)"
        " AND (%(type)s::text IS NULL OR type = %(type)s) AND (%(state)s::text IS NULL OR state = %(state)s)"
        " AND (%(session)s::uuid IS NULL OR session_id = %(session)s) ORDER BY id DESC LIMIT %(limit)s",
        {"before": before, "type": type_, "state": state, "session": session_id, "limit": limit},
    )
    return [_opened(conn, row) for row in await cursor.fetchall()]


async def of_memories(conn: Connection, memory_ids: Sequence[UUID]) -> dict[UUID, Artifact]:
    """Those found by these memories."""
    cursor = await conn.execute(f"SELECT {_COLUMNS} FROM artifacts WHERE memory_id = ANY(%s)", [list(memory_ids)])
    found = [_opened(conn, row) for row in await cursor.fetchall()]
    return {artifact.memory_id: artifact for artifact in found if artifact.memory_id is not None}


async def rename(conn: Connection, artifact_id: UUID, *, named: Named) -> None:
    """Say something else of it."""
    await conn.execute(
        "UPDATE artifacts SET sealed = %s, updated_at = now() WHERE id = %s",
        [conn.vault.seal(asdict(named), _context(artifact_id)), artifact_id],
    )


async def set_visibility(
    conn: Connection, *, org_id: UUID, artifact_id: UUID, owner_id: UUID, visibility: Visibility
) -> None:
    """Let others see it, or no more. Raises InvalidInput when its owner belongs to no division that could."""
    division_id = await division_of(conn, org_id, owner_id) if visibility == "division" else None
    await conn.execute(
        "UPDATE artifacts SET visibility = %s, division_id = %s, updated_at = now() WHERE id = %s",
        [visibility, division_id, artifact_id],
    )


async def set_memory(conn: Connection, artifact_id: UUID, memory_id: UUID) -> None:
    """What it is found by from now on."""
    await conn.execute("UPDATE artifacts SET memory_id = %s WHERE id = %s", [memory_id, artifact_id])


async def delete(conn: Connection, artifact_id: UUID) -> bool:
    """Delete one with its versions; whether it was there."""
    return (await conn.execute("DELETE FROM artifacts WHERE id = %s", [artifact_id])).rowcount == 1


async def exist(conn: Connection, artifact_ids: Sequence[UUID]) -> set[UUID]:
    """Which of these ids are artifacts the transaction sees."""
    cursor = await conn.execute("SELECT id FROM artifacts WHERE id = ANY(%s)", [list(artifact_ids)])
    return {row["id"] for row in await cursor.fetchall()}


async def sees_chat(conn: Connection, *, session_id: UUID | None, message_id: UUID | None) -> bool:
    """Whether the caller sees this session and this message of it."""
    cursor = await conn.execute(
        "SELECT (%(session)s::uuid IS NULL OR EXISTS (SELECT 1 FROM chat_sessions WHERE id = %(session)s))"
        " AND (%(message)s::uuid IS NULL OR EXISTS (SELECT 1 FROM chat_messages WHERE id = %(message)s"
        " AND session_id = %(session)s)) AS seen",
        {"session": session_id, "message": message_id},
    )
    row = await cursor.fetchone()
    return bool(row and row["seen"])


async def set_request(conn: Connection, artifact_id: UUID, request: Mapping[str, Any]) -> None:
    """A new version is to be generated."""
    await conn.execute(
        "UPDATE artifacts SET state = 'generating', request = %s, attempts = 0, errors = 0, error_code = NULL,"
        " error_detail = NULL, error_hint = NULL, updated_at = now() WHERE id = %s",
        [conn.vault.seal(dict(request), _request_context(artifact_id)), artifact_id],
    )


async def request(conn: Connection, artifact_id: UUID) -> dict[str, Any] | None:
    """What is to be generated; None: nothing any more."""
    row = await (await conn.execute("SELECT request FROM artifacts WHERE id = %s", [artifact_id])).fetchone()
    if row is None or row["request"] is None:
        return None
    opened: dict[str, Any] = conn.vault.open(row["request"], _request_context(artifact_id))
    return opened


async def start_attempt(conn: Connection, artifact_id: UUID) -> None:
    """A worker took the job."""
    await conn.execute("UPDATE artifacts SET attempts = attempts + 1, updated_at = now() WHERE id = %s", [artifact_id])


async def count_error(conn: Connection, artifact_id: UUID) -> int:
    """One more error of its generation; how many there were."""
    cursor = await conn.execute(
        "UPDATE artifacts SET errors = errors + 1, updated_at = now() WHERE id = %s RETURNING errors", [artifact_id]
    )
    row = await cursor.fetchone()
    return int(row["errors"]) if row else 0


async def fail(conn: Connection, artifact_id: UUID, *, code: str, detail: str, hint: str | None) -> None:
    """It could not be generated; a version it has already stays its present one."""
    await conn.execute(
        "UPDATE artifacts SET state = CASE WHEN version > 0 THEN 'ready' ELSE 'failed' END, request = NULL,"
        " error_code = %s, error_detail = %s, error_hint = %s, updated_at = now() WHERE id = %s",
        [code, detail, hint, artifact_id],
    )


async def add_version(
    conn: Connection,
    *,
    org_id: UUID,
    artifact: UUID,
    version_id: UUID,
    author_id: UUID,
    origin: Origin,
    written: Written,
    valid: bool,
    blob: str | None,
) -> int:
    """Give an artifact a new present version; its number. With `blob` the content lies there and not in the row.

    The caller holds the artifact's row.
    """
    cursor = await conn.execute(
        "UPDATE artifacts SET version = version + 1, state = 'ready', request = NULL, error_code = NULL,"
        " error_detail = NULL, error_hint = NULL, updated_at = now() WHERE id = %s RETURNING version",
        [artifact],
    )
    number = int((await cursor.fetchall())[0]["version"])
    kept = {**asdict(written), "content": None if blob else written.content}
    await conn.execute(
        "INSERT INTO artifact_versions (org_id, id, artifact_id, version, author_id, origin, bytes, valid, sealed,"
        " blob) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        [
            *(org_id, version_id, artifact, number, author_id, origin, len(written.content.encode()), valid),
            *(conn.vault.seal(kept, _version_context(version_id)), blob),
        ],
    )
    return number


async def version(conn: Connection, artifact_id: UUID, number: int) -> Version | None:
    """One version."""
    cursor = await conn.execute(
        f"SELECT {_VERSION} FROM artifact_versions WHERE artifact_id = %s AND version = %s", [artifact_id, number]
    )
    row = await cursor.fetchone()
    return _opened_version(conn, row) if row else None


async def has_version(conn: Connection, artifact_id: UUID, version_id: UUID) -> bool:
    """Whether the artifact has the version of this id."""
    cursor = await conn.execute(
        "SELECT 1 FROM artifact_versions WHERE artifact_id = %s AND id = %s", [artifact_id, version_id]
    )
    return await cursor.fetchone() is not None


async def versions(conn: Connection, artifact_id: UUID, *, limit: int, before: int | None = None) -> list[Version]:
    """Newest first, those below the number `before`."""
    cursor = await conn.execute(
        f"SELECT {_VERSION} FROM artifact_versions WHERE artifact_id = %(artifact)s"
        " AND (%(before)s::integer IS NULL OR version < %(before)s) ORDER BY version DESC LIMIT %(limit)s",
        {"artifact": artifact_id, "before": before, "limit": limit},
    )
    return [_opened_version(conn, row) for row in await cursor.fetchall()]


def _opened(conn: Connection, row: dict[str, Any]) -> Artifact:
    named = conn.vault.open(row.pop("sealed"), _context(row["id"]))
    return Artifact(named=Named(**named), **row)


def _opened_version(conn: Connection, row: dict[str, Any]) -> Version:
    written = conn.vault.open(row.pop("sealed"), _version_context(row["id"]))
    checks = [Check(**check) for check in written.pop("checks")]
    return Version(checks=checks, **written, **row)


def _context(artifact_id: UUID) -> str:
    return f"artifacts/{artifact_id}"


def _request_context(artifact_id: UUID) -> str:
    return f"artifacts/{artifact_id}/request"


def _version_context(version_id: UUID) -> str:
    return f"artifact_versions/{version_id}"
