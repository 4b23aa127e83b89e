"""The focus engine: what it says on enough observations, what it refuses on too few, and bad input."""

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from neuroedge.engines.learning.focus import Focus, Idle, Input, Output, PastSession, Response
from tests.fakes import make_context


def _responses(n: int, *, median_ms: float = 800.0, seed: int = 0, spread: float = 0.2) -> list[Response]:
    noise = np.random.default_rng(seed).standard_normal(n)
    return [Response(at_s=15.0 * i, reaction_ms=median_ms * float(np.exp(spread * z))) for i, z in enumerate(noise)]


def _past(n: int = 10) -> list[PastSession]:
    return [
        PastSession(responses=_responses(40, seed=s), duration_s=1000 + 100 * s, ended_by="break" if s % 3 else "other")
        for s in range(n)
    ]


async def _run(**fields: Any) -> Output:
    ctx = make_context()
    return await Focus(probe=ctx).run(Input(**fields), ctx)


@pytest.mark.anyio
async def test_a_slower_session_than_usual_scores_below_fifty_with_its_reason() -> None:
    """The component that is worse is named, and the use is limited in words."""
    output = await _run(responses=_responses(30, median_ms=1200, seed=99), past=_past())
    assert output.score_0_100 is not None
    assert output.ci95 is not None
    assert output.score_0_100 < 35
    assert output.ci95.low <= output.score_0_100 <= output.ci95.high + 1
    assert max(output.components, key=lambda c: c.z).name == "log_reaction"
    assert output.reliable
    assert "never for grading" in output.purpose
    assert (output.n_responses, output.n_baseline_responses, output.n_past_sessions) == (30, 400, 10)


@pytest.mark.anyio
async def test_many_sessions_of_one_response_are_too_little() -> None:
    """No score, and why; the other parts are there."""
    past = [PastSession(responses=_responses(1, seed=s), duration_s=60, ended_by="other") for s in range(45)]
    output = await _run(responses=_responses(30), past=past)
    assert output.score_0_100 is None
    assert any("45 more stand alone" in warning for warning in output.warnings)
    assert (output.n_baseline_responses, output.n_past_sessions) == (0, 45)


@pytest.mark.anyio
async def test_reactions_in_any_order_give_the_same_answer() -> None:
    """Late events do not change it."""
    one = _responses(30, seed=4)
    assert await _run(responses=one, past=_past()) == await _run(responses=one[::-1], past=_past()[::-1])


@pytest.mark.anyio
async def test_overlapping_idle_stretches_count_once() -> None:
    """Two reports of the same 300 of 600 seconds are half the time."""
    idle = [Idle(start_s=100, end_s=400), Idle(start_s=100, end_s=300), Idle(start_s=700, end_s=900)]
    output = await _run(responses=_responses(30, seed=1), past=_past(), idle=idle, elapsed_s=600)
    assert {c.name: c.value for c in output.components}["idle"] == pytest.approx(0.5)


@pytest.mark.anyio
async def test_nothing_at_all_is_answered_with_what_is_missing() -> None:
    """No default score, no default probability."""
    output = await _run(responses=[])
    assert output.score_0_100 is output.ci95 is output.p_break_5min is output.suggest_at_s is None
    assert output.segments == output.components == output.next_pages == []
    assert not output.reliable
    assert any("needs 40" in w for w in output.warnings)
    assert any("needs 8 with 5" in w for w in output.warnings)


@pytest.mark.anyio
async def test_too_few_responses_now_or_before_are_no_score() -> None:
    """Each says how many it needs."""
    few_now = await _run(responses=_responses(9), past=_past())
    assert few_now.score_0_100 is None
    assert any("9 responses in this session, needs 10" in w for w in few_now.warnings)
    few_before = await _run(responses=_responses(30), past=_past(0))
    assert few_before.score_0_100 is None


@pytest.mark.anyio
async def test_sessions_without_responses_still_predict_a_break() -> None:
    """From the time alone."""
    past = [PastSession(duration_s=1500 + 60 * i, ended_by="break") for i in range(12)]
    early = await _run(responses=[], past=past, elapsed_s=60)
    late = await _run(responses=[], past=past, elapsed_s=1700)
    assert early.p_break_5min is not None
    assert late.p_break_5min is not None
    assert early.p_break_5min < late.p_break_5min
    assert late.suggest_at_s is not None
    assert late.suggest_at_s >= 1700


@pytest.mark.anyio
async def test_extreme_but_allowed_numbers_are_answered() -> None:
    """Equal times, an hour's reaction, the shortest reaction, thousands of responses."""
    same = [Response(at_s=5, reaction_ms=300)] * 100
    wide = [Response(at_s=86_400, reaction_ms=3_600_000), Response(at_s=0, reaction_ms=0.001)] * 50
    past = [PastSession(responses=same, duration_s=0.1, ended_by="other")] * 3
    for responses in (same, wide, _responses(5000)):
        output = await _run(responses=responses, past=past)
        assert output.score_0_100 is not None
        assert 0 <= output.score_0_100 <= 100


@pytest.mark.anyio
async def test_the_next_page_is_the_usual_one() -> None:
    """And none on a handful of pages."""
    pages = ["home", "quiz"] * 5
    assert (await _run(responses=[], pages=pages)).next_pages[0].page == "home"
    few = await _run(responses=[], pages=pages[:3])
    assert few.next_pages == []
    assert any("3 pages" in w for w in few.warnings)


@pytest.mark.parametrize(
    ("payload", "path"),
    [
        ({}, ("responses",)),
        ({"responses": "many"}, ("responses",)),
        ({"responses": [{"at_s": -1, "reaction_ms": 5}]}, ("responses", 0, "at_s")),
        ({"responses": [{"at_s": 1, "reaction_ms": 0}]}, ("responses", 0, "reaction_ms")),
        ({"responses": [{"at_s": 1, "reaction_ms": float("nan")}]}, ("responses", 0, "reaction_ms")),
        ({"responses": [{"at_s": float("inf"), "reaction_ms": 5}]}, ("responses", 0, "at_s")),
        ({"responses": [{"at_s": 1, "reaction_s": 0.5}]}, ("responses", 0, "reaction_ms")),
        ({"responses": [], "idle": [{"start_s": 5, "end_s": 1}]}, ("idle", 0)),
        ({"responses": [], "past": [{"duration_s": 0, "ended_by": "break"}]}, ("past", 0, "duration_s")),
        ({"responses": [], "past": [{"duration_s": 9, "ended_by": "bell"}]}, ("past", 0, "ended_by")),
        ({"responses": [], "elapsed_s": float("nan")}, ("elapsed_s",)),
        ({"responses": [], "pages": [""]}, ("pages", 0)),
        ({"responses": [], "pages": ["\ud800"]}, ("pages", 0)),
        ({"responses": [{"at_s": 1, "reaction_ms": 5}] * 5001}, ("responses",)),
    ],
)
def test_bad_input_names_its_field(payload: dict[str, Any], path: tuple[Any, ...]) -> None:
    """Refused with the path of the field."""
    with pytest.raises(ValidationError) as refused:
        Input.model_validate(payload)
    assert path in [error["loc"] for error in refused.value.errors()]


@pytest.mark.anyio
async def test_it_proves_itself() -> None:
    """The example is seen to slow down."""
    await Focus(probe=make_context()).post_swap_test()
