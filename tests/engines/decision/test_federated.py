"""The engine of federated learning: each rule on given updates, the masked sum, and what is refused by name."""

import base64
from typing import Any, cast

import numpy as np
import pytest
from pydantic import ValidationError

from neuroedge.contract.engine import EngineContext
from neuroedge.contract.errors import InvalidInput
from neuroedge.engines.decision.federated import Federated, Input, Output
from neuroedge.kit.federated import secure, weights

pytestmark = pytest.mark.anyio
_NOTHING = cast(EngineContext, None)


async def _run(**payload: Any) -> Output:
    return await Federated(probe=_NOTHING).run(Input.model_validate(payload), _NOTHING)


def _updates(*values: list[float]) -> list[dict[str, Any]]:
    return [{"client": f"c{i}", "weights": {"arrays": {"w": value}}} for i, value in enumerate(values)]


def _arrays(given: Any) -> Any:
    return weights.of_npz(base64.b64decode(given.npz))["w"]


async def test_fedavg_adds_the_weighted_mean_to_the_base() -> None:
    """By hand; the version is one more."""
    updates = _updates([1.0, 2.0], [4.0, 8.0])
    updates[0]["samples"] = 3
    told = await _run(updates=updates, base={"arrays": {"w": [10.0, 10.0]}}, base_version=6)
    assert _arrays(told.weights) == pytest.approx([11.75, 13.5])
    assert (told.version, told.method, told.epsilon, told.rejected, told.reliable) == (7, "fedavg", None, [], True)


async def test_multi_krum_names_whom_it_rejects() -> None:
    """The attacker among them."""
    told = await _run(updates=_updates(*[[1.0 + i / 50] for i in range(6)], [900.0]), rule="multi_krum", attackers=1)
    assert "c6" in [one.client for one in told.rejected]
    assert abs(_arrays(told.weights)[0] - 1.05) < 0.1


async def test_noise_comes_with_its_price_and_a_warning_when_it_drowns_the_update() -> None:
    """Epsilon grows with the rounds before."""
    noise = {"multiplier": 1.0, "delta": 1e-6}
    first = await _run(updates=_updates([1.0], [1.0]), clip_norm=0.5, noise=noise)
    later = await _run(updates=_updates([1.0], [1.0]), clip_norm=0.5, noise={**noise, "rounds_before": 9})
    assert first.clipped == 2
    assert first.epsilon is not None
    assert 0 < first.epsilon < (later.epsilon or 0)
    wide = await _run(updates=_updates([0.1] * 50, [0.1] * 50), clip_norm=0.5, noise=noise)
    assert not wide.reliable
    assert "more clients" in wide.warnings[0]


async def test_fedadam_goes_on_from_the_state_it_gave() -> None:
    """Two rounds differ from the first one twice."""
    asked = {"updates": _updates([0.5, -0.2]), "optimizer": "fedadam", "server_rate": 0.1}
    first = await _run(**asked)
    assert first.server_state is not None
    second = await _run(**asked, server_state=first.server_state.model_dump())
    assert second.step_norm != pytest.approx(first.step_norm, rel=0.01)
    with pytest.raises(InvalidInput, match="not of this model"):
        await _run(**asked, server_state={"arrays": {"m": [1.0], "v": [1.0]}})


async def test_masks_that_cancel_leave_the_mean() -> None:
    """Two clients with one pairwise mask."""
    mask = secure.mask(bytes(range(32)), 3)
    values = [np.array([0.1, -0.2, 0.3], np.float32), np.array([0.5, 0.2, -0.3], np.float32)]
    one, other = (secure.quantised(value, bound=1.0, clients=2) for value in values)
    masked = [base64.b64encode(secure.to_bytes(m)).decode() for m in (one + mask, other - mask)]
    given = [{"client": str(i), "masked": m} for i, m in enumerate(masked)]
    told = await _run(secure={"updates": given, "shapes": {"w": [3]}, "bound": 1.0})
    assert _arrays(told.weights) == pytest.approx([0.3, 0.0, 0.0], abs=1e-7)


SECURE = {
    "updates": [{"client": "a", "masked": "AAAAAA=="}, {"client": "b", "masked": "AAAAAA=="}],
    "shapes": {"w": [1]},
    "bound": 1.0,
}


@pytest.mark.parametrize(
    ("payload", "word"),
    [
        ({}, "either"),
        ({"updates": []}, "either"),
        ({"secure": SECURE, "rule": "trimmed_mean", "attackers": 1}, "secure aggregation hides"),
        ({"secure": SECURE, "rule": "multi_krum"}, "secure aggregation hides"),
        ({"updates": _updates([1.0]), "noise": {"multiplier": 1.0}}, "clip_norm"),
        ({"updates": _updates([1.0]), "attackers": 1}, "withstands no attackers"),
        ({"updates": _updates([float("nan")])}, "NaN"),
        ({"updates": _updates([1e300])}, "too large"),
        ({"updates": [*_updates([1.0]), *_updates([1.0])]}, "more than one"),
        ({"updates": [{"client": "a", "weights": {"npz": "AAAA"}}]}, "no npz"),
        ({"updates": [{"client": "a", "weights": {"npz": "%%"}}]}, "no base64"),
        ({"updates": [{"client": "a", "weights": {}}]}, "exactly one"),
        ({"updates": [{"client": "a", "weights": {"arrays": {"w": {"x": 1}}}}]}, "no number"),
        ({"updates": _updates([1.0]) * 501}, "500"),
        ({"updates": [{**_updates([1.0])[0], "samples": -1}]}, "greater than"),
        ({"updates": _updates([1.0]), "clip_norm": float("inf")}, "finite"),
    ],
)
async def test_what_cannot_be_is_refused_before_anything_is_computed(payload: dict[str, Any], word: str) -> None:
    """With the reason."""
    with pytest.raises(ValidationError, match=word):
        Input.model_validate(payload)


@pytest.mark.parametrize(
    ("payload", "word"),
    [
        ({"updates": _updates([1.0], [1.0, 2.0])}, "c1: array 'w' has the shape"),
        ({"updates": _updates([1.0]), "base": {"arrays": {"v": [1.0]}}}, "missing"),
        ({"updates": _updates([1.0], [1.0]), "rule": "trimmed_mean", "attackers": 1}, "needs 3"),
        ({"updates": _updates([3e38]), "server_rate": 1000}, "too large"),
        ({"secure": {**SECURE, "shapes": {"w": [2]}}}, "8 bytes"),
        ({"secure": {**SECURE, "updates": [SECURE["updates"][0]] * 2}}, "more than one"),  # type: ignore[index]
    ],
)
async def test_updates_that_do_not_fit_are_refused(payload: dict[str, Any], word: str) -> None:
    """As invalid input, with the client's name."""
    with pytest.raises(InvalidInput, match=word):
        await _run(**payload)
