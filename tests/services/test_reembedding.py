"""Embedding memories with another model: searches go on, nothing stored meanwhile is missed, cut off it resumes."""

import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from neuroedge.contract.errors import Conflict, InvalidInput, ModelUnavailable, Unavailable
from neuroedge.contract.models import Embeddings, ModelRef, ModelStatus
from neuroedge.contract.ports import MemoryFilter, NewMemory
from neuroedge.contract.principal import Principal
from neuroedge.infra.queue import JobQueue
from neuroedge.services.reembedding import BATCH, REBUILD_TASK, Reembedding
from neuroedge.stores import knowledge, memories, rebuilds
from neuroedge.stores.derived import Underived
from neuroedge.stores.postgres import Database
from neuroedge.stores.tenant_memories import TenantMemories
from tests.stores.conftest import KEYS, Migrated, new_principal

pytestmark = pytest.mark.anyio
SIZES = {"small": 384, "large": 768, "odd": 100}


class HashEncoder:
    """A direction by the text's hash, of the model's size."""

    def __init__(self, model_id: str, before: Callable[[], Any]) -> None:
        self.model_id = model_id
        self.dim = SIZES[model_id]
        self._before = before

    async def encode(self, texts: Sequence[str], *, kind: str = "passage") -> Embeddings:
        """Equal texts have equal vectors."""
        await self._before()
        seeds = [int.from_bytes(hashlib.sha256(f"{self.model_id}{text}".encode()).digest()[:8]) for text in texts]
        made = np.stack([np.random.default_rng(seed).standard_normal(self.dim) for seed in seeds]).astype(np.float32)
        made /= np.linalg.norm(made, axis=1, keepdims=True)
        return Embeddings(vectors=made, tokens=[1] * len(texts))


class Models:
    """Models by their ids; `small` is the platform's default. `before` runs before each call."""

    def __init__(self) -> None:
        self.calls = 0
        self.before: Callable[[], Any] | None = None

    async def _call(self) -> None:
        self.calls += 1
        if self.before is not None:
            await self.before()

    @asynccontextmanager
    async def lease(self, ref: ModelRef[Any], *, priority: Any = None) -> AsyncIterator[HashEncoder]:
        """The encoder."""
        yield HashEncoder(ref.id or "small", self._call)

    def status(self, ref: ModelRef[Any]) -> ModelStatus:
        """Missing unless it is one of the three."""
        state: Any = "ready" if (ref.id or "small") in SIZES else "missing"
        return ModelStatus(role=ref.role, id=ref.id or "small", state=state, runtime="fake", detail="not in the store")


@pytest.fixture
def models() -> Models:
    """Under the test's control."""
    return Models()


@pytest.fixture
async def service(db: Database, models: Models) -> Reembedding:
    """Without the time other processes need to learn of a switch."""
    queue = JobQueue(db.pool)
    await queue.open()
    queue.app.task(name=REBUILD_TASK)(_unused)
    runner: Any = SimpleNamespace(context=lambda principal, *, request_id: SimpleNamespace(models=models))
    return Reembedding(db=db, runner=runner, queue=queue, known_s=0)


async def _unused(**_: Any) -> None:
    """Jobs are queued here, not run."""


async def _remember(db: Database, caller: Principal, texts: Sequence[str], *, model: str = "small") -> list[UUID]:
    made = await HashEncoder(model, Models()._call).encode(texts)
    return await TenantMemories(db, caller).add(
        [
            NewMemory(content=text, embedding=vector, embedding_model=model, visibility="private")
            for text, vector in zip(texts, made.vectors, strict=True)
        ]
    )


async def _nearest(db: Database, caller: Principal, text: str, model: str) -> tuple[str, float]:
    vector = (await HashEncoder(model, Models()._call).encode([text])).vectors[0]
    found = await TenantMemories(db, caller).search(query="", vector=vector, model=model, limit=1, where=MemoryFilter())
    if not found.dense:
        return "", 0.0
    return found.rows[found.dense[0].id].content, found.dense[0].score


async def _vectors(db: Database, caller: Principal) -> dict[str, int]:
    counts: dict[str, int] = {}
    async with db.tenant(caller) as conn:
        for dim in memories.DIMENSIONS:
            rows = await conn.execute(f"SELECT model, count(*) AS n FROM memory_vectors_{dim} GROUP BY model")
            counts |= {row["model"]: row["n"] for row in await rows.fetchall()}
    return counts


async def test_all_memories_change_over(db: Database, service: Reembedding) -> None:
    """Private ones of other members too; the old vectors go."""
    caller = await new_principal(db)
    colleague = Principal(
        user_id=(await new_principal(db)).user_id,
        org_id=caller.org_id,
        username="c",
        role="member",
        permissions=frozenset(),
    )
    await _remember(db, caller, [f"text {n}" for n in range(BATCH + 5)])
    await _remember(db, colleague, ["a secret"])
    order = await service.order(caller, model="large", request_id="r")
    assert (order.state, order.total, order.model) == ("running", BATCH + 6, "large")
    await service.run(caller, order.id, request_id="r")
    model, rebuild = await service.standing(caller)
    assert rebuild is not None
    assert (model, rebuild.state, rebuild.done) == ("large", "done", BATCH + 6)
    assert await _vectors(db, caller) == {"large": BATCH + 6}
    assert await _nearest(db, caller, "text 7", "large") == ("text 7", pytest.approx(1, abs=1e-3))
    assert (await _nearest(db, colleague, "a secret", "large"))[0] == "a secret"
    assert await _nearest(db, await new_principal(db), "text 7", "large") == ("", 0.0)


async def test_searches_meanwhile_answer_from_the_old_model(db: Database, service: Reembedding, models: Models) -> None:
    """Completely, until the switch; what is stored meanwhile changes over with the rest."""
    caller = await new_principal(db)
    await _remember(db, caller, [f"text {n}" for n in range(BATCH + 5)])
    order = await service.order(caller, model="large", request_id="r")
    seen: list[tuple[str | None, str, float]] = []

    async def look() -> None:
        if len(seen) < 2:
            await _remember(db, caller, [f"meanwhile {len(seen)}"])
            known = await TenantMemories(db, caller).embedding_model()
            seen.append((known, *await _nearest(db, caller, f"text {len(seen)}", "small")))

    models.before = look
    await service.run(caller, order.id, request_id="r")
    assert seen == [(None, f"text {n}", pytest.approx(1, abs=1e-3)) for n in range(2)]
    assert await _vectors(db, caller) == {"large": BATCH + 7}
    assert (await _nearest(db, caller, "meanwhile 1", "large"))[0] == "meanwhile 1"


async def test_a_run_cut_off_goes_on(db: Database, service: Reembedding, models: Models) -> None:
    """What was embedded is not embedded again, and the old model answers in between."""
    caller = await new_principal(db)
    await _remember(db, caller, [f"text {n}" for n in range(3 * BATCH)])
    order = await service.order(caller, model="large", request_id="r")

    async def fail() -> None:
        if models.calls == 2:
            raise Unavailable("the model is away")

    models.before = fail
    with pytest.raises(Unavailable):
        await service.run(caller, order.id, request_id="r")
    assert await _vectors(db, caller) == {"small": 3 * BATCH, "large": BATCH}
    model, rebuild = await service.standing(caller)
    assert (model, rebuild and rebuild.state, rebuild and rebuild.done) == (None, "running", BATCH)
    await service.run(caller, order.id, request_id="r")
    assert models.calls == 4
    assert await _vectors(db, caller) == {"large": 3 * BATCH}


async def test_a_memory_changed_while_it_is_embedded_gets_the_vector_of_its_new_text(
    db: Database, service: Reembedding, models: Models
) -> None:
    """The vector of what it said before is not kept."""
    caller = await new_principal(db)
    [changed, deleted] = await _remember(db, caller, ["before", "to be deleted"])
    order = await service.order(caller, model="large", request_id="r")

    async def change() -> None:
        if models.calls == 1:
            vector = (await HashEncoder("small", Models()._call).encode(["after"])).vectors[0]
            item = NewMemory(content="after", embedding=vector, embedding_model="small")
            async with db.tenant(caller) as conn:
                await memories.replace_content(conn, org_id=caller.org_id, memory_id=changed, item=item)
                await memories.delete(conn, org_id=caller.org_id, ids=[deleted])

    models.before = change
    await service.run(caller, order.id, request_id="r")
    assert await _vectors(db, caller) == {"large": 1}
    assert await _nearest(db, caller, "after", "large") == ("after", pytest.approx(1, abs=1e-3))


async def test_no_switch_while_a_memory_lacks_its_vector(db: Database) -> None:
    """However it came in."""
    caller = await new_principal(db)
    await _remember(db, caller, ["one"])
    async with db.tenant(caller, sees_all=True) as conn:
        assert not await rebuilds.switch(conn, org_id=caller.org_id, model="large", dim=768)
    assert await TenantMemories(db, caller).embedding_model() is None


async def test_without_a_model_words_are_weighed_by_todays_average(
    db: Database, service: Reembedding, models: Models
) -> None:
    """A row stored when all were short counts, after long ones came, as a short one."""
    caller = await new_principal(db)
    store = TenantMemories(db, caller)
    [first] = await _remember(db, caller, ["zebra apple"])
    await _remember(db, caller, ["pear " * 200])
    async with db.tenant(caller) as conn:
        await conn.execute("DELETE FROM memory_vectors_384 WHERE memory_id = %s", [first])

    async def score() -> float:
        return (await store.search(query="zebra", vector=None, model="small", limit=1)).keyword[0].score

    before = await score()
    order = await service.order(caller, model=None, request_id="r")
    await service.run(caller, order.id, request_id="r")
    assert await score() > before * 1.2
    assert await _vectors(db, caller) == {"small": 2}
    assert await store.embedding_model() == "small"


async def test_types_named_later_lose_what_was_derived_from_them(
    db: Database, service: Reembedding, migrated: Migrated, models: Models
) -> None:
    """By a rebuild; named no longer, another rebuild makes it anew."""
    caller = await new_principal(db)
    await _remember(db, caller, ["zebra one", "zebra two"])
    await _read_into_the_graph(db, caller, "Zebra")
    careful = Database(migrated.app_url, max_size=4, keys=KEYS, underived=Underived(embedding=["note"], words=["note"]))
    await careful.open()
    try:
        await _rebuild(Reembedding(db=careful, runner=service._runner, queue=service._queue, known_s=0), caller)
    finally:
        await careful.close()
    assert await _vectors(db, caller) == {}
    assert await _with_words(db, caller) == 0
    async with db.tenant(caller) as conn:
        assert (await knowledge.standing(conn, org_id=caller.org_id, extractor="x")).entities == 0
    await _rebuild(service, caller)
    assert await _vectors(db, caller) == {"small": 2}
    assert await _with_words(db, caller) == 2


async def _read_into_the_graph(db: Database, caller: Principal, name: str) -> None:
    thing = knowledge.FoundThing(key=name.lower(), name=name, type="person", surfaces=[name], places=[(0, 5)])
    async with db.tenant(caller) as conn:
        ids = await knowledge.unread(conn, org_id=caller.org_id, extractor="x", after=None, limit=9)
        texts = await knowledge.contents(conn, org_id=caller.org_id, ids=ids)
        read = [knowledge.Facts(memory_id=t.memory_id, content_mac=t.mac, things=[thing], relations=[]) for t in texts]
        await knowledge.replace(conn, org_id=caller.org_id, extractor="x", read=read)
        assert (await knowledge.standing(conn, org_id=caller.org_id, extractor="x")).entities == 1


async def _rebuild(service: Reembedding, caller: Principal) -> None:
    order = await service.order(caller, model=None, request_id="r")
    await service.run(caller, order.id, request_id="r")


async def _with_words(db: Database, caller: Principal) -> int:
    found = await TenantMemories(db, caller).search(query="zebra", vector=None, model="", limit=9, where=MemoryFilter())
    return len(found.keyword)


async def test_one_rebuild_at_a_time(db: Database, service: Reembedding) -> None:
    """A second order is a conflict until the first is over; a given-up one makes room."""
    caller = await new_principal(db)
    order = await service.order(caller, model="large", request_id="r")
    with pytest.raises(Conflict):
        await service.order(caller, model="small", request_id="r")
    await service.fail(caller, order.id, error="it failed too often")
    _, rebuild = await service.standing(caller)
    assert rebuild is not None
    assert (rebuild.state, rebuild.error) == ("failed", "it failed too often")
    await service.run(caller, order.id, request_id="r")  # the old job, late
    assert (await service.standing(caller))[0] is None
    assert (await service.order(caller, model="small", request_id="r")).state == "running"


@pytest.mark.parametrize(("model", "error"), [("unheard-of", ModelUnavailable), ("odd", InvalidInput)])
async def test_models_that_cannot_be_used(
    db: Database, service: Reembedding, model: str, error: type[Exception]
) -> None:
    """Not there, or of a size that has no table: said at once, nothing is begun."""
    caller = await new_principal(db)
    with pytest.raises(error):
        await service.order(caller, model=model, request_id="r")
    assert await service.standing(caller) == (None, None)
