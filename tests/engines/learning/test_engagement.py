"""The engagement engine: effort, a learner who gives up, what it says of itself, bad input."""

from typing import Any

import pytest
from pydantic import ValidationError

from neuroedge.contract.errors import InvalidInput
from neuroedge.engines.learning.engagement import HEAD, NOT_VALIDATED, Engagement, Input, ItemEvent, Output, UsualTime
from neuroedge.kit.engagement import FEATURES
from tests.fakes import make_context

pytestmark = pytest.mark.anyio
EVENT = {"item": "i", "time_s": 20.0, "correct": True}


def _session(*times_s: float, correct: bool = True, usual_s: float | None = 25) -> Input:
    events = [ItemEvent(item=f"i{i}", time_s=t, correct=correct) for i, t in enumerate(times_s)]
    usual = [UsualTime(item=e.item, median_s=usual_s) for e in events] if usual_s else []
    return Input(events=events, usual_times=usual)


async def _run(payload: Input) -> Output:
    context = make_context()
    return await Engagement(probe=context).run(payload, context)


async def test_a_careful_learner_is_engaged_and_a_guessing_one_is_not() -> None:
    """Effort 1 and 0; the probability follows; rapid answers lead the drivers."""
    careful = await _run(_session(*[24.0, 31, 19, 27, 22] * 4))
    guessing = await _run(_session(*[1.2, 0.8, 1.5, 1.1, 0.9] * 4, correct=False))
    assert (careful.rte, guessing.rte) == (1.0, 0.0)
    assert careful.p_disengage < 0.2 < 0.9 < guessing.p_disengage
    assert guessing.drivers[0].feature in ("rapid_share", "last_rapid")
    assert (guessing.n_answers, guessing.n_events, guessing.rapid_answers) == (20, 20, 20)


async def test_it_never_claims_to_be_valid() -> None:
    """Simulated training stands in every answer and in health."""
    context = make_context()
    engine = Engagement(probe=context)
    told = await engine.run(engine.example, context)
    assert NOT_VALIDATED in told.warnings
    assert not told.reliable
    assert told.rte_reliable
    assert (await engine.health()).detail == NOT_VALIDATED


async def test_without_usual_times_the_effort_is_marked() -> None:
    """The common threshold of three seconds is cruder, and said to be."""
    told = await _run(_session(*[2.0] * 10, *[20.0] * 10, usual_s=None))
    assert told.rte == 0.5
    assert not told.rte_reliable
    assert "0 of 20" in told.warnings[1]


async def test_too_few_answers_are_refused() -> None:
    """Skips are no answers."""
    payload = _session(*[20.0] * 7)
    skips = [ItemEvent(item="s", time_s=5, correct=None)] * 30
    with pytest.raises(InvalidInput, match="7 answers are too few"):
        await _run(payload.model_copy(update={"events": [*payload.events, *skips]}))
    with pytest.raises(InvalidInput, match="twice"):
        await _run(Input(events=[ItemEvent(**EVENT)] * 9, usual_times=[UsualTime(item="i", median_s=5)] * 2))


async def test_thousands_of_items_are_answered() -> None:
    """The largest session."""
    assert 0 <= (await _run(_session(*[20.0] * 5000, usual_s=None))).p_disengage <= 1


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"events": []},
        {"events": [{**EVENT, "time_s": -1}]},
        {"events": [{**EVENT, "time_s": float("nan")}]},
        {"events": [{**EVENT, "time_s": float("inf")}]},
        {"events": [{**EVENT, "time_s": 20_000_000}]},
        {"events": [{**EVENT, "time_s": "fast"}]},
        {"events": [{**EVENT, "correct": "no"}]},
        {"events": [{**EVENT, "hints": 1.5}]},
        {"events": [{**EVENT, "face": "smiling"}]},
        {"events": [EVENT] * 5001},
        {"events": [EVENT], "usual_times": [{"item": "i", "median_s": 0}]},
    ],
)
def test_bad_input_is_refused(payload: dict[str, Any]) -> None:
    """By the schema, with the field."""
    with pytest.raises(ValidationError):
        Input.model_validate(payload)


async def test_the_shipped_head_is_whole_and_proves_itself() -> None:
    """A weight, mean and spread for each feature, none degenerate; post_swap_test passes."""
    assert set(HEAD.weights) == set(HEAD.mean) == set(HEAD.sd) == set(FEATURES)
    assert all(HEAD.weights[name] and HEAD.sd[name] > 0 for name in FEATURES)
    await Engagement(probe=make_context()).post_swap_test()
