"""Registry, discovery, and what an engine class must be."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from neuroedge.contract.engine import Engine, EngineInput, EngineOutput
from neuroedge.contract.errors import NotFound
from neuroedge.contract.models import CHAT
from neuroedge.services import engines
from neuroedge.services.engines import EngineDefect, Registry, discover, engine_in, group
from tests.fakes import make_context


class Input(EngineInput):
    """Nothing."""


class Output(EngineOutput):
    """Nothing."""


class First(Engine[Input, Output]):
    """An engine."""

    name = "first"
    title = "The first"
    method = "none"
    example = Input()
    needs = (CHAT,)

    async def run(self, payload: Input, ctx: Any) -> Output:
        """Nothing."""
        return Output(method=self.method)


class Second(First):
    """Another."""

    name = "second"


def _registry() -> Registry:
    probe = make_context()
    return Registry([Second(probe=probe), First(probe=probe)])


def test_engines_are_listed_by_name_and_unknown_ones_are_not_found() -> None:
    """The error says which there are."""
    registry = _registry()
    assert [engine.name for engine in registry] == ["first", "second"]
    for ask in (registry.get, registry.generation):
        with pytest.raises(NotFound) as caught:
            ask("third")
        assert caught.value.hint == "engines: first, second"


def test_replacing_counts_generations_of_that_engine_alone() -> None:
    """The order stays; an engine that was not there cannot be replaced."""
    registry = _registry()
    new = First(probe=registry.get("first").probe)
    registry.replace(new)
    assert registry.get("first") is new
    assert (registry.generation("first"), registry.generation("second"), registry.revision) == (2, 1, 1)
    assert [engine.name for engine in registry] == ["first", "second"]
    with pytest.raises(NotFound):
        Registry([]).replace(new)


def test_every_module_below_engines_is_found_with_its_group() -> None:
    """Names are unique; those of third parties are extensions."""
    found = discover()
    assert {"embedding", "search", "chat", "transcription"} <= {cls.name for cls in found}
    assert {group(cls) for cls in found} <= {"language", "knowledge", "speech", "vision", "learning", "decision"}
    assert group(First) == group(First(probe=make_context())) == "extension"


def test_two_engines_of_one_name_are_a_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which one answers must not depend on the order of installation."""

    class Point:
        name = "x"

        def load(self) -> type[First]:
            return type("Twin", (First,), {"name": "embedding"})

    monkeypatch.setattr(engines, "entry_points", lambda group: [Point()])
    with pytest.raises(EngineDefect, match="two engines are named embedding"):
        discover()


def _with(name: str, value: Any) -> Callable[[], Any]:
    fields = {key: getattr(First, key) for key in ("name", "title", "method", "Input", "Output", "example", "run")}
    return lambda: type("Odd", (Engine,), {**fields, name: value})


def _without(name: str) -> Callable[[], Any]:
    fields = {key: value for key, value in vars(First).items() if key != name and not key.startswith("_")}
    return lambda: type("Lacking", (Engine,), fields)


BREACHES: list[tuple[str, Callable[[], Any]]] = [
    ("is no engine", lambda: object),
    ("is no engine", lambda: First(probe=make_context())),
    ("is no engine", lambda: Engine),
    ("is no engine", _without("run")),
    ("lacks title", _without("title")),
    ("lacks Input", _without("Input")),
    ("lacks example", _without("example")),
    ("name of .* is a int", lambda: type("Odd", (First,), {"name": 7})),
    ("Input of .* is a str", _with("Input", "text")),
    ("must be pydantic models", _with("Output", dict)),
    ("not of its Input", lambda: type("Odd", (First,), {"example": Output(method="x")})),
    ("needs of", lambda: type("Odd", (First,), {"needs": ("chat",)})),
    ("needs of", lambda: type("Odd", (First,), {"needs": [CHAT]})),
    ("timeout_s", lambda: type("Odd", (First,), {"timeout_s": 0})),
    ("timeout_s", lambda: type("Odd", (First,), {"timeout_s": float("nan")})),
]


@pytest.mark.parametrize(("message", "make"), BREACHES)
def test_a_breach_of_the_contract_is_told_with_its_place(
    monkeypatch: pytest.MonkeyPatch, message: str, make: Callable[[], Any]
) -> None:
    """What an entry point gives may be anything."""

    class Point:
        name = "acme"

        def load(self) -> Any:
            return make()

    monkeypatch.setattr(engines, "entry_points", lambda group: [Point()])
    with pytest.raises(EngineDefect, match=message) as caught:
        discover()
    assert "entry point acme" in caught.value.detail


def _module(*classes: type, name: str = "acme") -> ModuleType:
    module = ModuleType(name)
    for cls in classes:
        cls.__module__ = name
        setattr(module, cls.__name__, cls)
    return module


def test_a_third_partys_module_may_hold_several_engines() -> None:
    """The one asked for is meant, not those it imports."""
    own, other = type("Own", (First,), {"name": "own"}), type("Other", (First,), {"name": "other"})
    module = _module(own, other)
    module.Imported = First  # type: ignore[attr-defined]
    assert engine_in(module, name="own", where="acme") is own
    for gone in ("first", "nothing"):
        with pytest.raises(EngineDefect, match="must hold one engine named"):
            engine_in(module, name=gone, where="acme")


def test_a_module_of_ours_holds_one_engine_of_its_name() -> None:
    """Also when the module goes by an alias."""
    own = type("Own", (First,), {"name": "own"})
    module = _module(own, name="neuroedge.engines.language.own@2")
    assert engine_in(module, name="own", where="neuroedge.engines.language.own") is own
    with pytest.raises(EngineDefect, match="must be named other"):
        engine_in(module, name="own", where="neuroedge.engines.language.other")
    with pytest.raises(EngineDefect, match="exactly one engine, it holds 0"):
        engine_in(_module(), name="own", where="neuroedge.engines.language.own")


def test_discovery_executes_nothing_twice(tmp_path: Path) -> None:
    """Modules are those already imported."""
    before = set(sys.modules)
    first, second = discover(), discover()
    assert first == second
    assert set(sys.modules) == before | {cls.__module__ for cls in first}
