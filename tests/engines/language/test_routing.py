"""The routing engine: what goes where, when it abstains, what stays on the machine."""

import json
from collections.abc import Iterator, Sequence
from hashlib import sha256
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from pydantic import ValidationError

from neuroedge.contract.errors import InvalidInput
from neuroedge.contract.models import Embeddings, Floats
from neuroedge.engines.language.routing import DEMANDING, GENERATING, Input, Output, Routing, registered
from neuroedge.runtimes import text_classifier, text_encoder
from tests.fakes import make_context

pytestmark = pytest.mark.anyio
WEIGHTS = Path(str(resources.files("neuroedge"))) / "weights" / "routing-head"


class _Encoder:
    """The vector of a text says what the head is to answer: its length."""

    model_id = "lengths"
    dim = 1
    max_tokens = 50

    async def encode(self, texts: Sequence[str], *, kind: Literal["query", "passage"] = "passage") -> Embeddings:
        """One number a text."""
        return Embeddings(vectors=np.array([[len(t)] for t in texts], np.float32), tokens=[len(t) for t in texts])


class _Head:
    """Sure of translation for short texts, unsure of all for long ones."""

    model_id = "by-hand"
    embedding_model = "lengths"
    labels = ("no_such_engine", "transcription", "translation", DEMANDING)
    thresholds = np.full(4, 0.5, np.float32)
    exclusive = 3
    abstain_below = 0.6

    def __init__(self, *, demand: float = 0.1) -> None:
        self._demand = demand

    async def predict(self, vectors: Floats) -> Floats:
        """Rows by length."""
        rows = [[0.05, 0.1, 0.85] if v[0] < 100 else [0.4, 0.3, 0.3] for v in vectors]
        return np.array([[*row, self._demand] for row in rows], np.float32)


async def _run(*texts: str, demand: float = 0.1, **fields: Any) -> Output:
    ctx = make_context(models={"text_embedding": _Encoder(), "routing": _Head(demand=demand)})
    return await Routing(probe=ctx).run(Input(requests=list(texts), **fields), ctx)


async def test_a_request_goes_to_the_likeliest_engine() -> None:
    """With the others behind it; engines that are not there are never named."""
    (one,) = (await _run("translate this")).results
    assert (one.target, one.p, one.abstained) == ("translation", 0.85, False)
    assert [a.target for a in one.alternatives] == ["transcription"]


async def test_an_unclear_request_is_not_routed() -> None:
    """No target, no provider, the alternatives to ask about; the answer is marked unreliable."""
    answer = await _run("x" * 120)
    (one,) = answer.results
    assert (one.target, one.abstained, one.provider, one.truncated) == (None, True, None, True)
    assert len(one.alternatives) == 2
    assert not answer.reliable
    assert answer.warnings


async def test_what_asks_much_goes_to_a_large_model_unless_it_must_stay() -> None:
    """By demand, by personal data, by the caller's word, and for an engine without a language model."""
    assert (await _run("hard", demand=0.9)).results[0].provider.kind == "external"  # type: ignore[union-attr]
    assert (await _run("easy", demand=0.2)).results[0].provider.kind == "local"  # type: ignore[union-attr]
    personal = (await _run("write to jo@example.org", demand=0.9)).results[0].provider
    assert personal is not None
    assert (personal.kind, personal.reason) == ("local", "the request holds personal data")
    assert (await _run("hard", demand=0.9, local_only=True)).results[0].provider.kind == "local"  # type: ignore[union-attr]
    only = await _run("hard", demand=0.9, targets=["transcription"], abstain_below=0)
    assert only.results[0].provider.kind == "none"  # type: ignore[union-attr]


async def test_an_unknown_target_is_refused() -> None:
    """With the known ones as a hint."""
    with pytest.raises(InvalidInput, match="teleport"):
        await _run("x", targets=["teleport"])


@pytest.mark.parametrize(
    "fields",
    [
        {"requests": []},
        {"requests": [""]},
        {"requests": ["   "]},
        {"requests": ["x" * 4001]},
        {"requests": ["x"] * 257},
        {"requests": "x"},
        {"requests": ["x"], "abstain_below": float("nan")},
        {"requests": ["x"], "abstain_below": -1},
        {"requests": ["x"], "targets": []},
    ],
)
async def test_bad_requests_are_refused(fields: dict[str, Any]) -> None:
    """Empty, blank, huge, too many, no number."""
    with pytest.raises(ValidationError):
        Input.model_validate(fields)


async def test_the_shipped_head_is_the_one_its_card_describes() -> None:
    """Digest, labels that are engines of this release, and a level of abstention."""
    card = json.loads((WEIGHTS / "card.json").read_text())
    assert sha256((WEIGHTS / "head.npz").read_bytes()).hexdigest() == card["sha256"]
    head = text_classifier.load("routing-head", WEIGHTS, threads=1, options={})
    engines = set(head.labels[: head.exclusive])
    head.close()
    assert engines <= registered()
    assert engines >= GENERATING


@pytest.fixture(scope="module")
def real(models_dir: Path) -> Iterator[dict[str, Any]]:
    """The default encoder and the shipped head."""
    name = "all-minilm-l6-v2-int8"
    encoder = text_encoder.load(name, models_dir / name, threads=2, options={})
    head = text_classifier.load("routing-head", WEIGHTS, threads=1, options={})
    yield {"text_embedding": encoder, "routing": head}
    encoder.close()
    head.close()


@pytest.mark.models
async def test_clear_requests_find_their_engine(real: dict[str, Any]) -> None:
    """In words that are not in the training data."""
    asked = {
        "Could you transcribe the attached voice memo?": "transcription",
        "Forecast the turnover of the coming quarter.": "forecasting",
        "Translate my letter into Portuguese, please.": "translation",
    }
    ctx = make_context(models=real)
    answer = await Routing(probe=ctx).run(Input(requests=list(asked)), ctx)
    assert [r.target for r in answer.results] == list(asked.values())


@pytest.mark.models
async def test_its_probabilities_sum_to_one(real: dict[str, Any]) -> None:
    """Over the engines; the demand is apart."""
    found = await real["text_embedding"].encode(["Hello", "Simulate a queue"])
    p = await real["routing"].predict(found.vectors)
    assert p[:, : real["routing"].exclusive].sum(axis=1) == pytest.approx([1, 1], abs=1e-5)


@pytest.mark.models
async def test_the_shipped_head_passes_the_self_test(real: dict[str, Any]) -> None:
    """A recording is transcribed, a light is nobody's."""
    await Routing(probe=make_context(models=real)).post_swap_test()
