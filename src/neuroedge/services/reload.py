"""Hot reload: an engine's new version is loaded beside the old one, proves itself, and takes over between two calls.

What fails its proof (services/engine_proof.py) is thrown away and the old version stays; nobody was ever answered by
the new one. Otherwise the swap is one step of the event loop, and calls in flight finish on the old version.
docs/adr/0007-hot-reload.md says what is reloaded and what not.
"""

import asyncio
import os
import secrets
import socket
import sys
import time
from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import Any, Literal
from uuid import UUID

import structlog
from prometheus_client import Counter

from neuroedge.contract.engine import Engine, EngineContext
from neuroedge.contract.errors import Conflict
from neuroedge.contract.principal import Principal
from neuroedge.executors.local import LocalExecutor
from neuroedge.infra.events import Event, Events
from neuroedge.infra.telemetry import Metrics
from neuroedge.services import fresh_module
from neuroedge.services.engine_proof import Rejected, Stage, proven
from neuroedge.services.engines import Registry
from neuroedge.stores import ledgers
from neuroedge.stores.postgres import Database, bind

log = structlog.get_logger(__name__)
TOPIC = "admin-events"
_CHANNEL = "engine-reloads"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reload:
    """How a reload went."""

    engine: str
    outcome: Literal["swapped", "rolled_back"]
    version_before: str
    version_after: str
    """The version that answers from now on; after a roll-back the one before."""
    generation: int
    """Which generation of the engine answers in this process, from 1."""
    stage: Stage | None
    """Where the new version failed."""
    detail: str | None
    drained: bool
    """Whether no call ran on a replaced version any more when this was told."""
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Who asked for a reload, in which request."""

    org_id: UUID
    user_id: UUID
    request_id: str


class EngineReloader:
    """Reloads the engines of this process, and follows the reloads of the installation's other processes."""

    def __init__(
        self,
        *,
        registry: Registry,
        executor: LocalExecutor,
        probe: EngineContext,
        db: Database,
        events: Events,
        metrics: Metrics,
        proof_s: float,
        drain_s: float,
    ) -> None:
        self._registry = registry
        self._executor = executor
        self._probe = probe
        self._db = db
        self._events = events
        self._proof_s = proof_s
        self._drain_s = drain_s
        self._busy: set[str] = set()
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._tasks: set[asyncio.Task[Reload]] = set()
        self._process = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._reloads = Counter(
            "neuroedge_engine_reloads_total",
            "Hot reloads; version is the one that answers afterwards.",
            ("engine", "outcome", "version"),
            registry=metrics.registry,
        )

    async def reload(self, name: str, *, principal: Principal, request_id: str) -> Reload:
        """Reload an engine here and, once it has taken over, in the other processes, which are not waited for.

        Goes on when the caller leaves. Raises NotFound, Conflict while the same engine is being reloaded.
        """
        self._registry.get(name)
        if name in self._busy:
            raise Conflict(f"a reload of {name} is running", hint="wait until it has ended")
        self._busy.add(name)
        asked = Asked(org_id=principal.org_id, user_id=principal.user_id, request_id=request_id)
        task = asyncio.create_task(self._reload(name, asked, broadcast=True))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: self._busy.discard(name))
        return await asyncio.shield(task)

    async def follow(self) -> None:
        """Do for ever, through the same proof, what other processes have done."""
        async for event in self._events.listen(_CHANNEL):
            if event.data.get("process") != self._process:
                await self._repeat(event)

    async def close(self) -> None:
        """End reloads that still run; the old versions stay where the new ones have not taken over."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _repeat(self, event: Event) -> None:
        try:
            data = event.data
            asked = Asked(
                org_id=UUID(data["org_id"]), user_id=UUID(data["user_id"]), request_id=str(data["request_id"])
            )
            await self._reload(str(data["engine"]), asked, broadcast=False)
        except Exception as error:  # the next reload must be followed whatever became of this one
            log.error("reload_not_followed", engine=event.data.get("engine"), exc_info=error)

    async def _reload(self, name: str, asked: Asked, *, broadcast: bool) -> Reload:
        async with self._locks[name]:
            started = time.perf_counter()
            old = self._registry.get(name)
            rejected = await self._swap(old)
            drained = rejected is not None or await self._executor.drain(old, timeout_s=self._drain_s)
            fresh_module.forget_types()
            outcome = Reload(
                engine=name,
                outcome="rolled_back" if rejected else "swapped",
                version_before=old.version,
                version_after=self._registry.get(name).version,
                generation=self._registry.generation(name),
                stage=rejected.stage if rejected else None,
                detail=rejected.detail if rejected else None,
                drained=drained,
                seconds=round(time.perf_counter() - started, 3),
            )
        await self._tell(outcome, asked, broadcast=broadcast)
        return outcome

    async def _swap(self, old: Engine[Any, Any]) -> Rejected | None:
        """Let the present source of an engine take over; when it is rejected, everything is as it was."""
        module = sys.modules[type(old).__module__]
        alias = fresh_module.alias_of(module)
        try:
            copy, new = await proven(old.name, module, alias=alias, probe=self._probe, limit_s=self._proof_s)
        except Rejected as error:
            return error.with_traceback(None)  # its frames would keep the rejected code alive
        else:
            # Nothing is awaited between these two: no call sees half a swap.
            fresh_module.adopt(copy, name=module.__name__)
            self._registry.replace(new)
            return None
        finally:
            fresh_module.discard(alias)

    async def _tell(self, outcome: Reload, asked: Asked, *, broadcast: bool) -> None:
        swapped = outcome.outcome == "swapped"
        self._reloads.labels(outcome.engine, outcome.outcome, outcome.version_after).inc()
        facts = {**asdict(outcome), "process": self._process, "request_id": asked.request_id}
        (log.info if swapped else log.error)("engine_reload", **facts)
        if broadcast and swapped:
            order = {"org_id": str(asked.org_id), "user_id": str(asked.user_id)}
            await self._events.broadcast(_CHANNEL, "engine.reload", {**facts, **order})
        await self._events.publish(asked.org_id, TOPIC, "engine.reload", facts)
        try:
            async with self._db.unbound() as conn:
                await bind(conn, asked.org_id)
                await ledgers.add_audit(
                    conn,
                    org_id=asked.org_id,
                    user_id=asked.user_id,
                    request_id=asked.request_id,
                    action="engine.reloaded" if swapped else "engine.reload_rolled_back",
                    target=f"engine:{outcome.engine}",
                    detail=facts,
                )
        except Exception as error:
            # What is done is done; operators see the line.
            log.error("audit_not_written", action="engine.reload", exc_info=error)
