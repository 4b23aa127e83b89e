"""The review queue: texts that a rule or a user put before people, claimed, approved, corrected or rejected.

Reviewers are who manages the organisation. One has a review in hand at a time until its claim runs out.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from neuroedge.contract.errors import Conflict, Forbidden, InvalidInput, NotFound
from neuroedge.contract.principal import MANAGE_ORG, Principal
from neuroedge.infra.events import Events
from neuroedge.services.progress import PING, Following, ProgressEvent
from neuroedge.services.safety_policy import Stage
from neuroedge.stores import ledgers, reviews
from neuroedge.stores.postgres import Connection, Database
from neuroedge.stores.reviews import Ending, Review, State, Step

CLAIM_S: Final = 15 * 60.0
MAX_CONTENT_CHARS: Final = 100_000
"""Of a longer text the beginning is kept."""
TOPIC: Final = "reviews"
Snapshot = Callable[[Principal, str], Awaitable[str]]
"""The text of a thing the caller may see, by its id. Raises NotFound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reviewed:
    """A review with its history."""

    review: Review
    steps: list[Step]


class Reviews:
    """The queue of the caller's organisation; every step is kept, and an audit row says who took it."""

    def __init__(self, *, db: Database, events: Events, snapshots: Mapping[str, Snapshot] | None = None) -> None:
        self._db = db
        self._events = events
        self._snapshots = dict(snapshots or {})
        self._following = Following(events, ends=())

    async def add(
        self, principal: Principal, *, kind: str, ref: str, reason: str, content: str | None, request_id: str
    ) -> Review:
        """Put a thing before the reviewers, with its text as it is now.

        Raises InvalidInput for a kind whose text is not known here and not given, NotFound.
        """
        if (snapshot := self._snapshots.get(kind)) is not None:
            content = await snapshot(principal, ref)
        if content is None or not content.strip():
            known = ", ".join(sorted(self._snapshots)) or "none"
            raise InvalidInput(f"give the content of a {kind}", hint=f"kinds whose text is known here: {known}")
        async with self._db.tenant(principal) as conn:
            review = await reviews.insert(
                conn,
                org_id=principal.org_id,
                user_id=principal.user_id,
                source="user",
                kind=kind,
                ref=ref,
                content=content[:MAX_CONTENT_CHARS],
                reason=reason,
            )
            await self._step(conn, principal, review.id, "opened", "", request_id)
        await self._tell(principal, review)
        return review

    async def add_by_rule(self, principal: Principal, *, decision_id: UUID, stage: Stage, text: str) -> None:
        """Queue a text that a rule of the safety policy acted on."""
        async with self._db.tenant(principal) as conn:
            review = await reviews.insert(
                conn,
                org_id=principal.org_id,
                user_id=principal.user_id,
                source="rule",
                kind=stage,
                ref=str(decision_id),
                content=text[:MAX_CONTENT_CHARS],
                reason="",
                decision_id=decision_id,
            )
            await reviews.add_step(
                conn,
                org_id=principal.org_id,
                review_id=review.id,
                step="opened",
                by_user=principal.user_id,
                note="",
            )
        await self._tell(principal, review)

    async def list(
        self, principal: Principal, *, limit: int, before: UUID | None = None, state: State | None = None
    ) -> list[Review]:
        """Newest first: everybody's for a reviewer, else what the caller put there."""
        mine = None if principal.may(MANAGE_ORG) else principal.user_id
        async with self._db.tenant(principal) as conn:
            return await reviews.page(
                conn, org_id=principal.org_id, user_id=mine, limit=limit, before=before, state=state
            )

    async def get(self, principal: Principal, review_id: UUID) -> Reviewed:
        """One with its history, for reviewers and for who put it there. Raises NotFound."""
        async with self._db.tenant(principal) as conn:
            review = await self._require(conn, principal, review_id)
            history = await reviews.steps(conn, org_id=principal.org_id, review_id=review_id)
        return Reviewed(review=review, steps=[*history])

    async def claim(self, principal: Principal, review_id: UUID | None, *, request_id: str) -> Review:
        """Take a review in hand, or the oldest that nobody has, for CLAIM_S; again to go on having it.

        Raises Forbidden, NotFound (also when the queue is empty), Conflict when another one has it or it is finished.
        """
        _reviewer(principal)
        async with self._db.tenant(principal) as conn:
            if review_id is not None:
                held = await self._require(conn, principal, review_id, lock=True)
                if held.finished_at is not None:
                    raise Conflict(f"the review {review_id} is {held.state} already", hint="it is finished")
                if held.claimed_by == principal.user_id:
                    await reviews.release(conn, org_id=principal.org_id, review_id=review_id)
            claimed = await reviews.claim(
                conn, org_id=principal.org_id, review_id=review_id, user_id=principal.user_id, lease_s=CLAIM_S
            )
            if claimed is None and review_id is not None:
                raise Conflict("another reviewer has it in hand", hint=f"it is free again within {CLAIM_S / 60:g} min")
            if claimed is None:
                raise NotFound("no review waits", hint="GET /v1/reviews lists all of them")
            await self._step(conn, principal, claimed.id, "claimed", "", request_id)
        await self._tell(principal, claimed)
        return claimed

    async def release(self, principal: Principal, review_id: UUID, *, request_id: str) -> Review:
        """Put a review back that the caller has in hand. Raises Forbidden, NotFound, Conflict."""
        _reviewer(principal)
        async with self._db.tenant(principal) as conn:
            await self._held(conn, principal, review_id)
            await reviews.release(conn, org_id=principal.org_id, review_id=review_id)
            await self._step(conn, principal, review_id, "released", "", request_id)
            review = await self._require(conn, principal, review_id)
        await self._tell(principal, review)
        return review

    async def finish(
        self,
        principal: Principal,
        review_id: UUID,
        *,
        state: Ending,
        note: str = "",
        corrected: str | None = None,
        request_id: str,
    ) -> Review:
        """Close a review that the caller has in hand. Raises Forbidden, NotFound, Conflict when it is not."""
        _reviewer(principal)
        async with self._db.tenant(principal) as conn:
            held = await self._held(conn, principal, review_id)
            review = await reviews.finish(conn, held, org_id=principal.org_id, state=state, corrected=corrected)
            await self._step(conn, principal, review_id, state, note, request_id)
        await self._tell(principal, review)
        return review

    async def follow(self, principal: Principal, *, after: str | None = None) -> AsyncIterator[ProgressEvent]:
        """What happens in the queue, first what happened lately. Raises Forbidden, Overloaded before the first."""
        _reviewer(principal)
        self._following.admit(principal)

        async def silent() -> ProgressEvent:
            return PING

        return self._following.follow(principal, TOPIC, after=after or "0", look=silent)

    async def _held(self, conn: Connection, principal: Principal, review_id: UUID) -> Review:
        review = await self._require(conn, principal, review_id, lock=True)
        if review.state != "claimed" or review.claimed_by != principal.user_id:
            raise Conflict(
                f"the review {review_id} is not in your hands",
                hint=f"POST /v1/reviews/{review_id}/claim first; a claim runs out after {CLAIM_S / 60:g} min",
            )
        return review

    async def _require(self, conn: Connection, principal: Principal, review_id: UUID, *, lock: bool = False) -> Review:
        review = await reviews.find(conn, org_id=principal.org_id, review_id=review_id, lock=lock)
        if review is None or not (principal.may(MANAGE_ORG) or review.user_id == principal.user_id):
            raise NotFound(f"no review {review_id}", hint="GET /v1/reviews lists yours")
        return review

    async def _step(
        self, conn: Connection, principal: Principal, review_id: UUID, step: str, note: str, request_id: str
    ) -> None:
        org_id, user_id = principal.org_id, principal.user_id
        await reviews.add_step(conn, org_id=org_id, review_id=review_id, step=step, by_user=user_id, note=note)
        await ledgers.add_audit(
            conn,
            org_id=org_id,
            user_id=user_id,
            request_id=request_id,
            action=f"review.{step}",
            target=f"review:{review_id}",
        )

    async def _tell(self, principal: Principal, review: Review) -> None:
        await self._events.publish(principal.org_id, TOPIC, review.state, {"id": str(review.id), "kind": review.kind})


def _reviewer(principal: Principal) -> None:
    if not principal.may(MANAGE_ORG):
        raise Forbidden(f"reviewing needs the permission {MANAGE_ORG}")
