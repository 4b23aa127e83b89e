"""OpenAPI of the engines that answer now: one run operation each, with its own schemas, also after a reload."""

import copy
from collections.abc import Iterable
from typing import Any

from fastapi import FastAPI
from pydantic.json_schema import models_json_schema

from neuroedge.contract.engine import Engine
from neuroedge.services.engines import discover

RUN_PATH = "/v1/engines/{name}/run"
_REFERENCE = "#/components/schemas/"
AnyEngine = Engine[Any, Any] | type[Engine[Any, Any]]


def document(app: FastAPI) -> None:
    """Let `app.openapi()` describe the running engines; those discovered, as long as no platform is open."""
    general = app.openapi
    described: int | None = None

    def openapi() -> dict[str, Any]:
        nonlocal described
        platform = getattr(app.state, "platform", None)
        revision = platform.runner.registry.revision if platform else -1
        if revision != described:
            app.openapi_schema = None
        schema = general()
        if RUN_PATH in schema["paths"]:
            describe_runs(schema, platform.runner.registry if platform else discover())
        described = revision
        return schema

    app.openapi = openapi  # type: ignore[method-assign]


def describe_runs(schema: dict[str, Any], engines: Iterable[AnyEngine]) -> None:
    """Put a run operation for each engine in the place of the one for any name."""
    general = schema["paths"].pop(RUN_PATH)["post"]
    components = schema.setdefault("components", {}).setdefault("schemas", {})
    for engine in engines:
        path = RUN_PATH.replace("{name}", engine.name)
        schema["paths"][path] = {"post": _operation(general, engine, components)}


def _operation(general: dict[str, Any], engine: AnyEngine, components: dict[str, Any]) -> dict[str, Any]:
    taken, given, parts = _schemas(engine, taken=set(components))
    answer = _free(f"{_title(engine)}Answer", {*components, *parts})
    components |= parts
    components[answer] = {
        "title": answer,
        "type": "object",
        "required": ["engine", "version", "request_id", "result"],
        "properties": {
            "engine": {"type": "string", "title": "Engine"},
            "version": {"type": "string", "title": "Version"},
            "request_id": {"type": "string", "title": "Request Id"},
            "result": _reference(given),
        },
    }
    operation = copy.deepcopy(general)
    operation.pop("parameters", None)
    operation["operationId"] = f"run_{engine.name}_v1_engines_{engine.name}_run_post"
    operation["summary"] = f"Run {engine.name}: {engine.title}"
    operation["requestBody"] = {
        "required": True,
        "content": {
            "application/json": {
                "schema": _reference(taken),
                "example": engine.example.model_dump(mode="json", exclude_none=True),
            }
        },
    }
    operation["responses"]["200"]["content"] = {"application/json": {"schema": _reference(answer)}}
    return operation


def _schemas(engine: AnyEngine, *, taken: set[str]) -> tuple[str, str, dict[str, Any]]:
    """Names of the Input's and the Output's schema, and all schemas they need, each named by the engine."""
    models = ((engine.Input, "validation"), (engine.Output, "serialization"))
    found, document = models_json_schema(models, ref_template=f"{_REFERENCE}{{model}}")  # type: ignore[arg-type]
    first, second = (found[model]["$ref"].removeprefix(_REFERENCE) for model in models)  # type: ignore[index]
    wanted = {second: "Output", first: "Input"}
    names: dict[str, str] = {}
    for short in document["$defs"]:
        own = wanted.get(short, short).removeprefix(_title(engine))
        names[short] = _free(_title(engine) + own, {*taken, *names.values()})
    parts = {
        names[short]: {**_renamed(part, names), "title": names[short]} for short, part in document["$defs"].items()
    }
    return names[first], names[second], parts


def _renamed(value: Any, names: dict[str, str]) -> Any:
    """A schema whose references (also those of a discriminator's mapping) use the new names."""
    if isinstance(value, dict):
        return {key: _renamed(inner, names) for key, inner in value.items()}
    if isinstance(value, list):
        return [_renamed(inner, names) for inner in value]
    if isinstance(value, str) and value.removeprefix(_REFERENCE) in names and value.startswith(_REFERENCE):
        return _REFERENCE + names[value.removeprefix(_REFERENCE)]
    return value


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name = f"Engine{name}"
    return name


def _title(engine: AnyEngine) -> str:
    return engine.name.title().replace("_", "")


def _reference(name: str) -> dict[str, str]:
    return {"$ref": _REFERENCE + name}
