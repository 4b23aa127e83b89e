"""Vision: what can be said of a picture, part by part, each with the method that said it.

- facts: size, format, light, contrast, sharpness, main colours and a 64-bit perceptual hash (Zauner 2010), measured on
  the picture reduced to a megapixel (kit/image_facts.py).
- safety: nudity by open_nsfw (Mahadeokar & Pesavento 2016, Yahoo, BSD-2-Clause), role image_safety.
- embedding, similarity, labels: CLIP (Radford et al. 2021) or SigLIP (Zhai et al. 2023) where the role image_embedding
  has a model. None comes with NeuroEdge: then `embedding` and `similarity` use colours and edges
  (kit/image_descriptor.py), which tells pictures that look alike and knows nothing of what they show, and `labels` are
  left out.
- description: a language model with vision, where one is set up; the picture is sent without its metadata.
- text: the engine ocr.

What cannot be done is left out and named in `skipped`, with the reason; never guessed.

Limits: 32 MB and 50 megapixels; PNG, JPEG, TIFF, WebP, GIF, BMP; no SVG. Of an animation the first frame is looked at.
open_nsfw was trained on nudity in photographs: it says nothing of violence or hate, little of drawings, calls bare skin
and beaches unsafe at times, and must not decide alone. No faces are recognised, nobody is identified, and no feelings
are inferred. Where a picture was taken is told only when asked for.
"""

import asyncio
import base64
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Annotated, Final, Literal, cast

import numpy as np
from pydantic import BaseModel, Field

from neuroedge.contract.chat import ChatMessage, ChatRequest, Image, Policy
from neuroedge.contract.content import Picture
from neuroedge.contract.engine import Engine, EngineContext, EngineInput, EngineOutput, Health, Usage
from neuroedge.contract.errors import BudgetExceeded, InvalidInput, NeuroEdgeError, Unavailable
from neuroedge.contract.models import IMAGE_EMBEDDING, IMAGE_SAFETY, Floats
from neuroedge.contract.picture import (
    PictureColour,
    PictureFacts,
    PictureLabel,
    PictureSafety,
    PictureSimilarity,
    PictureVector,
)
from neuroedge.contract.ports import ImageSource
from neuroedge.engines.vision import ocr
from neuroedge.kit import image_descriptor, image_facts

Task = Literal["facts", "safety", "embedding", "similarity", "labels", "description", "text"]
_PIXELS: Final = 1_000_000
_LIKELY_SAFE, _LIKELY_UNSAFE = 0.2, 0.8
"""Of open_nsfw's own documentation."""
_POLICY: Final = Policy(query_type="vision")
_PROMPT: Final = "Describe this picture in two or three plain sentences. Say only what can be seen."
_EXAMPLE_PNG: Final = (
    "iVBORw0KGgoAAAANSUhEUgAAADAAAAAgCAIAAADbtmxLAAAAPklEQVR42u3OQQ0AIAwAsYEQlKADkSiZDpRgYg9CegIubWNmVLTP"
    "Kvn0eCwgICAgICAgICAgICAgICCgv0EXc/oDRJy0DCoAAAAASUVORK5CYII="
)
Label = Annotated[str, Field(min_length=1, max_length=200)]


class Input(EngineInput):
    """A picture and what is wanted of it."""

    image: ImageSource = Field(description="PNG, JPEG, TIFF, WebP, GIF or BMP: at most 32 MB and 50 megapixels.")
    tasks: list[Task] = Field(
        default=["facts", "safety", "embedding"], min_length=1, max_length=7, description="What is wanted."
    )
    labels: list[Label] = Field(
        default_factory=list,
        max_length=100,
        description="What the picture may show, for the task labels: 2 to 100 phrases such as 'a photo of a dog'.",
    )
    compare_with: list[ImageSource] = Field(
        default_factory=list, max_length=8, description="Other pictures, for the task similarity: 1 to 8."
    )
    location: bool = Field(default=False, description="Whether to tell where the picture was taken, if its file does.")
    prompt: str = Field(
        default=_PROMPT, min_length=1, max_length=2000, description="What a language model is asked for a description."
    )
    local_only: bool = Field(
        default=False, description="Whether the picture must not leave the machine for a description."
    )


class SkippedTask(BaseModel):
    """Something that was asked for and not done."""

    task: Task = Field(description="What was asked for.")
    reason: str = Field(description="Why it was not done, and what would help.")


class Output(EngineOutput):
    """What was found; what was not asked for, or is in `skipped`, is null."""

    facts: PictureFacts | None = Field(description="What was measured.")
    safety: PictureSafety | None = Field(description="Whether it shows nudity.")
    embedding: PictureVector | None = Field(description="Its vector.")
    similarity: list[PictureSimilarity] | None = Field(description="For each picture of `compare_with`, in order.")
    labels: list[PictureLabel] | None = Field(description="The labels, best first.")
    description: str | None = Field(description="What a language model says of it; may be wrong.")
    text: str | None = Field(description="What is written on it.")
    usage: Usage = Field(default_factory=Usage, description="What a language model read and wrote.")
    skipped: list[SkippedTask] = Field(description="What could not be done, and why.")
    reliable: bool = Field(description="False where something asked for was not done or only partly looked at.")
    warnings: list[str] = Field(description="What to know of this picture.")


@dataclass(slots=True)
class _Work:
    """One call: what it has, and what was found so far."""

    payload: Input
    ctx: EngineContext
    data: bytes
    picture: Picture
    others: Sequence[bytes]
    methods: list[str] = field(default_factory=list)
    models: list[str] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
    vectors: Floats | None = None
    vector_method: str = image_descriptor.NAME
    vector_model: str | None = None


class VisionEngine(Engine[Input, Output]):
    """A picture to what can be said of it."""

    name = "vision"
    title = "Picture understanding"
    method = "image-facts"
    example = Input(image=ImageSource(base64=_EXAMPLE_PNG))
    needs = (IMAGE_SAFETY,)
    timeout_s = 180.0

    async def run(self, payload: Input, ctx: EngineContext) -> Output:
        """Look at a picture. Raises UnsupportedMedia, UnreadableMedia, EmptyMedia, TooLarge, InvalidInput, NotFound."""
        _check(payload)
        data = await ocr.bytes_of(payload.image, ctx)
        picture = await ctx.pictures.decoded(data, max_pixels=_PIXELS)
        others = [await ocr.bytes_of(source, ctx) for source in payload.compare_with]
        work = _Work(payload=payload, ctx=ctx, data=data, picture=picture, others=others)
        found: dict[str, object] = {}
        skipped: list[SkippedTask] = []
        tasks = [task for task in _STEPS if task in payload.tasks]
        for done, task in enumerate(tasks):
            try:
                found[task] = await _STEPS[task](work)
            except (Unavailable, _Missing) as error:
                skipped.append(SkippedTask(task=task, reason=_reason(error)))
            await ctx.progress(task, (done + 1) / len(tasks))
        warnings = []
        if picture.frames > 1:
            warnings.append(f"only the first of {picture.frames} frames was looked at")
        return Output.model_validate(
            {
                **{task: found.get(task) for task in _STEPS},
                "method": "+".join(dict.fromkeys(work.methods)) or self.method,
                "models": list(dict.fromkeys(work.models)),
                "usage": work.usage,
                "skipped": skipped,
                "reliable": not skipped and not warnings,
                "warnings": warnings,
            }
        )

    async def health(self) -> Health:
        """Degraded while a model is missing: which tasks are then skipped or answered by a weaker method."""
        safety, embedding = (self.probe.models.status(ref) for ref in (IMAGE_SAFETY, IMAGE_EMBEDDING))
        details = []
        if safety.state in ("missing", "failed"):
            details.append(f"safety is skipped: {safety.detail or safety.state}")
        if embedding.state in ("missing", "failed"):
            details.append(
                f"labels are skipped, embedding and similarity use {image_descriptor.NAME}: "
                f"{embedding.detail or embedding.state}"
            )
        models: dict[str, str] = {safety.id: safety.state}
        if embedding.state != "missing":
            models[embedding.id] = embedding.state
        return Health(
            status="degraded" if details else "ready",
            method=self.method,
            models=models,
            detail="; ".join(details) or None,
        )


class _Missing(Exception):
    """A task nobody here can do."""


def _reason(error: Exception) -> str:
    if isinstance(error, NeuroEdgeError):
        return error.detail if error.hint is None else f"{error.detail} ({error.hint})"
    return str(error)


def _check(payload: Input) -> None:
    if "labels" in payload.tasks and len(payload.labels) < 2:
        raise _wrong("labels", "the task labels needs at least two labels to choose from")
    if "similarity" in payload.tasks and not payload.compare_with:
        raise _wrong("compare_with", "the task similarity needs at least one picture to compare with")


def _wrong(field_name: str, what: str) -> InvalidInput:
    return InvalidInput(what, errors=[{"loc": (field_name,), "msg": what, "type": "value_error"}])


async def _facts(work: _Work) -> PictureFacts:
    work.methods.append("image-facts")
    return await asyncio.to_thread(_measured, work.picture, tell_location=work.payload.location)


def _measured(picture: Picture, *, tell_location: bool) -> PictureFacts:
    light = image_facts.grey(picture.pixels)
    colours = image_facts.dominant_colours(picture.pixels)
    return PictureFacts(
        width_px=picture.width_px,
        height_px=picture.height_px,
        format=picture.format,
        mode=picture.mode,
        frames=picture.frames,
        transparent=picture.transparent,
        exif_orientation=picture.orientation,
        taken_at=picture.taken_at.isoformat() if picture.taken_at else None,
        has_location=picture.location is not None,
        location=picture.location if tell_location else None,
        brightness=round(image_facts.brightness(light), 4),
        contrast=round(image_facts.contrast(light), 4),
        sharpness=round(image_facts.sharpness(light), 2),
        colourfulness=round(image_facts.colourfulness(picture.pixels), 2),
        colours=[PictureColour(hex=colour.hex, share=colour.share) for colour in colours],
        perceptual_hash=f"{image_facts.perceptual_hash(light):016x}",
    )


async def _safety(work: _Work) -> PictureSafety:
    async with work.ctx.models.lease(IMAGE_SAFETY) as model:
        p = await model.p_unsafe(work.data)
        work.models.append(model.model_id)
        work.methods.append(model.model_id)
        return PictureSafety(p_unsafe=round(p, 4), verdict=_verdict(p), model=model.model_id)


def _verdict(p_unsafe: float) -> Literal["safe", "unsure", "unsafe"]:
    if p_unsafe < _LIKELY_SAFE:
        return "safe"
    return "unsafe" if p_unsafe > _LIKELY_UNSAFE else "unsure"


async def _all_vectors(work: _Work) -> Floats:
    """Of the picture, and of those it is compared with; computed once."""
    if work.vectors is not None:
        return work.vectors
    status = work.ctx.models.status(IMAGE_EMBEDDING)
    others = work.others if "similarity" in work.payload.tasks else []
    if status.state == "missing":
        pictures = [work.picture.pixels] + [await _pixels(work, data) for data in others]
        made = await asyncio.to_thread(lambda: np.stack([image_descriptor.descriptor(p) for p in pictures]))
    else:
        async with work.ctx.models.lease(IMAGE_EMBEDDING) as model:
            made = await model.encode_images([work.data, *others])
            work.vector_method, work.vector_model = model.method, model.model_id
        work.models.append(work.vector_model)
    work.methods.append(work.vector_method)
    work.vectors = made
    return made


async def _pixels(work: _Work, data: bytes) -> image_facts.Pixels:
    return (await work.ctx.pictures.decoded(data, max_pixels=_PIXELS)).pixels


async def _embedding(work: _Work) -> PictureVector:
    vector = (await _all_vectors(work))[0]
    return PictureVector(
        vector=[round(float(value), 6) for value in vector],
        dim=len(vector),
        method=work.vector_method,
        model=work.vector_model,
    )


async def _similarity(work: _Work) -> list[PictureSimilarity]:
    vectors = await _all_vectors(work)
    own = await asyncio.to_thread(_hash, work.picture.pixels)
    found = []
    for data, vector in zip(work.others, vectors[1:], strict=True):
        other = await asyncio.to_thread(_hash, await _pixels(work, data))
        found.append(
            PictureSimilarity(
                cosine=round(float(vectors[0] @ vector), 4),
                hash_distance_bits=image_facts.hash_distance(own, other),
                method=work.vector_method,
            )
        )
    return found


def _hash(pixels: image_facts.Pixels) -> int:
    return image_facts.perceptual_hash(image_facts.grey(pixels))


async def _labels(work: _Work) -> list[PictureLabel]:
    if work.ctx.models.status(IMAGE_EMBEDDING).state == "missing":
        raise _Missing("no model of the role image_embedding is installed (CLIP or SigLIP; see docs/engines/vision.md)")
    picture = (await _all_vectors(work))[0]
    async with work.ctx.models.lease(IMAGE_EMBEDDING) as model:
        cosines = await model.encode_texts(work.payload.labels) @ picture
        chances = model.probabilities(cosines)
    found = zip(work.payload.labels, chances.tolist(), cosines.tolist(), strict=True)
    labels = [PictureLabel(label=text, p=round(p, 4), cosine=round(c, 4)) for text, p, c in found]
    return sorted(labels, key=lambda label: -label.cosine)


async def _description(work: _Work) -> str:
    """By whoever takes pictures; it is sent without metadata and reduced to a megapixel."""
    picture = Image(media_type="image/jpeg", data=await work.ctx.pictures.jpeg(work.picture.pixels))
    asked = ChatMessage(role="user", content=work.payload.prompt, images=[picture])
    policy = Policy(query_type=_POLICY.query_type, local_only=work.payload.local_only)
    said, model = "", ""
    try:
        stream = work.ctx.llm.stream(ChatRequest(messages=[asked], max_tokens=300), policy=policy)
        async with aclosing(stream) as deltas:
            async for delta in deltas:
                said += delta.text
                model = delta.model or model
                work.usage.count(delta)
    except BudgetExceeded:
        raise
    except NeuroEdgeError as error:
        raise _Missing(f"no language model describes pictures: {_reason(error)}") from error
    if not said.strip():
        raise _Missing("the language model said nothing")
    work.methods.append("llm")
    if model:
        work.models.append(model)
    return said.strip()


async def _text(work: _Work) -> str:
    encoded = await asyncio.to_thread(lambda: base64.b64encode(work.data).decode())
    answer = cast(ocr.Output, await work.ctx.call("ocr", ocr.Input(image=ImageSource(base64=encoded))))
    work.methods.append(answer.method)
    work.models += answer.models
    return answer.text


_STEPS: Final[dict[Task, Callable[[_Work], Awaitable[object]]]] = {
    "facts": _facts,
    "safety": _safety,
    "embedding": _embedding,
    "similarity": _similarity,
    "labels": _labels,
    "description": _description,
    "text": _text,
}
