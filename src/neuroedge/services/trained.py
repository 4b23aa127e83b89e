"""Models that an organisation trained on its own tables: kept sealed, run, listed, deleted.

A model belongs to the organisation: all its members may run it. It goes when whoever trained it is erased, because
it tells of the rows it was trained on.
"""

import asyncio
import hashlib
from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from numpy.typing import NDArray

from neuroedge.contract.errors import Conflict, NotFound, SealBroken, TooLarge
from neuroedge.contract.principal import Principal
from neuroedge.contract.trained import OnnxGraphs, TrainedModel
from neuroedge.infra.blobs import TenantBlobs
from neuroedge.services.audit import audited
from neuroedge.services.housekeeping import forget_blobs
from neuroedge.services.orphans import sweep_orphans
from neuroedge.services.run_engine import Contexts
from neuroedge.stores import trained
from neuroedge.stores.ids import new_id
from neuroedge.stores.postgres import Connection, Database

MAX_MODELS: Final = 100
"""Of one organisation."""
MAX_TOTAL_BYTES: Final = 256 << 20
"""Of one organisation's graphs together."""
MAX_GRAPH_BYTES: Final = 32 << 20


class TenantTrainedModels:
    """The TrainedModels port of one caller."""

    def __init__(
        self, *, db: Database, principal: Principal, blobs: TenantBlobs, graphs: OnnxGraphs, request_id: str
    ) -> None:
        self._db = db
        self._principal = principal
        self._blobs = blobs
        self._graphs = graphs
        self._request_id = request_id

    async def keep(self, *, name: str, kind: str, card: Mapping[str, Any], graph: bytes) -> TrainedModel:
        """Store a model. Raises Conflict when the organisation has too many, TooLarge; then nothing is kept."""
        if len(graph) > MAX_GRAPH_BYTES:
            raise TooLarge(f"the model has {len(graph)} bytes", hint=f"at most {MAX_GRAPH_BYTES}; use fewer units")
        caller, model_id = self._principal, new_id()
        try:
            await self._blobs.put(_content(model_id), graph)
            async with self._db.tenant(caller) as conn:
                await _within_quota(conn, caller.org_id, len(graph))
                kept = await trained.insert(
                    conn,
                    org_id=caller.org_id,
                    user_id=caller.user_id,
                    model_id=model_id,
                    name=name,
                    kind=kind,
                    card=card,
                    size_bytes=len(graph),
                    sha256=hashlib.sha256(graph).hexdigest(),
                )
                await _audit(conn, caller, self._request_id, "trained_model.created", model_id)
        except BaseException:
            await asyncio.shield(forget_blobs(self._blobs, _folder(model_id)))
            raise
        return kept

    async def get(self, model_id: UUID) -> TrainedModel:
        """One of the organisation's. Raises NotFound."""
        async with self._db.tenant(self._principal) as conn:
            return await _found(conn, self._principal, model_id)

    async def run(self, model: TrainedModel, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Outputs by name of a stored model. Raises NotFound, ModelFailed, Overloaded, SealBroken."""

        async def graph() -> bytes:
            content = await self._blobs.get(_content(model.id))
            if hashlib.sha256(content).hexdigest() != model.sha256:
                raise SealBroken(f"the graph of the model {model.id} is not the one that was stored")
            return content

        key = _key(self._principal.org_id, model.id)
        return await self._graphs.run_kept(key, graph, inputs)

    async def try_out(self, graph: bytes, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Outputs by name of a graph that is not stored. Raises ModelFailed, Overloaded."""
        return await self._graphs.run(graph, inputs)


class TrainedCatalogue:
    """The caller's organisation's models, for who looks after them."""

    def __init__(self, *, db: Database, contexts: Contexts, graphs: OnnxGraphs) -> None:
        self._db = db
        self._contexts = contexts
        self._graphs = graphs

    async def page(self, principal: Principal, *, limit: int, after: UUID | None) -> list[TrainedModel]:
        """Newest first."""
        async with self._db.tenant(principal) as conn:
            return await trained.page(conn, org_id=principal.org_id, limit=limit, after=after)

    async def get(self, principal: Principal, model_id: UUID) -> TrainedModel:
        """One of them. Raises NotFound."""
        async with self._db.tenant(principal) as conn:
            return await _found(conn, principal, model_id)

    async def delete(self, principal: Principal, model_id: UUID, *, request_id: str) -> None:
        """Delete one with its graph. Raises NotFound."""
        async with self._db.tenant(principal) as conn:
            if not await trained.delete(conn, org_id=principal.org_id, model_id=model_id):
                raise _not_found(model_id)
            await _audit(conn, principal, request_id, "trained_model.deleted", model_id)
        self._graphs.forget(_key(principal.org_id, model_id))
        # What cannot be deleted now is an object without a row, which the sweep deletes.
        await forget_blobs(self._contexts.blobs(principal), _folder(model_id))

    async def sweep(self) -> int:
        """Delete graphs that a crash left without a row; how many."""
        return await sweep_orphans(self._db, self._contexts, "trained_models", exist=trained.exist)


async def _within_quota(conn: Connection, org_id: UUID, new_bytes: int) -> None:
    await trained.lock(conn, org_id=org_id)
    count, total_bytes = await trained.total(conn, org_id=org_id)
    if count >= MAX_MODELS or total_bytes + new_bytes > MAX_TOTAL_BYTES:
        raise Conflict(
            f"your organisation has {count} trained models of {total_bytes} bytes already",
            hint=f"at most {MAX_MODELS} models of {MAX_TOTAL_BYTES} bytes; DELETE /v1/trained-models/{{model_id}}",
        )


async def _found(conn: Connection, principal: Principal, model_id: UUID) -> TrainedModel:
    found = await trained.find(conn, org_id=principal.org_id, model_id=model_id)
    if found is None:
        raise _not_found(model_id)
    return found


def _not_found(model_id: UUID) -> NotFound:
    return NotFound(f"your organisation has no trained model {model_id}", hint="GET /v1/trained-models lists them")


def _key(org_id: UUID, model_id: UUID) -> str:
    return f"{org_id}/{model_id}"


def _folder(model_id: UUID) -> str:
    return f"trained_models/{model_id}"


def _content(model_id: UUID) -> str:
    return f"{_folder(model_id)}/model.onnx"


async def _audit(conn: Connection, principal: Principal, request_id: str, action: str, model_id: UUID) -> None:
    await audited(conn, principal, request_id=request_id, action=action, target=f"trained_model:{model_id}")
