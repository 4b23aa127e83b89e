"""/health, /ready, /metrics: for operators and their orchestrators, without a token."""

import asyncio
import time
from collections.abc import Awaitable
from importlib.metadata import version
from typing import Literal

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel

from neuroedge.contract.errors import NeuroEdgeError
from neuroedge.http.auth import ThePlatform

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


@router.get("/health", summary="Liveness")
async def health() -> HealthOut:
    """200 as long as the process answers."""
    return HealthOut(version=version("neuroedge"))


@router.get("/ready", summary="Readiness", response_model=ReadyOut)
async def ready(platform: ThePlatform) -> JSONResponse:
    """200 when database and cache answer, else 503 with what is wrong."""
    database, cache = await asyncio.gather(_check(platform.db.ping()), _check(platform.events.ping()))
    checks = {"database": database, "cache": cache}
    good = all(check.status == "ok" for check in checks.values())
    body = ReadyOut(status="ready" if good else "not_ready", checks=checks)
    return JSONResponse(body.model_dump(exclude_none=True), 200 if good else 503)


@router.get("/metrics", summary="Prometheus metrics", response_class=Response)
async def metrics(platform: ThePlatform) -> Response:
    """Metrics in the Prometheus text format; no tenant stands in them."""
    for slot in platform.pool.slots():
        platform.metrics.model_loaded.labels(slot.entry.id).set(slot.state == "ready")
        if slot.load_s is not None:
            platform.metrics.model_load_seconds.labels(slot.entry.id).set(slot.load_s)
    return Response(generate_latest(platform.metrics.registry), media_type=CONTENT_TYPE_LATEST)


async def _check(answer: Awaitable[None]) -> Check:
    started = time.perf_counter()
    detail = None
    try:
        await asyncio.wait_for(answer, _CHECK_TIMEOUT_S)
    except NeuroEdgeError as error:
        detail = error.detail
    except TimeoutError:
        detail = f"no answer within {_CHECK_TIMEOUT_S:g} s"
    latency_ms = round((time.perf_counter() - started) * 1000, 1)
    return Check(status="failed" if detail else "ok", latency_ms=latency_ms, detail=detail)
