"""Trained models over a real database and folder: kept whole or not at all, quota, seals, other tenants, leftovers."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest

from neuroedge.contract.errors import Conflict, NotFound, SealBroken, TooLarge
from neuroedge.contract.principal import Principal
from neuroedge.contract.trained import TrainedModel
from neuroedge.services import housekeeping
from neuroedge.services import trained as service
from neuroedge.services.run_engine import Contexts
from neuroedge.services.trained import TenantTrainedModels, TrainedCatalogue
from neuroedge.stores import trained as store
from neuroedge.stores.postgres import Database
from tests.services.test_files import contexts_over
from tests.stores.conftest import new_principal

pytestmark = pytest.mark.anyio
GRAPH = b"a graph of words that nobody else may read"


class Graphs:
    """OnnxGraphs that give back the graph, and keep what was asked under its key."""

    def __init__(self) -> None:
        self.open: dict[str, bytes] = {}

    async def run(self, graph: bytes, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The graph's length."""
        return {"length": np.array([len(graph)])}

    async def run_kept(
        self, key: str, graph: Callable[[], Awaitable[bytes]], inputs: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Likewise."""
        if key not in self.open:
            self.open[key] = await graph()
        return await self.run(self.open[key], inputs)

    def forget(self, key: str) -> None:
        """Close it."""
        self.open.pop(key, None)


class Bench:
    """The service over the test's database and a folder."""

    def __init__(self, db: Database, folder: Path) -> None:
        self.db = db
        self.folder = folder
        self.contexts: Contexts = contexts_over(db, folder)
        self.graphs = Graphs()
        self.catalogue = TrainedCatalogue(db=db, contexts=self.contexts, graphs=self.graphs)

    def models(self, caller: Principal) -> TenantTrainedModels:
        """The caller's port."""
        return TenantTrainedModels(
            db=self.db, principal=caller, blobs=self.contexts.blobs(caller), graphs=self.graphs, request_id="r"
        )

    async def keep(self, caller: Principal, *, graph: bytes = GRAPH, name: str = "churn") -> TrainedModel:
        """A model whose card names a column."""
        card = {"features": [{"name": "a column"}]}
        return await self.models(caller).keep(name=name, kind="regression", card=card, graph=graph)

    async def objects(self, caller: Principal) -> int:
        """Objects of the caller's models."""
        return await self.contexts.blobs(caller).count("trained_models")

    async def rows(self, caller: Principal) -> list[UUID]:
        """Ids of the caller's models."""
        return [model.id for model in await self.catalogue.page(caller, limit=50, after=None)]


@pytest.fixture
def bench(db: Database, tmp_path: Path) -> Bench:
    """Everything but an engine."""
    return Bench(db, tmp_path)


@pytest.fixture
async def caller(db: Database) -> Principal:
    """The owner of a fresh organisation."""
    return await new_principal(db)


async def test_a_model_is_kept_sealed_and_runs(bench: Bench, caller: Principal) -> None:
    """Neither its graph nor its columns' names lie in plain text; what comes back is what was kept."""
    kept = await bench.keep(caller)
    models = bench.models(caller)
    assert (await models.get(kept.id)).card == {"features": [{"name": "a column"}]}
    assert (await models.run(kept, {}))["length"].tolist() == [len(GRAPH)]
    files = [path.read_bytes() for path in bench.folder.rglob("*") if path.is_file()]
    assert files
    assert not any(b"nobody else" in data for data in files)
    async with bench.db.tenant(caller) as conn:
        row = await (await conn.execute("SELECT sealed FROM trained_models")).fetchone()
    assert row is not None
    assert b"a column" not in bytes(row["sealed"])
    assert b"churn" not in bytes(row["sealed"])


async def test_another_organisation_has_none_of_it(bench: Bench, caller: Principal, db: Database) -> None:
    """It cannot find, run, list or delete a model, also when it knows all of its row."""
    kept, stranger = await bench.keep(caller), await new_principal(db)
    models = bench.models(stranger)
    with pytest.raises(NotFound):
        await models.get(kept.id)
    with pytest.raises(NotFound):
        await models.run(kept, {})
    await bench.models(caller).run(kept, {})
    with pytest.raises(NotFound):  # an open session of the owner's is not the stranger's
        await models.run(kept, {})
    with pytest.raises(NotFound):
        await bench.catalogue.delete(stranger, kept.id, request_id="r")
    assert await bench.rows(stranger) == []
    assert await bench.rows(caller) == [kept.id]


async def test_a_graph_that_was_changed_does_not_run(bench: Bench, caller: Principal) -> None:
    """Another model's content under its name, though sealed with the organisation's key."""
    kept = await bench.keep(caller)
    await bench.contexts.blobs(caller).put(f"trained_models/{kept.id}/model.onnx", b"another graph")
    with pytest.raises(SealBroken):
        await bench.models(caller).run(kept, {})


async def test_an_organisation_keeps_so_many_models(
    bench: Bench, caller: Principal, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By number and by bytes, its own only; what is refused leaves nothing, and a deletion makes room."""
    monkeypatch.setattr(service, "MAX_MODELS", 2)
    first, second = await bench.keep(caller), await bench.keep(caller)
    with pytest.raises(Conflict):
        await bench.keep(caller)
    await bench.keep(await new_principal(db))
    await bench.catalogue.delete(caller, first.id, request_id="r")
    monkeypatch.setattr(service, "MAX_TOTAL_BYTES", 2 * len(GRAPH) - 1)
    with pytest.raises(Conflict):
        await bench.keep(caller)
    monkeypatch.setattr(service, "MAX_GRAPH_BYTES", len(GRAPH) - 1)
    with pytest.raises(TooLarge):
        await bench.keep(caller)
    assert (await bench.rows(caller), await bench.objects(caller)) == ([second.id], 1)


async def test_many_at_once_stay_within_the_quota(
    bench: Bench, caller: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of four at the same moment for two places, two are kept."""
    monkeypatch.setattr(service, "MAX_MODELS", 2)
    ended = await asyncio.gather(*(bench.keep(caller) for _ in range(4)), return_exceptions=True)
    assert sorted(isinstance(one, Conflict) for one in ended) == [False, False, True, True]
    assert (len(await bench.rows(caller)), await bench.objects(caller)) == (2, 2)


async def test_a_model_whose_row_cannot_be_stored_leaves_no_object(
    bench: Bench, caller: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the call is cancelled meanwhile."""

    async def never(*_: Any, **__: Any) -> Any:
        raise asyncio.CancelledError

    monkeypatch.setattr(store, "insert", never)
    with pytest.raises(asyncio.CancelledError):
        await bench.keep(caller)
    assert (await bench.rows(caller), await bench.objects(caller)) == ([], 0)


async def test_a_deleted_model_is_gone_everywhere(bench: Bench, caller: Principal) -> None:
    """Row, object and open session; who still has its row cannot run it."""
    kept = await bench.keep(caller)
    await bench.models(caller).run(kept, {})
    await bench.catalogue.delete(caller, kept.id, request_id="r")
    assert (await bench.rows(caller), await bench.objects(caller), bench.graphs.open) == ([], 0, {})
    with pytest.raises(NotFound):
        await bench.models(caller).run(kept, {})
    with pytest.raises(NotFound):
        await bench.catalogue.delete(caller, kept.id, request_id="r")


async def test_what_a_crash_left_is_swept(bench: Bench, caller: Principal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Objects without a row, once they are old; models stay."""
    kept = await bench.keep(caller)
    await bench.contexts.blobs(caller).put(f"trained_models/{uuid4()}/model.onnx", GRAPH)
    await bench.catalogue.sweep()
    monkeypatch.setattr(housekeeping, "_ORPHAN_S", -(10**12))
    assert await bench.catalogue.sweep() >= 1
    assert await bench.objects(caller) == 1
    assert (await bench.models(caller).run(kept, {}))["length"].tolist() == [len(GRAPH)]


async def test_pages_go_from_new_to_old(bench: Bench, caller: Principal) -> None:
    """Each model once."""
    made = [(await bench.keep(caller, name=str(i))).id for i in range(3)]
    first = await bench.catalogue.page(caller, limit=2, after=None)
    rest = await bench.catalogue.page(caller, limit=2, after=first[-1].id)
    assert [model.id for model in (*first, *rest)] == made[::-1]
