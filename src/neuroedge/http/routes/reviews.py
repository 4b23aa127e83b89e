"""/v1/reviews: texts that a rule or a user put before the organisation's reviewers."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from sse_starlette import EventSourceResponse

from neuroedge.http import sse
from neuroedge.http.auth import Reader, RequestId, ThePlatform, Writer
from neuroedge.services.memory_drafts import without_nul
from neuroedge.services.reviews import MAX_CONTENT_CHARS
from neuroedge.stores.reviews import Source, State

router = APIRouter(prefix="/v1/reviews", tags=["reviews"])
Plain = AfterValidator(without_nul)


class ReviewIn(BaseModel):
    """A thing to be looked at."""

    model_config = ConfigDict(extra="forbid")

    kind: Annotated[str, Field(pattern=r"^[a-z][a-z_]{0,39}$")] = Field(
        description="What it is: memory and message are known here; of any other kind give the content."
    )
    ref: Annotated[str, Field(pattern=r"^[A-Za-z0-9._:/-]{1,200}$")] = Field(
        description="Its id; of a message <session id>/<message id>."
    )
    reason: Annotated[str, Plain, Field(max_length=4000)] = Field(default="", description="Why.")
    content: Annotated[str, Plain, Field(max_length=MAX_CONTENT_CHARS)] | None = Field(
        default=None, description="Its text, of kinds that are not known here."
    )


class ReviewNote(BaseModel):
    """What a reviewer has to say."""

    model_config = ConfigDict(extra="forbid")

    note: Annotated[str, Plain, Field(max_length=4000)] = ""


class ReviewCorrection(ReviewNote):
    """A better text."""

    text: Annotated[str, Plain, Field(min_length=1, max_length=MAX_CONTENT_CHARS)]


class ReviewOut(BaseModel):
    """A text in the queue."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    user_id: UUID = Field(description="Who reported it, or whose text a rule acted on.")
    source: Source
    kind: str
    ref: str
    decision_id: UUID | None = Field(description="The safety decision that put it here.")
    state: State
    claimed_by: UUID | None
    claimed_until: datetime | None
    content: str = Field(description="As it was when it was put here.")
    reason: str
    corrected: str | None
    created_at: datetime
    finished_at: datetime | None


class ReviewStep(BaseModel):
    """Something done with a review."""

    model_config = ConfigDict(from_attributes=True)

    step: str
    by_user: UUID
    note: str
    created_at: datetime


class ReviewDetail(ReviewOut):
    """A review with its history."""

    steps: list[ReviewStep]


class ReviewPage(BaseModel):
    """Reviews, newest first."""

    reviews: list[ReviewOut]
    next: UUID | None = Field(default=None, description="Give it as `before` to get the next page.")


@router.post("", status_code=201, summary="Ask for a review")
async def add(body: ReviewIn, principal: Writer, platform: ThePlatform, request_id: RequestId) -> ReviewOut:
    """Keeps the text as it is now, encrypted, for who manages the organisation."""
    review = await platform.reviews.add(
        principal, kind=body.kind, ref=body.ref, reason=body.reason, content=body.content, request_id=request_id
    )
    return ReviewOut.model_validate(review)


@router.get("", summary="List reviews")
async def list_reviews(
    principal: Reader,
    platform: ThePlatform,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
    before: UUID | None = None,
    state: State | None = None,
) -> ReviewPage:
    """All for reviewers (owner, admin), else those the caller asked for."""
    found = await platform.reviews.list(principal, limit=limit, before=before, state=state)
    return ReviewPage(
        reviews=[ReviewOut.model_validate(review) for review in found],
        next=found[-1].id if len(found) == limit else None,
    )


@router.get("/events", summary="Follow the queue")
async def events(
    request: Request, principal: Writer, platform: ThePlatform, last_event_id: sse.LastEventId = None
) -> EventSourceResponse:
    """Server-sent events open, claimed, approved, corrected, rejected with the review's id; for reviewers."""
    return sse.answer(await platform.reviews.follow(principal, after=last_event_id), request)


@router.post("/claim", summary="Take the next review")
async def claim_next(principal: Writer, platform: ThePlatform, request_id: RequestId) -> ReviewOut:
    """The oldest nobody has in hand, for 15 minutes. 404 when none waits."""
    return ReviewOut.model_validate(await platform.reviews.claim(principal, None, request_id=request_id))


@router.get("/{review_id}", summary="A review with its history")
async def get(review_id: UUID, principal: Reader, platform: ThePlatform) -> ReviewDetail:
    """For reviewers and for who asked for it."""
    found = await platform.reviews.get(principal, review_id)
    plain = ReviewOut.model_validate(found.review).model_dump()
    return ReviewDetail(**plain, steps=[ReviewStep.model_validate(step) for step in found.steps])


@router.post("/{review_id}/claim", summary="Take a review")
async def claim(review_id: UUID, principal: Writer, platform: ThePlatform, request_id: RequestId) -> ReviewOut:
    """For 15 minutes; again to go on. 409 when another reviewer has it in hand."""
    return ReviewOut.model_validate(await platform.reviews.claim(principal, review_id, request_id=request_id))


@router.post("/{review_id}/release", summary="Put a review back")
async def release(review_id: UUID, principal: Writer, platform: ThePlatform, request_id: RequestId) -> ReviewOut:
    """Nobody has it in hand then."""
    return ReviewOut.model_validate(await platform.reviews.release(principal, review_id, request_id=request_id))


@router.post("/{review_id}/approve", summary="Approve a text")
async def approve(
    review_id: UUID, body: ReviewNote, principal: Writer, platform: ThePlatform, request_id: RequestId
) -> ReviewOut:
    """It is fine as it is."""
    done = await platform.reviews.finish(principal, review_id, state="approved", note=body.note, request_id=request_id)
    return ReviewOut.model_validate(done)


@router.post("/{review_id}/correct", summary="Correct a text")
async def correct(
    review_id: UUID, body: ReviewCorrection, principal: Writer, platform: ThePlatform, request_id: RequestId
) -> ReviewOut:
    """Another text should stand in its place; the review keeps both."""
    done = await platform.reviews.finish(
        principal, review_id, state="corrected", note=body.note, corrected=body.text, request_id=request_id
    )
    return ReviewOut.model_validate(done)


@router.post("/{review_id}/reject", summary="Reject a text")
async def reject(
    review_id: UUID, body: ReviewNote, principal: Writer, platform: ThePlatform, request_id: RequestId
) -> ReviewOut:
    """It should not have been said."""
    done = await platform.reviews.finish(principal, review_id, state="rejected", note=body.note, request_id=request_id)
    return ReviewOut.model_validate(done)
