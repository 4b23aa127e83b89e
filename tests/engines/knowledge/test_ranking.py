"""The ranking engine: which method answers, and that it says so."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from pydantic import ValidationError

from neuroedge.contract.errors import ModelUnavailable
from neuroedge.contract.models import Floats, TokenStates
from neuroedge.engines.knowledge.ranking import Input, RankingEngine
from neuroedge.runtimes.text_encoder import BatchedTextEncoder, load
from tests.engines.knowledge.fake_encoder import HashedWords
from tests.fakes import make_context

pytestmark = pytest.mark.anyio
ENCODER = "all-minilm-l6-v2-int8"
ASKED = Input(query="a cat", passages=["a dog barks", "a black cat", "rain fell"])


class WordStates(HashedWords):
    """A state a word, its own hash: two words match when they are equal."""

    async def token_states(
        self, texts: Sequence[str], *, kind: Literal["query", "passage"] = "passage"
    ) -> list[TokenStates]:
        """One vector a word."""
        encoded = [await self.encode(text.split()) for text in texts]
        return [TokenStates(ids=list(range(len(e.vectors))), vectors=e.vectors) for e in encoded]


class Lengths:
    """A Reranker that likes short passages."""

    model_id = "lengths"
    method = "cross-encoder"

    async def score(self, query: str, passages: Sequence[str]) -> Floats:
        """Shorter is better."""
        return np.array([1 / len(passage) for passage in passages], np.float32)


async def test_without_a_reranker_late_interaction_answers() -> None:
    """Both words found beat one, one beats none."""
    ctx = make_context(models={"text_embedding": WordStates()})
    answer = await RankingEngine(probe=ctx).run(ASKED, ctx)
    assert (answer.method, answer.models) == ("late-interaction", ["hashed-words"])
    assert answer.order == [1, 0, 2]
    assert answer.scores[1] == pytest.approx(1.0, abs=1e-2)
    assert (await RankingEngine(probe=ctx).health()).method == "late-interaction"


async def test_a_configured_reranker_answers_and_is_named() -> None:
    """No text encoder is needed then."""
    ctx = make_context(models={"rerank": Lengths()})
    engine = RankingEngine(probe=ctx)
    answer = await engine.run(ASKED, ctx)
    assert (answer.method, answer.models, answer.order) == ("cross-encoder", ["lengths"], [2, 0, 1])
    health = await engine.health()
    assert (health.status, health.models) == ("ready", {"rerank": "ready"})


@pytest.mark.parametrize(("brief", "order"), [(True, [1, 0]), (False, [0, 1])])
async def test_a_brief_call_reads_only_beginnings(brief: bool, order: list[int]) -> None:
    """What stands at a long passage's end counts only for a call that reads on."""
    ctx = make_context(models={"text_embedding": WordStates()})
    asked = Input(query="a cat", passages=["rain " * 100 + "a cat", "the cat"], brief=brief)
    assert (await RankingEngine(probe=ctx).run(asked, ctx)).order == order


async def test_equal_passages_keep_their_order() -> None:
    """The order is deterministic."""
    ctx = make_context(models={"text_embedding": WordStates()})
    answer = await RankingEngine(probe=ctx).run(Input(query="x", passages=["y", "y", "x", "y"]), ctx)
    assert answer.order == [2, 0, 1, 3]


async def test_without_any_model_the_call_fails_and_health_says_so() -> None:
    """No order is made up."""
    ctx = make_context()
    engine = RankingEngine(probe=ctx)
    with pytest.raises(ModelUnavailable):
        await engine.run(ASKED, ctx)
    assert (await engine.health()).status == "unavailable"


@pytest.mark.parametrize(
    "payload",
    [
        {"query": "", "passages": ["x"]},
        {"query": "x" * 8001, "passages": ["x"]},
        {"query": "x", "passages": []},
        {"query": "x", "passages": [""]},
        {"query": "x", "passages": ["x"] * 201},
        {"query": "x", "passages": ["x" * 20_001]},
        {"query": "x", "passages": ["x"], "top_k": 3},
    ],
)
def test_bad_input_is_refused(payload: dict[str, Any]) -> None:
    """Too few, too many, too long, unknown fields."""
    with pytest.raises(ValidationError):
        Input.model_validate(payload)


@pytest.fixture(scope="module")
def encoder(models_dir: Path) -> Iterator[BatchedTextEncoder]:
    """The default encoder."""
    loaded = load(ENCODER, models_dir / ENCODER, threads=2, options={"backend": "onnxruntime"})
    yield loaded
    loaded.close()


@pytest.mark.models
async def test_the_default_encoder_finds_the_answer_among_passages(encoder: BatchedTextEncoder) -> None:
    """What runs after a hot reload, and the right passage first."""
    ctx = make_context(models={"text_embedding": encoder})
    engine = RankingEngine(probe=ctx)
    await engine.post_swap_test()
    assert (await engine.run(RankingEngine.example, ctx)).order[0] == 1  # type: ignore[arg-type]


@pytest.mark.models
async def test_token_states_do_not_depend_on_their_neighbours(encoder: BatchedTextEncoder) -> None:
    """Alone and beside others of all lengths the states are the same, special tokens left out, long texts cut."""
    texts = ["rain", *(f"text number {i} " * (1 + i) for i in range(20)), "word " * 1000, ""]
    together = await encoder.token_states(texts)
    for text, states in zip(texts, together, strict=True):
        (alone,) = await encoder.token_states([text])
        assert states.ids == alone.ids
        assert states.vectors == pytest.approx(alone.vectors, abs=1e-4)
    assert [len(together[i].ids) for i in (0, -2, -1)] == [1, encoder.max_tokens - 2, 0]
    assert np.linalg.norm(together[1].vectors, axis=1) == pytest.approx(1.0, abs=1e-5)
