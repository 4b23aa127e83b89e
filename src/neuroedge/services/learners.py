"""Learners of an organisation: consent, what they did, what that says of their skills, taking it away, erasing it.

A learner is no user of NeuroEdge but somebody an application teaches, under the name that application uses. Nothing is
kept without consent on record. Events may come late, twice and in any order: the profile is made of the set of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final, Literal
from uuid import UUID

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StringConstraints,
    model_validator,
)

from neuroedge.contract.errors import Conflict, Forbidden, InvalidInput, NotFound
from neuroedge.contract.principal import Principal
from neuroedge.kit.learner_profile import Practice, SkillState, skills
from neuroedge.services.audit import audited
from neuroedge.services.memory_drafts import without_nul
from neuroedge.stores import learners
from neuroedge.stores.learners import Event, Learner, NewEvent
from neuroedge.stores.postgres import Connection, Database

MAX_EVENTS: Final = 10_000
"""Of one learner."""
MAX_CONSENTS: Final = 200
_AHEAD: Final = timedelta(hours=24)
"""Clocks of devices may be wrong by so much."""
_EARLIEST: Final = datetime(2000, 1, 1, tzinfo=UTC)

Kind = Literal["answer", "page", "idle", "break"]
Name = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(without_nul)]
Label = Annotated[str, StringConstraints(min_length=1, max_length=50), AfterValidator(without_nul)]
Seconds = Annotated[float, Field(ge=0, le=604_800, allow_inf_nan=False)]


class LearnerEvent(BaseModel):
    """Something a learner did."""

    model_config = ConfigDict(extra="forbid")

    id: Name = Field(description="The sender's id of it: the same one again is the same event.")
    at: AwareDatetime = Field(description="When it happened, with time zone.")
    kind: Kind = Field(default="answer", description="answer, page (opened), idle (nothing done) or break (wanted).")
    item: Name | None = Field(default=None, description="Of an answer: the item.")
    skill: Name | None = Field(default=None, description="Of an answer: the one skill it needs.")
    correct: StrictBool | None = Field(default=None, description="Of an answer: whether it was right; null: skipped.")
    time_s: Seconds | None = Field(default=None, description="Of an answer: seconds from showing to answering.")
    hints: int = Field(default=0, ge=0, le=100, description="Of an answer: hints asked for.")
    away_s: Seconds = Field(default=0, description="Of an answer: seconds with the page not in front.")
    modality: Label | None = Field(default=None, description="Of an answer: how the matter was presented.")
    chosen: StrictBool | None = Field(default=None, description="Whether the learner chose the modality.")
    page: Name | None = Field(default=None, description="Of a page: its name.")
    duration_s: Seconds | None = Field(default=None, description="Of idle time: how long.")
    session: Name | None = Field(default=None, description="The session it belongs to.")
    source: Label = Field(default="unknown", description="The application that saw it; the profile names it.")

    @model_validator(mode="after")
    def _complete(self) -> "LearnerEvent":
        needed = {"answer": "item", "page": "page", "idle": "duration_s", "break": "at"}[self.kind]
        if getattr(self, needed) is None:
            raise ValueError(f"an event of the kind {self.kind} needs '{needed}'")
        return self


class Consent(BaseModel):
    """What was said about keeping a learner's data."""

    model_config = ConfigDict(extra="forbid")

    granted: StrictBool = Field(description="false withdraws it: nothing more is kept, and no profile is made.")
    by: Literal["learner", "guardian", "school"] = Field(description="Who said so.")
    policy: Name | None = Field(default=None, description="The text that was agreed to, such as its version.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingested:
    """What became of a batch of events."""

    added: list[str]
    known: list[str]
    conflicting: list[str]
    """There already with another content, which stays."""
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A learner with the state of each skill."""

    learner: Learner
    skills: list[SkillState]
    events: int
    answers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Everything:
    """All that is kept of a learner."""

    profile: Profile
    events: list[Event]


class Learners:
    """Learners of the caller's organisation."""

    def __init__(self, *, db: Database) -> None:
        self._db = db

    async def set_consent(self, principal: Principal, name: str, consent: Consent, *, request_id: str) -> Learner:
        """Add to the history of consent; a learner nobody has told of is created. Raises Conflict when it is full."""
        said = {**consent.model_dump(), "at": datetime.now(UTC).isoformat(), "recorded_by": str(principal.user_id)}
        async with self._db.tenant(principal) as conn:
            found = await learners.find(conn, org_id=principal.org_id, name=name, lock=True)
            history = [*(found.consents if found else []), said]
            if len(history) > MAX_CONSENTS:
                raise Conflict(f"consent has changed {MAX_CONSENTS} times already", hint="erase the learner instead")
            kept = await learners.save(
                conn, org_id=principal.org_id, name=name, consented=consent.granted, consents=history
            )
            action = "learner.consent_granted" if consent.granted else "learner.consent_withdrawn"
            await _audit(conn, principal, request_id, action, kept.id)
        return kept

    async def add_events(self, principal: Principal, name: str, events: Sequence[LearnerEvent]) -> Ingested:
        """Keep events; those that are there already are told, not doubled. All or none.

        Raises NotFound, Forbidden without consent, InvalidInput for impossible times, Conflict when there are too many.
        """
        latest = datetime.now(UTC) + _AHEAD
        for event in events:
            if not _EARLIEST <= event.at <= latest:
                raise InvalidInput(
                    f"the event {event.id!r} is from {event.at.isoformat()}",
                    hint="`at` lies between the year 2000 and now",
                )
        items = [
            NewEvent(name=e.id, kind=e.kind, at=e.at, body=e.model_dump(exclude={"id", "at", "kind"}, mode="json"))
            for e in events
        ]
        async with self._db.tenant(principal) as conn:
            # Locked: two batches at once must not pass the limit together, nor consent be withdrawn in between.
            learner = await _consenting(conn, principal, name, lock=True)
            kept = await learners.count_events(conn, org_id=principal.org_id, learner=learner.id)
            added, known, conflicting = await learners.add_events(
                conn, org_id=principal.org_id, learner=learner.id, items=items
            )
            if kept + len(added) > MAX_EVENTS:
                raise Conflict(
                    f"a learner has at most {MAX_EVENTS} events; there are {kept}", hint="export and erase the learner"
                )
        return Ingested(added=added, known=known, conflicting=conflicting, total=kept + len(added))

    async def profile(self, principal: Principal, name: str) -> Profile:
        """What the answers say of each skill. Raises NotFound, Forbidden without consent."""
        async with self._db.tenant(principal) as conn:
            learner = await _consenting(conn, principal, name)
            events = await learners.events(conn, org_id=principal.org_id, learner=learner.id, newest=MAX_EVENTS)
        return _profile(learner, events)

    async def events(self, principal: Principal, name: str, *, newest: int = MAX_EVENTS) -> list[Event]:
        """A learner's newest events by time, for engines. Raises NotFound, Forbidden without consent."""
        async with self._db.tenant(principal) as conn:
            learner = await _consenting(conn, principal, name)
            return await learners.events(conn, org_id=principal.org_id, learner=learner.id, newest=newest)

    async def answers_of_all(
        self, principal: Principal, name: str, *, newest: int
    ) -> tuple[UUID, list[tuple[UUID, Event]]]:
        """The id of a learner, and the organisation's newest answers by time with their learners' ids, of those who
        consent. Raises NotFound, Forbidden without the learner's consent."""
        async with self._db.tenant(principal) as conn:
            learner = await _consenting(conn, principal, name)
            return learner.id, await learners.answers(conn, org_id=principal.org_id, newest=newest)

    async def export(self, principal: Principal, name: str, *, request_id: str) -> Everything:
        """All that is kept, with or without consent. Raises NotFound."""
        async with self._db.tenant(principal) as conn:
            learner = await _found(conn, principal, name)
            events = await learners.events(conn, org_id=principal.org_id, learner=learner.id, newest=MAX_EVENTS)
            await _audit(conn, principal, request_id, "learner.exported", learner.id)
        return Everything(profile=_profile(learner, events), events=events)

    async def erase(self, principal: Principal, name: str, *, request_id: str) -> int:
        """Delete a learner with all events; how many these were. Raises NotFound."""
        async with self._db.tenant(principal) as conn:
            learner = await _found(conn, principal, name)
            events = await learners.delete(conn, org_id=principal.org_id, name=name)
            await _audit(conn, principal, request_id, "learner.erased", learner.id)
        return events or 0

    async def page(self, principal: Principal, *, limit: int, after: UUID | None) -> list[Learner]:
        """The organisation's learners, in no order that means anything."""
        async with self._db.tenant(principal) as conn:
            return await learners.page(conn, org_id=principal.org_id, limit=limit, after=after)


def _profile(learner: Learner, events: Sequence[Event]) -> Profile:
    answers = [e for e in events if e.kind == "answer" and e.body["correct"] is not None]
    practice = [
        Practice(skill=e.body["skill"], correct=e.body["correct"], at=e.at, source=e.body["source"])
        for e in answers
        if e.body["skill"] is not None
    ]
    return Profile(learner=learner, skills=skills(practice), events=len(events), answers=len(answers))


async def _found(conn: Connection, principal: Principal, name: str, *, lock: bool = False) -> Learner:
    learner = await learners.find(conn, org_id=principal.org_id, name=name, lock=lock)
    if learner is None:
        raise NotFound(
            "your organisation has no such learner",
            hint="PUT /v1/learners/{learner_id}/consent makes one; GET /v1/learners lists them",
        )
    return learner


async def _consenting(conn: Connection, principal: Principal, name: str, *, lock: bool = False) -> Learner:
    learner = await _found(conn, principal, name, lock=lock)
    if not learner.consented:
        raise Forbidden(
            "consent for this learner is withdrawn",
            hint="PUT /v1/learners/{learner_id}/consent records a new one; export and erasure need none",
        )
    return learner


async def _audit(conn: Connection, principal: Principal, request_id: str, action: str, learner: UUID) -> None:
    await audited(conn, principal, request_id=request_id, action=action, target=f"learner:{learner}")
