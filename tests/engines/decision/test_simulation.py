"""The simulation engine: closed forms inside intervals, parameters found again, and bad input."""

from typing import Any

import pytest
from pydantic import ValidationError

from neuroedge.contract.errors import InvalidInput
from neuroedge.engines.decision.simulation import Input, Output, Simulation
from tests.fakes import make_context

pytestmark = pytest.mark.anyio
DESK: dict[str, Any] = {"name": "desk", "service": {"mean_s": 1}, "interarrival": {"mean_s": 2}}


def _queue(*stations: dict[str, Any], duration_s: float = 2000) -> dict[str, Any]:
    return {"stations": list(stations), "duration_s": duration_s, "warmup_s": 100}


async def _run(**fields: Any) -> Output:
    ctx = make_context()
    return await Simulation(probe=ctx).run(Input(**fields), ctx)


def _of(output: Output, name: str, of: str = "") -> Any:
    return next(m for m in output.means if (m.name, m.of) == (name, of))


async def test_a_network_agrees_with_its_closed_form() -> None:
    """Two stations with a way back: every long-run value close to the simulated mean."""
    desk = {**DESK, "route": [{"to": "back", "p": 0.5}]}
    back = {"name": "back", "servers": 2, "service": {"mean_s": 2}, "route": [{"to": "desk", "p": 0.2}]}
    output = await _run(queue=_queue(desk, back, duration_s=4000), replications=8, trace=5)
    assert output.method == "discrete-events+jackson"
    assert output.reliable
    for name in ("sojourn_s", "present", "utilisation", "throughput_per_s"):
        for of in ("", "desk", "back"):
            told = _of(output, name, of)
            assert told.mean == pytest.approx(told.closed_form, rel=0.15)
            assert told.ci95.low < told.mean < told.ci95.high
    assert [e.what for e in output.traces[:2]] == ["arrives", "is served"]


async def test_a_full_waiting_room_turns_customers_away() -> None:
    """M/M/1/1 at load 1 loses half (Erlang B)."""
    desk = {**DESK, "interarrival": {"mean_s": 1}, "places": 1}
    output = await _run(queue=_queue(desk), replications=8)
    assert _of(output, "lost", "desk").mean == pytest.approx(0.5, abs=0.03)
    assert _of(output, "lost", "desk").closed_form is None


async def test_constant_service_waits_half_as_long() -> None:
    """M/D/1 (Pollaczek 1930): at half load 0.5 services in line against 1."""
    desk = {**DESK, "service": {"mean_s": 1, "law": "constant"}}
    output = await _run(queue=_queue(desk), replications=10)
    assert _of(output, "wait_s").mean == pytest.approx(0.5, abs=0.1)


async def test_an_overloaded_desk_is_marked() -> None:
    """There is no long run to compare with."""
    output = await _run(queue=_queue({**DESK, "interarrival": {"mean_s": 0.8}}), replications=5)
    assert not output.reliable
    assert "overloaded" in output.warnings[0]
    assert _of(output, "wait_s").closed_form is None


async def test_the_same_seed_is_the_same_answer() -> None:
    """And another one is another."""
    one, same, other = [await _run(queue=_queue(DESK, duration_s=300), seed=s) for s in (1, 1, 2)]
    assert one == same
    assert one.means != other.means


async def test_difficulties_are_found_again_from_simulated_answers() -> None:
    """Three hundred students and fifteen items: correlation above 0.9."""
    items = [{"difficulty_logit": -2 + 4 * i / 14} for i in range(15)]
    output = await _run(test={"students": 300, "items": items}, replications=5, trace=3)
    assert output.reliable
    assert _of(output, "difficulty_correlation").mean > 0.9
    assert _of(output, "p_correct", "0").mean > _of(output, "p_correct", "14").mean
    assert len(output.traces) == 3


async def test_practice_is_found_again_and_climbs() -> None:
    """What is estimated is near what was given; the first answers are right with the given chance."""
    given = {"known_at_first": 0.3, "learn": 0.2, "guess": 0.2, "slip": 0.05}
    output = await _run(practice={"students": 400, "opportunities": 10, **given}, replications=5)
    for name, value in given.items():
        assert _of(output, f"estimated_{name}").mean == pytest.approx(value, abs=0.06)
    assert _of(output, "p_correct", "0").mean == pytest.approx(0.3 * 0.95 + 0.7 * 0.2, abs=0.04)
    assert _of(output, "p_mastered", "9").mean > _of(output, "p_mastered", "0").mean


async def test_a_test_everybody_fails_says_nothing_of_difficulties() -> None:
    """Marked, with why."""
    output = await _run(test={"students": 5, "items": [{"difficulty_logit": 10}] * 3}, replications=5)
    assert not output.reliable
    assert "cannot be estimated" in output.warnings[0]


async def test_too_much_or_endless_is_refused() -> None:
    """Before it runs."""
    with pytest.raises(InvalidInput, match="visits to simulate"):
        await _run(queue=_queue(DESK, duration_s=1e7))
    with pytest.raises(InvalidInput, match="never leave"):
        await _run(queue=_queue({**DESK, "route": [{"to": "desk", "p": 1.0}]}))
    with pytest.raises(InvalidInput, match="answers to simulate"):
        await _run(test={"students": 20_000, "items": [{"difficulty_logit": 0}] * 100})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "exactly one"),
        ({"queue": _queue()}, "at least 1"),
        ({"queue": _queue(DESK, DESK)}, "same name"),
        ({"queue": _queue({**DESK, "route": [{"to": "moon", "p": 1}]})}, "no station"),
        ({"queue": _queue({**DESK, "route": [{"to": "desk", "p": 0.7}, {"to": "desk", "p": 0.7}]})}, "more than 1"),
        ({"queue": _queue({"name": "d", "service": {"mean_s": 1}})}, "nobody comes"),
        ({"queue": _queue({**DESK, "service": {"mean_s": -1}})}, "greater than 0"),
        ({"queue": _queue({**DESK, "service": {"mean_s": float("nan")}})}, "greater than|finite"),
        ({"queue": _queue({**DESK, "service": {"mean_s": 1, "law": "uniform", "variation": 2}})}, "negative at times"),
        ({"queue": _queue({**DESK, "servers": 0})}, "greater than or equal"),
        ({"test": {"students": 1, "items": [{"difficulty_logit": 0}]}}, "greater than or equal"),
        ({"queue": _queue(DESK), "replications": 1}, "greater than or equal"),
    ],
)
async def test_bad_input_is_refused_by_field(fields: dict[str, Any], message: str) -> None:
    """Before anything is computed."""
    with pytest.raises(ValidationError, match=message):
        Input.model_validate(fields)


async def test_it_proves_itself() -> None:
    """The self-test passes."""
    await Simulation(probe=make_context()).post_swap_test()
