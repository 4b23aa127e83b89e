"""Enrolment, comparison, naming and forgetting over a real database; the speaker engine is told what it hears."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from neuroedge.contract.errors import Conflict, InvalidInput, NotFound
from neuroedge.contract.models import Floats
from neuroedge.contract.ports import AudioSource
from neuroedge.contract.principal import Principal
from neuroedge.contract.speaker import SpeechQuality, VoiceCandidate, VoicePartAnswer
from neuroedge.engines.speech.speaker import Output
from neuroedge.kit.speaker_calibration import calibration_of
from neuroedge.services.voice_drafts import ConsentDraft, ConsentRequired, VoiceChanges, VoiceDraft
from neuroedge.services.voice_naming import MAX_STARTS, RELABEL_TASK, RENAME_TASK, VoiceNaming
from neuroedge.services.voices import SampleRefused, Voices
from neuroedge.stores import recordings, voices
from neuroedge.stores.ids import new_id
from neuroedge.stores.postgres import Database
from tests.stores.conftest import new_principal
from tests.stores.test_voices import enrol, recording_of, said

pytestmark = pytest.mark.anyio
GOOD: dict[str, Any] = {"speech_s": 8.0, "snr_db": 30.0, "clipping_percent": 0.0, "other_speech_s": 0.0}


def somebody(seed: int) -> Floats:
    """The vector of a person, far from every other one's."""
    calibration = calibration_of("resemblyzer-ge2e")
    assert calibration is not None
    away = np.random.default_rng(seed).normal(size=256)
    return (calibration.centre + away / np.linalg.norm(away)).astype(np.float32)


class _Runner:
    """The runner of an engine that hears what the blob's name says."""

    def __init__(self) -> None:
        self.heard: dict[str, tuple[dict[str, Any], Floats | None]] = {}
        self.parts: list[VoicePartAnswer] = []
        self.payloads: list[dict[str, Any]] = []
        self.fingerprint = "f"
        self.contexts = SimpleNamespace(blobs=lambda principal: None)

    def context(self, principal: Principal, *, request_id: str) -> Any:
        """A context with the encoder's status."""
        status = SimpleNamespace(id="resemblyzer-ge2e", fingerprint=self.fingerprint)
        return SimpleNamespace(models=SimpleNamespace(status=lambda ref: status))

    async def run(self, name: str, payload: Any, *, principal: Principal, request_id: str) -> Output:
        """What was told."""
        assert name == "speaker"
        self.payloads.append(payload)
        if self.parts:
            return _output(self.parts)
        audio = payload["audio"]
        quality, vector = self.heard[str(audio.blob)]
        answer = _output([_part(quality)])
        if vector is not None:
            answer.vectors["audio"] = vector
        return answer


class _Queue:
    """Keeps what is queued."""

    def __init__(self) -> None:
        self.jobs: list[tuple[str, dict[str, Any]]] = []

    async def defer(self, conn: Any, task: str, *, args: dict[str, Any], **_: Any) -> int:
        """Remember the job."""
        self.jobs.append((task, args))
        return 1


def _part(quality: dict[str, Any], **more: Any) -> VoicePartAnswer:
    told = SpeechQuality(**{**GOOD, **quality}, flaws=[])
    return VoicePartAnswer(
        **{
            "id": "audio",
            "quality": told,
            "candidates": [],
            "identified": None,
            "reliable": True,
            "warnings": [],
            **more,
        }
    )


def _output(parts: list[VoicePartAnswer]) -> Output:
    return Output(method="m", models=[], parts=parts, voices=[], compared=1, calibration=None)


class Bench:
    """The services over a database."""

    def __init__(self, db: Database) -> None:
        self.db, self.runner, self.queue = db, _Runner(), _Queue()
        runner: Any = self.runner
        queue: Any = self.queue
        self.naming = VoiceNaming(db=db, runner=runner, queue=queue)
        self.voices = Voices(db=db, runner=runner, naming=self.naming)

    def sample(self, vector: Floats | None, **quality: Any) -> AudioSource:
        """A sample that is heard like this."""
        name = f"scratch/{new_id()}"
        self.runner.heard[name] = ({**GOOD, **quality}, vector)
        return AudioSource(blob=name)

    async def audited(self, caller: Principal) -> list[str]:
        """Actions in the audit log, in order."""
        async with self.db.tenant(caller) as conn:
            cursor = await conn.execute("SELECT action FROM audit WHERE action LIKE 'voice%' ORDER BY id")
            return [row["action"] for row in await cursor.fetchall()]


def _draft(**more: Any) -> VoiceDraft:
    agreed = ConsentDraft.model_validate(
        {
            "given_by": "Ann",
            "at": (datetime.now(UTC) - timedelta(days=1)).isoformat(),
            "purposes": ["verify", "identify", "label_recordings"],
            "text_version": "1",
            "minor": False,
        }
    )
    return VoiceDraft(**{"name": "Ann", "consent": agreed, **more})


async def test_a_voice_is_enrolled_changed_and_forgotten(db: Database) -> None:
    """With an audit row for each, and a job that tells recordings of another name and of the end."""
    bench, caller = Bench(db), await new_principal(db)
    detail = await bench.voices.enrol(caller, _draft(), [bench.sample(somebody(1))], request_id="r")
    voice_id = detail.voice.id
    assert (detail.voice.name, len(detail.samples), detail.usable) == ("Ann", 1, True)
    assert detail.voice.expires_at > datetime.now(UTC) + timedelta(days=364)
    detail = await bench.voices.add_samples(caller, voice_id, [bench.sample(somebody(1))], request_id="r")
    assert len(detail.samples) == 2
    await bench.voices.delete_sample(caller, voice_id, detail.samples[0].id, request_id="r")
    changed = await bench.voices.change(caller, voice_id, VoiceChanges(name="Anna", keep_days=2), request_id="r")
    assert changed.voice.name == "Anna"
    assert changed.voice.expires_at < datetime.now(UTC) + timedelta(days=3)
    await bench.voices.delete(caller, voice_id, request_id="r")
    assert [task for task, _ in bench.queue.jobs] == [RENAME_TASK] * 2
    with pytest.raises(NotFound):
        await bench.voices.get(caller, voice_id, request_id="r")
    assert await bench.audited(caller) == [
        "voice.enrolled",
        "voice.sample_added",
        "voice.sample_deleted",
        "voice.changed",
        "voice.deleted",
    ]


async def test_without_consent_nothing_is_heard_or_kept(db: Database) -> None:
    """Nor for a child without a guardian, nor by a consent of tomorrow."""
    bench, caller = Bench(db), await new_principal(db)
    sample = [bench.sample(somebody(1))]
    with pytest.raises(ConsentRequired, match="only with that person's consent"):
        await bench.voices.enrol(caller, _draft(consent=None), sample, request_id="r")
    agreed = _draft().consent
    assert agreed is not None
    child = agreed.model_copy(update={"minor": True})
    with pytest.raises(ConsentRequired, match="guardian"):
        await bench.voices.enrol(caller, _draft(consent=child), sample, request_id="r")
    late = agreed.model_copy(update={"at": datetime.now(UTC) + timedelta(days=1)})
    with pytest.raises(InvalidInput, match="future"):
        await bench.voices.enrol(caller, _draft(consent=late), sample, request_id="r")
    assert bench.runner.payloads == []
    assert await bench.voices.page(caller, limit=9) == []
    guarded = child.model_copy(update={"guardian": "Eve, mother"})
    kept = await bench.voices.enrol(caller, _draft(consent=guarded), sample, request_id="r")
    assert kept.voice.consent.guardian == "Eve, mother"


@pytest.mark.parametrize(
    ("quality", "code"),
    [
        ({"speech_s": 1.0}, "too_little_speech"),
        ({"other_speech_s": 3.0}, "several_speakers"),
        ({"snr_db": 2.0}, "too_noisy"),
        ({"clipping_percent": 4.0}, "clipped"),
    ],
)
async def test_a_bad_sample_is_refused_with_its_number(db: Database, quality: dict[str, Any], code: str) -> None:
    """Nothing of the good one beside it is kept."""
    bench, caller = Bench(db), await new_principal(db)
    samples = [bench.sample(somebody(1)), bench.sample(somebody(1), **quality)]
    with pytest.raises(SampleRefused, match="sample 2") as refused:
        await bench.voices.enrol(caller, _draft(), samples, request_id="r")
    assert refused.value.code == "voice_sample_refused"
    assert [(e["loc"], e["type"]) for e in refused.value.errors] == [(("samples", 1), code)]
    assert await bench.voices.page(caller, limit=9) == []


async def test_short_samples_must_add_up(db: Database) -> None:
    """3.5 s are a sample but no voice; twice that is."""
    bench, caller = Bench(db), await new_principal(db)
    with pytest.raises(SampleRefused, match=r"3\.5 s of speech in all"):
        await bench.voices.enrol(caller, _draft(), [bench.sample(somebody(1), speech_s=3.5)], request_id="r")
    two = [bench.sample(somebody(1), speech_s=3.5) for _ in range(2)]
    assert len((await bench.voices.enrol(caller, _draft(), two, request_id="r")).samples) == 2


async def test_a_sample_of_somebody_else_is_refused(db: Database) -> None:
    """At enrolment and later."""
    bench, caller = Bench(db), await new_principal(db)
    mixed = [bench.sample(somebody(1)), bench.sample(-somebody(1))]
    with pytest.raises(SampleRefused, match="does not sound like"):
        await bench.voices.enrol(caller, _draft(), mixed, request_id="r")
    detail = await bench.voices.enrol(caller, _draft(), [bench.sample(somebody(1))], request_id="r")
    with pytest.raises(SampleRefused) as refused:
        await bench.voices.add_samples(caller, detail.voice.id, [bench.sample(-somebody(1))], request_id="r")
    assert refused.value.errors[0]["type"] == "another_speaker"


async def test_an_external_id_is_one_voice(db: Database) -> None:
    """The same again adds a sample without asking for consent anew; a second voice with it contradicts the first."""
    bench, caller, stranger = Bench(db), await new_principal(db), await new_principal(db)
    draft = _draft(external_id="speaker-7")
    first = await bench.voices.enrol_external(caller, draft, [bench.sample(somebody(1))], request_id="r")
    again = _draft(external_id="speaker-7", consent=None)
    second = await bench.voices.enrol_external(caller, again, [bench.sample(somebody(1))], request_id="r")
    assert (second.voice.id, len(second.samples)) == (first.voice.id, 2)
    with pytest.raises(Conflict):
        await bench.voices.enrol(caller, draft, [bench.sample(somebody(1))], request_id="r")
    other = await bench.voices.enrol(stranger, draft, [bench.sample(somebody(1))], request_id="r")
    assert other.voice.id != first.voice.id
    with pytest.raises(NotFound):
        await bench.voices.get(stranger, first.voice.id, request_id="r")


async def test_the_id_of_an_expired_voice_is_free(db: Database) -> None:
    """The sweep need not have come by."""
    bench, caller = Bench(db), await new_principal(db)
    await enrol(db, caller, external_id="e", days=-1)
    kept = await bench.voices.enrol(caller, _draft(external_id="e"), [bench.sample(somebody(1))], request_id="r")
    assert kept.voice.external_id == "e"


async def test_verification_needs_consent_and_a_voiceprint_of_the_encoder_in_use(db: Database) -> None:
    """The engine is asked about this voice alone; what it decided is in the audit log."""
    bench, caller = Bench(db), await new_principal(db)
    agreed = _draft().consent
    assert agreed is not None
    silent = agreed.model_copy(update={"purposes": ["label_recordings"]})
    one = await bench.voices.enrol(caller, _draft(consent=silent), [bench.sample(somebody(1))], request_id="r")
    with pytest.raises(ConsentRequired, match="did not agree"):
        await bench.voices.verify(caller, one.voice.id, bench.sample(somebody(1)), request_id="r")
    two = await bench.voices.enrol(caller, _draft(), [bench.sample(somebody(1))], request_id="r")
    candidate = VoiceCandidate(
        id=str(two.voice.id), name="Ann", score=0.9, llr=9.0, p_same=0.99, p_candidate=0.99, decision="same"
    )
    bench.runner.parts = [_part({}, candidates=[candidate], identified=str(two.voice.id))]
    found = await bench.voices.verify(caller, two.voice.id, bench.sample(None), request_id="r")
    assert found.candidates[0].decision == "same"
    asked = bench.runner.payloads[-1]
    assert (asked["enrolled"], asked["only"]) == ("verify", [two.voice.id])
    assert (await bench.audited(caller))[-1] == "voice.verified"
    bench.runner.fingerprint = "another"
    with pytest.raises(Conflict, match="another model"):
        await bench.voices.verify(caller, two.voice.id, bench.sample(None), request_id="r")


async def _with_turns(db: Database, caller: Principal, recording_id: UUID) -> None:
    turns = [
        {"speaker": "S1", "start_s": 0.0, "end_s": 1.0},
        {"speaker": "S2", "start_s": 1.0, "end_s": 2.0},
        {"speaker": "S1", "start_s": 2.0, "end_s": 3.0},
    ]
    async with db.tenant(caller) as conn:
        await recordings.save_step(
            conn, org_id=caller.org_id, recording_id=recording_id, step="diarize", output={"turns": turns}, seconds=1
        )


def _recognised(label: str, voice_id: UUID | None) -> VoicePartAnswer:
    if voice_id is None:
        return _part({}, id=label)
    candidate = VoiceCandidate(
        id=str(voice_id), name="Ann", score=0.9, llr=9.0, p_same=0.99, p_candidate=0.99, decision="same"
    )
    return _part({}, id=label, candidates=[candidate], identified=str(voice_id))


async def test_past_recordings_get_names_once(db: Database) -> None:
    """Speakers, transcript and memories, private ones too; the same again changes nothing."""
    bench, caller = Bench(db), await new_principal(db)
    voice = await enrol(db, caller, name="Ann")
    recording_id = await recording_of(db, caller, None)
    await _with_turns(db, caller, recording_id)
    bench.runner.parts = [_recognised("S1", voice.id), _recognised("S2", None)]
    for _ in range(2):
        run = await bench.naming.order(caller, recording_id, request_id="r")
        assert bench.queue.jobs[-1][0] == RELABEL_TASK
        await bench.naming.run(caller, run.id, request_id="r")
        done = await bench.naming.standing(caller, run.id)
        assert (done.state, done.total, done.done, done.labelled) == ("done", 1, 1, 1)
        assert await said(db, caller, recording_id) == ["Ann", "S2", "Ann"]
        await bench.naming.run(caller, run.id, request_id="r")
    assert bench.runner.payloads[-1]["enrolled"] == "label_recordings"
    assert [part["id"] for part in bench.runner.payloads[-1]["parts"]] == ["S1", "S2"]
    async with db.tenant(caller) as conn:
        (first, second) = await recordings.speakers(conn, recording_id)
    assert (first.name, first.voice_id, first.voice_llr) == ("Ann", voice.id, 9.0)
    assert second.name is None


async def test_a_recording_that_cannot_be_heard_is_left_out(db: Database) -> None:
    """One without turns, and one that ended its worker too often; the others are named."""
    bench, caller = Bench(db), await new_principal(db)
    voice = await enrol(db, caller, name="Ann")
    await recording_of(db, caller, None)
    poisoned, good = await recording_of(db, caller, None), await recording_of(db, caller, None)
    for recording_id in (poisoned, good):
        await _with_turns(db, caller, recording_id)
    bench.runner.parts = [_recognised("S1", voice.id)]
    run = await bench.naming.order(caller, None, request_id="r")
    async with db.tenant(caller) as conn:
        first = (await recordings.recent(conn, limit=9))[-1].id
        await conn.execute(
            "UPDATE voice_relabels SET state = 'running', after = %s, done = 1, skipped = 1, starts = %s",
            [first, MAX_STARTS],
        )
    await bench.naming.run(caller, run.id, request_id="r")
    done = await bench.naming.standing(caller, run.id)
    assert (done.state, done.done, done.labelled, done.skipped) == ("done", 3, 1, 2)
    assert await said(db, caller, good) == ["Ann", "S2", "Ann"]


async def test_a_deleted_voice_is_taken_from_recordings(db: Database) -> None:
    """By the job of the deletion; by the sweep where that was lost, and for voices whose time is over."""
    bench, caller = Bench(db), await new_principal(db)
    named = [await enrol(db, caller, name=name, days=1) for name in ("Ann", "Ben", "Cy")]
    kept = [await recording_of(db, caller, voice.id) for voice in named]
    for voice in named:
        await bench.naming.rename(caller.org_id, voice.id)
    assert [(await said(db, caller, r))[0] for r in kept] == ["Ann", "Ben", "Cy"]
    await bench.voices.delete(caller, named[0].id, request_id="r")
    assert await bench.naming.rename(caller.org_id, named[0].id) == 1
    assert await said(db, caller, kept[0]) == ["S1", "S2", "S1"]
    async with db.tenant(caller) as conn:
        await voices.delete(conn, named[1].id)
        await conn.execute("UPDATE voices SET expires_at = now() WHERE id = %s", [named[2].id])
    assert await bench.naming.sweep() >= 3
    assert [(await said(db, caller, r))[0] for r in kept] == ["S1"] * 3
    assert (await bench.audited(caller))[-1] == "voice.expired"
    async with db.unbound() as conn:
        assert caller.org_id not in await voices.organisations_with_stale(conn)


async def test_another_organisation_orders_nothing_here(db: Database) -> None:
    """Neither a run over a recording that is not its own, nor the standing of one."""
    bench, caller, stranger = Bench(db), await new_principal(db), await new_principal(db)
    recording_id = await recording_of(db, caller, None)
    with pytest.raises(NotFound):
        await bench.naming.order(stranger, recording_id, request_id="r")
    run = await bench.naming.order(caller, recording_id, request_id="r")
    with pytest.raises(NotFound):
        await bench.naming.standing(stranger, run.id)
