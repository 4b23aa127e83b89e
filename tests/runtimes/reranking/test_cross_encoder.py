"""Cross-encoders over ONNX Runtime: a tiny graph in the format of real ones, whose logits are computed by hand."""

import asyncio
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from neuroedge.contract.errors import DeadlineExceeded, ModelUnavailable
from neuroedge.contract.scope import call_scope
from neuroedge.runtimes.reranking.cross_encoder import CrossEncoder, load
from tests.runtimes.embedding.tiny_models import WORDS, save

pytestmark = pytest.mark.anyio
WEIGHTS = np.random.default_rng(5).normal(size=(len(WORDS), 1)).astype(np.float32)
SEGMENTS = np.array([[0.0], [0.5]], np.float32)
IDS = {word: i for i, word in enumerate(WORDS)}


def write(folder: Path, *, types: bool = True, labels: int = 1) -> None:
    """logit = sum over tokens of the word's weight, plus a half for each token of the passage where `types`."""
    tokenizer = Tokenizer(models.WordLevel(IDS, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", IDS["[CLS]"]), ("[SEP]", IDS["[SEP]"])],
    )
    tokenizer.enable_padding(length=64)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if types else [])]
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"]) for name in names]
    nodes = [helper.make_node("Gather", ["weights", "input_ids"], ["words"])]
    states = "words"
    if types:
        nodes += [
            helper.make_node("Gather", ["segments", "token_type_ids"], ["shift"]),
            helper.make_node("Add", ["words", "shift"], ["moved"]),
        ]
        states = "moved"
    nodes += [
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["column"]),
        helper.make_node("Mul", [states, "column"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "tokens"], ["logits"], keepdims=0),
    ]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", labels])]
    stored = {
        "weights": np.repeat(WEIGHTS, labels, axis=1),
        "segments": SEGMENTS,
        "last": np.array([-1], np.int64),
        "tokens": np.array([1], np.int64),
    }
    save(folder, nodes, inputs, outputs, stored)


def expected(query: str, passage: str, *, types: bool = True) -> float:
    """The score by hand."""
    asked, answer = ["[CLS]", *query.split(), "[SEP]"], [*passage.split(), "[SEP]"]
    logit = sum(float(WEIGHTS[IDS[word], 0]) for word in asked + answer) + (0.5 * len(answer) if types else 0.0)
    return float(1 / (1 + np.exp(-logit)))


def opened(folder: Path, **options: object) -> CrossEncoder:
    """The cross-encoder in `folder`."""
    return load("m", folder, threads=1, options=options)


@pytest.mark.parametrize("types", [True, False])
async def test_scores_are_probabilities_in_the_order_given(tmp_path: Path, types: bool) -> None:
    """With segments as BERT wants them and without as XLM-R does, in several batches of unlike lengths."""
    write(tmp_path, types=types)
    reranker = opened(tmp_path, token_budget=24)
    passages = ["w1", "w2 w3 w4 w5 w6", "w7", "w1 w2", "", "w8 w9 w10"]
    scores = await reranker.score("w11 w12", passages)
    assert scores == pytest.approx([expected("w11 w12", p, types=types) for p in passages], abs=1e-5)
    assert scores.dtype == np.float32
    assert (await reranker.score("w1", [])).shape == (0,)
    reranker.close()


async def test_callers_at_the_same_time_get_their_own_scores(tmp_path: Path) -> None:
    """Though they share batches."""
    write(tmp_path)
    reranker = opened(tmp_path)
    asked = [(f"w{i}", [f"w{i + 1}", f"w{i + 2} w3"]) for i in range(12)]
    answers = await asyncio.gather(*(reranker.score(query, passages) for query, passages in asked))
    for (query, passages), scores in zip(asked, answers, strict=True):
        assert scores == pytest.approx([expected(query, passage) for passage in passages], abs=1e-5)
    reranker.close()


async def test_what_is_too_long_loses_the_passages_end(tmp_path: Path) -> None:
    """12 tokens, three of them special: the query keeps its two, the passage has seven left."""
    write(tmp_path)
    reranker = opened(tmp_path, max_tokens=12)
    long = " ".join(f"w{i}" for i in range(20))
    (score,) = await reranker.score("w21 w22", [long])
    assert score == pytest.approx(expected("w21 w22", " ".join(f"w{i}" for i in range(7))), abs=1e-5)
    reranker.close()


async def test_an_endless_query_leaves_half_to_the_passage(tmp_path: Path) -> None:
    """11 tokens, three of them special: four are the query's."""
    write(tmp_path)
    reranker = opened(tmp_path, max_tokens=11)
    (score,) = await reranker.score("w1 " * 500, ["w2 w3 w4 w5 w6"])
    assert score == pytest.approx(expected("w1 w1 w1 w1", "w2 w3 w4 w5"), abs=1e-5)
    reranker.close()


async def test_a_deadline_that_has_passed_is_told(tmp_path: Path) -> None:
    """Nothing is computed for a caller who has gone."""
    write(tmp_path)
    reranker = opened(tmp_path)
    with call_scope(timeout_s=0.0), pytest.raises(DeadlineExceeded):
        await reranker.score("w1", ["w2"])
    reranker.close()


def test_a_classifier_with_several_labels_is_refused(tmp_path: Path) -> None:
    """An NLI model is no cross-encoder for ranking."""
    write(tmp_path, types=False, labels=3)
    with pytest.raises(ModelUnavailable, match="no cross-encoder"):
        opened(tmp_path)


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_missing_and_truncated_files_are_reported_with_the_remedy(tmp_path: Path, name: str) -> None:
    """Both files are needed whole."""
    write(tmp_path)
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    for _ in range(2):
        with pytest.raises(ModelUnavailable) as caught:
            opened(tmp_path)
        assert "models verify m" in str(caught.value.hint)
        path.unlink(missing_ok=True)
