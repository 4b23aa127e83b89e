"""The index engine: recall against every row compared, over an index under the test's control; bad vectors refused."""

import base64
import dataclasses
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from pydantic import ValidationError

from neuroedge.contract.errors import InvalidInput
from neuroedge.contract.index_trials import IndexTrial, MemoryTrial
from neuroedge.contract.models import Floats
from neuroedge.engines.knowledge.index import IndexEngine, Input, Output
from tests.fakes import FakeBlobs, make_context

pytestmark = pytest.mark.anyio


class Searching:
    """An index that finds every neighbour but the last `missed`."""

    def __init__(self, *, missed: int = 0, memories: MemoryTrial | None = None) -> None:
        self.asked: list[dict[str, Any]] = []
        self._missed = missed
        self._memories = memories

    async def trial(self, vectors: Floats, queries: Floats, *, k: int, **options: Any) -> IndexTrial:
        """By comparing all."""
        self.asked.append({"vectors": vectors, "queries": queries, "k": k, **options})
        cosines = queries @ vectors.T
        best = np.argsort(-cosines, axis=1)[:, : k - self._missed]
        found = np.take_along_axis(cosines, best, axis=1)
        return IndexTrial(positions=best.tolist(), cosines=found.tolist(), build_s=0.5, query_s=0.1, index_bytes=8192)

    async def memories(self, *, queries: int, k: int) -> MemoryTrial:
        """What the test gave."""
        assert self._memories is not None
        return self._memories


def cloud(n: int, dim: int = 8, seed: int = 0) -> Any:
    """Random directions."""
    return np.random.default_rng(seed).normal(size=(n, dim))


async def run(indexes: Searching, payload: dict[str, Any], **ports: Any) -> Output:
    """The engine's answer."""
    ctx = dataclasses.replace(make_context(**ports), indexes=indexes)
    return await IndexEngine(probe=ctx).run(Input.model_validate(payload), ctx)


async def test_recall_is_the_part_that_was_found() -> None:
    """Two of ten missed: 0.8 of every query, so the interval is a point."""
    body = {"vectors": {"rows": cloud(200).tolist()}, "queries": {"rows": cloud(25, seed=1).tolist()}}
    whole = await run(Searching(), body)
    assert (whole.recall, whole.reliable, whole.warnings, whole.method) == (1.0, True, [], "hnsw")
    assert (whole.n, whole.dim, whole.queries, whole.build_s, whole.query_ms) == (200, 8, 25, 0.5, 4.0)
    part = await run(Searching(missed=2), body)
    assert part.recall == pytest.approx(0.8)
    assert part.recall_ci95 == pytest.approx((0.8, 0.8))
    assert [len(row) for row in part.ids] == [8] * 25


async def test_vectors_come_normalised_whatever_their_length() -> None:
    """Cosine does not see lengths; numbers near the largest there are do not overflow."""
    indexes = Searching()
    await run(indexes, {"vectors": {"rows": [[3, 4], [1e300, 0], [0, -1e-300]]}, "queries": {"rows": [[1, 1]]}})
    assert np.allclose(indexes.asked[0]["vectors"], np.array([[0.6, 0.8], [1, 0], [0, -1]]))


async def test_bytes_and_objects_are_read_as_rows_are() -> None:
    """Little-endian 32-bit floats, in base64 or in the caller's storage."""
    rows = cloud(30, 4).astype("<f4")
    blobs = FakeBlobs()
    blobs.objects["vectors.bin"] = rows.tobytes()
    answers = []
    for given in (
        {"rows": rows.astype(float).tolist()},
        {"base64": base64.b64encode(rows.tobytes()).decode(), "dim": 4},
        {"blob": "vectors.bin", "dim": 4},
    ):
        answers.append(await run(Searching(), {"vectors": given, "k": 3}, blobs=blobs))
    assert answers[0].ids == answers[1].ids == answers[2].ids


async def test_without_queries_some_of_the_vectors_are_asked_and_it_is_said() -> None:
    """The same ones every time; more than there are is all of them."""
    body = {"vectors": {"rows": cloud(400).tolist()}, "sample": 30}
    first, second = await run(Searching(), body), await run(Searching(), body)
    assert first.ids == second.ids
    assert (first.queries, first.reliable) == (30, True)
    assert "flattered" in first.warnings[0]
    few = await run(Searching(), {"vectors": {"rows": cloud(5).tolist()}, "k": 100})
    assert (few.k, few.queries, few.recall, few.reliable) == (5, 5, 1.0, False)
    assert len(few.warnings) == 3


async def test_effort_follows_the_method_unless_given() -> None:
    """And the graph's parameters are handed on."""
    indexes = Searching()
    body = {"vectors": {"rows": cloud(9).tolist()}, "m": 8, "ef_construction": 32}
    await run(indexes, {**body, "method": "ivfflat"})
    await run(indexes, {**body, "method": "binary", "effort": 7})
    assert [(a["method"], a["effort"], a["m"], a["ef_construction"]) for a in indexes.asked] == [
        ("ivfflat", 4, 8, 32),
        ("binary", 7, 8, 32),
    ]


async def test_memories_recall_is_the_overlap_of_both_searches() -> None:
    """Half of what comparing all finds."""
    ids = [UUID(int=i) for i in range(4)]
    trial = MemoryTrial(
        kind="hnsw",
        model="encoder",
        dim=384,
        rows=500,
        found=[ids[:2]] * 20,
        exact=[[ids[0], ids[3]]] * 20,
        query_s=0.2,
        exact_s=0.4,
    )
    answer = await run(Searching(memories=trial), {"k": 2})
    assert (answer.subject, answer.recall, answer.n, answer.method) == ("memories", 0.5, 500, "hnsw")
    assert (answer.query_ms, answer.exact_ms, answer.build_s) == (10, 20, None)
    assert (answer.embedding_model, answer.models, answer.reliable) == ("encoder", ["encoder"], True)


@pytest.mark.parametrize(
    ("vectors", "told"),
    [
        ({"rows": [[1.0, 0.0], [0.0, 0.0]]}, "number 1"),
        ({"base64": "!", "dim": 2}, "base64"),
        ({"base64": "", "dim": 2}, "0 bytes"),
        ({"base64": base64.b64encode(b"123456").decode(), "dim": 2}, "6 bytes"),
        ({"base64": base64.b64encode(np.array([np.nan, 1], "<f4").tobytes()).decode(), "dim": 2}, "NaN"),
        ({"base64": base64.b64encode(bytes(4 * 20_001)).decode(), "dim": 1}, "20001"),
    ],
)
async def test_vectors_that_are_none_are_refused(vectors: dict[str, Any], told: str) -> None:
    """With the field and what is wrong with it."""
    with pytest.raises(InvalidInput, match=told) as refused:
        await run(Searching(), {"vectors": vectors})
    assert refused.value.errors[0]["loc"] == ("vectors",)


async def test_queries_of_another_length_are_refused() -> None:
    """Or more of them than are allowed."""
    for queries in ([[1.0, 2.0, 3.0]], [[1.0, 2.0]] * 501):
        with pytest.raises(InvalidInput) as refused:
            await run(Searching(), {"vectors": {"rows": [[1, 2]]}, "queries": {"rows": queries}})
        assert refused.value.errors[0]["loc"] == ("queries",)


@pytest.mark.parametrize(
    "wrong",
    [
        {"vectors": {"rows": []}},
        {"vectors": {"rows": [[]]}},
        {"vectors": {"rows": [[1.0], [1.0, 2.0]]}},
        {"vectors": {"rows": [[float("nan")]]}},
        {"vectors": {"rows": [["a"]]}},
        {"vectors": {"base64": "AAAA"}},
        {"vectors": {"rows": [[1]], "blob": "x", "dim": 1}},
        {"vectors": {"rows": [[1]]}, "k": 0},
        {"vectors": {"rows": [[1]]}, "m": 40, "ef_construction": 64},
        {"vectors": {"rows": [[1]]}, "method": "magic"},
        {"queries": {"rows": [[1]]}},
    ],
)
def test_input_out_of_range_is_refused(wrong: dict[str, Any]) -> None:
    """By the schema."""
    with pytest.raises(ValidationError):
        Input.model_validate(wrong)
