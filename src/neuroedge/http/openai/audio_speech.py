"""/v1/audio/speech as OpenAI's clients know it, over the engine `synthesis`, and the voices there are.

The answer is streamed as it is spoken. OpenAI's names of models and voices are taken for the best voice here where no
provider has such a one; `X-NeuroEdge-Voice` says who spoke. `instructions` are refused: no voice here follows them.
"""

import asyncio
import base64
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any, Final, Literal

import structlog
from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json

from neuroedge.contract.errors import InvalidInput, NeuroEdgeError
from neuroedge.contract.principal import Principal
from neuroedge.contract.speech import AudioFormat, Voice
from neuroedge.http.auth import Reader, RequestId, Runner, ThePlatform
from neuroedge.http.departure import unless_client_leaves
from neuroedge.http.openai.errors import ModelNotFound, OpenAIRoute, error_body
from neuroedge.http.platform import Platform
from neuroedge.infra.media_encode import MEDIA_TYPES, SpeechEncoder, encoded
from neuroedge.kit.speech_audio import of_pcm16
from neuroedge.services.speaking import MOST_CHARS, pieces_of, spoken

log = structlog.get_logger(__name__)
router = APIRouter(tags=["openai"], route_class=OpenAIRoute)
RATE_HZ: Final = 24_000
"""Of OpenAI's speech, which `pcm` does not tell."""
MODELS: Final = ("default", "tts-1", "tts-1-hd", "gpt-4o-mini-tts")
VOICES: Final = frozenset(
    {
        *("default", "alloy", "ash", "ballad", "cedar", "coral", "echo", "fable", "marin", "nova", "onyx", "sage"),
        *("shimmer", "verse"),
    }
)


class TextToSpeechVoiceId(BaseModel):
    """A voice as an object."""

    id: str = Field(min_length=1, max_length=200)


class TextToSpeechIn(BaseModel):
    """What is to be said."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(default="default", max_length=200, description="default, OpenAI's, or a model with voices here.")
    input: str = Field(min_length=1, max_length=MOST_CHARS, description="Text, or SSML that begins with <speak.")
    voice: Annotated[str, Field(min_length=1, max_length=200)] | TextToSpeechVoiceId = Field(
        default="default", description="Id or name of a voice here, or one of OpenAI's."
    )
    response_format: AudioFormat = "mp3"
    speed: float = Field(default=1.0, ge=0.25, le=4.0, allow_inf_nan=False)
    stream_format: Literal["audio", "sse"] = "audio"
    instructions: str | None = Field(default=None, max_length=4096, description="Refused.")
    language: str | None = Field(
        default=None, pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8}){0,3}$", description="Of the text; not OpenAI's."
    )


class SpokenVoiceOut(BaseModel):
    """A voice."""

    id: str = Field(description="As `voice` names it.")
    object: Literal["voice"] = "voice"
    name: str
    kind: Literal["network", "neural", "formant"] = Field(
        description="network: a provider's; neural: a model here; formant: rules here, clear and not natural."
    )
    method: str = Field(description="As answers name it: network, piper or espeak-ng.")
    model: str
    languages: list[str] = Field(description="BCP 47; none: whatever the text is in.")
    private: bool = Field(description="Whether the text stays with the operator.")
    ready: bool
    remedy: str | None = Field(description="What makes it ready.")


class SpokenVoiceList(BaseModel):
    """The voices, best first."""

    object: Literal["list"] = "list"
    data: list[SpokenVoiceOut]


@router.post(
    "/v1/audio/speech",
    summary="Text to speech (OpenAI)",
    response_class=Response,
    responses={200: {"content": {form: {"schema": {"type": "string"}} for form in MEDIA_TYPES.values()}}},
)
async def speech(
    body: TextToSpeechIn, request: Request, principal: Runner, platform: ThePlatform, request_id: RequestId
) -> Response:
    """The speech as it is spoken: a file, or with stream_format sse events with pieces of one."""
    if body.instructions:
        raise InvalidInput("instructions are not followed here", hint="leave them out; SSML has prosody and emphasis")
    wanted = body.voice if isinstance(body.voice, str) else body.voice.id
    fields: dict[str, Any] = {
        "voice": await _voice(platform, principal, body.model, wanted, request_id),
        "speed": body.speed,
        "language": body.language,
        "rate_hz": RATE_HZ,
    }
    parts = pieces_of(body.input)
    pieces = spoken(platform.runner, principal, parts, fields, request_id=request_id)
    first = await unless_client_leaves(request, anext(pieces))
    headers = {"X-NeuroEdge-Voice": first.voice, "X-NeuroEdge-Method": first.method}
    if first.fallback_reason:
        headers["X-NeuroEdge-Fallback"] = first.fallback_reason.encode("ascii", "replace").decode()[:500]
    if body.stream_format == "sse":
        return StreamingResponse(
            _events(pieces, first, body),
            media_type="text/event-stream",
            headers={**headers, "Cache-Control": "no-store"},
        )
    media_type = MEDIA_TYPES[body.response_format]
    if len(parts) == 1:
        samples = of_pcm16(base64.b64decode(first.audio))
        await pieces.aclose()
        whole = await platform.speech_output.encoding.run(encoded, samples, rate_hz=RATE_HZ, form=body.response_format)
        return Response(whole, media_type=media_type, headers=headers)
    return StreamingResponse(_bytes(pieces, first, body.response_format), media_type=media_type, headers=headers)


@router.get("/v1/audio/voices", summary="Voices")
async def voices(principal: Reader, platform: ThePlatform, request_id: RequestId) -> SpokenVoiceList:
    """The voices the caller may use, best first; and what makes others ready."""
    known = await platform.speech_output.of(principal, request_id).known()
    return SpokenVoiceList(data=[_shown(voice) for voice in known])


def _shown(voice: Voice) -> SpokenVoiceOut:
    return SpokenVoiceOut(
        id=voice.id,
        name=voice.name,
        kind=voice.kind,
        method=voice.method,
        model=voice.model,
        languages=list(voice.languages),
        private=voice.private,
        ready=voice.ready,
        remedy=voice.remedy,
    )


async def _voice(platform: Platform, principal: Principal, model: str, wanted: str, request_id: str) -> str:
    """The voice's id: of the model named, of any, or the best one for OpenAI's names. Raises ModelNotFound."""
    known = await platform.speech_output.of(principal, request_id).known()
    of_model = [voice for voice in known if model in (voice.model, voice.model.rpartition("/")[2])]
    if not of_model and model not in MODELS:
        raise ModelNotFound(f"{model[:100]!r} does not speak here", hint="GET /v1/audio/voices lists what does")
    for voice in [*of_model, *known]:
        if wanted in (voice.id, voice.name):
            return voice.id
    if wanted in VOICES:
        return of_model[0].id if of_model else "default"
    return wanted  # the engine tells that there is none


async def _encoded(
    pieces: AsyncGenerator[Any, None], first: Any, form: AudioFormat
) -> AsyncGenerator[tuple[bytes, Any], None]:
    """(bytes, what they were made of), as they come."""
    encoder = SpeechEncoder(form, rate_hz=RATE_HZ)
    async with aclosing(pieces):
        yield await asyncio.to_thread(encoder.add, of_pcm16(base64.b64decode(first.audio))), first
        async for piece in pieces:
            yield await asyncio.to_thread(encoder.add, of_pcm16(base64.b64decode(piece.audio))), piece
    yield await asyncio.to_thread(encoder.end), None


async def _bytes(pieces: AsyncGenerator[Any, None], first: Any, form: AudioFormat) -> AsyncIterator[bytes]:
    async with aclosing(_encoded(pieces, first, form)) as made:
        async for data, _ in made:
            if data:
                yield data


async def _events(pieces: AsyncGenerator[Any, None], first: Any, body: TextToSpeechIn) -> AsyncIterator[bytes]:
    """OpenAI's events; of the usage, tokens are characters in and hundredths of seconds out."""
    seconds = 0.0
    try:
        async with aclosing(_encoded(pieces, first, body.response_format)) as made:
            async for data, piece in made:
                seconds += piece.duration_s if piece is not None else 0.0
                if data:
                    yield _event({"type": "speech.audio.delta", "audio": base64.b64encode(data).decode()})
    except NeuroEdgeError as error:
        log.warning("speech_broke", code=error.code)
        yield _event(error_body(error))
        return
    tokens_in, tokens_out = len(body.input), round(seconds * 100)
    usage = {"input_tokens": tokens_in, "output_tokens": tokens_out, "total_tokens": tokens_in + tokens_out}
    yield _event({"type": "speech.audio.done", "usage": usage})


def _event(data: dict[str, Any]) -> bytes:
    return b"data: %s\n\n" % to_json(data)
