"""/health, /ready, /metrics: for operators and their orchestrators, without a token."""

import asyncio
import time
from collections.abc import Awaitable
from importlib.metadata import version
from typing import Literal

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, Field

from neuroedge.contract.engine import Health
from neuroedge.contract.errors import NeuroEdgeError
from neuroedge.http.auth import Reader, ThePlatform
from neuroedge.http.platform import Platform
from neuroedge.runtimes import memory

router = APIRouter(tags=["system"])
_CHECK_TIMEOUT_S = 3.0


class HealthOut(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"
    version: str


class Check(BaseModel):
    """One thing the platform needs."""

    status: Literal["ok", "failed"]
    latency_ms: float
    detail: str | None = None


class ReadyOut(BaseModel):
    """Whether requests can be served."""

    status: Literal["ready", "not_ready"]
    checks: dict[str, Check]


class CircuitOut(BaseModel):
    """A circuit breaker that was used."""

    state: Literal["closed", "open", "half_open"]
    failures: int = Field(description="In a row.")
    retry_after_s: float


class DetailedHealthOut(ReadyOut):
    """What an operator looks at first."""

    version: str
    uptime_s: float
    resident_bytes: int = Field(description="Resident memory of this process.")
    pressure: Literal["normal", "high", "critical", "emergency"]
    circuits: dict[str, CircuitOut]
    models_in_memory: list[str]
    engines: dict[str, Health]


@router.get("/health", summary="Liveness")
async def health() -> HealthOut:
    """200 as long as the process answers."""
    return HealthOut(version=version("neuroedge"))


@router.get("/ready", summary="Readiness", response_model=ReadyOut)
async def ready(platform: ThePlatform) -> JSONResponse:
    """200 when database, cache and models are as they should be, else 503 with what is wrong."""
    found = await readiness(platform)
    return JSONResponse(found.model_dump(exclude_none=True), 200 if found.status == "ready" else 503)


@router.get("/health/detailed", summary="Everything an operator asks first")
async def detailed(principal: Reader, platform: ThePlatform) -> DetailedHealthOut:
    """Checks, circuit breakers, memory, models and the health of every engine."""
    found = await readiness(platform)
    return DetailedHealthOut(
        status=found.status,
        checks=found.checks,
        version=version("neuroedge"),
        uptime_s=round(time.monotonic() - platform.started, 1),
        resident_bytes=memory.resident_bytes(),
        pressure=platform.pool.pressure(),
        circuits={
            name: CircuitOut(state=b.state, failures=b.failures, retry_after_s=round(b.retry_after_s, 1))
            for name, b in platform.breakers.states().items()
        },
        models_in_memory=[slot.entry.id for slot in platform.pool.slots() if slot.loaded],
        engines={engine.name: await engine.health() for engine in platform.runner.registry},
    )


@router.get("/metrics", summary="Prometheus metrics", response_class=Response)
async def metrics(platform: ThePlatform) -> Response:
    """Metrics in the Prometheus text format; no tenant stands in them."""
    _read_state(platform)
    return Response(generate_latest(platform.metrics.registry), media_type=CONTENT_TYPE_LATEST)


def _read_state(platform: Platform) -> None:
    """Set the gauges of what is, not of what happens."""
    gauges, pool = platform.inference_metrics, platform.pool
    for slot in pool.slots():
        gauges.loaded.labels(slot.entry.id).set(slot.loaded is not None)
        gauges.bytes.labels(slot.entry.id).set(slot.loaded.bytes if slot.loaded else 0)
        gauges.leases.labels(slot.entry.id).set(slot.leases)
        if slot.load_s is not None:
            gauges.load_seconds.labels(slot.entry.id).set(slot.load_s)
    for device, budget in pool.rooms.budget_bytes.items():
        gauges.memory_budget.labels(device).set(budget)
        gauges.memory_used.labels(device).set(pool.rooms.used.get(device, 0))
    for name, breaker in platform.breakers.states().items():
        gauges.circuit.labels(name).set({"closed": 0.0, "half_open": 0.5, "open": 1.0}[breaker.state])
    gauges.cache_bytes.set(platform.cache.memory_bytes)
    gauges.resident.set(memory.resident_bytes())
    gauges.cores_in_use.set(pool.cores.in_use)
    gauges.overcommitted.set(pool.cores.overcommitted)


async def readiness(platform: Platform) -> ReadyOut:
    """Whether database, cache and models are as they should be."""
    database, cache = await asyncio.gather(_check(platform.db.ping()), _check(platform.events.ping()))
    checks = {"database": database, "cache": cache, "models": _models(platform)}
    good = all(check.status == "ok" for check in checks.values())
    return ReadyOut(status="ready" if good else "not_ready", checks=checks)


def _models(platform: Platform) -> Check:
    """Failed when a model that serves its role did not load; the pool tries it again by itself."""
    wrong = [slot for slot in platform.pool.failed() if platform.catalogue.active(slot.entry)]
    detail = "; ".join(f"{slot.entry.id}: {slot.error}" for slot in wrong) or None
    return Check(status="failed" if wrong else "ok", latency_ms=0.0, detail=detail)


async def _check(answer: Awaitable[None]) -> Check:
    started = time.perf_counter()
    detail = None
    try:
        async with asyncio.timeout(_CHECK_TIMEOUT_S):
            await answer
    except NeuroEdgeError as error:
        detail = error.detail
    except TimeoutError:
        detail = f"no answer within {_CHECK_TIMEOUT_S:g} s"
    latency_ms = round((time.perf_counter() - started) * 1000, 1)
    return Check(status="failed" if detail else "ok", latency_ms=latency_ms, detail=detail)
