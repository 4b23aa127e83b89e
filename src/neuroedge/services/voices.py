"""Voices of people: enrolled with their consent, compared, changed, deleted.

A voice is kept as vectors, sealed; the sound is not kept. Without consent nothing is kept or compared, and only what
was agreed to is done with it.
"""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, cast
from uuid import UUID

import numpy as np

from neuroedge.contract.errors import Conflict, InvalidInput, NotFound
from neuroedge.contract.models import SPEAKER_EMBEDDING, Floats
from neuroedge.contract.ports import AudioSource
from neuroedge.contract.principal import Principal
from neuroedge.contract.speaker import VoicePartAnswer
from neuroedge.engines.speech import speaker
from neuroedge.kit.speaker_calibration import calibration_of
from neuroedge.kit.speaker_scores import decide, llr, pooled, score
from neuroedge.kit.voice_quality import MIN_SAMPLE_SPEECH_S, MIN_VOICE_SPEECH_S, Flaw, VoiceQuality, flaws
from neuroedge.services.audit import audited
from neuroedge.services.recordings import Upload
from neuroedge.services.run_engine import EngineRunner
from neuroedge.services.scratch import scratch
from neuroedge.services.voice_drafts import ConsentRequired, VoiceChanges, VoiceDraft
from neuroedge.services.voice_naming import VoiceNaming
from neuroedge.stores import voices
from neuroedge.stores.postgres import Connection, Database
from neuroedge.stores.voices import NewVoice, Voice, Voiceprint

MAX_VOICES: Final = 1000
"""Of one organisation: all of them are compared in each identification."""
MAX_SAMPLES: Final = 20
"""Of one voice."""
Sample = Upload | AudioSource
_LABELS: Final = "label_recordings"


class SampleRefused(InvalidInput):
    """Speech that no voice can be known by; `errors` tells what is wrong with which sample."""

    code = "voice_sample_refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class VoiceDetail:
    """A voice with its samples."""

    voice: Voice
    samples: list[Voiceprint]
    usable: bool
    """Whether a sample was made by the encoder in use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Print:
    vector: Floats
    quality: VoiceQuality


class Voices:
    """The people whose voices the caller's organisation knows."""

    def __init__(self, *, db: Database, runner: EngineRunner, naming: VoiceNaming) -> None:
        self._db = db
        self._runner = runner
        self._naming = naming

    async def enrol(
        self, principal: Principal, draft: VoiceDraft, samples: Sequence[Sample], *, request_id: str
    ) -> VoiceDetail:
        """Keep a person's voice. Raises ConsentRequired, SampleRefused, Conflict, what decoding raises; then nothing is
        kept."""
        consent = draft.agreed()
        prints = await self._heard(principal, samples, request_id=request_id)
        _enough(sum(p.quality.speech_s for p in prints))
        _one_person([p.vector for p in prints], prints, self._model_id(principal, request_id))
        async with self._db.tenant(principal) as conn:
            if await _free(conn, principal.org_id, draft.external_id) >= MAX_VOICES:
                raise Conflict(f"your organisation has {MAX_VOICES} voices already", hint="delete some")
            new = NewVoice(
                name=draft.name,
                consent=consent,
                expires_at=datetime.now(UTC) + timedelta(days=draft.keep_days),
                external_id=draft.external_id,
                labels=draft.labels,
            )
            voice = await voices.insert(conn, org_id=principal.org_id, user_id=principal.user_id, new=new)
            await self._keep(conn, principal, voice.id, prints, request_id)
            await _audit(conn, principal, request_id, "voice.enrolled", voice.id, samples=len(prints))
        return await self.get(principal, voice.id, request_id=request_id)

    async def add_samples(
        self, principal: Principal, voice_id: UUID, samples: Sequence[Sample], *, request_id: str
    ) -> VoiceDetail:
        """Let a voice be known better. Raises NotFound, SampleRefused (another person's too), Conflict."""
        await self.get(principal, voice_id, request_id=request_id)
        prints = await self._heard(principal, samples, request_id=request_id)
        model, model_id = self._model(principal, request_id), self._model_id(principal, request_id)
        async with self._db.tenant(principal) as conn:
            voice = await voices.find(conn, voice_id, hold=True)
            if voice is None:
                raise _not_found(voice_id)
            if voice.prints + len(prints) > MAX_SAMPLES:
                raise Conflict(f"a voice has at most {MAX_SAMPLES} samples", hint="delete some")
            known = await voices.vectors(conn, voice_id, model=model)
            _one_person([*known, *(p.vector for p in prints)], prints, model_id)
            await self._keep(conn, principal, voice_id, prints, request_id)
            await _audit(conn, principal, request_id, "voice.sample_added", voice_id, samples=len(prints))
        return await self.get(principal, voice_id, request_id=request_id)

    async def enrol_external(
        self, principal: Principal, draft: VoiceDraft, samples: Sequence[Sample], *, request_id: str
    ) -> VoiceDetail:
        """Enrol the person of `draft.external_id`, or add samples to the voice of that id, whose consent stands."""
        async with self._db.tenant(principal) as conn:
            known = await voices.by_external_id(conn, draft.external_id or "")
        if known is None:
            return await self.enrol(principal, draft, samples, request_id=request_id)
        return await self.add_samples(principal, known.id, samples, request_id=request_id)

    async def get(self, principal: Principal, voice_id: UUID, *, request_id: str) -> VoiceDetail:
        """One voice with its samples. Raises NotFound."""
        async with self._db.tenant(principal) as conn:
            voice = await voices.find(conn, voice_id)
            if voice is None:
                raise _not_found(voice_id)
            samples = await voices.prints(conn, voice_id)
        model = self._model(principal, request_id)
        return VoiceDetail(voice=voice, samples=samples, usable=any(sample.model == model for sample in samples))

    async def page(self, principal: Principal, *, limit: int, before: UUID | None = None) -> list[Voice]:
        """Newest first."""
        async with self._db.tenant(principal) as conn:
            return await voices.page(conn, limit=limit, before=before)

    async def labels(self, principal: Principal, voice_ids: Sequence[UUID]) -> dict[UUID, dict[str, str]]:
        """The labels of these voices."""
        async with self._db.tenant(principal) as conn:
            found = [await voices.find(conn, voice_id) for voice_id in voice_ids]
        return {voice.id: dict(voice.labels) for voice in found if voice is not None}

    async def change(
        self, principal: Principal, voice_id: UUID, changes: VoiceChanges, *, request_id: str
    ) -> VoiceDetail:
        """Change what is given; recordings follow. Raises NotFound, ConsentRequired, Conflict."""
        given = {name: getattr(changes, name) for name in changes.model_fields_set}
        if changes.consent is not None:
            given["consent"] = changes.consent.checked()
        if (days := given.pop("keep_days", None)) is not None:
            given["expires_at"] = datetime.now(UTC) + timedelta(days=days)
        async with self._db.tenant(principal) as conn:
            old = await voices.find(conn, voice_id, hold=True)
            if old is None:
                raise _not_found(voice_id)
            new = replace(old, **given)
            if new.external_id != old.external_id:
                await _free(conn, principal.org_id, new.external_id)
            await voices.update(conn, new)
            if (new.name, _LABELS in new.consent.purposes) != (old.name, _LABELS in old.consent.purposes):
                await self._naming.queue_renaming(conn, principal, voice_id)
            await _audit(
                conn, principal, request_id, "voice.changed", voice_id, fields=sorted(changes.model_fields_set)
            )
        return await self.get(principal, voice_id, request_id=request_id)

    async def delete(self, principal: Principal, voice_id: UUID, *, request_id: str) -> None:
        """Forget a voice, and whom recordings' speakers were recognised as by it. Raises NotFound."""
        async with self._db.tenant(principal) as conn:
            if not await voices.delete(conn, voice_id):
                raise _not_found(voice_id)
            await self._naming.queue_renaming(conn, principal, voice_id)
            await _audit(conn, principal, request_id, "voice.deleted", voice_id)

    async def delete_sample(self, principal: Principal, voice_id: UUID, sample_id: UUID, *, request_id: str) -> None:
        """Forget one sample of a voice. Raises NotFound."""
        async with self._db.tenant(principal) as conn:
            if not await voices.delete_print(conn, voice_id=voice_id, print_id=sample_id):
                raise NotFound(f"no sample {sample_id} of that voice", hint=f"GET /v1/voices/{voice_id} lists them")
            await _audit(conn, principal, request_id, "voice.sample_deleted", voice_id)

    async def verify(
        self, principal: Principal, voice_id: UUID, sample: Sample, *, prior: float = 0.5, request_id: str
    ) -> VoicePartAnswer:
        """Whether a sample is that person's. Raises NotFound, ConsentRequired, Conflict for one to enrol anew."""
        detail = await self.get(principal, voice_id, request_id=request_id)
        if "verify" not in detail.voice.consent.purposes:
            raise ConsentRequired(
                f"the person of voice {voice_id} did not agree to verification", hint="ask, then PATCH the consent"
            )
        if not detail.usable:
            raise Conflict("the voice was enrolled with another model", hint="add a sample made with this one")
        asked = {"enrolled": "verify", "only": [voice_id], "prior": prior}
        found = await self._ask(principal, sample, asked, request_id=request_id)
        decision = found.candidates[0].decision if found.candidates else "uncertain"
        async with self._db.tenant(principal) as conn:
            await _audit(conn, principal, request_id, "voice.verified", voice_id, decision=decision)
        return found

    async def identify(
        self, principal: Principal, sample: Sample, *, prior: float = 0.5, top: int = 5, request_id: str
    ) -> VoicePartAnswer:
        """Who of the people who agreed to it a sample is from, or nobody."""
        found = await self._ask(
            principal, sample, {"enrolled": "identify", "prior": prior, "top": top}, request_id=request_id
        )
        async with self._db.tenant(principal) as conn:
            await _audit(conn, principal, request_id, "voice.identified", found.identified)
        return found

    async def _ask(
        self, principal: Principal, sample: Sample, asked: dict[str, Any], *, request_id: str
    ) -> VoicePartAnswer:
        (answer,) = await self._answers(principal, [sample], asked, request_id=request_id)
        return answer.parts[0]

    async def _answers(
        self, principal: Principal, samples: Sequence[Sample], asked: dict[str, Any], *, request_id: str
    ) -> list[speaker.Output]:
        """The engine's answer for each sample; uploads lie among the organisation's objects only meanwhile."""
        answers = []
        blobs = self._runner.contexts.blobs(principal)
        for sample in samples:
            async with AsyncExitStack() as stack:
                kept = isinstance(sample, AudioSource)
                audio = sample if kept else await stack.enter_async_context(scratch(blobs, cast(Upload, sample)))
                answer = await self._runner.run(
                    "speaker", {"audio": audio, **asked}, principal=principal, request_id=request_id
                )
                answers.append(cast(speaker.Output, answer))
        return answers

    async def _heard(self, principal: Principal, samples: Sequence[Sample], *, request_id: str) -> list[_Print]:
        """Vectors of the samples. Raises SampleRefused with everything that is wrong with them."""
        if not 1 <= len(samples) <= MAX_SAMPLES:
            raise InvalidInput(f"give 1 to {MAX_SAMPLES} samples")
        prints: list[_Print] = []
        errors: list[tuple[int, Flaw]] = []
        for number, answer in enumerate(await self._answers(principal, samples, {}, request_id=request_id)):
            told = answer.parts[0].quality
            assert told is not None
            quality = VoiceQuality(
                speech_s=told.speech_s,
                snr_db=told.snr_db,
                clipping_percent=told.clipping_percent,
                other_speech_s=told.other_speech_s,
            )
            errors += [(number, flaw) for flaw in flaws(quality, min_speech_s=MIN_SAMPLE_SPEECH_S)]
            if (vector := answer.vectors.get(speaker.WHOLE)) is not None:
                prints.append(_Print(vector=vector, quality=quality))
        if errors:
            raise _refused(errors)
        return prints

    async def _keep(
        self, conn: Connection, principal: Principal, voice_id: UUID, prints: Sequence[_Print], request_id: str
    ) -> None:
        for one in prints:
            quality = {
                "speech_s": one.quality.speech_s,
                "snr_db": one.quality.snr_db,
                "clipping_percent": one.quality.clipping_percent,
                "other_speech_s": one.quality.other_speech_s,
            }
            await voices.add_print(
                conn,
                org_id=principal.org_id,
                voice_id=voice_id,
                model=self._model(principal, request_id),
                vector=one.vector,
                quality=quality,
            )

    def _model(self, principal: Principal, request_id: str) -> str:
        status = self._runner.context(principal, request_id=request_id).models.status(SPEAKER_EMBEDDING)
        return speaker.fingerprint_of(status.id, status.fingerprint)

    def _model_id(self, principal: Principal, request_id: str) -> str:
        return self._runner.context(principal, request_id=request_id).models.status(SPEAKER_EMBEDDING).id


def _enough(speech_s: float) -> None:
    if speech_s < MIN_VOICE_SPEECH_S:
        detail = f"{speech_s:.1f} s of speech in all; a voice needs {MIN_VOICE_SPEECH_S:g} s"
        raise _refused([(0, Flaw(code="too_little_speech", detail=detail, hint="give more samples, or longer ones"))])


def _one_person(vectors: Sequence[Floats], new: Sequence[_Print], model_id: str) -> None:
    """Raise SampleRefused when one of the new samples is not of the person of all the others."""
    calibration = calibration_of(model_id)
    if calibration is None or len(vectors) < 2:
        return
    known, wrong = len(vectors) - len(new), []
    for number, one in enumerate(new):
        others = [vector for i, vector in enumerate(vectors) if i != known + number]
        ratio = llr(score(one.vector, pooled(np.stack(others)), calibration.centre), one.quality.speech_s, calibration)
        if decide(ratio, calibration) == "different":
            detail = "it does not sound like the person of the other samples"
            wrong.append((number, Flaw(code="another_speaker", detail=detail, hint="enrol each person apart")))
    if wrong:
        raise _refused(wrong)


def _refused(errors: Sequence[tuple[int, Flaw]]) -> SampleRefused:
    number, worst = errors[0]
    return SampleRefused(
        f"sample {number + 1} cannot be used: {worst.detail}",
        hint=worst.hint,
        errors=[{"loc": ("samples", i), "msg": f"{flaw.detail}; {flaw.hint}", "type": flaw.code} for i, flaw in errors],
    )


async def _free(conn: Connection, org_id: UUID, external_id: str | None) -> int:
    """How many voices there are, once those whose time is over are gone; nobody else adds one now. Raises Conflict."""
    await voices.lock(conn, org_id)
    while await voices.delete_expired(conn, limit=MAX_VOICES):
        pass
    if external_id is not None and await voices.by_external_id(conn, external_id) is not None:
        raise Conflict("a voice has this external_id already", hint="add samples to it, or give another id")
    return await voices.count(conn)


def _not_found(voice_id: UUID) -> NotFound:
    """The same for an id that never existed, for another tenant's, and for one whose time is over."""
    return NotFound(f"no voice {voice_id}", hint="GET /v1/voices lists yours")


async def _audit(
    conn: Connection, principal: Principal, request_id: str, action: str, voice_id: UUID | str | None, **detail: Any
) -> None:
    await audited(
        conn, principal, request_id=request_id, action=action, target=f"voice:{voice_id or 'nobody'}", detail=detail
    )
