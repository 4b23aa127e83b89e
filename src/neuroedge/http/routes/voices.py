"""/v1/voices: people's voices, kept with their consent; /v1/recordings/{id}/relabel names speakers by them."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response

from neuroedge.http.auth import Reader, RequestId, Runner, ThePlatform, Writer
from neuroedge.http.voice_bodies import either, form_or_json
from neuroedge.http.voice_schemas import (
    RelabelOut,
    VoiceDetailOut,
    VoiceFound,
    VoiceIdentifyIn,
    VoiceIn,
    VoiceOut,
    VoicePage,
    VoiceSamplesIn,
    VoiceVerifyIn,
)
from neuroedge.services.voice_drafts import VoiceChanges, VoiceDraft

router = APIRouter(tags=["voices"])
FIELDS = {
    "name": "What recordings call the person.",
    "external_id": "What another system calls the person.",
    "labels": "A JSON object of texts.",
    "consent": "A JSON object: given_by, at, purposes, text_version, minor, guardian.",
    "keep_days": "Days after which the voice is deleted.",
}
_VERIFY = {"voice_id": "Whose voice it is said to be.", "prior": "How likely that was before listening, 0 to 1."}
_IDENTIFY = {"prior": "How likely it was one of the enrolled, 0 to 1.", "top": "Most candidates in the answer."}


@router.post(
    "/v1/voices",
    status_code=201,
    summary="Enrol a person's voice",
    openapi_extra=either(VoiceIn, "file", FIELDS, required=("name", "consent")),
)
async def enrol(
    request: Request, response: Response, principal: Writer, platform: ThePlatform, request_id: RequestId
) -> VoiceDetailOut:
    """Check the samples (JSON, or a form with one `file`) and keep what the voice is known by, sealed; never the sound.
    Refused without consent, and a child's without that of a guardian."""
    async with form_or_json(request, VoiceIn, file_field="file", fields=tuple(FIELDS), audio="samples") as (
        body,
        given,
    ):
        draft = VoiceDraft.model_validate(body.model_dump(exclude={"samples"}, mode="json"))
        detail = await platform.voices.enrol(principal, draft, given, request_id=request_id)
    response.headers["Location"] = f"/v1/voices/{detail.voice.id}"
    return VoiceDetailOut.of_detail(detail)


@router.get("/v1/voices", summary="List voices")
async def list_voices(
    principal: Reader,
    platform: ThePlatform,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    before: Annotated[UUID | None, Query(description="`next` of the page before.")] = None,
) -> VoicePage:
    """The people the organisation has enrolled, newest first."""
    found = await platform.voices.page(principal, limit=limit + 1, before=before)
    page = found[:limit]
    return VoicePage(voices=[VoiceOut.of(voice) for voice in page], next=page[-1].id if len(found) > limit else None)


@router.post(
    "/v1/voices/verify",
    summary="Verify whose voice it is",
    openapi_extra=either(VoiceVerifyIn, "file", _VERIFY, required=("voice_id",)),
)
async def verify(request: Request, principal: Runner, platform: ThePlatform, request_id: RequestId) -> VoiceFound:
    """Whether a sample is of the person of a voice who agreed to `verify`; nothing of the sample is kept."""
    async with form_or_json(request, VoiceVerifyIn, file_field="file", fields=tuple(_VERIFY), audio="audio") as (
        body,
        given,
    ):
        found = await platform.voices.verify(
            principal, body.voice_id, given[0], prior=body.prior, request_id=request_id
        )
    return VoiceFound.model_validate(found.model_dump())


@router.post(
    "/v1/voices/identify",
    summary="Find whose voice it is",
    openapi_extra=either(VoiceIdentifyIn, "file", _IDENTIFY),
)
async def identify(request: Request, principal: Runner, platform: ThePlatform, request_id: RequestId) -> VoiceFound:
    """Who of the people who agreed to `identify` a sample is from, or nobody; nothing of the sample is kept."""
    async with form_or_json(request, VoiceIdentifyIn, file_field="file", fields=tuple(_IDENTIFY), audio="audio") as (
        body,
        given,
    ):
        found = await platform.voices.identify(
            principal, given[0], prior=body.prior, top=body.top, request_id=request_id
        )
    return VoiceFound.model_validate(found.model_dump())


@router.post("/v1/voices/relabel", status_code=202, summary="Name the speakers of all recordings")
async def relabel_all(principal: Writer, platform: ThePlatform, request_id: RequestId) -> RelabelOut:
    """Recognise the speakers of every finished recording anew, in the background."""
    return RelabelOut.of(await platform.voice_naming.order(principal, None, request_id=request_id))


@router.get("/v1/voices/relabels/{relabel_id}", summary="How far a naming run is")
async def relabel_standing(relabel_id: UUID, principal: Reader, platform: ThePlatform) -> RelabelOut:
    """Recordings heard and speakers recognised so far."""
    return RelabelOut.of(await platform.voice_naming.standing(principal, relabel_id))


@router.post("/v1/recordings/{recording_id}/relabel", status_code=202, summary="Name a recording's speakers")
async def relabel(recording_id: UUID, principal: Writer, platform: ThePlatform, request_id: RequestId) -> RelabelOut:
    """Recognise the speakers of a finished recording anew, in the background; the same again changes nothing."""
    return RelabelOut.of(await platform.voice_naming.order(principal, recording_id, request_id=request_id))


@router.get("/v1/voices/{voice_id}", summary="Read a voice")
async def read(voice_id: UUID, principal: Reader, platform: ThePlatform, request_id: RequestId) -> VoiceDetailOut:
    """An enrolled person with the quality of each sample."""
    return VoiceDetailOut.of_detail(await platform.voices.get(principal, voice_id, request_id=request_id))


@router.patch("/v1/voices/{voice_id}", summary="Change a voice")
async def change(
    voice_id: UUID, body: VoiceChanges, principal: Writer, platform: ThePlatform, request_id: RequestId
) -> VoiceDetailOut:
    """Change name, labels, consent or retention; recordings follow."""
    return VoiceDetailOut.of_detail(await platform.voices.change(principal, voice_id, body, request_id=request_id))


@router.delete("/v1/voices/{voice_id}", status_code=204, summary="Delete a voice")
async def delete(voice_id: UUID, principal: Writer, platform: ThePlatform, request_id: RequestId) -> Response:
    """Forget the person's voice: recordings call the speaker S1, S2 … again."""
    await platform.voices.delete(principal, voice_id, request_id=request_id)
    return Response(status_code=204)


@router.post(
    "/v1/voices/{voice_id}/samples",
    status_code=201,
    summary="Add samples to a voice",
    openapi_extra=either(VoiceSamplesIn, "file", {}),
)
async def add_samples(
    voice_id: UUID, request: Request, principal: Writer, platform: ThePlatform, request_id: RequestId
) -> VoiceDetailOut:
    """Let a voice be known better; a sample that sounds like somebody else is refused."""
    async with form_or_json(request, VoiceSamplesIn, file_field="file", fields=(), audio="samples") as (_, given):
        detail = await platform.voices.add_samples(principal, voice_id, given, request_id=request_id)
    return VoiceDetailOut.of_detail(detail)


@router.delete("/v1/voices/{voice_id}/samples/{sample_id}", status_code=204, summary="Delete a sample of a voice")
async def delete_sample(
    voice_id: UUID, sample_id: UUID, principal: Writer, platform: ThePlatform, request_id: RequestId
) -> Response:
    """Forget what one sample told of the voice."""
    await platform.voices.delete_sample(principal, voice_id, sample_id, request_id=request_id)
    return Response(status_code=204)
