"""/v1/audio/transcriptions and /v1/audio/translations as OpenAI's clients know them, over the engine `transcription`.

`prompt` is read as names and terms, separated by commas. The answer is the same each time, so that a `temperature` is
refused; `stream` too: it comes in one piece. Translations are into English, by the speech model itself.
"""

import asyncio
import math
import re
import zlib
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from pydantic_core import to_json

from neuroedge.contract.errors import InvalidInput
from neuroedge.contract.models import SPEECH_TO_TEXT
from neuroedge.contract.principal import Principal
from neuroedge.http.auth import RequestId, Runner, ThePlatform
from neuroedge.http.departure import unless_client_leaves
from neuroedge.http.openai.errors import ModelNotFound, OpenAIRoute
from neuroedge.http.platform import Platform
from neuroedge.http.routes.recordings import language_of
from neuroedge.http.uploads import form_schema, receive
from neuroedge.kit import subtitles
from neuroedge.kit.subtitles import Spoken
from neuroedge.services.housekeeping import forget_blobs
from neuroedge.services.recordings import Upload
from neuroedge.stores.ids import new_id

router = APIRouter(tags=["openai"], route_class=OpenAIRoute)
FORMATS: Final = ("json", "text", "srt", "verbose_json", "vtt")
FIELDS: Final = {
    "model": "Catalogue id of the speech model in use, whisper-1 or default.",
    "language": "ISO 639-1 code; recognised from the audio when not given.",
    "prompt": "Names and terms that may occur, separated by commas.",
    "response_format": f"One of {', '.join(FORMATS)}.",
    "temperature": "0.",
    "timestamp_granularities[]": "word, segment or both; for verbose_json.",
    "stream": "false.",
}
TRANSLATION_FIELDS: Final = ("model", "prompt", "response_format", "temperature")
_ALIASES: Final = ("default", "whisper-1")
_MAX_TERMS: Final = 50
_MAX_TERM_CHARS: Final = 80


@router.post(
    "/v1/audio/transcriptions",
    summary="Speech to text (OpenAI)",
    openapi_extra=form_schema("file", dict(FIELDS)),
    response_class=Response,
)
async def transcriptions(request: Request, principal: Runner, platform: ThePlatform, request_id: RequestId) -> Response:
    """What is said in a file; nothing of it is kept."""
    async with receive(request, file_field="file", fields=tuple(FIELDS)) as received:
        fields = received.fields
        _check(fields, platform)
        payload = {"language": language_of(fields.get("language")), "hot_words": _terms(fields.get("prompt", ""))}
        heard = await unless_client_leaves(
            request, _heard(platform, principal, received.upload, payload, request_id=request_id)
        )
    return _answer(heard, fields)


@router.post(
    "/v1/audio/translations",
    summary="Speech to English text (OpenAI)",
    openapi_extra=form_schema("file", {name: FIELDS[name] for name in TRANSLATION_FIELDS}),
    response_class=Response,
)
async def translations(request: Request, principal: Runner, platform: ThePlatform, request_id: RequestId) -> Response:
    """What is said in a file, in English; nothing of it is kept. Refused by a speech model that knows English only."""
    async with receive(request, file_field="file", fields=TRANSLATION_FIELDS) as received:
        fields = received.fields
        _check(fields, platform)
        payload = {"task": "translate", "hot_words": _terms(fields.get("prompt", ""))}
        heard = await unless_client_leaves(
            request, _heard(platform, principal, received.upload, payload, request_id=request_id)
        )
    return _answer(heard, fields)


async def _heard(
    platform: Platform, principal: Principal, upload: Upload, payload: dict[str, Any], *, request_id: str
) -> Any:
    """The engine's answer; the file lies among the organisation's objects only while it works."""
    blobs, folder = platform.runner.contexts.blobs(principal), f"scratch/{new_id()}"
    try:
        await blobs.put(f"{folder}/original", upload.path)
        audio = {"blob": f"{folder}/original"}
        return await platform.runner.run(
            "transcription", {"audio": audio, **payload}, principal=principal, request_id=request_id
        )
    finally:
        await asyncio.shield(forget_blobs(blobs, folder))


def _check(fields: dict[str, str], platform: Platform) -> None:
    """Raises InvalidInput, ModelNotFound."""
    if (form := fields.get("response_format", "json")) not in FORMATS:
        raise _wrong("response_format", f"{form[:50]!r} is no format", f"one of {', '.join(FORMATS)}")
    if fields.get("stream", "false").lower() not in ("false", "0"):
        raise _wrong("stream", "the text comes in one piece", "leave stream out")
    if not re.fullmatch(r"0(\.0*)?|", fields.get("temperature", "")):
        raise _wrong("temperature", "the answer is the same each time", "leave temperature out, or give 0")
    wanted = _granularities(fields)
    if not re.fullmatch("(word|segment)*", wanted):
        raise _wrong("timestamp_granularities", "these are no granularities", "word, segment or both")
    if wanted and form != "verbose_json":
        raise _wrong("timestamp_granularities", f"{form} has no times", "ask for response_format verbose_json")
    active = platform.pool.status(SPEECH_TO_TEXT).id
    if (model := fields.get("model", _ALIASES[0])) not in (active, *_ALIASES):
        raise ModelNotFound(f"{model[:100]!r} is not the speech model here", hint=f"{active}, or {_ALIASES[1]}")


def _wrong(field: str, problem: str, hint: str) -> InvalidInput:
    return InvalidInput(problem, hint=hint, errors=[{"loc": (field,), "msg": hint, "type": "value_error"}])


def _granularities(fields: dict[str, str]) -> str:
    """The values of the repeated field, one after the other: that is how the form parser gives them."""
    return fields.get("timestamp_granularities[]", "")


def _terms(prompt: str) -> list[str]:
    terms = [part.strip()[:_MAX_TERM_CHARS] for part in re.split(r"[,;\n]", prompt)]
    return [term for term in terms if term][:_MAX_TERMS]


def _answer(heard: Any, fields: dict[str, str]) -> Response:
    match fields.get("response_format", "json"):
        case "text":
            return Response(f"{heard.text}\n", media_type="text/plain")
        case "srt":
            return Response(subtitles.srt(subtitles.whole(_spoken(heard))), media_type="text/plain")
        case "vtt":
            return Response(subtitles.vtt(subtitles.whole(_spoken(heard))), media_type="text/vtt")
        case "verbose_json":
            return Response(to_json(_verbose(heard, _granularities(fields))), media_type="application/json")
    usage = {"type": "duration", "seconds": math.ceil(heard.duration_s)}
    return Response(to_json({"text": heard.text, "usage": usage}), media_type="application/json")


def _spoken(heard: Any) -> list[Spoken]:
    return [Spoken(text=segment.text, start_s=segment.start_s, end_s=segment.end_s) for segment in heard.segments]


def _verbose(heard: Any, granularities: str) -> dict[str, Any]:
    """OpenAI's verbose_json; of its fields, `tokens` and `no_speech_prob` are not known here."""
    told: dict[str, Any] = {
        "task": heard.task,
        "language": heard.language,
        "duration": heard.duration_s,
        "text": heard.text,
        "usage": {"type": "duration", "seconds": math.ceil(heard.duration_s)},
    }
    if "segment" in granularities or not granularities:
        told["segments"] = [
            {
                "id": n,
                "seek": round(segment.start_s * 100),
                "start": segment.start_s,
                "end": segment.end_s,
                "text": segment.text,
                "temperature": 0.0,
                "avg_logprob": math.log(max(segment.confidence, 1e-9)),
                "compression_ratio": _compression(segment.text),
            }
            for n, segment in enumerate(heard.segments)
        ]
    if "word" in granularities:
        told["words"] = [
            {"word": word.w, "start": word.start_s, "end": word.end_s}
            for segment in heard.segments
            for word in segment.words
        ]
    return told


def _compression(text: str) -> float:
    """As Whisper measures repetition."""
    data = text.encode()
    return round(len(data) / len(zlib.compress(data)), 4) if data else 0.0
