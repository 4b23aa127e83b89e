"""The sceptic: insufficient by default, a planted effect is found, choices are not effects, bad input."""

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from neuroedge.contract.errors import InvalidInput
from neuroedge.engines.learning.learning_preference import (
    PASHLER,
    Input,
    LearningPreference,
    ModalityOutcome,
    Output,
)
from tests.fakes import make_context

pytestmark = pytest.mark.anyio
OUTCOME = {"item": "i", "modality": "text", "correct": True}


def _outcomes(
    effect: float, *, n: int = 200, seed: int = 0, chosen: bool | None = False, learner: str | None = None
) -> list[ModalityOutcome]:
    """Half video, half text; video `effect` logits better."""
    rng = np.random.default_rng(seed)
    told = []
    for i in range(n):
        hard = float(rng.standard_normal())
        shift = effect / 2 if i % 2 else -effect / 2
        told.append(
            ModalityOutcome(
                item=f"i{i}",
                modality="video" if i % 2 else "text",
                correct=bool(rng.random() < 1 / (1 + np.exp(hard - shift))),
                difficulty_logit=hard,
                chosen=chosen,
                learner=learner,
            )
        )
    return told


async def _run(outcomes: list[ModalityOutcome]) -> Output:
    context = make_context()
    return await LearningPreference(probe=context).run(Input(outcomes=outcomes), context)


async def test_nothing_is_concluded_from_nothing() -> None:
    """No true effect: no verdict of a difference over 40 learners, and the lack of evidence is always told."""
    verdicts = [(await _run(_outcomes(0.0, n=120, seed=seed))).verdict for seed in range(40)]
    assert verdicts.count("difference") <= 1
    assert PASHLER in (await _run(_outcomes(0.0))).warnings


async def test_a_large_effect_of_assigned_modalities_is_found() -> None:
    """With its sign, its interval and its n."""
    told = await _run(_outcomes(2.0, n=300))
    assert told.verdict == "difference"
    assert told.reliable
    assert told.effects[0].modality == "video"
    assert told.effects[0].ci95[0] > 0 > told.effects[1].ci95[1]
    assert [e.n for e in told.effects] == [150, 150]
    assert told.permutation_p < 0.01


async def test_much_evidence_of_no_effect_says_no_difference() -> None:
    """Narrow intervals around zero."""
    told = await _run(_outcomes(0.0, n=4000, seed=2))
    assert told.verdict == "no_difference"
    assert told.reasons == []


async def test_chosen_modalities_prove_nothing() -> None:
    """The same large effect with the learner's own choice: insufficient, and the choice rate apart."""
    told = await _run(_outcomes(2.0, n=300, chosen=True))
    assert told.verdict == "insufficient"
    assert "not all assigned" in told.reasons[0]
    assert told.choice_rate == {"text": 0.5, "video": 0.5}
    assert told.n_choices == 300
    unknown = await _run(_outcomes(2.0, n=300, chosen=None))
    assert (unknown.verdict, unknown.choice_rate) == ("insufficient", {})


async def test_others_make_the_prior_and_the_difficulties() -> None:
    """Where modalities never mattered to thirty others, one learner's chance effects are drawn to zero."""
    others = [o for k in range(30) for o in _outcomes(0.0, n=60, seed=100 + k, learner=f"l{k}")]
    alone, among = await _run(_outcomes(0.6, n=60)), await _run([*_outcomes(0.6, n=60), *others])
    assert among.prior_fitted
    assert not alone.prior_fitted
    assert among.prior_answers > alone.prior_answers
    assert abs(among.effects[0].logit) < abs(alone.effects[0].logit)


async def test_what_is_missing_is_said() -> None:
    """One modality, few answers, all right: insufficient with the reason; under the minimum refused."""
    one = [o.model_copy(update={"modality": "text"}) for o in _outcomes(0.0, n=60)]
    assert "one modality" in (await _run(one)).reasons[0]
    right = [o.model_copy(update={"correct": True}) for o in _outcomes(0.0, n=60)]
    told = await _run(right)
    assert told.effects == []
    assert "all answers are right" in told.reasons[0]
    few = await _run(_outcomes(0.0, n=40))
    assert "fewer than 30 answers with text (20), video (20)" in few.reasons
    with pytest.raises(InvalidInput, match="9 answers of the learner"):
        await _run([*_outcomes(0.0, n=9), *_outcomes(0.0, n=100, learner="other")])


async def test_items_without_difficulty_are_taken_from_others_never_from_the_answer_itself() -> None:
    """A learner's single answers to unknown items keep their effect."""
    own = [o.model_copy(update={"difficulty_logit": None}) for o in _outcomes(3.0, n=120)]
    told = await _run(own)
    assert told.effects[0].logit > 0.5
    assert "taken as average" in told.warnings[1]


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"outcomes": []},
        {"outcomes": [{**OUTCOME, "modality": ""}]},
        {"outcomes": [{**OUTCOME, "modality": "x" * 51}]},
        {"outcomes": [{**OUTCOME, "correct": None}]},
        {"outcomes": [{**OUTCOME, "difficulty_logit": float("inf")}]},
        {"outcomes": [{**OUTCOME, "difficulty_logit": -99}]},
        {"outcomes": [{**OUTCOME, "chosen": "mine"}]},
        {"outcomes": [{**OUTCOME, "style": "visual"}]},
        {"outcomes": [OUTCOME] * 20_001},
    ],
)
def test_bad_input_is_refused(payload: dict[str, Any]) -> None:
    """By the schema, with the field."""
    with pytest.raises(ValidationError):
        Input.model_validate(payload)


async def test_it_proves_itself() -> None:
    """post_swap_test on the example."""
    await LearningPreference(probe=make_context()).post_swap_test()
