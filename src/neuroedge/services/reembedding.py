"""Embedding an organisation's memories with another model while searches go on with the present one.

All memories get a vector by the new model beside the old one, batch by batch; then the organisation is switched, in a
transaction that no memory is stored beside. Other processes learn of it within TENANT_KEPT_S and until then search,
and store, with the old model; so after that time what they stored is caught up, and only then the old vectors go.
Every step does what is left to do: a run that was cut off is simply run again.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final
from uuid import UUID

from neuroedge.contract.errors import Conflict, InvalidInput, ModelUnavailable
from neuroedge.contract.models import TEXT_EMBEDDING
from neuroedge.contract.principal import Principal
from neuroedge.infra.queue import TASK_QUEUE, JobQueue
from neuroedge.services.run_engine import EngineRunner
from neuroedge.stores import rebuilds
from neuroedge.stores.ids import new_id
from neuroedge.stores.memories import DIMENSIONS
from neuroedge.stores.postgres import TENANT_KEPT_S, Database
from neuroedge.stores.rebuilds import Rebuild

REBUILD_TASK: Final = "rebuild_index"
BATCH: Final = 64
"""Memories embedded at a time: what is lost when a run is cut off."""


class Reembedding:
    """Rebuilds what an organisation's memories are found by."""

    def __init__(self, *, db: Database, runner: EngineRunner, queue: JobQueue, known_s: float = TENANT_KEPT_S) -> None:
        self._db = db
        self._runner = runner
        self._queue = queue
        self._known_s = known_s

    async def order(self, principal: Principal, *, model: str | None, request_id: str) -> Rebuild:
        """Queue embedding all memories with `model`; without one, weighing the words anew and embedding what has no
        vector. Raises Conflict, InvalidInput, ModelUnavailable."""
        org_id, rebuild_id = principal.org_id, new_id()
        wanted = model or (await self._db.known(org_id)).embedding_model
        chosen, _ = await self._proven(principal, wanted, request_id=request_id)
        async with self._db.tenant(principal, sees_all=True) as conn:
            if not await rebuilds.request(
                conn, org_id=org_id, rebuild_id=rebuild_id, model=chosen, words=model is None
            ):
                raise Conflict("the index is being rebuilt", hint="GET /v1/index tells how far it is")
            await self._queue.defer(
                conn,
                REBUILD_TASK,
                lock=f"rebuild/{org_id}",
                args={
                    "org_id": str(org_id),
                    "user_id": str(principal.user_id),
                    "rebuild_id": str(rebuild_id),
                    "request_id": request_id,
                },
                queue=TASK_QUEUE,
                priority="low",
            )
            found = await rebuilds.find(conn, org_id=org_id)
        assert found is not None
        return found

    async def standing(self, principal: Principal) -> tuple[str | None, Rebuild | None]:
        """The model memories are searched with, None for the platform's default, and the last rebuild."""
        async with self._db.tenant(principal) as conn:
            found = await rebuilds.find(conn, org_id=principal.org_id)
        return (await self._db.known(principal.org_id)).embedding_model, found

    async def run(self, principal: Principal, rebuild_id: UUID, *, request_id: str) -> None:
        """Do what is left of a rebuild."""
        org_id = principal.org_id
        async with self._db.tenant(principal) as conn:
            rebuild = await rebuilds.find(conn, org_id=org_id)
        if rebuild is None or rebuild.id != rebuild_id or rebuild.state != "running":
            return
        if rebuild.words:
            await self._reweigh(principal, rebuild)
        await self._until_none_left(principal, rebuilds.forget_unembedded)
        model, dim = await self._proven(principal, rebuild.model, request_id=request_id)
        while not await self._switched(principal, model, dim):
            await self._embed(principal, rebuild, dim, request_id=request_id)
        if not rebuild.words:
            await self._note(principal, rebuild, "switching", await self._embedded(principal, model, dim))
            await asyncio.sleep(self._known_s)
            await self._embed(principal, rebuild, dim, request_id=request_id)
            await self._until_none_left(principal, partial(rebuilds.forget_others, model=model))
        async with self._db.tenant(principal) as conn:
            await rebuilds.finish(conn, org_id=org_id, rebuild_id=rebuild_id)

    async def fail(self, principal: Principal, rebuild_id: UUID, *, error: str) -> None:
        """Give a rebuild up; searches go on with the model they had."""
        async with self._db.tenant(principal) as conn:
            await rebuilds.finish(conn, org_id=principal.org_id, rebuild_id=rebuild_id, error=error)

    async def _proven(self, principal: Principal, model: str | None, *, request_id: str) -> tuple[str, int]:
        """Id and dimensions of a model that can be had and stored."""
        models = self._runner.context(principal, request_id=request_id).models
        status = models.status(TEXT_EMBEDDING.named(model))
        if status.state == "missing":
            raise ModelUnavailable(
                f"the model {model or status.id} cannot be used: {status.detail}",
                hint="`neuroedge models list` names what is there",
            )
        async with models.lease(TEXT_EMBEDDING.named(model)) as encoder:
            if encoder.dim not in DIMENSIONS:
                raise InvalidInput(
                    f"{encoder.model_id} makes {encoder.dim} dimensions, which cannot be stored",
                    hint=f"use a model with one of {DIMENSIONS}",
                )
            return encoder.model_id, encoder.dim

    async def _switched(self, principal: Principal, model: str, dim: int) -> bool:
        async with self._db.tenant(principal, sees_all=True) as conn:
            done = await rebuilds.switch(conn, org_id=principal.org_id, model=model, dim=dim)
        if done:
            self._db.forget(principal.org_id)
        return done

    async def _embed(self, principal: Principal, rebuild: Rebuild, dim: int, *, request_id: str) -> None:
        """Embed what lacks a vector, from the first to the last memory."""
        models = self._runner.context(principal, request_id=request_id).models
        after, done = None, await self._embedded(principal, rebuild.model, dim)
        while True:
            async with self._db.tenant(principal, sees_all=True) as conn:
                rows = await rebuilds.lacking(
                    conn, org_id=principal.org_id, model=rebuild.model, dim=dim, after=after, limit=BATCH
                )
            if not rows:
                return
            async with models.lease(TEXT_EMBEDDING.named(rebuild.model)) as encoder:
                made = await encoder.encode([row.text for row in rows], kind="passage")
            async with self._db.tenant(principal, sees_all=True) as conn:
                await rebuilds.keep(
                    conn, org_id=principal.org_id, model=rebuild.model, rows=rows, vectors=list(made.vectors)
                )
            after, done = rows[-1].id, done + len(rows)
            await self._note(principal, rebuild, "embedding", done)

    async def _embedded(self, principal: Principal, model: str, dim: int) -> int:
        async with self._db.tenant(principal) as conn:
            return await rebuilds.embedded(conn, org_id=principal.org_id, model=model, dim=dim)

    async def _reweigh(self, principal: Principal, rebuild: Rebuild) -> None:
        after: UUID | None = None
        done = 0
        while True:
            async with self._db.tenant(principal, sees_all=True) as conn:
                after = await rebuilds.reweigh(conn, org_id=principal.org_id, after=after, limit=BATCH)
            if after is None:
                return
            done += BATCH
            await self._note(principal, rebuild, "weighing", min(done, rebuild.total))

    async def _until_none_left(self, principal: Principal, forget_some: Callable[..., Awaitable[bool]]) -> None:
        more = True
        while more:
            async with self._db.tenant(principal, sees_all=True) as conn:
                more = await forget_some(conn, org_id=principal.org_id)

    async def _note(self, principal: Principal, rebuild: Rebuild, stage: str, done: int) -> None:
        async with self._db.tenant(principal) as conn:
            await rebuilds.note(conn, org_id=principal.org_id, rebuild_id=rebuild.id, stage=stage, done=done)
