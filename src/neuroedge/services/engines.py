"""Discovery and registry of engines: every module below `neuroedge.engines`, and entry points of third parties."""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator, Sequence
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any

import neuroedge.engines
from neuroedge.contract.engine import Engine, EngineContext
from neuroedge.contract.errors import NeuroEdgeError, NotFound

ENTRY_POINT_GROUP = "neuroedge.engines"


class EngineDefect(NeuroEdgeError):
    """An engine module breaks the contract; found at start-up, never by a caller."""

    code = "engine_defect"


class Registry:
    """The engines of this platform by name."""

    def __init__(self, engines: Sequence[Engine[Any, Any]]) -> None:
        self._engines = {engine.name: engine for engine in sorted(engines, key=lambda e: e.name)}

    def __iter__(self) -> Iterator[Engine[Any, Any]]:
        return iter(self._engines.values())

    def __len__(self) -> int:
        return len(self._engines)

    def get(self, name: str) -> Engine[Any, Any]:
        """One engine. Raises NotFound with the names there are."""
        if name not in self._engines:
            raise NotFound(f"no engine {name!r}", hint=f"engines: {', '.join(self._engines)}")
        return self._engines[name]


def group(engine: Engine[Any, Any] | type[Engine[Any, Any]]) -> str:
    """The folder an engine belongs to: language, knowledge, speech, vision, learning, decision; else "extension"."""
    cls = engine if inspect.isclass(engine) else type(engine)
    parts = cls.__module__.split(".")
    return parts[2] if parts[:2] == ["neuroedge", "engines"] and len(parts) == 4 else "extension"


def discover() -> list[type[Engine[Any, Any]]]:
    """Every engine class, checked against the contract. Raises EngineDefect naming the module."""
    found = [_engine_of(module) for module in _modules()]
    for point in entry_points(group=ENTRY_POINT_GROUP):
        found.append(_checked(point.load(), where=f"entry point {point.name}"))
    names = [cls.name for cls in found]
    if twice := {name for name in names if names.count(name) > 1}:
        raise EngineDefect(f"two engines are named {', '.join(sorted(twice))}")
    return found


def build(*, probe: EngineContext) -> Registry:
    """The registry of all discovered engines."""
    return Registry([cls(probe=probe) for cls in discover()])


def _modules() -> Iterator[ModuleType]:
    for info in pkgutil.walk_packages(neuroedge.engines.__path__, "neuroedge.engines."):
        if not info.ispkg:
            yield importlib.import_module(info.name)


def _engine_of(module: ModuleType) -> type[Engine[Any, Any]]:
    own = [
        cls
        for _, cls in inspect.getmembers(module, inspect.isclass)
        if issubclass(cls, Engine) and cls is not Engine and cls.__module__ == module.__name__
    ]
    if len(own) != 1:
        raise EngineDefect(f"{module.__name__} must hold exactly one engine, it holds {len(own)}")
    expected = module.__name__.rsplit(".", 1)[1]
    if own[0].name != expected:
        raise EngineDefect(f"the engine in {module.__name__} must be named {expected}, not {own[0].name}")
    return _checked(own[0], where=module.__name__)


def _checked(cls: Any, *, where: str) -> type[Engine[Any, Any]]:
    if not (inspect.isclass(cls) and issubclass(cls, Engine)) or inspect.isabstract(cls):
        raise EngineDefect(f"{where} is no engine")
    for name in ("name", "title", "method", "Input", "Output", "example"):
        if not hasattr(cls, name):
            raise EngineDefect(f"{where} lacks {name}")
    if not isinstance(cls.example, cls.Input):
        raise EngineDefect(f"the example of {where} is not of its Input")
    return cls
