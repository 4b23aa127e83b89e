"""Rows in every table of a tenant, through the stores, for tests that must leave none out."""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import numpy as np

from neuroedge.contract.ports import NewMemory
from neuroedge.contract.principal import Principal
from neuroedge.stores import accounts, documents, knowledge, ledgers, memories, privacy, recordings, tasks
from neuroedge.stores.ids import new_id
from neuroedge.stores.ledgers import UsageRow, UsageTable
from neuroedge.stores.postgres import Connection, Database


@dataclass(frozen=True)
class Stored:
    """What was stored; every text holds the word."""

    memory_ids: list[UUID]
    recording_id: UUID
    task_id: UUID
    document_id: UUID


def unit_vector(dim: int = 384, *, seed: int = 1) -> np.ndarray:
    """A random direction."""
    vector = np.random.default_rng(seed).normal(size=dim).astype(np.float32)
    return vector / np.linalg.norm(vector)


async def store_everything(db: Database, caller: Principal, word: str) -> Stored:
    """One thing of each kind that belongs to the caller."""
    org_id = caller.org_id
    async with db.tenant(caller) as conn:
        await conn.execute("INSERT INTO divisions (org_id, id, name) VALUES (%s, %s, 'd')", [org_id, new_id()])
        await accounts.add_refresh_token(
            conn,
            org_id=org_id,
            user_id=caller.user_id,
            family_id=new_id(),
            token_hash=hashlib.sha256(new_id().bytes).digest(),
            expires_at=datetime.now(UTC) + timedelta(days=1),
        )
        await ledgers.add_audit(conn, org_id=org_id, user_id=caller.user_id, request_id="r", action="a", target="t")
        recording_id, segment_id = await _recording(conn, caller, word)
        document_id = await _document(conn, caller, word)
        ids = await memories.insert(
            conn,
            org_id=org_id,
            user_id=caller.user_id,
            items=[
                NewMemory(
                    content=f"private {word}",
                    title=word,
                    tags=[word],
                    metadata={"about": word},
                    source=word,
                    embedding=unit_vector(dim),
                    embedding_model="m",
                    visibility="private",
                )
                for dim in memories.DIMENSIONS
            ]
            + [
                NewMemory(
                    content=f"segment {word}",
                    embedding=unit_vector(),
                    embedding_model="m",
                    recording_id=recording_id,
                    segment_id=segment_id,
                )
            ],
        )
        await _knowledge(conn, org_id, ids[0], word)
        task_id = await _task(conn, caller, word)
        await conn.execute(
            "INSERT INTO rebuilds (org_id, id, model, words) VALUES (%s, %s, 'm', true) ON CONFLICT DO NOTHING",
            [org_id, new_id()],
        )
        await privacy.add_export(conn, org_id=org_id, user_id=caller.user_id, requested_by=caller.user_id)
        await privacy.add_erasure(conn, org_id=org_id, user_id=new_id(), account=False, requested_by=caller.user_id)
    usage = UsageTable(db, to_disk=False)
    row = UsageRow(
        id=new_id(),
        org_id=org_id,
        user_id=caller.user_id,
        request_id="r",
        engine="embedding",
        outcome="ok",
        seconds=1,
        created_at=datetime.now(UTC),
    )
    await usage.add([row])
    await usage.close()
    return Stored(memory_ids=ids, recording_id=recording_id, task_id=task_id, document_id=document_id)


async def _recording(conn: Connection, caller: Principal, word: str) -> tuple[UUID, UUID]:
    recording = recordings.Recording(
        id=new_id(),
        user_id=caller.user_id,
        title=f"call {word}",
        context=word,
        filename=f"{word}.wav",
        language="en",
        bytes=1,
        status="queued",
        step=None,
        attempts=0,
        error_code=None,
        error_detail=None,
        error_hint=None,
        created_at=datetime.now(UTC),
        finished_at=None,
    )
    await recordings.insert(conn, org_id=caller.org_id, recording=recording)
    await recordings.save_step(
        conn, org_id=caller.org_id, recording_id=recording.id, step="transcribe", output={"text": word}, seconds=1
    )
    speaker = recordings.Speaker(id=new_id(), label="SPEAKER_00", speech_s=1)
    segment = recordings.Segment(
        id=new_id(),
        speaker="SPEAKER_00",
        position=0,
        start_s=0,
        end_s=1,
        text=f"said {word}",
        confidence=1,
        words=[{"word": word}],
        emotion=None,
    )
    await recordings.replace_segments(
        conn, org_id=caller.org_id, recording_id=recording.id, speakers=[speaker], segments=[segment]
    )
    return recording.id, segment.id


async def _document(conn: Connection, caller: Principal, word: str) -> UUID:
    document_id = new_id()
    described = documents.Described(
        title=word,
        filename=f"{word}.txt",
        sha256=hashlib.sha256(document_id.bytes).hexdigest(),
        source=None,
        tags=[word],
        metadata={},
        unread_pages=[],
    )
    file = documents.File(described=described, media_type="text/plain", bytes=1, pages=None)
    await documents.insert(
        conn,
        org_id=caller.org_id,
        user_id=caller.user_id,
        document_id=document_id,
        file=file,
        visibility="organisation",
    )
    passage = NewMemory(
        content=f"passage {word}", embedding=unit_vector(), embedding_model="m", document_id=document_id, position=0
    )
    await documents.add_chunks(
        conn, org_id=caller.org_id, user_id=caller.user_id, document_id=document_id, items=[(1, passage)]
    )
    return document_id


async def _knowledge(conn: Connection, org_id: UUID, memory_id: UUID, word: str) -> None:
    things = [
        knowledge.FoundThing(key=name, name=name, type="person", surfaces=[name], places=[(0, 1)])
        for name in (word, f"{word} the second")
    ]
    relation = knowledge.FoundRelation(
        subject=0,
        predicate="knows",
        object=1,
        negated=False,
        modal=None,
        reported=False,
        sentence=f"{word} knows {word} the second.",
        start=0,
        end=1,
    )
    facts = knowledge.Facts(memory_id=memory_id, content_mac=1, things=things, relations=[relation])
    await knowledge.replace(conn, org_id=org_id, extractor="e", read=[facts])


async def _task(conn: Connection, caller: Principal, word: str) -> UUID:
    task = tasks.NewTask(
        id=new_id(),
        user_id=caller.user_id,
        request_id="r",
        engine="embedding",
        payload=f'{{"texts": ["{word}"]}}'.encode(),
        priority="normal",
        max_attempts=3,
        timeout_s=None,
        idempotency_key=None,
        fingerprint=b"f",
        run_at=None,
    )
    await tasks.insert(conn, org_id=caller.org_id, task=task)
    attempt = await tasks.start(conn, task.id, interrupted=0)
    assert await tasks.succeed(conn, task.id, attempt=attempt, data=f'"{word}"'.encode())
    return task.id
