"""/v1/images: keep images, list, read, find by likeness or by words, delete."""

from datetime import datetime
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator

from neuroedge.contract.ports import ImageSource, Visibility
from neuroedge.contract.principal import RUN_ENGINES, WRITE
from neuroedge.http.auth import Reader, RequestId, Requires, RequiresCall, Runner, ThePlatform, Writer
from neuroedge.http.form_labels import form_labels
from neuroedge.http.uploads import form_schema, receive
from neuroedge.services.images import Added, FoundImages, Hit, Labels, Reembedded, Wanted
from neuroedge.stores.images import StoredImage

router = APIRouter(prefix="/v1/images", tags=["images"])
FIELDS: Final = {
    "title": "Name of the image.",
    "tags": "Labels to give back with each hit, separated by commas.",
    "visibility": "private (default), division or organisation.",
    "metadata": "A JSON object to give back with each hit.",
}
_ADDED = {200: {"description": "The caller had this very file already; this is it"}}
_may_run = Depends(RequiresCall(RUN_ENGINES))
_may_write = Depends(Requires(WRITE))
Tag = Annotated[str, Field(min_length=1, max_length=100)]


class ImageOut(BaseModel):
    """An image without its bytes."""

    id: UUID
    title: str | None
    filename: str
    tags: list[str]
    metadata: dict[str, Any]
    visibility: Visibility
    media_type: str = Field(description="What the file is by its bytes.")
    width_px: int = Field(description="As it is to be seen: turned as its EXIF data say.")
    height_px: int
    bytes: int
    perceptual_hash: str = Field(description="64 bits in hexadecimal; near images differ in few bits.")
    method: str = Field(description="What made its vector: clip, siglip, colour-gradient-1.")
    model: str | None = Field(description="Catalogue id of the model that made its vector; null: made without one.")
    duplicate: bool = Field(default=False, description="Whether the caller had sent this very file before.")
    created_at: datetime

    @classmethod
    def of(cls, image: StoredImage, *, duplicate: bool = False) -> "ImageOut":
        """From the stored row."""
        said = image.said
        return cls(
            id=image.id,
            title=said.title,
            filename=said.filename,
            tags=list(said.tags),
            metadata=dict(said.metadata),
            visibility=image.visibility,
            media_type=image.media_type,
            width_px=image.width_px,
            height_px=image.height_px,
            bytes=image.bytes,
            perceptual_hash=said.perceptual_hash,
            method=said.method,
            model=said.model,
            duplicate=duplicate,
            created_at=image.created_at,
        )


class ImagePage(BaseModel):
    """Some images, newest first."""

    images: list[ImageOut]
    next: UUID | None = Field(default=None, description="Give it as `before` to get the next page.")


class ImageSearchIn(BaseModel):
    """What to look for: exactly one of `text`, `image` and `image_id`."""

    model_config = ConfigDict(extra="forbid")

    text: str | None = Field(
        default=None,
        min_length=1,
        max_length=2000,
        description="What an image shows; needs a model of the role image_embedding (CLIP, SigLIP).",
    )
    image: ImageSource | None = Field(
        default=None,
        description="An image that others look like: as a blob's key up to 32 MB, in base64 about 25 MB by default.",
    )
    image_id: UUID | None = Field(default=None, description="One that is kept; it is not among the hits itself.")
    limit: int = Field(default=10, ge=1, le=100, description="Most hits.")
    min_cosine: float = Field(
        default=-1.0, ge=-1, le=1, allow_inf_nan=False, description="Hits are at least as near; depends on the method."
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> "ImageSearchIn":
        if sum(one is not None for one in (self.text, self.image, self.image_id)) != 1:
            raise ValueError("give exactly one of 'text', 'image' and 'image_id'")
        return self


class ImageHit(BaseModel):
    """An image that was found."""

    image: ImageOut
    cosine: float = Field(description="Of its vector and that of what was looked for, -1 to 1.")
    hash_distance_bits: int | None = Field(
        description="0 to 64; up to about 8: the same picture, scaled or compressed anew. Null for words."
    )

    @classmethod
    def of(cls, hit: Hit) -> "ImageHit":
        """From what was found."""
        return cls(image=ImageOut.of(hit.image), cosine=round(hit.cosine, 4), hash_distance_bits=hit.hash_distance_bits)


class ImageSearchOut(BaseModel):
    """The hits, nearest first, and how they were found."""

    hits: list[ImageHit]
    method: str = Field(
        description="clip or siglip: what images show. colour-gradient-1: colours and edges only, of images that look "
        "alike; it knows nothing of what they show."
    )
    model: str | None = Field(description="Catalogue id of the model; null: compared without one.")
    compared: int = Field(description="Images that were compared, each one exactly.")
    left_out: int = Field(description="Images whose vectors another method made: they cannot be compared.")
    warnings: list[str] = Field(description="What to know of this answer.")

    @classmethod
    def of(cls, found: FoundImages) -> "ImageSearchOut":
        """From what was found."""
        warnings = []
        if found.model is None:
            warnings.append("compared by colours and edges: alike are images that look alike, whatever they show")
        if found.left_out:
            warnings.append(f"{found.left_out} images were left out; POST /v1/images/reembed makes them comparable")
        return cls(
            hits=[ImageHit.of(hit) for hit in found.hits],
            method=found.method,
            model=found.model,
            compared=found.compared,
            left_out=found.left_out,
            warnings=warnings,
        )


class ReembedIn(BaseModel):
    """How many images to look at anew."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(default=20, ge=1, le=100, description="Most images in this call.")
    after: UUID | None = Field(default=None, description="`next` of the call before.")


class ReembedOut(BaseModel):
    """What became of them."""

    done: int = Field(description="Images that are comparable now.")
    failed: list[UUID] = Field(description="Images that could not be read.")
    left: int = Field(description="Images that still have the vector of another method.")
    next: UUID | None = Field(description="Give it as `after` to go on; null: that was all.")

    @classmethod
    def of(cls, result: Reembedded) -> "ReembedOut":
        """From what was done."""
        return cls(done=result.done, failed=result.failed, left=result.left, next=result.next)


@router.post(
    "",
    status_code=201,
    summary="Keep an image",
    openapi_extra=form_schema("file", FIELDS),
    responses=_ADDED,  # type: ignore[arg-type]
    dependencies=[_may_run],
)
async def create(
    request: Request, response: Response, principal: Writer, platform: ThePlatform, request_id: RequestId
) -> ImageOut:
    """Keep an image of at most 32 MB and 50 megapixels, and make it findable. A file the caller has sent before is
    answered with 200 and kept once."""
    async with receive(request, file_field="file", fields=tuple(FIELDS)) as received:
        added = await platform.images.add(
            principal, received.upload, labels=_labels(received.fields), request_id=request_id
        )
    if added.duplicate:
        response.status_code = 200
    return _added(added)


@router.get("", summary="List images")
async def list_images(
    principal: Reader,
    platform: ThePlatform,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    before: Annotated[UUID | None, Query(description="`next` of the page before.")] = None,
) -> ImagePage:
    """Images the caller may see, newest first."""
    found = await platform.images.page(principal, limit=limit + 1, before=before)
    page = found[:limit]
    return ImagePage(images=[ImageOut.of(image) for image in page], next=page[-1].id if len(found) > limit else None)


@router.post("/search", summary="Find images")
async def search(
    body: ImageSearchIn, principal: Runner, platform: ThePlatform, request_id: RequestId
) -> ImageSearchOut:
    """Find images that look like an image, or, with a model for that, show what a text says."""
    images, wanted = platform.images, Wanted(limit=body.limit, min_cosine=body.min_cosine)
    if body.image is not None:
        found = await images.like_image(principal, body.image, wanted=wanted, request_id=request_id)
    elif body.image_id is not None:
        found = await images.like_kept(principal, body.image_id, wanted=wanted, request_id=request_id)
    else:
        found = await images.by_words(principal, body.text or "", wanted=wanted, request_id=request_id)
    return ImageSearchOut.of(found)


@router.post("/reembed", summary="Make older images comparable", dependencies=[_may_write])
async def reembed(body: ReembedIn, principal: Runner, platform: ThePlatform, request_id: RequestId) -> ReembedOut:
    """Look anew at some of the images whose vectors another method made: after a model for images was set up."""
    return ReembedOut.of(
        await platform.images.reembed(principal, limit=body.limit, after=body.after, request_id=request_id)
    )


@router.get("/{image_id}", summary="Read what is known of an image")
async def read(image_id: UUID, principal: Reader, platform: ThePlatform) -> ImageOut:
    """One image without its bytes."""
    return ImageOut.of(await platform.images.get(principal, image_id))


@router.get("/{image_id}/content", summary="Read an image", response_class=Response)
async def content(image_id: UUID, principal: Reader, platform: ThePlatform) -> Response:
    """Its bytes as they were sent, with what the file says of camera and place."""
    image, data = await platform.images.content(principal, image_id)
    # The type is what the bytes were decoded as; no name of the sender's choice.
    return Response(data, media_type=image.media_type, headers={"Content-Disposition": "attachment"})


@router.delete("/{image_id}", status_code=204, summary="Delete an image")
async def delete(image_id: UUID, principal: Writer, platform: ThePlatform, request_id: RequestId) -> Response:
    """Delete an image for good."""
    await platform.images.delete(principal, image_id, request_id=request_id)
    return Response(status_code=204)


class _Fields(BaseModel):
    title: str | None = Field(default=None, max_length=200)
    tags: list[Tag] = Field(default_factory=list, max_length=50)
    visibility: Visibility = "private"
    metadata: dict[str, Any] = Field(default_factory=dict)


def _labels(fields: dict[str, str]) -> Labels:
    """Raises InvalidInput with the fields that are wrong."""
    return Labels(**dict(form_labels(_Fields, fields)))


def _added(added: Added) -> ImageOut:
    return ImageOut.of(added.image, duplicate=added.duplicate)
