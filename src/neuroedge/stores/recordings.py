"""Recordings, the finished steps of their processing, speakers and segments."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from neuroedge.stores import sealing, voices
from neuroedge.stores.postgres import Connection

Status = Literal["queued", "running", "done", "failed"]
_COLUMNS = (
    "id, user_id, sealed, language, bytes, status, step, attempts, error_code, error_detail,"
    " error_hint, created_at, finished_at"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """A recording and where its processing stands."""

    id: UUID
    user_id: UUID
    title: str
    context: str | None
    filename: str
    language: str | None
    bytes: int
    status: Status
    step: str | None
    attempts: int
    error_code: str | None
    error_detail: str | None
    error_hint: str | None
    created_at: datetime
    finished_at: datetime | None
    hot_words: list[str] = field(default_factory=list)
    """Names and terms the recogniser is told of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A stretch of one speaker's speech."""

    id: UUID
    speaker: str
    """The label; as it is read, the name of an enrolled person the speaker was recognised as."""
    position: int
    start_s: float
    end_s: float
    text: str
    confidence: float
    words: list[dict[str, Any]]
    emotion: dict[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Speaker:
    """A voice of a recording with its seconds of speech."""

    id: UUID
    label: str
    speech_s: float
    voice_id: UUID | None = None
    """The enrolled person the speaker was recognised as."""
    voice_llr: float | None = None
    """How much likelier the speech is from that person than from another one: natural logarithm of the ratio."""
    name: str | None = None
    """That person's, while the voice is enrolled."""


async def insert(conn: Connection, *, org_id: UUID, recording: Recording) -> None:
    """Store a new recording."""
    await conn.execute(
        "INSERT INTO recordings (org_id, id, user_id, sealed, language, bytes, status)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s)",
        [
            org_id,
            recording.id,
            recording.user_id,
            conn.vault.seal(
                {
                    "title": recording.title,
                    "context": recording.context,
                    "filename": recording.filename,
                    "hot_words": recording.hot_words,
                },
                sealing.recording(recording.id),
            ),
            recording.language,
            recording.bytes,
            recording.status,
        ],
    )


async def find(conn: Connection, recording_id: UUID, *, lock: bool = False) -> Recording | None:
    """One recording of the transaction's organisation; `lock` holds its row until the transaction ends."""
    query = f"SELECT {_COLUMNS} FROM recordings WHERE id = %s" + (" FOR UPDATE" if lock else "")
    row = await (await conn.execute(query, [recording_id])).fetchone()
    return _recording(conn, row) if row else None


def _recording(conn: Connection, row: dict[str, Any]) -> Recording:
    return Recording(**conn.vault.open(row.pop("sealed"), sealing.recording(row["id"])), **row)


async def recent(
    conn: Connection, *, limit: int, before: UUID | None = None, status: Status | None = None
) -> list[Recording]:
    """Newest first; `before` continues after the last id of the page before (ids are in time order)."""
    cursor = await conn.execute(
        f"SELECT {_COLUMNS} FROM recordings WHERE (%(before)s::uuid IS NULL OR id < %(before)s)"
        " AND (%(status)s::text IS NULL OR status = %(status)s) ORDER BY id DESC LIMIT %(limit)s",
        {"before": before, "status": status, "limit": limit},
    )
    return [_recording(conn, row) for row in await cursor.fetchall()]


async def delete(conn: Connection, recording_id: UUID) -> bool:
    """Delete a recording with its steps, speakers, segments and memories; whether it was there."""
    cursor = await conn.execute("DELETE FROM recordings WHERE id = %s", [recording_id])
    return cursor.rowcount == 1


async def start_attempt(conn: Connection, recording_id: UUID) -> None:
    """A worker took the job."""
    await conn.execute(
        "UPDATE recordings SET status = 'running', attempts = attempts + 1 WHERE id = %s", [recording_id]
    )


async def set_step(conn: Connection, recording_id: UUID, step: str) -> None:
    """The step that runs now."""
    await conn.execute("UPDATE recordings SET step = %s WHERE id = %s", [step, recording_id])


async def count_error(conn: Connection, recording_id: UUID) -> int:
    """One more error of its processing; how many there were."""
    cursor = await conn.execute(
        "UPDATE recordings SET errors = errors + 1 WHERE id = %s RETURNING errors", [recording_id]
    )
    row = await cursor.fetchone()
    return int(row["errors"]) if row else 0


async def exist(conn: Connection, recording_ids: Sequence[UUID]) -> set[UUID]:
    """Which of these ids are recordings."""
    cursor = await conn.execute("SELECT id FROM recordings WHERE id = ANY(%s)", [list(recording_ids)])
    return {row["id"] for row in await cursor.fetchall()}


async def finish(conn: Connection, recording_id: UUID) -> None:
    """Everything is done."""
    await conn.execute(
        "UPDATE recordings SET status = 'done', step = NULL, error_code = NULL, error_detail = NULL,"
        " error_hint = NULL, finished_at = now() WHERE id = %s",
        [recording_id],
    )


async def fail(conn: Connection, recording_id: UUID, *, code: str, detail: str, hint: str | None) -> None:
    """The recording can't be processed."""
    await conn.execute(
        "UPDATE recordings SET status = 'failed', error_code = %s, error_detail = %s, error_hint = %s,"
        " finished_at = now() WHERE id = %s",
        [code, detail, hint, recording_id],
    )


async def steps(conn: Connection, recording_id: UUID) -> dict[str, Any]:
    """Output of every finished step."""
    cursor = await conn.execute("SELECT step, sealed FROM recording_steps WHERE recording_id = %s", [recording_id])
    return {
        row["step"]: conn.vault.open(row["sealed"], sealing.step(recording_id, row["step"]))
        for row in await cursor.fetchall()
    }


async def step_seconds(conn: Connection, recording_id: UUID) -> dict[str, float]:
    """How long each finished step took, in the order they ended."""
    cursor = await conn.execute(
        "SELECT step, seconds FROM recording_steps WHERE recording_id = %s ORDER BY finished_at", [recording_id]
    )
    return {row["step"]: float(row["seconds"]) for row in await cursor.fetchall()}


async def save_step(
    conn: Connection, *, org_id: UUID, recording_id: UUID, step: str, output: Any, seconds: float
) -> None:
    """A step is finished: that is progress, so the starts without it are forgotten. Saving it again replaces it."""
    await conn.execute("UPDATE recordings SET attempts = 0 WHERE id = %s", [recording_id])
    await conn.execute(
        "INSERT INTO recording_steps (org_id, recording_id, step, sealed, seconds) VALUES (%s, %s, %s, %s, %s)"
        " ON CONFLICT (org_id, recording_id, step) DO UPDATE SET sealed = EXCLUDED.sealed,"
        " seconds = EXCLUDED.seconds, finished_at = now()",
        [org_id, recording_id, step, conn.vault.seal(output, sealing.step(recording_id, step)), seconds],
    )


async def replace_segments(
    conn: Connection, *, org_id: UUID, recording_id: UUID, speakers: Sequence[Speaker], segments: Sequence[Segment]
) -> None:
    """Store speakers and segments in place of any from an earlier attempt (their memories go with them)."""
    await conn.execute("DELETE FROM segments WHERE recording_id = %s", [recording_id])
    await conn.execute("DELETE FROM speakers WHERE recording_id = %s", [recording_id])
    ids = {speaker.label: speaker.id for speaker in speakers}
    async with conn.cursor() as cursor:
        await cursor.executemany(
            "INSERT INTO speakers (org_id, id, recording_id, label, speech_s, voice_id, voice_llr)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s)",
            [(org_id, s.id, recording_id, s.label, s.speech_s, s.voice_id, s.voice_llr) for s in speakers],
        )
        await cursor.executemany(
            "INSERT INTO segments (org_id, id, recording_id, speaker_id, position, start_s, end_s, confidence,"
            " sealed) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
            [
                (
                    org_id,
                    s.id,
                    recording_id,
                    ids[s.speaker],
                    s.position,
                    s.start_s,
                    s.end_s,
                    s.confidence,
                    conn.vault.seal({"text": s.text, "words": s.words, "emotion": s.emotion}, sealing.segment(s.id)),
                )
                for s in segments
            ],
        )


async def segments(conn: Connection, recording_id: UUID) -> list[Segment]:
    """In the order of time."""
    named = {s.label: s.name for s in await speakers(conn, recording_id) if s.name}
    cursor = await conn.execute(
        "SELECT g.id, s.label AS speaker, g.position, g.start_s, g.end_s, g.confidence, g.sealed"
        " FROM segments g JOIN speakers s ON (s.org_id, s.id) = (g.org_id, g.speaker_id)"
        " WHERE g.recording_id = %s ORDER BY g.position",
        [recording_id],
    )
    return [
        Segment(
            **conn.vault.open(row.pop("sealed"), sealing.segment(row["id"])),
            **{**row, "speaker": named.get(row["speaker"], row["speaker"])},
        )
        for row in await cursor.fetchall()
    ]


async def speakers(conn: Connection, recording_id: UUID) -> list[Speaker]:
    """By label; a voice that is gone, or may not be used for this any more, is nobody's."""
    cursor = await conn.execute(
        "SELECT id, label, speech_s, voice_id, voice_llr FROM speakers WHERE recording_id = %s ORDER BY label",
        [recording_id],
    )
    rows = await cursor.fetchall()
    named = await voices.names(conn, {row["voice_id"] for row in rows if row["voice_id"]})
    found = []
    for row in rows:
        name = named.get(row["voice_id"])
        known = {"name": name} if name else {"voice_id": None, "voice_llr": None}
        found.append(Speaker(**{**row, **known}))
    return found
