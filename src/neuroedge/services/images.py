"""Images of an organisation: kept, and found again by what they look like or, with a model for that, by words.

Vectors come from the engine vision: CLIP or SigLIP where the role image_embedding has a model, else colours and edges
(kit/image_descriptor.py), which find pictures that look alike and know nothing of what they show. Vectors of two
methods are never compared; `reembed` brings older images to the present one.
"""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, cast
from uuid import UUID

import numpy as np

from neuroedge.contract.errors import (
    Conflict,
    Forbidden,
    ModelUnavailable,
    NeuroEdgeError,
    NotFound,
    TooLarge,
    Unavailable,
)
from neuroedge.contract.models import IMAGE_EMBEDDING, Floats
from neuroedge.contract.picture import PictureFacts
from neuroedge.contract.ports import ImageSource, Visibility
from neuroedge.contract.principal import Principal
from neuroedge.engines.vision import ocr, vision
from neuroedge.kit import image_descriptor
from neuroedge.services.audit import audited
from neuroedge.services.housekeeping import forget_blobs
from neuroedge.services.orphans import sweep_orphans
from neuroedge.services.recordings import Upload
from neuroedge.services.run_engine import EngineRunner
from neuroedge.stores import images
from neuroedge.stores.ids import new_id
from neuroedge.stores.images import NewImage, Said, StoredImage
from neuroedge.stores.postgres import Connection, Database

MAX_IMAGES: Final = 20_000
"""Of one user: each search compares with every image the caller sees."""
MEDIA_TYPES: Final[Mapping[str, str]] = {
    "PNG": "image/png",
    "JPEG": "image/jpeg",
    # A JPEG file with more pictures behind the first, as some telephones write.
    "MPO": "image/jpeg",
    "TIFF": "image/tiff",
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "BMP": "image/bmp",
}
_NO_WORDS: Final = "images are found by words only with a model of the role image_embedding (CLIP or SigLIP)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """What the sender says of an image."""

    title: str | None = None
    tags: Sequence[str] = ()
    visibility: Visibility = "private"
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """An image that was sent; `duplicate`: the caller had this very file already, and this is it."""

    image: StoredImage
    duplicate: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """How many hits a search is to give, and how near they must be."""

    limit: int = 10
    min_cosine: float = -1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """An image that was found."""

    image: StoredImage
    cosine: float
    hash_distance_bits: int | None
    """None where the search was by words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundImages:
    """What a search found, and by which method."""

    hits: list[Hit]
    method: str
    model: str | None
    compared: int
    left_out: int
    """Images whose vectors another method made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reembedded:
    """What became of images whose vectors another method had made."""

    done: int
    failed: list[UUID]
    left: int
    next: UUID | None
    """Where to go on; None: nothing comes after."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """What the engine vision makes of a picture."""

    facts: PictureFacts
    vector: Floats
    method: str
    model: str | None
    space: str


class Images:
    """The images that the caller may see."""

    def __init__(self, *, db: Database, runner: EngineRunner) -> None:
        self._db = db
        self._runner = runner
        self._contexts = runner.contexts

    async def add(self, principal: Principal, upload: Upload, *, labels: Labels, request_id: str) -> Added:
        """Keep an image. Raises TooLarge, Conflict, what decoding raises; then nothing is kept."""
        if upload.bytes > ocr.MAX_BYTES:
            raise TooLarge(f"the image is larger than {ocr.MAX_BYTES} bytes", hint="send it smaller")
        sha256 = await asyncio.to_thread(_sha256, upload.path)
        async with self._db.tenant(principal) as conn:
            known = await images.find_by_content(conn, user_id=principal.user_id, sha256=sha256)
            if known is not None:
                return Added(image=known, duplicate=True)
            if await images.count_of(conn, principal.user_id) >= MAX_IMAGES:
                raise Conflict(f"you have {MAX_IMAGES} images already", hint="delete some")
        image_id = new_id()
        blobs = self._contexts.blobs(principal)
        kept: StoredImage | None = None
        try:
            await blobs.put(_content(image_id), upload.path)
            seen = await self._look(principal, ImageSource(blob=_content(image_id)), request_id)
            new = _new(image_id, upload, seen, labels=labels, sha256=sha256)
            async with self._db.tenant(principal) as conn:
                kept = await images.insert(conn, org_id=principal.org_id, user_id=principal.user_id, new=new)
                if kept is not None:
                    await _audit(conn, principal, request_id, "image.created", image_id)
                else:  # sent twice at the same time
                    known = await images.find_by_content(conn, user_id=principal.user_id, sha256=sha256)
        finally:
            if kept is None:
                await asyncio.shield(forget_blobs(blobs, _folder(image_id)))
        if kept is None:
            return Added(image=_there(known, image_id), duplicate=True)
        return Added(image=kept, duplicate=False)

    async def get(self, principal: Principal, image_id: UUID) -> StoredImage:
        """One image. Raises NotFound."""
        async with self._db.tenant(principal) as conn:
            return _there(await images.find(conn, image_id), image_id)

    async def content(self, principal: Principal, image_id: UUID) -> tuple[StoredImage, bytes]:
        """An image with its bytes as they were sent. Raises NotFound."""
        found = await self.get(principal, image_id)
        return found, await self._contexts.blobs(principal).get(_content(image_id))

    async def page(self, principal: Principal, *, limit: int, before: UUID | None) -> list[StoredImage]:
        """Newest first."""
        async with self._db.tenant(principal) as conn:
            return await images.page(conn, limit=limit, before=before)

    async def delete(self, principal: Principal, image_id: UUID, *, request_id: str) -> None:
        """Delete an image for good. Raises NotFound."""
        async with self._db.tenant(principal) as conn:
            if not await images.delete(conn, image_id):
                raise _not_found(image_id)
            await _audit(conn, principal, request_id, "image.deleted", image_id)
        # What cannot be deleted now is an object without a row, which the sweep deletes.
        await forget_blobs(self._contexts.blobs(principal), _folder(image_id))

    async def like_image(
        self, principal: Principal, image: ImageSource, *, wanted: Wanted, request_id: str
    ) -> FoundImages:
        """Images that look like this one, the nearest first. Raises what decoding raises, Unavailable."""
        seen = await self._look(principal, image, request_id)
        return await self._near(principal, seen, wanted=wanted, without=None)

    async def like_kept(self, principal: Principal, image_id: UUID, *, wanted: Wanted, request_id: str) -> FoundImages:
        """Other images that look like one that is kept. Raises NotFound, Unavailable."""
        await self.get(principal, image_id)
        seen = await self._look(principal, ImageSource(blob=_content(image_id)), request_id)
        return await self._near(principal, seen, wanted=wanted, without=image_id)

    async def by_words(self, principal: Principal, text: str, *, wanted: Wanted, request_id: str) -> FoundImages:
        """Images that show what the text says. Raises ModelUnavailable where no model knows pictures and words."""
        if not principal.may_run("vision"):
            raise Forbidden("this API key does not allow the engine vision")
        models = self._runner.context(principal, request_id=request_id).models
        space = self._space(principal, request_id)
        if space == image_descriptor.NAME:
            raise ModelUnavailable(_NO_WORDS, hint="set one up as docs/engines/vision.md shows, or search by an image")
        async with models.lease(IMAGE_EMBEDDING) as model:
            vector = (await model.encode_texts([text]))[0]
            method, model_id = model.method, model.model_id
        return await self._found(principal, vector, space=space, method=method, model=model_id, wanted=wanted)

    async def reembed(self, principal: Principal, *, limit: int, after: UUID | None, request_id: str) -> Reembedded:
        """Look anew at some images whose vectors another method made. Raises Unavailable, Overloaded; what was done
        until then stays done."""
        space = self._space(principal, request_id)
        async with self._db.tenant(principal) as conn:
            old = await images.of_other_spaces(conn, space=space, limit=limit, after=after)
        done, failed = 0, list[UUID]()
        for image in old:
            try:
                done += await self._look_anew(principal, image, request_id)
            except NeuroEdgeError as error:
                if error.retryable:
                    raise
                failed.append(image.id)
        async with self._db.tenant(principal) as conn:
            _, left = await images.count_spaces(conn, space=space)
        return Reembedded(done=done, failed=failed, left=left, next=old[-1].id if len(old) == limit else None)

    async def sweep(self) -> int:
        """Delete objects that a crash left without a row, in every organisation; how many."""
        return await sweep_orphans(self._db, self._contexts, "images", exist=images.exist)

    async def _look_anew(self, principal: Principal, image: StoredImage, request_id: str) -> bool:
        seen = await self._look(principal, ImageSource(blob=_content(image.id)), request_id)
        said = replace(image.said, method=seen.method, model=seen.model)
        async with self._db.tenant(principal) as conn:
            return await images.set_vector(conn, image.id, space=seen.space, vector=seen.vector, said=said)

    def _space(self, principal: Principal, request_id: str) -> str:
        """What vectors made now can be compared with."""
        status = self._runner.context(principal, request_id=request_id).models.status(IMAGE_EMBEDDING)
        return image_descriptor.NAME if status.state == "missing" else f"{status.id}:{status.fingerprint}"

    async def _look(self, principal: Principal, image: ImageSource, request_id: str) -> _Seen:
        space = self._space(principal, request_id)
        asked = vision.Input(image=image, tasks=["facts", "embedding"])
        answer = cast(
            vision.Output, await self._runner.run("vision", asked, principal=principal, request_id=request_id)
        )
        made = answer.embedding
        if made is None or answer.facts is None:
            why = "; ".join(skipped.reason for skipped in answer.skipped)
            raise Unavailable(f"the image could not be embedded: {why}", hint="try again later")
        if (made.model is None) != (space == image_descriptor.NAME):
            raise Unavailable("the model for images has just been changed", hint="send it again")
        return _Seen(
            facts=answer.facts,
            vector=np.asarray(made.vector, np.float32),
            method=made.method,
            model=made.model,
            space=space,
        )

    async def _near(self, principal: Principal, seen: _Seen, *, wanted: Wanted, without: UUID | None) -> FoundImages:
        found = await self._found(
            principal,
            seen.vector,
            space=seen.space,
            method=seen.method,
            model=seen.model,
            wanted=wanted,
            without=without,
        )
        own = int(seen.facts.perceptual_hash, 16)
        hits = [
            replace(hit, hash_distance_bits=(own ^ int(hit.image.said.perceptual_hash, 16)).bit_count())
            for hit in found.hits
        ]
        return replace(found, hits=hits)

    async def _found(
        self,
        principal: Principal,
        vector: Floats,
        *,
        space: str,
        method: str,
        model: str | None,
        wanted: Wanted,
        without: UUID | None = None,
    ) -> FoundImages:
        async with self._db.tenant(principal) as conn:
            near = await images.nearest(
                conn, vector=vector, space=space, limit=wanted.limit, min_cosine=wanted.min_cosine, without=without
            )
            same, other = await images.count_spaces(conn, space=space)
        hits = [Hit(image=one.image, cosine=one.cosine, hash_distance_bits=None) for one in near]
        return FoundImages(hits=hits, method=method, model=model, compared=same - (without is not None), left_out=other)


def _new(image_id: UUID, upload: Upload, seen: _Seen, *, labels: Labels, sha256: str) -> NewImage:
    said = Said(
        filename=upload.filename,
        title=labels.title,
        perceptual_hash=seen.facts.perceptual_hash,
        method=seen.method,
        model=seen.model,
        tags=list(labels.tags),
        metadata=dict(labels.metadata),
    )
    return NewImage(
        id=image_id,
        visibility=labels.visibility,
        media_type=MEDIA_TYPES.get(seen.facts.format, "application/octet-stream"),
        width_px=seen.facts.width_px,
        height_px=seen.facts.height_px,
        bytes=upload.bytes,
        sha256=sha256,
        space=seen.space,
        vector=seen.vector,
        said=said,
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _folder(image_id: UUID) -> str:
    return f"images/{image_id}"


def _content(image_id: UUID) -> str:
    return f"{_folder(image_id)}/content"


def _there(image: StoredImage | None, image_id: UUID) -> StoredImage:
    if image is None:
        raise _not_found(image_id)
    return image


def _not_found(image_id: UUID) -> NotFound:
    return NotFound(f"you have no image {image_id}", hint="GET /v1/images lists them")


async def _audit(conn: Connection, principal: Principal, request_id: str, action: str, image_id: UUID) -> None:
    await audited(conn, principal, request_id=request_id, action=action, target=f"image:{image_id}")
