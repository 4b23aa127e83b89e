"""The learning path: what comes next and why, and what is refused."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from neuroedge.contract.errors import InvalidInput
from neuroedge.engines.learning.learning_path import Input, LearningPath, Mastery, Output, Review, Skill
from tests.fakes import make_context

NOW = datetime(2026, 3, 1, 9, tzinfo=UTC)
SKILLS = [
    Skill(id="count"),
    Skill(id="add", prerequisites=["count"]),
    Skill(id="multiply", prerequisites=["add"]),
    Skill(id="shapes"),
]


def _reviews(skill: str, *days_ago: float, rating: Any = "good") -> list[Review]:
    return [Review(skill=skill, at=NOW - timedelta(days=d), rating=rating) for d in days_ago]


async def _run(**fields: Any) -> Output:
    ctx = make_context()
    return await LearningPath(probe=ctx).run(Input(**{"skills": SKILLS, "now": NOW, **fields}), ctx)


@pytest.mark.anyio
async def test_without_observations_what_needs_nothing_is_offered_first() -> None:
    """What more skills wait for comes first, and the answer says it knows nothing."""
    output = await _run()
    assert [(s.skill, s.kind, s.unlocks) for s in output.next] == [("count", "learn", 2), ("shapes", "learn", 0)]
    assert [s.state for s in output.skills] == ["ready", "locked", "locked", "ready"]
    assert output.skills[2].missing == ["add"]
    assert not output.reliable
    assert "no observations" in output.warnings[0]


@pytest.mark.anyio
async def test_a_mastered_prerequisite_opens_the_next_skill() -> None:
    """Four good reviews: 5/6; the memory is told."""
    output = await _run(reviews=_reviews("count", 40, 36, 28, 10))
    count = output.skills[0]
    assert (count.state, count.mastery, count.n_reviews) == ("mastered", 0.8333, 4)
    assert count.due_at is not None
    assert count.due_at > NOW
    assert output.next[0].skill == "add"
    assert output.reliable


@pytest.mark.anyio
async def test_what_is_due_comes_before_what_is_new_least_remembered_first() -> None:
    """And says how little is remembered."""
    output = await _run(reviews=[*_reviews("count", 100), *_reviews("shapes", 20)])
    assert [(s.skill, s.kind) for s in output.next] == [("count", "review"), ("shapes", "review")]
    assert "chance of recall is" in output.next[0].reason
    assert "fewer than 3 observations of 2 skills" in output.warnings[0]


@pytest.mark.anyio
async def test_given_mastery_replaces_that_of_the_reviews() -> None:
    """With its own number of observations, which may be too few."""
    sure = await _run(mastery=[Mastery(skill="count", p=0.95, n=30)])
    assert [s.skill for s in sure.next] == ["add", "shapes"]
    unsure = await _run(mastery=[Mastery(skill="count", p=0.95, n=2)])
    assert [(s.skill, s.kind) for s in unsure.next] == [("count", "practise"), ("shapes", "learn")]


@pytest.mark.anyio
async def test_a_goal_leaves_out_what_does_not_lead_to_it() -> None:
    """Shapes are not needed to multiply."""
    output = await _run(goals=["multiply"])
    assert [s.skill for s in output.skills] == ["count", "add", "multiply"]


@pytest.mark.anyio
async def test_thousands_of_skills_and_reviews_are_planned() -> None:
    """A chain of 2000 skills, 20,000 reviews of the first."""
    chain = [Skill(id=str(i), prerequisites=[str(i - 1)] if i else []) for i in range(2000)]
    reviews = [Review(skill="0", at=NOW - timedelta(minutes=i), rating="good") for i in range(20_000)]
    output = await _run(skills=chain, reviews=reviews)
    assert output.n_reviews == 20_000
    assert output.next[0].skill == "1"
    assert output.next[0].unlocks == 1998


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"skills": [Skill(id="a"), Skill(id="a")]}, ("skills", 1, "id")),
        ({"skills": [Skill(id="a", prerequisites=["b"])]}, ("skills", 0, "prerequisites", 0)),
        ({"skills": [Skill(id="a", prerequisites=["b"]), Skill(id="b", prerequisites=["a"])]}, ("skills",)),
        ({"skills": [Skill(id="a", prerequisites=["a"])]}, ("skills",)),
        ({"reviews": [Review(skill="zzz", at=NOW, rating="good")]}, ("reviews", 0, "skill")),
        ({"reviews": _reviews("count", -1)}, ("reviews", 0, "at")),
        (
            {"reviews": [Review(skill="count", at=datetime.min.replace(tzinfo=UTC), rating="good")]},
            ("reviews", 0, "at"),
        ),
        ({"mastery": [Mastery(skill="zzz", p=1, n=3)]}, ("mastery", 0, "skill")),
        ({"goals": ["zzz"]}, ("goals", 0)),
        ({"now": datetime.max.replace(tzinfo=UTC)}, ("now",)),
    ],
)
async def test_what_contradicts_itself_is_refused_with_its_place(fields: dict[str, Any], path: tuple[Any, ...]) -> None:
    """Unknown and double names, circles, reviews of the future or of long ago."""
    with pytest.raises(InvalidInput) as refused:
        await _run(**fields)
    assert [error["loc"] for error in refused.value.errors] == [path]
    assert refused.value.hint


@pytest.mark.parametrize(
    ("payload", "path"),
    [
        ({}, ("skills",)),
        ({"skills": []}, ("skills",)),
        ({"skills": [{"id": ""}]}, ("skills", 0, "id")),
        ({"skills": [{"id": "a"}] * 2001}, ("skills",)),
        (
            {"skills": [{"id": "a"}], "reviews": [{"skill": "a", "at": "2026-01-01T00:00:00", "rating": "good"}]},
            ("reviews", 0, "at"),
        ),
        (
            {"skills": [{"id": "a"}], "reviews": [{"skill": "a", "at": "2026-01-01T00:00:00Z", "rating": 3}]},
            ("reviews", 0, "rating"),
        ),
        ({"skills": [{"id": "a"}], "mastery": [{"skill": "a", "p": float("nan"), "n": 3}]}, ("mastery", 0, "p")),
        ({"skills": [{"id": "a"}], "mastery": [{"skill": "a", "p": 1.2, "n": 3}]}, ("mastery", 0, "p")),
        ({"skills": [{"id": "a"}], "mastery": [{"skill": "a", "p": 0.5, "n": -3}]}, ("mastery", 0, "n")),
        ({"skills": [{"id": "a"}], "desired_retention": 1}, ("desired_retention",)),
        ({"skills": [{"id": "a"}], "limit": 0}, ("limit",)),
        ({"skills": [{"id": "a"}], "goals": ["\ud800"]}, ("goals", 0)),
        ({"skills": [{"id": "a", "prerequisites": ["x" * 201]}]}, ("skills", 0, "prerequisites", 0)),
    ],
)
def test_bad_input_names_its_field(payload: dict[str, Any], path: tuple[Any, ...]) -> None:
    """Refused with the path of the field."""
    with pytest.raises(ValidationError) as refused:
        Input.model_validate(payload)
    assert path in [error["loc"] for error in refused.value.errors()]


@pytest.mark.anyio
async def test_it_proves_itself() -> None:
    """Its example is planned."""
    await LearningPath(probe=make_context()).post_swap_test()
