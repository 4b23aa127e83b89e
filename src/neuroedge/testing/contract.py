"""The tests every engine passes: a class to derive from, with the engines as `engines` (see neuroedge.testing)."""

import inspect
import json
import sys
import time
from collections.abc import Iterator
from typing import Any, ClassVar, Final

import httpx
import pytest
from pydantic import BaseModel

from neuroedge.contract.engine import Engine, EngineInput, EngineOutput
from neuroedge.testing.bad_input import BadInput, bad_inputs

ANSWER_S: Final = 120
"""Longest answer to an engine's example, its models loaded by it."""
_SPARE_S: Final = 15.0
"""What an answer may take beyond the engine's own limit: reading, validating and writing megabytes."""
AnyEngine = type[Engine[Any, Any]]


class _EachEngine:
    """Tests whose `engine` is each of `engines` in turn, and whose `neuroedge_client` is a caller of a server."""

    engines: ClassVar[tuple[AnyEngine, ...]] = ()

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Called by pytest for each test."""
        if "engine" in metafunc.fixturenames:
            metafunc.parametrize("engine", self.engines, ids=[engine.name for engine in self.engines])


class EngineContract(_EachEngine):
    """What holds for every engine."""

    def test_it_says_what_it_does(self, engine: AnyEngine) -> None:
        """Name, title and method are there, and its module tells task, method and limits."""
        assert engine.name.isidentifier()
        assert engine.name == engine.name.lower()
        assert len(engine.title) > 8
        assert engine.method
        assert inspect.getdoc(sys.modules[engine.__module__]) or inspect.getdoc(engine)

    def test_every_field_is_described_and_unknown_ones_are_refused(self, engine: AnyEngine) -> None:
        """Input and Output derive from the contract's bases; each field, also of what they hold, has a description."""
        assert issubclass(engine.Input, EngineInput)
        assert issubclass(engine.Output, EngineOutput)
        for model in (engine.Input, engine.Output):
            assert not [name for name, field in model.model_fields.items() if not field.description]
            for name, held in model.model_json_schema().get("$defs", {}).items():
                bare = [field for field, told in held.get("properties", {}).items() if not told.get("description")]
                assert not bare, f"{name}: {bare}"

    def test_its_example_survives_json(self, engine: AnyEngine) -> None:
        """The example is valid input after a trip through JSON."""
        assert engine.Input.model_validate(json.loads(engine.example.model_dump_json())) == engine.example

    @pytest.mark.models
    def test_it_answers_its_example_over_http(self, engine: AnyEngine, neuroedge_client: httpx.Client) -> None:
        """The example is answered by the real engine, and the answer is of its Output."""
        example = engine.example.model_dump(mode="json", exclude_none=True)
        answer = neuroedge_client.post(f"/v1/engines/{engine.name}/run", json=example, timeout=ANSWER_S)
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert body["engine"] == engine.name
        assert engine.Output.model_validate(body["result"])
        assert body["result"]["method"]

    @pytest.mark.models
    def test_its_health_names_the_method_and_models(self, engine: AnyEngine, neuroedge_client: httpx.Client) -> None:
        """With its models there it is ready, or says what it would need to be better."""
        health = neuroedge_client.get(f"/v1/engines/{engine.name}/health").json()
        assert health["status"] == "ready" or (health["status"] == "degraded" and health["detail"]), health
        assert health["method"] == engine.method or health["status"] == "degraded"
        assert len(health["models"]) == len(engine.needs)

    def test_an_unknown_field_is_a_422_that_names_it(self, engine: AnyEngine, neuroedge_client: httpx.Client) -> None:
        """By the typed route and by /engine/run."""
        wrong = {"no_such_field": 1}
        typed = neuroedge_client.post(f"/v1/engines/{engine.name}/run", json=wrong)
        named = neuroedge_client.post("/engine/run", json={"engine": engine.name, "payload": wrong})
        for answer in (typed, named):
            assert answer.status_code == 422
            body = answer.json()
            assert answer.headers["content-type"] == "application/problem+json"
            assert body["code"] == "invalid_input"
            assert "no_such_field" in json.dumps(body["errors"])

    def test_its_schemas_stand_in_openapi(self, engine: AnyEngine, neuroedge_client: httpx.Client) -> None:
        """OpenAPI documents the run route with the engine's own types."""
        api = neuroedge_client.get("/openapi.json").json()
        run = api["paths"][f"/v1/engines/{engine.name}/run"]["post"]
        body = run["requestBody"]["content"]["application/json"]["schema"]["$ref"].rsplit("/", 1)[1]
        assert set(api["components"]["schemas"][body]["properties"]) == set(engine.Input.model_fields)


class BadInputContract(_EachEngine):
    """Generated wrong inputs over HTTP: a 422 that names the field, or a result; never a 500, never too late."""

    def test_what_the_schema_forbids_is_a_422_that_names_the_field(
        self, engine: AnyEngine, neuroedge_client: httpx.Client
    ) -> None:
        """Missing, of the wrong type, null, empty, too large, infinite, unknown: the field's path and a hint."""
        wrong = [case for case in bad_inputs(engine) if case.refused]
        assert wrong
        faults = [fault for case in wrong for fault in _refusal(case, _sent(neuroedge_client, engine, case))]
        assert not faults, "\n".join(faults)

    @pytest.mark.models
    def test_what_is_unusual_has_a_result_or_the_callers_error(
        self, engine: AnyEngine, neuroedge_client: httpx.Client
    ) -> None:
        """Thousands of items, strange characters, another language, huge numbers: answered within the limit."""
        faults: list[str] = []
        for case in bad_inputs(engine):
            if case.refused:
                continue
            began = time.monotonic()
            answer = _sent(neuroedge_client, engine, case)
            faults += _answer(engine, case, answer, seconds=time.monotonic() - began)
        assert not faults, "\n".join(faults)


def _sent(client: httpx.Client, engine: AnyEngine, case: BadInput) -> httpx.Response:
    return client.post(
        f"/v1/engines/{engine.name}/run",
        content=case.body(),
        headers={"Content-Type": "application/json"},
        timeout=engine.timeout_s + 2 * _SPARE_S,
    )


def _refusal(case: BadInput, answer: httpx.Response) -> Iterator[str]:
    """What is wrong with the answer to input that the schema forbids."""
    if answer.status_code != 422:
        yield f"{case.name}: {answer.status_code} {answer.text[:300]}"
        return
    body = answer.json()
    if not body.get("hint"):
        yield f"{case.name}: no hint in {answer.text[:300]}"
    if case.path and str(case.path[0]) not in json.dumps(body.get("errors", [])):
        yield f"{case.name}: the field is not named in {answer.text[:300]}"


def _answer(engine: AnyEngine, case: BadInput, answer: httpx.Response, *, seconds: float) -> Iterator[str]:
    """What is wrong with the answer to input that is unusual."""
    if seconds > engine.timeout_s + _SPARE_S:
        yield f"{case.name}: answered after {seconds:.0f} s, the limit is {engine.timeout_s:.0f} s"
    if answer.status_code == 200:
        result: BaseModel = engine.Output.model_validate(answer.json()["result"])
        no_numbers: list[str] = []
        json.loads(answer.text, parse_constant=no_numbers.append)
        if no_numbers or not getattr(result, "method", None):
            yield f"{case.name}: {answer.text[:300]}"
    elif not 400 <= answer.status_code < 500 or not (answer.json().get("hint") or answer.json().get("errors")):
        yield f"{case.name}: {answer.status_code} {answer.text[:300]}"
