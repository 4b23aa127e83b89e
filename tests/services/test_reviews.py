"""The review queue over a real database: claims that race, claims that run out, history, sealed words."""

import asyncio
from typing import Any, cast
from uuid import UUID

import pytest

from neuroedge.contract.errors import Conflict, Forbidden, InvalidInput, NotFound
from neuroedge.contract.principal import Principal
from neuroedge.infra.events import Events
from neuroedge.services.reviews import MAX_CONTENT_CHARS, Reviews
from neuroedge.stores.ids import new_id
from neuroedge.stores.postgres import Database
from neuroedge.stores.reviews import Review
from tests.stores.conftest import colleague, new_principal

pytestmark = pytest.mark.anyio


class Told:
    """Keeps what was published."""

    def __init__(self) -> None:
        self.events: list[tuple[UUID, str, str, dict[str, Any]]] = []

    async def publish(self, org_id: UUID, topic: str, name: str, data: dict[str, Any]) -> None:
        """Keep it."""
        self.events.append((org_id, topic, name, data))


async def _memory(principal: Principal, ref: str) -> str:
    if ref != "m1":
        raise NotFound("no such memory")
    return "what the memory says"


@pytest.fixture
def told() -> Told:
    """Nothing told yet."""
    return Told()


@pytest.fixture
def reviews(db: Database, told: Told) -> Reviews:
    """A queue that knows memories."""
    return Reviews(db=db, events=cast(Events, told), snapshots={"memory": _memory})


@pytest.fixture
async def owner(db: Database) -> Principal:
    """A reviewer."""
    return await new_principal(db)


async def _add(reviews: Reviews, principal: Principal, content: str = "a doubtful answer") -> Review:
    return await reviews.add(principal, kind="answer", ref="42", reason="looks wrong", content=content, request_id="r")


@pytest.mark.parametrize("ending", ["approved", "corrected", "rejected"])
async def test_a_review_from_report_to_end(reviews: Reviews, owner: Principal, told: Told, ending: Any) -> None:
    """Reported by a member, claimed and closed by a reviewer; every step is in its history, events tell of it."""
    member = colleague(owner, "member")
    made = await _add(reviews, member)
    assert (made.state, made.source, made.content, made.reason) == ("open", "user", "a doubtful answer", "looks wrong")
    claimed = await reviews.claim(owner, made.id, request_id="r")
    assert (claimed.state, claimed.claimed_by) == ("claimed", owner.user_id)
    corrected = "a better answer" if ending == "corrected" else None
    done = await reviews.finish(owner, made.id, state=ending, note="checked", corrected=corrected, request_id="r")
    assert (done.state, done.corrected, done.claimed_by) == (ending, corrected, None)
    assert done.finished_at is not None
    assert done.content == "a doubtful answer"
    history = (await reviews.get(member, made.id)).steps
    assert [(s.step, s.by_user, s.note) for s in history] == [
        ("opened", member.user_id, ""),
        ("claimed", owner.user_id, ""),
        (ending, owner.user_id, "checked"),
    ]
    assert [(topic, name, data["id"]) for _, topic, name, data in told.events] == [
        ("reviews", name, str(made.id)) for name in ("open", "claimed", ending)
    ]
    for again in (reviews.claim(owner, made.id, request_id="r"), _finish(reviews, owner, made.id)):
        with pytest.raises(Conflict):
            await again


async def _finish(reviews: Reviews, principal: Principal, review_id: UUID) -> Review:
    return await reviews.finish(principal, review_id, state="approved", request_id="r")


async def test_of_two_claims_one_wins(reviews: Reviews, owner: Principal) -> None:
    """At the same moment: one has it, the other is told; and only the one may close it."""
    made, other = await _add(reviews, owner), colleague(owner, "admin")
    outcomes = await asyncio.gather(
        *(reviews.claim(who, made.id, request_id="r") for who in (owner, other)), return_exceptions=True
    )
    won = [o for o in outcomes if isinstance(o, Review)]
    assert len(won) == 1
    assert sum(isinstance(o, Conflict) for o in outcomes) == 1
    loser = other if won[0].claimed_by == owner.user_id else owner
    with pytest.raises(Conflict):
        await _finish(reviews, loser, made.id)


async def test_who_asks_for_any_gets_another_each(reviews: Reviews, owner: Principal) -> None:
    """Four at once, three waiting: three different ones, oldest first, and a 404."""
    made = [(await _add(reviews, owner)).id for _ in range(3)]
    outcomes = await asyncio.gather(
        *(reviews.claim(colleague(owner, "admin"), None, request_id="r") for _ in range(4)), return_exceptions=True
    )
    assert {o.id for o in outcomes if isinstance(o, Review)} == set(made)
    assert sum(isinstance(o, NotFound) for o in outcomes) == 1


async def test_a_claim_that_ran_out_is_free_again(
    reviews: Reviews, owner: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shown as open, taken by another; who had it before has it no more."""
    made, other = await _add(reviews, owner), colleague(owner, "admin")
    monkeypatch.setattr("neuroedge.services.reviews.CLAIM_S", 0.0)
    await reviews.claim(owner, made.id, request_id="r")
    (listed,) = await reviews.list(owner, limit=10, state="open")
    assert (listed.id, listed.claimed_by) == (made.id, None)
    with pytest.raises(Conflict):
        await _finish(reviews, owner, made.id)
    monkeypatch.undo()
    assert (await reviews.claim(other, None, request_id="r")).id == made.id
    with pytest.raises(Conflict):
        await _finish(reviews, owner, made.id)
    assert (await _finish(reviews, other, made.id)).state == "approved"


async def test_a_claim_is_renewed_and_given_back(reviews: Reviews, owner: Principal) -> None:
    """Claiming again goes on; released, it is open for others."""
    made = await _add(reviews, owner)
    first = await reviews.claim(owner, made.id, request_id="r")
    again = await reviews.claim(owner, made.id, request_id="r")
    assert first.claimed_until
    assert again.claimed_until
    assert again.claimed_until > first.claimed_until
    assert (await reviews.release(owner, made.id, request_id="r")).state == "open"
    with pytest.raises(Conflict):
        await reviews.release(owner, made.id, request_id="r")
    assert (await reviews.claim(colleague(owner, "admin"), made.id, request_id="r")).state == "claimed"


async def test_a_thing_is_kept_as_it_is_now(reviews: Reviews, owner: Principal) -> None:
    """The text of a known kind is read, whatever the caller says it is; of another it must be given."""
    made = await reviews.add(owner, kind="memory", ref="m1", reason="", content="something else", request_id="r")
    assert made.content == "what the memory says"
    with pytest.raises(NotFound):
        await reviews.add(owner, kind="memory", ref="m2", reason="", content="x", request_id="r")
    for nothing in (None, " "):
        with pytest.raises(InvalidInput):
            await reviews.add(owner, kind="answer", ref="1", reason="", content=nothing, request_id="r")
    long = await _add(reviews, owner, "x" * (MAX_CONTENT_CHARS + 5))
    assert len(long.content) == MAX_CONTENT_CHARS


async def test_only_reviewers_review(reviews: Reviews, owner: Principal) -> None:
    """A member sees what the member reported, of others nothing, and may not claim."""
    member, other = colleague(owner, "member"), colleague(owner, "member")
    mine, theirs = await _add(reviews, member), await _add(reviews, other)
    assert [r.id for r in await reviews.list(member, limit=10)] == [mine.id]
    assert {r.id for r in await reviews.list(owner, limit=10)} == {mine.id, theirs.id}
    with pytest.raises(NotFound):
        await reviews.get(member, theirs.id)
    with pytest.raises(Forbidden):
        await reviews.claim(member, mine.id, request_id="r")
    with pytest.raises(Forbidden):
        await reviews.follow(member)


async def test_another_tenant_finds_nothing(reviews: Reviews, owner: Principal, db: Database) -> None:
    """Not in lists, not by id, not to claim."""
    made, stranger = await _add(reviews, owner), await new_principal(db)
    assert await reviews.list(stranger, limit=10) == []
    for asked in (
        reviews.get(stranger, made.id),
        reviews.claim(stranger, made.id, request_id="r"),
        reviews.claim(stranger, None, request_id="r"),
        _finish(reviews, stranger, made.id),
    ):
        with pytest.raises(NotFound):
            await asked


async def test_words_lie_sealed(reviews: Reviews, owner: Principal, db: Database) -> None:
    """No column of either table holds content, reason or note in the clear."""
    made = await _add(reviews, owner, "pomegranate")
    await reviews.claim(owner, made.id, request_id="r")
    await reviews.finish(owner, made.id, state="corrected", note="pomegranate", corrected="pomegranate", request_id="r")
    async with db.tenant(owner) as conn:
        for table in ("reviews", "review_steps"):
            cursor = await conn.execute(f"SELECT * FROM {table}")
            rows = await cursor.fetchall()
            assert rows
            assert "pomegranate" not in repr(rows)
            assert any(row["sealed"] and b"pomegranate" not in row["sealed"] for row in rows)


async def test_a_rules_review_names_its_decision(reviews: Reviews, owner: Principal) -> None:
    """Whose text it was, the pass, and where the reasons stand."""
    decision_id = new_id()
    await reviews.add_by_rule(owner, decision_id=decision_id, stage="output", text="what was to be said")
    (review,) = await reviews.list(owner, limit=10)
    assert (review.source, review.kind, review.decision_id) == ("rule", "output", decision_id)
    assert review.content == "what was to be said"


async def test_pages_follow_each_other(reviews: Reviews, owner: Principal) -> None:
    """Newest first, none twice, by state."""
    made = [(await _add(reviews, owner)).id for _ in range(5)]
    await reviews.claim(owner, made[0], request_id="r")
    first = await reviews.list(owner, limit=3)
    rest = await reviews.list(owner, limit=3, before=first[-1].id)
    assert [r.id for r in [*first, *rest]] == made[::-1]
    assert [r.id for r in await reviews.list(owner, limit=9, state="claimed")] == made[:1]
