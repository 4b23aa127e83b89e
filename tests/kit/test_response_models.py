"""The comparison of models: what is held out, and that the truth's model wins."""

import numpy as np

from neuroedge.kit import response_models
from neuroedge.kit.response_models import Answer, Predictor, compared


def _answers(students: int = 80, items: int = 12, *, seed: int = 0) -> list[Answer]:
    rng = np.random.default_rng(seed)
    ability, hard = rng.standard_normal(students), np.linspace(-2, 2, items)
    return [
        Answer(student=f"s{s}", item=f"i{i}", skill="k", correct=bool(rng.random() < 1 / (1 + np.exp(hard[i] - a))))
        for s, a in enumerate(ability)
        for i in rng.permutation(items)
    ]


def test_each_students_last_answers_are_held_out() -> None:
    """A fifth, at least one; none of a student with two answers."""
    answers = [*_answers(2, 10), *[Answer(student="short", item="i0", skill="", correct=True)] * 2]
    kept, held = response_models._split(answers)
    assert [a.student for a in held] == ["s0", "s0", "s1", "s1"]
    assert held == [*answers[8:10], *answers[18:20]]
    assert len(kept) + len(held) == len(answers)


def test_on_rasch_data_the_item_response_model_beats_the_baseline() -> None:
    """Scores come best first, all on the same answers."""
    scores = compared(_answers())
    assert [s.log_loss for s in scores] == sorted(s.log_loss for s in scores)
    assert {s.model for s in scores} == {"rasch", "2pl", "elo", "best_lr", "item_mean"}
    loss = {s.model: s.log_loss for s in scores}
    assert loss["rasch"] < loss["item_mean"]
    assert {s.n for s in scores} == {160}


def test_too_few_answers_give_no_scores() -> None:
    """A score on a handful would mean nothing."""
    assert compared(_answers(5, 5)) == []


def test_every_model_answers_for_the_unknown() -> None:
    """A student and an item nobody has seen: a chance, not an error."""
    for model in response_models.MODELS:
        p = Predictor(_answers(), model).p([("nobody", "nothing", ""), ("s0", "i0", "k"), ("s0", "i11", "k")])
        assert ((p > 0) & (p < 1)).all()
        assert p[1] > p[2]
