"""The classification engine: zero-shot, trained in the call, kept and used again, and what is refused."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from uuid import UUID, uuid4

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from neuroedge.contract.errors import InvalidInput, NotFound
from neuroedge.contract.models import Embeddings
from neuroedge.contract.trained import NoTrainedModels, TrainedModel
from neuroedge.engines.language.classification import Classification, Input, Output
from neuroedge.runtimes import text_encoder
from tests.fakes import make_context

pytestmark = pytest.mark.anyio
LABELS = [{"name": "animals"}, {"name": "money", "description": "coins and notes"}]


class _Encoder:
    """Three numbers: animals, money, and how long the text is."""

    model_id = "two-topics"
    dim = 3
    max_tokens = 300

    async def encode(self, texts: Sequence[str], *, kind: Literal["query", "passage"] = "passage") -> Embeddings:
        """Counts of words, as unit vectors."""
        rows = [[t.count("cat") + t.count("animal"), t.count("bank") + t.count("money"), 0.1] for t in texts]
        vectors = np.array(rows, np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return Embeddings(vectors=vectors, tokens=[len(t) for t in texts])


class _Kept(NoTrainedModels):
    """Keeps models in a dictionary and runs their graphs."""

    def __init__(self) -> None:
        self.models: dict[UUID, tuple[TrainedModel, bytes]] = {}

    async def keep(self, *, name: str, kind: str, card: Mapping[str, Any], graph: bytes) -> TrainedModel:
        """Store a model."""
        model = TrainedModel(
            id=uuid4(), name=name, kind=kind, card=card, bytes=len(graph), sha256="", created_at=datetime.now(UTC)
        )
        self.models[model.id] = (model, graph)
        return model

    async def get(self, model_id: UUID) -> TrainedModel:
        """One of them."""
        if model_id not in self.models:
            raise NotFound("none")
        return self.models[model_id][0]

    async def run(self, model: TrainedModel, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """By ONNX Runtime."""
        import onnxruntime

        session = onnxruntime.InferenceSession(self.models[model.id][1])
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(None, dict(inputs)), strict=True))


def _examples(n: int) -> list[dict[str, str]]:
    words = (("the cat sat", "animals"), ("the bank paid", "money"))
    return [{"text": f"{words[i % 2][0]} {i}", "label": words[i % 2][1]} for i in range(n)]


async def _run(*texts: str, kept: _Kept | None = None, **fields: Any) -> Output:
    ctx = replace(make_context(models={"text_embedding": _Encoder()}), trained=kept or _Kept())
    return await Classification(probe=ctx).run(Input.model_validate({"texts": list(texts), **fields}), ctx)


async def test_descriptions_are_enough() -> None:
    """Zero-shot: the nearer label, honest about calibration."""
    answer = await _run("my cat", "a bank", labels=LABELS)
    assert [r.label for r in answer.results] == ["animals", "money"]
    assert (answer.calibrated, answer.reliable, answer.method) == (False, False, "zero-shot-cosine")
    assert sum(s.p for s in answer.results[0].scores) == pytest.approx(1, abs=1e-3)


async def test_what_is_near_neither_label_is_abstained_on() -> None:
    """Even odds are below 0.6."""
    answer = await _run("nothing of the kind", labels=LABELS, abstain_below=0.6)
    assert (answer.results[0].label, answer.results[0].abstained) == (None, True)


async def test_a_head_is_trained_within_the_call() -> None:
    """By words and by vectors; figures on held-out examples."""
    for features in ("tfidf", "embedding", "auto"):
        answer = await _run("cat", "bank", examples=_examples(300), features=features)
        assert [r.label for r in answer.results] == ["animals", "money"]
        assert answer.holdout is not None
        assert (answer.holdout.n, answer.holdout.accuracy, answer.n_train) == (60, 1.0, 240)
        assert answer.reliable


async def test_few_examples_are_marked() -> None:
    """Ten give an answer, but two held-out ones say little."""
    answer = await _run("cat", examples=_examples(10), features="embedding")
    assert not answer.reliable
    assert not answer.calibrated
    assert "held out" in answer.warnings[0]


async def test_repeated_examples_are_learnt_once() -> None:
    """A repeated text must not be learnt and held out at once; a contradicting label is told."""
    twice = [*_examples(20), *_examples(20), {"text": "THE cat  sat 0", "label": "money"}]
    answer = await _run("cat", examples=twice, features="tfidf")
    assert answer.n_train + (answer.holdout.n if answer.holdout else 0) == 20
    assert answer.warnings[0].startswith("21 repeated")
    assert answer.warnings[1].startswith("1 examples")


async def test_a_kept_head_answers_as_when_it_was_trained() -> None:
    """The same probabilities by its id; another kind of model, and no model, are refused."""
    kept = _Kept()
    first = await _run("cat", "bank", examples=_examples(40), keep_as="animals or money", kept=kept)
    assert first.model_id is not None
    again = await _run("cat", "bank", model=str(first.model_id), kept=kept)
    assert [r.label for r in again.results] == ["animals", "money"]
    assert [r.p for r in again.results] == pytest.approx([r.p for r in first.results], abs=1e-4)
    assert (again.holdout, again.reliable) == (first.holdout, first.reliable)
    other = await kept.keep(name="x", kind="classifier", card={}, graph=b"")
    with pytest.raises(InvalidInput, match="does not classify"):
        await _run("cat", model=str(other.id), kept=kept)
    with pytest.raises(NotFound):
        await _run("cat", model=str(uuid4()), kept=kept)


async def test_too_few_examples_are_told_with_their_field() -> None:
    """Four of a label."""
    with pytest.raises(InvalidInput) as refused:
        await _run("cat", examples=_examples(8))
    assert refused.value.errors[0]["loc"] == ["body", "examples"]


async def test_more_than_the_encoder_may_read_is_refused() -> None:
    """2,100 examples by vectors."""
    with pytest.raises(InvalidInput, match="2000"):
        await _run("cat", examples=_examples(2100), features="embedding")


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"labels": LABELS, "examples": _examples(10)},
        {"labels": LABELS[:1]},
        {"labels": [{"name": "a"}, {"name": "a"}]},
        {"labels": [{"name": " "}, {"name": "a"}]},
        {"labels": [{"name": str(i)} for i in range(101)]},
        {"labels": LABELS, "abstain_below": float("nan")},
        {"labels": LABELS, "abstain_below": 1.5},
        {"labels": LABELS, "seed": -1},
        {"labels": LABELS, "top": 0},
        {"labels": LABELS, "texts": []},
        {"labels": LABELS, "texts": [" "]},
        {"labels": LABELS, "texts": ["x" * 20_001]},
        {"labels": LABELS, "texts": ["x"] * 257},
        {"labels": LABELS, "keep_as": "x"},
        {"examples": _examples(10), "keep_as": "x", "features": "tfidf"},
        {"examples": [{"text": f"t{i}", "label": str(i)} for i in range(101)]},
        {"examples": [{"text": "x" * 20_000, "label": "a"}] * 401},
        {"examples": [{"text": 1, "label": "a"}]},
        {"model": "not-an-id"},
    ],
)
async def test_bad_input_is_refused(fields: dict[str, Any]) -> None:
    """Nothing or two ways, one label, twice the same, blank, huge, no number, wrong type."""
    with pytest.raises(ValidationError):
        Input.model_validate({"texts": ["x"], **fields})


@pytest.mark.models
async def test_the_self_test_passes_with_the_default_encoder(models_dir: Path) -> None:
    """Sport and politics."""
    name = "all-minilm-l6-v2-int8"
    encoder = text_encoder.load(name, models_dir / name, threads=2, options={})
    try:
        await Classification(probe=make_context(models={"text_embedding": encoder})).post_swap_test()
    finally:
        encoder.close()
