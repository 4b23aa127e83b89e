"""The first NeuroEdge's paths for pictures and vectors over the engines vision and embedding.

`{text}` or `{texts}` in, vectors out; a picture (a file, or base64 in JSON) in, what can be said of it out.
"""

import asyncio
import base64
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from neuroedge.contract.errors import InvalidInput, TooLarge
from neuroedge.contract.ports import ImageSource
from neuroedge.engines.vision import vision
from neuroedge.engines.vision.ocr import MAX_BYTES
from neuroedge.http.auth import RequestId, Runner, ThePlatform
from neuroedge.http.json_body import json_object
from neuroedge.http.uploads import form_schema, receive

router = APIRouter(tags=["NeuroEdge dialect"])
_FIELDS = {
    "tasks": "What is wanted, separated by commas: facts, safety, embedding, labels, description, text.",
    "labels": "What the picture may show, separated by commas.",
    "prompt": "What a language model is asked for a description.",
}
Text = Annotated[str, StringConstraints(min_length=1, max_length=20_000)]


class EmbedIn(BaseModel):
    """One text, or several."""

    model_config = ConfigDict(extra="forbid")

    text: Text | None = Field(default=None, description="A text of 1 to 20000 characters.")
    texts: list[Text] | None = Field(default=None, min_length=1, max_length=256, description="1 to 256 texts.")
    model: str | None = Field(default=None, max_length=200, description="Catalogue id of the encoder.")

    @model_validator(mode="after")
    def _exactly_one(self) -> "EmbedIn":
        if (self.text is None) == (self.texts is None):
            raise ValueError("give exactly one of 'text' and 'texts'")
        return self


class EmbedOut(BaseModel):
    """Vectors, L2-normalised."""

    embedding: list[float] = Field(description="Of the first text.")
    embeddings: list[list[float]] = Field(description="Of every text, in order.")
    dimension: int
    model: str


@router.post("/model/embed", summary="Embed texts")
@router.post("/embed", summary="Embed texts")
async def embed(body: EmbedIn, principal: Runner, platform: ThePlatform, request_id: RequestId) -> EmbedOut:
    """The vectors of `text` or `texts`."""
    texts = body.texts if body.text is None else [body.text]
    asked = {"texts": texts, "model": body.model}
    answer = await platform.runner.run("embedding", asked, principal=principal, request_id=request_id)
    told = answer.model_dump()
    vectors = told["vectors"]
    return EmbedOut(embedding=vectors[0], embeddings=vectors, dimension=told["dim"], model=told["model"])


class VisionIn(BaseModel):
    """A picture in base64, and what the engine vision takes besides."""

    model_config = ConfigDict(extra="forbid")

    image: Annotated[str, StringConstraints(min_length=1)] = Field(description="The file's bytes in base64.")
    tasks: list[vision.Task] | None = Field(default=None, description="What is wanted; facts, safety, embedding.")
    labels: list[str] | None = Field(default=None, description="What the picture may show, for the task labels.")
    prompt: str | None = Field(default=None, description="What a language model is asked for a description.")


def _documented() -> dict[str, Any]:
    """OpenAPI of a body that is a form with a file, or JSON."""
    form = form_schema("file", _FIELDS)
    form["requestBody"]["content"]["application/json"] = {"schema": VisionIn.model_json_schema()}
    return form


@router.post("/vision/process", summary="Look at a picture", openapi_extra=_documented(), response_model=dict[str, Any])
async def process(request: Request, principal: Runner, platform: ThePlatform, request_id: RequestId) -> dict[str, Any]:
    """The engine vision's answer on a file (multipart, field `file`) or base64 in JSON; nothing is kept."""
    if request.headers.get("content-type", "").startswith("multipart/form-data"):
        given = await _form(request)
    else:
        given = _checked(await json_object(request))
    asked = {**given, "image": ImageSource(base64=given["image"]).model_dump()}
    answer = await platform.runner.run("vision", asked, principal=principal, request_id=request_id)
    return answer.model_dump(mode="json")


async def _form(request: Request) -> dict[str, Any]:
    async with receive(request, file_field="file", fields=tuple(_FIELDS)) as received:
        if received.upload.bytes > MAX_BYTES:
            raise TooLarge(f"the image is larger than {MAX_BYTES // 1000**2} MB", hint="compress it")
        data = await asyncio.to_thread(received.upload.path.read_bytes)
        given: dict[str, Any] = {"image": await asyncio.to_thread(lambda: base64.b64encode(data).decode())}
        for name in ("tasks", "labels"):
            if parts := [part.strip() for part in received.fields.get(name, "").split(",") if part.strip()]:
                given[name] = parts
        if prompt := received.fields.get("prompt"):
            given["prompt"] = prompt
    return given


def _checked(body: dict[str, Any]) -> dict[str, Any]:
    try:
        return VisionIn.model_validate(body).model_dump(exclude_none=True)
    except ValidationError as error:
        raise InvalidInput(
            "the body is not what this route takes",
            hint='{"image": "<base64>", "tasks": ["facts"]}, or a form with a file',
            errors=error.errors(include_url=False, include_input=False, include_context=False),
        ) from error
