"""/v1/engines: what there is, how it is, run one. Each engine's own schemas stand in OpenAPI."""

from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, create_model

from neuroedge.contract.engine import Engine, Health
from neuroedge.http.auth import Reader, RequestId, Runner, ThePlatform
from neuroedge.services.engines import discover, group


class EngineOut(BaseModel):
    """An engine of the catalogue."""

    name: str
    group: str
    title: str
    version: str
    method: str
    models: list[str] = Field(description="Roles of the models it leases.")
    timeout_s: float


class EngineDetailOut(EngineOut):
    """An engine with its schemas."""

    description: str
    input_schema: dict[str, Any]
    output_schema: dict[str, Any]
    example: dict[str, Any]


class EngineList(BaseModel):
    """All engines."""

    count: int
    engines: list[EngineOut]


class EngineRun(BaseModel):
    """An engine call by name."""

    model_config = ConfigDict(extra="forbid")

    engine: str = Field(description="Name of the engine.", examples=["embedding"])
    payload: dict[str, Any] = Field(description="The engine's input.")


class EngineAnswer(BaseModel):
    """An engine's answer."""

    engine: str
    version: str
    request_id: str
    result: SerializeAsAny[BaseModel]


def build_router() -> APIRouter:
    """The routes; one `run` for each engine, so that its types are in OpenAPI."""
    router = APIRouter(tags=["engines"])
    router.add_api_route("/v1/engines", _list, methods=["GET"], summary="List engines", response_model=EngineList)
    router.add_api_route("/v1/engines/{name}", _show, methods=["GET"], summary="Show an engine")
    router.add_api_route("/v1/engines/{name}/health", _health, methods=["GET"], summary="Health of an engine")
    for cls in discover():
        _add_run(router, cls)
    router.add_api_route("/v1/engines/{name}/run", _run_unlisted, methods=["POST"], include_in_schema=False)
    router.add_api_route("/engine/run", _run_named, methods=["POST"], summary="Run an engine by name")
    return router


def _add_run(router: APIRouter, cls: type[Engine[Any, Any]]) -> None:
    answer = create_model(f"{cls.name.title().replace('_', '')}Answer", __base__=EngineAnswer, result=(cls.Output, ...))

    async def run(payload, principal, platform, request_id):  # type: ignore[no-untyped-def]
        return await _run(cls.name, payload, principal, platform, request_id)

    run.__annotations__ = {
        "payload": cls.Input,
        "principal": Runner,
        "platform": ThePlatform,
        "request_id": RequestId,
    }
    router.add_api_route(
        f"/v1/engines/{cls.name}/run",
        run,
        methods=["POST"],
        name=f"run_{cls.name}",
        summary=f"Run {cls.name}: {cls.title}",
        response_model=answer,
    )


async def _list(principal: Reader, platform: ThePlatform) -> EngineList:
    """Every engine, by name."""
    found = [EngineOut(**_facts(engine)) for engine in platform.runner.registry]
    return EngineList(count=len(found), engines=found)


async def _show(name: str, principal: Reader, platform: ThePlatform) -> EngineDetailOut:
    """One engine with its schemas and example."""
    engine = platform.runner.registry.get(name)
    return EngineDetailOut(
        **_facts(engine),
        description=(engine.__class__.__doc__ or "").strip(),
        input_schema=engine.Input.model_json_schema(),
        output_schema=engine.Output.model_json_schema(),
        example=engine.example.model_dump(mode="json", exclude_none=True),
    )


async def _health(name: str, principal: Reader, platform: ThePlatform) -> Health:
    """Whether the engine can answer now, by which method, and what is missing."""
    return await platform.runner.registry.get(name).health()


async def _run_unlisted(
    name: str, request: Request, principal: Runner, platform: ThePlatform, request_id: RequestId
) -> EngineAnswer:
    """Engines that came after start-up, and the 404 of names that are none."""
    platform.runner.registry.get(name)
    return await _run(name, await request.json(), principal, platform, request_id)


async def _run_named(body: EngineRun, principal: Runner, platform: ThePlatform, request_id: RequestId) -> EngineAnswer:
    """Run the engine the body names."""
    return await _run(body.engine, body.payload, principal, platform, request_id)


async def _run(name: str, payload: Any, principal: Runner, platform: ThePlatform, request_id: str) -> EngineAnswer:
    result = await platform.runner.run(name, payload, principal=principal, request_id=request_id)
    return EngineAnswer(
        engine=name, version=platform.runner.registry.get(name).version, request_id=request_id, result=result
    )


def _facts(engine: Engine[Any, Any]) -> dict[str, Any]:
    return {
        "name": engine.name,
        "group": group(engine),
        "title": engine.title,
        "version": engine.version,
        "method": engine.method,
        "models": [ref.role for ref in engine.needs],
        "timeout_s": engine.timeout_s,
    }
