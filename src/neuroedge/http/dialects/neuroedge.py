"""The first NeuroEdge's path for speech over the canonical engine: a file or base64 in, text out, nothing kept."""

from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from neuroedge.contract.errors import InvalidInput
from neuroedge.http.auth import RequestId, Runner, ThePlatform
from neuroedge.http.departure import unless_client_leaves
from neuroedge.http.json_body import json_object
from neuroedge.http.routes.recordings import MAX_TERM_CHARS, MAX_TERMS, language_of, terms_of
from neuroedge.http.uploads import form_schema, receive

router = APIRouter(tags=["NeuroEdge dialect"])

FIELDS = {
    "language": "ISO 639-1 code; recognised from the audio when not given.",
    "hot_words": "Names and terms that may occur, separated by commas.",
}


class SpeechIn(BaseModel):
    """A recording in base64."""

    model_config = ConfigDict(extra="forbid")

    audio: Annotated[str, StringConstraints(min_length=1)] = Field(description="The file's bytes in base64.")
    language: str | None = Field(default=None, description=FIELDS["language"])
    hot_words: list[Annotated[str, StringConstraints(min_length=1, max_length=MAX_TERM_CHARS)]] = Field(
        default_factory=list, max_length=MAX_TERMS, description="Names and terms that may occur."
    )


class HeardSegment(BaseModel):
    """A stretch of speech."""

    start: float = Field(description="Seconds.")
    end: float = Field(description="Seconds.")
    text: str


class HeardOut(BaseModel):
    """What was said."""

    text: str
    language: str | None
    duration: float = Field(description="Seconds.")
    segments: list[HeardSegment]
    model: str | None

    @classmethod
    def of(cls, heard: dict[str, Any]) -> "HeardOut":
        """From the engine's answer."""
        return cls(
            text=heard["text"],
            language=heard["language"],
            duration=heard["duration_s"],
            segments=[HeardSegment(start=s["start_s"], end=s["end_s"], text=s["text"]) for s in heard["segments"]],
            model=next(iter(heard["models"]), None),
        )


def _documented() -> dict[str, Any]:
    """OpenAPI of a body that is a form with a file, or JSON."""
    form = form_schema("file", FIELDS)
    form["requestBody"]["content"]["application/json"] = {"schema": SpeechIn.model_json_schema()}
    return form


@router.post("/audio/transcribe", summary="Speech to text", openapi_extra=_documented())
async def transcribe(request: Request, principal: Runner, platform: ThePlatform, request_id: RequestId) -> HeardOut:
    """The words of a file (multipart, field `file`) or of base64 in JSON; nothing is kept."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        body = _checked(await json_object(request))
        answer = await platform.runner.run(
            "transcription",
            {
                "audio": {"base64": body.audio},
                "language": language_of(body.language),
                "hot_words": body.hot_words,
            },
            principal=principal,
            request_id=request_id,
        )
        return HeardOut.of(answer.model_dump(mode="json"))
    async with receive(request, file_field="file", fields=tuple(FIELDS)) as received:
        heard = await unless_client_leaves(
            request,
            platform.recordings.hear(
                received.upload,
                principal=principal,
                request_id=request_id,
                language=language_of(received.fields.get("language")),
                hot_words=terms_of(received.fields.get("hot_words", "")),
            ),
        )
    return HeardOut.of(heard)


def _checked(body: dict[str, Any]) -> SpeechIn:
    try:
        return SpeechIn.model_validate(body)
    except ValidationError as error:
        raise InvalidInput(
            "the body is not what this route takes",
            hint='{"audio": "<base64>", "language": "en"}, or a form with a file',
            errors=error.errors(include_url=False, include_input=False, include_context=False),
        ) from error
