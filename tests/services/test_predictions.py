"""Predictions: what engines are asked with, where the caller's data are of any form."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest

from neuroedge.contract.principal import Principal
from neuroedge.services.learners import Learners
from neuroedge.services.predictions import Predictions
from neuroedge.services.run_engine import EngineRunner
from tests.fakes import make_context

pytestmark = pytest.mark.anyio


class _Runner:
    """Keeps what it was asked; answers with nothing to learn next."""

    def __init__(self) -> None:
        self.asked: list[Mapping[str, Any]] = []

    async def run(self, engine: str, given: Mapping[str, Any], **_: Any) -> Any:
        self.asked.append(given)
        return SimpleNamespace(model_dump=lambda mode: {"method": engine, "next": []})


class _Learners:
    """One learner who has practised two skills."""

    async def profile(self, principal: Principal, learner: str) -> Any:
        return SimpleNamespace(skills=[SimpleNamespace(skill=name, p_mastery=0.5, n=4) for name in ("add", "divide")])


@pytest.mark.parametrize(
    ("skills", "expected"),
    [
        ([{"id": "add"}, {"id": "read"}], ["add"]),
        ([{"id": ["add"]}, {"id": {"a": 1}}, {"id": None}, {"id": 3}, {}, "add"], []),
        ([{"id": ["add"]}, {"id": "divide"}], ["divide"]),
        ("add", []),
        (None, []),
    ],
)
async def test_kept_mastery_is_of_skills_named_by_texts(skills: Any, expected: list[str]) -> None:
    """What else stands for an id is the engine's to refuse."""
    runner = _Runner()
    predictions = Predictions(runner=cast(EngineRunner, runner), learners=cast(Learners, _Learners()))
    await predictions.predict(
        "personalize", {"skills": skills}, learner="anna", principal=make_context().principal, request_id="r"
    )
    assert [row["skill"] for row in runner.asked[0]["mastery"]] == expected
