"""One table over all engines: every engine keeps the contract."""

import inspect
import json
import subprocess
import sys
from typing import Any

import httpx
import pytest

from neuroedge.contract.engine import Engine, EngineInput, EngineOutput
from neuroedge.services.engines import discover, group

ENGINES = discover()
ANSWER_S = 120


@pytest.fixture(params=ENGINES, ids=lambda cls: cls.name)
def engine(request: pytest.FixtureRequest) -> type[Engine[Any, Any]]:
    """Each engine in turn."""
    cls: type[Engine[Any, Any]] = request.param
    return cls


def test_an_engine_is_named_as_its_file_and_says_what_it_does(engine: type[Engine[Any, Any]]) -> None:
    """Name = file; title, method and class docstring are there."""
    assert engine.__module__.endswith(f".{engine.name}")
    assert group(engine) in ("language", "knowledge", "speech", "vision", "learning", "decision")
    assert len(engine.title) > 8
    assert engine.method
    assert inspect.getdoc(inspect.getmodule(engine))


def test_every_field_is_described_and_unknown_fields_are_refused(engine: type[Engine[Any, Any]]) -> None:
    """Input and Output derive from the contract's bases, and each field has a description."""
    assert issubclass(engine.Input, EngineInput)
    assert issubclass(engine.Output, EngineOutput)
    for model in (engine.Input, engine.Output):
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name} has no description"


def test_its_example_survives_json(engine: type[Engine[Any, Any]]) -> None:
    """The example is valid input after a trip through JSON."""
    assert engine.Input.model_validate(json.loads(engine.example.model_dump_json())) == engine.example


def test_importing_all_engines_loads_no_heavy_library() -> None:
    """Start-up stays light: engines reach libraries through ports only."""
    heavy = ("scipy", "onnxruntime", "ctranslate2", "faster_whisper", "av", "xllamacpp", "torch", "yake", "sklearn")
    code = (
        "import sys; from neuroedge.services.engines import discover; discover();"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.models
def test_it_answers_its_example_over_http(engine: type[Engine[Any, Any]], account: httpx.Client) -> None:
    """The example is answered by the real engine, and the answer is of its Output."""
    example = engine.example.model_dump(mode="json", exclude_none=True)
    answer = account.post(f"/v1/engines/{engine.name}/run", json=example, timeout=ANSWER_S)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["engine"] == engine.name
    assert engine.Output.model_validate(body["result"])
    assert body["result"]["method"]


@pytest.mark.models
def test_its_health_names_the_method_and_models(engine: type[Engine[Any, Any]], account: httpx.Client) -> None:
    """With the default models pulled, every engine is ready, or says what it would need to be better."""
    health = account.get(f"/v1/engines/{engine.name}/health").json()
    assert health["status"] == "ready" or (health["status"] == "degraded" and health["detail"]), health
    assert health["method"] == engine.method or health["status"] == "degraded"
    assert len(health["models"]) == len(engine.needs)


def test_bad_input_is_a_422_that_names_the_field(engine: type[Engine[Any, Any]], account: httpx.Client) -> None:
    """An unknown field is refused with its name and a hint, by the typed route and by /engine/run."""
    typed = account.post(f"/v1/engines/{engine.name}/run", json={"no_such_field": 1})
    named = account.post("/engine/run", json={"engine": engine.name, "payload": {"no_such_field": 1}})
    for answer in (typed, named):
        assert answer.status_code == 422
        body = answer.json()
        assert answer.headers["content-type"] == "application/problem+json"
        assert body["code"] == "invalid_input"
        assert "no_such_field" in json.dumps(body["errors"])


def test_its_schemas_stand_in_openapi(engine: type[Engine[Any, Any]], account: httpx.Client) -> None:
    """OpenAPI documents the run route with the engine's own types."""
    api = account.get("/openapi.json").json()
    run = api["paths"][f"/v1/engines/{engine.name}/run"]["post"]
    body = run["requestBody"]["content"]["application/json"]["schema"]["$ref"].rsplit("/", 1)[1]
    assert set(api["components"]["schemas"][body]["properties"]) == set(engine.Input.model_fields)
