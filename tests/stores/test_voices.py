"""Voices in the database: whose they are, what of them can be read, how names come to recordings and go again."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from neuroedge.contract.ports import NewMemory
from neuroedge.contract.principal import Principal
from neuroedge.stores import memories, recording_voices, recordings, voice_relabels, voices
from neuroedge.stores.ids import new_id
from neuroedge.stores.postgres import Database
from neuroedge.stores.recordings import Recording, Segment, Speaker
from neuroedge.stores.voices import Consent, NewVoice, Voice
from tests.stores.conftest import new_principal

pytestmark = pytest.mark.anyio
WORD = "Quirinus"


def consent(*purposes: str, minor: bool = False) -> Consent:
    """What somebody agreed to."""
    return Consent(
        given_by=WORD,
        at=datetime(2026, 1, 2, tzinfo=UTC),
        purposes=purposes or ("verify", "identify", "label_recordings"),  # type: ignore[arg-type]
        text_version="2026-01",
        minor=minor,
        guardian="mother" if minor else None,
    )


async def enrol(
    db: Database,
    caller: Principal,
    *,
    name: str = WORD,
    external_id: str | None = None,
    agreed: Consent | None = None,
    days: float = 1,
    seed: int = 1,
    model: str = "m/1",
) -> Voice:
    """A voice with one sample."""
    vector = np.random.default_rng(seed).normal(size=256).astype(np.float32)
    new = NewVoice(
        name=name,
        consent=agreed or consent(),
        expires_at=datetime.now(UTC) + timedelta(days=days),
        external_id=external_id,
        labels={"team": WORD},
    )
    async with db.tenant(caller) as conn:
        voice = await voices.insert(conn, org_id=caller.org_id, user_id=caller.user_id, new=new)
        await voices.add_print(
            conn,
            org_id=caller.org_id,
            voice_id=voice.id,
            model=model,
            vector=vector / np.linalg.norm(vector),
            quality={"speech_s": 8.0, "about": WORD},
        )
    return voice


async def recording_of(db: Database, caller: Principal, voice_id: UUID | None) -> UUID:
    """A finished recording of two speakers, the first of them the voice, with a private memory of each segment."""
    recording = Recording(
        id=new_id(),
        user_id=caller.user_id,
        title="call",
        context=None,
        filename="call.wav",
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
    speakers = [
        Speaker(id=new_id(), label="S1", speech_s=1, voice_id=voice_id, voice_llr=7.5 if voice_id else None),
        Speaker(id=new_id(), label="S2", speech_s=1),
    ]
    segments = [
        Segment(
            id=new_id(),
            speaker=label,
            position=position,
            start_s=position,
            end_s=position + 1,
            text=f"words of {label}",
            confidence=1,
            words=[],
            emotion=None,
        )
        for position, label in enumerate(("S1", "S2", "S1"))
    ]
    async with db.tenant(caller) as conn:
        await recordings.insert(conn, org_id=caller.org_id, recording=recording)
        await recordings.replace_segments(
            conn, org_id=caller.org_id, recording_id=recording.id, speakers=speakers, segments=segments
        )
        await recordings.finish(conn, recording.id)
        items = [
            NewMemory(
                content=segment.text,
                embedding=np.eye(1, 384, dtype=np.float32)[0],
                embedding_model="m",
                memory_type="segment",
                metadata={"speaker": segment.speaker, "start_s": segment.start_s, "mine": 1},
                recording_id=recording.id,
                segment_id=segment.id,
                visibility="private",
            )
            for segment in segments
        ]
        await memories.insert(conn, org_id=caller.org_id, user_id=caller.user_id, items=items)
    return recording.id


async def said(db: Database, caller: Principal, recording_id: UUID) -> list[str]:
    """What the memories of a recording call its speakers, in order of time."""
    async with db.tenant(caller, sees_all=True) as conn:
        cursor = await conn.execute("SELECT id FROM memories WHERE recording_id = %s", [recording_id])
        ids = [row["id"] for row in await cursor.fetchall()]
        found = await memories.find(conn, org_id=caller.org_id, ids=ids)
    assert all(memory.metadata["mine"] == 1 for memory in found)
    return [m.metadata["speaker"] for m in sorted(found, key=lambda m: m.metadata["start_s"])]


async def settle(db: Database, caller: Principal, recording_id: UUID) -> int:
    """Let memories say what the speakers are called; how many were changed."""
    changed, after = 0, None
    while True:
        async with db.tenant(caller, sees_all=True) as conn:
            count, after = await recording_voices.rename(
                conn, org_id=caller.org_id, recording_id=recording_id, after=after, limit=2
            )
            changed += count
            if after is None:
                await recording_voices.forget_gone(conn, recording_id)
                return changed


async def test_another_organisation_sees_no_voice_and_changes_none(db: Database) -> None:
    """Neither by id, nor by the id of another system, nor in a list; what it deletes is nothing."""
    mine, theirs = await new_principal(db), await new_principal(db)
    voice = await enrol(db, mine, external_id="e1")
    async with db.tenant(theirs) as conn:
        assert await voices.find(conn, voice.id) is None
        assert await voices.by_external_id(conn, "e1") is None
        assert await voices.page(conn, limit=9, before=None) == []
        assert await voices.prints(conn, voice.id) == []
        assert await voices.enrolled(conn, model="m/1", purpose="verify") == []
        assert await voices.names(conn, [voice.id]) == {}
        assert not await voices.delete(conn, voice.id)
        assert not await voices.update(conn, replace(voice, name="x"))
    async with db.tenant(mine) as conn:
        assert await voices.by_external_id(conn, "e1") is not None


async def test_nothing_of_a_voice_can_be_read_in_the_database(db: Database) -> None:
    """Name, consent, labels, ids and numbers of the vector are sealed; it opens in its place only."""
    caller = await new_principal(db)
    voice = await enrol(db, caller, external_id=f"id of {WORD}")
    async with db.tenant(caller) as conn:
        for table in ("voices", "voiceprints"):
            row = await (await conn.execute(f"SELECT {table}::text AS t, sealed FROM {table}")).fetchone()
            assert row is not None
            assert WORD not in row["t"]
            assert WORD.encode() not in bytes(row["sealed"])
        found = await voices.find(conn, voice.id)
        assert found == replace(voice, prints=1)
        assert found.consent == consent()


async def test_only_what_was_agreed_to_is_compared(db: Database) -> None:
    """By purpose and by encoder; vectors come back as they were, with their seconds."""
    caller = await new_principal(db)
    await enrol(db, caller, name="both", agreed=consent("verify", "identify"))
    await enrol(db, caller, name="one", agreed=consent("verify"), seed=2)
    await enrol(db, caller, name="old", model="m/0", seed=3)
    async with db.tenant(caller) as conn:
        verify = await voices.enrolled(conn, model="m/1", purpose="verify")
        assert [v.name for v in verify] == ["both", "one"]
        assert [v.name for v in await voices.enrolled(conn, model="m/1", purpose="identify")] == ["both"]
        assert await voices.enrolled(conn, model="m/1", purpose="label_recordings") == []
    assert verify[0].vectors.shape == (1, 256)
    assert np.linalg.norm(verify[0].vectors) == pytest.approx(1.0, abs=1e-6)
    assert list(verify[0].speech_s) == [8.0]


async def test_a_voice_whose_time_is_over_is_not_there(db: Database) -> None:
    """For nobody and nothing; the sweep's look across organisations finds whose it is."""
    caller = await new_principal(db)
    voice = await enrol(db, caller, days=-1, external_id="e2")
    async with db.tenant(caller) as conn:
        assert await voices.find(conn, voice.id) is None
        assert await voices.by_external_id(conn, "e2") is None
        assert await voices.enrolled(conn, model="m/1", purpose="verify") == []
        assert await voices.names(conn, [voice.id]) == {}
    async with db.unbound() as conn:
        assert caller.org_id in await voices.organisations_with_stale(conn)
    async with db.tenant(caller) as conn:
        assert await voices.delete_expired(conn, limit=9) == [voice.id]
    async with db.unbound() as conn:
        assert caller.org_id not in await voices.organisations_with_stale(conn)


async def test_a_recordings_speakers_get_names_and_lose_them(db: Database) -> None:
    """Transcript at once, memories when they are settled: after naming, renaming, deleting; again changes nothing."""
    caller = await new_principal(db)
    voice = await enrol(db, caller, name="Ann")
    recording_id = await recording_of(db, caller, None)
    async with db.tenant(caller) as conn:
        assert await recording_voices.assign(conn, recording_id=recording_id, found={"S1": (voice.id, 7.5)}) == 1
        assert [s.speaker for s in await recordings.segments(conn, recording_id)] == ["Ann", "S2", "Ann"]
        assert await recording_voices.of_voice(conn, voice.id) == [recording_id]
    assert await settle(db, caller, recording_id) == 2
    assert await said(db, caller, recording_id) == ["Ann", "S2", "Ann"]
    assert await settle(db, caller, recording_id) == 0
    async with db.tenant(caller) as conn:
        await voices.update(conn, replace(voice, name="Anna"))
    assert await settle(db, caller, recording_id) == 2
    assert await said(db, caller, recording_id) == ["Anna", "S2", "Anna"]
    async with db.tenant(caller) as conn:
        assert await voices.delete(conn, voice.id)
        assert [s.speaker for s in await recordings.segments(conn, recording_id)] == ["S1", "S2", "S1"]
        assert await recording_voices.of_gone_voices(conn, limit=9) == [recording_id]
    async with db.unbound() as conn:
        assert caller.org_id in await voices.organisations_with_stale(conn)
    assert await settle(db, caller, recording_id) == 2
    assert await said(db, caller, recording_id) == ["S1", "S2", "S1"]
    async with db.tenant(caller) as conn:
        assert await recording_voices.of_gone_voices(conn, limit=9) == []


async def test_a_name_needs_the_consent_to_it(db: Database) -> None:
    """Who agreed to verification only is S1 in recordings, and forgotten there."""
    caller = await new_principal(db)
    voice = await enrol(db, caller, agreed=consent("verify"))
    recording_id = await recording_of(db, caller, voice.id)
    async with db.tenant(caller) as conn:
        first = (await recordings.speakers(conn, recording_id))[0]
        assert (first.name, first.voice_id, first.voice_llr) == (None, None, None)
        assert await recording_voices.forget_gone(conn, recording_id) == 1


async def test_a_naming_run_goes_on_where_it_stopped(db: Database) -> None:
    """From old to new, each recording once; an order for what already waits is the same order."""
    caller, stranger = await new_principal(db), await new_principal(db)
    first, second = await recording_of(db, caller, None), await recording_of(db, caller, None)
    order: dict[str, Any] = {"org_id": caller.org_id, "user_id": caller.user_id, "recording_id": None}
    async with db.tenant(caller) as conn:
        run = await voice_relabels.insert(conn, **order)
        assert (await voice_relabels.insert(conn, **order)).id == run.id
        assert run.total == 2
    async with db.tenant(caller) as conn:
        started = await voice_relabels.start(conn, run.id)
        assert started is not None
        assert await voice_relabels.next_recording(conn, started) == first
        await voice_relabels.advance(conn, run.id, recording_id=first, labelled=2, skipped=False)
    async with db.tenant(caller) as conn:
        again = await voice_relabels.start(conn, run.id)
        assert again is not None
        assert await voice_relabels.next_recording(conn, again) == second
        done = await voice_relabels.advance(conn, run.id, recording_id=second, labelled=0, skipped=True)
        assert done is not None
        assert await voice_relabels.next_recording(conn, done) is None
        await voice_relabels.finish(conn, run.id)
        assert await voice_relabels.start(conn, run.id) is None
        found = await voice_relabels.find(conn, run.id)
    assert found is not None
    assert (found.state, found.done, found.labelled, found.skipped) == ("done", 2, 2, 1)
    async with db.tenant(stranger) as conn:
        assert await voice_relabels.find(conn, run.id) is None


async def test_a_waiting_run_takes_in_what_was_recorded_before_it_was_ordered_again(db: Database) -> None:
    """As a new order would; one that has begun is not changed, and another one waits behind it."""
    caller = await new_principal(db)
    order: dict[str, Any] = {"org_id": caller.org_id, "user_id": caller.user_id, "recording_id": None}
    first = await recording_of(db, caller, None)
    async with db.tenant(caller) as conn:
        run = await voice_relabels.insert(conn, **order)
    second = await recording_of(db, caller, None)
    async with db.tenant(caller) as conn:
        again = await voice_relabels.insert(conn, **order)
    assert (again.id, again.total) == (run.id, 2)
    assert again.created_at > run.created_at
    third = await recording_of(db, caller, None)
    async with db.tenant(caller) as conn:
        started = await voice_relabels.start(conn, run.id)
        later = await voice_relabels.insert(conn, **order)
        one = await voice_relabels.insert(conn, **(order | {"recording_id": third}))
        heard = []
        while started is not None and (found := await voice_relabels.next_recording(conn, started)) is not None:
            heard.append(found)
            started = await voice_relabels.advance(conn, run.id, recording_id=found, labelled=0, skipped=False)
    assert heard == [first, second]
    assert len({run.id, later.id, one.id}) == 3
    assert (later.total, one.total) == (3, 1)
