"""/v1/engines: what there is, how it is, run one. Each engine's own schemas stand in OpenAPI (http/engine_api.py).

A call reads raw JSON and writes what the engine's Output gives: the engine that answers validates with its own
classes, so that a reload may change them while requests are on their way.
"""

import asyncio
import math
from collections.abc import Callable, Coroutine
from typing import Any, Final

import structlog
from fastapi import APIRouter, Depends, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import to_json
from starlette.requests import ClientDisconnect

from neuroedge.contract.engine import Engine, Health
from neuroedge.contract.errors import InvalidInput
from neuroedge.contract.principal import Principal
from neuroedge.http.auth import Reader, ThePlatform, bearer, engine_caller, platform_of, request_id_of
from neuroedge.http.departure import CLIENT_LEFT, ClientLeft, unless_client_leaves
from neuroedge.http.engine_api import RUN_PATH
from neuroedge.http.json_body import json_object
from neuroedge.http.platform import Platform
from neuroedge.infra.telemetry import Latency
from neuroedge.services.engines import group

log = structlog.get_logger(__name__)
_HEALTH_S: Final = 5.0
_NOT_JSON: dict[int | str, dict[str, Any]] = {
    415: {
        "description": "The body is not declared as JSON",
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
}


class LatencyBucket(BaseModel):
    """Calls that took up to so long, and longer than those of the bucket before."""

    up_to_s: float | None = Field(description="Seconds; null: longer than every bound.")
    calls: int


class EngineLatency(BaseModel):
    """Successful calls since this process started."""

    calls: int
    p50_s: float | None = Field(default=None, description="Median in seconds, estimated within its bucket.")
    p95_s: float | None = Field(default=None, description="Seconds that 95 of 100 calls did not exceed.")
    histogram: list[LatencyBucket] = Field(default_factory=list, description="Buckets with calls.")


class EngineOut(BaseModel):
    """An engine of the catalogue."""

    name: str
    group: str
    title: str
    version: str
    generation: int = Field(description="1, and one more for each hot reload that took over in this process.")
    method: str
    models: list[str] = Field(description="Roles of the models it leases.")
    timeout_s: float


class EngineDetailOut(EngineOut):
    """An engine with its schemas."""

    description: str
    input_schema: dict[str, Any]
    output_schema: dict[str, Any]
    example: dict[str, Any]


class EngineListed(EngineOut):
    """An engine with how it is and how fast it was."""

    health: Health
    latency: EngineLatency


class EngineList(BaseModel):
    """All engines."""

    count: int
    engines: list[EngineListed]


class EngineRun(BaseModel):
    """An engine call by name."""

    model_config = ConfigDict(extra="forbid")

    engine: str = Field(description="Name of the engine.", examples=["embedding"])
    payload: dict[str, Any] = Field(description="The engine's input.")


_ENVELOPE = EngineRun.model_json_schema()


class EngineAnswer(BaseModel):
    """An engine's answer."""

    engine: str
    version: str
    request_id: str
    result: dict[str, Any] = Field(description="The engine's output.")


_Endpoint = Callable[[Request], Coroutine[Any, Any, Response]]


class CallRoute(APIRoute):
    """A route whose endpoint gets the request alone, and asks for its caller itself.

    FastAPI's dependencies take as long as all the rest of a small call. Those of this route only stand in OpenAPI.
    """

    def get_route_handler(self) -> _Endpoint:
        """The endpoint, unless the caller has left."""
        return unless_left(self.endpoint)


def unless_left(endpoint: _Endpoint) -> _Endpoint:
    """The endpoint, and the answer to a caller who has left, which nobody reads."""

    async def handle(request: Request) -> Response:
        try:
            return await endpoint(request)
        except (ClientLeft, ClientDisconnect):
            return Response(status_code=CLIENT_LEFT)

    return handle


def build_router() -> APIRouter:
    """The routes."""
    router = APIRouter(tags=["engines"])
    _add_call(router, RUN_PATH, _run, summary="Run an engine", responses=_NOT_JSON)
    _add_call(
        router,
        "/engine/run",
        _run_named,
        summary="Run an engine by name",
        responses={**_NOT_JSON, 200: {"model": EngineAnswer}},
        openapi_extra={"requestBody": {"required": True, "content": {"application/json": {"schema": _ENVELOPE}}}},
    )
    router.add_api_route("/v1/engines", _list, methods=["GET"], summary="List engines", response_model=EngineList)
    router.add_api_route("/engines", _list, methods=["GET"], summary="List engines", response_model=EngineList)
    router.add_api_route("/v1/engines/{name}", _show, methods=["GET"], summary="Show an engine")
    router.add_api_route("/v1/engines/{name}/health", _health, methods=["GET"], summary="Health of an engine")
    router.add_api_route("/engines/{name}/health", _health, methods=["GET"], summary="Health of an engine")
    return router


def _add_call(router: APIRouter, path: str, endpoint: Callable[..., Any], **documentation: Any) -> None:
    router.add_api_route(
        path,
        endpoint,
        methods=["POST"],
        response_model=None,
        dependencies=[Depends(bearer)],
        route_class_override=CallRoute,
        **documentation,
    )


async def _list(principal: Reader, platform: ThePlatform) -> EngineList:
    """Every engine, by name, with its health and the latency of its calls."""
    engines = list(platform.runner.registry)
    states = await asyncio.gather(*map(_state, engines))
    latency = platform.metrics.engine_latency()
    found = [
        EngineListed(**_facts(engine, platform), health=health, latency=_latency(latency.get(engine.name)))
        for engine, health in zip(engines, states, strict=True)
    ]
    return EngineList(count=len(found), engines=found)


async def _show(name: str, principal: Reader, platform: ThePlatform) -> EngineDetailOut:
    """One engine with its schemas and example."""
    engine = platform.runner.registry.get(name)
    return EngineDetailOut(
        **_facts(engine, platform),
        description=(engine.__class__.__doc__ or "").strip(),
        input_schema=engine.Input.model_json_schema(),
        output_schema=engine.Output.model_json_schema(),
        example=engine.example.model_dump(mode="json", exclude_none=True),
    )


async def _health(name: str, principal: Reader, platform: ThePlatform) -> Health:
    """Whether the engine can answer now, by which method, and what is missing."""
    return await platform.runner.registry.get(name).health()


async def _state(engine: Engine[Any, Any]) -> Health:
    """Its health; one engine that cannot tell does not keep the others' from being shown."""
    try:
        async with asyncio.timeout(_HEALTH_S):
            return await engine.health()
    except Exception as error:
        log.warning("health_failed", engine=engine.name, exc_info=error)
        return Health(status="unavailable", method=engine.method, detail="its health check failed; see the log")


def _latency(measured: Latency | None) -> EngineLatency:
    if measured is None:
        return EngineLatency(calls=0)
    return EngineLatency(
        calls=measured.calls,
        p50_s=measured.quantile_s(0.5),
        p95_s=measured.quantile_s(0.95),
        histogram=[
            LatencyBucket(up_to_s=None if bound == math.inf else bound, calls=calls)
            for bound, calls in measured.buckets
            if calls
        ],
    )


async def _run(request: Request) -> Response:
    caller, name = await engine_caller(request), request.path_params["name"]
    platform_of(request).runner.registry.get(name)
    return await _answer(name, await json_object(request), request, caller)


run = unless_left(_run)
"""The call for http/middleware.py's DirectRoute."""


async def _run_named(request: Request) -> Response:
    """Run the engine the body names."""
    caller = await engine_caller(request)
    asked = _envelope(await json_object(request))
    return await _answer(asked.engine, asked.payload, request, caller)


def _envelope(body: dict[str, Any]) -> EngineRun:
    try:
        return EngineRun.model_validate(body)
    except ValidationError as error:
        raise InvalidInput(
            "the request is not what this route takes",
            hint="the OpenAPI page shows its schema: /docs",
            errors=error.errors(include_url=False, include_input=False, include_context=False),
        ) from error


async def _answer(name: str, payload: dict[str, Any], request: Request, caller: Principal) -> Response:
    runner, request_id = platform_of(request).runner, request_id_of(request)
    # Read in the same step of the event loop as the runner does: the version is that of the engine that answers.
    version = runner.registry.get(name).version
    work = runner.run(name, payload, principal=caller, request_id=request_id)
    result = await unless_client_leaves(request, work)
    head = to_json({"engine": name, "version": version, "request_id": request_id})
    body = b'%s,"result":%s}' % (head[:-1], result.model_dump_json().encode())
    return Response(body, media_type="application/json")


def _facts(engine: Engine[Any, Any], platform: Platform) -> dict[str, Any]:
    return {
        "name": engine.name,
        "group": group(engine),
        "title": engine.title,
        "version": engine.version,
        "generation": platform.runner.registry.generation(engine.name),
        "method": engine.method,
        "models": [ref.role for ref in engine.needs],
        "timeout_s": engine.timeout_s,
    }
