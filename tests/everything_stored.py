"""Rows in every table of a tenant, through the stores, for tests that must leave none out."""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import numpy as np

from neuroedge.contract.ports import NewMemory
from neuroedge.contract.principal import Principal
from neuroedge.kit.artifact_checks import Check
from neuroedge.stores import (
    accounts,
    api_keys,
    artifacts,
    batches,
    chat_attachments,
    chat_messages,
    chat_sessions,
    checkpoints,
    documents,
    federated,
    files,
    images,
    knowledge,
    learners,
    ledgers,
    llm_budgets,
    llm_providers,
    memories,
    policies,
    privacy,
    recordings,
    reviews,
    safety,
    switches,
    tasks,
    trained,
    turns,
    voice_relabels,
    voices,
)
from neuroedge.stores.ids import new_id
from neuroedge.stores.ledgers import UsageRow, UsageTable
from neuroedge.stores.llm_calls import Begun, CallTable
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
        await _api_key(conn, caller)
        await _llm(conn, caller, word)
        await ledgers.add_audit(conn, org_id=org_id, user_id=caller.user_id, request_id="r", action="a", target="t")
        recording_id, segment_id = await _recording(conn, caller, word)
        document_id = await store_document(conn, caller, word)
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
        await _chat(conn, caller, word)
        await _safety(conn, caller, word)
        await switches.set_switch(
            conn,
            org_id=org_id,
            name="voice_emotion",
            allowed=True,
            purpose=word,
            ground="other",
            changed_by=caller.user_id,
        )
        await switches.set_glossary(conn, org_id=org_id, terms=[word], changed_by=caller.user_id)
        await _voice(conn, caller, word)
        await _artifact(conn, caller, word)
        await files.insert(
            conn,
            org_id=org_id,
            user_id=caller.user_id,
            file_id=new_id(),
            filename=f"{word}.jsonl",
            purpose="batch",
            size_bytes=1,
            expires_at=None,
        )
        await _image(conn, caller, word)
        await _learner(conn, caller, word)
        await _federation(conn, caller, word)
        await _recommender(conn, caller, word)
        await trained.insert(
            conn,
            org_id=org_id,
            user_id=caller.user_id,
            model_id=new_id(),
            name=word,
            kind="classification",
            card={"target": word},
            size_bytes=1,
            sha256="0",
        )
        task_id = await _task(conn, caller, word)
        await _batch(conn, caller, word)
        await conn.execute(
            "INSERT INTO rebuilds (org_id, id, model, words) VALUES (%s, %s, 'm', true) ON CONFLICT DO NOTHING",
            [org_id, new_id()],
        )
        await privacy.add_export(conn, org_id=org_id, user_id=caller.user_id, requested_by=caller.user_id)
        await privacy.add_erasure(conn, org_id=org_id, user_id=new_id(), account=False, requested_by=caller.user_id)
    await _llm_call(db, caller)
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


async def _llm(conn: Connection, caller: Principal, word: str) -> None:
    settings = {"wire": "openai", "base_url": "https://example.org/v1", "models": [{"name": "m"}]}
    await llm_providers.insert(
        conn, org_id=caller.org_id, name=f"p{new_id().hex}", settings=settings, api_key=f"sk-{word}-0123456789abcdef"
    )
    preferences = llm_providers.StoredPreferences(default_model=None, local_only=True, fallback=[], by_query_type={})
    await llm_providers.set_preferences(conn, caller.org_id, preferences)
    budget = llm_budgets.Budget(scope="organisation", period="day", soft_usd=Decimal(1), hard_usd=Decimal(2))
    await llm_budgets.replace(conn, caller.org_id, [budget], periods=[])


async def _llm_call(db: Database, caller: Principal) -> None:
    call = Begun(
        id=new_id(),
        user_id=caller.user_id,
        request_id="r",
        provider="p",
        model="m",
        query_type="chat",
        private=False,
        prompt_tokens=1,
        prompt_usd_per_million=Decimal(1),
        completion_usd_per_million=Decimal(1),
        price_source="s",
        price_date=None,
        reserved_usd=Decimal(1),
        started_at=datetime.now(UTC),
    )
    table = CallTable(db, to_disk=False)
    await table.begin(caller.org_id, [call], lease_s=3600)
    await table.close()


async def _api_key(conn: Connection, caller: Principal) -> None:
    await api_keys.insert(
        conn,
        org_id=caller.org_id,
        user_id=caller.user_id,
        name="k",
        prefix=new_id().hex[-12:],
        secret_hash=hashlib.sha256(new_id().bytes).digest(),
        scopes=["read"],
        models=None,
        engines=None,
        expires_at=None,
    )


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


async def store_document(conn: Connection, caller: Principal, word: str) -> UUID:
    """A document of one passage."""
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
    [said] = await knowledge.contents(conn, org_id=org_id, ids=[memory_id])
    facts = knowledge.Facts(memory_id=memory_id, content_mac=said.mac, things=things, relations=[relation])
    await knowledge.replace(conn, org_id=org_id, extractor="e", read=[facts])


async def _recommender(conn: Connection, caller: Principal, word: str) -> None:
    made = await policies.insert(conn, org_id=caller.org_id, name=word, settings={}, state={"models": {word: 1}})
    assert made is not None
    choice = policies.Choice(id=new_id(), item=word, context=[], propensity=1.0, reward=None)
    await policies.add_choice(conn, org_id=caller.org_id, of=made.id, choice=choice, keep=10)


async def _federation(conn: Connection, caller: Principal, word: str) -> None:
    org_id = caller.org_id
    kept = await federated.insert(conn, org_id=org_id, federation_id=new_id(), told={"name": word})
    client, _ = await federated.add_client(
        conn, org_id=org_id, federation_id=kept.id, name=word, public_key=f"key of {word}"
    )
    opened = await federated.open_round(
        conn,
        org_id=org_id,
        federation_id=kept.id,
        phase="update",
        deadline=datetime.now(UTC) + timedelta(hours=1),
        told={"base_version": 0, "note": word},
    )
    assert opened is not None
    await federated.add_message(
        conn, org_id=org_id, round_id=opened.id, client_id=client.id, kind="update", told={"payload": word}
    )


async def _image(conn: Connection, caller: Principal, word: str) -> None:
    said = images.Said(filename=f"{word}.png", title=word, perceptual_hash="0" * 16, method="m", model=None)
    new = images.NewImage(
        id=new_id(),
        visibility="private",
        media_type="image/png",
        width_px=1,
        height_px=1,
        bytes=1,
        sha256=new_id().hex,
        space="m",
        vector=unit_vector(272),
        said=said,
    )
    assert await images.insert(conn, org_id=caller.org_id, user_id=caller.user_id, new=new)


async def _learner(conn: Connection, caller: Principal, word: str) -> None:
    consents = [{"granted": True, "by": "school", "policy": word}]
    kept = await learners.save(conn, org_id=caller.org_id, name=word, consented=True, consents=consents)
    event = learners.NewEvent(name=f"e {word}", kind="answer", at=datetime.now(UTC), body={"item": word})
    await learners.add_events(conn, org_id=caller.org_id, learner=kept.id, items=[event])


async def _safety(conn: Connection, caller: Principal, word: str) -> None:
    org_id, user_id = caller.org_id, caller.user_id
    await safety.set_policy(conn, org_id=org_id, policy={}, changed_by=user_id)
    decision_id = await safety.add_decision(
        conn, org_id=org_id, user_id=user_id, request_id="r", stage="output", action="flag", reasons=[], chars=1
    )
    review = await reviews.insert(
        conn,
        org_id=org_id,
        user_id=user_id,
        source="rule",
        kind="output",
        ref=str(decision_id),
        content=f"answered {word}",
        reason=word,
        decision_id=decision_id,
    )
    await reviews.add_step(conn, org_id=org_id, review_id=review.id, step="opened", by_user=user_id, note=word)


async def _voice(conn: Connection, caller: Principal, word: str) -> None:
    org_id, user_id = caller.org_id, caller.user_id
    agreed = voices.Consent(
        given_by=word, at=datetime.now(UTC), purposes=("verify",), text_version=word, minor=True, guardian=word
    )
    new = voices.NewVoice(
        name=word,
        consent=agreed,
        expires_at=datetime.now(UTC) + timedelta(days=1),
        external_id=f"{word}{new_id()}",
        labels={word: word},
    )
    voice = await voices.insert(conn, org_id=org_id, user_id=user_id, new=new)
    await voices.add_print(
        conn,
        org_id=org_id,
        voice_id=voice.id,
        model="m",
        vector=unit_vector(256),
        quality={"speech_s": 9.0, "of": word},
    )
    await voice_relabels.insert(conn, org_id=org_id, user_id=user_id, recording_id=None)


async def _artifact(conn: Connection, caller: Principal, word: str) -> None:
    named = artifacts.Named(title=word, tags=[word], format="python", schema=None, slides=None)
    new = artifacts.New(
        id=new_id(), user_id=caller.user_id, visibility="private", type="code", named=named, request={"do": word}
    )
    await artifacts.insert(conn, org_id=caller.org_id, new=new)
    await artifacts.add_version(
        conn,
        org_id=caller.org_id,
        artifact=new.id,
        version_id=new_id(),
        author_id=caller.user_id,
        origin="generated",
        written=artifacts.Written(content=f"# {word}", sha256="0", checks=[Check("parses", True, word)], note=word),
        valid=True,
        blob=None,
    )
    await artifacts.set_request(conn, new.id, {"instruction": word})


async def _chat(conn: Connection, caller: Principal, word: str) -> None:
    org_id, user_id = caller.org_id, caller.user_id
    session = await chat_sessions.insert(
        conn,
        org_id=org_id,
        user_id=user_id,
        session_id=new_id(),
        said=chat_sessions.Said(title=f"chat {word}"),
        visibility="private",
    )
    message = chat_messages.NewMessage(
        id=new_id(),
        session_id=session.id,
        parent_id=None,
        role="assistant",
        state="done",
        body=chat_messages.Body(content=f"answered {word}"),
    )
    await chat_messages.insert(conn, org_id=org_id, user_id=user_id, items=[message])
    await chat_messages.set_feedback(conn, message.id, chat_messages.Feedback(rating="up", comment=word))
    attachment = chat_attachments.NewAttachment(
        id=new_id(),
        session_id=session.id,
        filename=f"{word}.txt",
        unread_pages=[],
        kind="text",
        media_type="text/plain",
        bytes=1,
        pages=None,
    )
    await chat_attachments.insert(conn, org_id=org_id, user_id=user_id, item=attachment)
    assert await chat_attachments.finish(conn, attachment.id, text=f"attached {word}")
    turn_id = new_id()
    assert await turns.insert(
        conn,
        org_id=org_id,
        user_id=user_id,
        turn_id=turn_id,
        session_id=session.id,
        worker=new_id(),
        idempotency_key=None,
        fingerprint=b"f",
    )
    data = f"state {word}".encode()
    await checkpoints.put(
        conn, org_id=org_id, user_id=user_id, thread_id=turn_id, checkpoint_id="c", parent_id=None, data=data
    )
    write = checkpoints.Write(task_id="t", idx=0, data=data)
    await checkpoints.put_writes(
        conn, org_id=org_id, user_id=user_id, thread_id=turn_id, checkpoint_id="c", writes=[write]
    )


async def _batch(conn: Connection, caller: Principal, word: str) -> None:
    batch = batches.NewBatch(
        id=new_id(),
        user_id=caller.user_id,
        request_id="r",
        priority="normal",
        idempotency_key=None,
        fingerprint=b"f",
    )
    item = batches.NewItem(name=word, engine="embedding", payload={"texts": [word]})
    assert await batches.insert(conn, org_id=caller.org_id, batch=batch, items=[item])
    await batches.start(conn, batch.id)
    taken = await batches.take(conn, batch.id, limit=1)
    outcome = {"result": {"text": word}}
    assert await batches.finish_item(conn, batch.id, taken[0].id, state="succeeded", outcome=outcome)


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
