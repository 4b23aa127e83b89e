"""Discovery and registry of engines: every module below `neuroedge.engines`, and entry points of third parties."""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator, Sequence
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any

from pydantic import BaseModel

import neuroedge.engines
from neuroedge.contract.engine import Engine, EngineContext
from neuroedge.contract.errors import NeuroEdgeError, NotFound
from neuroedge.contract.models import ModelRef

ENTRY_POINT_GROUP = "neuroedge.engines"
_TYPES: dict[str, type | tuple[type, ...]] = {
    "name": str,
    "title": str,
    "method": str,
    "version": str,
    "permission": str,
    "timeout_s": (int, float),
    "needs": tuple,
    "Input": type,
    "Output": type,
    "example": BaseModel,
}


class EngineDefect(NeuroEdgeError):
    """An engine module breaks the contract; found at start-up or by a reload, never by a caller."""

    code = "engine_defect"


class Registry:
    """The engines of this platform by name; a reload replaces one at a time."""

    def __init__(self, engines: Sequence[Engine[Any, Any]]) -> None:
        self._engines = {engine.name: engine for engine in sorted(engines, key=lambda e: e.name)}
        self._generations = dict.fromkeys(self._engines, 1)
        self.revision = 0
        """How many times an engine was replaced."""

    def __iter__(self) -> Iterator[Engine[Any, Any]]:
        return iter(self._engines.values())

    def __len__(self) -> int:
        return len(self._engines)

    def get(self, name: str) -> Engine[Any, Any]:
        """One engine. Raises NotFound with the names there are."""
        if name not in self._engines:
            raise NotFound(f"no engine {name!r}", hint=f"engines: {', '.join(self._engines)}")
        return self._engines[name]

    def generation(self, name: str) -> int:
        """1 for the engine the process started with, one more for each that took over. Raises NotFound."""
        return self._generations[self.get(name).name]

    def replace(self, engine: Engine[Any, Any]) -> None:
        """Let `engine` answer every call from now on in place of the one of its name. Raises NotFound."""
        self._generations[engine.name] = self.generation(engine.name) + 1
        self._engines[engine.name] = engine
        self.revision += 1


def group(engine: Engine[Any, Any] | type[Engine[Any, Any]]) -> str:
    """The folder an engine belongs to: language, knowledge, speech, vision, learning, decision; else "extension"."""
    cls = engine if inspect.isclass(engine) else type(engine)
    parts = cls.__module__.split(".")
    return parts[2] if parts[:2] == ["neuroedge", "engines"] and len(parts) == 4 else "extension"


def discover() -> list[type[Engine[Any, Any]]]:
    """Every engine class, checked against the contract. Raises EngineDefect naming the module."""
    found = [_only_engine(module, where=module.__name__) for module in _modules()]
    for point in entry_points(group=ENTRY_POINT_GROUP):
        found.append(_checked(point.load(), where=f"entry point {point.name}"))
    names = [cls.name for cls in found]
    if twice := {name for name in names if names.count(name) > 1}:
        raise EngineDefect(f"two engines are named {', '.join(sorted(twice))}")
    return found


def build(*, probe: EngineContext) -> Registry:
    """The registry of all discovered engines."""
    return Registry([cls(probe=probe) for cls in discover()])


def engine_in(module: ModuleType, *, name: str, where: str) -> type[Engine[Any, Any]]:
    """The engine `name` of a module, whatever that is called; `where` is what its file is called.

    Raises EngineDefect when it is not there or breaks the contract.
    """
    if where.startswith("neuroedge.engines."):
        return _only_engine(module, where=where)
    named = [cls for cls in _engines_of(module) if getattr(cls, "name", None) == name]
    if len(named) != 1:
        raise EngineDefect(f"{where} must hold one engine named {name}, it holds {len(named)}")
    return _checked(named[0], where=where)


def _modules() -> Iterator[ModuleType]:
    for info in pkgutil.walk_packages(neuroedge.engines.__path__, "neuroedge.engines."):
        if not info.ispkg:
            yield importlib.import_module(info.name)


def _engines_of(module: ModuleType) -> list[type[Engine[Any, Any]]]:
    return [
        cls
        for _, cls in inspect.getmembers(module, inspect.isclass)
        if issubclass(cls, Engine) and cls is not Engine and cls.__module__ == module.__name__
    ]


def _only_engine(module: ModuleType, *, where: str) -> type[Engine[Any, Any]]:
    own = _engines_of(module)
    if len(own) != 1:
        raise EngineDefect(f"{where} must hold exactly one engine, it holds {len(own)}")
    cls = _checked(own[0], where=where)
    expected = where.rsplit(".", 1)[1]
    if cls.name != expected:
        raise EngineDefect(f"the engine in {where} must be named {expected}, not {cls.name}")
    return cls


def _checked(cls: Any, *, where: str) -> type[Engine[Any, Any]]:
    if not (inspect.isclass(cls) and issubclass(cls, Engine)) or inspect.isabstract(cls):
        raise EngineDefect(f"{where} is no engine")
    for name, kind in _TYPES.items():
        if not hasattr(cls, name):
            raise EngineDefect(f"{where} lacks {name}")
        if not isinstance(getattr(cls, name), kind):
            raise EngineDefect(f"{name} of {where} is a {type(getattr(cls, name)).__name__}")
    if not (issubclass(cls.Input, BaseModel) and issubclass(cls.Output, BaseModel)):
        raise EngineDefect(f"Input and Output of {where} must be pydantic models")
    if not isinstance(cls.example, cls.Input):
        raise EngineDefect(f"the example of {where} is not of its Input")
    if not all(isinstance(ref, ModelRef) for ref in cls.needs):
        raise EngineDefect(f"needs of {where} must hold model roles")
    if not cls.timeout_s > 0:
        raise EngineDefect(f"timeout_s of {where} must be more than 0")
    return cls
